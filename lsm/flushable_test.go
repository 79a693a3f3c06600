package lsm

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// TestWhatIsAcknowledgedCanBeFlushed sends rows that no page of the table's files can hold: they are refused when they come, by streams and
// stages alike, and not when their memtable is flushed, behind which nothing else of the shard could be.
func TestWhatIsAcknowledgedCanBeFlushed(t *testing.T) {
	ctx, n := context.Background(), TableName{Name: "t"}
	item := arrow.FixedSizeListOf(3, arrow.FixedWidthTypes.Boolean)             // which cannot be zipped
	inner := arrow.StructOf(arrow.Field{Name: "d", Type: item, Nullable: true}) // a struct that may be null needs files of 2.2
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "l", Type: arrow.ListOf(arrow.ListOf(inner)), Nullable: true}}, nil)
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: n, Schema: schema, Key: []string{"id"}}))
	table := mustTable(t, db, "t")
	rowsWith := func(empty int) arrow.RecordBatch {
		value := `[{"d": [true, false, true]}, null]`
		text := `[{"id": 1, "l": [` + value + `]}, {"id": 2, "l": [` + value + strings.Repeat(", []", empty) + `, ` + value + `]}]`
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, table.Schema(), strings.NewReader(text))
		require.NoError(t, err)
		return rec
	}
	for _, empty := range []int{10, 60_000} {
		rec := rowsWith(empty)
		lsn, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
		require.NoError(t, db.Flush(ctx, n))
		rec.Release()
	}
	rec := rowsWith(70_000)
	defer rec.Release()
	refused := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, `column "l": row 1: `)
	}
	_, err := table.Put(ctx, Batch{Record: rec})
	refused(err)
	stage := table.Stage()
	defer stage.Abort()
	refused(stage.Put(ctx, Batch{Record: rec}))
	require.NoError(t, db.Optimize(ctx, n))
	require.Equal(t, 2, countRows(t, db, "t"))
}
