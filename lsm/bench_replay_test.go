package lsm

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkReplay opens a data folder whose log has 4 million rows that no generation has: it reads and verifies the
// log, decodes the batches and builds the memtables with their key index. Open is timed, Close is not.
func BenchmarkReplay(b *testing.B) {
	for _, n := range []int{100, 8192} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			ctx := context.Background()
			// Nothing is flushed, so that every Open finds the same log.
			o := Options{Dir: b.TempDir(), Memory: 4 << 30, MemtableBytes: 1 << 30, Durability: Buffered}
			db, err := Open(ctx, o)
			if err != nil {
				b.Fatal(err)
			}
			total := benchFill(b, db, benchBatches(b, 4_000_000/n, n, false))
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for range b.N {
				db, err := Open(ctx, o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if got := db.list()[0].shards[0].chain().active().rows.Load().rowCount(); got != total {
					b.Fatalf("%d rows came back, expected %d", got, total)
				}
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(total)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
		})
	}
}

// benchFill creates the table of the benchmarks, puts batches into it and returns their rows.
func benchFill(b *testing.B, db *DB, batches []Batch) (total int64) {
	b.Helper()
	ctx := context.Background()
	table := benchTable(b, db, benchSchema)
	var lsn LSN
	for _, x := range batches {
		var err error
		if lsn, err = table.Put(ctx, x); err != nil {
			b.Fatal(err)
		}
		total += x.Record.NumRows()
	}
	if err := db.Wait(ctx, lsn); err != nil {
		b.Fatal(err)
	}
	return total
}
