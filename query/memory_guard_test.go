package query

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestGuardEndsAStatement has the process hold too much while a scan waits: the statement ends and says why, others
// that began when memory was like that already go on.
func TestGuardEndsAStatement(t *testing.T) {
	s := &memStore{block: make(chan struct{})}
	numbersTable(t, s, "n", 1000, 100)
	var held, looks atomic.Int64
	e, err := open(context.Background(), Options{Threads: 2, HeldLimit: 1 << 30, Held: func() int64 {
		looks.Add(1)
		return held.Load()
	}}.withDefaults(), s)
	require.NoError(t, err)
	failed := make(chan error, 1)
	run := func() {
		rec, err := tryRows(e, "SELECT sum(id) FROM n", nil)
		if err == nil {
			rec.Release()
		}
		failed <- err
	}
	go run()
	require.Eventually(t, func() bool { return s.waiting.Load() > 0 && looks.Load() > 3 }, time.Minute, time.Millisecond)
	held.Store(2 << 30)
	require.Equal(t, ResourceExhausted, codeOf(t, <-failed))

	waiting, before := s.waiting.Load(), looks.Load()
	go run()
	require.Eventually(t, func() bool { return s.waiting.Load() > waiting && looks.Load() > before+2*guardPatience }, time.Minute, time.Millisecond)
	close(s.block)
	require.NoError(t, <-failed)
	require.NoError(t, e.Close())
}

// TestAllocatorRefuses runs calls that make far more at once than the process may hold; what is small goes on.
func TestAllocatorRefuses(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the allocator has no limit here")
	}
	pages, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(pages), &size, &resident)
	require.NoError(t, err)
	limit := resident*int64(os.Getpagesize()) + 300<<20
	e, err := open(context.Background(), Options{Threads: 2, Memory: 256 << 20, HeldLimit: limit, Held: func() int64 { return 0 }}.withDefaults(), &memStore{})
	require.NoError(t, err)
	for _, sql := range []string{
		"SELECT length(repeat('x', 1500000000))",
		"SELECT max(length(repeat('x', 60000000 + range))) FROM range(20)",
	} {
		_, err := tryRows(e, sql, nil)
		require.Equal(t, ResourceExhausted, codeOf(t, err), "%s: %v", sql, err)
	}
	collectRows(t, e, "SELECT max(length(repeat('x', 1000 + range))) FROM range(10000)", nil).Release()
	require.NoError(t, e.Close())
}
