package lsm

import (
	"context"
	"sync"
	"time"
)

// budget is the memory that memtables, their indexes included, may take together. Writers wait when it is spent,
// and go on as flushes give memory back: a stream is slowed, never refused.
type budget struct {
	limit int64
	// full is called, without the lock, when a writer has to wait: somebody must begin a flush.
	full func()

	mu      sync.Mutex
	used    int64
	kept    int64         // of used: memtables that are flushed, and there for old snapshots alone
	waiting int           // writers that wait now
	stalls  int64         // writers that ever had to
	waited  time.Duration // for which they did, together
	freed   chan struct{} // closed and replaced when memory comes back
}

// newBudget returns a budget of limit bytes.
func newBudget(limit int64, full func()) *budget {
	return &budget{limit: limit, full: full, freed: make(chan struct{})}
}

// acquire takes n bytes, and waits while that would overshoot. One batch may always pass when nothing else is
// held, however large it is.
func (b *budget) acquire(ctx context.Context, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used > 0 && b.used+n > b.limit {
		b.stalls++
		defer func(began time.Time) { b.waited += time.Since(began) }(time.Now())
	}
	for b.used > 0 && b.used+n > b.limit {
		if err := b.waitLocked(ctx); err != nil {
			return err
		}
	}
	b.used += n
	return nil
}

// waitLocked waits until memory comes back. It gives up the lock meanwhile.
func (b *budget) waitLocked(ctx context.Context) error {
	freed := b.freed
	b.waiting++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.waiting--
	}()
	b.full()
	select {
	case <-freed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// short reports whether a writer waits.
func (b *budget) short() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting > 0
}

// add takes n bytes without waiting: an index grew by them.
func (b *budget) add(n int64) {
	b.mu.Lock()
	b.used += n
	b.mu.Unlock()
}

// release gives n bytes back.
func (b *budget) release(n int64) {
	b.mu.Lock()
	b.used -= n
	close(b.freed)
	b.freed = make(chan struct{})
	b.mu.Unlock()
}

// keep counts n bytes as held by old snapshots alone, or no longer when it is negative.
func (b *budget) keep(n int64) {
	b.mu.Lock()
	b.kept += n
	b.mu.Unlock()
}

// heldUp reports whether a writer waits while old snapshots hold at least a quarter of all memory.
func (b *budget) heldUp() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting > 0 && b.kept >= b.limit/4
}

// unflushed returns the bytes held that are not on disk yet but in the log.
func (b *budget) unflushed() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used - b.kept
}

// state returns the bytes held and how many writers have had to wait so far.
func (b *budget) state() (used, stalls int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.stalls
}

// stats returns the same in full.
func (b *budget) stats() (MemoryStats, []StallStats) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return MemoryStats{Used: b.used, Kept: b.kept, Limit: b.limit},
		[]StallStats{{Cause: StallMemory, Waiting: int64(b.waiting), Count: b.stalls, Waited: b.waited}}
}
