package lsm

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestGateExcludes counts under the gate from many goroutines, some of which give up waiting.
func TestGateExcludes(t *testing.T) {
	var g gate
	var alone int // guarded by g; the race detector watches
	var seen [8]int
	var done sync.WaitGroup
	for i := range 8 {
		done.Go(func() {
			for n := range 300 {
				ctx, cancel := context.WithCancel(context.Background())
				if (n+i)%3 == 0 {
					go cancel()
				}
				if n%4 == 0 {
					if g.lock(ctx) == nil {
						alone++
						g.unlock()
					}
				} else if g.rlock(ctx) == nil {
					seen[i] = max(seen[i], alone)
					g.runlock()
				}
				cancel()
			}
		})
	}
	done.Wait()
	require.NoError(t, g.lock(t.Context()))
	for _, n := range seen {
		require.LessOrEqual(t, n, alone)
	}
	g.unlock()
}

// TestGateWaitingEndsWithItsContext lets a writer give up behind a reader: those who wait behind it go on.
func TestGateWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		require.NoError(t, g.rlock(t.Context()))
		why := errors.New("the client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		writer, reader := make(chan error, 1), make(chan error, 1)
		go func() { writer <- g.lock(ctx) }()
		synctest.Wait()
		go func() { reader <- g.rlock(t.Context()) }()
		synctest.Wait()
		require.Empty(t, reader, "a reader must not pass a writer that waits")
		cancel(why)
		require.ErrorIs(t, <-writer, why)
		require.NoError(t, <-reader)
		g.runlock()
		g.runlock()
		require.NoError(t, g.lock(t.Context()))
	})
}
