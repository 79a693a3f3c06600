package lsm

import (
	"context"
	"sync"
	"sync/atomic"
)

// budget is the memory that memtables, their indexes included, may take together. Writers wait when it is spent,
// and go on as flushes give memory back: a stream is slowed, never refused. Nobody takes a lock while there is memory.
type budget struct {
	limit int64
	// full is called, without the lock, when a writer has to wait: somebody must begin a flush.
	full func()
	// stalls counts the waits.
	stalls *stallCounter

	used atomic.Int64
	kept atomic.Int64 // of used: memtables that are flushed, and there for old snapshots alone
	// waiting is how many writers wait. Each is in it before it looks at used for the last time, and who lowers used looks
	// at waiting behind that, so no writer sleeps through what it waits for.
	waiting atomic.Int64

	mu    sync.Mutex
	freed chan struct{} // closed and replaced when memory comes back to somebody who waits
}

// newBudget returns a budget of limit bytes.
func newBudget(limit int64, full func(), stalls *stallCounter) *budget {
	return &budget{limit: limit, full: full, stalls: stalls, freed: make(chan struct{})}
}

// take takes n bytes if that does not overshoot. One batch may always pass when nothing else is held, however large it is.
func (b *budget) take(n int64) bool {
	for {
		used := b.used.Load()
		if used > 0 && used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// wait takes n bytes, and waits while that would overshoot.
func (b *budget) wait(ctx context.Context, n int64) error {
	b.waiting.Add(1)
	defer b.waiting.Add(-1)
	defer b.stalls.begin()()
	for {
		b.mu.Lock()
		freed := b.freed
		b.mu.Unlock()
		if b.take(n) {
			return nil
		}
		b.full()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// short reports whether a writer waits.
func (b *budget) short() bool { return b.waiting.Load() > 0 }

// add takes n bytes without waiting: an index grew by them.
func (b *budget) add(n int64) { b.used.Add(n) }

// release gives n bytes back.
func (b *budget) release(n int64) {
	b.used.Add(-n)
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	close(b.freed)
	b.freed = make(chan struct{})
	b.mu.Unlock()
}

// keep counts n bytes as held by old snapshots alone, or no longer when it is negative.
func (b *budget) keep(n int64) { b.kept.Add(n) }

// heldUp reports whether a writer waits while old snapshots hold at least a quarter of all memory.
func (b *budget) heldUp() bool { return b.short() && b.kept.Load() >= b.limit/4 }

// unflushed returns the bytes held that are not on disk yet but in the log.
func (b *budget) unflushed() int64 { return b.used.Load() - b.kept.Load() }

// state returns the bytes held and how many writers have had to wait so far.
func (b *budget) state() (used, stalls int64) { return b.used.Load(), b.stalls.count.Load() }

// stats returns the memory.
func (b *budget) stats() MemoryStats {
	return MemoryStats{Used: b.used.Load(), Kept: b.kept.Load(), Limit: b.limit}
}
