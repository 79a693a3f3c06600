package lsm

import (
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/memindex"
)

const (
	// orderStep is how many rows at least are put in order at a time: as many are looked at one by one in some microseconds.
	orderStep = 1 << 11
	// orderPrice is how many times rows are read before they are put in order, which costs about as much as reading them.
	orderPrice = 1
)

// keyOrder is a memtable's rows in the order of their keys, made when ranges of keys are read again and again.
type keyOrder struct {
	mu  sync.Mutex // held while rows are sorted, by a reader
	now *memindex.Order
	// read is how many rows were read that were not in order, since some were put in order last.
	read int64
	// eager is Options.eagerOrder.
	eager bool

	settle sync.Mutex // below mu; nothing waits for a sort here
	// fixed is set when the memory of the memtable must not change any more.
	fixed bool
}

// fix leaves the memory of the memtable as it is while fn notes it, and from then on.
func (x *keyOrder) fix(fn func()) {
	x.settle.Lock()
	defer x.settle.Unlock()
	x.fixed = true
	fn()
}

// isFixed reports whether fix was called.
func (x *keyOrder) isFixed() bool {
	x.settle.Lock()
	defer x.settle.Unlock()
	return x.fixed
}

// worth reports whether so many rows that are not in order should be put in order for a range. REQUIRES: mu is held.
func (x *keyOrder) worth(out int64) bool {
	if x.eager {
		return true
	}
	x.read += out
	return x.read > orderPrice*out
}

// step returns how many rows at least are put in order at a time.
func (x *keyOrder) step() uint32 {
	if x.eager {
		return 1
	}
	return orderStep
}

// rowsIn returns the rows of a prefix that are the newest in it of their keys, of those keys that are in a set, as far as the
// indexes have them. It returns false when reading all rows is the cheaper way.
func (m *memtable) rowsIn(rows *memRows, k *KeySet) (*roaring.Bitmap, bool) {
	known := uint32(rows.indexed().rowCount())
	ranges := k.asRanges()
	if known < m.order.step() || ranges == nil {
		return nil, false
	}
	o, keys, ok := m.inOrder(known)
	if !ok {
		return nil, false
	}
	left := int(known) / denseShare
	for _, r := range ranges {
		if left -= o.Count(&keys, r); left < 0 {
			return nil, false
		}
	}
	picked := roaring.New()
	var more, found []uint32
	for _, r := range ranges {
		more = more[:0]
		for row := o.Rows(); row < known; row++ {
			if keys.Within(row, r) {
				more = append(more, row)
			}
		}
		found = o.Newest(&keys, r, known, more, found[:0])
		picked.AddMany(found)
	}
	return picked, true
}

// inOrder returns all but a few of the first rows in order, and the keys of all that are in the index. It returns false as
// long as that is not worth its cost, or when there is no memory for it.
func (m *memtable) inOrder(known uint32) (*memindex.Order, memindex.RowKeys, bool) {
	m.mu.RLock()
	var keys memindex.RowKeys
	if m.codec.wide {
		keys = m.wides.RowKeys()
	} else {
		keys = m.ints.RowKeys()
	}
	m.mu.RUnlock()
	x := &m.order
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.now == nil {
		x.now = &memindex.Order{}
	}
	if x.now.Rows()+x.step() > known {
		return x.now, keys, true
	}
	out := int64(known - x.now.Rows())
	if !x.worth(out) {
		return x.now, keys, false
	}
	if x.isFixed() {
		return x.now, keys, false
	}
	most, before := x.now.ExtendBytes(known), x.now.MemoryBytes()
	if !m.budget.take(most) {
		return x.now, keys, false
	}
	next := x.now.Extend(&keys, known)
	grown := next.MemoryBytes() - before
	x.settle.Lock()
	defer x.settle.Unlock()
	if x.fixed {
		m.budget.release(most)
		return x.now, keys, false
	}
	x.now, x.read = next, 0
	m.bytes.Add(grown)
	m.budget.release(most - grown)
	return x.now, keys, true
}

// asRanges returns the set as ranges of the values that an index has, nil when it has too many. REQUIRES: the set is sealed.
func (k *KeySet) asRanges() []memindex.Range {
	if k.points.Len()+len(k.ranges) > maxKeyRanges {
		return nil
	}
	q := k.query()
	for _, p := range q.Ints {
		q.Ranges = append(q.Ranges, memindex.Range{LowInt: p, HighInt: p})
	}
	for _, p := range q.Wide {
		p = append([]byte{}, p...) // an empty key is an end, too, where nil is none
		q.Ranges = append(q.Ranges, memindex.Range{Low: p, High: p})
	}
	return q.Ranges
}
