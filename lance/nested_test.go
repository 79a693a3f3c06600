package lance

import (
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// oneColumn returns a batch of one column called c.
func oneColumn(a arrow.Array) arrow.RecordBatch {
	s := arrow.NewSchema([]arrow.Field{{Name: "c", Type: a.DataType(), Nullable: true}}, nil)
	return array.NewRecordBatch(s, []arrow.Array{a}, int64(a.Len()))
}

// fromJSON makes an array of a type.
func fromJSON(t testing.TB, dt arrow.DataType, text string) arrow.Array {
	t.Helper()
	a, _, err := array.FromJSON(memory.DefaultAllocator, dt, strings.NewReader(text))
	require.NoError(t, err)
	return a
}

// point is a struct with a nullable and another field.
var point = arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, arrow.Field{Name: "y", Type: arrow.PrimitiveTypes.Int8})

func TestNullsThatCannotBeStored(t *testing.T) {
	f := func(want string, dt arrow.DataType, rows string) {
		t.Helper()
		rec := oneColumn(fromJSON(t, dt, rows))
		s, err := SchemaFromArrow(rec.Schema(), 0)
		require.NoError(t, err)
		w, err := Create(t.Context(), object.NewMem(), "f", s, WriterOptions{})
		require.NoError(t, err)
		defer w.Abort()
		if err = w.Write(t.Context(), rec); want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
	structs := "structs are null, which Lance 2.0 cannot store: make their fields null instead"
	f("", point, `[{"x": null, "y": 1}]`)
	f(`column "c": 1 `+structs, point, `[{"x": 1, "y": 1}, null]`)
	f(`column "c": "item": 1 `+structs, arrow.ListOf(point), `[[{"x": 1, "y": 1}], null, [null]]`)
	f(`column "c": "s": 1 `+structs, arrow.StructOf(arrow.Field{Name: "s", Type: point, Nullable: true}), `[{"s": null}]`)
	f(`column "c": "y": the column is declared without nulls, but 1 rows are null`, point, `[{"x": 1, "y": null}]`)
	f(`column "c": "item": the column is declared without nulls`, arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int8), `[[1], [null]]`)
	f("", arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int8), `[[1], null, []]`)
}

// TestWhatLiesUnderNullLists: nobody sees it, so it need not be storable, and it is not stored.
func TestWhatLiesUnderNullLists(t *testing.T) {
	dt := arrow.ListOf(point)
	all := fromJSON(t, dt, `[[{"x": 1, "y": 2}], [null, null], [{"x": null, "y": 3}], []]`)
	validity := memory.NewBufferBytes([]byte{0b1101})
	hidden := array.MakeFromData(array.NewData(dt, 4, []*memory.Buffer{validity, all.Data().Buffers()[1]}, all.Data().Children(), 1, 0))
	st := object.NewMem()
	rec := oneColumn(hidden)
	writeFile(t, st, "f", rec.Schema(), WriterOptions{}, rec)
	r := openFile(t, st, "f")
	requireFile(t, r, rec.Schema(), []arrow.Array{fromJSON(t, dt, `[[{"x": 1, "y": 2}], null, [{"x": null, "y": 3}], []]`)}, newGenerator(1, 0))
	b, err := r.Take(t.Context(), []int{0}, []int64{0, 1, 2, 3})
	require.NoError(t, err)
	defer b.Release()
	require.Equal(t, 2, b.Column(0).(*array.List).ListValues().Len())
}

// TestListsLongerThanPages: the items of one row come in one array, however many pages and runs of nulls they are in.
func TestListsLongerThanPages(t *testing.T) {
	st := object.NewMem()
	wide := &arrow.Decimal256Type{Precision: 50} // 40,000 of them are more than the nulls that are made at once
	b := array.NewListBuilder(memory.DefaultAllocator, wide)
	for i, n := range []int{1, 40_000, 0, 2, 40_000, 5} {
		b.Append(true)
		for k := range n {
			if i == 4 {
				b.ValueBuilder().AppendNull()
			} else {
				b.ValueBuilder().(*array.Decimal256Builder).Append(decimal256.FromI64(int64(k)))
			}
		}
	}
	rec := oneColumn(b.NewArray())
	for _, pageBytes := range []int64{0, 1000, 1 << 20} {
		name := string(rune('a' + pageBytes%7))
		writeFile(t, st, name, rec.Schema(), WriterOptions{PageBytes: pageBytes}, rec)
		r := openFile(t, st, name)
		requireScan(t, r, rec.Columns(), []int{0}, 0, 6, 0)
		requireScan(t, r, rec.Columns(), []int{0}, 1, 4, 2)
		requireTake(t, r, rec.Columns(), []int{0}, []int64{4, 0, 1})
	}
}

// TestItemsWithoutBytes: a few bytes of a file must not stand for any number of items.
func TestItemsWithoutBytes(t *testing.T) {
	st := object.NewMem()
	dt := arrow.ListOf(arrow.Null)
	items := array.NewNull(1 << 30)
	offsets := memory.NewBufferBytes(arrow.Int32Traits.CastToBytes([]int32{0, 1 << 30}))
	rec := oneColumn(array.MakeFromData(array.NewData(dt, 1, []*memory.Buffer{nil, offsets}, []arrow.ArrayData{items.Data()}, 0, 0)))
	writeFile(t, st, "f", rec.Schema(), WriterOptions{}, rec)
	_, err := openFile(t, st, "f").Take(t.Context(), []int{0}, []int64{0})
	require.ErrorIs(t, err, ErrUnsupported)
	require.ErrorContains(t, err, "items in 1 rows are more than a file of")
}
