package memindex

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// TestKeyIndexesCountTheirMemory compares what an index says that it occupies with what is out, and with what it said that
// it would grow to, batch by batch, with and without an index before it; in the end all goes back.
func TestKeyIndexesCountTheirMemory(t *testing.T) {
	const batch, batches = 1000, 600 // more rows than come in single pieces
	before := offheap.Default.InUse()
	out := func() int64 { return offheap.Default.InUse() - before }
	r := rand.New(rand.NewPCG(7, 8))
	keys := make([]int64, batch*batches)
	for i := range keys {
		keys[i] = r.Int64N(1 << 40)
	}
	t.Run("ints", func(t *testing.T) {
		var last *Ints
		for range 2 {
			x := new(Ints)
			if last != nil {
				x.Expect(last)
				last.Release()
			}
			for i := 0; i < len(keys); i += batch {
				most := x.MemoryBytes() + x.Growth(batch)
				x.Add(keys[i:i+batch], uint32(i), nil)
				require.LessOrEqual(t, x.MemoryBytes(), most)
				require.Equal(t, x.MemoryBytes()-int64(cap(x.runs))*intRunBytes, out())
			}
			last = x
		}
		last.Release()
		require.Zero(t, out())
		require.Zero(t, last.MemoryBytes())
		_, ok := last.Row(keys[0])
		require.False(t, ok)
	})
	t.Run("bytes", func(t *testing.T) {
		var last *Bytes
		for range 2 {
			x := new(Bytes)
			if last != nil {
				x.Expect(last)
				last.Release()
			}
			for i := 0; i < len(keys); i += batch {
				most := x.MemoryBytes() - x.arena + x.Growth(batch)
				x.Add(batch, func(j int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(keys[i+j])) }, uint32(i), nil)
				require.LessOrEqual(t, x.MemoryBytes()-x.arena, most)
				require.Equal(t, x.MemoryBytes()-x.arena, out())
			}
			last = x
		}
		last.Release()
		require.Zero(t, out())
	})
}

// TestAnIndexGrowsToWhatIsExpected leaves a small index small, and takes a larger one to its size at once.
func TestAnIndexGrowsToWhatIsExpected(t *testing.T) {
	add := func(x *Ints, n int) {
		for range n { // falling keys are hashed but for the first
			x.Add([]int64{-int64(x.rows)}, x.rows, nil)
		}
	}
	var large, next Ints
	defer large.Release()
	defer next.Release()
	add(&large, 200_000)
	size := len(large.slots.list)
	next.Expect(&large)
	add(&next, 2)
	require.Len(t, next.slots.list, minSlots)
	add(&next, size/expectShare)
	require.Len(t, next.slots.list, size)
	for row := range next.rows {
		got, ok := next.Row(-int64(row))
		require.True(t, ok)
		require.Equal(t, row, got)
	}
}
