package wal

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// groupTarget is the size at which a group takes no more calls: what is lost with one torn group, and what the log
// goroutine writes before it releases the first caller.
const groupTarget = 4 << 20

// logLoop is the log goroutine.
func (l *Local) logLoop() {
	defer close(l.logDone)
	for {
		queued, mark, more := l.takeUp()
		switch {
		case len(queued) > 0:
			l.appendCalls(queued)
		case mark:
			_ = l.writeMark(syncMark) // nobody waits for it; a failure poisons the log
		case !more:
			l.finish()
			return
		}
	}
}

// takeUp lays the pen down, waits for something to write, queued calls or a sync mark that is due, and takes the pen for it.
// It tells when nothing will come.
func (l *Local) takeUp() (queued []*call, mark, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mu.pen = false; ; l.logWork.Wait() {
		if l.mu.pen {
			continue // who has it wakes this goroutine when there is something to do
		}
		queued, mark, more = l.dueLocked()
		if len(queued) > 0 || mark || !more {
			l.mu.pen = true
			return queued, mark, more
		}
	}
}

// dueLocked returns what the log goroutine has to do now, nothing when all that it can do is wait. REQUIRES: l.mu is held,
// and nobody has the pen.
func (l *Local) dueLocked() (queued []*call, mark, more bool) {
	switch {
	case len(l.mu.pending) > 0:
		queued = l.mu.pending
		l.mu.pending, l.mu.spare = l.mu.spare[:0], queued
		return queued, false, true
	case l.mu.closed:
		return nil, false, false
	}
	mark = l.mu.markDue
	l.mu.markDue = false
	return nil, mark, true
}

// takePen takes the pen for the caller of Append, if nobody has it or wants it, and if the call needs nothing but to be
// written where the log ends. Handing a call to the log goroutine and back takes as long as writing it does twice.
func (l *Local) takePen(c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.pen || l.mu.closed || l.mu.err != nil || len(l.mu.pending) > 0 || l.bare || l.next.N()+uint64(len(c.recs))-1 > l.env.maxCount {
		return false
	}
	alone := [1]*call{c}
	l.mu.pen = l.fitting(alone[:]) == 1
	return l.mu.pen
}

// writeAlone writes a call for its caller, who has the pen, and lays the pen down.
func (l *Local) writeAlone(c *call) error {
	alone := [1]*call{c}
	err := l.writeCalls(alone[:])
	if err != nil {
		c.last = 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.pen = false
	if len(l.mu.pending) > 0 || l.mu.closed || l.mu.markDue {
		l.logWork.Signal()
	}
	return err
}

// appendCalls writes what callers have queued, in one group or in as many as it takes.
func (l *Local) appendCalls(queued []*call) {
	for len(queued) > 0 {
		err := l.Err()
		n := 1
		if err == nil {
			err = queued[0].failed()
		}
		if err == nil {
			n, err = l.makeRoom(queued)
		}
		if err == nil {
			err = l.writeCalls(queued[:n])
		}
		for i, c := range queued[:n] {
			queued[i] = nil
			c.answer(err)
		}
		queued = queued[n:]
	}
}

// makeRoom returns how many calls the next group takes, at least one, and changes segments when the first does not fit.
func (l *Local) makeRoom(queued []*call) (int, error) {
	if l.bare { // there was no room for its checkpoint before
		if err := l.writeCheckpoint(); err != nil {
			return 1, err
		}
	}
	records := 0
	for _, c := range queued {
		records += len(c.recs)
	}
	if err := l.countUp(records); err != nil {
		return 1, err
	}
	n := l.fitting(queued)
	if n == 0 && l.end.offset > firstGroup {
		if err := l.changeSegment(); err != nil {
			return 1, err
		}
		if err := l.countUp(records); err != nil { // the checkpoint took a count
			return 1, err
		}
		n = l.fitting(queued)
	}
	return max(n, 1), nil
}

// countUp opens the next epoch when the present one has no counts left for some records.
func (l *Local) countUp(records int) error {
	if l.next.N()+uint64(records)-1 <= l.env.maxCount {
		return nil
	}
	return l.startEpoch(l.next.Epoch() + 1)
}

// marksBytes is the room for what may follow the last records of a segment: a sync mark, an epoch mark, the seal.
const marksBytes = 3 * groupHeaderBytes

// fitting returns how many calls fit into the segment, with room for marks behind them, and into one group. It ends before
// one that must not be appended.
func (l *Local) fitting(queued []*call) int {
	room := l.seg.size - l.end.offset - marksBytes
	size := int64(groupHeaderBytes)
	for i, c := range queued {
		size += c.bytes
		if align(size, groupAlign) > room || i > 0 && (size > groupTarget || c.failed() != nil) {
			return i
		}
	}
	return len(queued)
}

// writeCalls writes a group, publishes it and leaves each call its last LSN.
func (l *Local) writeCalls(group []*call) error {
	recs := l.recs[:0]
	first := l.next
	kinds := uint32(0)
	for _, c := range group {
		for _, r := range c.recs {
			r.LSN = first + LSN(len(recs))
			kinds |= 1 << r.Kind
			recs = append(recs, r)
		}
		c.last = recs[len(recs)-1].LSN
	}
	h := groupHeader{typ: recordGroup, lsn: first, prev: l.last, count: uint32(len(recs)), kinds: kinds}
	if err := l.writeGroup(&h, recs); err != nil {
		return err
	}
	l.mu.Lock()
	l.mu.unsynced += len(group)
	l.mu.Unlock()
	l.opts.Appended(recs)
	l.publish()
	clear(recs)
	l.recs = recs
	return nil
}

// writeGroup writes a group at the end of the log and tells the sync goroutine.
func (l *Local) writeGroup(h *groupHeader, recs []*Record) error {
	h.at = l.end
	l.mu.Lock()
	h.synced = l.mu.synced
	l.mu.Unlock()
	if err := l.layGroup(h, recs); err != nil {
		if errors.Is(err, syscall.ENOSPC) && h.typ == recordGroup && l.takeBack() {
			return fmt.Errorf("write log segment %s at %d: %w", l.env.disk.Path(segmentName(l.seg.id)), l.end.offset, err)
		}
		err = fmt.Errorf("write log segment %s at %d: %w", l.env.disk.Path(segmentName(l.seg.id)), l.end.offset, err)
		l.poison(err)
		return l.Err()
	}
	if h.typ == recordGroup {
		l.lastInSegment = h.last()
	}
	l.end = h.end()
	l.last, l.next = h.last(), h.lsn+LSN(h.count)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.written, l.mu.writtenLSN = l.end, l.last
	l.mu.unmarked, l.mu.markDue = h.typ == recordGroup, false
	if l.mu.unmarked {
		l.appended.Store(uint64(l.last))
		if slices.ContainsFunc(recs, func(r *Record) bool { return !r.Buffered }) {
			l.wantLocked()
		} else {
			l.wantLaterLocked()
		}
	}
	return nil
}

// takeBack gives back what a group took of the disk that did not fit. It is no harm: some of its bytes are missing, so no
// reader takes it for a group, nothing was told of its LSNs, and the next group is laid over it.
func (l *Local) takeBack() bool {
	size, err := l.seg.file.Size()
	if want := max(l.seg.size, l.end.offset); err == nil && size > want {
		err = l.seg.file.Truncate(want)
	}
	return err == nil
}

// layGroup writes the bytes of a group.
func (l *Local) layGroup(h *groupHeader, recs []*Record) error {
	l.group.start(l.seg.file, l.end.offset)
	for _, r := range recs {
		if err := l.group.record(r); err != nil {
			return err
		}
	}
	return l.group.finish(h, l.seg.sum)
}

// publish lets the sync goroutine tell that what was written is durable, once it is.
func (l *Local) publish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.published = l.last
	l.syncWork.Broadcast() // one may wait for this, and the other for work
}

// writeMark writes a group without records.
func (l *Local) writeMark(typ groupType) error {
	return l.writeGroup(&groupHeader{typ: typ, lsn: l.next, prev: l.last}, nil)
}

// syncAll waits until everything that was written is synced.
func (l *Local) syncAll() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wantLocked()
	l.mu.draining = true
	for l.mu.synced != l.mu.written && l.mu.err == nil {
		l.logWork.Wait()
	}
	l.mu.draining = false
	return l.mu.err
}

// changeSegment seals the segment and goes on in the next one. It fails without poison when there is none.
func (l *Local) changeSegment() error {
	next, err := l.nextSegment()
	if err != nil {
		return err
	}
	if err := l.writeMark(seal); err != nil {
		return errors.Join(err, next.file.Close())
	}
	if err := l.syncAll(); err != nil {
		return errors.Join(err, next.file.Close())
	}
	old := l.seg
	l.seg = next
	l.mu.Lock()
	l.mu.sealed = append(l.mu.sealed, sealedSegment{old.id, l.lastInSegment})
	l.enterSegmentLocked()
	l.mu.Unlock()
	if err := old.file.Close(); err != nil {
		l.opts.Logger.Warn("closing a synced log segment", "segment", old.id, "err", err)
	}
	l.askSegment()
	return l.writeCheckpoint()
}

// writeCheckpoint writes what a segment begins with.
//
// INVARIANT: it is the first group with records of its segment, and those before it stay until it is synced (see
// keeper.oldestIdle).
func (l *Local) writeCheckpoint() error {
	r := l.opts.Checkpoint()
	if r == nil {
		l.checkpointed()
		return nil
	}
	if size := r.encodedBytes(); !r.Kind.valid() || size > maxGroupBytes-groupHeaderBytes {
		err := fmt.Errorf("checkpoint of %d bytes, %s: %w", size, r.Kind, ErrTooLarge)
		l.poison(err) // going on without it, Trim would forget
		return l.Err()
	}
	if err := l.countUp(1); err != nil {
		return err
	}
	r.LSN = l.next
	h := groupHeader{typ: recordGroup, lsn: l.next, prev: l.last, count: 1, kinds: 1 << r.Kind}
	if err := l.writeGroup(&h, []*Record{r}); err != nil {
		return err
	}
	l.publish()
	l.checkpointed()
	return nil
}

// checkpointed notes that the segment has its checkpoint up to the end of the log.
func (l *Local) checkpointed() {
	l.bare = false
	l.mu.Lock()
	l.mu.checked = l.end
	l.mu.Unlock()
}

// askSegment has the keeper prepare the next segment.
func (l *Local) askSegment() {
	l.asked = true
	l.keeper.prepare <- l.seg.id + 1
}

// nextSegment waits for the next segment. When preparing it ahead has failed, it is tried again: the disk may have been
// full then, and a trim may have made room.
func (l *Local) nextSegment() (segment, error) {
	if l.asked {
		if p := <-l.keeper.ready; p.err == nil {
			l.asked = false
			return p.segment, nil
		}
	}
	l.askSegment()
	p := <-l.keeper.ready
	l.asked = false
	return p.segment, p.err
}

// startEpoch makes the LSNs continue in another epoch and waits until the disk knows.
func (l *Local) startEpoch(epoch uint64) error {
	if epoch > maxEpoch {
		return fmt.Errorf("log %s: all %d epochs are used up", l.opts.Dir, uint64(maxEpoch))
	}
	l.next = newLSN(epoch, 0)
	if err := l.writeMark(epochMark); err != nil {
		return err
	}
	l.next++
	return l.syncAll()
}

// finish leaves a log of which every byte is synced and everything but the last mark is covered by a mark.
func (l *Local) finish() {
	if l.syncAll() != nil {
		return
	}
	l.mu.Lock()
	unmarked := l.mu.unmarked
	l.mu.Unlock()
	// A failure is in Err, which Close returns.
	if unmarked && l.writeMark(syncMark) == nil {
		_ = l.syncAll()
	}
}
