package flight

import (
	"fmt"
	"sync"

	"github.com/flightd/flightd/lsm"
)

// mark is the end of a batch: what the stream had brought up to there, and where it is in the log.
type mark struct {
	Batches, Rows int64
	Seq           lsm.LSN
	// Complete says that nothing more follows under the stream's key, Repeated that all of this was there before the
	// stream came.
	Complete, Repeated bool
}

// encode returns the mark as the app_metadata of a PutResult.
func (m mark) encode() []byte {
	b := fmt.Appendf(nil, `{"batches":%d,"rows":%d,"seq":%d`, m.Batches, m.Rows, uint64(m.Seq))
	if m.Complete {
		b = append(b, `,"complete":true`...)
	}
	if m.Repeated {
		b = append(b, `,"repeated":true`...)
	}
	return append(b, '}')
}

// acks knows which prefix of a stream may be acknowledged. The goroutine that stores batches adds marks, or tells which to
// expect, the log's says that they are there, and the one that sends acks takes the newest mark that became visible: a client that reads slowly gets fewer acks, never
// later ones, and the storing goroutine never waits for it.
type acks struct {
	// added has room for one signal: a mark came when there was none.
	added chan struct{}

	mu sync.Mutex
	// coming are the marks of batches that are on their way to the log, in order, from begun on: those before are logged.
	coming []mark
	begun  int
	// open are the marks that are not visible yet, in order.
	open []mark
	// last is the newest mark that was added, visible the newest that became visible.
	last, visible mark
}

// newAcks returns acks that begin at a mark which the client knows.
func newAcks(first mark) *acks {
	return &acks{added: make(chan struct{}, 1), last: first, visible: first}
}

// expect notes that a batch is about to be sent to the log, with which the stream will have come to m.
func (a *acks) expect(m mark) {
	a.mu.Lock()
	a.coming = append(a.coming, m)
	a.mu.Unlock()
}

// unexpect takes back the last call of expect: the batch was not sent.
func (a *acks) unexpect() {
	a.mu.Lock()
	a.coming = a.coming[:len(a.coming)-1]
	a.mu.Unlock()
}

// logged notes that the next batch that was expected is in the log.
func (a *acks) logged(seq lsm.LSN) {
	a.mu.Lock()
	m := a.coming[a.begun]
	if a.begun++; 2*a.begun >= len(a.coming) { // each mark is moved once on average
		a.coming, a.begun = a.coming[:copy(a.coming, a.coming[a.begun:])], 0
	}
	m.Seq = seq
	first := a.openLocked(m)
	a.mu.Unlock()
	a.signal(first)
}

// add notes that a batch is in the log.
func (a *acks) add(m mark) {
	a.mu.Lock()
	first := a.openLocked(m)
	a.mu.Unlock()
	a.signal(first)
}

// openLocked adds a mark that is not visible yet and tells whether it is the only one. REQUIRES: a.mu is held.
func (a *acks) openLocked(m mark) (first bool) {
	first = len(a.open) == 0
	a.open = append(a.open, m)
	a.last = m
	return first
}

// signal tells the one who sends acks of the first mark.
func (a *acks) signal(first bool) {
	if first {
		select {
		case a.added <- struct{}{}:
		default:
		}
	}
}

// advance returns the newest mark up to a visible position, and whether marks beyond it are waiting.
func (a *acks) advance(visible lsm.LSN) (m mark, waiting bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n < len(a.open) && a.open[n].Seq <= visible {
		n++
	}
	if n > 0 {
		a.visible = a.open[n-1]
		a.open = a.open[:copy(a.open, a.open[n:])]
	}
	return a.visible, len(a.open) > 0
}

// newest returns the last mark that was added.
func (a *acks) newest() mark {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}
