package lance

import (
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// generator makes random arrays of any type that a file can hold.
type generator struct {
	*rand.Rand
	nulls float64 // how often a row is null
}

func newGenerator(seed uint64, nulls float64) *generator {
	return &generator{rand.New(rand.NewPCG(seed, 1)), nulls}
}

// array returns n rows. Half of the time they are a slice of a longer array, so that offsets are in play.
func (g *generator) array(dt arrow.DataType, n int) arrow.Array {
	if g.IntN(2) == 0 {
		return g.whole(dt, n)
	}
	before, after := g.IntN(20), g.IntN(20)
	long := g.whole(dt, before+n+after)
	return array.NewSlice(long, int64(before), int64(before+n))
}

func (g *generator) whole(dt arrow.DataType, n int) arrow.Array {
	if dt.ID() == arrow.NULL {
		return array.NewNull(n)
	}
	if t, ok := dt.(*arrow.StructType); ok {
		return g.structs(t, n)
	}
	validity, nulls := g.validity(n)
	bufs := []*memory.Buffer{validity}
	var children []arrow.ArrayData
	switch t := dt.(type) {
	case *arrow.FixedSizeListType:
		children = []arrow.ArrayData{g.array(t.Elem(), n*int(t.Len())).Data()}
	case *arrow.ListType, *arrow.LargeListType:
		offsets, items := g.offsets(n, t.Layout().Buffers[1].ByteWidth == 8)
		bufs = append(bufs, offsets)
		children = []arrow.ArrayData{g.array(t.(arrow.ListLikeType).Elem(), items).Data()}
	case arrow.BinaryDataType:
		bufs = append(bufs, g.strings(n, t.Layout().Buffers[1].ByteWidth == 8)...)
	default:
		bufs = append(bufs, g.values(dt, n))
	}
	return array.MakeFromData(array.NewData(dt, n, bufs, children, nulls, 0))
}

// structs makes structs, none of which is null.
func (g *generator) structs(t *arrow.StructType, n int) arrow.Array {
	var children []arrow.ArrayData
	for _, f := range t.Fields() {
		children = append(children, g.array(f.Type, n).Data())
	}
	return array.MakeFromData(array.NewData(t, n, []*memory.Buffer{nil}, children, 0, 0))
}

// offsets makes offsets of lists, and returns how many items they need; lists that are null have items as well.
func (g *generator) offsets(n int, large bool) (*memory.Buffer, int) {
	short, long := []int32{3}, []int64{3}
	for range n {
		at := long[len(long)-1] + int64(g.IntN(1+g.IntN(5)))
		short, long = append(short, int32(at)), append(long, at)
	}
	items := int(long[n]) + g.IntN(3)
	if large {
		return memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(long)), items
	}
	return memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(short)), items
}

func (g *generator) validity(n int) (*memory.Buffer, int) {
	if g.nulls == 0 && g.IntN(2) == 0 {
		return nil, 0
	}
	bitmap := make([]byte, bitBytes(n))
	nulls := 0
	for i := range n {
		if g.Float64() < g.nulls {
			nulls++
		} else {
			bitutil.SetBit(bitmap, i)
		}
	}
	return memory.NewBufferBytes(bitmap), nulls
}

// values makes bytes that are no NaN as floats of any width, since a NaN is not equal to itself, and times that are
// in the range of every reader.
func (g *generator) values(dt arrow.DataType, n int) *memory.Buffer {
	width := int(bitWidth(dt))
	_, temporal := dt.(arrow.TemporalWithUnit)
	temporal = temporal || dt.ID() == arrow.DATE32 || dt.ID() == arrow.DATE64
	b := make([]byte, bitBytes(n*width))
	for i := range b {
		b[i] = byte(g.Uint32())
		if width > 8 && i%(width/8) == width/8-1 {
			b[i] &= 0x3F
		}
		if temporal && i%(width/8) >= width/16 {
			b[i] = 0
		}
	}
	return memory.NewBufferBytes(b)
}

// strings makes offsets and bytes; rows that are null have bytes as well.
func (g *generator) strings(n int, large bool) []*memory.Buffer {
	data := []byte("in front of the first string")
	short, long := []int32{int32(len(data))}, []int64{int64(len(data))}
	for range n {
		for range g.IntN(1 + g.IntN(12)) {
			data = append(data, byte('a'+g.IntN(26)))
		}
		short, long = append(short, int32(len(data))), append(long, int64(len(data)))
	}
	offsets := arrow.Int32Traits.CastToBytes(short)
	if large {
		offsets = arrow.Int64Traits.CastToBytes(long)
	}
	return []*memory.Buffer{memory.NewBufferBytes(offsets), memory.NewBufferBytes(append(data, "behind"...))}
}

// batch returns rows of a schema.
func (g *generator) batch(s *arrow.Schema, n int) arrow.RecordBatch {
	columns := make([]arrow.Array, s.NumFields())
	for i, f := range s.Fields() {
		columns[i] = g.array(f.Type, n)
	}
	return array.NewRecordBatch(s, columns, int64(n))
}

// allTypes is a schema with a column of each type.
func allTypes() *arrow.Schema {
	var fields []arrow.Field
	for _, dt := range append(storable[:len(storable):len(storable)], nested...) {
		fields = append(fields, arrow.Field{Name: dt.String(), Type: dt, Nullable: true})
	}
	return arrow.NewSchema(fields, nil)
}

// nested are types with others in them.
var nested = func() []arrow.DataType {
	text := arrow.Field{Name: "text", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: arrow.NewMetadata([]string{"note"}, []string{"inner"})}
	point := arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, text,
		arrow.Field{Name: "bits", Type: arrow.FixedWidthTypes.Boolean, Nullable: true})
	words := arrow.ListOfField(arrow.Field{Name: "element", Type: arrow.BinaryTypes.String, Nullable: true})
	vectors := arrow.LargeListOf(arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32))
	return []arrow.DataType{
		arrow.ListOf(arrow.PrimitiveTypes.Int32), arrow.LargeListOf(arrow.FixedWidthTypes.Boolean), words, vectors, point,
		arrow.ListOf(point), arrow.LargeListOf(point), arrow.ListOf(words), arrow.ListOf(arrow.Null),
		arrow.StructOf(arrow.Field{Name: "words", Type: words, Nullable: true}, arrow.Field{Name: "point", Type: point, Nullable: true},
			arrow.Field{Name: "deep", Type: arrow.ListOf(arrow.StructOf(arrow.Field{Name: "lists", Type: arrow.LargeListOf(words), Nullable: true})), Nullable: true}),
	}
}()

// writeFile writes batches and returns what was written as one batch.
func writeFile(t testing.TB, st object.Store, name string, s *arrow.Schema, o WriterOptions, batches ...arrow.RecordBatch) FileInfo {
	t.Helper()
	ls, err := SchemaFromArrow(s, 0)
	require.NoError(t, err)
	w, err := Create(t.Context(), st, name, ls, o)
	require.NoError(t, err)
	for _, b := range batches {
		require.NoError(t, w.Write(t.Context(), b))
	}
	info, err := w.Finish(t.Context())
	require.NoError(t, err)
	w.Abort()
	return info
}

// openFile opens a file with an allocator that must be empty when the test ends.
func openFile(t testing.TB, st object.Store, name string) *Reader {
	t.Helper()
	alloc := memory.NewCheckedAllocator(memory.NewGoAllocator())
	r, err := Open(t.Context(), st, name, 0, ReaderOptions{Alloc: alloc})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		alloc.AssertSize(t, 0)
	})
	return r
}

// joined returns batches as one array for each column.
func joined(t testing.TB, s *arrow.Schema, batches []arrow.RecordBatch) []arrow.Array {
	t.Helper()
	columns := make([]arrow.Array, s.NumFields())
	for i, f := range s.Fields() {
		parts := make([]arrow.Array, len(batches))
		rows := 0
		for k, b := range batches {
			parts[k] = b.Column(i)
			rows += parts[k].Len()
		}
		if f.Type.ID() == arrow.NULL {
			columns[i] = array.NewNull(rows)
			continue
		}
		if len(parts) == 0 {
			parts = append(parts, array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 0))
		}
		var err error
		columns[i], err = array.Concatenate(parts, memory.DefaultAllocator)
		require.NoError(t, err)
	}
	return columns
}
