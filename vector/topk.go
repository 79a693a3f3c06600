package vector

import (
	"cmp"
	"math"
	"slices"
)

// Neighbor is a row found by a search.
type Neighbor struct {
	ID       uint64
	Distance float32
}

// compare orders neighbours by distance, then by ID, so that which of equals are kept does not depend on the order in
// which they came.
func (n Neighbor) compare(o Neighbor) int {
	return cmp.Or(cmp.Compare(n.Distance, o.Distance), cmp.Compare(n.ID, o.ID))
}

// before is compare < 0 for distances that are numbers, which is all that a heap holds.
func (n Neighbor) before(o Neighbor) bool {
	return n.Distance < o.Distance || n.Distance == o.Distance && n.ID < o.ID
}

// TopK keeps the k nearest of the rows that are pushed, in a heap whose root is the farthest of them. The same rows give
// the same neighbours in whatever order and parts they come. A row with distance NaN is nobody's neighbour and is never
// kept, as in Lance.
//
// The heap grows as rows come, so that a large k costs nothing by itself. The zero value keeps nothing. It is not safe for
// concurrent use.
type TopK struct {
	k    int
	heap []Neighbor
}

// NewTopK returns a TopK for k rows; none are kept when k is not positive.
func NewTopK(k int) *TopK { return &TopK{k: k} }

// Reset forgets all rows and sets k; the memory is kept.
func (t *TopK) Reset(k int) { t.k, t.heap = k, t.heap[:0] }

// Len is how many rows are kept.
func (t *TopK) Len() int { return len(t.heap) }

// Limit is the distance beyond which no row is taken any more: +Inf until k rows are kept, then that of the farthest. A
// row at the limit is taken when its ID is the smaller.
func (t *TopK) Limit() float32 {
	switch {
	case t.k <= 0:
		return float32(math.Inf(-1))
	case len(t.heap) < t.k:
		return float32(math.Inf(1))
	}
	return t.heap[0].Distance
}

// Push offers one row.
func (t *TopK) Push(id uint64, distance float32) {
	n := Neighbor{id, distance}
	switch {
	case t.k <= 0 || math.IsNaN(float64(distance)):
	case len(t.heap) < t.k:
		t.heap = append(t.heap, n)
		t.up(len(t.heap) - 1)
	case n.before(t.heap[0]):
		t.heap[0] = n
		t.down(0)
	}
}

// PushAll offers the rows ids[i] with their distances; the slices have one length.
func (t *TopK) PushAll(ids []uint64, distances []float32) {
	ids = ids[:len(distances)]
	limit := t.Limit()
	for i, d := range distances {
		// Most rows fail this one comparison.
		if d <= limit {
			t.Push(ids[i], d)
			limit = t.Limit()
		}
	}
}

// PushRange offers the rows first, first+1, … with their distances.
func (t *TopK) PushRange(first uint64, distances []float32) {
	limit := t.Limit()
	for i, d := range distances {
		if d <= limit {
			t.Push(first+uint64(i), d)
			limit = t.Limit()
		}
	}
}

// Merge offers what another TopK keeps, which is left as it is.
func (t *TopK) Merge(o *TopK) {
	for _, n := range o.heap {
		t.Push(n.ID, n.Distance)
	}
}

// AppendSorted appends the rows that are kept to dst, the nearest first, and returns it. The TopK can be pushed to afterwards.
func (t *TopK) AppendSorted(dst []Neighbor) []Neighbor {
	at := len(dst)
	dst = append(dst, t.heap...)
	slices.SortFunc(dst[at:], Neighbor.compare)
	return dst
}

func (t *TopK) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !t.heap[parent].before(t.heap[i]) {
			return
		}
		t.heap[parent], t.heap[i] = t.heap[i], t.heap[parent]
		i = parent
	}
}

func (t *TopK) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && t.heap[child].before(t.heap[child+1]) {
			child++
		}
		if !t.heap[i].before(t.heap[child]) {
			return
		}
		t.heap[i], t.heap[child] = t.heap[child], t.heap[i]
		i = child
	}
}
