package lsm

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

// TestCommentsAreInTheLog takes the checkpoint away that was written behind a COMMENT: the log has the same.
func TestCommentsAreInTheLog(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	open := func() *DB {
		db, err := Open(ctx, Options{Dir: dir})
		require.NoError(t, err)
		return db
	}
	db := open()
	name, view := TableName{Name: "t"}, TableName{Name: "v"}
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int64}}, nil)
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: name, Schema: schema}))
	require.NoError(t, db.CreateView(ctx, ViewDef{Name: view, SQL: "CREATE VIEW v AS FROM t"}, false))
	require.NoError(t, db.Close())

	db = openStale(t, dir)
	version := db.CatalogVersion()
	text, empty := "text", ""
	require.NoError(t, db.Comment(ctx, name, "", &empty))
	require.NoError(t, db.Comment(ctx, name, "A", &text))
	require.NoError(t, db.Comment(ctx, view, "A", &text))
	require.Equal(t, version+3, db.CatalogVersion())
	require.NoError(t, db.Close())

	db = open()
	defer func() { require.NoError(t, db.Close()) }()
	table, err := db.Table(name)
	require.NoError(t, err)
	require.Equal(t, Comments{Self: &empty, Columns: map[string]string{"a": text}}, table.Comments())
	require.Equal(t, map[string]string{"A": text}, db.Views()[0].Comments.Columns)
}

// TestCommentsOfFields is about tables that come with comments: one that was taken away does not come back with a table
// that takes the place, as by TRUNCATE.
func TestCommentsOfFields(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	name := TableName{Name: "t"}
	meta := arrow.NewMetadata([]string{CommentKey}, []string{"came"})
	d := TableDef{Name: name, Schema: arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: arrow.PrimitiveTypes.Int64, Metadata: meta}, {Name: "b", Type: arrow.PrimitiveTypes.Int64, Metadata: meta},
		{Name: "c", Type: arrow.PrimitiveTypes.Int64, Metadata: meta}}, nil)}
	require.NoError(t, db.CreateTable(ctx, d))
	said := "said"
	require.NoError(t, db.Comment(ctx, name, "b", &said))
	require.NoError(t, db.Comment(ctx, name, "c", nil))
	table, err := db.Table(name)
	require.NoError(t, err)
	now := table.Comments()
	require.Equal(t, Comments{Columns: map[string]string{"a": "came", "b": "said"}}, now)
	d.Comments = &now
	stage, err := db.StageTable(ctx, d, true)
	require.NoError(t, err)
	_, err = stage.Commit(ctx)
	require.NoError(t, err)
	table, err = db.Table(name)
	require.NoError(t, err)
	require.Equal(t, now, table.Comments())
}
