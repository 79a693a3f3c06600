package lsm

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

var (
	searchData    = flag.String("search.data", "", "the data folder of BenchmarkVectorSearch, which no server has open")
	searchTable   = flag.String("search.table", "", "its table, with vectors in its second column")
	searchQueries = flag.String("search.queries", "", "a file of float32, the queries one after the other")
	searchProbes  = flag.Int("search.nprobs", 16, "partitions that are looked into")
	searchRefine  = flag.Int("search.refine", 4, "how many times the rows that are wanted are looked at again")
)

// BenchmarkVectorSearch searches for the 10 nearest rows of a table that is there, one query after the other, and takes their ids:
// what a search costs inside the engine. bench/vector.py makes the table and says which.
func BenchmarkVectorSearch(b *testing.B) {
	if *searchData == "" {
		b.Skip("bench/vector.py says which table")
	}
	raw, err := os.ReadFile(*searchQueries)
	if err != nil {
		b.Fatal(err)
	}
	queries := make([]float32, len(raw)/4)
	for i := range queries {
		queries[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	db, err := Open(context.Background(), Options{Dir: *searchData})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	searchAll(b, db, *searchTable, queries, VectorSearchOptions{Column: 1, K: 10, NProbes: *searchProbes, Refine: *searchRefine})
}

// searchAll runs a benchmark of searches, each in a snapshot of its own, and reports the processor time of one.
func searchAll(b *testing.B, db *DB, table string, queries []float32, o VectorSearchOptions) {
	b.Helper()
	ctx := context.Background()
	one := func(i int) {
		snap, err := db.Snapshot(ctx)
		if err != nil {
			b.Fatal(err)
		}
		defer snap.Release()
		v, err := snap.Table(TableName{Name: table})
		if err != nil {
			b.Fatal(err)
		}
		dim := VectorDim(v.Schema().Field(o.Column))
		at := i % (len(queries) / dim) * dim
		o.Queries = queries[at : at+dim]
		found, err := v.VectorSearch(ctx, o)
		if err != nil {
			b.Fatal(err)
		}
		places := make([]uint64, len(found[0]))
		for j, n := range found[0] {
			places[j] = uint64(n.Place)
		}
		rec, err := v.Take(ctx, []int{0}, places)
		if err != nil {
			b.Fatal(err)
		}
		rec.Release()
	}
	for i := range 100 { // what is read for the first time is checked
		one(i)
	}
	b.ReportAllocs()
	b.ResetTimer()
	start := processorTime(b)
	for i := range b.N {
		one(i)
	}
	b.ReportMetric(float64((processorTime(b)-start).Nanoseconds())/1e3/float64(b.N), "cpu-µs/query")
}

// BenchmarkFreshVectors puts 100,000 vectors of 128 numbers into one memtable in batches of 100, whose index has 256 partitions and 16 sub-vectors
// of 8 bits, and searches for the 10 nearest among them: by the index, and by comparing all.
func BenchmarkFreshVectors(b *testing.B) {
	const dim, base, fresh, batch = 128, 6_000, 100_000, 100
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: b.TempDir(), Memory: 4 << 30, MemtableBytes: 1 << 30, SegmentBytes: 128 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	field := arrow.Field{Name: "v", Type: arrow.FixedSizeListOf(dim, arrow.PrimitiveTypes.Float32)}
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, field}, nil)
	if err := db.CreateTable(ctx, TableDef{Name: TableName{Name: "t"}, Schema: schema, Key: []string{"id"}, Durability: Buffered}); err != nil {
		b.Fatal(err)
	}
	table, err := db.Table(TableName{Name: "t"})
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(40, 1))
	centres, directions := clusteredVectors(r, nil, 400, dim), clusteredVectors(r, nil, 400*latentDim, dim)
	acceptAll(b, ctx, db, table, vectorBatches(b, schema, latentVectors(r, centres, directions, base, dim), dim, batch, 0))
	if err := db.Optimize(ctx, table.Name()); err != nil {
		b.Fatal(err)
	}
	def := IndexDef{Name: "near", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{optionPartitions: "256", optionSubVectors: "16"}}
	if err := db.CreateIndex(ctx, table.Name(), def, CreateIndexOptions{}); err != nil {
		b.Fatal(err)
	}
	batches := vectorBatches(b, schema, latentVectors(r, centres, directions, fresh, dim), dim, batch, base)
	start, began := processorTime(b), time.Now()
	acceptAll(b, ctx, db, table, batches)
	cpu, took := processorTime(b)-start, time.Since(began)
	queries := latentVectors(r, centres, directions, 200, dim)
	for _, c := range []struct {
		name string
		o    VectorSearchOptions
	}{{"index", VectorSearchOptions{NProbes: 16, Refine: 4}}, {"exact", VectorSearchOptions{NoIndex: true}}} {
		c.o.Column, c.o.K = 1, 10
		b.Run(c.name, func(b *testing.B) {
			searchAll(b, db, "t", queries, c.o)
			b.ReportMetric(fresh/cpu.Seconds(), "put-rows/cpu-s")
			b.ReportMetric(fresh/took.Seconds(), "put-rows/s")
			b.ReportMetric(recallOf(b, db, queries, dim, c.o), "recall@10")
		})
	}
}

// clusteredVectors returns vectors around centres, without these at random.
func clusteredVectors(r *rand.Rand, centres []float32, n, dim int) []float32 {
	out := make([]float32, n*dim)
	for i := range n {
		from := 0
		if centres != nil {
			from = r.IntN(len(centres)/dim) * dim
		}
		for j := range dim {
			x := float32(r.NormFloat64())
			if centres != nil {
				x = centres[from+j] + x/2
			}
			out[i*dim+j] = x
		}
	}
	return out
}

// latentDim is how many directions of its own a cluster has.
const latentDim = 16

// latentVectors returns vectors around centres, each along the directions of its centre, which is how vectors of real things lie.
func latentVectors(r *rand.Rand, centres, directions []float32, n, dim int) []float32 {
	out := make([]float32, n*dim)
	for i := range n {
		c, row := r.IntN(len(centres)/dim), out[i*dim:(i+1)*dim]
		for j := range row {
			row[j] = centres[c*dim+j] + 0.05*float32(r.NormFloat64())
		}
		for l := range latentDim {
			along, z := directions[(c*latentDim+l)*dim:], float32(r.NormFloat64())/4
			for j := range row {
				row[j] += z * along[j]
			}
		}
	}
	return out
}

// vectorBatches returns batches of ids and vectors.
func vectorBatches(b *testing.B, schema *arrow.Schema, rows []float32, dim, size int, first int64) []Batch {
	b.Helper()
	var out []Batch
	for at := 0; at < len(rows); at += size * dim {
		some := rows[at:min(at+size*dim, len(rows))]
		rb := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		list := rb.Field(1).(*array.FixedSizeListBuilder)
		for range len(some) / dim {
			rb.Field(0).(*array.Int64Builder).Append(first)
			list.Append(true)
			first++
		}
		list.ValueBuilder().(*array.Float32Builder).AppendValues(some, nil)
		out = append(out, Batch{Record: rb.NewRecordBatch()})
		rb.Release()
	}
	return out
}

// recallOf returns the share of the nearest rows that searches find.
func recallOf(b *testing.B, db *DB, queries []float32, dim int, o VectorSearchOptions) float64 {
	b.Helper()
	snap, err := db.Snapshot(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "t"})
	if err != nil {
		b.Fatal(err)
	}
	o.Queries = queries
	found, err := v.VectorSearch(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	o.NoIndex = true
	want, err := v.VectorSearch(context.Background(), o)
	if err != nil {
		b.Fatal(err)
	}
	hits := 0
	for i := range found {
		for _, n := range found[i] {
			if slices.ContainsFunc(want[i], func(w Neighbor) bool { return w.Place == n.Place }) {
				hits++
			}
		}
	}
	if len(found) != len(queries)/dim {
		b.Fatal(fmt.Errorf("%d answers for %d queries", len(found), len(queries)/dim))
	}
	return float64(hits) / float64(10*len(found))
}
