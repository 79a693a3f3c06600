package lsm

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lsm/wal"
)

// Batches of the log come back over three kinds of goroutines, each at work on a part of the log ahead of the next:
//
//	reader ──▶ decoders ──▶ applier
//	reads and       several,          one: puts batches into memtables in the order of the log,
//	verifies,       as they come      and flushes when they take too much
//	copies bodies
//
// What travels is a replayPart, to the decoders through one channel and to the applier, in order, through another; both
// hold replayAhead parts, which bounds the memory that the budget does not know of yet.

const (
	// replayPartBytes and replayPartBatches bound a part: handing over must cost little beside what is handed over. A batch
	// that is larger has a part of its own.
	replayPartBytes   = 512 << 10
	replayPartBatches = 64
	// replayAhead is how many parts wait for a goroutine.
	replayAhead = 4
	// maxReplayDecoders bounds the decoders: the reader and the applier keep up with no more.
	maxReplayDecoders = 4
)

// replayBatch is one batch of the log.
type replayBatch struct {
	rec   wal.Record // without its body
	table *Table
	// prefix and meta are the heads of the record's body, body, outside the Go heap, is the rest; the batch owns it.
	prefix, meta []byte
	body         *memory.Buffer
	// put and err are what the decoder made of it.
	put *put
	err error
}

// replayPart is some batches that follow each other.
type replayPart struct {
	batches []replayBatch
	bytes   int
	decoded chan struct{} // closed by the decoder
}

// replayLine is the way of batches from the reader to the memtables.
type replayLine struct {
	apply func(*replayBatch) error
	// next is the part that the reader fills, nil when it is empty.
	next    *replayPart
	decode  chan *replayPart
	ordered chan *replayPart
	working sync.WaitGroup
	// waiting counts the parts that the applier has not done.
	waiting sync.WaitGroup
	// failed is set, after err, when a batch could not be decoded or applied: what follows it is dropped.
	failed atomic.Bool
	err    error
}

// newReplayLine starts the goroutines. Each decoder gets a function of its own from decoders. The caller, which is the
// reader, ends the line with close.
func newReplayLine(decoders func() (decode func(*replayBatch), done func()), apply func(*replayBatch) error) *replayLine {
	l := &replayLine{apply: apply, decode: make(chan *replayPart, replayAhead), ordered: make(chan *replayPart, replayAhead)}
	for range min(max(runtime.GOMAXPROCS(0)-1, 1), maxReplayDecoders) {
		l.working.Add(1)
		go l.decodeParts(decoders)
	}
	l.working.Add(1)
	go l.applyParts()
	return l
}

// add takes over a batch. It returns the error of an earlier one, if there is one.
func (l *replayLine) add(b replayBatch) error {
	if l.failed.Load() {
		b.body.Release()
		return l.err
	}
	if l.next == nil {
		l.next = &replayPart{batches: make([]replayBatch, 0, replayPartBatches), decoded: make(chan struct{})}
	}
	l.next.batches = append(l.next.batches, b)
	if l.next.bytes += b.body.Len(); l.next.bytes >= replayPartBytes || len(l.next.batches) == replayPartBatches {
		l.send()
	}
	return nil
}

// send hands over the part that the reader fills.
func (l *replayLine) send() {
	if l.next == nil {
		return
	}
	l.waiting.Add(1)
	l.decode <- l.next
	l.ordered <- l.next
	l.next = nil
}

// drain waits until everything that was added is applied.
func (l *replayLine) drain() error {
	l.send()
	l.waiting.Wait()
	if l.failed.Load() {
		return l.err
	}
	return nil
}

// close drains the line and ends its goroutines.
func (l *replayLine) close() error {
	err := l.drain()
	close(l.decode)
	close(l.ordered)
	l.working.Wait()
	return err
}

// decodeParts is a decoder.
func (l *replayLine) decodeParts(decoders func() (decode func(*replayBatch), done func())) {
	defer l.working.Done()
	decode, done := decoders()
	defer done()
	for part := range l.decode {
		for i := range part.batches {
			b := &part.batches[i]
			if !l.failed.Load() {
				decode(b)
			}
			b.body.Release() // what was decoded has its own reference
		}
		close(part.decoded)
	}
}

// applyParts is the applier.
func (l *replayLine) applyParts() {
	defer l.working.Done()
	for part := range l.ordered {
		<-part.decoded
		for i := range part.batches {
			l.applyBatch(&part.batches[i])
		}
		l.waiting.Done()
	}
}

// applyBatch applies a batch unless one before it failed.
func (l *replayLine) applyBatch(b *replayBatch) {
	err := b.err
	switch {
	case l.failed.Load():
		if b.put != nil {
			b.put.letGo()
		}
		return
	case err == nil:
		err = l.apply(b)
	}
	if err != nil {
		l.err = err
		l.failed.Store(true)
	}
}
