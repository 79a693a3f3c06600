package lsm

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkDurable puts batches of 100 rows of schema A into a durable table, each client waiting for each of its batches
// before the next. With one client each batch has a sync of its own: beside it stands how often the disk syncs blocks of
// the same size that are overwritten, in a file of the same folder, measured in turns with the client; "of-disk" is the
// one by the other. 32 clients share syncs: "of-one" is their rate by that of one client, measured before in the same run.
func BenchmarkDurable(b *testing.B) {
	b.Run("clients=1", func(b *testing.B) {
		db, table, batches := benchDurable(b)
		defer db.Close()
		disk := newSyncedFile(b)
		var ours, theirs time.Duration
		const turn = 50
		b.ResetTimer()
		for done := 0; done < b.N; done += turn {
			n := min(turn, b.N-done)
			ours += putDurably(b, db, table, batches, n, 1)
			b.StopTimer()
			theirs += disk.sync(b, n, int64(len(batches[0].Meta)+len(batches[0].Body)))
			b.StartTimer()
		}
		b.ReportMetric(float64(b.N)/ours.Seconds(), "puts/s")
		b.ReportMetric(float64(b.N)/theirs.Seconds(), "fdatasyncs/s")
		b.ReportMetric(theirs.Seconds()/ours.Seconds(), "of-disk")
	})
	b.Run("clients=32", func(b *testing.B) {
		db, table, batches := benchDurable(b)
		defer db.Close()
		one := min(b.N, 500)
		alone := putDurably(b, db, table, batches, one, 1)
		b.ResetTimer()
		took := putDurably(b, db, table, batches, b.N, 32)
		b.ReportMetric(float64(b.N)/took.Seconds(), "puts/s")
		b.ReportMetric(float64(b.N)/took.Seconds()/(float64(one)/alone.Seconds()), "of-one")
	})
}

// benchDurable opens a DB with a durable table, and returns batches for it.
func benchDurable(b *testing.B) (*DB, *Table, []Batch) {
	b.Helper()
	db, err := Open(context.Background(), Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	return db, makeBenchTable(b, db, "t", benchSchema, Durable), benchBatches(b, 64, 100, true)
}

// putDurably puts n batches from some clients and returns how long that took.
func putDurably(b *testing.B, db *DB, table *Table, batches []Batch, n, clients int) time.Duration {
	b.Helper()
	ctx := context.Background()
	start := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				lsn, err := table.Put(ctx, batches[i%int64(len(batches))])
				if err == nil {
					err = db.Wait(ctx, lsn)
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// syncedFile is a file whose blocks are all written.
type syncedFile struct {
	f    *os.File
	size int64
	at   int64
}

func newSyncedFile(b *testing.B) *syncedFile {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), "blocks"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	s := &syncedFile{f: f, size: 64 << 20}
	if _, err := f.Write(make([]byte, s.size)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	return s
}

// sync overwrites n blocks one after the other, each synced before the next, and returns how long that took.
func (s *syncedFile) sync(b *testing.B, n int, bytes int64) time.Duration {
	b.Helper()
	block := make([]byte, bytes)
	start := time.Now()
	for range n {
		if s.at+bytes > s.size {
			s.at = 0
		}
		if _, err := s.f.WriteAt(block, s.at); err != nil {
			b.Fatal(err)
		}
		s.at += bytes
		if err := unix.Fdatasync(int(s.f.Fd())); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}
