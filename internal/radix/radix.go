package radix

import (
	"cmp"
	"slices"
)

const (
	digitBits = 8
	digits    = 64 / digitBits
	buckets   = 1 << digitBits

	// small is the number of keys below which comparing is faster than counting digits.
	small = 256
	// sign makes the order of signed keys that of their bits.
	sign = 1 << 63
)

// Sort sorts keys in ascending order and takes rows, which has as many elements, along. Equal keys keep their order. Keys
// that are in order already cost one look at each; others need scratch memory of the size of both.
func Sort(keys []int64, rows []uint32) {
	var s Sorter
	s.Sort(keys, rows)
}

// Sorter sorts again and again with the same scratch memory. The zero value is ready to use, by one goroutine.
type Sorter struct {
	keys []int64
	rows []uint32
}

// Sort is what the function of that name is.
func (s *Sorter) Sort(keys []int64, rows []uint32) {
	switch {
	case slices.IsSorted(keys):
	case len(keys) < small:
		sortSmall(keys, rows)
	default:
		s.sortDigits(keys, rows)
	}
}

// sortSmall sorts by comparison.
func sortSmall(keys []int64, rows []uint32) {
	type pair struct {
		key int64
		row uint32
	}
	pairs := make([]pair, len(keys))
	for i, k := range keys {
		pairs[i] = pair{k, rows[i]}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	for i, p := range pairs {
		keys[i], rows[i] = p.key, p.row
	}
}

// sortDigits sorts by the digits in which keys differ, the lowest first.
func (s *Sorter) sortDigits(keys []int64, rows []uint32) {
	var counts [digits][buckets]int
	for _, k := range keys {
		u := uint64(k) ^ sign
		for d := range digits {
			counts[d][byte(u>>(d*digitBits))]++
		}
	}
	fromKeys, fromRows := keys, rows
	if cap(s.keys) < len(keys) {
		s.keys, s.rows = make([]int64, len(keys)), make([]uint32, len(keys))
	}
	toKeys, toRows := s.keys[:len(keys)], s.rows[:len(keys)]
	for d := range digits {
		places := &counts[d]
		shift := d * digitBits
		if places[byte((uint64(fromKeys[0])^sign)>>shift)] == len(keys) {
			continue // they all have this digit
		}
		at := 0
		for b, n := range places {
			places[b] = at
			at += n
		}
		for i, k := range fromKeys {
			p := &places[byte((uint64(k)^sign)>>shift)]
			toKeys[*p], toRows[*p] = k, fromRows[i]
			*p++
		}
		fromKeys, fromRows, toKeys, toRows = toKeys, toRows, fromKeys, fromRows
	}
	if &fromKeys[0] != &keys[0] {
		copy(keys, fromKeys)
		copy(rows, fromRows)
	}
}
