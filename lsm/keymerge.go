package lsm

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/internal/radix"
)

// keySource is a sorted stream of keys with the numbers of their rows.
type keySource struct {
	next  func() (keyBatch, error, bool)
	stop  func()
	codec *keyCodec
	rank  int // among the sources of a merge, to make the order total

	// batch is what the BTREE gave, of which taken entries have been at hand.
	batch  keyBatch
	taken  int
	window arrow.Array // the part at hand
	// keys and ids are the entries at hand, at most windowKeys; at is the first that is still to come.
	keys keyColumn
	ids  []uint64
	at   int
	// nulls is how many of the first entries at hand are null, in an index over a column that may have some.
	nulls int
	err   error
}

// windowKeys is how many keys of a source are decoded at a time: a merge holds that many of each, while a BTREE hands
// out a million of them in one batch.
const windowKeys = 4096

// keyBatch is some consecutive entries of a BTREE.
type keyBatch struct {
	values arrow.Array
	ids    []uint64
}

// newKeySource returns a source over a BTREE. The caller closes it.
func newKeySource(ctx context.Context, codec *keyCodec, x *btree.Index) *keySource {
	return newSource(codec, func(yield func(keyBatch, error) bool) {
		err := x.Scan(ctx, func(values arrow.Array, ids []uint64) error {
			if !yield(keyBatch{values, ids}, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(keyBatch{}, err)
		}
	})
}

// fill makes sure that an entry is at hand, and reports whether there is one.
func (s *keySource) fill() bool {
	if s.at < len(s.ids) {
		return true
	}
	for s.taken == len(s.batch.ids) {
		b, err, ok := s.next()
		if !ok || err != nil {
			s.err = err
			return false
		}
		s.batch, s.taken = b, 0
	}
	end := min(s.taken+windowKeys, len(s.batch.ids))
	s.release()
	s.window = array.NewSlice(s.batch.values, int64(s.taken), int64(end))
	s.nulls = s.window.NullN()
	s.keys = s.codec.normaliseArray(s.window, s.keys.ints[:0])
	s.ids, s.at, s.taken = s.batch.ids[s.taken:end], 0, end
	return true
}

// release lets go of the part at hand.
func (s *keySource) release() {
	if s.window != nil {
		s.window.Release()
		s.window = nil
	}
}

// close ends the use of the source.
func (s *keySource) close() {
	s.release()
	s.stop()
}

// before reports whether entry i of a source comes before the next entry of another.
func (s *keySource) before(i int, o *keySource) bool {
	if null, other := i < s.nulls, o.at < o.nulls; null || other {
		return null && !other || null == other && s.rank < o.rank
	}
	c := s.keys.compare(i, o.keys, o.at)
	return c < 0 || c == 0 && s.rank < o.rank
}

// keyHeap has the source with the least key first.
type keyHeap []*keySource

// Len implements heap.Interface.
func (h keyHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h keyHeap) Less(i, j int) bool { return h[i].before(h[i].at, h[j]) }

// Swap implements heap.Interface.
func (h keyHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *keyHeap) Push(x any) { *h = append(*h, x.(*keySource)) }

// Pop implements heap.Interface.
func (h *keyHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// mergeKeys calls fn for the entries of all sources in key order; among equal keys, the earlier source comes first.
// What fn gets is entries from to to-1 of the source, which no other source's come between, so that sources with
// ranges of their own cost next to nothing. It holds windowKeys of each in memory.
func mergeKeys(sources []*keySource, fn func(s *keySource, from, to int) error) error {
	var h keyHeap
	for i, s := range sources {
		s.rank = i
		if s.fill() {
			h = append(h, s)
		} else if s.err != nil {
			return s.err
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		if h[0].at >= h[0].nulls && !h[0].codec.wide { // nulls come first, so no source has any more
			return mergeInts(h, fn)
		}
		s, from := h[0], h[0].at
		to := h.run()
		if err := fn(s, from, to); err != nil {
			return err
		}
		s.at = to
		if s.fill() {
			heap.Fix(&h, 0)
		} else if heap.Pop(&h); s.err != nil {
			return s.err
		}
	}
	return nil
}

// mergeInts is mergeKeys for keys of 64 bits of which none is null. Of what is at hand it takes all that lies at or below the
// least of the sources' last keys, sorts that by digits, and fills up: where the keys of many sources take turns, that is a
// tenth of what it costs to find the least of all sources for each key.
func mergeInts(sources []*keySource, fn func(s *keySource, from, to int) error) error {
	var m intMerge
	for len(sources) > 0 {
		m.gather(sources)
		if err := m.emit(fn); err != nil {
			return err
		}
		left := sources[:0:0]
		for _, s := range sources {
			if s.fill() {
				left = append(left, s)
			} else if s.err != nil {
				return s.err
			}
		}
		sources = left
	}
	return nil
}

// intMerge is the keys that mergeInts puts in order together.
type intMerge struct {
	sorter radix.Sorter
	keys   []int64
	// order has the places that the keys had before they were sorted, and owners whose they are, by these places.
	order  []uint32
	owners []int32
	parts  []mergePart
}

// mergePart is the keys of a source that are sorted together with those of others: first is its place among all, at the
// place among those at hand.
type mergePart struct {
	source    *keySource
	first, at int
}

// gather takes keys of sources that all have some at hand.
func (m *intMerge) gather(sources []*keySource) {
	// Among equal keys the earlier source comes first: sorting keeps the order.
	slices.SortFunc(sources, func(a, b *keySource) int { return a.rank - b.rank })
	most := sources[0].keys.ints[len(sources[0].ids)-1]
	for _, s := range sources[1:] {
		most = min(most, s.keys.ints[len(s.ids)-1])
	}
	m.keys, m.order, m.owners, m.parts = m.keys[:0], m.order[:0], m.owners[:0], m.parts[:0]
	for i, s := range sources {
		n, _ := slices.BinarySearchFunc(s.keys.ints[s.at:len(s.ids)], most, func(k, most int64) int {
			if k <= most {
				return -1
			}
			return 1
		})
		m.parts = append(m.parts, mergePart{source: s, first: len(m.keys), at: s.at})
		m.keys = append(m.keys, s.keys.ints[s.at:s.at+n]...)
		for range n {
			m.order, m.owners = append(m.order, uint32(len(m.order))), append(m.owners, int32(i))
		}
		s.at += n
	}
	m.sorter.Sort(m.keys, m.order)
}

// emit calls fn for the keys, for as many together as follow each other in their source.
func (m *intMerge) emit(fn func(s *keySource, from, to int) error) error {
	for i := 0; i < len(m.order); {
		place := m.order[i]
		owner := m.owners[place]
		end := i + 1
		for end < len(m.order) && m.order[end] == place+uint32(end-i) && m.owners[m.order[end]] == owner {
			end++
		}
		p := &m.parts[owner]
		from := p.at + int(place) - p.first
		if err := fn(p.source, from, from+end-i); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// run returns the end of the first source's entries that come before those of all others.
func (h keyHeap) run() int {
	s := h[0]
	end := len(s.ids)
	for _, child := range h[1:min(3, len(h))] { // the second least is one of these
		end = s.gallop(end, child)
	}
	return end
}

// gallop returns the end of the entries, at most end, that come before the next one of another source: in as many
// steps as the logarithm of the distance, so that sources whose keys alternate pay for one comparison.
func (s *keySource) gallop(end int, o *keySource) int {
	low, step := s.at, 1 // the entry at low is known to come before
	for low+step < end && s.before(low+step, o) {
		low += step
		step *= 2
	}
	high := min(low+step, end)
	for low+1 < high {
		if mid := (low + high) / 2; s.before(mid, o) {
			low = mid
		} else {
			high = mid
		}
	}
	return low + 1
}

// keyBuffer collects keys in order, up to a number, and hands them on as a run.
type keyBuffer struct {
	codec *keyCodec
	ints  []int64
	wide  [][]byte
	bytes []byte // what wide points into
}

// add copies a key.
func (b *keyBuffer) add(keys keyColumn, i int) {
	if keys.wide == nil {
		b.ints = append(b.ints, keys.ints[i])
		return
	}
	at := len(b.bytes)
	b.bytes = append(b.bytes, keys.wide(i)...)
	b.wide = append(b.wide, b.bytes[at:len(b.bytes):len(b.bytes)])
}

// run returns the keys, which stay valid until clear is called.
func (b *keyBuffer) run() *keyRun { return &keyRun{codec: b.codec, ints: b.ints, wide: b.wide} }

// len returns the number of keys.
func (b *keyBuffer) len() int { return len(b.ints) + len(b.wide) }

// clear forgets the keys.
func (b *keyBuffer) clear() { b.ints, b.wide, b.bytes = b.ints[:0], b.wide[:0], b.bytes[:0] }

// compare orders the i-th key of a column and the j-th of another.
func (k keyColumn) compare(i int, o keyColumn, j int) int {
	if k.wide != nil {
		return bytes.Compare(k.wide(i), o.wide(j))
	}
	a, b := k.ints[i], o.ints[j]
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
