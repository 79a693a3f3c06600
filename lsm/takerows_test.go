package lsm

import (
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// fillArray appends a random value, or a null if they are allowed.
func fillArray(r *rand.Rand, b array.Builder, nulls bool) {
	if nulls && r.IntN(4) == 0 {
		b.AppendNull()
		return
	}
	n := r.IntN(4)
	switch b := b.(type) {
	case *array.StructBuilder:
		b.Append(true)
		for i := range b.NumField() {
			fillArray(r, b.FieldBuilder(i), true)
		}
	case *array.ListBuilder:
		b.Append(true)
		for range n {
			fillArray(r, b.ValueBuilder(), true)
		}
	case *array.LargeListBuilder:
		b.Append(true)
		for range n {
			fillArray(r, b.ValueBuilder(), true)
		}
	case *array.FixedSizeListBuilder:
		b.Append(true)
		for range b.Type().(*arrow.FixedSizeListType).Len() {
			fillArray(r, b.ValueBuilder(), false)
		}
	case *array.BooleanBuilder:
		b.Append(n < 2)
	case *array.StringBuilder:
		b.Append("text and more"[:n*4])
	case *array.LargeStringBuilder:
		b.Append("text and more"[:n*4])
	case *array.BinaryBuilder:
		b.Append([]byte("text and more")[:n*4])
	case *array.FixedSizeBinaryBuilder:
		b.Append([]byte{byte(r.Uint32()), 1, byte(r.Uint32())})
	case *array.Int64Builder:
		b.Append(r.Int64())
	case *array.Int16Builder:
		b.Append(int16(r.Uint32()))
	case *array.Float32Builder:
		b.Append(r.Float32())
	case *array.NullBuilder:
		b.AppendNull()
	}
}

// TestTakeRows compares rows that are taken with the same ones put together by arrow-go.
func TestTakeRows(t *testing.T) {
	item := arrow.Field{Name: "item", Type: arrow.PrimitiveTypes.Int64, Nullable: true}
	text := arrow.Field{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true}
	for _, typ := range []arrow.DataType{
		arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Int16, arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String,
		arrow.BinaryTypes.LargeString, arrow.BinaryTypes.Binary, &arrow.FixedSizeBinaryType{ByteWidth: 3}, arrow.Null,
		arrow.FixedSizeListOf(5, arrow.PrimitiveTypes.Float32), arrow.FixedSizeListOf(3, arrow.FixedWidthTypes.Boolean),
		arrow.StructOf(item, text, arrow.Field{Name: "n", Type: arrow.StructOf(item), Nullable: true}),
		arrow.ListOf(arrow.BinaryTypes.String), arrow.LargeListOf(arrow.PrimitiveTypes.Int64),
		arrow.ListOf(arrow.StructOf(item, text)), arrow.ListOf(arrow.ListOf(arrow.FixedWidthTypes.Boolean)),
		arrow.StructOf(arrow.Field{Name: "v", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Float32), Nullable: true}),
	} {
		for seed := range uint64(40) {
			r := rand.New(rand.NewPCG(seed, 3))
			b := array.NewBuilder(memory.DefaultAllocator, typ)
			for range r.IntN(50) {
				fillArray(r, b, seed%2 == 0)
			}
			whole := b.NewArray()
			from := int64(r.IntN(whole.Len() + 1))
			a := array.NewSlice(whole, from, from+int64(r.IntN(whole.Len()-int(from)+1)))
			var rows []int32
			for i := range a.Len() {
				if r.IntN(3) > 0 {
					rows = append(rows, int32(i))
				}
			}
			want, err := takeRuns(a, rows)
			require.NoError(t, err)
			expected := array.MakeFromData(want)
			got, err := takeRows(a, rows)
			require.NoError(t, err)
			require.Equal(t, len(rows), got.Len())
			require.True(t, array.Equal(expected, got), "%s, seed %d: %s, want %s", typ, seed, got, expected)
			require.Equal(t, expected.NullN(), got.NullN(), typ)
			_, _, err = encodeBatch(array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "x", Type: typ, Nullable: true}}, nil),
				[]arrow.Array{got}, int64(got.Len())), memory.DefaultAllocator)
			require.NoError(t, err, "its buffers are whole")
			for _, x := range []arrow.Array{got, expected, a, whole} {
				x.Release()
			}
			want.Release()
			b.Release()
		}
	}
}
