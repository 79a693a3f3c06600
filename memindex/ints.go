package memindex

import "sort"

// Ints maps 64-bit keys to the newest row that has them, and keeps the key of every row. The zero value is an empty index.
//
// Rows whose keys rise, each above all that came before, are not hashed: their keys, in the order of the rows, are sorted
// already, and a search finds them. That is what a stream of new rows with rising keys costs: a copy of its keys.
type Ints struct {
	keys pieces[int64]
	rows uint32
	runs []intRun
	// top is the highest key so far.
	top   int64
	slots slots
	used  int
	// touched keeps reads that only fill the cache from being dropped.
	touched int64
}

// intRun is consecutive rows whose keys rise, and are above those of all rows before.
type intRun struct {
	first, n uint32
}

const intRunBytes = 8

// Len returns the number of different keys.
func (x *Ints) Len() int { return x.used }

// MemoryBytes returns the memory that the index occupies.
func (x *Ints) MemoryBytes() int64 {
	return x.keys.bytes() + int64(cap(x.runs))*intRunBytes + x.slots.bytes()
}

// Growth returns an upper bound of how many bytes more the index will occupy once n more keys are in.
func (x *Ints) Growth(n int) int64 {
	return x.keys.growth(int(x.rows)+n) + int64(max(1, len(x.runs)))*intRunBytes + x.slots.growth(n)
}

// Expect tells an empty index what one before it, of the same table, came to hold: it grows to that in few steps. While it
// has few keys it takes none of their memory.
func (x *Ints) Expect(before *Ints) { x.slots.expectAs(&before.slots) }

// Release gives the memory of the index back. It is empty then.
func (x *Ints) Release() {
	x.keys.release()
	x.slots.release()
	*x = Ints{}
}

// Add puts keys in, the first of them at row first, which is the number of keys that came before, and the others behind
// it. It appends to replaced the rows that were the newest of their key until now, in the order in which they were
// replaced, and returns it.
func (x *Ints) Add(keys []int64, first uint32, replaced []uint32) []uint32 {
	if len(keys) == 0 {
		return replaced
	}
	rises := (x.rows == 0 || keys[0] > x.top) && rising(keys)
	x.store(keys)
	if rises {
		x.top = keys[len(keys)-1]
		x.used += len(keys)
		if n := len(x.runs); n > 0 && x.runs[n-1].first+x.runs[n-1].n == first {
			x.runs[n-1].n += uint32(len(keys))
		} else {
			x.runs = append(x.runs, intRun{first, uint32(len(keys))})
		}
		return replaced
	}
	for _, k := range keys {
		x.top = max(x.top, k)
	}
	x.slots.reserve(len(keys))
	for len(keys) > touchKeys {
		replaced = x.hash(keys[:touchKeys], first, replaced)
		keys, first = keys[touchKeys:], first+touchKeys
	}
	return x.hash(keys, first, replaced)
}

// touchKeys is how many keys are looked up together: their cache misses overlap, where putting one key in after the other
// would wait for each.
const touchKeys = 64

// hash puts at most touchKeys keys into the table. REQUIRES: there is room for them.
func (x *Ints) hash(keys []int64, first uint32, replaced []uint32) []uint32 {
	var hashes [touchKeys]uint32
	var found [touchKeys]slot
	list, shift := x.slots.list, x.slots.shift
	for i, k := range keys {
		h := hashInt(k)
		hashes[i] = h
		found[i] = list[h>>shift]
	}
	seen := int64(0)
	for i := range keys {
		if s := found[i]; s != 0 && s.mark() == hashes[i] {
			seen |= x.Key(s.row())
		}
	}
	x.touched = seen
	for i, k := range keys {
		replaced = x.put(k, hashes[i], first+uint32(i), replaced)
	}
	return replaced
}

// rising reports whether each key is above the one before.
func rising(keys []int64) bool {
	for i := 1; i < len(keys); i++ {
		if keys[i] <= keys[i-1] {
			return false
		}
	}
	return true
}

// store keeps the keys of the next rows.
func (x *Ints) store(keys []int64) {
	if x.rows == 0 {
		x.top = keys[0]
	}
	for len(keys) > 0 {
		n := copy(x.keys.tail(x.rows), keys)
		keys = keys[n:]
		x.rows += uint32(n)
	}
}

// Key returns the key of a row.
func (x *Ints) Key(row uint32) int64 { return x.keys.at(row) }

// put puts one key with its hash into the table. REQUIRES: there is room for it.
func (x *Ints) put(k int64, h, row uint32, replaced []uint32) []uint32 {
	list := x.slots.list
	mask := uint(len(list) - 1)
	for p := uint(h >> x.slots.shift); ; p = (p + 1) & mask {
		s := list[p]
		if s == 0 {
			list[p] = newSlot(h, row)
			x.slots.used++
			break
		}
		if old := s.row(); s.mark() == h && x.Key(old) == k {
			list[p] = newSlot(h, row)
			return append(replaced, old)
		}
	}
	if len(x.runs) > 0 {
		if old, ok := x.inRuns(k); ok {
			return append(replaced, old)
		}
	}
	x.used++
	return replaced
}

// Row returns the newest row of a key.
func (x *Ints) Row(key int64) (row uint32, ok bool) {
	if x.slots.used > 0 {
		h := hashInt(key)
		for p := x.slots.place(h); ; p = x.slots.after(p) {
			s := x.slots.list[p]
			if s == 0 {
				break
			}
			if s.mark() == h && x.Key(s.row()) == key {
				return s.row(), true
			}
		}
	}
	return x.inRuns(key)
}

// inRuns returns the row of a key among those that are not hashed.
func (x *Ints) inRuns(key int64) (row uint32, ok bool) {
	i := sort.Search(len(x.runs), func(i int) bool { return x.Key(x.runs[i].first) > key }) - 1
	if i < 0 {
		return 0, false
	}
	r := x.runs[i]
	n := sort.Search(int(r.n), func(j int) bool { return x.Key(r.first+uint32(j)) > key }) - 1
	row = r.first + uint32(n)
	return row, x.Key(row) == key
}

// Each calls fn for every key with its newest row, in no order.
func (x *Ints) Each(fn func(key int64, row uint32)) {
	for _, r := range x.runs {
		for row := r.first; row < r.first+r.n; row++ {
			key := x.Key(row)
			if newest, _ := x.Row(key); newest == row {
				fn(key, row)
			}
		}
	}
	for _, s := range x.slots.list {
		if s != 0 {
			fn(x.Key(s.row()), s.row())
		}
	}
}

// hashInt spreads a key over 32 bits: the upper half of a multiplication by the golden ratio (Knuth, The Art of Computer
// Programming, volume 3, section 6.4), whose bits depend on all bits of the key.
func hashInt(k int64) uint32 { return uint32(uint64(k) * 0x9E3779B97F4A7C15 >> 32) }
