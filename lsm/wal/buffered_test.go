package wal

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testClock is a clock that passes when it is told to.
type testClock struct {
	mu      sync.Mutex
	waiting []func()
	waits   []time.Duration
	stopped int
}

// after implements env.after.
func (c *testClock) after(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.waits = append(c.waiting, f), append(c.waits, d)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stopped++
		return true
	}
}

// pass lets the time pass for which everybody waits, and returns how many do.
func (c *testClock) pass() int {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, f := range waiting {
		f()
	}
	return len(waiting)
}

// openBuffered opens a log with a clock, and returns a channel that gets each new durable position.
func openBuffered(t *testing.T, d *crashDisk, c *testClock) (*Local, <-chan LSN) {
	t.Helper()
	_, end, err := replayAll(d, 0)
	require.NoError(t, err)
	durable := make(chan LSN, 1000)
	o := Options{Dir: "log", End: end, SegmentBytes: minSegmentBytes, Interval: time.Hour, Durable: func(lsn LSN) { durable <- lsn }}
	require.NoError(t, o.validate())
	e := testEnv(d)
	e.after = c.after
	l, err := open(o, e)
	require.NoError(t, err)
	return l, durable
}

// appendOne appends a record.
func appendOne(t *testing.T, l *Local, id uint64, buffered bool) LSN {
	t.Helper()
	r := testRecord(id, 100)
	r.Buffered = buffered
	lsn, err := l.Append(context.Background(), r)
	require.NoError(t, err)
	return lsn
}

// requireUnsynced says that nothing up to an LSN is being synced or will be, unless something happens.
func requireUnsynced(t *testing.T, l *Local, lsn LSN) {
	t.Helper()
	require.Eventually(t, func() bool { // what was wanted before is synced
		l.mu.Lock()
		defer l.mu.Unlock()
		return !l.mu.synced.less(l.mu.wanted)
	}, time.Minute, 10*time.Microsecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	require.True(t, l.mu.wanted.less(l.mu.written))
	require.Less(t, l.DurableLSN(), lsn)
}

func TestBufferedRecordsAreSyncedByTheClock(t *testing.T) {
	c := &testClock{}
	l, durable := openBuffered(t, newCrashDisk(), c)
	for id := range uint64(3) { // one clock for all that come before it strikes
		appendOne(t, l, id, true)
	}
	last := appendOne(t, l, 3, true)
	requireUnsynced(t, l, last)
	require.Equal(t, 1, c.pass())
	require.Equal(t, last, <-durable)

	last = appendOne(t, l, 4, true)
	requireUnsynced(t, l, last)
	require.Equal(t, 1, c.pass())
	require.Equal(t, last, <-durable)
	require.Equal(t, []time.Duration{time.Hour, time.Hour}, c.waits)
	require.Zero(t, c.pass(), "nothing is unsynced, so no clock runs")
	require.NoError(t, l.Close())
	require.Zero(t, c.stopped)
}

func TestADurableRecordTakesBufferedOnesAlong(t *testing.T) {
	c := &testClock{}
	l, durable := openBuffered(t, newCrashDisk(), c)
	requireUnsynced(t, l, appendOne(t, l, 0, true))
	last := appendOne(t, l, 1, false)
	require.Equal(t, last, <-durable, "no clock has passed")

	// The clock of the first record strikes for a later one: too soon is soon enough.
	last = appendOne(t, l, 2, true)
	requireUnsynced(t, l, last)
	require.Equal(t, 1, c.pass())
	require.Equal(t, last, <-durable)
	require.NoError(t, l.Close())
}

func TestWhoWaitsForABufferedRecordWaitsForNoClock(t *testing.T) {
	l, _ := openBuffered(t, newCrashDisk(), &testClock{})
	last := appendOne(t, l, 0, true)
	requireUnsynced(t, l, last)
	require.NoError(t, l.WaitDurable(context.Background(), last))
	require.Equal(t, last, l.DurableLSN())
	require.NoError(t, l.Close())
}

func TestCloseSyncsBufferedRecords(t *testing.T) {
	for seed := range uint64(20) {
		c := &testClock{}
		d := newCrashDisk()
		l, _ := openBuffered(t, d, c)
		last := appendOne(t, l, 0, true)
		require.NoError(t, l.Close())
		require.Equal(t, 1, c.stopped, "the clock does not outlive the log")
		require.Equal(t, 1, c.pass()) // it was about to strike when it was stopped
		got, end, err := replayAll(d.crash(rand.New(rand.NewPCG(seed, 0))), 0)
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, last, end.LSN)
	}
}

// TestALossOfBufferedRecordsIsAPrefix cuts the power while buffered records are not synced: what is left is a prefix
// that has all durable ones, and no LSN of the lost ones is given again.
func TestALossOfBufferedRecordsIsAPrefix(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		d := newCrashDisk()
		l, _ := openBuffered(t, d, &testClock{})
		appendOne(t, l, 0, true)
		safe := appendOne(t, l, 1, false)
		require.NoError(t, l.WaitDurable(context.Background(), safe))
		var last LSN
		for id := range uint64(10) {
			last = appendOne(t, l, 2+id, true)
		}
		requireUnsynced(t, l, last)
		left := d.crash(rand.New(rand.NewPCG(seed, 0)))
		require.NoError(t, l.Close())

		got, end, err := replayAll(left, 0)
		require.NoError(t, err)
		require.GreaterOrEqual(t, end.LSN, safe)
		for i, r := range got {
			require.Equal(t, uint64(i+1), r.Incarnation, "a record in the middle is lost")
		}
		lost += 12 - len(got)
		l, _ = openBuffered(t, left, &testClock{})
		require.Greater(t, appendOne(t, l, 100, true), last)
		require.NoError(t, l.Close())
	}
	require.Positive(t, lost, "no power cut took anything")
}

// TestAFailedSyncOfBufferedRecordsPoisons has the clock's sync fail, for which nobody waits.
func TestAFailedSyncOfBufferedRecordsPoisons(t *testing.T) {
	c := &testClock{}
	d := newCrashDisk()
	_, end, err := replayAll(d, 0)
	require.NoError(t, err)
	poisoned := make(chan error, 1)
	o := Options{Dir: "log", End: end, SegmentBytes: minSegmentBytes, Poisoned: func(err error) { poisoned <- err }}
	require.NoError(t, o.validate())
	e := testEnv(d)
	e.after = c.after
	l, err := open(o, e)
	require.NoError(t, err)
	last := appendOne(t, l, 0, true)
	requireUnsynced(t, l, last)
	require.Equal(t, []time.Duration{defaultInterval}, c.waits)
	name := segmentName(l.segmentForTest())
	d.inject(func(op, file string) error {
		if op == "sync" && file == name {
			return errInjected
		}
		return nil
	})
	require.Equal(t, 1, c.pass())
	require.ErrorIs(t, <-poisoned, errInjected)
	require.ErrorIs(t, l.WaitDurable(context.Background(), last), ErrPoisoned)
	_, err = l.Append(context.Background(), testRecord(1, 10))
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, l.Close(), ErrPoisoned)
}
