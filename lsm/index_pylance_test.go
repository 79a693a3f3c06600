package lsm

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
)

// pylanceIndex is what pylance is asked about indexes: it does something to a dataset, and then lists the indexes and
// counts the rows of some filters, with the plan for each.
const pylanceIndex = `import json, lance, sys
root, act, filters = sys.argv[1], sys.argv[2], sys.argv[3:]
ds = lance.dataset(root)
if act == "optimize":
    ds.optimize.optimize_indices()
elif act == "compact":
    ds.optimize.compact_files(target_rows_per_fragment=10_000_000)
elif act.startswith("create "):
    ds.create_scalar_index(act.split()[1], "BTREE", name=act.split()[2])
elif act.startswith("drop "):
    ds.drop_index(act.split()[1])
elif act == "append":
    ds.insert(ds.to_table(filter="id < 10"))
ds = lance.dataset(root)
out = {"Indexes": {x.name: x.num_rows_indexed for x in ds.describe_indices() if not x.name.startswith("__")}, "Rows": ds.count_rows(), "Fragments": len(ds.get_fragments()), "Filters": {}}
for f in filters:
    s = ds.scanner(filter=f)
    out["Filters"][f] = {"Rows": s.to_table().num_rows, "Plan": s.explain_plan(True), "Scanned": ds.scanner(filter=f, use_scalar_index=False).to_table().num_rows}
print(json.dumps(out))`

// pylanceSays is its answer.
type pylanceSays struct {
	Indexes         map[string]int64
	Rows, Fragments int64
	Filters         map[string]struct {
		Rows, Scanned int64
		Plan          string
	}
}

// askPylance runs the script. Each filter must have the same rows by the index as without.
func askPylance(t *testing.T, root, act string, filters ...string) pylanceSays {
	t.Helper()
	var says pylanceSays
	require.NoError(t, json.Unmarshal(python.Run(t, pylanceIndex, append([]string{root, act}, filters...)...), &says))
	for f, x := range says.Filters {
		require.Equal(t, x.Scanned, x.Rows, "%s\n%s", f, x.Plan)
	}
	return says
}

// indexTypes are the columns of the table that the test indexes, and a filter for each as Lance has it.
func indexTypes() ([]arrow.Field, map[string]string) {
	fields := []arrow.Field{
		{Name: "i", Type: arrow.PrimitiveTypes.Int32}, {Name: "u", Type: arrow.PrimitiveTypes.Uint64}, {Name: "f", Type: arrow.PrimitiveTypes.Float64},
		{Name: "g", Type: arrow.PrimitiveTypes.Float32}, {Name: "b", Type: arrow.FixedWidthTypes.Boolean}, {Name: "s", Type: arrow.BinaryTypes.String},
		{Name: "d", Type: arrow.FixedWidthTypes.Date32}, {Name: "ts", Type: arrow.FixedWidthTypes.Timestamp_us},
		{Name: "n", Type: &arrow.Decimal128Type{Precision: 20, Scale: 2}}, {Name: "x", Type: arrow.BinaryTypes.Binary},
	}
	for i := range fields {
		fields[i].Nullable = true
	}
	return fields, map[string]string{
		"i": "i = 7", "u": "u >= 5 and u < 9", "f": "f > 0.5 and f <= 2.5", "g": "g = 1.5", "b": "b = true", "s": "s = 'v3'",
		"d": "d >= date '1970-01-05' and d < date '1970-01-09'", "ts": "ts = timestamp '1970-01-01 00:00:00.000007'",
	}
}

// indexedBatch returns rows with ids from first on; the other columns follow from the id and a seed.
func indexedBatch(s *arrow.Schema, first, n, seed int64) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for id := first; id < first+n; id++ {
		b.Field(0).(*array.Int64Builder).Append(id)
		v := (id*7919 + seed*31) % 400
		for i := 1; i < s.NumFields(); i++ {
			if (id+int64(i)+seed)%11 == 0 {
				b.Field(i).AppendNull()
				continue
			}
			switch b := b.Field(i).(type) {
			case *array.BooleanBuilder:
				b.Append(v%97 == 0)
			case *array.StringBuilder:
				b.Append(fmt.Sprint("v", v))
			case *array.BinaryBuilder:
				b.Append([]byte{byte(v), 0})
			case *array.Float64Builder:
				b.Append(float64(v)/2 - 50)
			case *array.Float32Builder:
				b.Append(float32(v)/2 - 50)
			case *array.Uint64Builder:
				b.Append(uint64(v))
			case *array.Int32Builder:
				b.Append(int32(v))
			case *array.Date32Builder:
				b.Append(arrow.Date32(v))
			case *array.TimestampBuilder:
				b.Append(arrow.Timestamp(v))
			case *array.Decimal128Builder:
				_ = b.AppendValueFromString(fmt.Sprintf("%d.%02d", v/10, v%10))
			}
		}
	}
	return b.NewRecordBatch()
}

// TestLanceAndIndexes has pylance use the indexes that we write, of base and generations, and extend them, while we
// use those that it made or extended, for every kind of type.
func TestLanceAndIndexes(t *testing.T) {
	python.Need(t)
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	name := TableName{Name: "t"}
	fields, filters := indexTypes()
	schema := arrow.NewSchema(append([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, fields...), nil)
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: name, Schema: schema, Key: []string{"id"}}))
	table, root := mustTable(t, db, "t"), filepath.Join(dir, "t.lance")
	put := func(first, n, seed int64) {
		rec := indexedBatch(schema, first, n, seed)
		defer rec.Release()
		lsn, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
	}
	put(0, 5000, 1)
	require.NoError(t, db.Optimize(ctx, name))
	var list []string
	for _, f := range fields { // built over the base
		require.NoError(t, db.CreateIndex(ctx, name, IndexDef{Name: f.Name + "_by", Kind: BTreeIndex, Columns: []string{f.Name}}, CreateIndexOptions{}))
	}
	for _, f := range filters {
		list = append(list, f)
	}
	uses := func(says pylanceSays, what string) {
		t.Helper()
		for f, x := range says.Filters {
			require.Contains(t, x.Plan, "ScalarIndexQuery", "%s: %s", what, f)
		}
	}
	says := askPylance(t, root, "", list...)
	require.Len(t, says.Indexes, len(fields)+1)
	require.EqualValues(t, 5000, says.Indexes["s_by"])
	uses(says, "built")

	put(4000, 3000, 2) // 1,000 of them replace others
	require.NoError(t, db.Flush(ctx, name))
	generations, err := filepath.Glob(filepath.Join(root, "_mem_wal", "*", "*_gen_*"))
	require.NoError(t, err)
	require.Len(t, generations, 1)
	says = askPylance(t, generations[0], "", list...)
	require.Len(t, says.Indexes, len(fields))
	uses(says, "generation")
	put(6000, 1500, 3) // 500 of them are replaced within a memtable
	put(6500, 1000, 4)
	require.NoError(t, db.Optimize(ctx, name))
	says = askPylance(t, root, "", list...)
	require.EqualValues(t, 7500, says.Rows)
	require.EqualValues(t, 7500, says.Indexes["i_by"])
	uses(says, "merged")

	compareColumns(t, db, name, true)
	says = askPylance(t, root, "append", list...) // rows that no index covers
	require.EqualValues(t, 7510, says.Rows)
	require.NoError(t, db.Optimize(ctx, name))
	compareColumns(t, db, name, false)
	uses(askPylance(t, root, "optimize", list...), "optimized")
	require.NoError(t, db.Optimize(ctx, name))
	compareColumns(t, db, name, true)
	put(100, 300, 5)
	require.NoError(t, db.Optimize(ctx, name))
	before := askPylance(t, root, "").Fragments
	says = askPylance(t, root, "compact", list...)
	require.Less(t, says.Fragments, before)
	uses(says, "compacted")
	require.NoError(t, db.Optimize(ctx, name))
	compareColumns(t, db, name, true)

	require.NoError(t, db.DropIndex(ctx, name, "i_by"))
	require.NotContains(t, askPylance(t, root, "").Indexes, "i_by")
	askPylance(t, root, "create i theirs")
	require.NoError(t, db.Optimize(ctx, name))
	infos := table.Indexes()
	last := infos[len(infos)-1]
	require.True(t, last.Foreign)
	require.Equal(t, "theirs", last.Name)
	require.Zero(t, last.Uncovered)
	compareColumns(t, db, name, true)
	put(50, 100, 6)
	require.NoError(t, db.Optimize(ctx, name)) // the new rows are not in it
	compareColumns(t, db, name, false)
	require.NoError(t, db.CreateIndex(ctx, name, IndexDef{Name: "THEIRS", Kind: BTreeIndex, Columns: []string{"i"}}, CreateIndexOptions{}))
	compareColumns(t, db, name, true)
	says = askPylance(t, root, "", "i = 7")
	require.Equal(t, says.Rows, says.Indexes["theirs"])
	uses(says, "taken over")
	askPylance(t, root, "drop s_by")
	require.NoError(t, db.Optimize(ctx, name))
	compareColumns(t, db, name, false)
	require.NoError(t, table.OptimizeIndex(ctx, "s_by", nil))
	compareColumns(t, db, name, true)
	requireSound(t, crashCopy(t, dir))
}

// compareColumns asks for points and ranges of each column that has an index and compares the rows with those of a full
// scan. With byIndex, nothing may be read but what the index finds.
func compareColumns(t *testing.T, db *DB, name TableName, byIndex bool) {
	t.Helper()
	ctx := context.Background()
	snap, err := db.Snapshot(ctx)
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(name)
	require.NoError(t, err)
	for c := 1; c < v.Schema().NumFields(); c++ {
		all := columnValues(t, v, c, nil, nil)
		require.NotEmpty(t, all.rows)
		for at := 0; at < len(all.rows); at += 1 + len(all.rows)/5 {
			one := all.value(at)
			if one == nil {
				continue
			}
			set := v.NewColumnSet(c)
			require.NoError(t, set.Add([]arrow.Array{one}))
			var plan ScanPlan
			got := columnValues(t, v, c, set, &plan)
			require.Equal(t, all.equal(at), got.equal(got.first(one)), "column %s, value %s", v.Schema().Field(c).Name, one.ValueStr(0))
			for _, l := range plan.Layers {
				if byIndex {
					require.NotEqual(t, byColumn, l.Access, "column %s: %+v", v.Schema().Field(c).Name, plan)
				}
			}
		}
	}
}

// valueList is the values of a column with the key of each row.
type valueList struct {
	typ  arrow.DataType
	rows []string // "value key"
	null []bool
}

// columnValues reads a column and the first one.
func columnValues(t *testing.T, v *View, c int, where *KeySet, plan *ScanPlan) *valueList {
	t.Helper()
	sc, err := v.Scan(context.Background(), ScanOptions{Columns: []int{0, c}, Where: where})
	require.NoError(t, err)
	defer sc.Close()
	if plan != nil {
		*plan = sc.Plan()
	}
	out := &valueList{typ: v.Schema().Field(c).Type}
	for m, err := sc.Next(context.Background()); err == nil; m, err = sc.Next(context.Background()) {
		for i := range int(m.Record.NumRows()) {
			if m.lives(i) {
				out.rows = append(out.rows, m.Record.Column(1).ValueStr(i)+" "+m.Record.Column(0).ValueStr(i))
				out.null = append(out.null, m.Record.Column(1).IsNull(i))
			}
		}
		m.Release()
	}
	return out
}

// text returns the value of a row.
func (l *valueList) text(at int) string { return l.rows[at][:strings.LastIndexByte(l.rows[at], ' ')] }

// value returns the value of a row as an array, nil for a null.
func (l *valueList) value(at int) arrow.Array {
	if l.null[at] {
		return nil
	}
	b := array.NewBuilder(memory.DefaultAllocator, l.typ)
	defer b.Release()
	if err := b.AppendValueFromString(l.text(at)); err != nil {
		return nil
	}
	return b.NewArray()
}

// first returns a row with a value, -1 without one.
func (l *valueList) first(one arrow.Array) int {
	for i := range l.rows {
		if !l.null[i] && l.text(i) == one.ValueStr(0) {
			return i
		}
	}
	return -1
}

// equal returns the rows that have the value of one.
func (l *valueList) equal(at int) map[string]bool {
	out := map[string]bool{}
	for i := range l.rows {
		if at >= 0 && !l.null[i] && l.text(i) == l.text(at) {
			out[l.rows[i]] = true
		}
	}
	return out
}
