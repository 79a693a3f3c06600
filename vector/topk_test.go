package vector

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// nearest is the dumb twin of TopK: sort all, cut.
func nearest(k int, rows []Neighbor) []Neighbor {
	rows = slices.DeleteFunc(slices.Clone(rows), func(n Neighbor) bool { return math.IsNaN(float64(n.Distance)) })
	slices.SortFunc(rows, Neighbor.compare)
	return append([]Neighbor{}, rows[:max(0, min(k, len(rows)))]...)
}

func TestTopKIsASortThatStopsEarly(t *testing.T) {
	r := seeded(20)
	for range 300 {
		rows := make([]Neighbor, r.IntN(200))
		ids, distances := make([]uint64, len(rows)), make([]float32, len(rows))
		for i, id := range r.Perm(len(rows)) {
			// Few values, so that there are ties; now and then something special.
			d := float32(r.IntN(20)) - 5
			switch r.IntN(30) {
			case 0:
				d = float32(math.NaN())
			case 1:
				d = float32(math.Inf(1 - 2*r.IntN(2)))
			}
			rows[i] = Neighbor{uint64(id), d}
			ids[i], distances[i] = uint64(id), d
		}
		for _, k := range []int{-1, 0, 1, 2, 10, len(rows), len(rows) + 5, math.MaxInt} {
			want := nearest(k, rows)
			one, all, parts := NewTopK(k), NewTopK(k), NewTopK(k)
			for _, n := range rows {
				one.Push(n.ID, n.Distance)
			}
			all.PushAll(ids, distances)
			cut := r.IntN(len(rows) + 1)
			other := NewTopK(k)
			other.PushAll(ids[:cut], distances[:cut])
			parts.PushAll(ids[cut:], distances[cut:])
			parts.Merge(other)
			for _, top := range []*TopK{one, all, parts} {
				require.Equal(t, want, top.AppendSorted([]Neighbor{}))
				require.Equal(t, len(want), top.Len())
			}
		}
	}
}

func TestTopKOfARangeNumbersItsRows(t *testing.T) {
	top := NewTopK(3)
	top.PushRange(100, []float32{5, 1, 4, float32(math.NaN()), 1, 9})
	require.Equal(t, []Neighbor{{101, 1}, {104, 1}, {102, 4}}, top.AppendSorted(nil))
	require.Equal(t, float32(4), top.Limit())
	top.Reset(2)
	require.Equal(t, float32(math.Inf(1)), top.Limit())
	top.PushRange(0, []float32{2})
	require.Equal(t, []Neighbor{{7, 7}, {0, 2}}, top.AppendSorted([]Neighbor{{7, 7}}))
}
