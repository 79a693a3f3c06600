package lance

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

func TestRoundestEnd(t *testing.T) {
	f := func(first, limit, want int64) {
		t.Helper()
		require.Equal(t, want, roundestEnd(first, limit))
	}
	f(0, 1, 1)
	f(0, 10699, 8192)
	f(8192, 8192+10699, 16384)
	f(5, 6, 6)
	f(5, 7, 6)
	f(7, 8, 8)
	f(100, 200, 192)
	for first := range int64(40) {
		for limit := first + 1; limit < first+40; limit++ {
			end := roundestEnd(first, limit)
			require.LessOrEqual(t, end, limit)
			require.GreaterOrEqual(t, 2*(end-first), limit-first, "less than half a page")
		}
	}
}

func TestBadBatchesAreRefusedWhole(t *testing.T) {
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil)
	ls, err := SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	w, err := Create(t.Context(), st, "f", ls, WriterOptions{})
	require.NoError(t, err)
	ids := newGenerator(1, 0).whole(arrow.PrimitiveTypes.Int64, 3)
	texts := newGenerator(1, 0).whole(arrow.BinaryTypes.String, 3)

	f := func(want string, columns ...arrow.Array) {
		t.Helper()
		fields := make([]arrow.Field, len(columns))
		for i, c := range columns {
			fields[i] = arrow.Field{Name: "any name", Type: c.DataType(), Nullable: true}
		}
		rec := array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, 3)
		require.ErrorContains(t, w.Write(t.Context(), rec), want)
	}
	f("has 1 columns, the file 2", ids)
	f(`column "s": it is int64, the file has utf8`, ids, ids)
	f(`column "id": the column is declared without nulls, but 3 rows are null`, array.MakeArrayOfNull(memory.DefaultAllocator, arrow.PrimitiveTypes.Int64, 3), texts)

	damaged := func(dt arrow.DataType, bufs ...[]byte) arrow.Array {
		wrapped := make([]*memory.Buffer, len(bufs))
		for i, b := range bufs {
			if b != nil {
				wrapped[i] = memory.NewBufferBytes(b)
			}
		}
		return damagedArray{texts, array.NewData(dt, 3, wrapped, nil, 0, 0)}
	}
	i32 := arrow.Int32Traits.CastToBytes
	f("want 24", damagedArray{ids, damaged(arrow.PrimitiveTypes.Int64, nil, make([]byte, 23)).Data()}, texts)
	f("no values", damagedArray{ids, damaged(arrow.PrimitiveTypes.Int64, nil, nil).Data()}, texts)
	f("no offsets", ids, damaged(arrow.BinaryTypes.String, nil, nil, nil))
	f("2 offsets, want 4", ids, damaged(arrow.BinaryTypes.String, nil, i32([]int32{0, 1}), []byte("ab")))
	f("offsets of the array fall", ids, damaged(arrow.BinaryTypes.String, nil, i32([]int32{0, 2, 1, 2}), []byte("ab")))
	f("offsets of the array fall", ids, damaged(arrow.BinaryTypes.String, nil, i32([]int32{-5, 0, 1, 2}), []byte("ab")))
	f("offsets of the array fall", ids, damaged(arrow.BinaryTypes.String, nil, i32([]int32{0, math.MinInt32, math.MaxInt32, 2}), []byte("ab")))
	f("beyond its 2 bytes", ids, damaged(arrow.BinaryTypes.String, nil, i32([]int32{0, 1, 2, 3}), []byte("ab")))
	shifted := array.NewData(arrow.PrimitiveTypes.Int64, 3, []*memory.Buffer{
		memory.NewBufferBytes([]byte{0xFF}), memory.NewBufferBytes(make([]byte, 88)),
	}, nil, 0, 8)
	f("validity bitmap has 1 bytes", damagedArray{ids, shifted}, texts)

	// Nothing of the refused batches was taken.
	require.NoError(t, w.Write(t.Context(), array.NewRecordBatch(schema, []arrow.Array{ids, texts}, 3)))
	info, err := w.Finish(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, info.Rows)
	requireScan(t, openFile(t, st, "f"), []arrow.Array{ids, texts}, []int{0, 1}, 0, 3, 0)
}

// damagedArray shows the data of an array that Arrow would refuse to make.
type damagedArray struct {
	arrow.Array
	data arrow.ArrayData
}

func (d damagedArray) Data() arrow.ArrayData    { return d.data }
func (d damagedArray) DataType() arrow.DataType { return d.data.DataType() }

func TestWriterRetainsOnlyUntilThePageIsCut(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil)
	ls, err := SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	batch := func() arrow.RecordBatch {
		b := array.NewInt64Builder(alloc)
		defer b.Release()
		for i := range int64(100) {
			b.Append(i)
		}
		a := b.NewArray()
		defer a.Release()
		return array.NewRecordBatch(schema, []arrow.Array{a}, 100)
	}
	for _, end := range []string{"finish", "abort"} {
		w, err := Create(t.Context(), st, end, ls, WriterOptions{PageBytes: 3000})
		require.NoError(t, err)
		for range 20 {
			b := batch()
			require.NoError(t, w.Write(t.Context(), b))
			b.Release()
			require.LessOrEqual(t, alloc.CurrentAlloc(), 8*1024, "more than a page is held")
		}
		if end == "abort" {
			w.Abort()
			w.Abort()
			_, err = st.Stat(t.Context(), end)
			require.ErrorIs(t, err, object.ErrNotExist)
		}
		_, err = w.Finish(t.Context())
		require.Equal(t, end == "abort", err != nil)
		require.Error(t, w.Write(t.Context(), batchOfNothing(schema)), "a write behind the end")
	}
}

func TestNarrowColumnsDoNotHoldWideOnes(t *testing.T) {
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	defer alloc.AssertSize(t, 0)
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "flag", Type: arrow.FixedWidthTypes.Boolean}, {Name: "none", Type: arrow.Null, Nullable: true},
		{Name: "wide", Type: &arrow.FixedSizeBinaryType{ByteWidth: 64}},
	}, nil)
	ls, err := SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	const pageBytes = 16 << 10
	w, err := Create(t.Context(), st, "f", ls, WriterOptions{PageBytes: pageBytes})
	require.NoError(t, err)
	for i := range 100 {
		rec := wireBatch(alloc, schema, byte(i))
		require.NoError(t, w.Write(t.Context(), rec))
		rec.Release()
		require.Less(t, alloc.CurrentAlloc(), 4*pageBytes, "behind batch %d", i)
	}
	_, err = w.Finish(t.Context())
	require.NoError(t, err)

	want := wireBatch(memory.NewGoAllocator(), schema, 99)
	rec, err := openFile(t, st, "f").Take(t.Context(), []int{0, 1, 2}, []int64{99 * want.NumRows(), 100*want.NumRows() - 1})
	require.NoError(t, err)
	defer rec.Release()
	for c := range rec.Columns() {
		require.True(t, array.SliceEqual(want.Column(c), 0, 1, rec.Column(c), 0, 1))
		require.True(t, array.SliceEqual(want.Column(c), want.NumRows()-1, want.NumRows(), rec.Column(c), 1, 2))
	}
}

// wireBatch makes a batch as it comes over the wire: all its columns, a flag and a wide one, lie in one piece of memory.
func wireBatch(alloc memory.Allocator, s *arrow.Schema, seed byte) arrow.RecordBatch {
	const rows, flags = 40, 64
	body := sizedBuffer(alloc, flags+rows*64)
	defer body.Release()
	for i := range body.Bytes() {
		body.Bytes()[i] = seed ^ byte(i*i)
	}
	columns := []arrow.Array{nil, array.NewNull(rows), nil}
	for c, part := range map[int][2]int{0: {0, flags}, 2: {flags, rows * 64}} {
		values := memory.SliceBuffer(body, part[0], part[1])
		data := array.NewData(s.Field(c).Type, rows, []*memory.Buffer{nil, values}, nil, 0, 0)
		values.Release()
		columns[c] = array.MakeFromData(data)
		data.Release()
		defer columns[c].Release()
	}
	return array.NewRecordBatch(s, columns, rows)
}

func batchOfNothing(s *arrow.Schema) arrow.RecordBatch {
	return array.NewRecordBatch(s, []arrow.Array{array.MakeArrayOfNull(memory.DefaultAllocator, arrow.PrimitiveTypes.Int64, 0)}, 0)
}

func TestGlobalBuffersAndMetadata(t *testing.T) {
	st := object.NewMem()
	md := arrow.MetadataFrom(map[string]string{"from": "schema"})
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, &md)
	ls, err := SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	w, err := Create(t.Context(), st, "f", ls, WriterOptions{Metadata: map[string]string{"from options": "yes"}})
	require.NoError(t, err)
	for i, b := range []string{"first", ""} {
		n, err := w.AddGlobalBuffer(t.Context(), []byte(b))
		require.NoError(t, err)
		require.Equal(t, i+1, n)
	}
	w.SetMetadata("set", "late")
	_, err = w.Finish(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"from": "schema"}, ls.Metadata, "the caller's schema was changed")

	r := openFile(t, st, "f")
	require.Equal(t, map[string]string{"from": "schema", "from options": "yes", "set": "late"}, r.Metadata())
	for i, want := range []string{"first", ""} {
		b, err := r.GlobalBuffer(t.Context(), i+1)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	for _, i := range []int{-1, 0, 3} {
		_, err = r.GlobalBuffer(t.Context(), i)
		require.ErrorContains(t, err, "it has 2")
	}
}

func TestWriterFailuresLeaveNoFile(t *testing.T) {
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil)
	ls, err := SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	w, err := Create(t.Context(), st, "f", ls, WriterOptions{})
	require.NoError(t, err)
	_, err = Create(t.Context(), st, "f", ls, WriterOptions{})
	require.ErrorIs(t, err, object.ErrExists)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, w.Write(ctx, batchOfNothing(schema)), context.Canceled)
	_, err = w.Finish(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = st.Stat(t.Context(), "f")
	require.ErrorIs(t, err, object.ErrNotExist)

	_, err = Create(t.Context(), st, "f", ls, WriterOptions{PageBytes: -1})
	require.ErrorContains(t, err, "PageBytes")
	_, err = Create(t.Context(), st, "f", &Schema{Fields: []Field{{Name: "l", Type: arrow.BinaryTypes.StringView}}}, WriterOptions{})
	require.ErrorIs(t, err, ErrUnsupported)
	_, err = Create(t.Context(), st, "f", &Schema{Fields: []Field{{Name: "l", Type: arrow.ListOf(arrow.Null)}}}, WriterOptions{})
	require.ErrorContains(t, err, "1 nested fields, the field 0")
}

func TestItemNamesOfListsDoNotMatter(t *testing.T) {
	st := object.NewMem()
	item := arrow.Field{Name: "element", Type: arrow.PrimitiveTypes.Int8}
	strict := arrow.NewSchema([]arrow.Field{{Name: "l", Type: arrow.FixedSizeListOfField(2, item)}}, nil)
	plain := arrow.NewSchema([]arrow.Field{{Name: "l", Type: arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int8)}}, nil)
	b := newGenerator(1, 0).batch(strict, 9)
	writeFile(t, st, "f", plain, WriterOptions{}, b)
	requireScan(t, openFile(t, st, "f"), newGenerator(1, 0).batch(plain, 9).Columns(), []int{0}, 0, 9, 0)
}

func TestBytesUnderNullsStayOut(t *testing.T) {
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	data := array.NewData(arrow.BinaryTypes.String, 4, []*memory.Buffer{
		memory.NewBufferBytes([]byte{0b1001}), memory.NewBufferBytes(arrow.Int32Traits.CastToBytes([]int32{0, 2, 8, 14, 16})),
		memory.NewBufferBytes([]byte("absecretsecretyz")),
	}, nil, 2, 0)
	rec := array.NewRecordBatch(schema, []arrow.Array{array.MakeFromData(data)}, 4)
	writeFile(t, st, "f", schema, WriterOptions{}, rec)
	b, err := st.Get(t.Context(), "f")
	require.NoError(t, err)
	require.NotContains(t, string(b), "secret")
	require.Contains(t, string(b), "abyz")
	requireScan(t, openFile(t, st, "f"), rec.Columns(), []int{0}, 0, 4, 0)
}

func TestLongStringsGetPagesOfTheirOwn(t *testing.T) {
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: arrow.BinaryTypes.LargeString}}, nil)
	b := array.NewLargeStringBuilder(memory.DefaultAllocator)
	for i := range 10 {
		b.Append(strings.Repeat("x", i%3*1000))
	}
	rec := array.NewRecordBatch(schema, []arrow.Array{b.NewArray()}, 10)
	writeFile(t, st, "f", schema, WriterOptions{PageBytes: 500}, rec)
	r := openFile(t, st, "f")
	pages, err := r.column(0)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(pages), 6)
	requireScan(t, r, rec.Columns(), []int{0}, 0, 10, 0)
}
