package memindex

import "github.com/flightd/flightd/internal/offheap"

// MaxRows bounds the rows of a memtable, so that a row number and "no row" fit 32 bits.
const MaxRows = 1<<32 - 2

// slot is one place of a table: the hash of a key, and the number of the newest row that has it plus one. 0 marks a free
// slot.
type slot uint64

// newSlot returns the slot of a row.
func newSlot(hash, row uint32) slot { return slot(hash)<<32 | slot(row+1) }

// mark returns the hash.
func (s slot) mark() uint32 { return uint32(s >> 32) }

// row returns the row.
func (s slot) row() uint32 { return uint32(s) - 1 }

const (
	// wordBytes is the size of a slot, and of what is kept for each row.
	wordBytes = 8
	// minSlots is the size of the first table: 4,096 slots are 32 KiB, one or two levels of cache.
	minSlots = 1 << 12
	// expectShare is the part of the expected size from which on a table grows to that at once: moving a few keys costs
	// little, and a table that gets few should not take the memory of one with many.
	expectShare = 16
)

// slots is an open-addressing hash table with linear probing. The upper bits of a hash choose the slot, so that a table of
// twice the size has the same order, and growing reads and writes both from front to back. It knows no keys: its owner
// compares them. It lies outside the Go heap: the garbage collector would run each time that a table has grown.
type slots struct {
	list   []slot
	shift  uint // 32 - log2(len(list))
	used   int
	expect int // slots that the keys of the table before this one took
}

// place returns where the search for a hash begins, after where it goes on.
func (t *slots) place(hash uint32) int { return int(hash >> t.shift) }
func (t *slots) after(p int) int       { return (p + 1) & (len(t.list) - 1) }

// fill takes a free slot.
func (t *slots) fill(p int, hash, row uint32) {
	t.list[p] = newSlot(hash, row)
	t.used++
}

// bytes returns the memory of the table.
func (t *slots) bytes() int64 { return int64(len(t.list)) * wordBytes }

// growth returns how many bytes more the table will occupy once n more keys are in.
func (t *slots) growth(n int) int64 {
	return int64(t.size(n)-len(t.list)) * wordBytes
}

// size returns the number of slots once n more keys are in. At most three of four are taken: eight of them share a cache
// line, and the searches of such a table end in their first or second.
func (t *slots) size(n int) int {
	size := max(minSlots, len(t.list))
	for 3*size < 4*(t.used+n) {
		size *= 2
	}
	if size > len(t.list) && size >= t.expect/expectShare {
		return max(size, t.expect)
	}
	return size
}

// expectAs tells an empty table to expect as many keys as one before it had.
func (t *slots) expectAs(before *slots) { t.expect = (&slots{}).size(before.used) }

// reserve makes room for n more keys.
func (t *slots) reserve(n int) {
	size := t.size(n)
	if size == len(t.list) {
		return
	}
	old := t.list
	t.list, t.shift = offheap.Words[slot](offheap.Default, size, false), shiftFor(size)
	for _, s := range old {
		if s == 0 {
			continue
		}
		p := t.place(s.mark())
		for t.list[p] != 0 {
			p = t.after(p)
		}
		t.list[p] = s
	}
	offheap.FreeWords(offheap.Default, old)
}

// release gives the memory back.
func (t *slots) release() {
	offheap.FreeWords(offheap.Default, t.list)
	*t = slots{}
}

// shiftFor returns the shift that leaves log2(size) upper bits of 32.
func shiftFor(size int) uint {
	shift := uint(32)
	for ; size > 1; size >>= 1 {
		shift--
	}
	return shift
}
