package memindex

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// chunkBytes is the size of a piece of the key arena. A key longer than it gets a piece of its own.
const chunkBytes = 1 << 20

// Bytes maps byte keys to the newest row that has them, and keeps the key of every row: a copy of each different key, so the
// caller's memory may go. The zero value is an empty index.
type Bytes struct {
	// refs has for each row where its key lies.
	refs  pieces[byteRef]
	rows  uint32
	slots slots
	seed  maphash.Seed
	// chunks are keys, each behind its length as a uvarint, in pieces that are never moved once written.
	chunks [][]byte
	arena  int64
}

// byteRef is where a key lies: the number of the piece << 32 | the place of its length in it.
type byteRef uint64

// Len returns the number of different keys.
func (x *Bytes) Len() int { return x.slots.used }

// MemoryBytes returns the memory that the index occupies, keys included.
func (x *Bytes) MemoryBytes() int64 {
	return x.refs.bytes() + x.slots.bytes() + x.arena
}

// Add puts n keys in, the first of them at row first, which is the number of keys that came before, and the others behind
// it; key(i) returns the i-th and need not keep it. It appends to replaced the rows that were the newest of their key until
// now and returns it.
func (x *Bytes) Add(n int, key func(i int) []byte, first uint32, replaced []uint32) []uint32 {
	if x.seed == (maphash.Seed{}) {
		x.seed = maphash.MakeSeed()
	}
	x.slots.reserve(n)
	for i := range n {
		replaced = x.put(key(i), first+uint32(i), replaced)
	}
	return replaced
}

// put puts one key in. REQUIRES: there is room for it.
func (x *Bytes) put(k []byte, row uint32, replaced []uint32) []uint32 {
	h := x.hash(k)
	for p := x.slots.place(h); ; p = x.slots.after(p) {
		s := x.slots.list[p]
		if s == 0 {
			x.slots.fill(p, h, row)
			x.refer(x.store(k))
			return replaced
		}
		if old := s.row(); s.mark() == h && bytes.Equal(x.Key(old), k) {
			x.slots.list[p] = newSlot(h, row)
			x.refer(x.ref(old))
			return append(replaced, old)
		}
	}
}

// hash spreads a key over 32 bits.
func (x *Bytes) hash(k []byte) uint32 { return uint32(maphash.Bytes(x.seed, k) >> 32) }

// refer keeps where the key of the next row lies.
func (x *Bytes) refer(r byteRef) {
	x.refs.tail(x.rows)[0] = r
	x.rows++
}

// ref returns where the key of a row lies.
func (x *Bytes) ref(row uint32) byteRef { return x.refs.at(row) }

// Key returns the key of a row. It stays valid as long as the index.
func (x *Bytes) Key(row uint32) []byte {
	r := x.ref(row)
	b := x.chunks[r>>32][uint32(r):]
	n, w := binary.Uvarint(b)
	return b[w : w+int(n)]
}

// Row returns the newest row of a key.
func (x *Bytes) Row(key []byte) (row uint32, ok bool) {
	if x.slots.used == 0 {
		return 0, false
	}
	h := x.hash(key)
	for p := x.slots.place(h); ; p = x.slots.after(p) {
		s := x.slots.list[p]
		if s == 0 {
			return 0, false
		}
		if s.mark() == h && bytes.Equal(x.Key(s.row()), key) {
			return s.row(), true
		}
	}
}

// Each calls fn for every key with its newest row, in no order. The key stays valid as long as the index.
func (x *Bytes) Each(fn func(key []byte, row uint32)) {
	for _, s := range x.slots.list {
		if s != 0 {
			fn(x.Key(s.row()), s.row())
		}
	}
}

// store copies a key into the arena.
func (x *Bytes) store(k []byte) byteRef {
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
	off := uint32(len(c))
	c = binary.AppendUvarint(c, uint64(len(k)))
	x.chunks[last] = append(c, k...)
	return byteRef(last)<<32 | byteRef(off)
}

// Growth returns how many bytes more the table will occupy once n more keys are in, if all are new. The copies of
// the keys come on top.
func (x *Bytes) Growth(n int) int64 {
	return x.refs.growth(int(x.rows)+n) + x.slots.growth(n)
}

// Expect tells an empty index what one before it, of the same table, came to hold: it grows to that in few steps.
func (x *Bytes) Expect(before *Bytes) { x.slots.expectAs(&before.slots) }

// Release gives the memory of the index back, that of the keys aside, which is the garbage collector's: who has one may
// keep it. The index is empty then.
func (x *Bytes) Release() {
	x.refs.release()
	x.slots.release()
	*x = Bytes{}
}
