package main

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// heapEvery is how often the limit of the Go heap is set anew.
	heapEvery = 50 * time.Millisecond
	// heapStep is how much it must differ for that: setting it stops all goroutines for a moment.
	heapStep = 4 * mib
	// heapSlack is what the process may still grow by between two looks.
	heapSlack = 40 * mib
	// leastHeap is where the collector is not pressed further: below it, it would only burn the processor.
	leastHeap = 96 * mib
)

// heapKeeper gives the Go heap what the rest of the process leaves of the budget. The collector by itself lets the heap
// double before it looks; with a limit it works as hard as the limit asks. One that never changes would have to be so low
// that it fits when memtables and queries have all of their shares, or so high that all of them together break the promise.
type heapKeeper struct {
	// promise is what the process may hold, most the highest limit.
	promise, most int64
	stop          chan struct{}
	done          sync.WaitGroup
}

// keepHeap starts a keeper for a budget.
func keepHeap(budget int64) *heapKeeper {
	k := &heapKeeper{promise: budget + memoryMargin, most: max(budget/2, 2*leastHeap), stop: make(chan struct{})}
	debug.SetMemoryLimit(k.most)
	k.done.Go(k.run)
	return k
}

// run sets the limit again and again.
func (k *heapKeeper) run() {
	tick := time.NewTicker(heapEvery)
	defer tick.Stop()
	set := k.most
	for {
		select {
		case <-k.stop:
			return
		case <-tick.C:
		}
		if limit := k.limit(heldMemory(), goMemory()); limit <= set-heapStep || limit >= set+heapStep {
			debug.SetMemoryLimit(limit)
			set = limit
		}
	}
}

// limit returns what the Go heap may have while the process holds some memory, of which some is Go's.
func (k *heapKeeper) limit(held, ours int64) int64 {
	if held == 0 { // the system does not tell
		return k.most
	}
	return min(max(k.promise-heapSlack-(held-ours), leastHeap), k.most)
}

// close ends the keeper.
func (k *heapKeeper) close() {
	close(k.stop)
	k.done.Wait()
}

// goMemory returns the memory that a limit of the Go heap counts.
func goMemory() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}
