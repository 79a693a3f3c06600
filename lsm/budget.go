package lsm

import (
	"context"
	"sync"
)

// budget is the memory that memtables, their indexes included, may take together. Writers wait when it is spent,
// and go on as flushes give memory back: a stream is slowed, never refused.
type budget struct {
	limit int64
	// full is called, without the lock, when a writer has to wait: somebody must begin a flush.
	full func()

	mu     sync.Mutex
	used   int64
	stalls int64
	freed  chan struct{} // closed and replaced when memory comes back
}

// newBudget returns a budget of limit bytes.
func newBudget(limit int64, full func()) *budget {
	return &budget{limit: limit, full: full, freed: make(chan struct{})}
}

// acquire takes n bytes, and waits while that would overshoot. One batch may always pass when nothing else is
// held, however large it is.
func (b *budget) acquire(ctx context.Context, n int64) error {
	stalled := false
	for {
		b.mu.Lock()
		if b.used == 0 || b.used+n <= b.limit {
			b.used += n
			b.mu.Unlock()
			return nil
		}
		if !stalled {
			stalled = true
			b.stalls++
		}
		freed := b.freed
		b.mu.Unlock()
		b.full()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
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

// state returns the bytes held and how many writers have had to wait so far.
func (b *budget) state() (used, stalls int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.stalls
}
