package wal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// firstSegmentBytes is the size of the segment that Open makes when none is prepared: small, so that opening is fast
// while the keeper prepares one of full size.
const firstSegmentBytes = 4 << 20

// Local is the log on a local disk.
type Local struct {
	opts Options
	env  env
	// appended and durable are the marks that callers read. They are written with mu held.
	appended, durable atomic.Uint64

	// end is where the log is written next. The fields up to mu are of who has the pen (mu.pen); Open has it first.
	end position
	// seg is the segment of end.
	seg segment
	// last is the LSN of the last record, next the one that the next record gets.
	last, next LSN
	// lastInSegment is the last record in seg, 0 when there is none.
	lastInSegment LSN
	// asked tells that the keeper is at work on the next segment.
	asked bool
	// bare tells that seg lacks its checkpoint: nothing else is appended before that.
	bare  bool
	group groupWriter
	recs  []*Record
	// doneWaiters belongs to who syncs.
	doneWaiters []*waiter

	keeper keeper
	// logWork wakes the log goroutine, which is the only one that waits for it. syncWork wakes the sync goroutine, and who
	// syncs when it waits for Options.Appended.
	logWork, syncWork sync.Cond
	logDone, syncDone chan struct{}
	closing           sync.Once
	closeErr          error

	mu struct {
		sync.Mutex
		// pending are the calls of Append that the log goroutine has not taken up.
		pending []*call
		// spare is the list that pending was before, to be used again.
		spare []*call
		// waiters are the calls of WaitDurable.
		waiters []*waiter
		// err is the poison.
		err error
		// draining tells that who has the pen waits until all is synced.
		draining bool
		// pen tells that somebody writes the log: its goroutine, unless it waits for work, or a caller of Append.
		pen bool
		// closed refuses new calls, stopped ends the sync goroutine.
		closed, stopped bool

		// file is the segment of written.
		file file
		// written is the end of what was handed to the disk, writtenLSN the last record before it.
		written    position
		writtenLSN LSN
		// published is the last record for which Options.Appended has returned.
		published LSN
		// wanted is the end of what must be synced, synced the end of what is.
		// INVARIANT: synced is never above what fdatasync has confirmed; group headers repeat it.
		wanted, synced position
		// later tells that buffered records lie beyond wanted, armed that the clock runs which will raise it.
		later, armed bool
		// disarm stops the clock.
		disarm func() bool
		// syncing tells that fdatasync runs, be it by the sync goroutine or by a caller of WaitDurable.
		syncing bool
		// unsynced counts the calls that were written since the last sync began, covered those that it covers. solo tells
		// that the last one covered no more than one: then who waits syncs.
		unsynced, covered int
		solo              bool
		// unmarked tells that the last group has records, so that a sync mark is due when they are synced and nothing came
		// behind them for a while: the clock for that runs when resting is set, restLSN is what was written when it began.
		unmarked, markDue, resting bool
		restLSN                    LSN
		// unrest stops that clock.
		unrest func() bool
		// checked is the end of the checkpoint of the segment that is written, beyond everything while it has none.
		checked position
		// sealed are the segments before the one of written, oldest first.
		sealed []sealedSegment
	}
}

var _ Log = (*Local)(nil)

// env is what tests put another in place of.
type env struct {
	disk disk
	salt func() uint64
	// maxCount is the highest count of an LSN.
	maxCount uint64
	// after calls a function in a goroutine of its own once a time has passed, unless it is stopped before.
	after func(time.Duration, func()) (stop func() bool)
	// rest is after for sync marks.
	rest func(time.Duration, func()) (stop func() bool)
}

// afterFunc is the clock that is none of a test's.
func afterFunc(d time.Duration, f func()) (stop func() bool) { return time.AfterFunc(d, f).Stop }

// segment is a segment that is being written.
type segment struct {
	segmentHeader
	file file
	// size is where the next segment begins, though one large group may pass it.
	size int64
}

// sealedSegment is a segment that will not be written any more.
type sealedSegment struct {
	id uint64
	// last is its last record, 0 when it has none.
	last LSN
}

// call is one Append or Send.
type call struct {
	recs  []*Record
	bytes int64
	last  LSN
	err   error
	// alone is the memory of recs when there is one.
	alone [1]*Record
	// done releases who called Append and waits, and is made for the first of them that uses the call; Send has a receipt in
	// its place, and may have an order.
	done    chan struct{}
	receipt Receipt
	order   *Order
	// checkpoint asks a Bucket for a checkpoint; then there are no records.
	checkpoint bool
}

// newCall returns a call for some records.
func newCall(recs []*Record) (*call, error) {
	if len(recs) == 0 {
		return nil, errors.New("append to the log: no records")
	}
	bytes := int64(0)
	for _, r := range recs {
		if !r.Kind.valid() {
			return nil, fmt.Errorf("append to the log: %s is not known", r.Kind)
		}
		bytes += r.encodedBytes()
	}
	if bytes > maxGroupBytes-groupHeaderBytes {
		return nil, fmt.Errorf("append %d bytes to the log, the most is %d: %w", bytes, maxGroupBytes-groupHeaderBytes, ErrTooLarge)
	}
	c := calls.Get().(*call)
	if cap(c.recs) == 0 {
		c.recs = c.alone[:0]
	}
	c.recs, c.bytes = append(c.recs[:0], recs...), bytes
	return c, nil
}

// answers prepares a call whose caller waits for it.
func (c *call) answers() {
	if c.done == nil {
		c.done = make(chan struct{}, 1)
	}
}

// free gives a call back that nobody uses any more.
func (c *call) free() {
	clear(c.recs)
	c.last, c.err, c.receipt, c.order = 0, nil, nil, nil
	calls.Put(c)
}

// answer tells what became of a call. It belongs to somebody else from then on.
func (c *call) answer(err error) {
	c.err = err
	if err != nil {
		c.last = 0 // a group that the disk had no room for was given LSNs, which the next one gets
		if c.order != nil {
			c.order.err = err
		}
	}
	if c.receipt == nil {
		c.done <- struct{}{}
		return
	}
	c.receipt.Logged(c.last, err)
	c.free()
}

// failed returns why a call must not be appended: one that it is to follow was not.
func (c *call) failed() error {
	if c.order == nil {
		return nil
	}
	return c.order.err
}

// waiter is one WaitDurable.
type waiter struct {
	lsn  LSN
	err  error
	done chan struct{}
}

var (
	calls   = sync.Pool{New: func() any { return new(call) }}
	waiters = sync.Pool{New: func() any { return &waiter{done: make(chan struct{}, 1)} }}
)

// Open continues the log in Options.Dir where Replay found its end. What Replay returned is durable when Open returns.
func Open(o Options) (*Local, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	d, err := openFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	return open(o, env{disk: d, salt: rand.Uint64, maxCount: maxCount, after: afterFunc, rest: afterFunc})
}

// open is Open on any disk. REQUIRES: o is valid.
func open(o Options, e env) (*Local, error) {
	if err := checkEnd(e.disk, o.End); err != nil {
		return nil, err
	}
	l := &Local{opts: o, env: e, last: o.End.LSN, logDone: make(chan struct{}), syncDone: make(chan struct{})}
	l.logWork.L, l.syncWork.L = &l.mu, &l.mu
	l.mu.pen = true
	l.mu.sealed = slices.Clone(o.End.segments)
	l.mu.writtenLSN, l.mu.published = o.End.LSN, o.End.LSN
	l.keeper.init(l)
	if err := l.keeper.sweep(); err != nil {
		return nil, err
	}
	if err := l.leaveTail(); err != nil {
		return nil, err
	}
	go l.syncLoop()
	go l.keeper.run()
	epoch := max(o.End.next.Epoch(), o.After.Epoch()) + 1
	if err := l.startEpoch(epoch); err != nil {
		close(l.logDone)
		return nil, errors.Join(err, l.Close())
	}
	l.appended.Store(uint64(newLSN(epoch, 0)))
	l.durable.Store(uint64(newLSN(epoch, 0)))
	// The segments before this one may hold keys that only its checkpoint repeats: it is synced before any of them goes.
	if err := errors.Join(l.writeCheckpoint(), l.syncAll()); err != nil {
		close(l.logDone)
		return nil, errors.Join(err, l.Close())
	}
	// Segments without records go first: the next one is made of them.
	if err := l.Trim(0); err != nil {
		o.Logger.Warn("log segments without records stay", "log", o.Dir, "err", err)
	}
	l.askSegment()
	go l.logLoop()
	return l, nil
}

// checkEnd compares what is in the folder with what Replay has seen.
func checkEnd(d disk, end State) error {
	ids, err := listSegments(d)
	if err != nil {
		return err
	}
	var seen []uint64
	for _, s := range end.segments {
		seen = append(seen, s.id)
	}
	if end.prepared {
		seen = append(seen, end.tail.segment+1)
	}
	if !slices.Equal(ids, seen) {
		return fmt.Errorf("%w: it has the segments %v, the replay has seen %v", ErrNotReplayed, ids, seen)
	}
	return nil
}

// leaveTail makes the segment behind the tail that Replay found the active one, and then seals the tail. The seal's sync
// makes all that Replay has returned durable.
func (l *Local) leaveTail() (err error) {
	end := &l.opts.End
	id := end.tail.segment + 1
	if end.prepared {
		l.seg, err = l.keeper.reopen(id)
	} else {
		l.seg, err = l.keeper.newSegment(id, min(l.opts.SegmentBytes, firstSegmentBytes))
	}
	if err != nil {
		return err
	}
	if end.tail != (position{}) {
		if err := l.sealTail(); err != nil {
			return errors.Join(err, l.seg.file.Close())
		}
	}
	l.enterSegmentLocked()
	return nil
}

// sealTail seals the segment in which Replay found the end of the log, and cuts off what it does not need any more: many
// restarts must not fill the disk with segments that are nearly empty.
func (l *Local) sealTail() error {
	end := &l.opts.End
	name := segmentName(end.tail.segment)
	f, err := l.env.disk.Open(name, true)
	if err != nil {
		return fmt.Errorf("seal the end of the log: %w", err)
	}
	h := groupHeader{at: end.tail, typ: seal, lsn: end.next, prev: end.LSN, synced: end.proved}
	l.group.start(f, end.tail.offset)
	err = l.group.finish(&h, end.tailSum)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Truncate(h.end().offset)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("seal the end of the log in %s: %w", l.env.disk.Path(name), err)
	}
	return nil
}

// enterSegmentLocked makes l.seg the segment that is written. REQUIRES: l.mu is held, or there are no goroutines yet;
// everything before is synced.
func (l *Local) enterSegmentLocked() {
	l.end, l.lastInSegment, l.bare = position{l.seg.id, firstGroup}, 0, true
	l.mu.checked = position{l.seg.id, math.MaxInt64}
	l.mu.file = l.seg.file
	l.mu.written, l.mu.wanted, l.mu.synced = l.end, l.end, l.end
	l.mu.unmarked, l.mu.markDue, l.mu.later = false, false, false
}

// Append implements Log.
func (l *Local) Append(ctx context.Context, recs ...*Record) (LSN, error) {
	c, err := newCall(recs)
	if err != nil {
		return 0, err
	}
	if ctx.Err() == nil && l.takePen(c) {
		err := l.writeAlone(c)
		last := c.last
		c.free()
		return last, err
	}
	c.answers()
	if err := l.queue(c); err != nil {
		c.free()
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if l.withdraw(c) {
			c.free()
			return 0, context.Cause(ctx)
		}
		// The log goroutine is writing it: it cannot be called back, and its memory is in use.
		<-c.done
	}
	last, err := c.last, c.err
	c.free()
	return last, err
}

// Send implements Log.
func (l *Local) Send(order *Order, receipt Receipt, recs ...*Record) error {
	c, err := newCall(recs)
	if err != nil {
		return err
	}
	c.receipt, c.order = receipt, order
	if err := l.queue(c); err != nil {
		c.free()
		return err
	}
	return nil
}

// queue gives a call to the log goroutine.
func (l *Local) queue(c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.err != nil {
		return l.mu.err
	}
	if l.mu.closed {
		return ErrClosed
	}
	l.mu.pending = append(l.mu.pending, c)
	l.logWork.Signal()
	return nil
}

// withdraw takes a call back unless the log goroutine has it already.
func (l *Local) withdraw(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.mu.pending, c)
	if i < 0 {
		return false
	}
	l.mu.pending = slices.Delete(l.mu.pending, i, i+1)
	return true
}

// AppendedLSN implements Log.
func (l *Local) AppendedLSN() LSN { return LSN(l.appended.Load()) }

// DurableLSN implements Log.
func (l *Local) DurableLSN() LSN { return LSN(l.durable.Load()) }

// WaitDurable implements Log. A caller that is alone runs the sync that it waits for itself, even when ctx ends meanwhile.
func (l *Local) WaitDurable(ctx context.Context, lsn LSN) error {
	if ctx.Err() == nil {
		l.syncAlone(lsn)
	}
	if l.DurableLSN() >= lsn {
		return nil
	}
	w := waiters.Get().(*waiter)
	w.lsn, w.err = lsn, nil
	if wait, err := l.enlist(w); !wait {
		waiters.Put(w)
		return err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if l.delist(w) {
			return context.Cause(ctx)
		}
		<-w.done
	}
	err := w.err
	waiters.Put(w)
	return err
}

// enlist adds a waiter, or tells the answer.
func (l *Local) enlist(w *waiter) (wait bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.DurableLSN() >= w.lsn:
		return false, nil
	case l.mu.err != nil:
		return false, l.mu.err
	case l.mu.stopped:
		return false, ErrClosed
	}
	l.mu.waiters = append(l.mu.waiters, w)
	if l.mu.later {
		l.wantLocked()
	}
	return true, nil
}

// delist takes a waiter back unless it has been answered already.
func (l *Local) delist(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.mu.waiters, w)
	if i < 0 {
		return false
	}
	l.mu.waiters = slices.Delete(l.mu.waiters, i, i+1)
	return true
}

// Err implements Log.
func (l *Local) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}

// poison ends all writing, once.
func (l *Local) poison(cause error) {
	l.mu.Lock()
	if l.mu.err != nil {
		l.mu.Unlock()
		return
	}
	err := fmt.Errorf("%w: %w", ErrPoisoned, cause)
	l.mu.err = err
	waiting := l.mu.waiters
	l.mu.waiters = nil
	l.logWork.Signal()
	l.syncWork.Signal()
	l.mu.Unlock()
	answer(waiting, err)
	l.opts.Poisoned(err)
}

// answer releases waiters.
func answer(waiting []*waiter, err error) {
	for _, w := range waiting {
		w.err = err
		w.done <- struct{}{}
	}
}

// Trim implements Log. It returns when the segments are gone from the log, though some may stay in the folder as spares.
func (l *Local) Trim(upTo LSN) error { return l.keeper.askTrim(upTo) }

// Close implements Log.
func (l *Local) Close() error {
	l.closing.Do(l.close)
	return l.closeErr
}

func (l *Local) close() {
	l.mu.Lock()
	l.mu.closed = true
	l.logWork.Signal()
	l.mu.Unlock()
	<-l.logDone

	l.mu.Lock()
	l.mu.stopped = true
	if l.mu.armed {
		l.mu.disarm()
	}
	if l.mu.resting {
		l.mu.unrest()
	}
	waiting := l.mu.waiters
	l.mu.waiters = nil
	l.syncWork.Signal()
	l.mu.Unlock()
	answer(waiting, ErrClosed)
	<-l.syncDone

	l.keeper.close()
	l.closeErr = errors.Join(l.Err(), l.seg.file.Close())
}
