package lsm

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/internal/rows"
)

// BenchmarkAccept streams a burst of 1,000,000 rows of schema A into one memtable of a buffered table: each batch is
// checked, framed, checksummed and written to the log's file, and visible at the end; with a key it is in the key index,
// too. The log is synced behind it, no memtable is full and nothing is flushed. It reports rows per second of elapsed time,
// rows per second of all processor time that the process took, on whatever threads, and that time for each batch; and it
// counts what is allocated on the Go heap.
func BenchmarkAccept(b *testing.B) {
	const batchRows, count = 100, 10_000
	for _, c := range []struct{ name, schema string }{
		{"key=none", strings.Replace(benchSchema, " key", "", 1)},
		{"keys=sequential", benchSchema},
		{"keys=random", benchSchema},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := context.Background()
			batches := benchBatches(b, count, batchRows, c.name == "keys=random")
			var cpu time.Duration
			var mallocs uint64
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				db, table := benchBurst(b, c.schema)
				runtime.GC()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := processorTime(b)
				b.StartTimer()
				acceptAll(b, ctx, db, table, batches)
				b.StopTimer()
				cpu += processorTime(b) - start
				runtime.ReadMemStats(&after)
				mallocs += after.Mallocs - before.Mallocs
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			n := float64(b.N * count)
			b.ReportMetric(n*batchRows/b.Elapsed().Seconds()/1e6, "Mrows/s")
			b.ReportMetric(n*batchRows/cpu.Seconds()/1e6, "Mrows/cpu-s")
			b.ReportMetric(float64(cpu.Nanoseconds())/n/1e3, "cpu-µs/batch")
			b.ReportMetric(float64(mallocs)/n, "allocs/batch")
		})
	}
}

// acceptAll streams batches and waits until they are visible.
func acceptAll(b *testing.B, ctx context.Context, db *DB, table *Table, batches []Batch) {
	s := table.Stream(nil)
	for i := range batches {
		if err := s.Put(ctx, batches[i]); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Wait(ctx); err != nil {
		b.Fatal(err)
	}
	if err := db.Wait(ctx, LSN(table.last.Load())); err != nil {
		b.Fatal(err)
	}
}

// processorTime returns the time that all threads of the process have run, in the system, too.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchBurst opens a DB with a buffered table whose memtable takes a burst, and whose log has a segment of full size ready
// for it: making one is what the log does once, not what a batch costs.
func benchBurst(b *testing.B, schema string) (*DB, *Table) {
	b.Helper()
	ctx := context.Background()
	dir := b.TempDir()
	db, err := Open(ctx, Options{Dir: dir, Memory: 4 << 30, MemtableBytes: 1 << 30, SegmentBytes: 128 << 20})
	if err != nil {
		b.Fatal(err)
	}
	first := makeBenchTable(b, db, "first", schema, Buffered)
	acceptAll(b, ctx, db, first, benchBatches(b, 10, 20_000, false)) // more than the log's first, small segment
	for segments := 0; segments < 3; time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(dir, walFolder, "*.wal"))
		if err != nil {
			b.Fatal(err)
		}
		segments = len(files)
	}
	return db, makeBenchTable(b, db, "t", schema, Buffered)
}

// makeBenchTable makes a table.
func makeBenchTable(b *testing.B, db *DB, name, schema string, d Durability) *Table {
	b.Helper()
	s, err := rows.Schema(schema)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.CreateTable(context.Background(), TableDef{Name: TableName{Name: name}, Schema: s, Durability: d}); err != nil {
		b.Fatal(err)
	}
	table, err := db.Table(TableName{Name: name})
	if err != nil {
		b.Fatal(err)
	}
	return table
}
