package lsm

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/object"
)

// foreignDatasets has pylance write datasets as others leave them: rows in several fragments, some of them deleted, one
// column dropped, so that the field ids have a gap, and one added, so that fragments have two files.
const foreignDatasets = `
import lance, os, pyarrow as pa, sys
root = sys.argv[1]
def make(name, version="2.2", key=("key",), index=False, extra=None, **options):
    n = 100
    meta = lambda c: {"lance-schema:unenforced-primary-key": "true"} if c in key else None
    fields = [pa.field("key", pa.int64(), nullable=False, metadata=meta("key")), pa.field("junk", pa.string()), pa.field("writer", pa.int64(), nullable="writer" not in key, metadata=meta("writer"))]
    columns = {"key": list(range(n)), "junk": ["x"] * n, "writer": [7] * n}
    if extra:
        fields.append(extra[0])
        columns[extra[0].name] = [extra[1]] * n
    path = os.path.join(root, name + ".lance")
    ds = lance.write_dataset(pa.table(columns, schema=pa.schema(fields)), path, data_storage_version=version, max_rows_per_file=40, **options)
    if options:
        return
    ds.drop_columns(["junk"])
    ds.add_columns({"seq": "key * 2"})
    if index:
        ds.create_scalar_index("key", "BTREE")
    ds.delete("key % 10 = 3")
make("keyed20", "2.0")
make("keyed22", "2.2")
make("indexed", "2.0", index=True)
make("composite", "2.2", key=("key", "writer"))
make("plain20", "2.0", key=())
make("plain22", "2.2", key=())
make("keyed21", "2.1")
make("narrow", "2.2")
lance.dataset(os.path.join(root, "narrow.lance")).add_columns(pa.field("word", pa.dictionary(pa.int8(), pa.string())))
make("Keyed20", "2.0")
make("with space", "2.0")
make("boxes", "2.2", extra=(pa.field("b", pa.list_(pa.struct([("x", pa.int64())]), 2)), [{"x": 1}, {"x": 2}]))
make("broken", "2.2")
make("halved", "2.2")
os.mkdir(os.path.join(root, "empty.lance"))
`

// readForeign prints version and rows of a dataset.
const readForeign = `
import json, lance, sys
ds = lance.dataset(sys.argv[1])
print(json.dumps([ds.data_storage_version, [[r["key"], r["writer"], r["seq"]] for r in ds.to_table().to_pylist()]]))
`

// lanceWrites returns the rows of a dataset as pylance reads them, and the version of its files.
func lanceWrites(t *testing.T, root string) (version string, out map[int64][2]int64) {
	t.Helper()
	var list [][3]int64
	require.NoError(t, json.Unmarshal(python.Run(t, readForeign, root), &[]any{&version, &list}))
	out = make(map[int64][2]int64)
	for _, r := range list {
		require.NotContains(t, out, r[0])
		out[r[0]] = [2]int64{r[1], r[2]}
	}
	return version, out
}

// foreignRowsOf are the rows that foreignDatasets leaves.
func foreignRowsOf() map[int64][2]int64 {
	out := make(map[int64][2]int64)
	for k := range int64(100) {
		if k%10 != 3 {
			out[k] = [2]int64{7, 2 * k}
		}
	}
	return out
}

// TestDatasetsOfOtherProgramsAreTables opens a folder in which pylance wrote datasets: they are read and written like other
// tables, and pylance reads the result in the version that it wrote.
func TestDatasetsOfOtherProgramsAreTables(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	python.Run(t, foreignDatasets, dir)
	db := openTest(t, dir)
	for name, key := range map[string][]string{"keyed20": {"key"}, "keyed21": {"key"}, "keyed22": {"key"}, "indexed": {"key"}, "composite": {"key", "writer"}, "plain20": nil, "plain22": nil} {
		table, err := db.Table(TableName{Name: name})
		require.NoError(t, err)
		if name == "keyed20" { // one of the twins, the first by its folder's name
			require.Equal(t, TableName{Schema: MainSchema, Name: "Keyed20"}, table.Name())
		}
		require.Equal(t, key, table.Key(), name)
		require.Equal(t, foreignRowsOf(), readWrites(t, db, name), name)

		want := foreignRowsOf()
		keys := []int64{3, 1000}
		if key != nil {
			keys = append(keys, 5, 57, 99)
		}
		putForeign(t, db, table, keys, func(k int64) int64 { return -k })
		for _, k := range keys {
			want[k] = [2]int64{7, -k}
		}
		require.Equal(t, want, readWrites(t, db, name), name)
		require.NoError(t, db.Flush(ctx, table.Name()))
		putForeign(t, db, table, []int64{2000}, func(k int64) int64 { return 1 })
		want[2000] = [2]int64{7, 1}
		require.NoError(t, db.Close())

		db = openTest(t, dir)
		require.Equal(t, want, readWrites(t, db, name), name)
		require.NoError(t, db.Optimize(ctx, TableName{Name: name}))
		require.Equal(t, want, readWrites(t, db, name), name)
		format := "2.2"
		switch {
		case strings.HasSuffix(name, "20") || name == "indexed":
			format = "2.0"
		case strings.HasSuffix(name, "21"):
			format = "2.1"
		}
		table, err = db.Table(TableName{Name: name})
		require.NoError(t, err)
		version, got := lanceWrites(t, filepath.Join(dir, table.root))
		require.Equal(t, format, version, name)
		require.Equal(t, want, got, name)
	}
	require.NoError(t, db.Close())
	_, err := Check(ctx, dir, func(f Fault) { t.Error(f) })
	require.NoError(t, err)
}

// putForeign writes rows with writer 7.
func putForeign(t *testing.T, db *DB, table *Table, keys []int64, seq func(int64) int64) {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.Schema())
	defer b.Release()
	for _, k := range keys {
		b.Field(0).(*array.Int64Builder).Append(k)
		b.Field(1).(*array.Int64Builder).Append(7)
		b.Field(2).(*array.Int64Builder).Append(seq(k))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(context.Background(), lsn))
}

// TestForeignDatasetThatIsOnlyRead has a dataset whose files flightd reads and does not write: its dictionaries have indices
// of a byte.
func TestForeignDatasetThatIsOnlyRead(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	python.Run(t, foreignDatasets, dir)
	db := openTest(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	n := TableName{Name: "narrow"}
	table, err := db.Table(n)
	require.NoError(t, err)
	require.Equal(t, foreignRowsOf(), readWrites(t, db, "narrow"))

	three := writesBatch(arrow.NewSchema(table.Schema().Fields()[:3], nil), 7, 0, []int64{1})
	defer three.Release()
	words := array.MakeArrayOfNull(memory.DefaultAllocator, table.Schema().Field(3).Type, 1)
	defer words.Release()
	rec := array.NewRecordBatch(table.Schema(), append(three.Columns(), words), 1)
	defer rec.Release()
	stage := table.Stage()
	defer stage.Abort()
	_, put := table.Put(ctx, Batch{Record: rec})
	_, kept := table.Put(ctx, Batch{Record: rec, Keep: []int{2}})
	_, insert := table.Insert(ctx, rec)
	for act, err := range map[string]error{
		"put": put, "keep": kept, "insert": insert, "stage": stage.Put(ctx, Batch{Record: rec}),
		"optimize": db.Optimize(ctx, n), "index": db.CreateIndex(ctx, n, IndexDef{Name: "i", Columns: []string{"seq"}}, CreateIndexOptions{}),
		"alter": db.AlterTable(ctx, n, Alteration{Incarnation: table.Incarnation(), SchemaID: table.SchemaID()}),
	} {
		var readOnly *ReadOnlyError
		require.ErrorAs(t, err, &readOnly, act)
		require.ErrorContains(t, err, "indices of int8", act)
		require.ErrorContains(t, err, "copy the table with CREATE TABLE", act)
	}
	require.Equal(t, foreignRowsOf(), readWrites(t, db, "narrow"))
	_, got := lanceWrites(t, filepath.Join(dir, "narrow.lance"))
	require.Equal(t, foreignRowsOf(), got)
}

// TestForeignDatasetsThatAreNotServed has folders that are no tables: they are refused with the reason, they stay as they
// are, and nothing takes their place.
func TestForeignDatasetsThatAreNotServed(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	python.Run(t, foreignDatasets, dir)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "halved.lance", "data")))
	manifests, err := filepath.Glob(filepath.Join(dir, "broken.lance", "_versions", "*.manifest"))
	require.NoError(t, err)
	for _, m := range manifests {
		require.NoError(t, os.WriteFile(m, []byte("no manifest"), 0o644))
	}
	before := pathsBelow(t, dir, "broken.lance", "halved.lance", "empty.lance", "boxes.lance", "with space.lance", "keyed20.lance")
	schema, err := rows.Schema("k int64 key")
	require.NoError(t, err)
	for range 2 { // the second time with the catalog that the first left
		db := openTest(t, dir)
		for name, reason := range map[string]string{
			"boxes": "not supported", "broken": "no footer of a Lance manifest",
			"empty": "it has no versions", "with space": `has to be named "with%20space.lance"; rename it`, "halved": "open fragment 0",
		} {
			n := TableName{Name: name}
			_, err := db.Table(n)
			var unserved *UnservedError
			require.ErrorAs(t, err, &unserved, name)
			require.ErrorContains(t, err, reason)
			require.ErrorAs(t, db.DropTable(ctx, n), &unserved, name)
			require.ErrorAs(t, db.CreateTable(ctx, TableDef{Name: n, Schema: schema}), &unserved, name)
			_, err = db.StageTable(ctx, TableDef{Name: n, Schema: schema}, true)
			require.ErrorAs(t, err, &unserved, name)
		}
		var corrupt *object.CorruptError
		_, err := db.Table(TableName{Name: "broken"})
		require.ErrorAs(t, err, &corrupt)
		require.NoError(t, db.Close())
		require.Equal(t, before, pathsBelow(t, dir, "broken.lance", "halved.lance", "empty.lance", "boxes.lance", "with space.lance", "keyed20.lance"))
	}

	// A folder that came while the table was being made is not lost either, and one that went leaves the name.
	db := openTest(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	late := TableDef{Name: TableName{Name: "late"}, Schema: schema}
	stage, err := db.StageTable(ctx, late, true)
	require.NoError(t, err)
	file := filepath.Join(dir, "late.lance", "data", "x.lance")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o644))
	_, err = stage.Commit(ctx)
	require.ErrorContains(t, err, "the catalog does not know it; restart flightd to serve it, move it away or choose another name")
	require.ErrorContains(t, db.CreateTable(ctx, late), "the catalog does not know it")
	require.FileExists(t, file)
	require.NoError(t, os.Rename(filepath.Join(dir, "boxes.lance"), filepath.Join(dir, "elsewhere")))
	createTest(t, db, "boxes", "k int64 key")
	require.Equal(t, 0, countRows(t, db, "boxes"))
}

// TestForeignDatasetWhoseShardCannotBeMade fails when the table is opened that the catalog has by then: it forgets the
// table, the dataset stays, and the next Open serves it.
func TestForeignDatasetWhoseShardCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	python.Run(t, foreignDatasets, dir)
	for _, after := range []bool{false, true} {
		failing := func(st object.Store) object.Store {
			f := &faultStore{Store: st}
			fault := func(op, name string) error {
				if strings.HasPrefix(name, "keyed22.lance/") && isShardManifest(op, name) {
					return errFault
				}
				return nil
			}
			if after {
				f.inject(nil, fault)
			} else {
				f.inject(fault, nil)
			}
			return f
		}
		db, err := Open(context.Background(), Options{Dir: dir, wrap: failing, Memory: minMemory})
		require.NoError(t, err)
		_, err = db.Table(TableName{Name: "keyed22"})
		require.ErrorIs(t, err, errFault)
		require.Equal(t, foreignRowsOf(), readWrites(t, db, "plain22"))
		require.NoError(t, db.Close())
	}
	db := openTest(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, foreignRowsOf(), readWrites(t, db, "keyed22"))
}

// pathsBelow returns the names of all files and folders in some folders.
func pathsBelow(t *testing.T, dir string, folders ...string) (out []string) {
	t.Helper()
	for _, f := range folders {
		require.NoError(t, filepath.WalkDir(filepath.Join(dir, f), func(path string, _ os.DirEntry, err error) error {
			out = append(out, path)
			return err
		}))
	}
	return out
}

// stableDataset has pylance write a table whose rows keep their ids wherever they go, and move them: after deletes, an update and a
// compaction no address is an id any more, and the indexes have ids.
const stableDataset = `
import lance, os, pyarrow as pa, sys
root = os.path.join(sys.argv[1], "stable.lance")
meta = {"lance-schema:unenforced-primary-key": "true"}
schema = pa.schema([pa.field("key", pa.int64(), nullable=False, metadata=meta), pa.field("writer", pa.int64()), pa.field("seq", pa.int64())])
rows = lambda keys, writer: pa.table([pa.array(keys, pa.int64()), pa.array([writer] * len(keys), pa.int64()), pa.array([k * 2 for k in keys], pa.int64())], schema=schema)
ds = lance.write_dataset(rows(list(range(100)), 1), root, max_rows_per_file=40, enable_stable_row_ids=True)
ds.create_scalar_index("key", "BTREE")
ds.create_scalar_index("seq", "BTREE")
ds.delete("key % 10 = 3")
ds.update({"writer": "2"}, where="key < 20")
ds = lance.dataset(root)
ds.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(rows([50, 200, 201], 3))
ds = lance.dataset(root)
ds.optimize.compact_files()
`

// TestATableWithStableRowIDsIsWritten reads such a table by its key, by an indexed column and as a whole, and writes on: what it
// inserts, replaces and deletes, pylance validates, finds by its indexes and compacts, each row under an id of its own.
func TestATableWithStableRowIDsIsWritten(t *testing.T) {
	dir := t.TempDir()
	python.Run(t, stableDataset, dir)
	want := make(map[int64][2]int64)
	for k := range int64(100) {
		want[k] = [2]int64{1, 2 * k}
		if k < 20 {
			want[k] = [2]int64{2, 2 * k}
		}
		if k%10 == 3 {
			delete(want, k)
		}
	}
	want[50], want[200], want[201] = [2]int64{3, 100}, [2]int64{3, 400}, [2]int64{3, 402}
	for range 2 {
		db := openTest(t, dir)
		require.Equal(t, want, readWrites(t, db, "stable"))
		table := db.mustTable(t, "stable")
		require.Equal(t, []string{"key"}, table.Key())
		require.Empty(t, table.Indexes())
		for _, k := range []int64{0, 3, 13, 50, 99, 200} {
			key := array.NewInt64Builder(memory.DefaultAllocator)
			key.Append(k)
			a := key.NewArray()
			row, err := table.Get(t.Context(), []arrow.Array{a}, []int{1})
			require.NoError(t, err)
			a.Release()
			_, there := want[k]
			require.Equal(t, there, row != nil, k)
			if there {
				require.Equal(t, want[k][0], row.Column(0).(*array.Int64).Value(0))
				row.Release()
			}
		}
		err := db.CreateIndex(t.Context(), table.Name(), IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"seq"}}, CreateIndexOptions{})
		require.ErrorIs(t, err, ErrUnsupported)
		require.ErrorContains(t, err, "feature flag 1 (stable row ids)")
		require.NoError(t, db.Close())
	}
	for round := range int64(3) {
		db := openTest(t, dir)
		table := db.mustTable(t, "stable")
		for _, k := range []int64{1, 50, 300 + round} {
			rec := writesBatch(table.Schema(), 9, 2*k, []int64{k})
			_, err := table.Put(t.Context(), Batch{Record: rec})
			rec.Release()
			require.NoError(t, err)
			want[k] = [2]int64{9, 2 * k}
			require.NoError(t, db.Optimize(t.Context(), table.Name()))
		}
		require.Equal(t, want, readWrites(t, db, "stable"))
		require.NoError(t, db.Close())
		python.Run(t, stableChecks, dir, fmt.Sprint(len(want)), fmt.Sprint(round))
	}
	_, err := Check(t.Context(), dir, func(f Fault) { t.Errorf("%+v", f) })
	require.NoError(t, err)
}

// stableChecks has pylance look at the rows of a table with stable row ids, by its indexes and without; in later rounds it compacts,
// and brings its indexes up to the rows.
const stableChecks = `
import lance, os, sys
ds = lance.dataset(os.path.join(sys.argv[1], "stable.lance"))
ds.validate()
for again in range(2):
    rows = ds.to_table(with_row_id=True).to_pylist()
    assert len(rows) == int(sys.argv[2]) == len({r["_rowid"] for r in rows}), rows
    for r in rows:
        assert [x["_rowid"] for x in ds.to_table(filter=f"key = {r['key']}", with_row_id=True).to_pylist()] == [r["_rowid"]], r
        assert r["key"] in [x["key"] for x in ds.to_table(filter=f"seq = {r['seq']}").to_pylist()], r
    if int(sys.argv[3]) == 0: break
    ds.optimize.compact_files()
    ds.optimize.optimize_indices()
    ds = lance.dataset(ds.uri)
assert ds.to_table(columns=["_row_created_at_version", "_row_last_updated_at_version"]).num_rows == int(sys.argv[2])
`
