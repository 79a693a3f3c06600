package lsm

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// TestMergeKeysComesInOrder merges sources of more keys than are at hand at a time, with nulls in front, with keys that
// several have and with ranges of their own, against a sort of all.
func TestMergeKeysComesInOrder(t *testing.T) {
	type entry struct {
		null bool
		key  int64
		rank int
		id   uint64
	}
	for name, next := range map[string]func(r *rand.Rand, rank, i int) int64{
		"random":        func(r *rand.Rand, _, _ int) int64 { return r.Int64N(40_000) - 20_000 },
		"own ranges":    func(_ *rand.Rand, rank, i int) int64 { return int64(rank*1_000_000 + i) },
		"taking turns":  func(_ *rand.Rand, rank, i int) int64 { return int64(i*5 + rank) },
		"the same keys": func(_ *rand.Rand, _, i int) int64 { return int64(i) },
	} {
		for nulls := range 2 {
			t.Run(fmt.Sprintf("%s/nulls=%d", name, nulls), func(t *testing.T) {
				r := rand.New(rand.NewPCG(13, 14))
				codec := &keyCodec{typ: arrow.PrimitiveTypes.Int64}
				var sources []*keySource
				var want []entry
				for rank, n := range []int{3*windowKeys + 7, 0, 1, windowKeys, 2 * windowKeys, 100} {
					keys := make([]int64, n)
					for i := range keys {
						keys[i] = next(r, rank, i)
					}
					slices.Sort(keys)
					b := array.NewInt64Builder(memory.DefaultAllocator)
					ids := make([]uint64, 0, n+nulls*rank)
					for range nulls * rank {
						b.AppendNull()
						ids = append(ids, uint64(len(ids)))
						want = append(want, entry{true, 0, rank, ids[len(ids)-1]})
					}
					for _, k := range keys {
						b.Append(k)
						ids = append(ids, uint64(len(ids)))
						want = append(want, entry{false, k, rank, ids[len(ids)-1]})
					}
					values := b.NewArray()
					defer values.Release()
					sources = append(sources, newSource(codec, func(yield func(keyBatch, error) bool) { yield(keyBatch{values, ids}, nil) }))
				}
				defer closeSources(sources)
				slices.SortStableFunc(want, func(a, b entry) int {
					if a.null != b.null {
						return map[bool]int{true: -1, false: 1}[a.null]
					}
					return cmp.Compare(a.key, b.key)
				})
				var got []entry
				require.NoError(t, mergeKeys(sources, func(s *keySource, from, to int) error {
					for i := from; i < to; i++ {
						e := entry{i < s.nulls, s.keys.ints[i], s.rank, s.ids[i]}
						if e.null {
							e.key = 0
						}
						got = append(got, e)
					}
					return nil
				}))
				if !slices.Equal(want, got) { // require would print all of them
					t.Fatalf("%d entries came, %d expected, or not in order", len(got), len(want))
				}
			})
		}
	}
}
