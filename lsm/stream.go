package lsm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/flightd/flightd/lsm/wal"
)

const (
	// streamBytes is how much of a stream may be on its way to the log: a few groups of it, so that the log always has one to
	// write and a stream that is faster than the disk does not take all memory for that.
	streamBytes = 16 << 20
	// streamPuts is how many of its batches may be on their way to the log or a memtable. What one takes there on the Go heap
	// serves the next when it has arrived: a stream that runs ahead of who puts keys into an index needed new ones for
	// each batch. Two groups of batches of 100 rows are enough for the log and the appliers to have work.
	streamPuts = 2048
)

// Stream is many batches of one writer for one table. They are applied as those of Put are, in the order in which they
// come, but the writer does not wait until each is in the log: while one group is written the next one gathers, and a
// stream of small batches costs the log a write for many. Once a batch has failed none behind it is applied.
//
// A Stream belongs to one goroutine, which must not leave it before Wait has returned.
type Stream struct {
	table *Table
	// logged, which may be nil, is told the LSN of each batch.
	logged func(LSN)
	order  wal.Order

	// flying are the bytes that are on their way to the log, ahead the batches on their way to it or to a memtable. The writer
	// waits until the bytes are at most enough, which is below zero when it does not wait, and the batches at most few, and is
	// woken by landed, which holds one.
	flying, enough atomic.Int64
	ahead, few     atomic.Int64
	landed         chan struct{}
	failed         atomic.Pointer[error]
	// refused is why a batch was not sent at all: none behind it is. Those before it may all come into the log.
	refused error
}

// Stream begins a stream. logged, which may be nil, is called once for each batch that was put, in their order, with the
// LSN at which it is visible; it must return soon, and must call neither the stream nor what waits for the log. When a
// batch fails it is called no more.
func (t *Table) Stream(logged func(LSN)) *Stream {
	s := &Stream{table: t, logged: logged, landed: make(chan struct{}, 1)}
	s.enough.Store(-1)
	return s
}

// Put checks a batch, waits for the memory that it takes and sends it to the log. It may return the error of a batch that
// came before. Record, Meta and Body must stay as they are until the batch is logged; the memory of Body stays as long as
// Record does, of which Put takes a reference. After ErrTableChanged the batch can be made anew and put again; after any
// other error the stream takes no more.
func (s *Stream) Put(ctx context.Context, b Batch) error {
	if s.refused != nil {
		return s.refused
	}
	if err := s.failure(); err != nil {
		return err
	}
	err := s.put(ctx, b)
	if err != nil && !errors.Is(err, ErrTableChanged) {
		s.refused = err
	}
	return err
}

// put is Put for a stream of which nothing has failed so far.
func (s *Stream) put(ctx context.Context, b Batch) error {
	if b.Record.NumRows() == 0 || len(b.Keep) > 0 {
		return s.putAlone(ctx, b)
	}
	if s.flying.Load() > streamBytes || s.ahead.Load() > streamPuts {
		if err := s.settle(ctx, streamBytes/2, streamPuts/2); err != nil {
			return err
		}
	}
	t := s.table
	p, err := t.admit(ctx, b)
	if err != nil {
		return err
	}
	if err := t.writes.rlock(ctx); err != nil {
		p.drop(t)
		return fmt.Errorf("table %q: wait for a statement: %w", t.name, err)
	}
	// From here on the log's goroutine lets go of what was taken, unless the log refuses the batch at once.
	if err := s.send(p, t.buffers(b)); err != nil {
		t.writes.runlock()
		p.drop(t)
		return err
	}
	return nil
}

// putAlone puts a batch for which all before it have to be in the log.
func (s *Stream) putAlone(ctx context.Context, b Batch) error {
	if err := s.Wait(ctx); err != nil {
		return err
	}
	lsn, err := s.table.Put(ctx, b)
	if err == nil && s.logged != nil {
		s.logged(lsn)
	}
	return err
}

// send gives a put to the log. REQUIRES: table.writes is held for reading.
func (s *Stream) send(p *put, buffered bool) error {
	t := s.table
	if err := t.takesLocked(p); err != nil {
		return err
	}
	p.buffered, p.stream = buffered, s
	p.users.Store(2)
	n := p.bytes
	s.flying.Add(n)
	s.ahead.Add(1)
	p.alone[0] = t.logRecord(p)
	if err := t.db.log.Send(&s.order, p, p.alone[:]...); err != nil {
		s.flying.Add(-n)
		s.ahead.Add(-1)
		return s.logError(err)
	}
	return nil
}

// fail remembers why a batch did not come into the log, the first one that did not.
func (s *Stream) fail(err error) {
	err = s.logError(err)
	s.failed.CompareAndSwap(nil, &err)
}

// logError says of an error of the log what it means.
func (s *Stream) logError(err error) error {
	t := s.table
	return fmt.Errorf("table %q: log batch: %w", t.name, t.db.diskError(logError(err)))
}

// Logged implements wal.Receipt.
func (p *put) Logged(lsn LSN, err error) {
	s, n := p.stream, p.bytes
	t := s.table
	if err == nil {
		t.noteLast(lsn)
		p.leave()
	} else {
		s.fail(err)
		p.drop(t)
		s.ahead.Add(-1)
	}
	t.writes.runlock()
	if err == nil && s.logged != nil {
		s.logged(lsn)
	}
	s.flying.Add(-n)
	s.wake()
}

// arrived notes that a batch is in the log and in its memtable, or will not come there.
func (s *Stream) arrived() {
	s.ahead.Add(-1)
	s.wake()
}

// wake wakes the writer when it has waited for enough.
func (s *Stream) wake() {
	if s.flying.Load() <= s.enough.Load() && s.ahead.Load() <= s.few.Load() {
		select {
		case s.landed <- struct{}{}:
		default:
		}
	}
}

// settle waits until at most n bytes are on their way to the log, and at most some batches to it or a memtable, and returns
// why one of them did not come into the log.
func (s *Stream) settle(ctx context.Context, n, few int64) error {
	s.few.Store(few)
	s.enough.Store(n)
	defer s.enough.Store(-1)
	var stop <-chan struct{}
	if few < math.MaxInt64 {
		stop = s.table.stop.Done() // no memtable takes anything then, and who puts the next batch is told
	}
	for s.flying.Load() > n || s.ahead.Load() > few {
		select {
		case <-s.landed:
		case <-stop:
			return s.failure()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return s.failure()
}

// failure returns why a batch could not be applied.
func (s *Stream) failure() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Wait blocks until all batches are in the log and logged was called for them, or one has failed: then that error is
// returned, and so it is when ctx ends before.
func (s *Stream) Wait(ctx context.Context) error { return s.settle(ctx, 0, math.MaxInt64) }
