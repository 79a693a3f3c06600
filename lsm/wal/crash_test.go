package wal

import (
	"context"
	"flag"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	crashRounds = flag.Int("crash-rounds", 60, "power cuts in TestCrashes")
	crashSeed   = flag.Uint64("crash-seed", 0, "seed of TestCrashes, 0 for a random one")
)

// life is what is known of a log over all its crashes.
type life struct {
	t      *testing.T
	random *rand.Rand
	disk   *crashDisk
	// recs are the records that the log may hold, in order.
	recs []*Record
	// trimmed is the highest LSN that was given to Trim, highest the highest that was ever handed out.
	trimmed, highest LSN
	// ids counts records, so that no two are equal.
	ids atomic.Uint64
}

// TestCrashes appends from several goroutines, trims, and cuts the power at random operations of the disk. What was
// durable is there, what is there is a prefix of what was appended, and no LSN is given twice.
func TestCrashes(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-crash-seed %d", seed)
	w := &life{t: t, random: rand.New(rand.NewPCG(seed, 0)), disk: newCrashDisk()}
	for range *crashRounds {
		w.live()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d records, last epoch %d", w.ids.Load(), w.highest.Epoch())
}

// cut is the state of the world at a power cut. What the log does afterwards has never happened.
type cut struct {
	disk                       *crashDisk
	durable, appended, trimmed LSN
}

// cutPower takes the state of the world. What was promised is read before the disk is, what was allowed after.
func (w *life) cutPower(l *Local, trimmed *atomic.Uint64, tearing *rand.Rand) cut {
	var c cut
	if l != nil {
		c.durable, c.appended = l.DurableLSN(), l.AppendedLSN()
	}
	c.disk = w.disk.crash(tearing)
	c.trimmed = LSN(trimmed.Load())
	return c
}

// live replays and opens the log, works on it until the power is cut or for a while, and goes on with what is left.
func (w *life) live() {
	t := w.t
	end := w.replay()
	after := w.random.Uint64N(30)
	if w.random.IntN(3) == 0 {
		after = w.random.Uint64N(300)
	}
	var log atomic.Pointer[Local]
	var trimmed, ops atomic.Uint64
	var power sync.Once
	var at cut
	trimmed.Store(uint64(w.trimmed))
	tearing := rand.New(rand.NewPCG(w.random.Uint64(), 1))
	if w.random.IntN(4) == 0 {
		tearing = nil // only the process ends
	}
	w.disk.inject(func(op, name string) error {
		if ops.Add(1) >= after {
			power.Do(func() { at = w.cutPower(log.Load(), &trimmed, tearing) })
		}
		return nil
	})
	o := Options{Dir: "log", End: end, After: w.trimmed, SegmentBytes: minSegmentBytes, Spares: w.random.IntN(4) - 1,
		Interval: time.Duration(1 + w.random.IntN(int(time.Millisecond)))}
	require.NoError(t, o.validate())
	l, err := open(o, env{disk: w.disk, maxCount: 500, salt: rand.Uint64, after: afterFunc, rest: afterFunc})
	require.NoError(t, err)
	log.Store(l)
	recs := w.work(l, &trimmed)
	require.NoError(t, l.Close())
	power.Do(func() { at = w.cutPower(l, &trimmed, tearing) })
	require.Zero(t, w.disk.handles, "files are still open")
	w.survive(recs, at)
}

// replay compares the log with what is known, and forgets what was lost.
func (w *life) replay() State {
	got, end, err := replayAll(w.disk, w.trimmed)
	require.NoError(w.t, err)
	require.NoError(w.t, verify(w.disk))
	w.recs = slices.DeleteFunc(w.recs, func(r *Record) bool { return r.LSN <= w.trimmed || r.LSN > end.LSN })
	require.Len(w.t, got, len(w.recs))
	for i, r := range w.recs {
		requireRecord(w.t, r, got[i])
	}
	return end
}

// work appends from several goroutines and returns all records.
func (w *life) work(l *Local, trimmed *atomic.Uint64) []*Record {
	var mu sync.Mutex
	var all []*Record
	var wg sync.WaitGroup
	ctx := context.Background()
	buffered := w.random.IntN(3) // of 2 calls: none, some, all
	for range 1 + w.random.IntN(4) {
		random := rand.New(rand.NewPCG(w.random.Uint64(), 2))
		wg.Go(func() {
			for range random.IntN(40) {
				recs := make([]*Record, 1+random.IntN(3))
				lazy := random.IntN(2) < buffered
				for i := range recs {
					recs[i] = testRecord(w.ids.Add(1), randomBytes(random))
					recs[i].Buffered = lazy
				}
				last, err := l.Append(ctx, recs...)
				require.NoError(w.t, err)
				if random.IntN(2) == 0 {
					require.NoError(w.t, l.WaitDurable(ctx, last))
				}
				mu.Lock()
				all = append(all, recs...)
				mu.Unlock()
			}
		})
	}
	trims := w.random.IntN(3)
	wg.Go(func() {
		for range trims {
			upTo := l.DurableLSN()
			trimmed.Store(uint64(upTo))
			require.NoError(w.t, l.Trim(upTo))
		}
	})
	wg.Wait()
	return all
}

// randomBytes returns the size of a body: mostly small, now and then larger than a segment.
func randomBytes(random *rand.Rand) int {
	switch random.IntN(20) {
	case 0:
		return random.IntN(3 * minSegmentBytes)
	case 1:
		return 0
	default:
		return random.IntN(700)
	}
}

// survive takes note of what was appended in a life, and of the disk that is left.
func (w *life) survive(recs []*Record, at cut) {
	t := w.t
	byLSN := make(map[LSN]*Record, len(recs))
	for _, r := range recs {
		require.NotContains(t, byLSN, r.LSN)
		byLSN[r.LSN] = r
		if r.LSN <= at.appended {
			require.Greater(t, r.LSN, w.highest, "an LSN was used twice")
		}
	}
	before := LSN(0)
	if n := len(w.recs); n > 0 {
		before = w.recs[n-1].LSN
	}
	w.recs = append(w.recs, sortedRecords(byLSN)...)
	w.highest = max(w.highest, lastAtMost(w.recs, at.appended))
	w.disk, w.trimmed = at.disk, at.trimmed
	_, end, err := replayAll(w.disk, 0)
	require.NoError(t, err)
	w.highest = max(w.highest, end.LSN)
	require.GreaterOrEqual(t, end.LSN, before, "records that were durable in an earlier life are lost")
	require.GreaterOrEqual(t, end.LSN, lastAtMost(w.recs, at.durable), "durable records are lost")
}

// lastAtMost returns the LSN of the last record that is not above a mark.
func lastAtMost(recs []*Record, mark LSN) LSN {
	last := LSN(0)
	for _, r := range recs {
		if r.LSN <= mark {
			last = r.LSN
		}
	}
	return last
}

// sortedRecords returns records in the order of their LSNs.
func sortedRecords(byLSN map[LSN]*Record) []*Record {
	recs := make([]*Record, 0, len(byLSN))
	for _, lsn := range slices.Sorted(maps.Keys(byLSN)) {
		recs = append(recs, byLSN[lsn])
	}
	return recs
}

// TestSyncMakesDurableWhatReplayReturns kills a process with groups that no sync has reached, syncs, and cuts the power.
func TestSyncMakesDurableWhatReplayReturns(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range uint64(10) {
		d := newCrashDisk()
		l := openTest(t, d, Options{})
		var open atomic.Bool
		release := make(chan struct{})
		d.inject(func(op, _ string) error {
			if op == "sync" && !open.Load() {
				<-release
			}
			return nil
		})
		var last LSN
		for i := range 1 + n {
			var err error
			last, err = l.Append(context.Background(), testRecord(i, 20))
			require.NoError(t, err)
		}
		require.Less(t, l.DurableLSN(), last)
		open.Store(true)
		require.NoError(t, syncTail(d))
		got, end, err := replayAll(d.crash(random), 0)
		require.NoError(t, err)
		require.Equal(t, last, end.LSN)
		require.Len(t, got, int(1+n))
		close(release)
		require.NoError(t, l.Close())
	}
}
