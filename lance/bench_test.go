package lance

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// benchShapes are tables of one kind of column each, and how often their rows are null.
var benchShapes = []struct {
	name  string
	dt    arrow.DataType
	nulls float64
	rows  int
}{
	{"int64", arrow.PrimitiveTypes.Int64, 0, 1 << 21},
	{"int64-nulls", arrow.PrimitiveTypes.Int64, 0.1, 1 << 21},
	{"vec128", arrow.FixedSizeListOf(128, arrow.PrimitiveTypes.Float32), 0, 1 << 15},
	{"utf8", arrow.BinaryTypes.String, 0, 1 << 20},
	{"utf8-nulls", arrow.BinaryTypes.String, 0.1, 1 << 20},
}

// benchArrays makes n rows in arrays of per rows each, and tells their size in Arrow's layout.
func benchArrays(dt arrow.DataType, nulls float64, n, per int) ([]arrow.RecordBatch, int64) {
	g := newGenerator(1, nulls)
	schema := arrow.NewSchema([]arrow.Field{{Name: "c", Type: dt, Nullable: true}}, nil)
	var a arrow.Array
	for {
		a = compact(g.whole(dt, per))
		if nulls > 0 || a.NullN() == 0 {
			break
		}
	}
	var batches []arrow.RecordBatch
	for range n / per {
		batches = append(batches, array.NewRecordBatch(schema, []arrow.Array{a}, int64(per)))
	}
	size := int64(0)
	for _, buf := range a.Data().Buffers() {
		if buf != nil {
			size += int64(buf.Len())
		}
	}
	for _, c := range a.Data().Children() {
		size += int64(c.Buffers()[1].Len())
	}
	return batches, size * int64(n/per)
}

// compact returns an array of strings without the bytes that the generator puts under nulls; most producers put none.
func compact(a arrow.Array) arrow.Array {
	texts, ok := a.(*array.String)
	if !ok {
		return a
	}
	builder := array.NewStringBuilder(memory.DefaultAllocator)
	for i := range texts.Len() {
		if texts.IsNull(i) {
			builder.AppendNull()
		} else {
			builder.Append(texts.Value(i))
		}
	}
	return builder.NewArray()
}

func benchStore(b *testing.B) *object.Local { return object.NewLocal(b.TempDir()) }

func BenchmarkWrite(b *testing.B) {
	for _, shape := range benchShapes {
		for _, per := range []int{100, 1 << 15} {
			b.Run(fmt.Sprintf("%s/batch=%d", shape.name, per), func(b *testing.B) {
				batches, size := benchArrays(shape.dt, shape.nulls, shape.rows, per)
				schema, err := SchemaFromArrow(batches[0].Schema(), 0)
				require.NoError(b, err)
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					// What is measured is the encoding; a disk's sync would hide it.
					w := &Writer{name: "sink", schema: schema, meta: map[string]string{}, out: newOutput(sinkObject{}, defaultPageBytes), options: WriterOptions{PageBytes: defaultPageBytes}}
					for _, f := range schema.Fields {
						w.columns = append(w.columns, newColumnWriter(f, WriterOptions{PageBytes: defaultPageBytes}))
					}
					if w.ledger, err = newLedger(w.lists(), w.options); err != nil {
						b.Fatal(err)
					}
					for _, batch := range batches {
						if err := w.Write(b.Context(), batch); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := w.Finish(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// sinkObject takes bytes and forgets them.
type sinkObject struct{}

func (sinkObject) Write(p []byte) (int, error) { return len(p), nil }
func (sinkObject) Close() error                { return nil }
func (sinkObject) Abort()                      {}

func BenchmarkWriteFile(b *testing.B) {
	batches, size := benchArrays(benchShapes[2].dt, 0, 1<<18, 1<<13)
	schema, err := SchemaFromArrow(batches[0].Schema(), 0)
	require.NoError(b, err)
	st := benchStore(b)
	b.SetBytes(size)
	for b.Loop() {
		w, err := Create(b.Context(), st, "f", schema, WriterOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range batches {
			if err := w.Write(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := st.Delete(b.Context(), "f"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, shape := range benchShapes {
		for _, sums := range []string{"first", "again"} {
			b.Run(shape.name+"/"+sums, func(b *testing.B) {
				batches, size := benchArrays(shape.dt, shape.nulls, shape.rows, 1<<15)
				st := benchStore(b)
				writeFile(b, st, "f", batches[0].Schema(), WriterOptions{}, batches...)
				shared, err := Open(b.Context(), st, "f", 0, ReaderOptions{})
				require.NoError(b, err)
				defer shared.Close()
				b.SetBytes(size)
				b.ReportAllocs()
				for b.Loop() {
					r := shared
					if sums == "first" { // A reader of its own verifies the checksums.
						if r, err = Open(b.Context(), st, "f", 0, ReaderOptions{}); err != nil {
							b.Fatal(err)
						}
					}
					benchScan(b, r, 0)
					if r != shared {
						r.Close()
					}
				}
			})
		}
	}
}

func benchScan(b *testing.B, r *Reader, column int) {
	s := r.Scan([]int{column}, 0, r.Rows(), 0)
	for {
		rec, err := s.Next(b.Context())
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
		rec.Release()
	}
}

func BenchmarkTake(b *testing.B) {
	for _, shape := range benchShapes {
		for _, n := range []int{10, 10000} {
			b.Run(fmt.Sprintf("%s/rows=%d", shape.name, n), func(b *testing.B) {
				batches, size := benchArrays(shape.dt, shape.nulls, shape.rows, 1<<15)
				st := benchStore(b)
				writeFile(b, st, "f", batches[0].Schema(), WriterOptions{}, batches...)
				r, err := Open(b.Context(), st, "f", 0, ReaderOptions{Alloc: memory.NewGoAllocator()})
				require.NoError(b, err)
				defer r.Close()
				g := newGenerator(2, 0)
				rows := make([]int64, n)
				for i := range rows {
					rows[i] = g.Int64N(r.Rows())
				}
				b.SetBytes(size / int64(shape.rows) * int64(n))
				b.ReportAllocs()
				for b.Loop() {
					rec, err := r.Take(b.Context(), []int{0}, rows)
					if err != nil {
						b.Fatal(err)
					}
					rec.Release()
				}
			})
		}
	}
}

// BenchmarkCompressed reads each of the shaped columns of a compressed file: all of it, and a thousand rows.
func BenchmarkCompressed(b *testing.B) {
	rec := shaped(1<<18, 0.05)
	st := benchStore(b)
	writeFile(b, st, "f", rec.Schema(), WriterOptions{Version: Version22, Compress: true}, rec)
	r, err := Open(b.Context(), st, "f", 0, ReaderOptions{})
	require.NoError(b, err)
	defer r.Close()
	g := newGenerator(2, 0)
	rows := make([]int64, 1000)
	for i := range rows {
		rows[i] = g.Int64N(r.Rows())
	}
	slices.Sort(rows)
	for c, f := range rec.Schema().Fields() {
		b.Run("scan/"+f.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				benchScan(b, r, c)
			}
			b.ReportMetric(float64(b.N)*float64(r.Rows())/b.Elapsed().Seconds()/1e6, "Mrows/s")
		})
		b.Run("take/"+f.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rec, err := r.Take(b.Context(), []int{c}, rows)
				if err != nil {
					b.Fatal(err)
				}
				rec.Release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
		})
	}
}
