package wal

import (
	"context"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// callers is asked before each operation of a disk and counts those of the first segment that run in a caller's goroutine
// rather than in one of the log's.
type callers struct {
	mu         sync.Mutex
	by, others map[string]int
}

func (c *callers) try(op, name string) error {
	stack := string(debug.Stack())
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case name != segmentName(1):
	case strings.Contains(stack, "wal.(*Local).Append("), strings.Contains(stack, "wal.(*Local).WaitDurable("):
		c.by[op]++
	default:
		c.others[op]++
	}
	return nil
}

// TestWhoIsAloneWritesAndSyncsItself has one caller wait for each of its records, which wakes no goroutine of the log's but
// for the first sync and the mark in the end.
func TestWhoIsAloneWritesAndSyncsItself(t *testing.T) {
	d, c := newCrashDisk(), &callers{by: map[string]int{}, others: map[string]int{}}
	l := openTest(t, d, Options{SegmentBytes: 1 << 20})
	l.mu.Lock()
	l.mu.solo = true // as after any sync for one call
	l.mu.Unlock()
	settled(t, l)
	d.inject(c.try)
	const n = 100
	for id := range uint64(n) {
		lsn, err := l.Append(t.Context(), testRecord(id, 100))
		require.NoError(t, err)
		require.NoError(t, l.WaitDurable(t.Context(), lsn))
		require.GreaterOrEqual(t, l.DurableLSN(), lsn)
	}
	settled(t, l)
	d.inject(nil)
	c.mu.Lock() // the sync goroutine may still be at a sync that came too late
	by, others := maps.Clone(c.by), maps.Clone(c.others)
	c.mu.Unlock()
	// The sync goroutine was told of each record, and may have come first; the log goroutine writes marks when this one rests.
	require.GreaterOrEqual(t, by["write"], n/2, "the rest came while a mark was written")
	require.GreaterOrEqual(t, by["sync"]+others["sync"], n)
	require.Positive(t, by["sync"])
	require.NoError(t, l.Close())
	got, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, got, n)
}

// TestCloseWaitsForASyncOfACaller closes a poisoned log while a caller of WaitDurable still runs fdatasync: its file must
// not be closed before.
func TestCloseWaitsForASyncOfACaller(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	settled(t, l)
	held, hold := make(chan struct{}, 1), make(chan struct{})
	d.inject(func(op, _ string) error {
		if op == "sync" && strings.Contains(string(debug.Stack()), "syncAlone") {
			held <- struct{}{}
			<-hold
		}
		return nil
	})
	ctx := context.Background()
	waited := make(chan error, 1)
	for leads := false; !leads; { // the sync goroutine may come first
		l.mu.Lock()
		l.mu.solo = true
		l.mu.Unlock()
		lsn, err := l.Append(ctx, testRecord(1, 100))
		require.NoError(t, err)
		go func() { waited <- l.WaitDurable(ctx, lsn) }()
		select {
		case <-held:
			leads = true
		case err := <-waited:
			require.NoError(t, err)
		}
	}
	l.poison(errInjected)
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.mu.stopped
	}, time.Minute, time.Millisecond)
	select {
	case <-l.syncDone:
		t.Error("Close goes on while fdatasync runs")
	case <-time.After(20 * time.Millisecond):
	}
	close(hold)
	require.ErrorIs(t, <-closed, ErrPoisoned)
	<-waited
}
