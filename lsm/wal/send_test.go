package wal

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// receipts notes what became of records in the order in which it is told. Each record has a part of its own, so that it
// knows which are told of.
type receipts struct {
	mu   sync.Mutex
	told []told
	left sync.WaitGroup
}

// told is what one part was told.
type told struct {
	number int
	last   LSN
	err    error
}

// part is the receipt of one Send.
type part struct {
	to     *receipts
	number int
}

// Logged implements Receipt.
func (p *part) Logged(last LSN, err error) {
	p.to.mu.Lock()
	p.to.told = append(p.to.told, told{p.number, last, err})
	p.to.mu.Unlock()
	p.to.left.Done()
}

// send sends a record and fails the test when it is refused.
func (r *receipts) send(t *testing.T, l *Local, o *Order, number, bytes int) {
	t.Helper()
	r.left.Add(1)
	require.NoError(t, l.Send(o, &part{r, number}, testRecord(uint64(number), bytes)))
}

func TestWhatIsSentIsAppendedInOrder(t *testing.T) {
	d := newCrashDisk()
	var appended []LSN
	l := openTest(t, d, Options{Appended: func(recs []*Record) {
		for _, r := range recs {
			appended = append(appended, r.LSN)
		}
	}})
	r, o := &receipts{}, &Order{}
	const n = 500
	for i := range n {
		r.send(t, l, o, i, 100+i)
	}
	r.left.Wait()
	for i, x := range r.told {
		require.NoError(t, x.err)
		require.Equal(t, told{number: i, last: newLSN(1, uint64(i)+1)}, x)
	}
	require.Len(t, appended, n)
	require.NoError(t, l.WaitDurable(context.Background(), appended[n-1]))
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Send(nil, &part{r, n}, testRecord(1, 1)), ErrClosed)
	kept, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, kept, n)
}

// TestNothingIsAppendedBehindWhatFailed has one record in the middle of a stream find no room. What the stream sent behind
// it fails alike, though it would fit, and what others sent is there.
func TestNothingIsAppendedBehindWhatFailed(t *testing.T) {
	d := newCrashDisk()
	held, proceed := make(chan struct{}, 10), make(chan struct{})
	l := openTest(t, d, Options{SegmentBytes: 64 << 10, Appended: func([]*Record) { held <- struct{}{}; <-proceed }})
	full := true
	r, mine, other := &receipts{}, &Order{}, &Order{}
	r.send(t, l, mine, 0, 10)
	<-held // what follows is queued together
	d.inject(func(op, name string) error {
		if full && op == "write" && name == segmentName(2) {
			full = false
			return &os.PathError{Op: op, Err: syscall.ENOSPC}
		}
		return nil
	})
	r.send(t, l, mine, 1, 1<<20) // needs a segment of its own, which has no room
	r.send(t, l, other, 2, 10)
	r.send(t, l, mine, 3, 10)
	r.send(t, l, other, 4, 10)
	r.send(t, l, nil, 5, 10)
	close(proceed)
	r.left.Wait()
	var good []int
	for _, x := range r.told {
		if x.err == nil {
			good = append(good, x.number)
			continue
		}
		require.ErrorIs(t, x.err, syscall.ENOSPC)
		require.Zero(t, x.last)
	}
	require.Equal(t, []int{0, 2, 4, 5}, good)
	r.send(t, l, mine, 6, 10)
	r.send(t, l, &Order{}, 7, 10)
	r.left.Wait()
	require.ErrorIs(t, r.told[6].err, syscall.ENOSPC, "there is room now, but the stream has a hole")
	require.NoError(t, r.told[7].err)
	require.NoError(t, l.Close())
	kept, _, err := replayAll(d, 0)
	require.NoError(t, err)
	require.Len(t, kept, 5)
}

func TestPoisonFailsWhatWasSent(t *testing.T) {
	d := newCrashDisk()
	l := openTest(t, d, Options{})
	cause := errors.New("the disk is gone")
	d.inject(func(op, _ string) error {
		if op == "write" {
			return cause
		}
		return nil
	})
	r := &receipts{}
	r.send(t, l, nil, 0, 10)
	r.left.Wait()
	require.ErrorIs(t, r.told[0].err, ErrPoisoned)
	require.ErrorIs(t, r.told[0].err, cause)
	require.ErrorIs(t, l.Send(nil, &part{r, 1}, testRecord(1, 1)), ErrPoisoned)
	require.ErrorIs(t, l.Close(), ErrPoisoned)
}
