package memindex

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"github.com/flightd/flightd/internal/radix"
)

// Order is the first rows of a key index in the order of their keys: sorted runs of row numbers, each at least twice as long
// as the next. It does not change: Extend returns another one. The zero value has no rows.
type Order struct {
	rows uint32
	runs [][]uint32
}

// orderRowBytes is what a row takes in a run.
const orderRowBytes = 4

// Rows returns how many rows are in order.
func (o *Order) Rows() uint32 { return o.rows }

// MemoryBytes returns the memory that the runs occupy.
func (o *Order) MemoryBytes() int64 { return int64(o.rows) * orderRowBytes }

// ExtendBytes returns the memory that Extend to n rows needs for a while, what it returns included.
func (o *Order) ExtendBytes(n uint32) int64 {
	// The new rows with their keys are sorted in as much memory again (radix), or with their keys' places; then runs are
	// merged into new ones.
	return int64(n-o.rows)*32 + int64(n)*2*orderRowBytes
}

// RowKeys are the keys of the first rows of an index, as they were at one moment. They may be read while rows are added, for
// as long as the index is not released.
type RowKeys struct {
	n    uint32
	ints [][]int64
	wide *Bytes // its lists alone
}

// RowKeys returns the keys of the rows so far. REQUIRES: nobody writes meanwhile.
func (x *Ints) RowKeys() RowKeys { return RowKeys{n: x.rows, ints: x.keys.list} }

// RowKeys returns the keys of the rows so far. REQUIRES: nobody writes meanwhile.
func (x *Bytes) RowKeys() RowKeys {
	// The last piece grows in its place; its entry in the list is the writer's.
	return RowKeys{n: x.rows, wide: &Bytes{refs: pieces[byteRef]{list: x.refs.list}, chunks: slices.Clone(x.chunks)}}
}

// Len returns how many rows have their keys.
func (k *RowKeys) Len() uint32 { return k.n }

// int returns the key of a row of Ints.
func (k *RowKeys) int(row uint32) int64 { return k.ints[row>>chunkShift][row%chunkRows] }

// compare compares the keys of two rows, and the rows where these are equal.
func (k *RowKeys) compare(a, b uint32) int {
	if k.wide == nil {
		return cmp.Or(cmp.Compare(k.int(a), k.int(b)), cmp.Compare(a, b))
	}
	return cmp.Or(bytes.Compare(k.wide.Key(a), k.wide.Key(b)), cmp.Compare(a, b))
}

// Extend returns an order of the first n rows. REQUIRES: keys has these rows, and n is not below o.Rows().
func (o *Order) Extend(keys *RowKeys, n uint32) *Order {
	if n == o.rows {
		return o
	}
	next := &Order{rows: n, runs: append(slices.Clone(o.runs), keys.sorted(o.rows, n))}
	for last := len(next.runs) - 1; last > 0 && len(next.runs[last-1]) < 2*len(next.runs[last]); last-- {
		next.runs[last-1] = keys.merge(next.runs[last-1], next.runs[last])
		next.runs = next.runs[:last]
	}
	return next
}

// sorted returns the rows from one on to another in order.
func (k *RowKeys) sorted(from, to uint32) []uint32 {
	rows := make([]uint32, to-from)
	for i := range rows {
		rows[i] = from + uint32(i)
	}
	if k.wide != nil {
		slices.SortFunc(rows, k.compare)
		return rows
	}
	keys := make([]int64, len(rows))
	for i, row := range rows {
		keys[i] = k.int(row)
	}
	radix.Sort(keys, rows)
	return rows
}

// merge returns the rows of two runs as one.
func (k *RowKeys) merge(a, b []uint32) []uint32 {
	out := make([]uint32, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if k.compare(a[0], b[0]) < 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Count returns how many rows are in a range, those included that later ones replaced.
func (o *Order) Count(keys *RowKeys, r Range) int {
	n := 0
	for _, run := range o.runs {
		n += len(keys.within(run, r))
	}
	return n
}

// Newest appends the newest row below a number of each key in a range, and those rows from more that are in it and newer, in no
// order. More are rows beyond the order's, if any.
func (o *Order) Newest(keys *RowKeys, r Range, below uint32, more, out []uint32) []uint32 {
	at := len(out)
	for _, run := range o.runs {
		for _, row := range keys.within(run, r) {
			if row < below {
				out = append(out, row)
			}
		}
	}
	out = append(out, more...)
	found := out[at:]
	slices.SortFunc(found, keys.compare)
	kept := found[:0]
	for i, row := range found {
		if i+1 == len(found) || !keys.equal(row, found[i+1]) {
			kept = append(kept, row)
		}
	}
	return out[:at+len(kept)]
}

// equal reports whether two rows have one key.
func (k *RowKeys) equal(a, b uint32) bool {
	if k.wide == nil {
		return k.int(a) == k.int(b)
	}
	return bytes.Equal(k.wide.Key(a), k.wide.Key(b))
}

// Within reports whether the key of a row is in a range.
func (k *RowKeys) Within(row uint32, r Range) bool { return !k.before(row, r) && !k.behind(row, r) }

// within returns the part of a run that is in a range.
func (k *RowKeys) within(run []uint32, r Range) []uint32 {
	first := sort.Search(len(run), func(i int) bool { return !k.before(run[i], r) })
	run = run[first:]
	return run[:sort.Search(len(run), func(i int) bool { return k.behind(run[i], r) })]
}

// before and behind report on which side of a range the key of a row is.
func (k *RowKeys) before(row uint32, r Range) bool {
	if k.wide == nil {
		return k.int(row) < r.LowInt
	}
	if r.Low == nil {
		return false
	}
	c := bytes.Compare(k.wide.Key(row), r.Low)
	return c < 0 || c == 0 && r.LowOpen
}

func (k *RowKeys) behind(row uint32, r Range) bool {
	if k.wide == nil {
		return k.int(row) > r.HighInt
	}
	if r.High == nil {
		return false
	}
	c := bytes.Compare(k.wide.Key(row), r.High)
	return c > 0 || c == 0 && r.HighOpen
}
