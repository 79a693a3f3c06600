package lsm

import (
	"context"
	"testing"
)

// BenchmarkOverwrites writes a million rows of schema A over themselves 100 times, merges, and collects what nothing needs
// any more. of-live is what is then on disk, key index included and the log left out, in sizes of a table that was written
// once and merged.
func BenchmarkOverwrites(b *testing.B) {
	const n, count, rounds = 10_000, 100, 100
	ctx := context.Background()
	batches := benchBatches(b, count, n, false)
	for range b.N {
		var sizes [2]int64
		for i, times := range []int{1, rounds} {
			dir := b.TempDir()
			db, err := Open(ctx, Options{Dir: dir, Durability: Buffered, Retain: -1})
			if err != nil {
				b.Fatal(err)
			}
			table := benchTable(b, db, benchSchema)
			for range times {
				for _, x := range batches {
					if _, err := table.Put(ctx, x); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := db.Optimize(ctx, table.Name()); err != nil {
				b.Fatal(err)
			}
			if _, err := db.Vacuum(ctx, table.Name()); err != nil {
				b.Fatal(err)
			}
			sizes[i] = benchDiskUsed(b, dir)
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(sizes[1])/1e6, "MB")
		b.ReportMetric(float64(sizes[1])/float64(sizes[0]), "of-live")
	}
}
