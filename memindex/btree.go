package memindex

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
)

const (
	// tailRows is how many rows lie unsorted: a search looks at them one by one, in some microseconds.
	tailRows = 4096
	// minTail is the first size of that place: a small memtable should not pay for a large one.
	minTail = 256
	// runRows is how many rows come together in a run. Sorting as many fits into a core's second cache and takes about a
	// millisecond, for which the memtable's writer stands still.
	runRows = 16 * tailRows
)

// entry is a row with its value. Of wide values key is the first eight bytes, as a number in their order, and batch
// says where the rest is.
type entry struct {
	key   int64
	row   uint32
	batch uint32
}

// entryBytes is the memory of an entry.
const entryBytes = 16

// wideBatch is where the wide values of one batch are.
type wideBatch struct {
	first  uint32
	value  func(i int) []byte
	retain arrow.Array
}

// BTree is the rows of a memtable in the order of a column, as sorted runs: rows come to a tail, in which they lie as
// they came, a full tail becomes a short run, and sixteen of these become a long one. So a row is sorted twice,
// whatever comes after, and a search looks into each run once.
type BTree struct {
	values Values
	// now is what readers see, replaced after each batch.
	now atomic.Pointer[runs]
	// ints and spare belong to the writer.
	ints  []int64
	spare []entry
}

// runs is what a BTree holds. It does not change, but for what lies behind the ends of its lists.
type runs struct {
	long, short [][]entry
	tail        []entry
	nulls       []uint32
	batches     []wideBatch
	bytes       int64
}

var _ Index = (*BTree)(nil)

// NewBTree returns an empty index.
func NewBTree(v Values) *BTree {
	x := &BTree{values: v}
	x.now.Store(&runs{})
	return x
}

// MemoryBytes implements Index.
func (x *BTree) MemoryBytes() int64 { return x.now.Load().bytes }

// Growth implements Index.
func (x *BTree) Growth(rows int) int64 {
	n := x.now.Load()
	have := cap(n.tail) - len(n.tail)
	if rows <= have {
		return 0
	}
	// A tail of its own size, and the place in which runs are sorted, which is used again.
	return int64(max(rows, min(2*cap(n.tail), tailRows)))*entryBytes + int64(max(0, min(runRows, rows+runRows/2)-cap(x.spare)))*entryBytes
}

// Add implements Index.
func (x *BTree) Add(values arrow.Array, first uint32) {
	n := *x.now.Load()
	if x.values.Wide != nil {
		x.addWide(&n, values, first)
	} else {
		x.ints = x.values.Ints(x.ints[:0], values)
		whole := values.NullN() == 0
		for i, v := range x.ints {
			if !whole && values.IsNull(i) {
				n.nulls = append(n.nulls, first+uint32(i))
				continue
			}
			x.push(&n, entry{key: v, row: first + uint32(i)})
		}
	}
	n.bytes = n.memory() + int64(cap(x.spare)+cap(x.ints)/2)*entryBytes
	x.now.Store(&n)
}

func (x *BTree) addWide(n *runs, values arrow.Array, first uint32) {
	values.Retain()
	b := wideBatch{first: first, value: x.values.Wide(values), retain: values}
	n.batches = append(n.batches, b)
	at := uint32(len(n.batches) - 1)
	for i := range values.Len() {
		row := first + uint32(i)
		if values.IsNull(i) {
			n.nulls = append(n.nulls, row)
			continue
		}
		x.push(n, entry{key: prefix(b.value(i)), row: row, batch: at})
	}
}

// prefix returns the first eight bytes of a value as a number in their order; those that are not there count as zero.
func prefix(v []byte) int64 {
	if len(v) >= 8 {
		return int64(binary.BigEndian.Uint64(v) ^ 1<<63)
	}
	var b [8]byte
	copy(b[:], v)
	return int64(binary.BigEndian.Uint64(b[:]) ^ 1<<63)
}

// memory returns what the lists take.
func (n *runs) memory() int64 {
	const batchBytes = 64 // with its accessor
	bytes := int64(cap(n.tail))*entryBytes + int64(cap(n.nulls))*4 + int64(cap(n.batches))*batchBytes
	for _, list := range [][][]entry{n.long, n.short} {
		for _, r := range list {
			bytes += int64(cap(r)) * entryBytes
		}
	}
	return bytes
}

// push adds a row to the tail. What readers have of the tail ends before it.
func (x *BTree) push(n *runs, e entry) {
	if len(n.tail) == cap(n.tail) {
		x.makeRoom(n)
	}
	n.tail = append(n.tail, e)
}

// makeRoom enlarges the tail, or makes it a run when it is large enough.
func (x *BTree) makeRoom(n *runs) {
	if len(n.tail) < tailRows {
		next := make([]entry, len(n.tail), max(minTail, 2*len(n.tail)))
		copy(next, n.tail)
		n.tail = next
		return
	}
	n.short = append(slices.Clip(n.short), x.sorted(n, n.tail))
	n.tail = make([]entry, 0, tailRows)
	if len(n.short)*tailRows < runRows {
		return
	}
	n.long = append(slices.Clip(n.long), x.sorted(n, n.short...))
	n.short = nil
}

// sorted returns all entries of some lists in order, in memory of their own.
func (x *BTree) sorted(n *runs, lists ...[]entry) []entry {
	all := slices.Concat(lists...)
	if cap(x.spare) < len(all) {
		x.spare = make([]entry, len(all))
	}
	out, other := radixSort(all, x.spare[:len(all)])
	x.spare = other
	if n.batches != nil {
		n.sortTies(out, other, 8)
	}
	return out
}

// radixSort sorts entries by key, those of one key staying as they were. The result is in one of the two, which are of
// one length; it returns the other, too.
func radixSort(a, b []entry) (sorted, other []entry) {
	var counts [8][256]uint32
	for i := range a {
		k := uint64(a[i].key) ^ 1<<63
		for d := range counts {
			counts[d][byte(k>>(8*d))]++
		}
	}
	for d := range counts {
		c := &counts[d]
		if c[byte((uint64(a[0].key)^1<<63)>>(8*d))] == uint32(len(a)) {
			continue // all have the same byte here
		}
		at := uint32(0)
		for i, n := range c {
			c[i] = at
			at += n
		}
		for _, e := range a {
			i := byte((uint64(e.key) ^ 1<<63) >> (8 * d))
			b[c[i]] = e
			c[i]++
		}
		a, b = b, a
	}
	return a, b
}

// smallTie is up to how many entries are sorted by comparing their values.
const smallTie = 24

// sortTies puts entries whose values have the same bytes up to a place, of which their keys are the last eight, in the
// order of the rest: eight bytes at a time, as a value that many others begin like them would be compared to each of
// these. other is as long as list.
func (n *runs) sortTies(list, other []entry, place int) {
	for from := 0; from < len(list); {
		to := from + 1
		for to < len(list) && list[to].key == list[from].key {
			to++
		}
		switch {
		case to-from == 1:
		case to-from <= smallTie:
			slices.SortStableFunc(list[from:to], func(a, b entry) int { return bytes.Compare(n.wide(a), n.wide(b)) })
		default:
			n.sortTie(list[from:to], other[from:to], place)
		}
		from = to
	}
}

// sortTie is sortTies for entries that all have the same key.
func (n *runs) sortTie(list, other []entry, place int) {
	key, longer, even := list[0].key, false, true
	first := len(n.wide(list[0]))
	for i := range list {
		v := n.wide(list[i])
		list[i].key = prefix(v[min(place, len(v)):])
		longer = longer || len(v) > place
		even = even && len(v) == first
	}
	switch {
	case longer:
		if sorted, _ := radixSort(list, other); &sorted[0] != &list[0] {
			copy(list, sorted)
		}
		n.sortTies(list, other, place+8)
	case !even: // what is not there counted as zero, which others may end with
		slices.SortStableFunc(list, func(a, b entry) int { return cmp.Compare(len(n.wide(a)), len(n.wide(b))) })
	}
	for i := range list {
		list[i].key = key
	}
}

// wide returns the value of an entry.
func (n *runs) wide(e entry) []byte {
	b := &n.batches[e.batch]
	return b.value(int(e.row - b.first))
}

// Search implements Index.
func (x *BTree) Search(q *Query, below uint32, fn func(row uint32) bool) {
	n := x.now.Load()
	c := newCheck(q, n)
	for _, list := range [][][]entry{n.long, n.short} {
		for _, r := range list {
			if !c.run(r, below, fn) {
				return
			}
		}
	}
	for _, e := range n.tail {
		if e.row < below && c.has(e) && !fn(e.row) {
			return
		}
	}
}

// check is a query against some runs.
type check struct {
	*Query
	n *runs
	// points are the points as entries have them.
	points []int64
}

func newCheck(q *Query, n *runs) *check {
	c := &check{Query: q, n: n, points: q.Ints}
	for _, w := range q.Wide {
		c.points = append(c.points, prefix(w))
	}
	return c
}

// comparePoint orders an entry against a point.
func (c *check) comparePoint(e entry, i int) int {
	if o := compareInts(e.key, c.points[i]); o != 0 || c.Wide == nil {
		return o
	}
	return bytes.Compare(c.n.wide(e), c.Wide[i])
}

// belowRange and aboveRange tell on which side of a range an entry is, if on any.
func (c *check) belowRange(e entry, r *Range) bool {
	if c.n.batches == nil {
		return e.key < r.LowInt
	}
	if r.Low == nil {
		return false
	}
	o := bytes.Compare(c.n.wide(e), r.Low)
	return o < 0 || o == 0 && r.LowOpen
}

func (c *check) aboveRange(e entry, r *Range) bool {
	if c.n.batches == nil {
		return e.key > r.HighInt
	}
	if r.High == nil {
		return false
	}
	o := bytes.Compare(c.n.wide(e), r.High)
	return o > 0 || o == 0 && r.HighOpen
}

// has reports whether an entry is wanted.
func (c *check) has(e entry) bool {
	i := sort.Search(len(c.points), func(i int) bool { return c.comparePoint(e, i) <= 0 })
	if i < len(c.points) && c.comparePoint(e, i) == 0 {
		return true
	}
	for i := range c.Ranges {
		if r := &c.Ranges[i]; !c.belowRange(e, r) && !c.aboveRange(e, r) {
			return true
		}
	}
	return false
}

// run calls fn for what is wanted of a sorted run, and reports whether fn wants more.
func (c *check) run(run []entry, below uint32, fn func(row uint32) bool) bool {
	at := 0
	for i := range c.points {
		at = gallop(at, len(run), func(j int) bool { return c.comparePoint(run[j], i) < 0 })
		for j := at; j < len(run) && c.comparePoint(run[j], i) == 0; j++ {
			if run[j].row < below && !fn(run[j].row) {
				return false
			}
		}
	}
	for i := range c.Ranges {
		r := &c.Ranges[i]
		for j := sort.Search(len(run), func(j int) bool { return !c.belowRange(run[j], r) }); j < len(run) && !c.aboveRange(run[j], r); j++ {
			if run[j].row < below && !fn(run[j].row) {
				return false
			}
		}
	}
	return true
}

// gallop returns the first i in [from, n) for which less is false, or n, in steps that follow the distance.
func gallop(from, n int, less func(i int) bool) int {
	step := 1
	for from+step <= n && less(from+step-1) {
		from += step
		step *= 2
	}
	return from + sort.Search(min(step-1, n-from), func(i int) bool { return !less(from + i) })
}

func compareInts(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Release implements Index.
func (x *BTree) Release() {
	for _, b := range x.now.Load().batches {
		b.retain.Release()
	}
}
