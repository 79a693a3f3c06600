package lsm

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lance"
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

// TestTablesOfLaterFiles goes the way of a batch in a table whose files are of version 2.2, such as pylance makes.
func TestTablesOfLaterFiles(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "s", Type: arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
			arrow.Field{Name: "l", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}), Nullable: true},
		{Name: "v", Type: arrow.FixedSizeListOf(80, arrow.PrimitiveTypes.Float32), Nullable: true},
	}, nil)
	dir := t.TempDir()
	open := func() (*DB, *Table) {
		db, err := Open(t.Context(), Options{Dir: dir, fileVersion: lance.Version22})
		require.NoError(t, err)
		table, err := db.Table(TableName{Schema: "main", Name: "t"})
		if errors.Is(err, ErrTableNotFound) {
			require.NoError(t, db.CreateTable(t.Context(), TableDef{Name: TableName{Schema: "main", Name: "t"}, Schema: schema, Key: []string{"id"}}))
			table, err = db.Table(TableName{Schema: "main", Name: "t"})
		}
		require.NoError(t, err)
		return db, table
	}
	db, table := open()
	put := func(rows string) {
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(rows))
		require.NoError(t, err)
		defer rec.Release()
		lsn, err := table.Put(t.Context(), Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(t.Context(), lsn))
	}
	put(`[{"id": 1, "s": {"a": 1, "l": ["x", null]}}, {"id": 2, "s": {"a": null, "l": null}}, {"id": 3, "s": {"a": 3, "l": []}}]`)
	want := []string{`{"a":1,"l":["x",null]}`, `{"a":null,"l":null}`, `{"a":3,"l":[]}`}
	require.NoError(t, db.Flush(t.Context(), table.Name()))
	require.ElementsMatch(t, want, scanStructs(t, db, table))
	require.NoError(t, db.Optimize(t.Context(), table.Name()))
	require.ElementsMatch(t, want, scanStructs(t, db, table))
	put(`[{"id": 2, "s": {"a": 22, "l": ["y"]}}]`)
	want[1] = `{"a":22,"l":["y"]}`
	require.NoError(t, db.Optimize(t.Context(), table.Name()))
	require.ElementsMatch(t, want, scanStructs(t, db, table))
	require.NoError(t, db.Close())
	db, table = open()
	require.ElementsMatch(t, want, scanStructs(t, db, table))
	require.NoError(t, db.Close())
	v, err := manifest.Latest(t.Context(), object.NewLocal(dir), "t.lance", manifest.Options{})
	require.NoError(t, err)
	require.Equal(t, "2.2", v.Format)
	require.Equal(t, []int32{0, 2, 4, 5}, v.Fragments[0].Files[0].Fields)
}
