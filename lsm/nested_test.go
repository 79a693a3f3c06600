package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// TestNestedFieldsWithoutNulls: tombstones have nulls where the table allows none, so generations are wider than the
// table, but nobody who scans sees that.
func TestNestedFieldsWithoutNulls(t *testing.T) {
	strict := arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64},
		arrow.Field{Name: "l", Type: arrow.LargeListOfNonNullable(arrow.BinaryTypes.String)})
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "s", Type: strict}}, nil)
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	name := TableName{Schema: "main", Name: "t"}
	require.NoError(t, db.CreateTable(t.Context(), TableDef{Name: name, Schema: schema, Key: []string{"id"}}))
	table, err := db.Table(name)
	require.NoError(t, err)
	put := func(rows string) error {
		s := arrow.NewSchema(append(schema.Fields(), tombstoneField), nil)
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, s, strings.NewReader(rows))
		require.NoError(t, err)
		defer rec.Release()
		lsn, err := table.Put(t.Context(), Batch{Record: rec})
		if err != nil {
			return err
		}
		return db.Wait(t.Context(), lsn)
	}
	require.NoError(t, put(`[{"id": 1, "s": {"a": 1, "l": ["x"]}}, {"id": 2, "s": {"a": 2, "l": []}}]`))
	require.NoError(t, put(`[{"id": 1, "s": null, "_tombstone": true}, {"id": 3, "s": {"a": 3, "l": ["y", "z"]}}]`))
	require.ErrorContains(t, put(`[{"id": 4, "s": {"a": null, "l": []}}]`), `column "s.a"`)
	require.ErrorContains(t, put(`[{"id": 4, "s": {"a": 4, "l": [null]}}]`), `column "s.l.item"`)
	want := []string{`{"a":2,"l":[]}`, `{"a":3,"l":["y","z"]}`}
	require.ElementsMatch(t, want, scanStructs(t, db, table))
	for range 2 {
		require.NoError(t, db.Flush(t.Context(), name))
		require.ElementsMatch(t, want, scanStructs(t, db, table))
		require.NoError(t, db.Optimize(t.Context(), name))
		require.ElementsMatch(t, want, scanStructs(t, db, table))
	}
}

// scanStructs returns the live rows of column s, which must have the table's type.
func scanStructs(t *testing.T, db *DB, table *Table) (out []string) {
	t.Helper()
	snap, err := db.Snapshot(t.Context())
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(table.Name())
	require.NoError(t, err)
	sc, err := v.Scan(t.Context(), ScanOptions{Columns: []int{1}})
	require.NoError(t, err)
	defer sc.Close()
	for {
		m, err := sc.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		require.True(t, arrow.TypeEqual(table.Schema().Field(1).Type, m.Record.Column(0).DataType()))
		for row := range int(m.Record.NumRows()) {
			if m.Live == nil || slices.Contains(m.Live, uint32(row)) {
				out = append(out, m.Record.Column(0).ValueStr(row))
			}
		}
		m.Release()
	}
}

// TestTablesOfLaterFiles goes the way of a batch in tables whose columns need files of version 2.2.
func TestTablesOfLaterFiles(t *testing.T) {
	for _, key := range [][]string{nil, {"id"}} {
		t.Run(fmt.Sprint("key ", key), func(t *testing.T) { laterFiles(t, key) })
	}
}

func laterFiles(t *testing.T, key []string) {
	strict := arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int32}
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "s", Type: arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, strict,
			arrow.Field{Name: "in", Type: arrow.StructOf(strict), Nullable: true},
			arrow.Field{Name: "l", Type: arrow.ListOf(arrow.StructOf(strict)), Nullable: true}), Nullable: true},
		{Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.StructOf(strict)), Nullable: true},
		{Name: "v", Type: arrow.FixedSizeListOf(80, arrow.PrimitiveTypes.Float32), Nullable: true},
	}, nil)
	name, dir := TableName{Schema: "main", Name: "t"}, t.TempDir()
	open := func() (*DB, *Table) {
		db := openTest(t, dir)
		table, err := db.Table(name)
		if errors.Is(err, ErrTableNotFound) {
			require.NoError(t, db.CreateTable(t.Context(), TableDef{Name: name, Schema: schema, Key: key}))
			table, err = db.Table(name)
		}
		require.NoError(t, err)
		return db, table
	}
	db, table := open()
	put := func(schema *arrow.Schema, rows string) error {
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
		require.NoError(t, err)
		defer rec.Release()
		lsn, err := table.Put(t.Context(), Batch{Record: rec})
		if err != nil {
			return err
		}
		return db.Wait(t.Context(), lsn)
	}
	rows := []string{
		`{"id":1,"m":[{"key":"x","value":{"n":1}},{"key":"y","value":null}],"s":{"a":1,"in":{"n":1},"l":[{"n":1},null],"n":1},"v":null}`,
		`{"id":2,"m":null,"s":null,"v":null}`, `{"id":3,"m":[],"s":{"a":null,"in":null,"l":null,"n":3},"v":null}`,
	}
	check := func() {
		t.Helper()
		require.ElementsMatch(t, rows, scanJSON(t, db, table))
	}
	require.NoError(t, put(schema, "["+strings.Join(rows, ",")+"]"))
	check()
	for row, fault := range map[string]string{
		`{"id": 4, "s": {"n": null}}`:                                `column "s.n", want struct`,
		`{"id": 4, "s": {"n": 1, "in": {"n": null}}}`:                "it may not be null",
		`{"id": 4, "m": [{"key": "a"}, {"key": "b"}, {"key": "a"}]}`: "the one in row 0 has the key a twice",
	} {
		require.ErrorContains(t, put(schema, "["+row+"]"), fault, row)
	}
	require.NoError(t, db.Close())
	db, table = open() // from the log
	check()
	require.NoError(t, db.Flush(t.Context(), name))
	check()
	require.NoError(t, db.Optimize(t.Context(), name))
	check()
	if key != nil {
		dead := arrow.NewSchema(append(schema.Fields(), tombstoneField), nil)
		rows[1] = `{"id":2,"m":[{"key":"","value":{"n":2}}],"s":{"a":22,"in":null,"l":[],"n":2},"v":null}`
		require.NoError(t, put(dead, `[`+rows[1]+`, {"id": 3, "_tombstone": true}]`))
		rows = rows[:2]
		check()
		require.NoError(t, db.Flush(t.Context(), name))
		check()
	}
	require.NoError(t, db.Optimize(t.Context(), name))
	check()
	require.NoError(t, db.Close())
	db, table = open()
	check()
	require.NoError(t, db.Close())
	v, err := manifest.Latest(t.Context(), object.NewLocal(dir), "t.lance", manifest.Options{})
	require.NoError(t, err)
	require.Equal(t, "2.2", v.Format)
	require.Equal(t, []int32{0, 2, 3, 5, 8, 11, 13, 14}, v.Fragments[0].Files[0].Fields)
}

// TestNullStructsNeedTheirFiles: the files of a table stay of the version with which it was made.
func TestNullStructsNeedTheirFiles(t *testing.T) {
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	name := TableName{Schema: "main", Name: "t"}
	require.NoError(t, db.CreateTable(t.Context(), TableDef{Name: name, Schema: arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil)}))
	table, err := db.Table(name)
	require.NoError(t, err)
	point := arrow.Field{Name: "s", Type: arrow.StructOf(arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int32, Nullable: true}), Nullable: true}
	add := func(f arrow.Field) error {
		return db.AlterTable(t.Context(), name, Alteration{Incarnation: table.Incarnation(), SchemaID: table.now().id, Columns: []AlteredColumn{{Was: "id", Field: arrow.Field{Name: "id"}}, {Field: f}}})
	}
	require.ErrorContains(t, add(arrow.Field{Name: "m", Type: arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)}), "Lance 2.0 has no maps")
	require.NoError(t, add(point))
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, table.Schema(), strings.NewReader(`[{"id": 1, "s": null}]`))
	require.NoError(t, err)
	defer rec.Release()
	_, err = table.Put(t.Context(), Batch{Record: rec})
	require.ErrorContains(t, err, "null structs cannot be stored in the table's files, which are of Lance 2.0")
}

// scanJSON returns the live rows of a table as JSON.
func scanJSON(t *testing.T, db *DB, table *Table) (out []string) {
	t.Helper()
	snap, err := db.Snapshot(t.Context())
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(table.Name())
	require.NoError(t, err)
	sc, err := v.Scan(t.Context(), ScanOptions{Columns: table.now().all()})
	require.NoError(t, err)
	defer sc.Close()
	for {
		m, err := sc.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		for i, f := range table.Schema().Fields() {
			require.True(t, arrow.TypeEqual(f.Type, m.Record.Column(i).DataType()), f.Name)
		}
		text, err := m.Record.MarshalJSON()
		require.NoError(t, err)
		var rows []json.RawMessage
		require.NoError(t, json.Unmarshal(text, &rows))
		for row := range rows {
			if m.Live == nil || slices.Contains(m.Live, uint32(row)) {
				out = append(out, string(rows[row]))
			}
		}
		m.Release()
	}
}
