package lsm

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// streamOne puts one row into a stream.
func streamOne(t *testing.T, s *Stream, key, value int64) error {
	t.Helper()
	rec := writesBatch(s.table.Schema(), value, value, []int64{key})
	defer rec.Release()
	return s.Put(context.Background(), Batch{Record: rec})
}

// TestStreamsKeepTheOrderOfTheirBatches has four streams write the same keys again and again, each its own: the last value
// of a key is the one that its stream sent last, LSNs rise, and empty batches stand where they were put.
func TestStreamsKeepTheOrderOfTheirBatches(t *testing.T) {
	for _, durability := range []Durability{Durable, Buffered} {
		ctx := context.Background()
		db := openTest(t, t.TempDir())
		table := createWrites(t, db, "w", durability)
		var wg sync.WaitGroup
		const streams, batches, keys = 4, 600, 50
		for n := range int64(streams) {
			wg.Go(func() {
				var told []LSN
				s := table.Stream(func(lsn LSN) { told = append(told, lsn) })
				for i := range int64(batches) {
					if i%100 == 99 {
						empty := writesBatch(table.Schema(), 0, 0, nil)
						if err := s.Put(ctx, Batch{Record: empty}); err != nil {
							t.Error(err)
						}
						empty.Release()
						continue
					}
					if err := streamOne(t, s, n*keys+i%keys, i); err != nil {
						t.Error(err)
						return
					}
				}
				if err := s.Wait(ctx); err != nil {
					t.Error(err)
				}
				if len(told) != batches {
					t.Errorf("told of %d batches", len(told))
				}
				for i := 1; i < len(told); i++ {
					if told[i] < told[i-1] || told[i] == told[i-1] && (i+1)%100 > 1 {
						t.Errorf("batch %d has LSN %s behind %s", i, told[i], told[i-1])
					}
				}
				if err := db.Wait(ctx, told[len(told)-1]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := map[int64][2]int64{}
		for n := range int64(streams) {
			for i := range int64(batches) {
				if i%100 != 99 {
					want[n*keys+i%keys] = [2]int64{i, i}
				}
			}
		}
		require.Equal(t, want, readWrites(t, db, "w"))
		require.NoError(t, db.Close())
		db = openTest(t, db.opt.Dir)
		require.Equal(t, want, readWrites(t, db, "w"))
		require.NoError(t, db.Close())
	}
}

// TestStatementsComeBetweenTheBatchesOfAStream runs INSERTs of keys beside a stream: none of them waits for
// its end, and none sees half of what it checked.
func TestStatementsComeBetweenTheBatchesOfAStream(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createWrites(t, db, "w", Buffered)
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		var last LSN
		s := table.Stream(func(lsn LSN) { last = lsn })
		for i := int64(0); i < 100 || !stop.Load(); i++ { // each key once, however fast the statements are
			if err := streamOne(t, s, i%100, i); err != nil {
				done <- err
				return
			}
		}
		if err := s.Wait(ctx); err != nil {
			done <- err
			return
		}
		done <- db.Wait(ctx, last)
	}()
	for i := range int64(50) {
		rec := writesBatch(table.Schema(), 7, 7, []int64{1000 + i})
		n, err := table.Insert(ctx, rec)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		_, err = table.Insert(ctx, rec)
		require.ErrorIs(t, err, ErrKeyExists)
		rec.Release()
	}
	stop.Store(true)
	require.NoError(t, <-done)
	require.Len(t, readWrites(t, db, "w"), 150)
}

// TestADroppedTableEndsItsStreams drops a table in the middle of a stream.
func TestADroppedTableEndsItsStreams(t *testing.T) {
	ctx := context.Background()
	before := offheap.Default.InUse()
	db := openTest(t, t.TempDir())
	table := createWrites(t, db, "w", Durable)
	s := table.Stream(nil)
	for i := range int64(100) {
		require.NoError(t, streamOne(t, s, i, i))
	}
	require.NoError(t, db.DropTable(ctx, table.Name()))
	require.ErrorIs(t, streamOne(t, s, 1, 1), ErrTableNotFound)
	require.NoError(t, s.Wait(ctx), "what was sent was taken")
	require.NoError(t, db.Close())
	require.Equal(t, before, offheap.Default.InUse())
}

// TestAClosedLogEndsStreams closes the log under a stream: it is told so, and the memory of what did not come
// there goes back.
func TestAClosedLogEndsStreams(t *testing.T) {
	ctx := context.Background()
	before := offheap.Default.InUse()
	db := openTest(t, t.TempDir())
	table := createWrites(t, db, "w", Buffered)
	var told atomic.Int64
	s := table.Stream(func(LSN) { told.Add(1) })
	require.NoError(t, streamOne(t, s, 1, 1))
	require.NoError(t, s.Wait(ctx))
	require.EqualValues(t, 1, told.Load())
	require.NoError(t, db.log.Close())
	err := streamOne(t, s, 2, 2)
	require.ErrorIs(t, err, ErrClosed)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	require.NoError(t, s.Wait(ctx))
	require.EqualValues(t, 1, told.Load())
	require.NoError(t, db.Close())
	require.Equal(t, before, offheap.Default.InUse())
}

// TestAStreamWaitsForMemory sends far more than there is memory: it is slowed, and the wait is counted.
func TestAStreamWaitsForMemory(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	db.budget.limit = 1 << 20
	table := createWrites(t, db, "w", Buffered)
	s := table.Stream(nil)
	const n, perBatch = 200, 1000
	for i := range int64(n) {
		keys := make([]int64, perBatch)
		for j := range keys {
			keys[j] = i*perBatch + int64(j)
		}
		rec := writesBatch(table.Schema(), 1, i, keys)
		require.NoError(t, s.Put(ctx, Batch{Record: rec}))
		rec.Release()
	}
	require.NoError(t, s.Wait(ctx))
	require.NoError(t, db.Wait(ctx, LSN(table.last.Load())))
	require.Len(t, readWrites(t, db, "w"), n*perBatch)
	stall := db.Stats().Stalls[0]
	require.Equal(t, StallMemory, stall.Cause)
	require.Positive(t, stall.Count)
	require.Positive(t, stall.Waited)
	require.Zero(t, stall.Waiting)
}

// TestAStreamTakesNothingBehindABatchThatWasRefused: what is stored of a stream is a prefix of it, whoever refuses a batch
// and whatever its writer makes of that.
func TestAStreamTakesNothingBehindABatchThatWasRefused(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	table := createWrites(t, db, "w", Durable)
	s := table.Stream(nil)
	require.NoError(t, streamOne(t, s, 1, 1))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	unlock, err := table.seize(ctx) // the next batch has to wait, and its writer does not
	require.NoError(t, err)
	rec := writesBatch(table.Schema(), 2, 2, []int64{2})
	refused := s.Put(gone, Batch{Record: rec})
	rec.Release()
	unlock()
	require.ErrorIs(t, refused, context.Canceled)
	require.ErrorIs(t, streamOne(t, s, 3, 3), context.Canceled)
	require.NoError(t, s.Wait(ctx), "what was sent is stored")
	require.NoError(t, db.Wait(ctx, LSN(table.last.Load())))
	require.Equal(t, map[int64][2]int64{1: {1, 1}}, readWrites(t, db, "w"))
	require.NoError(t, db.Close())
}
