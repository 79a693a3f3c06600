package query

/*
#cgo linux,amd64 LDFLAGS: -Wl,--wrap=duckdb_je_malloc -Wl,--wrap=duckdb_je_realloc -Wl,--wrap=_Znwm
#cgo CFLAGS: -fexceptions
#include "alloc.h"
*/
import "C"

import (
	"sync"
	"time"
)

const (
	// guardEvery is how often the guard looks while statements run: memory grows by up to 100 MB meanwhile.
	guardEvery = 25 * time.Millisecond
	// guardPatience is how many looks a statement that was ended has to give its memory back, before the next goes.
	guardPatience = 20
	// guardGrowth is how much memory must have grown since a statement began for it to be the cause.
	guardGrowth = 64 << 20
)

// A memoryGuard ends statements when the process holds too much memory. DuckDB's own limit does not see all that a
// statement makes: the strings of its vectors and of some aggregates lie outside of it. The first line is DuckDB's
// allocator, which refuses large pieces (alloc.h); what gets past it in small ones is ended here. What each statement
// holds nobody knows, so it is the youngest one that works and since whose beginning memory grew.
type memoryGuard struct {
	held  func() int64
	limit int64
	stop  chan struct{}
	done  sync.WaitGroup

	// mu comes after Result.mu, nothing is locked or called under it.
	mu      sync.Mutex
	running []guarded     // the youngest last
	wake    chan struct{} // has an element when a statement began, after nobody ran
}

// guarded is a statement that runs.
type guarded struct {
	r *Result
	// before is what was held at the first look after it began, -1 until then.
	before int64
}

// errTooMuchMemory is what a statement fails with that the guard ended.
var errTooMuchMemory = &Error{Code: ResourceExhausted,
	Message: "the statement was ended because the server holds more memory than its budget; make it smaller, or raise --memory"}

// newMemoryGuard starts a guard; none is needed without a limit.
func newMemoryGuard(held func() int64, limit int64) *memoryGuard {
	if held == nil || limit <= 0 {
		return nil
	}
	C.fd_alloc_limit(C.int64_t(limit))
	g := &memoryGuard{held: held, limit: limit, stop: make(chan struct{}), wake: make(chan struct{}, 1)}
	g.done.Add(1)
	go g.run()
	return g
}

// close ends the guard.
func (g *memoryGuard) close() {
	if g != nil {
		close(g.stop)
		g.done.Wait()
		C.fd_alloc_limit(0)
	}
}

// add takes a statement in.
func (g *memoryGuard) add(r *Result) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = append(g.running, guarded{r, -1})
	if len(g.running) == 1 {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

// remove forgets a statement.
func (g *memoryGuard) remove(r *Result) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.running {
		if g.running[i].r == r {
			g.running = append(g.running[:i], g.running[i+1:]...)
			return
		}
	}
}

// run looks while statements run, and sleeps else.
func (g *memoryGuard) run() {
	defer g.done.Done()
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for patience := 0; ; {
		select {
		case <-g.stop:
			return
		case <-tick.C:
		}
		candidates, some := g.look()
		if !some {
			tick.Stop()
			select {
			case <-g.stop:
				return
			case <-g.wake:
			}
			tick.Reset(guardEvery)
		}
		if patience--; patience > 0 {
			continue
		}
		for _, r := range candidates {
			if r.working() {
				r.cancel(errTooMuchMemory)
				patience = guardPatience
				break
			}
		}
	}
}

// look returns the statements that may be ended, the youngest first, and whether any statement runs.
func (g *memoryGuard) look() (candidates []*Result, some bool) {
	held := g.held()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := len(g.running) - 1; i >= 0; i-- {
		x := &g.running[i]
		switch {
		case x.before < 0:
			x.before = held
		case held > g.limit && held-x.before >= guardGrowth:
			candidates = append(candidates, x.r)
		}
	}
	return candidates, len(g.running) > 0
}

// working reports whether DuckDB is at work for the result, and not waiting for whoever reads it.
func (r *Result) working() bool {
	if r.mu.TryLock() {
		r.mu.Unlock()
		return false
	}
	return true
}
