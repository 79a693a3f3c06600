package lsm

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// gate is a lock for one or for many, as sync.RWMutex is, with one difference: who waits for it can give up. It is
// given in the order in which it was asked for, so that neither streams nor statements starve. The many take no lock while
// nobody wants it alone. The zero value is open.
type gate struct {
	// state is the number of readers, and gateBusy while somebody writes or waits: then mu decides who comes in.
	state atomic.Int64

	mu      sync.Mutex
	writing bool
	queue   []*gateWait
}

// gateBusy is a bit above all numbers of readers.
const gateBusy = 1 << 62

// gateWait is somebody who waits for the gate. ready is closed when it is theirs.
type gateWait struct {
	write bool
	ready chan struct{}
}

// lock takes the gate alone. After an error, which is why ctx ended, it is not taken.
func (g *gate) lock(ctx context.Context) error { return g.take(ctx, true) }

// rlock takes the gate beside others that do.
func (g *gate) rlock(ctx context.Context) error {
	for {
		state := g.state.Load()
		if state&gateBusy != 0 {
			return g.take(ctx, false)
		}
		if g.state.CompareAndSwap(state, state+1) {
			return nil
		}
	}
}

// unlock gives back what lock took.
func (g *gate) unlock() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writing = false
	g.passLocked()
}

// runlock gives back what rlock took.
func (g *gate) runlock() {
	if g.state.Add(-1)&gateBusy == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passLocked()
}

// take is lock and rlock.
func (g *gate) take(ctx context.Context, write bool) error {
	g.mu.Lock()
	g.state.Or(gateBusy)
	if len(g.queue) == 0 && g.enterLocked(write) {
		g.openLocked()
		g.mu.Unlock()
		return nil
	}
	w := &gateWait{write: write, ready: make(chan struct{})}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	g.leave(w)
	return context.Cause(ctx)
}

// leave ends the wait of w, and gives the gate back if it came meanwhile.
func (g *gate) leave(w *gateWait) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.queue, w); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	} else if w.write {
		g.writing = false
	} else {
		g.state.Add(-1)
	}
	g.passLocked()
}

// enterLocked takes the gate if it is free for that. REQUIRES: g.mu is held, and gateBusy is set.
func (g *gate) enterLocked(write bool) bool {
	if g.writing || write && g.state.Load() != gateBusy {
		return false
	}
	if write {
		g.writing = true
	} else {
		g.state.Add(1)
	}
	return true
}

// openLocked lets readers come in without the lock, if nobody writes or waits. REQUIRES: g.mu is held.
func (g *gate) openLocked() {
	if !g.writing && len(g.queue) == 0 {
		g.state.And(^int64(gateBusy))
	}
}

// passLocked lets in those at the head of the queue for whom the gate is free.
func (g *gate) passLocked() {
	for len(g.queue) > 0 && g.enterLocked(g.queue[0].write) {
		close(g.queue[0].ready)
		g.queue = g.queue[1:]
	}
	g.openLocked()
}
