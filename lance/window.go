package lance

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/memory"
)

const (
	// windowBytes is how much of a buffer is read at once, unless one piece is larger: enough to pay for a round trip to
	// a bucket, and little beside what a scan may take.
	windowBytes = 4 << 20
	// gapBytes is how much between two pieces is read with them: in the time of a round trip a bucket delivers more.
	gapBytes = 64 << 10
)

// piece is a run of bytes of a buffer.
type piece struct{ from, to int64 }

// window reads pieces of a buffer of a page, ascending ones best. Of a page that is at hand as a whole, as in a mapped
// file, pieces are slices; else they are read from the file, with those that come soon.
type window struct {
	v      *pageView
	buffer int
	// plan is what will be asked for, ascending; what is not in it can be asked for, too.
	plan []piece
	at   piece // of buffer, what b has
	b    *memory.Buffer
}

// bytes returns a piece, valid until the next call.
func (w *window) bytes(from, to int64) ([]byte, error) {
	if size := w.v.page.bufs[w.buffer].size; from < 0 || from > to || to > size {
		return nil, fmt.Errorf("bytes %d to %d of a buffer of %d", from, to, size)
	}
	if b := w.v.bufs[w.buffer]; b != nil {
		return b.Bytes()[from:to], nil
	}
	if w.b == nil || from < w.at.from || to > w.at.to {
		w.release()
		b, err := w.v.part(w.buffer, from, w.ahead(from, to))
		if err != nil {
			return nil, err
		}
		w.b, w.at = b, piece{from, from + int64(b.Len())}
	}
	return w.b.Bytes()[from-w.at.from : to-w.at.from], nil
}

// ahead returns up to where to read when a piece is asked for.
func (w *window) ahead(from, to int64) int64 {
	size := w.v.page.bufs[w.buffer].size
	for len(w.plan) > 0 && w.plan[0].to <= to {
		w.plan = w.plan[1:]
	}
	for _, p := range w.plan {
		if p.from-to > gapBytes || to-from >= windowBytes {
			break
		}
		to = max(to, min(p.to, from+windowBytes, size))
	}
	return to
}

func (w *window) release() {
	releaseBuffer(w.b)
	w.b = nil
}

// part returns a part of a buffer that is not at hand as a whole.
func (v *pageView) part(buffer int, from, to int64) (*memory.Buffer, error) {
	b, err := v.read(extent{v.page.bufs[buffer].off + from, to - from})
	if err != nil {
		return nil, &sourceError{err}
	}
	return b, nil
}

// whole returns a buffer as a whole, which is read if it is not at hand.
func (v *pageView) whole(buffer int) ([]byte, error) {
	if v.bufs[buffer] == nil {
		b, err := v.part(buffer, 0, v.page.bufs[buffer].size)
		if err != nil {
			return nil, err
		}
		v.bufs[buffer] = b
	}
	return v.bufs[buffer].Bytes(), nil
}

// shared returns a part of a buffer that arrays keep.
func (v *pageView) shared(buffer int, from, to int64) (*memory.Buffer, error) {
	if b := v.bufs[buffer]; b != nil {
		return memory.SliceBuffer(b, int(from), int(to-from)), nil
	}
	return v.part(buffer, from, to)
}

// sourceError is a failure to read, which says nothing of the bytes.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }
