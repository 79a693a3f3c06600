package memindex

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// chunkBytes is the size of a piece of the key arena. A key longer than it gets a piece of its own.
const chunkBytes = 1 << 20

// byteSlot is one place of the table. row is the row's number plus one; 0 marks a free slot.
type byteSlot struct {
	hash  uint64
	chunk uint32 // index into chunks
	off   uint32 // of the key's length in that chunk
	row   uint32
}

// byteSlotBytes is the memory of a byteSlot, padding included.
const byteSlotBytes = 24

// Bytes maps byte keys to the newest row that has them. It keeps a copy of each key, so the caller's memory may
// go. The zero value is an empty index.
type Bytes struct {
	slots  []byteSlot
	shift  uint
	used   int
	seed   maphash.Seed
	chunks [][]byte // keys, each behind its length as a uvarint; never moved once written
	arena  int64
}

// Len returns the number of different keys.
func (x *Bytes) Len() int { return x.used }

// MemoryBytes returns the memory that the index occupies, keys included.
func (x *Bytes) MemoryBytes() int64 { return int64(len(x.slots))*byteSlotBytes + x.arena }

// Add puts n keys in, the first of them at row first and the others behind it; key(i) returns the i-th and need
// not keep it. It appends to replaced the rows that were the newest of their key until now and returns it.
func (x *Bytes) Add(n int, key func(i int) []byte, first uint32, replaced []uint32) []uint32 {
	x.reserve(n)
	mask := uint(len(x.slots) - 1)
	for i := range n {
		k := key(i)
		h := maphash.Bytes(x.seed, k)
		row := first + uint32(i) + 1
		for p := uint(h) >> x.shift; ; p = (p + 1) & mask {
			s := &x.slots[p]
			if s.row == 0 {
				chunk, off := x.store(k)
				*s = byteSlot{h, chunk, off, row}
				x.used++
				break
			}
			if s.hash == h && bytes.Equal(x.key(s), k) {
				replaced = append(replaced, s.row-1)
				s.row = row
				break
			}
		}
	}
	return replaced
}

// Row returns the newest row of a key.
func (x *Bytes) Row(key []byte) (row uint32, ok bool) {
	if x.used == 0 {
		return 0, false
	}
	h := maphash.Bytes(x.seed, key)
	mask := uint(len(x.slots) - 1)
	for p := uint(h) >> x.shift; ; p = (p + 1) & mask {
		s := &x.slots[p]
		if s.row == 0 {
			return 0, false
		}
		if s.hash == h && bytes.Equal(x.key(s), key) {
			return s.row - 1, true
		}
	}
}

// Each calls fn for every key with its newest row, in no order. The key stays valid as long as the index.
func (x *Bytes) Each(fn func(key []byte, row uint32)) {
	for i := range x.slots {
		if s := &x.slots[i]; s.row != 0 {
			fn(x.key(s), s.row-1)
		}
	}
}

// key returns the key of a slot that is taken.
func (x *Bytes) key(s *byteSlot) []byte {
	b := x.chunks[s.chunk][s.off:]
	n, w := binary.Uvarint(b)
	return b[w : w+int(n)]
}

// store copies a key into the arena.
func (x *Bytes) store(k []byte) (chunk, off uint32) {
	need := len(k) + binary.MaxVarintLen64
	last := len(x.chunks) - 1
	if last < 0 || cap(x.chunks[last])-len(x.chunks[last]) < need {
		size := max(chunkBytes, need)
		if last < 0 {
			size = max(chunkBytes/16, need) // a small memtable should not pay for a large arena
		}
		x.chunks = append(x.chunks, make([]byte, 0, size))
		x.arena += int64(size)
		last++
	}
	c := x.chunks[last]
	off = uint32(len(c))
	c = binary.AppendUvarint(c, uint64(len(k)))
	x.chunks[last] = append(c, k...)
	return uint32(last), off
}

// Growth returns how many bytes more the table will occupy once n more keys are in, if all are new. The copies of
// the keys come on top.
func (x *Bytes) Growth(n int) int64 {
	return int64(slotsFor(x.used+n, len(x.slots))-len(x.slots)) * byteSlotBytes
}

// reserve makes room for n more keys.
func (x *Bytes) reserve(n int) {
	size := slotsFor(x.used+n, len(x.slots))
	if size == len(x.slots) {
		return
	}
	if len(x.slots) == 0 {
		x.seed = maphash.MakeSeed()
	}
	old := x.slots
	x.slots, x.shift = make([]byteSlot, size), shiftFor(size)
	mask := uint(size - 1)
	for _, s := range old {
		if s.row == 0 {
			continue
		}
		p := uint(s.hash) >> x.shift
		for x.slots[p].row != 0 {
			p = (p + 1) & mask
		}
		x.slots[p] = s
	}
}
