package offheap

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/memory"
)

// cacheBytes bounds the large blocks that an Allocator keeps for reuse. It covers what a few ingest streams and
// queries turn over, and is small against the memory that a server is given.
const cacheBytes = 64 << 20

// Allocator hands out memory outside the Go heap. The zero value is ready to use. It must not be copied.
type Allocator struct {
	small [smallClasses]class
	once  sync.Once
	inUse atomic.Int64

	mu sync.Mutex
	// large are the cached blocks above maxSmall by class. Nothing in it is counted as in use.
	large map[int][]unsafe.Pointer
	// cached is the sum of their sizes.
	cached int
}

// Default is the allocator of the process.
var Default = &Allocator{}

var _ memory.Allocator = (*Allocator)(nil)

// Allocate returns size zeroed bytes. Arrow's builders were never run on anything but zeroed memory, and what was in
// a block before must not reach a file through the padding or a null slot.
func (a *Allocator) Allocate(size int) []byte {
	b, zero := a.allocate(size)
	if !zero {
		clear(b)
	}
	return b
}

// AllocateDirty is Allocate for callers that write every byte before anyone reads it.
func (a *Allocator) AllocateDirty(size int) []byte {
	b, _ := a.allocate(size)
	return b
}

// Reallocate returns a block of size bytes that begins with the bytes of b; what is beyond them is zero. Afterwards
// b must not be used.
func (a *Allocator) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) && size*2 > cap(b) {
		old := len(b)
		b = b[:size]
		if size > old {
			clear(b[old:])
		}
		return b
	}
	grown, zero := a.allocate(size)
	n := copy(grown, b)
	if !zero {
		clear(grown[n:])
	}
	a.Free(b)
	return grown
}

// Free takes back a block that this Allocator returned. The empty block is ignored.
func (a *Allocator) Free(b []byte) { a.free(b, a.keep) }

// Discard is Free for a block that is not needed again soon: a large one goes back to the system at once and does not wait
// in the cache, where it would count as memory of the process.
func (a *Allocator) Discard(b []byte) {
	a.free(b, func(int, int, unsafe.Pointer) bool { return false })
}

// free takes back a block; keep says whether it holds a large one for others.
func (a *Allocator) free(b []byte, keep func(class, size int, p unsafe.Pointer) bool) {
	if cap(b) == 0 {
		return
	}
	c := classOf(cap(b))
	size := classBytes(c)
	if size != cap(b) {
		panic(fmt.Sprintf("offheap: freed a block of %d bytes, which is the size of no class", cap(b)))
	}
	a.inUse.Add(-int64(size))
	p := unsafe.Pointer(unsafe.SliceData(b))
	switch {
	case c < smallClasses:
		a.small[c].give(p)
	case !keep(c, size, p):
		unmap(p, size)
	}
}

// InUse returns the bytes that are out, rounding included.
func (a *Allocator) InUse() int64 { return a.inUse.Load() }

// Cached returns the bytes of large blocks that wait for their next use.
func (a *Allocator) Cached() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(a.cached)
}

// allocate returns size bytes with the capacity of their class, and whether they are zero.
func (a *Allocator) allocate(size int) (b []byte, zero bool) { return a.allocateWith(size, mapPages) }

// allocateWith is allocate with what maps a large block that the cache does not have.
func (a *Allocator) allocateWith(size int, mapLarge func(int) unsafe.Pointer) (b []byte, zero bool) {
	if size <= 0 {
		if size < 0 {
			panic(fmt.Sprintf("offheap: asked for %d bytes", size))
		}
		return []byte{}, true
	}
	c := classOf(size)
	full := classBytes(c)
	a.inUse.Add(int64(full))
	var p unsafe.Pointer
	if c < smallClasses {
		a.once.Do(a.sizeClasses)
		p, zero = a.small[c].take()
	} else if p = a.reuse(c, full); p == nil {
		p, zero = mapLarge(full), true
	}
	return unsafe.Slice((*byte)(p), full)[:size], zero
}

func (a *Allocator) sizeClasses() {
	for c := range a.small {
		a.small[c].bytes = classBytes(c)
	}
}

// reuse returns a cached block of class c, or nil.
func (a *Allocator) reuse(c, size int) unsafe.Pointer {
	a.mu.Lock()
	defer a.mu.Unlock()
	blocks := a.large[c]
	if len(blocks) == 0 {
		return nil
	}
	p := blocks[len(blocks)-1]
	a.large[c] = blocks[:len(blocks)-1]
	a.cached -= size
	return p
}

// keep puts a block of class c into the cache, if it has room.
func (a *Allocator) keep(c, size int, p unsafe.Pointer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cached+size > cacheBytes {
		return false
	}
	if a.large == nil {
		a.large = map[int][]unsafe.Pointer{}
	}
	a.large[c] = append(a.large[c], p)
	a.cached += size
	return true
}
