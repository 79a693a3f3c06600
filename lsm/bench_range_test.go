package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// BenchmarkRangeOfFreshKeys reads the rows of 100 consecutive keys out of 1,000,000 rows in one memtable, which came in
// batches of 100 with rising or random keys: from rows in order, or from all.
func BenchmarkRangeOfFreshKeys(b *testing.B) {
	ctx := context.Background()
	for _, random := range []bool{false, true} {
		for _, ordered := range []bool{true, false} {
			b.Run(fmt.Sprintf("random=%v/ordered=%v", random, ordered), func(b *testing.B) {
				db, err := Open(ctx, Options{Dir: b.TempDir(), Memory: 4 << 30, MemtableBytes: 1 << 30})
				if err != nil {
					b.Fatal(err)
				}
				table := makeBenchTable(b, db, "t", benchSchema, Buffered)
				acceptAll(b, ctx, db, table, benchBatches(b, 10_000, 100, random))
				m := table.shards[0].chain().active()
				if !ordered {
					m.order.fix(func() {})
				}
				r := rand.New(rand.NewPCG(1, 2))
				for range orderPrice + 1 { // until the rows are in order
					benchKeyRange(b, db, table, 0, 100)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					benchKeyRange(b, db, table, r.Int64N(1_000_000-100), 100)
				}
				b.StopTimer()
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// benchKeyRange reads the rows of n keys from one on.
func benchKeyRange(b *testing.B, db *DB, table *Table, first, n int64) {
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
	values := array.NewInt64Builder(memory.DefaultAllocator)
	values.AppendValues([]int64{first, first + n}, nil)
	bounds := values.NewArray()
	defer bounds.Release()
	keys := v.NewKeySet()
	if err := keys.AddRange(nil, KeyBound{Value: array.NewSlice(bounds, 0, 1)}, KeyBound{Value: array.NewSlice(bounds, 1, 2), Exclusive: true}); err != nil {
		b.Fatal(err)
	}
	sc, err := v.Scan(ctx, ScanOptions{Columns: []int{0, 1, 2, 3}, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	defer sc.Close()
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
		m.Release()
	}
}
