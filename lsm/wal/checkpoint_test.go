package wal

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// countRecord returns a record that says a number, padded to a size.
func countRecord(kind Kind, n uint64, bytes int) *Record {
	b := make([]byte, 8+bytes)
	binary.LittleEndian.PutUint64(b, n)
	return &Record{Kind: kind, Body: [][]byte{b}}
}

// readCount replays a log of records that are numbered from 1, with checkpoints that say the last number before them,
// and returns the last number. Whatever was trimmed, it must be known.
func readCount(t *testing.T, d disk) (uint64, State) {
	t.Helper()
	last, known := uint64(0), false
	recs, end, err := replayAll(d, 0)
	require.NoError(t, err)
	for _, r := range recs {
		n := binary.LittleEndian.Uint64(r.body)
		switch {
		case r.Kind == Idempotency && known:
			require.Equal(t, last, n, "checkpoint %s does not say what was logged before it", r.LSN)
		case r.Kind == Batch && known:
			require.Equal(t, last+1, n, "record %s", r.LSN)
		case r.Kind == Batch:
			require.EqualValues(t, 1, n, "the log begins with %s and has forgotten what was before it", r.LSN)
		}
		last, known = n, true
	}
	return last, end
}

// TestCheckpointsSurviveTrimsAndPowerCuts appends numbered records, trims all it may, and cuts the power at random
// operations of the disk: the log always knows the last number that was durable, or a later one.
func TestCheckpointsSurviveTrimsAndPowerCuts(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 3))
	d := newCrashDisk()
	ctx := context.Background()
	for range 80 {
		count, end := readCount(t, d)
		var last, durable, ops atomic.Uint64 // of Appended, and of what was waited for
		last.Store(count)
		durable.Store(count)
		var power sync.Once
		var left *crashDisk
		var promised uint64
		after, tearing := random.Uint64N(200), rand.New(rand.NewPCG(random.Uint64(), 1))
		cut := func() { promised, left = durable.Load(), d.crash(tearing) }
		d.inject(func(string, string) error {
			if ops.Add(1) >= after {
				power.Do(cut)
			}
			return nil
		})
		o := Options{Dir: "log", End: end, SegmentBytes: minSegmentBytes,
			Appended: func(recs []*Record) { last.Add(uint64(len(recs))) },
			Checkpoint: func() *Record {
				if last.Load() == 0 {
					return nil // nothing to know yet
				}
				return countRecord(Idempotency, last.Load(), 200)
			}}
		require.NoError(t, o.validate())
		l, err := open(o, env{disk: d, maxCount: 100, salt: rand.Uint64, rest: afterFunc})
		require.NoError(t, err)
		for range random.IntN(60) {
			count++
			lsn, err := l.Append(ctx, countRecord(Batch, count, randomBytes(random)))
			require.NoError(t, err)
			if random.IntN(3) == 0 {
				require.NoError(t, l.WaitDurable(ctx, lsn))
				durable.Store(count)
				require.NoError(t, l.Trim(lsn))
			}
		}
		require.NoError(t, l.Close())
		power.Do(cut)
		d = left
		got, _ := readCount(t, d)
		require.GreaterOrEqual(t, got, promised)
	}
}

// TestASegmentWithoutRoomForItsCheckpointTakesNothing has a checkpoint that is larger than its segment find no room:
// appends are refused until it does, and nothing is trimmed.
func TestASegmentWithoutRoomForItsCheckpointTakesNothing(t *testing.T) {
	d, ctx := newCrashDisk(), context.Background()
	count := uint64(0)
	l := openTest(t, d, Options{
		Appended: func(recs []*Record) { count += uint64(len(recs)) },
		Checkpoint: func() *Record {
			if count == 0 {
				return nil
			}
			return countRecord(Idempotency, count, 100_000)
		}})
	full := true
	d.inject(func(op, name string) error {
		if op == "write" && name == segmentName(2) && full {
			return &os.PathError{Op: op, Err: syscall.ENOSPC}
		}
		return nil
	})
	var err error
	n := uint64(0)
	for err == nil {
		n++
		_, err = l.Append(ctx, countRecord(Batch, n, 1000))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, l.Err())
	_, err = l.Append(ctx, countRecord(Batch, n, 0))
	require.ErrorIs(t, err, syscall.ENOSPC, "small as it is, it comes behind the checkpoint")
	require.NoError(t, l.Trim(l.AppendedLSN()))
	require.Contains(t, segmentsOn(t, d), uint64(1))
	d.mu.Lock()
	full = false
	d.mu.Unlock()
	last, err := l.Append(ctx, countRecord(Batch, n, 0))
	require.NoError(t, err)
	require.NoError(t, l.WaitDurable(ctx, last))
	require.NoError(t, l.Trim(last))
	require.NotContains(t, segmentsOn(t, d), uint64(1))
	require.NoError(t, l.Close())
	got, _ := readCount(t, d)
	require.Equal(t, n, got)
}

// TestACheckpointThatCannotBeWrittenPoisonsTheLog keeps a segment without its checkpoint from being used: trimming
// those before it would forget.
func TestACheckpointThatCannotBeWrittenPoisonsTheLog(t *testing.T) {
	d := newCrashDisk()
	bad := false
	l := openTest(t, d, Options{Checkpoint: func() *Record {
		if bad {
			return &Record{Kind: 99}
		}
		return nil
	}})
	bad = true
	var err error
	for i := uint64(1); err == nil; i++ {
		_, err = l.Append(context.Background(), testRecord(i, 1000))
	}
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, l.Close(), ErrPoisoned)
}
