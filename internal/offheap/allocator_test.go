package offheap

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

func TestClasses(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(slab{}), uintptr(headerBytes))
	require.Equal(t, smallClasses, classOf(maxSmall)+1)
	last := 0
	for c := range 100 {
		size := classBytes(c)
		require.Greater(t, size, last)
		require.Zero(t, size%align)
		require.Equal(t, c, classOf(size))
		require.Equal(t, c, classOf(last+1))
		if c >= 4 {
			require.LessOrEqual(t, size-last, size/4)
		}
		last = size
	}
}

func TestBlocksAreAlignedZeroAndCounted(t *testing.T) {
	var a Allocator
	var blocks [][]byte
	want := int64(0)
	for size := 1; size < 300<<10; size += 1 + size/3 {
		for range 2 {
			b := a.Allocate(size)
			require.Len(t, b, size)
			require.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(b)))%align)
			require.True(t, isZero(b), "a block of %d bytes", size)
			for i := range b {
				b[i] = 0xAA
			}
			want += int64(cap(b))
			require.Equal(t, want, a.InUse())
			blocks = append(blocks, b)
		}
		// A block that comes back dirty must go out clean again.
		last := blocks[len(blocks)-1]
		blocks = blocks[:len(blocks)-1]
		want -= int64(cap(last))
		a.Free(last)
	}
	for _, b := range blocks {
		a.Free(b)
	}
	require.Zero(t, a.InUse())
	require.Empty(t, a.Allocate(0))
	a.Free(nil)
}

func TestReallocateKeepsTheBytes(t *testing.T) {
	var a Allocator
	b := a.Allocate(10)
	copy(b, "0123456789")
	for _, size := range []int{64, 65, 5000, 1 << 20, 100, 12} {
		b = a.Reallocate(size, b)
		require.Len(t, b, size)
		require.Equal(t, "0123456789", string(b[:10]))
		require.True(t, isZero(b[10:]), "after a change to %d bytes", size)
	}
	b[11] = 1
	b = a.Reallocate(11, b)
	b = a.Reallocate(12, b)
	require.Zero(t, b[11], "a shortened block grew back with its old bytes")
	a.Free(b)
	require.Zero(t, a.InUse())
}

func TestEmptySlabsGoBack(t *testing.T) {
	var a Allocator
	c := &a.small[classOf(1024)]
	var blocks [][]byte
	for range 4 * slabBytes / 1024 {
		blocks = append(blocks, a.Allocate(1024))
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	for _, b := range blocks {
		a.Free(b)
	}
	require.NotNil(t, c.room)
	require.Nil(t, c.room.next, "more than one empty slab is kept")
	require.Zero(t, c.room.used)
}

func TestLargeBlocksAreCachedWithinBounds(t *testing.T) {
	var a Allocator
	var blocks [][]byte
	for range 3 * cacheBytes / (16 << 20) {
		blocks = append(blocks, a.AllocateDirty(16<<20))
	}
	for _, b := range blocks {
		a.Free(b)
	}
	require.Equal(t, cacheBytes, a.cached)
	b := a.Allocate(13 << 20) // a smaller class, no cached block fits
	require.Equal(t, cacheBytes, a.cached)
	a.Free(b) // The cache is full.
	b = a.AllocateDirty(16 << 20)
	require.Equal(t, cacheBytes-16<<20, a.cached)
	a.Free(b)
	require.Zero(t, a.InUse())
}

func TestDiscardedBlocksDoNotWait(t *testing.T) {
	var a Allocator
	a.Discard(a.Allocate(8 << 20))
	a.Discard(a.Allocate(100))
	a.Discard(nil)
	require.Zero(t, a.InUse())
	require.Zero(t, a.cached)
}

func TestMisuseIsLoud(t *testing.T) {
	var a Allocator
	require.Panics(t, func() { a.Allocate(-1) })
	require.Panics(t, func() { a.Free(make([]byte, 100)) })
	b, other := a.Allocate(64), a.Allocate(64)
	a.Free(b)
	a.Free(other)
	require.Panics(t, func() { a.Free(b) })
}

func TestConcurrentUse(t *testing.T) {
	var a Allocator
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 7))
			held := make([][]byte, 64)
			for range 3000 {
				i := random.IntN(len(held))
				for _, x := range held[i] {
					if x != byte(g) {
						t.Errorf("a block of goroutine %d holds %d", g, x)
						return
					}
				}
				a.Free(held[i])
				held[i] = a.AllocateDirty(1 + random.IntN(1<<random.IntN(18)))
				for j := range held[i] {
					held[i][j] = byte(g)
				}
			}
			for _, b := range held {
				a.Free(b)
			}
		})
	}
	wg.Wait()
	require.Zero(t, a.InUse())
}

func TestArrowBuildersUseIt(t *testing.T) {
	checked := memory.NewCheckedAllocator(&Allocator{})
	defer checked.AssertSize(t, 0)
	b := array.NewStringBuilder(checked)
	defer b.Release()
	for i := range 1000 {
		b.Append(fmt.Sprint(i))
		b.AppendNull()
	}
	arr := b.NewStringArray()
	defer arr.Release()
	require.Equal(t, 1000, arr.NullN())
	require.Equal(t, "999", arr.Value(1998))
}

func BenchmarkAllocateFree(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var a Allocator
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				a.Free(a.AllocateDirty(size))
			}
		})
	}
}
