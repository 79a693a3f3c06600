package main

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHeapHasWhatTheRestLeaves gives the Go heap more while memtables and queries have little, and never so little that
// nothing but collecting goes on.
func TestHeapHasWhatTheRestLeaves(t *testing.T) {
	k := heapKeeper{promise: 512*mib + memoryMargin, most: 256 * mib}
	require.Equal(t, 256*mib, k.limit(300*mib, 100*mib), "200 MiB are others', 528 are left")
	require.Equal(t, 168*mib, k.limit(600*mib, 40*mib), "560 MiB are others'")
	require.Equal(t, leastHeap, k.limit(800*mib, 20*mib))
	require.Equal(t, 256*mib, k.limit(0, 20*mib), "the system does not tell what is held")
}

// TestHeapKeeperEnds starts a keeper and ends it.
func TestHeapKeeperEnds(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	k := keepHeap(512 * mib)
	require.Positive(t, goMemory())
	k.close()
}
