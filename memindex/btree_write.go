package memindex

import (
	"bytes"
	"cmp"
	"container/heap"
)

// writeRows is how many rows go to a sink at a time.
const writeRows = 4096

// Write implements Index. It merges the runs, and takes but a few pages of memory for it, and the sorted tail.
func (x *BTree) Write(s Sink) error {
	n := x.now.Load()
	for at := 0; at < len(n.nulls); at += writeRows {
		if err := s.Nulls(n.nulls[at:min(at+writeRows, len(n.nulls))]); err != nil {
			return err
		}
	}
	h := &cursors{n: n}
	for _, list := range [][][]entry{n.long, n.short} {
		h.list = append(h.list, list...)
	}
	if len(n.tail) > 0 {
		tail, other := radixSort(append([]entry(nil), n.tail...), make([]entry, len(n.tail)))
		if n.batches != nil {
			n.sortTies(tail, other, 8)
		}
		h.list = append(h.list, tail)
	}
	heap.Init(h)
	w := sinkBuffer{n: n, sink: s}
	for len(h.list) > 0 {
		to := h.lead()
		for _, e := range h.list[0][:to] {
			if err := w.add(e); err != nil {
				return err
			}
		}
		if h.list[0] = h.list[0][to:]; len(h.list[0]) == 0 {
			heap.Pop(h)
		} else {
			heap.Fix(h, 0)
		}
	}
	return w.flush()
}

// sinkBuffer collects rows for a sink.
type sinkBuffer struct {
	n    *runs
	sink Sink
	ints []int64
	wide [][]byte
	rows []uint32
}

func (w *sinkBuffer) add(e entry) error {
	if w.n.batches == nil {
		w.ints = append(w.ints, e.key)
	} else {
		w.wide = append(w.wide, w.n.wide(e))
	}
	if w.rows = append(w.rows, e.row); len(w.rows) < writeRows {
		return nil
	}
	return w.flush()
}

func (w *sinkBuffer) flush() error {
	var err error
	switch {
	case len(w.rows) == 0:
	case w.n.batches == nil:
		err = w.sink.Ints(w.ints, w.rows)
	default:
		err = w.sink.Wide(w.wide, w.rows)
	}
	w.ints, w.wide, w.rows = w.ints[:0], w.wide[:0], w.rows[:0]
	return err
}

// cursors are what is left of runs, the one with the least entry first.
type cursors struct {
	n    *runs
	list [][]entry
}

// compare orders two entries: by value, then by row.
func (h *cursors) compare(a, b entry) int {
	o := compareInts(a.key, b.key)
	if o == 0 && h.n.batches != nil {
		o = bytes.Compare(h.n.wide(a), h.n.wide(b))
	}
	if o == 0 {
		o = cmp.Compare(a.row, b.row)
	}
	return o
}

// lead returns how many entries of the first run come before all of the others: runs whose values came in order cost
// next to nothing.
func (h *cursors) lead() int {
	run := h.list[0]
	end := len(run)
	for _, other := range h.list[1:min(3, len(h.list))] { // the second least is one of these
		end = gallop(1, end, func(i int) bool { return h.compare(run[i], other[0]) < 0 })
	}
	return end
}

// Len implements heap.Interface.
func (h *cursors) Len() int { return len(h.list) }

// Less implements heap.Interface.
func (h *cursors) Less(i, j int) bool { return h.compare(h.list[i][0], h.list[j][0]) < 0 }

// Swap implements heap.Interface.
func (h *cursors) Swap(i, j int) { h.list[i], h.list[j] = h.list[j], h.list[i] }

// Push implements heap.Interface.
func (h *cursors) Push(x any) { h.list = append(h.list, x.([]entry)) }

// Pop implements heap.Interface.
func (h *cursors) Pop() any {
	last := len(h.list) - 1
	x := h.list[last]
	h.list = h.list[:last]
	return x
}
