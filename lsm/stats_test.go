package lsm

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStallsAreTimed lets two writers wait for memory, one until it comes and one until it gives up.
func TestStallsAreTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(100, func() {}, &stallCounter{})
		require.True(t, b.take(80))
		done := make(chan error, 1)
		go func() { done <- b.wait(t.Context(), 40) }()
		synctest.Wait()
		require.Equal(t, MemoryStats{Used: 80, Limit: 100}, b.stats())
		require.Equal(t, StallStats{Cause: StallMemory, Waiting: 1, Count: 1}, b.stalls.stats(StallMemory))
		time.Sleep(3 * time.Second)
		b.release(50)
		require.NoError(t, <-done)
		require.Equal(t, int64(70), b.stats().Used)
		require.Equal(t, StallStats{Cause: StallMemory, Count: 1, Waited: 3 * time.Second}, b.stalls.stats(StallMemory))
	})
}
