package offheap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeBytes is the size of the pages in which the system maps large tables when it is asked to, on the processors that
// flightd is built for. Elsewhere the advice does nothing.
const hugeBytes = 2 << 20

// wordBytes is the size of a Word.
const wordBytes = 8

// Word is what a table of words may have.
type Word interface{ ~int64 | ~uint64 }

// Words returns n words, zero unless dirty, for a table that is read and written all over. Tables of whole huge pages are
// in these if the system has some: with small ones nearly each access would miss the translation cache, too, which in a
// table of 16 MiB costs about as much as the access. n should be a power of two, else up to a fifth is lost to rounding.
func Words[T Word](a *Allocator, n int, dirty bool) []T {
	if n == 0 {
		return nil
	}
	b, zero := a.allocateWith(n*wordBytes, mapTable)
	if !dirty && !zero {
		clear(b)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), cap(b)/wordBytes)[:n]
}

// FreeWords takes back what Words returned. The empty slice is ignored.
func FreeWords[T Word](a *Allocator, w []T) {
	if cap(w) > 0 {
		a.Free(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), cap(w)*wordBytes))
	}
}

// mapTable is mapPages for a table. Only whole huge pages are asked for: with a part of one, memory would be taken that
// the block does not have.
func mapTable(size int) unsafe.Pointer {
	if size%hugeBytes != 0 {
		return mapPages(size)
	}
	p := mapAligned(size, hugeBytes)
	// An error means that the system has no huge pages, and small ones do.
	_ = unix.Madvise(unsafe.Slice((*byte)(p), size), unix.MADV_HUGEPAGE)
	return p
}
