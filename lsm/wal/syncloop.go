package wal

import (
	"fmt"
	"runtime"
	"time"
)

// markRest is how long nothing is appended before a sync mark is written: it would be in the way of who appends as soon as
// the last batch is durable, and of no use, since the next group says what a mark does.
const markRest = time.Millisecond

// syncLoop is the sync goroutine.
func (l *Local) syncLoop() {
	defer close(l.syncDone)
	for {
		// Those whom the last sync has released get to append first, else the first of them starts a sync of its own and
		// the others wait for the one after: with 8 writers 7 batches share a sync instead of 4, with 32 20 instead of 16.
		runtime.Gosched()
		s, more := l.awaitSync()
		if !more {
			return
		}
		l.sync(s)
	}
}

// syncRun is one fdatasync: of a file, up to an end of the log and the last record before it.
type syncRun struct {
	file file
	upTo position
	lsn  LSN
}

// awaitSync waits until something must be synced and begins with it. After poison it only waits for the end.
func (l *Local) awaitSync() (s syncRun, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.mu.syncing:
		case l.mu.stopped:
			return syncRun{}, false
		case l.mu.err == nil && l.mu.synced.less(l.mu.wanted):
			return l.beginSyncLocked(), true
		}
		l.syncWork.Wait()
	}
}

// syncAlone runs the sync that an LSN waits for if that is due, nobody runs one, and the one before was for a single call:
// then most likely the caller is alone, and need not wait until the sync goroutine has been woken and has woken it. When
// there are several, the sync goroutine lets those append first whom the last sync has released.
func (l *Local) syncAlone(lsn LSN) {
	l.mu.Lock()
	lead := l.mu.solo && l.mu.unsynced == 1 && !l.mu.syncing && !l.mu.stopped && l.mu.err == nil && l.mu.synced.less(l.mu.wanted) && lsn <= l.mu.writtenLSN && lsn > l.DurableLSN()
	if !lead {
		l.mu.Unlock()
		return
	}
	s := l.beginSyncLocked()
	l.mu.Unlock()
	l.sync(s)
}

// beginSyncLocked returns what is to be synced, which the caller does. REQUIRES: l.mu is held, nobody syncs.
func (l *Local) beginSyncLocked() syncRun {
	l.mu.syncing = true
	l.mu.covered, l.mu.unsynced = l.mu.unsynced, 0
	return syncRun{l.mu.file, l.mu.written, l.mu.writtenLSN}
}

// sync runs a sync that was begun.
func (l *Local) sync(s syncRun) {
	if err := s.file.Sync(); err != nil {
		l.poison(fmt.Errorf("sync log segment %s: %w", l.env.disk.Path(segmentName(s.upTo.segment)), err))
	} else {
		l.settle(s.upTo, s.lsn)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.syncing = false
	l.mu.solo = l.mu.covered <= 1
	if l.mu.stopped || l.mu.synced.less(l.mu.wanted) {
		l.syncWork.Signal()
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
	if l.mu.draining {
		l.logWork.Signal()
	}
	for l.mu.published < lsn {
		l.syncWork.Wait()
	}
	l.restLocked()
	if l.DurableLSN() >= lsn {
		l.mu.Unlock()
		return
	}
	l.durable.Store(uint64(lsn))
	done := l.takeWaitersLocked(lsn)
	l.mu.Unlock()
	l.opts.Durable(lsn)
	answer(done, nil)
}

// restLocked has the clock run after which a sync mark is due. REQUIRES: l.mu is held.
func (l *Local) restLocked() {
	if l.mu.unmarked && !l.mu.resting && !l.mu.stopped && l.mu.synced == l.mu.written {
		l.mu.resting, l.mu.restLSN = true, l.mu.writtenLSN
		l.mu.unrest = l.env.rest(markRest, l.rested)
	}
}

// rested is called when the clock for a sync mark has passed. When something was appended since, it runs again.
func (l *Local) rested() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.resting = false
	if l.mu.err != nil || !l.mu.unmarked || l.mu.synced != l.mu.written {
		return // a sync is to come, and then the clock
	}
	if l.mu.restLSN != l.mu.writtenLSN {
		l.restLocked()
		return
	}
	l.mu.markDue = true
	l.logWork.Signal()
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
