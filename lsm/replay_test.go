package lsm

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm/wal"
)

// TestReplayWithLittleMemory replays the log of several tables into less memory than it was written with: what takes
// most is flushed, and a table with few rows makes no generations on the way.
func TestReplayWithLittleMemory(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db, err := Open(ctx, Options{Dir: dir, wrap: faulty, Memory: 1 << 30, MemtableBytes: 256 << 20, Durability: Buffered})
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	names := []string{"big", "other", "small"}
	want := make(map[string]map[int64][2]int64)
	for _, name := range names {
		createTest(t, db, name, writesSchema)
		want[name] = make(map[int64][2]int64)
	}
	for seq := range int64(600) {
		name, rows := names[r.IntN(2)], 1+r.IntN(4000)
		if seq%20 == 0 {
			name, rows = "small", 3
		}
		keys := make([]int64, rows)
		for i := range keys {
			keys[i] = r.Int64N(1 << 20)
			want[name][keys[i]] = [2]int64{7, seq}
		}
		table := mustTable(t, db, name)
		rec := writesBatch(table.Schema(), 7, seq, keys)
		lsn, err := table.Put(ctx, Batch{Record: rec})
		rec.Release()
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
	}
	used := db.Metrics().MemtableBytes
	require.Greater(t, used, int64(minMemory/2))
	require.NoError(t, db.Close())

	flushed := make(map[string]int)
	db, err = Open(ctx, Options{Dir: dir, wrap: faulty, Memory: minMemory, Durability: Buffered,
		Events: Events{Flush: func(e FlushEvent) { flushed[e.Table.Name]++ }}})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.NotZero(t, flushed["big"]+flushed["other"])
	require.Zero(t, flushed["small"])
	require.LessOrEqual(t, db.Metrics().MemtableBytes, int64(minMemory/2))
	for _, name := range names {
		require.Equal(t, want[name], readWrites(t, db, name), name)
	}
}

// TestReplayOfABatchThatIsNone has the log hold a record that is no batch, with good ones around it: Open says which it
// is, ends its goroutines and gives all memory back.
func TestReplayOfABatchThatIsNone(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "w", writesSchema)
	rec := writesBatch(table.Schema(), 0, 1, []int64{1, 2, 3})
	lsn, err := table.Put(ctx, Batch{Record: rec})
	rec.Release()
	require.NoError(t, err)
	require.NoError(t, db.Wait(ctx, lsn))
	require.NoError(t, db.Close())

	folder := filepath.Join(dir, walFolder)
	var good wal.Record
	end, err := wal.Replay(folder, 0, func(r *wal.Record) error {
		if r.Kind == wal.Batch {
			good = *r
			good.Body = [][]byte{slices.Concat(r.Body...)}
		}
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, good.Body)
	log, err := wal.Open(wal.Options{Dir: folder, End: end})
	require.NoError(t, err)
	appendOne := func(body []byte) LSN {
		r := good
		r.Body = [][]byte{body}
		lsn, err := log.Append(ctx, &r)
		require.NoError(t, err)
		return lsn
	}
	bad := slices.Clone(good.Body[0])
	for i := range bad[batchPrefixBytes : batchPrefixBytes+32] {
		bad[batchPrefixBytes+i] = 0xFF
	}
	at := appendOne(bad)
	for range 10 * replayPartBatches {
		appendOne(good.Body[0])
	}
	require.NoError(t, log.Close())

	before := offheap.Default.InUse()
	_, err = Open(ctx, Options{Dir: dir, wrap: faulty})
	require.ErrorContains(t, err, "record "+at.String()+` of table "w"`)
	require.Eventually(t, func() bool { return offheap.Default.InUse() <= before }, time.Minute, time.Millisecond)
}
