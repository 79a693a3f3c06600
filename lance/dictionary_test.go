package lance

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// TestDictionaryColumns writes strings as dictionaries, and reads the strings back, in runs and one by one.
func TestDictionaryColumns(t *testing.T) {
	const rows = 1000
	for _, index := range indexTypes {
		for _, values := range []arrow.DataType{arrow.BinaryTypes.String, arrow.BinaryTypes.LargeBinary} {
			md := DictionaryMetadata(&arrow.DictionaryType{IndexType: index, ValueType: values, Ordered: true}, arrow.Metadata{})
			f := arrow.Field{Name: "c", Type: values, Nullable: true, Metadata: md}
			item := f
			item.Name = "item"
			schema, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{f, {Name: "l", Type: arrow.ListOfField(item), Nullable: true}}, nil), 0)
			require.NoError(t, err)
			stored := index
			if index.(arrow.FixedWidthDataType).BitWidth() < 32 {
				stored = arrow.PrimitiveTypes.Int32
			}
			require.Equal(t, fmt.Sprintf("dict:%s:%s:false", map[bool]string{true: "string", false: "large_binary"}[values.ID() == arrow.STRING], stored), schema.Proto()[0].GetLogicalType())
			b := array.NewBuilder(memory.DefaultAllocator, values)
			for i := range rows {
				if i%7 == 3 {
					b.AppendNull()
				} else {
					require.NoError(t, b.AppendValueFromString([]string{"", "YQ==", fmt.Sprintf("%04d", i*i%331)}[i%3]))
				}
			}
			strings := b.NewArray()
			lists := listsOf(strings)
			for _, st := range stores(t) {
				w, err := Create(t.Context(), st, "f.lance", schema, WriterOptions{})
				require.NoError(t, err)
				require.NoError(t, w.Write(t.Context(), array.NewRecordBatch(schema.Arrow(), []arrow.Array{strings, lists}, rows)))
				_, err = w.Finish(t.Context())
				require.NoError(t, err)
				r, err := Open(t.Context(), st, "f.lance", 0, ReaderOptions{})
				require.NoError(t, err)
				require.True(t, schema.Arrow().Equal(r.Schema().Arrow()), "%s", r.Schema().Arrow())
				requireScan(t, r, []arrow.Array{strings, lists}, []int{0, 1}, 0, rows, 0)
				requireScan(t, r, []arrow.Array{strings, lists}, []int{1, 0}, 129, 700, 100)
				taken, err := r.Take(t.Context(), []int{0}, []int64{3, 0, 999, 500, 2})
				require.NoError(t, err)
				require.Equal(t, strings.ValueStr(999), taken.Column(0).ValueStr(2))
				require.True(t, taken.Column(0).IsNull(0))
				require.NoError(t, r.Verify(t.Context()))
				require.NoError(t, r.Close())
			}
		}
	}
}

// listsOf makes lists of two of the values, as many as there are of these; the last half are empty.
func listsOf(values arrow.Array) arrow.Array {
	offsets := make([]int32, values.Len()+1)
	for i := range offsets {
		offsets[i] = int32(min(2*i, values.Len()))
	}
	data := array.NewData(arrow.ListOf(values.DataType()), values.Len(), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets))}, []arrow.ArrayData{values.Data()}, 0, 0)
	defer data.Release()
	return array.MakeFromData(data)
}
