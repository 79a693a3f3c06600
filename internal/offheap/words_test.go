package offheap

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestWordsAreZeroAlignedAndGoBack(t *testing.T) {
	var a Allocator
	for _, n := range []int{1, 100, 1 << 12, hugeBytes / wordBytes, 3 * hugeBytes / wordBytes, 1 << 20, 1<<20 + 1} {
		for range 2 { // the second time from the cache
			w := Words[int64](&a, n, false)
			require.Len(t, w, n)
			require.Equal(t, int64(cap(w)*wordBytes), a.InUse())
			at := uintptr(unsafe.Pointer(unsafe.SliceData(w)))
			require.Zero(t, at%align)
			if cap(w)*wordBytes%hugeBytes == 0 {
				require.Zero(t, at%hugeBytes)
			}
			for i := range w {
				require.True(t, w[i] == 0, "word %d of %d", i, n)
				w[i] = -1
			}
			FreeWords(&a, w)
			require.Zero(t, a.InUse())
		}
	}
	require.Empty(t, Words[uint64](&a, 0, false))
	FreeWords[uint64](&a, nil)
}
