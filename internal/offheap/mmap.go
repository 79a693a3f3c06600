package offheap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	prot = unix.PROT_READ | unix.PROT_WRITE
	anon = unix.MAP_ANON | unix.MAP_PRIVATE
)

// mapPages returns fresh, zeroed pages. Running out of address space or of map entries is as final as it is for the
// Go heap, hence the panic: an Arrow allocator has no way to return an error.
func mapPages(size int) unsafe.Pointer {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), prot, anon)
	if err != nil {
		panic(fmt.Sprintf("offheap: map %d bytes: %v", size, err))
	}
	return p
}

// mapAligned returns fresh pages at a multiple of to, which is a power of two: it maps so much more and returns what lies
// before and after.
func mapAligned(size, to int) unsafe.Pointer {
	p := mapPages(size + to)
	before := -int(uintptr(p)) & (to - 1)
	if before > 0 {
		unmap(p, before)
	}
	aligned := unsafe.Add(p, before)
	if after := to - before; after > 0 {
		unmap(unsafe.Add(aligned, size), after)
	}
	return aligned
}

func unmap(p unsafe.Pointer, size int) {
	if err := unix.MunmapPtr(p, uintptr(size)); err != nil {
		panic(fmt.Sprintf("offheap: unmap %d bytes: %v", size, err))
	}
}
