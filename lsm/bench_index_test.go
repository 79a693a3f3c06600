package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// BenchmarkPutIndexed streams 1,000,000 rows of schema A in batches of 100 into one memtable of a buffered table, with
// random keys in the key index and, or not, a BTREE over one more column: doubles whose order is that of the keys, or
// texts of which there are 1,000. It reports rows per second of elapsed time and of processor time.
func BenchmarkPutIndexed(b *testing.B) {
	const batchRows, count = 100, 10_000
	batches := benchBatches(b, count, batchRows, true)
	for _, column := range []string{"none", "value", "tag"} {
		b.Run("index="+column, func(b *testing.B) {
			ctx := context.Background()
			var cpu time.Duration
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				db, table := benchBurst(b, benchSchema)
				if column != "none" {
					if err := db.CreateIndex(ctx, table.Name(), IndexDef{Name: "x", Kind: BTreeIndex, Columns: []string{column}}, CreateIndexOptions{}); err != nil {
						b.Fatal(err)
					}
				}
				start := processorTime(b)
				b.StartTimer()
				acceptAll(b, ctx, db, table, batches)
				b.StopTimer()
				cpu += processorTime(b) - start
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			n := float64(b.N * count * batchRows)
			b.ReportMetric(n/b.Elapsed().Seconds()/1e6, "Mrows/s")
			b.ReportMetric(n/cpu.Seconds()/1e6, "Mrows/cpu-s")
		})
	}
}

// BenchmarkRangeOfColumn reads 1 or 1,000 rows by a range of a column that is no key, out of 2,000,000 that are in one
// kind of layer, with an index over it and without.
func BenchmarkRangeOfColumn(b *testing.B) {
	const batches, n = 250, 8000
	ctx := context.Background()
	for _, indexed := range []bool{true, false} {
		for _, layer := range []string{"fresh", "flushed", "merged"} {
			db, table := benchDB(b)
			var err error
			if indexed {
				err = db.CreateIndex(ctx, table.Name(), IndexDef{Name: "x", Kind: BTreeIndex, Columns: []string{"value"}}, CreateIndexOptions{})
			}
			for _, x := range benchBatches(b, batches, n, false) {
				if err == nil {
					_, err = table.Put(ctx, x)
				}
			}
			if err == nil {
				err = db.Wait(ctx, LSN(table.last.Load()))
			}
			if layer != "fresh" && err == nil {
				err = db.Flush(ctx, table.Name())
			}
			if layer == "merged" && err == nil {
				err = db.Optimize(ctx, table.Name())
			}
			if err != nil {
				b.Fatal(err)
			}
			for _, rows := range []int64{1, 1000} {
				b.Run(fmt.Sprintf("index=%v/%s/rows=%d", indexed, layer, rows), func(b *testing.B) {
					r := rand.New(rand.NewPCG(1, 2))
					b.ReportAllocs()
					for range b.N {
						if got := benchValues(b, db, table, r.Int64N(batches*n-rows), rows); got < rows {
							b.Fatalf("%d rows, expected %d", got, rows)
						}
					}
				})
			}
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// benchValues reads the rows whose values are some numbers from first on, and returns how many were read.
func benchValues(b *testing.B, db *DB, table *Table, first, rows int64) int64 {
	ctx := context.Background()
	snap, err := db.Snapshot(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer snap.Release()
	v, err := snap.Table(table.Name())
	if err != nil {
		b.Fatal(err)
	}
	values := array.NewFloat64Builder(memory.DefaultAllocator)
	values.AppendValues([]float64{float64(first), float64(first + rows)}, nil)
	bounds := values.NewArray()
	defer bounds.Release()
	where := v.NewColumnSet(columnIndex(v.Schema(), "value"))
	if rows == 1 {
		err = where.Add([]arrow.Array{array.NewSlice(bounds, 0, 1)})
	} else {
		err = where.AddRange(nil, KeyBound{Value: array.NewSlice(bounds, 0, 1)}, KeyBound{Value: array.NewSlice(bounds, 1, 2), Exclusive: true})
	}
	if err != nil {
		b.Fatal(err)
	}
	sc, err := v.Scan(ctx, ScanOptions{Columns: []int{0, 1, 2, 3}, Where: where})
	if err != nil {
		b.Fatal(err)
	}
	defer sc.Close()
	total := int64(0)
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return total
		}
		if err != nil {
			b.Fatal(err)
		}
		total += m.Rows()
		m.Release()
	}
}
