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

// acks knows which prefix of a stream may be acknowledged. The goroutine that stores batches adds marks, the one
// that sends acks takes the newest mark that became visible: a client that reads slowly gets fewer acks, never
// later ones, and the storing goroutine never waits for it.
type acks struct {
	// added has room for one signal: a mark came when there was none.
	added chan struct{}

	mu sync.Mutex
	// open are the marks that are not visible yet, in order.
	open []mark
	// last is the newest mark that was added, visible the newest that became visible.
	last, visible mark
}

// newAcks returns acks that begin at a mark which the client knows.
func newAcks(first mark) *acks {
	return &acks{added: make(chan struct{}, 1), last: first, visible: first}
}

// add notes that a batch is in the log.
func (a *acks) add(m mark) {
	a.mu.Lock()
	first := len(a.open) == 0
	a.open = append(a.open, m)
	a.last = m
	a.mu.Unlock()
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
