package lsm

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// indexNames returns the indexes of a table with their columns.
func indexNames(t *testing.T, db *DB, name string) map[string]string {
	out := map[string]string{}
	for _, x := range mustTable(t, db, name).Indexes() {
		require.Len(t, x.Columns, 1)
		out[x.Name] = x.Columns[0]
	}
	return out
}

// TestIndexesAreInTheLog takes the checkpoint away that was written behind CREATE INDEX, and follows indexes through
// what happens to their columns and tables.
func TestIndexesAreInTheLog(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	name := TableName{Name: "t"}
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "a", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "b", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64), Nullable: true}}, nil)
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: name, Schema: schema, Key: []string{"id"}, Maintain: []string{"Ia"},
		Indexes: []IndexDef{{Name: "born", Kind: BTreeIndex, Columns: []string{"b"}}}}))
	require.NoError(t, db.Close())

	db = openStale(t, dir)
	create := func(index, column string, o CreateIndexOptions) error {
		return db.CreateIndex(ctx, name, IndexDef{Name: index, Kind: BTreeIndex, Columns: []string{column}}, o)
	}
	version := db.CatalogVersion()
	require.NoError(t, create("ia", "A", CreateIndexOptions{}))
	require.Equal(t, version+1, db.CatalogVersion())
	require.ErrorIs(t, create("IA", "b", CreateIndexOptions{}), ErrIndexExists)
	require.NoError(t, create("IA", "b", CreateIndexOptions{IfNotExists: true}))
	require.NoError(t, create("ib", "a", CreateIndexOptions{}))
	require.NoError(t, create("ib", "b", CreateIndexOptions{Replace: true}))
	require.NoError(t, db.DropIndex(ctx, name, "BORN"))
	require.ErrorIs(t, db.DropIndex(ctx, name, "born"), ErrIndexNotFound)
	require.ErrorIs(t, create("x", "l", CreateIndexOptions{}), ErrInvalid)
	require.ErrorIs(t, create("x", "none", CreateIndexOptions{}), ErrInvalid)
	require.ErrorIs(t, create("../x", "a", CreateIndexOptions{}), ErrInvalid)
	require.ErrorIs(t, mustTable(t, db, "t").OptimizeIndex(ctx, "none", nil), ErrIndexNotFound)
	require.NoError(t, db.Close())

	db = openStale(t, dir)
	require.Equal(t, map[string]string{"ia": "a", "ib": "b"}, indexNames(t, db, "t"))
	infos := mustTable(t, db, "t").Indexes()
	require.True(t, infos[0].Maintained)
	require.False(t, infos[1].Maintained)

	table := mustTable(t, db, "t")
	require.NoError(t, db.AlterTable(ctx, name, Alteration{Incarnation: table.Incarnation(), SchemaID: table.SchemaID(), Columns: []AlteredColumn{
		{Was: "id", Field: schema.Field(0)}, {Was: "a", Field: arrow.Field{Name: "renamed", Nullable: true}}, {Was: "l", Field: schema.Field(3)}}}))
	require.Equal(t, map[string]string{"ia": "renamed"}, indexNames(t, db, "t"))
	require.NoError(t, db.Close())

	db = openTest(t, dir)
	require.Equal(t, map[string]string{"ia": "renamed"}, indexNames(t, db, "t"))
	d, _ := mustTable(t, db, "t").Definition()
	require.Equal(t, []string{"Ia"}, d.Maintain)
	stage, err := db.StageTable(ctx, d, true)
	require.NoError(t, err)
	_, err = stage.Commit(ctx)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ia": "renamed"}, indexNames(t, db, "t"))
	require.NoError(t, db.CreateIndex(ctx, name, IndexDef{Name: "next", Kind: BTreeIndex, Columns: []string{"renamed"}}, CreateIndexOptions{}))
	require.NoError(t, db.DropTable(ctx, name))
	d.Indexes, d.Maintain = nil, nil
	require.NoError(t, db.CreateTable(ctx, d))
	require.Empty(t, indexNames(t, db, "t"))
	require.NoError(t, db.Close())
}

// TestAnEmptyMemtableGetsTheIndex holds that an index is kept for the first row that follows CREATE INDEX on a table
// that has none, and not for the first that follows DROP INDEX.
func TestAnEmptyMemtableGetsTheIndex(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", "id int64 key, a int64")
	create := func() {
		require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"a"}}, CreateIndexOptions{}))
	}
	put := func(id int64) {
		rec := oneRow(table.now().arrow, id)
		defer rec.Release()
		lsn, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
	}
	create()
	put(1)
	info := table.Indexes()[0]
	require.EqualValues(t, 1, info.Covered)
	require.Zero(t, info.Uncovered)
	require.Positive(t, info.MemoryBytes)
	require.NoError(t, db.DropIndex(ctx, table.Name(), "i"))
	require.NoError(t, db.Flush(ctx, table.Name()))
	put(2)
	set := table.holdSet()
	defer set.unref()
	require.Empty(t, set.chains[0].active().columns)
}

// oneRow returns a row with an id and null in all other columns.
func oneRow(s *arrow.Schema, id int64) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(id)
	for _, f := range b.Fields()[1:] {
		f.AppendNull()
	}
	return b.NewRecordBatch()
}

// TestTheNameOfAnIndexIsFreeWithItsColumn drops the column of an index, and makes one of the same name over another before
// any merge has told the base.
func TestTheNameOfAnIndexIsFreeWithItsColumn(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "t", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"writer"}}, CreateIndexOptions{}))
	s := &scenario{t: t, db: db}
	require.NoError(t, s.alter(ctx, "t", "drop writer"))
	require.Empty(t, table.Indexes())
	require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"seq"}}, CreateIndexOptions{}))
	require.NoError(t, db.Optimize(ctx, table.Name()))
	list := table.Indexes()
	require.Len(t, list, 1)
	require.Equal(t, []string{"seq"}, list[0].Columns)
	require.EqualValues(t, 3, list[0].Covered)
	require.NoError(t, db.Close())
	requireSound(t, dir)
}
