package lsm

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// int64s returns an array.
func int64s(values ...int64) arrow.Array {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(values, nil)
	return b.NewArray()
}

// TestGetRefusesWhatIsNoKey names what is wrong with a call.
func TestGetRefusesWhatIsNoKey(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	keyed := createTest(t, db, "k", writesSchema)
	plain := createTest(t, db, "p", "a int64")
	putOne(t, keyed, 7, true)
	row, err := keyed.Get(ctx, []arrow.Array{int64s(7)}, []int{2, 0})
	require.NoError(t, err)
	require.EqualValues(t, 7, row.Column(0).(*array.Int64).Value(0))
	require.Equal(t, "seq", row.ColumnName(0))
	row.Release()
	row, err = keyed.Get(ctx, []arrow.Array{int64s(8)}, []int{0})
	require.NoError(t, err)
	require.Nil(t, row)
	null := array.MakeArrayOfNull(memory.DefaultAllocator, arrow.PrimitiveTypes.Int64, 1)
	for _, c := range []struct {
		table   *Table
		key     []arrow.Array
		columns []int
		says    string
	}{
		{plain, []arrow.Array{int64s(1)}, []int{0}, "no key"},
		{keyed, nil, []int{0}, "1 columns, 0 values"},
		{keyed, []arrow.Array{int64s(1, 2)}, []int{0}, "2 are given"},
		{keyed, []arrow.Array{null}, []int{0}, "not null"},
		{keyed, []arrow.Array{int64s(1)}, []int{3}, "no column number 3"},
		{keyed, []arrow.Array{int64s(1)}, []int{RowAddress}, "no column number -1"},
	} {
		_, err := c.table.Get(ctx, c.key, c.columns)
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, c.says)
	}
	require.NoError(t, db.DropTable(ctx, keyed.Name()))
	_, err = keyed.Get(ctx, []arrow.Array{int64s(7)}, []int{0})
	require.ErrorIs(t, err, ErrTableNotFound)
	require.NoError(t, db.Close())
	_, err = plain.Get(ctx, []arrow.Array{int64s(7)}, []int{0})
	require.ErrorIs(t, err, ErrClosed)
}
