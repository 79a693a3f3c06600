package vector

import (
	"os"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// guarded returns a copy of s whose last byte is the last before a page that may not be touched: a kernel that reads or
// writes behind its slice ends the test with a fault.
func guarded[T any](t *testing.T, s []T) []T {
	page := os.Getpagesize()
	size := len(s) * int(unsafe.Sizeof(*new(T)))
	pages := (size + page - 1) / page
	mapped, err := unix.Mmap(-1, 0, (pages+1)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(mapped)) })
	require.NoError(t, unix.Mprotect(mapped[pages*page:], unix.PROT_NONE))
	if len(s) == 0 {
		return nil
	}
	// The bytes of a mapping are seen as elements: unsafe is the only way to place a slice at the end of a page.
	out := unsafe.Slice((*T)(unsafe.Pointer(&mapped[pages*page-size])), len(s))
	copy(out, s)
	return out
}

func TestRowKernelsStayInTheirSlices(t *testing.T) {
	r := seeded(5)
	for dim := range 65 {
		for _, n := range []int{1, 4, 5} {
			q, rows := guarded(t, randomFloats(r, dim)), guarded(t, randomFloats(r, n*dim))
			out := guarded(t, make([]float32, n))
			for _, k := range rowKernels() {
				k.kernel(q, rows, out)
				requireSums(t, k, q, rows, out)
			}
		}
	}
}

func TestConversionsStayInTheirSlices(t *testing.T) {
	for n := range 65 {
		halves, floats := guarded(t, make([]uint16, n)), guarded(t, make([]float32, n))
		WidenFloat16(floats, halves)
		NarrowFloat16(halves, floats)
	}
}
