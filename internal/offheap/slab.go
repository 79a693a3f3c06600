package offheap

import (
	"sync"
	"unsafe"
)

// headerBytes is the space in front of the first block of a slab. A test holds that slab fits.
const headerBytes = 64

// slab is the header of a run of blocks of one class. It lies at the start of the memory that it describes.
type slab struct {
	next, prev *slab          // in the list of slabs with room
	free       unsafe.Pointer // a block that came back, its first word points to the next
	fresh      int            // offset of the first block that was never given out
	used       int            // blocks that are out
}

// class holds the slabs of one block size.
type class struct {
	bytes int

	mu sync.Mutex
	// room lists the slabs that have a free block. Full slabs are in no list: Free finds them by address.
	room *slab
}

// take returns a block, and whether it was never used before and is therefore zero.
func (c *class) take() (block unsafe.Pointer, zero bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.room
	if s == nil {
		s = (*slab)(mapAligned(slabBytes, slabBytes))
		s.fresh = headerBytes
		c.linkLocked(s)
	}
	if s.free != nil {
		block = s.free
		s.free = *(*unsafe.Pointer)(block)
	} else {
		block = unsafe.Add(unsafe.Pointer(s), s.fresh)
		s.fresh += c.bytes
		zero = true
	}
	s.used++
	if s.free == nil && s.fresh+c.bytes > slabBytes {
		c.unlinkLocked(s)
	}
	return block, zero
}

// give takes a block back.
func (c *class) give(block unsafe.Pointer) {
	s := (*slab)(unsafe.Pointer(uintptr(block) &^ (slabBytes - 1)))
	if drop := c.giveLocked(s, block); drop {
		unmap(unsafe.Pointer(s), slabBytes)
	}
}

// giveLocked takes the lock itself, so that the caller can unmap after it. It reports whether s is empty and unlinked.
func (c *class) giveLocked(s *slab, block unsafe.Pointer) (drop bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.used == 0 {
		panic("offheap: a block was freed twice")
	}
	full := s.free == nil && s.fresh+c.bytes > slabBytes
	*(*unsafe.Pointer)(block) = s.free
	s.free = block
	s.used--
	if full {
		c.linkLocked(s)
	}
	// One empty slab stays, so that a single buffer that comes and goes does not map and unmap each time.
	if s.used > 0 || s.next == nil && s.prev == nil {
		return false
	}
	c.unlinkLocked(s)
	return true
}

func (c *class) linkLocked(s *slab) {
	s.prev, s.next = nil, c.room
	if c.room != nil {
		c.room.prev = s
	}
	c.room = s
}

func (c *class) unlinkLocked(s *slab) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		c.room = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}
