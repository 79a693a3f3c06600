package lance

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// shaped is a batch of columns, each of which suits one way to compress it.
func shaped(rows int, nulls float64) arrow.RecordBatch {
	g := newGenerator(uint64(rows)+7, 0)
	words := strings.Fields("the of and page column value is stored where it lies behind its offsets in chunks")
	sentence := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteString(words[g.IntN(len(words))] + " ")
		}
		return b.String()
	}
	var fields []arrow.Field
	var columns []arrow.Array
	add := func(name string, dt arrow.DataType, value func(i int) any) {
		b := array.NewBuilder(memory.DefaultAllocator, dt)
		for i := range rows {
			v := value(i)
			if g.Float64() < nulls {
				b.AppendNull()
				continue
			}
			switch b := b.(type) {
			case *array.Int64Builder:
				b.Append(v.(int64))
			case *array.StringBuilder:
				b.Append(v.(string))
			case *array.LargeStringBuilder:
				b.Append(v.(string))
			case *array.Uint8Builder:
				b.Append(uint8(v.(int64)))
			case *array.Int16Builder:
				b.Append(int16(v.(int64)))
			case *array.Float64Builder:
				b.Append(float64(v.(int64)) / 100)
			case *array.Float32Builder:
				b.Append(float32(v.(int64)))
			}
		}
		fields, columns = append(fields, arrow.Field{Name: name, Type: dt, Nullable: true}), append(columns, b.NewArray())
	}
	add("packed", arrow.PrimitiveTypes.Int64, func(i int) any { return int64(i*7919) % 1000 })
	add("packed bytes", arrow.PrimitiveTypes.Uint8, func(i int) any { return int64(i % 5) })
	add("packed short", arrow.PrimitiveTypes.Int16, func(i int) any { return int64(i * 13 % 500) })
	add("negative", arrow.PrimitiveTypes.Int64, func(i int) any { return -int64(i) })
	add("runs", arrow.PrimitiveTypes.Int64, func(i int) any { return int64(i/300) - 4 })
	add("runs of floats", arrow.PrimitiveTypes.Float32, func(i int) any { return int64(i / 1000) })
	add("few doubles", arrow.PrimitiveTypes.Float64, func(i int) any { return int64(i * i % 150) })
	add("few floats", arrow.PrimitiveTypes.Float32, func(i int) any { return int64(i * i % 150) })
	add("one", arrow.PrimitiveTypes.Int64, func(int) any { return int64(0) })
	add("few texts", arrow.BinaryTypes.String, func(i int) any { return words[i%len(words)] })
	add("many texts", arrow.BinaryTypes.String, func(i int) any { return fmt.Sprintf("name number %05d of many", i*i%3000) })
	add("text", arrow.BinaryTypes.String, func(int) any { return sentence(g.IntN(12)) })
	add("large text", arrow.BinaryTypes.LargeString, func(int) any { return sentence(g.IntN(12)) })
	add("long text", arrow.BinaryTypes.String, func(int) any { return sentence(40 + g.IntN(60)) })
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, int64(rows))
}

// TestCompressedColumns says which encoding each shape of values gets, and that all come back.
func TestCompressedColumns(t *testing.T) {
	want := map[string]string{
		"packed": "mini-blocks, packed 64 bits", "packed bytes": "mini-blocks, packed 8 bits", "packed short": "mini-blocks, packed 16 bits",
		"negative": "mini-blocks, flat 64 bits", "runs": "mini-blocks, runs of 64 bits", "runs of floats": "mini-blocks, runs of 32 bits",
		"few doubles": "mini-blocks, packed 32 bits, dictionary of 44 (flat 64 bits)", "few floats": "mini-blocks, packed 32 bits, dictionary of 44 (flat 32 bits)",
		"one": "mini-blocks, packed 64 bits", "few texts": "mini-blocks, packed 32 bits, dictionary of 16 (strings)",
		"many texts": "mini-blocks, packed 32 bits, dictionary of 318 (LZ4, strings)", "text": "mini-blocks, FSST, strings",
		"large text": "mini-blocks, FSST, strings, 64-bit offsets", "long text": "zipped, FSST, strings",
	}
	for _, nulls := range []float64{0, 0.2} {
		t.Run(fmt.Sprintf("nulls=%v", nulls), func(t *testing.T) {
			st, rec := object.NewMem(), shaped(10_000, nulls)
			o := WriterOptions{Version: Version22}
			plain := writeFile(t, st, "plain", rec.Schema(), o, rec)
			o.Compress = true
			small := writeFile(t, st, "f", rec.Schema(), o, rec)
			require.Less(t, small.Bytes, plain.Bytes*2/5)
			r := openFile(t, st, "f")
			requireColumns(t, r, rec.Schema(), rec.Columns(), newGenerator(1, 0))
			for c, f := range rec.Schema().Fields() {
				pages, err := r.column(c)
				require.NoError(t, err)
				require.Contains(t, pages[0].codec.describe(), want[f.Name], f.Name)
			}
		})
	}
}

// TestPackedBlocks packs values of every width and unpacks them again.
func TestPackedBlocks(t *testing.T) {
	t.Run("8", packedBlocks[uint8])
	t.Run("16", packedBlocks[uint16])
	t.Run("32", packedBlocks[uint32])
	t.Run("64", packedBlocks[uint64])
}

func packedBlocks[T word](t *testing.T) {
	g := newGenerator(3, 0)
	for width := range bits.Len64(uint64(^T(0))) + 1 {
		values := make([]T, packed)
		for i := range values {
			values[i] = T(g.Uint64() & (1<<width - 1))
		}
		out := make([]T, packed)
		unpackBlock(width, appendBlock(nil, width, values), out)
		require.Equal(t, values, out, "%d bits", width)
		for _, n := range []int{1, 63, 64, 65, 500, 1023, 1024, 1025, 2000} {
			if width == 0 {
				continue
			}
			long := append(values, values...)[:n]
			out := make([]T, n)
			require.NoError(t, unpackPlain(appendPacked(nil, width, long), width, n, out))
			require.Equal(t, long, out, "%d values of %d bits", n, width)
		}
	}
}

// TestFSST codes strings of all kinds with symbols that were chosen for other strings.
func TestFSST(t *testing.T) {
	g := newGenerator(5, 0)
	random := func(n, letters int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(g.IntN(letters))
		}
		return b
	}
	for _, letters := range []int{1, 2, 10, 256} {
		var sample [][]byte
		for range 100 {
			sample = append(sample, random(g.IntN(200), letters))
		}
		c := trainFSST(sample)
		require.LessOrEqual(t, len(c.symbols), fsstEscape)
		table, err := parseFSST(c.table())
		require.NoError(t, err)
		for range 500 {
			s := random(g.IntN(100), []int{letters, 256}[g.IntN(2)])
			coded := c.append(nil, s)
			require.LessOrEqual(t, len(coded), 2*len(s))
			n, err := table.size(coded)
			require.NoError(t, err)
			require.Equal(t, len(s), n)
			out := make([]byte, n+8)
			expanded, err := table.expand(out, coded)
			require.NoError(t, err)
			require.Equal(t, s, out[:expanded])
		}
	}
}

// TestFSSTPays codes text to less than half.
func TestFSSTPays(t *testing.T) {
	text := []byte(strings.Repeat("http://www.example.org/a/page?of=many&with=parameters ", 300))
	c := trainFSST([][]byte{text[:8000]})
	require.Less(t, len(c.append(nil, text)), len(text)/4)
}

func TestCompressionNeedsALaterVersion(t *testing.T) {
	schema, err := SchemaFromArrow(shaped(1, 0).Schema(), 0)
	require.NoError(t, err)
	_, err = Create(t.Context(), object.NewMem(), "f", schema, WriterOptions{Compress: true})
	require.ErrorIs(t, err, ErrUnsupported)
}
