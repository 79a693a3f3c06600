package lsm

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
)

// BenchmarkGet gets one row of schema A, all four columns, by a random key that is stored: with 1,000,000 rows that are
// in a memtable, with as many over 10 generations, all of which have rows on both sides of each key, and with 10,000,000
// rows that are in the base. Beside the mean it reports the median and the 99th percentile in µs. Files are in the page
// cache.
func BenchmarkGet(b *testing.B) {
	for _, c := range []struct {
		name    string
		rows    int
		prepare func(b *testing.B, db *DB, table *Table, rows int)
	}{
		{"fresh", 1_000_000, loadFresh},
		{"generations=10", 1_000_000, loadGenerations},
		{"base", 10_000_000, loadBase},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.Background()
			db, err := Open(ctx, Options{Dir: b.TempDir(), Memory: 2 << 30, MemtableBytes: 512 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			table := makeBenchTable(b, db, "t", benchSchema, Buffered)
			c.prepare(b, db, table, c.rows)
			r := rand.New(rand.NewPCG(1, 2))
			keys := make([]arrow.Array, 4096)
			for i := range keys {
				keys[i] = int64s(r.Int64N(int64(c.rows)))
			}
			columns, took := []int{0, 1, 2, 3}, make([]time.Duration, 0, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				start := time.Now()
				row, err := table.Get(ctx, keys[i%len(keys):][:1], columns)
				if err != nil || row == nil {
					b.Fatal(row, err)
				}
				row.Release()
				took = append(took, time.Since(start))
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
		})
	}
}

// loadFresh leaves rows in a memtable.
func loadFresh(b *testing.B, db *DB, table *Table, n int) {
	acceptAll(b, context.Background(), db, table, benchBatches(b, n/1000, 1000, false))
}

// loadGenerations writes every tenth row into one generation, and the next ones into the others.
func loadGenerations(b *testing.B, db *DB, table *Table, n int) {
	const generations = 10
	for g := range generations {
		ids := make([]int64, 0, n/generations)
		for id := int64(g); id < int64(n); id += generations {
			ids = append(ids, id)
		}
		acceptAll(b, context.Background(), db, table, []Batch{{Record: benchRecord(b, ids)}})
		if err := db.Flush(context.Background(), table.Name()); err != nil {
			b.Fatal(err)
		}
	}
}

// loadBase brings rows into the base.
func loadBase(b *testing.B, db *DB, table *Table, n int) {
	const part = 1_000_000
	for first := int64(0); first < int64(n); first += part {
		ids := make([]int64, part)
		for i := range ids {
			ids[i] = first + int64(i)
		}
		acceptAll(b, context.Background(), db, table, []Batch{{Record: benchRecord(b, ids)}})
	}
	if err := db.Optimize(context.Background(), table.Name()); err != nil {
		b.Fatal(err)
	}
}
