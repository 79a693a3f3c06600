package wal

import (
	"fmt"
	"runtime"
)

// syncLoop is the sync goroutine.
func (l *Local) syncLoop() {
	defer close(l.syncDone)
	for {
		// Those whom the last sync has released get to append first, else the first of them starts a sync of its own and
		// the others wait for the one after: with 8 writers 7 batches share a sync instead of 4, with 32 20 instead of 16.
		runtime.Gosched()
		f, upTo, lsn, more := l.unsynced()
		if !more {
			return
		}
		if err := f.Sync(); err != nil {
			l.poison(fmt.Errorf("sync log segment %s: %w", l.env.disk.Path(segmentName(upTo.segment)), err))
			continue
		}
		l.settle(upTo, lsn)
	}
}

// unsynced waits until something must be synced and returns the file, the end of what a sync will cover, and the last
// record in it. After poison it only waits for the end.
func (l *Local) unsynced() (f file, upTo position, lsn LSN, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.mu.stopped:
			return nil, position{}, 0, false
		case l.mu.err == nil && l.mu.synced.less(l.mu.wanted):
			return l.mu.file, l.mu.written, l.mu.writtenLSN, true
		}
		l.syncWork.Wait()
	}
}

// wantLocked has everything synced that was written. REQUIRES: l.mu is held.
func (l *Local) wantLocked() {
	l.mu.wanted, l.mu.later = l.mu.written, false
	l.syncWork.Signal()
}

// wantLaterLocked has everything synced that was written once the interval has passed. A clock that runs already is for
// records that came before, and so it is soon enough. REQUIRES: l.mu is held.
func (l *Local) wantLaterLocked() {
	l.mu.later = true
	if !l.mu.armed {
		l.mu.armed = true
		l.mu.disarm = l.env.after(l.opts.Interval, l.passed)
	}
}

// passed is called when the interval has passed.
func (l *Local) passed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.armed = false
	if l.mu.later {
		l.wantLocked()
	}
}

// settle makes what was synced durable for all to know.
func (l *Local) settle(upTo position, lsn LSN) {
	l.mu.Lock()
	l.mu.synced = upTo
	l.logWork.Signal()
	for l.mu.published < lsn {
		l.syncWork.Wait()
	}
	if l.DurableLSN() >= lsn {
		l.mu.Unlock()
		return
	}
	l.durable.Store(uint64(lsn))
	done := l.takeWaitersLocked(lsn)
	l.mu.Unlock()
	answer(done, nil)
	l.opts.Durable(lsn)
}

// takeWaitersLocked removes the waiters that wait for no more than lsn. REQUIRES: l.mu is held.
func (l *Local) takeWaitersLocked(lsn LSN) []*waiter {
	done := l.doneWaiters[:0]
	rest := l.mu.waiters[:0]
	for _, w := range l.mu.waiters {
		if w.lsn <= lsn {
			done = append(done, w)
		} else {
			rest = append(rest, w)
		}
	}
	clear(l.mu.waiters[len(rest):])
	l.mu.waiters, l.doneWaiters = rest, done
	return done
}
