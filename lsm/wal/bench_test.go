package wal

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// The benchmarks append batches of 100 rows of four columns: an IPC header of 300 bytes and a body of 4 KiB.
const (
	benchRows   = 100
	benchHeader = 300
	benchBody   = 4096
)

// BenchmarkSync is the ceiling of all durable appends: overwrite 4.4 KiB of a zeroed file and sync it.
func BenchmarkSync(b *testing.B) {
	f, err := folder(b.TempDir()).Create("f")
	require.NoError(b, err)
	defer f.Close()
	for off := range int64(64) {
		_, err := f.WriteAt(zeros[:], off*zerosBytes)
		require.NoError(b, err)
	}
	require.NoError(b, f.Sync())
	batch := make([]byte, benchHeader+benchBody)
	off := int64(0)
	b.ResetTimer()
	for range b.N {
		if _, err := f.WriteAt(batch, off); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		off = (off + int64(len(batch))) % (63 * zerosBytes)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
}

// BenchmarkAppend appends from several goroutines. With "durable" each waits for each of its batches, with "pipelined"
// only for the last one.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range []string{"durable", "pipelined"} {
		for _, goroutines := range []int{1, 8, 32} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", mode, goroutines), func(b *testing.B) {
				benchAppend(b, goroutines, benchBody, mode == "durable")
			})
		}
	}
}

// BenchmarkAppendBody appends bodies of several sizes, pipelined, from two goroutines.
func BenchmarkAppendBody(b *testing.B) {
	for _, body := range []int{256, 4 << 10, 16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(body), func(b *testing.B) { benchAppend(b, 2, body, false) })
	}
}

func benchAppend(b *testing.B, goroutines, body int, durable bool) {
	var syncs atomic.Int64
	l, err := Open(Options{Dir: filepath.Join(b.TempDir(), "log"), Spares: 16, Durable: func(LSN) { syncs.Add(1) }})
	require.NoError(b, err)
	defer l.Close()
	ctx := context.Background()
	warm(b, l)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(int64(benchHeader + body))
	b.ReportAllocs()
	syncs.Store(0)
	b.ResetTimer()
	ended := make(chan error, goroutines)
	for range goroutines {
		go func() { ended <- benchWriter(ctx, l, body, durable, &left) }()
	}
	for range goroutines {
		require.NoError(b, <-ended)
	}
	require.NoError(b, l.WaitDurable(ctx, l.AppendedLSN()))
	b.StopTimer()
	b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(b.N)/float64(syncs.Load()), "batches/sync")
}

// benchWriter appends until nothing is left to do. It trims as the flush of a memtable would.
func benchWriter(ctx context.Context, l *Local, body int, durable bool, left *atomic.Int64) error {
	pieces := [][]byte{make([]byte, benchHeader), make([]byte, body)}
	shard := uuid.UUID{1}
	const between = 64 << 20
	since := 0
	for left.Add(-1) >= 0 {
		last, err := l.Append(ctx, &Record{Kind: Batch, Shard: shard, Rows: benchRows, Body: pieces})
		if err != nil {
			return err
		}
		if durable {
			if err := l.WaitDurable(ctx, last); err != nil {
				return err
			}
		}
		if since += body; since > between {
			since = 0
			if err := l.Trim(l.DurableLSN()); err != nil {
				return err
			}
		}
	}
	return nil
}

// warm fills some segments and trims them, so that the benchmark runs on segments that are used again, as a server does
// most of the time.
func warm(b *testing.B, l *Local) {
	ctx := context.Background()
	piece := make([]byte, 1<<20)
	for range 5 * 64 {
		_, err := l.Append(ctx, &Record{Kind: Batch, Body: [][]byte{piece}})
		require.NoError(b, err)
	}
	require.NoError(b, l.WaitDurable(ctx, l.AppendedLSN()))
	require.NoError(b, l.Trim(l.DurableLSN()))
}

// BenchmarkReplay reads 100-row batches back from the page cache.
func BenchmarkReplay(b *testing.B) {
	dir := b.TempDir()
	l, err := Open(Options{Dir: dir})
	require.NoError(b, err)
	var left atomic.Int64
	const batches = 60_000
	left.Store(batches)
	require.NoError(b, benchWriterNoTrim(l, &left))
	require.NoError(b, l.Close())
	b.SetBytes(batches * (benchHeader + benchBody))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		n := 0
		_, err := Replay(dir, 0, func(*Record) error { n++; return nil })
		require.NoError(b, err)
		require.Equal(b, batches, n)
	}
}

func benchWriterNoTrim(l *Local, left *atomic.Int64) error {
	pieces := [][]byte{make([]byte, benchHeader), make([]byte, benchBody)}
	for left.Add(-1) >= 0 {
		if _, err := l.Append(context.Background(), &Record{Kind: Batch, Rows: benchRows, Body: pieces}); err != nil {
			return err
		}
	}
	return nil
}
