package memindex

// MaxRows bounds the rows of a memtable, so that a row number and "no row" fit 32 bits.
const MaxRows = 1<<32 - 2

// minSlots is the size of the first table: 4,096 slots are 64 KiB, one or two levels of cache.
const minSlots = 1 << 12

// intSlot is one place of the table. row is the row's number plus one; 0 marks a free slot.
type intSlot struct {
	key int64
	row uint32
}

// intSlotBytes is the memory of an intSlot, padding included.
const intSlotBytes = 16

// Ints maps 64-bit keys to the newest row that has them. The zero value is an empty index.
type Ints struct {
	slots []intSlot
	shift uint // 64 - log2(len(slots)): the hash's upper bits choose the slot
	used  int
}

// Len returns the number of different keys.
func (x *Ints) Len() int { return x.used }

// MemoryBytes returns the memory that the index occupies.
func (x *Ints) MemoryBytes() int64 { return int64(len(x.slots)) * intSlotBytes }

// Add puts keys in, the first of them at row first and the others behind it. It appends to replaced the rows
// that were the newest of their key until now, in the order in which they were replaced, and returns it.
func (x *Ints) Add(keys []int64, first uint32, replaced []uint32) []uint32 {
	x.reserve(len(keys))
	mask := uint(len(x.slots) - 1)
	for i, k := range keys {
		row := first + uint32(i) + 1
		for p := hashInt(k) >> x.shift; ; p = (p + 1) & mask {
			s := &x.slots[p]
			if s.row == 0 {
				*s = intSlot{k, row}
				x.used++
				break
			}
			if s.key == k {
				replaced = append(replaced, s.row-1)
				s.row = row
				break
			}
		}
	}
	return replaced
}

// Row returns the newest row of a key.
func (x *Ints) Row(key int64) (row uint32, ok bool) {
	if x.used == 0 {
		return 0, false
	}
	mask := uint(len(x.slots) - 1)
	for p := hashInt(key) >> x.shift; ; p = (p + 1) & mask {
		s := x.slots[p]
		if s.row == 0 {
			return 0, false
		}
		if s.key == key {
			return s.row - 1, true
		}
	}
}

// Each calls fn for every key with its newest row, in no order.
func (x *Ints) Each(fn func(key int64, row uint32)) {
	for _, s := range x.slots {
		if s.row != 0 {
			fn(s.key, s.row-1)
		}
	}
}

// Growth returns how many bytes more the index will occupy once n more keys are in, if all are new.
func (x *Ints) Growth(n int) int64 {
	return int64(slotsFor(x.used+n, len(x.slots))-len(x.slots)) * intSlotBytes
}

// slotsFor returns the size of a table for some keys, at least have. The load stays at or below one half: beyond it
// the probe chains of a linear table grow fast, and with it half of the lookups end in their first cache line.
func slotsFor(keys, have int) int {
	size := max(minSlots, have)
	for size < 2*keys {
		size *= 2
	}
	return size
}

// reserve makes room for n more keys.
func (x *Ints) reserve(n int) {
	size := slotsFor(x.used+n, len(x.slots))
	if size == len(x.slots) {
		return
	}
	old := x.slots
	x.slots, x.shift = make([]intSlot, size), shiftFor(size)
	mask := uint(size - 1)
	for _, s := range old {
		if s.row == 0 {
			continue
		}
		p := hashInt(s.key) >> x.shift
		for x.slots[p].row != 0 {
			p = (p + 1) & mask
		}
		x.slots[p] = s
	}
}

// hashInt spreads a key over 64 bits: a multiplication by the golden ratio (Knuth, The Art of Computer
// Programming, volume 3, section 6.4) whose upper bits depend on all bits of the key.
func hashInt(k int64) uint { return uint(uint64(k) * 0x9E3779B97F4A7C15) }

// shiftFor returns the shift that leaves log2(size) upper bits.
func shiftFor(size int) uint {
	shift := uint(64)
	for ; size > 1; size >>= 1 {
		shift--
	}
	return shift
}
