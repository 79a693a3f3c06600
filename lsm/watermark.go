package lsm

import (
	"context"
	"slices"
	"sync"

	"github.com/flightd/flightd/lsm/wal"
)

// watermarks says which records of the log readers may see. A record is visible in all its shards at once: when it and
// all before it are in the log, durable unless they are buffered, and in the memtables of their shards. That is derived at each read from marks that only rise, and
// never stored, so no race between two of them can let a reader see a hole.
type watermarks struct {
	mu sync.Mutex
	// durable is the LSN up to which the log is synced.
	durable LSN
	// appended is the LSN up to which everything in the log was dispatched.
	appended LSN
	// strict are ranges of LSNs, ascending, that are not visible before they are durable: all but buffered batches. What
	// durable has passed is dropped from them at the next read.
	strict []lsnRange
	// pending are the shards with records on their way from the log to a memtable; shard.onWay says which.
	pending map[*shard]struct{}
	// whole are ranges of LSNs, ascending, that become visible together.
	whole []lsnRange
	// err is set when the log is poisoned or closed; waiting is then in vain.
	err error
	// moved is closed and replaced when visible may have risen and watched says that somebody has it.
	moved   chan struct{}
	watched bool
}

// lsnRange is some consecutive LSNs.
type lsnRange struct{ first, last LSN }

// newWatermarks returns marks that stand at an LSN.
func newWatermarks() *watermarks {
	return &watermarks{pending: make(map[*shard]struct{}), moved: make(chan struct{})}
}

// dispatch notes that records from first to last, those of them that are the shard's, are on their way to it.
func (w *watermarks) dispatch(s *shard, first, last LSN) {
	w.mu.Lock()
	s.onWay = append(s.onWay, lsnRange{first, last})
	w.pending[s] = struct{}{}
	w.mu.Unlock()
}

// together notes that some records, not yet dispatched, become visible at once.
func (w *watermarks) together(first, last LSN) {
	w.mu.Lock()
	w.whole = append(w.whole, lsnRange{first, last})
	w.mu.Unlock()
}

// arrived notes that what is on its way to a shard is in its memtable up to an LSN, as readers of its table want it: with
// its indexes, unless they may follow.
func (w *watermarks) arrived(s *shard, upTo LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(s.onWay) && s.onWay[n].last <= upTo {
		n++
	}
	s.onWay = slices.Delete(s.onWay, 0, n) // in place: the memory serves what comes next
	if len(s.onWay) > 0 {
		s.onWay[0].first = max(s.onWay[0].first, upTo+1)
	} else {
		delete(w.pending, s)
	}
	w.wakeLocked()
}

// written notes that a group is in the log. What of it goes to shards has been dispatched.
func (w *watermarks) written(recs []*wal.Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	buffered := false
	for _, r := range recs {
		n := len(w.strict)
		switch {
		case r.Buffered:
			buffered = true
		case n > 0 && w.strict[n-1].last+1 == r.LSN:
			w.strict[n-1].last = r.LSN
		default:
			w.strict = append(w.strict, lsnRange{r.LSN, r.LSN})
		}
	}
	w.appended = max(w.appended, recs[len(recs)-1].LSN)
	if buffered { // its shard may have it already, and nothing else of it is to come
		w.wakeLocked()
	}
}

// sync notes that the log is durable up to an LSN.
func (w *watermarks) sync(lsn LSN) {
	w.mu.Lock()
	w.durable = max(w.durable, lsn)
	w.appended = max(w.appended, lsn)
	w.wakeLocked()
	w.mu.Unlock()
}

// fail ends all waiting.
func (w *watermarks) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.wakeLocked()
	w.mu.Unlock()
}

// wakeLocked tells those who wait that visible may have risen. REQUIRES: w.mu is held.
func (w *watermarks) wakeLocked() {
	if !w.watched {
		return
	}
	close(w.moved)
	w.moved, w.watched = make(chan struct{}), false
}

// visible returns the LSN up to which everything may be seen.
func (w *watermarks) visible() LSN {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.visibleLocked()
}

func (w *watermarks) visibleLocked() LSN {
	for len(w.strict) > 0 && w.strict[0].last <= w.durable {
		w.strict = w.strict[1:]
	}
	v := w.appended
	if len(w.strict) > 0 {
		v = max(w.durable, w.strict[0].first-1)
	}
	for s := range w.pending {
		v = min(v, s.onWay[0].first-1)
	}
	for len(w.whole) > 0 && w.whole[0].last <= v {
		w.whole = w.whole[1:]
	}
	if len(w.whole) > 0 && w.whole[0].first <= v {
		v = w.whole[0].first - 1
	}
	return v
}

// unsynced returns the highest LSN up to one that is not visible before it is durable, and is not durable yet; 0 for none.
func (w *watermarks) unsynced(upTo LSN) LSN {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.strict) - 1; i >= 0; i-- {
		if r := w.strict[i]; r.first <= upTo {
			if last := min(r.last, upTo); last > w.durable {
				return last
			}
			return 0
		}
	}
	return 0
}

// watch returns a channel that is closed at the next move, and the error that ended all movement.
func (w *watermarks) watch() (<-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched = true
	return w.moved, w.err
}

// wait blocks until an LSN is visible.
func (w *watermarks) wait(ctx context.Context, lsn LSN) error {
	for {
		w.mu.Lock()
		ok, moved, err := w.visibleLocked() >= lsn, w.moved, w.err
		w.watched = w.watched || !ok
		w.mu.Unlock()
		switch {
		case ok:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
