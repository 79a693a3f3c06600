package memindex

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
	slotBytes = 8
	// minSlots is the size of the first table: 4,096 slots are 32 KiB, one or two levels of cache.
	minSlots = 1 << 12
)

// slots is an open-addressing hash table with linear probing. The upper bits of a hash choose the slot, so that a table of
// twice the size has the same order, and growing reads and writes both from front to back. It knows no keys: its owner
// compares them.
type slots struct {
	list  []slot
	shift uint // 32 - log2(len(list))
	used  int
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
func (t *slots) bytes() int64 { return int64(len(t.list)) * slotBytes }

// growth returns how many bytes more the table will occupy once n more keys are in.
func (t *slots) growth(n int) int64 {
	return int64(slotsFor(t.used+n, len(t.list))-len(t.list)) * slotBytes
}

// slotsFor returns the size of a table for some keys, at least have. At most three of four slots are taken: eight of them
// share a cache line, and the searches of such a table end in their first or second.
func slotsFor(keys, have int) int {
	size := max(minSlots, have)
	for 3*size < 4*keys {
		size *= 2
	}
	return size
}

// reserve makes room for n more keys.
func (t *slots) reserve(n int) {
	size := slotsFor(t.used+n, len(t.list))
	if size == len(t.list) {
		return
	}
	old := t.list
	t.list, t.shift = make([]slot, size), shiftFor(size)
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
}

// shiftFor returns the shift that leaves log2(size) upper bits of 32.
func shiftFor(size int) uint {
	shift := uint(32)
	for ; size > 1; size >>= 1 {
		shift--
	}
	return shift
}
