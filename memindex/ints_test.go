package memindex

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestIntsWithRisingKeys mixes batches whose keys rise above all others, which are not hashed, with such that replace some
// of them, the ends of the range among them, and compares with a Go map.
func TestIntsWithRisingKeys(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 9))
		var x Ints
		var all []int64
		twin := map[int64]uint32{}
		top := int64(math.MinInt64)
		for range 60 {
			keys := make([]int64, r.IntN(200))
			rises := r.IntN(2) == 0
			for i := range keys {
				switch {
				case rises && (len(all) > 0 || i > 0):
					top += 1 + r.Int64N(1000)
					keys[i] = top
				case rises:
					keys[i] = top
				case len(all) > 0 && r.IntN(2) == 0:
					keys[i] = all[r.IntN(len(all))]
				default:
					keys[i] = r.Int64N(2000) - 1000
				}
			}
			var want []uint32
			for i, k := range keys {
				top = max(top, k)
				if old, ok := twin[k]; ok {
					want = append(want, old)
				}
				twin[k] = uint32(len(all) + i)
			}
			growth, before := x.Growth(len(keys)), x.MemoryBytes()
			require.Equal(t, want, x.Add(keys, uint32(len(all)), nil), "seed %d", seed)
			require.LessOrEqual(t, x.MemoryBytes()-before, growth, "seed %d", seed)
			all = append(all, keys...)
		}
		require.Equal(t, len(twin), x.Len(), "seed %d", seed)
		n := 0
		x.Each(func(k int64, row uint32) {
			n++
			require.Equal(t, twin[k], row, "seed %d", seed)
		})
		require.Equal(t, len(twin), n, "seed %d", seed)
		for row, k := range all {
			require.Equal(t, k, x.Key(uint32(row)))
			got, ok := x.Row(k)
			require.True(t, ok)
			require.Equal(t, twin[k], got, "seed %d", seed)
		}
		for _, k := range []int64{top + 1, math.MaxInt64} {
			_, ok := x.Row(k)
			require.Equal(t, k == top, ok)
		}
	}
}
