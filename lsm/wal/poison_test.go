package wal

import (
	"context"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// trace records the operations of a disk and fails those that match.
type trace struct {
	mu   sync.Mutex
	ops  []string
	fail func(op, name string) bool
}

func (tr *trace) try(op, name string) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.ops = append(tr.ops, op+" "+name)
	if tr.fail != nil && tr.fail(op, name) {
		return errInjected
	}
	return nil
}

// set changes what fails and forgets what was.
func (tr *trace) set(fail func(op, name string) bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.ops, tr.fail = nil, fail
}

// count returns how often an operation was tried.
func (tr *trace) count(op string) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := 0
	for _, o := range tr.ops {
		if o == op {
			n++
		}
	}
	return n
}

func TestAFailedWriteOrSyncPoisons(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		t.Run(op, func(t *testing.T) {
			d, tr := newCrashDisk(), &trace{}
			d.inject(tr.try)
			var poisons []error
			l := openTest(t, d, Options{Poisoned: func(err error) { poisons = append(poisons, err) }})
			ctx := context.Background()
			first, err := l.Append(ctx, testRecord(1, 100))
			require.NoError(t, err)
			require.NoError(t, l.WaitDurable(ctx, first))
			settled(t, l)
			require.NoError(t, l.Trim(0)) // the keeper is idle now, too

			name := segmentName(1)
			tr.set(func(o, n string) bool { return o == op && n == name })
			second, err := l.Append(ctx, testRecord(2, 100))
			if op == "write" {
				require.ErrorIs(t, err, ErrPoisoned)
				require.ErrorIs(t, err, errInjected)
				second = first + 1
			} else {
				require.NoError(t, err)
			}
			err = l.WaitDurable(ctx, second)
			require.ErrorIs(t, err, ErrPoisoned)
			require.ErrorIs(t, err, errInjected)
			require.ErrorContains(t, err, d.Path(name))
			require.Equal(t, first, l.DurableLSN())

			tr.set(nil) // the disk is well again, but what it lost is lost
			_, err = l.Append(ctx, testRecord(3, 100))
			require.ErrorIs(t, err, ErrPoisoned)
			require.ErrorIs(t, l.WaitDurable(ctx, second), ErrPoisoned)
			require.NoError(t, l.WaitDurable(ctx, first))
			require.ErrorIs(t, l.Err(), ErrPoisoned)
			require.ErrorIs(t, l.Close(), ErrPoisoned)
			require.Zero(t, tr.count("write "+name), "written after poison")
			require.Zero(t, tr.count("sync "+name), "synced after poison")
			require.Len(t, poisons, 1)

			l = openTest(t, d, Options{})
			require.Greater(t, l.AppendedLSN(), second)
			require.NoError(t, l.Close())
		})
	}
}

func TestAFailedSyncReleasesWhoIsQueued(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{SegmentBytes: minSegmentBytes})
	ctx := context.Background()
	hold := make(chan struct{})
	d.inject(func(op, name string) error {
		if op == "sync" && name == segmentName(1) {
			<-hold
			return errInjected
		}
		return nil
	})
	var wg sync.WaitGroup
	for id := range uint64(8) {
		wg.Go(func() {
			// Some of them need the next segment, and wait for a sync that fails.
			last, err := l.Append(ctx, testRecord(id, 3000))
			if err == nil {
				err = l.WaitDurable(ctx, last)
			}
			require.ErrorIs(t, err, ErrPoisoned)
		})
	}
	time.AfterFunc(time.Millisecond, func() { close(hold) })
	wg.Wait()
	require.ErrorIs(t, l.Close(), ErrPoisoned)
}

func TestPoisonStopsWhatIsQueued(t *testing.T) {
	d, tr := newCrashDisk(), &trace{}
	written, proceed, poisoned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l := openTest(t, d, Options{
		Appended: func([]*Record) { close(written); <-proceed },
		Poisoned: func(error) { close(poisoned) },
	})
	tr.set(func(op, name string) bool { return op == "sync" && name == segmentName(1) })
	queued := make(chan struct{})
	d.inject(func(op, name string) error {
		if op == "sync" && name == segmentName(1) {
			<-queued
		}
		return tr.try(op, name)
	})
	appendOne := func(ended chan<- error) {
		_, err := l.Append(context.Background(), testRecord(1, 10))
		ended <- err
	}
	first, second := make(chan error), make(chan error)
	go appendOne(first)
	<-written
	go appendOne(second)
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.mu.pending) == 1
	}, time.Minute, 10*time.Microsecond)
	close(queued)
	<-poisoned
	require.Equal(t, 1, tr.count("write "+segmentName(1)))
	close(proceed)
	require.NoError(t, <-first)
	require.ErrorIs(t, <-second, ErrPoisoned)
	require.ErrorIs(t, l.Close(), ErrPoisoned)
	require.Equal(t, 1, tr.count("write "+segmentName(1)))
	require.Equal(t, 1, tr.count("sync "+segmentName(1)))
}

func TestAFullDiskIsNoPoison(t *testing.T) {
	d, tr := newCrashDisk(), &trace{}
	tr.set(func(op, name string) bool { return op == "write" && name == tempName(2) })
	d.inject(tr.try)
	l := openTest(t, d, Options{SegmentBytes: minSegmentBytes})
	ctx := context.Background()
	var last LSN
	var err error
	id := uint64(0)
	for err == nil {
		id++
		var lsn LSN
		if lsn, err = l.Append(ctx, testRecord(id, 3000)); err == nil {
			last = lsn
		}
	}
	require.ErrorIs(t, err, errInjected)
	require.NotErrorIs(t, err, ErrPoisoned)
	require.NoError(t, l.WaitDurable(ctx, last))
	_, err = l.Append(ctx, testRecord(id, 3000))
	require.ErrorIs(t, err, errInjected)
	names, err := d.List()
	require.NoError(t, err)
	require.NotContains(t, names, tempName(2), "what could not be made takes up space")

	tr.set(nil)
	next, err := l.Append(ctx, testRecord(id, 3000))
	require.NoError(t, err)
	require.Equal(t, last+1, next)
	require.NoError(t, l.Close())
	got, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, got, int(next.N()))
}

func TestAppendEndsWithItsContextOnlyWhileItIsQueued(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	hold, reached := make(chan struct{}), make(chan struct{}, 1)
	d.inject(func(op, name string) error {
		if op == "write" && name == segmentName(1) {
			reached <- struct{}{}
			<-hold
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	written := make(chan error)
	go func() {
		_, err := l.Append(ctx, testRecord(1, 10))
		written <- err
	}()
	<-reached
	queued := make(chan error)
	go func() {
		_, err := l.Append(ctx, testRecord(2, 10))
		queued <- err
	}()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.mu.pending) == 1
	}, time.Minute, 10*time.Microsecond)
	cancel()
	require.ErrorIs(t, <-queued, context.Canceled)
	d.inject(nil)
	close(hold)
	require.NoError(t, <-written)
	require.NoError(t, l.Close())
	got, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, got, 1)
}

func TestWaitDurableEnds(t *testing.T) {
	l := openTest(t, newCrashDisk(), Options{})
	ctx, cancel := context.WithCancel(context.Background())
	future := l.AppendedLSN() + 1000
	ended := make(chan error)
	go func() { ended <- l.WaitDurable(ctx, future) }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Empty(t, l.mu.waiters)
	go func() { ended <- l.WaitDurable(context.Background(), future) }()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.mu.waiters) == 1
	}, time.Minute, 10*time.Microsecond)
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-ended, ErrClosed)
	require.ErrorIs(t, l.WaitDurable(context.Background(), future), ErrClosed)
	_, err := l.Append(context.Background(), testRecord(1, 1))
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, l.Trim(1), ErrClosed)
	require.NoError(t, l.Close())
}

func TestDurableIsToldAfterAppended(t *testing.T) {
	d := newCrashDisk()
	synced, proceed := make(chan struct{}, 10), make(chan struct{})
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, what)
	}
	l := openTest(t, d, Options{
		Appended: func([]*Record) { <-proceed; note("appended") },
		Durable:  func(LSN) { note("durable") },
	})
	d.inject(func(op, name string) error {
		if op == "sync" && name == segmentName(1) {
			synced <- struct{}{}
		}
		return nil
	})
	ended := make(chan error)
	go func() {
		last, err := l.Append(context.Background(), testRecord(1, 10))
		if err == nil {
			err = l.WaitDurable(context.Background(), last)
		}
		ended <- err
	}()
	<-synced // while Appended has not returned
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.mu.synced == l.mu.written
	}, time.Minute, 10*time.Microsecond)
	require.Less(t, l.DurableLSN(), l.AppendedLSN())
	close(proceed)
	require.NoError(t, <-ended)
	require.NoError(t, l.Close())
	require.Equal(t, []string{"appended", "durable"}, order)
}

func TestWhatCannotBeAppendedIsRefused(t *testing.T) {
	l := openTest(t, newCrashDisk(), Options{})
	ctx := context.Background()
	_, err := l.Append(ctx)
	require.ErrorContains(t, err, "no records")
	_, err = l.Append(ctx, &Record{Kind: 99})
	require.ErrorContains(t, err, "kind 99")
	large := testRecord(1, 0)
	large.Body = slices.Repeat([][]byte{make([]byte, 1<<20)}, 1024)
	_, err = l.Append(ctx, large)
	require.ErrorIs(t, err, ErrTooLarge)
	last, err := l.Append(ctx, testRecord(1, 1))
	require.NoError(t, err)
	require.Equal(t, newLSN(1, 1), last)
	require.NoError(t, l.Close())
}

// TestAGroupThatFindsNoRoomIsNoPoison has a group that is larger than its segment find no room: it is refused, and the log goes on
// with what fits, now and after a crash.
func TestAGroupThatFindsNoRoomIsNoPoison(t *testing.T) {
	d, tr := newCrashDisk(), &trace{}
	d.inject(tr.try)
	l := openTest(t, d, Options{SegmentBytes: 64 << 10})
	ctx := context.Background()
	first, err := l.Append(ctx, testRecord(1, 100))
	require.NoError(t, err)
	writes := 0
	d.inject(func(op, name string) error {
		if op == "write" && name == segmentName(2) {
			if writes++; writes > 1 { // the first piece fits
				return &os.PathError{Op: op, Err: syscall.ENOSPC}
			}
		}
		return nil
	})
	none, err := l.Append(ctx, testRecord(2, 1<<20))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Zero(t, none, "the next group gets its LSNs")
	require.NotErrorIs(t, err, ErrPoisoned)
	require.NoError(t, l.Err())
	d.inject(tr.try)
	last, err := l.Append(ctx, testRecord(3, 100))
	require.NoError(t, err)
	require.Equal(t, first+1, last)
	require.NoError(t, l.WaitDurable(ctx, last))
	require.NoError(t, l.Close())
	kept, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, kept, 2)
	require.Equal(t, first, kept[0].LSN)
	require.Equal(t, last, kept[1].LSN)
}
