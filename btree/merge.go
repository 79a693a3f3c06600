package btree

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// mergeRows is how many entries a merge hands to its writer at a time.
const mergeRows = 4096

// Merge adds the entries of several indexes to w, in order. keep says what becomes of the id of an entry of a source,
// by its place in sources, and whether the entry stays. It holds some pages of each source in memory.
func Merge(ctx context.Context, w *Writer, sources []*Index, keep func(source int, id uint64) (uint64, bool)) error {
	m := merger{w: w, keep: keep}
	if t, ok := w.value.(arrow.FixedWidthDataType); ok && t.BitWidth()%8 == 0 {
		m.width = t.BitWidth() / 8
	}
	var open cursors
	defer func() {
		for _, c := range open {
			c.close()
		}
		m.clear()
	}()
	for i, x := range sources {
		if !arrow.TypeEqual(x.Type(), w.value) {
			return fmt.Errorf("merge index %s of %s into one of %s", x.dir, x.Type(), w.value)
		}
		open = append(open, newCursor(ctx, x, i))
	}
	if chunked := signed(w.value) && len(sources) <= math.MaxUint16; chunked && !slices.ContainsFunc(sources, (*Index).hasNulls) {
		return m.mergeChunks(ctx, open)
	}
	return m.mergeHeap(ctx, open)
}

// mergeHeap merges sources of any type.
func (m *merger) mergeHeap(ctx context.Context, open cursors) error {
	var h cursors
	for _, c := range open {
		more, err := c.fill()
		if err != nil {
			return err
		}
		if more {
			h = append(h, c)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		c := h[0]
		end := h.run()
		if err := m.add(ctx, c, end); err != nil {
			return err
		}
		c.at = end
		more, err := c.fill()
		switch {
		case err != nil:
			return err
		case more:
			heap.Fix(&h, 0)
		default:
			heap.Pop(&h)
		}
	}
	return m.flush(ctx)
}

// merger collects entries for a writer.
type merger struct {
	w    *Writer
	keep func(source int, id uint64) (uint64, bool)
	ids  []uint64
	// width is the size of a value in bytes, 0 when values have no one size: the values of those are in parts. Else raw has
	// them, of which the first nulls are null.
	width, nulls int
	raw          []byte
	parts        []arrow.Array
}

// add takes those entries of a cursor up to end that stay.
func (m *merger) add(ctx context.Context, c *cursor, end int) error {
	first := c.at // of the entries that are not in parts yet
	for i := c.at; i < end; i++ {
		id, ok := m.keep(c.rank, c.ids[i])
		if !ok {
			m.take(c, first, i)
			first = i + 1
			continue
		}
		if m.ids = append(m.ids, id); len(m.ids) == mergeRows {
			m.take(c, first, i+1)
			first = i + 1
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
	}
	m.take(c, first, end)
	return nil
}

// take takes the values of some entries.
func (m *merger) take(c *cursor, from, to int) {
	if from >= to {
		return
	}
	if m.width == 0 {
		m.parts = append(m.parts, array.NewSlice(c.values, int64(from), int64(to)))
		return
	}
	m.nulls += max(min(to, c.nulls)-from, 0) // they come before all others
	data := c.values.Data()
	first := data.Offset() + from
	if b := data.Buffers()[1]; b != nil {
		m.raw = append(m.raw, b.Bytes()[first*m.width:(first+to-from)*m.width]...)
	} else { // nothing but nulls
		m.raw = append(m.raw, make([]byte, (to-from)*m.width)...)
	}
}

// values returns what was collected as an array.
func (m *merger) values() (arrow.Array, error) {
	if m.width == 0 {
		return join(m.parts, m.w.value)
	}
	buffers := []*memory.Buffer{nil, memory.NewBufferBytes(m.raw)}
	if m.nulls > 0 {
		valid := make([]byte, (len(m.ids)+7)/8)
		for i := m.nulls; i < len(m.ids); i++ {
			valid[i/8] |= 1 << (i % 8)
		}
		buffers[0] = memory.NewBufferBytes(valid)
	}
	data := array.NewData(m.w.value, len(m.ids), buffers, nil, m.nulls, 0)
	defer data.Release()
	return array.MakeFromData(data), nil
}

// flush hands what was collected to the writer.
func (m *merger) flush(ctx context.Context) error {
	if len(m.ids) == 0 {
		return ctx.Err()
	}
	values, err := m.values()
	if err != nil {
		return err
	}
	defer values.Release()
	err = m.w.Add(ctx, values, m.ids)
	m.clear()
	return err
}

// clear forgets what was collected.
func (m *merger) clear() {
	for _, p := range m.parts {
		p.Release()
	}
	m.parts, m.ids, m.nulls = m.parts[:0], m.ids[:0], 0
	m.raw = make([]byte, 0, m.width*mergeRows) // the writer may keep the last one
}

// cursor walks over the entries of an index.
type cursor struct {
	rank int // among the sources
	next func() (piece, error, bool)
	stop func()
	// values, ids, order and nulls are of the piece at hand, which is retained; at is the first entry that is to come.
	piece
	at int
}

// errStopped ends a walk early.
var errStopped = errors.New("stopped")

// newCursor returns a cursor before the first entry of an index.
func newCursor(ctx context.Context, x *Index, rank int) *cursor {
	c := &cursor{rank: rank}
	c.next, c.stop = iter.Pull2(func(yield func(piece, error) bool) {
		err := scan(ctx, x.data, []int{0, 1}, 0, x.Rows(), func(rec arrow.RecordBatch) error {
			p, err := x.newPiece(rec)
			if err == nil && !yield(p, nil) {
				err = errStopped
			}
			return err
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(piece{}, fmt.Errorf("merge index %s: %w", x.dir, err))
		}
	})
	return c
}

// fill makes sure that an entry is at hand, and reports whether there is one. What was at hand before is let go.
func (c *cursor) fill() (bool, error) {
	for c.at == len(c.ids) {
		p, err, ok := c.next()
		if err != nil || !ok {
			return false, err
		}
		c.piece, c.at = p, 0
	}
	return true, nil
}

// close ends the use of the cursor.
func (c *cursor) close() { c.stop() }

// before reports whether entry i of a cursor comes before the next of another.
func (c *cursor) before(i int, o *cursor) bool {
	if null, other := i < c.nulls, o.at < o.nulls; null || other {
		return null && !other || null == other && c.rank < o.rank
	}
	n := c.order.compare(i, o.order, o.at)
	return n < 0 || n == 0 && c.rank < o.rank
}

// cursors is a heap with the cursor of the least entry first.
type cursors []*cursor

// Len implements heap.Interface.
func (h cursors) Len() int { return len(h) }

// Less implements heap.Interface.
func (h cursors) Less(i, j int) bool { return h[i].before(h[i].at, h[j]) }

// Swap implements heap.Interface.
func (h cursors) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *cursors) Push(x any) { *h = append(*h, x.(*cursor)) }

// Pop implements heap.Interface.
func (h *cursors) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}

// run returns the end of the entries of the first cursor that come before those of all others.
func (h cursors) run() int {
	c := h[0]
	end := len(c.ids)
	for _, o := range h[1:min(3, len(h))] { // the second least is one of these
		end = gallop(c.at+1, end, func(i int) bool { return c.before(i, o) })
	}
	return end
}
