package lsm

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// never is the urgency of work for which nobody waits.
func never() bool { return false }

// TestPaceHoldsARate moves bytes in pieces of several sizes: together they take the time of the rate.
func TestPaceHoldsARate(t *testing.T) {
	for _, piece := range []int64{1000, 30_000, 700_000} {
		synctest.Test(t, func(t *testing.T) {
			p := newPace(1 << 20)
			start := time.Now()
			for moved := int64(0); moved < 10<<20; moved += piece {
				require.NoError(t, p.wait(context.Background(), piece, never))
			}
			require.InDelta(t, 10, time.Since(start).Seconds(), 0.7, "pieces of %d", piece)

			time.Sleep(time.Hour) // what was not moved meanwhile is no credit
			start = time.Now()
			for moved := int64(0); moved < 1<<20; moved += piece {
				require.NoError(t, p.wait(context.Background(), piece, never))
			}
			require.Greater(t, time.Since(start).Seconds(), 0.85)
		})
	}
}

// TestPaceOfUrgentWork does not wait, and stops waiting when it becomes urgent.
func TestPaceOfUrgentWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000)
		var urgent atomic.Bool
		time.AfterFunc(3*time.Second, func() { urgent.Store(true) })
		start := time.Now()
		for range 100 {
			require.NoError(t, p.wait(context.Background(), 1_000_000, urgent.Load))
		}
		require.InDelta(t, 3, time.Since(start).Seconds(), 2*paceLook.Seconds())
	})
}

// TestPaceYieldsToFlushes waits for a flush, but not for ever.
func TestPaceYieldsToFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(0)
		wait := func() time.Duration {
			start := time.Now()
			require.NoError(t, p.wait(context.Background(), 1<<30, never))
			return time.Since(start)
		}
		require.Zero(t, wait(), "no flush, no rate")
		first, second := p.flushing(), p.flushing()
		require.Equal(t, maxYield, wait())
		first()
		time.AfterFunc(10*time.Millisecond, second)
		require.Equal(t, 10*time.Millisecond, wait())
		require.Zero(t, wait())
		ended := p.flushing()
		require.Equal(t, maxYield, wait(), "after a pause without flushes, too")
		ended()
	})
}

// TestPaceEndsWithItsContext in the middle of a wait and before one.
func TestPaceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(context.Background())
		p := newPace(1)
		time.AfterFunc(time.Minute, func() { cancel(gone) })
		start := time.Now()
		require.ErrorIs(t, p.wait(ctx, 1<<20, never), gone)
		require.Equal(t, time.Minute, time.Since(start))
		require.ErrorIs(t, p.wait(ctx, 0, never), gone)
	})
}
