package vector

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAssignFindsTheNearestCentroid(t *testing.T) {
	r := seeded(40)
	for _, m := range []Metric{L2, Dot} {
		for _, shape := range []struct{ dim, k, n int }{{1, 1, 1}, {3, 5, 70}, {8, 256, 200}, {16, 300, 131}, {128, 257, 66}, {1536, 40, 9}} {
			flat, rows := randomFloats(r, shape.k*shape.dim), randomFloats(r, shape.n*shape.dim)
			c, err := NewCentroids(m, shape.dim, flat)
			require.NoError(t, err)
			to, dist := make([]int32, shape.n), make([]float32, shape.n)
			c.Assign(rows, to, dist)
			again := make([]int32, shape.n)
			c.Assign(rows, again, nil)
			require.Equal(t, to, again)
			all := make([]float32, shape.k)
			for i := range shape.n {
				row := rows[i*shape.dim : (i+1)*shape.dim]
				Distances(m, row, flat, all)
				_, least := argminGo(all)
				// Another order of summing may prefer another centroid, if it is as near.
				bound := 1e-5 * (1 + math.Abs(float64(least)))
				require.InDelta(t, least, all[to[i]], bound)
				require.InDelta(t, least, dist[i], bound)
				probes := c.Probe(row, 3, nil)
				require.Len(t, probes, min(3, shape.k))
				require.Equal(t, Neighbor{uint64(to[i]), dist[i]}, probes[0])
			}
		}
	}
}

func TestTheFirstOfEqualCentroidsIsTaken(t *testing.T) {
	flat := make([]float32, 2*600)
	for i := range flat {
		flat[i] = 7
	}
	flat[2*300], flat[2*300+1] = 1, 1
	flat[2*500], flat[2*500+1] = 1, 1
	c, err := NewCentroids(L2, 2, flat)
	require.NoError(t, err)
	to := make([]int32, 2)
	c.Assign([]float32{1, 1, 8, 8}, to, nil)
	require.Equal(t, []int32{300, 0}, to)
	require.Equal(t, []Neighbor{{300, 0}, {500, 0}, {0, 72}}, c.Probe([]float32{1, 1}, 3, nil))
	require.Len(t, c.Probe([]float32{1, 1}, math.MaxInt, nil), 600)
	require.Empty(t, c.Probe([]float32{1, 1}, 0, nil))
}

func TestRowsThatAreNotFiniteHaveNoPartition(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	rows := []float32{4, 4, nan, 0, inf, 0, 0, -inf, 3e38, -3e38}
	to, dist := make([]int32, 5), make([]float32, 5)
	for m, least := range map[Metric]float32{L2: 2, Dot: -39} {
		c, err := NewCentroids(m, 2, []float32{0, 1e9, 5, 5})
		require.NoError(t, err)
		if m == Dot {
			c, err = NewCentroids(m, 2, []float32{0, -1, 5, 5, 1e30, -1e30})
			require.NoError(t, err)
		}
		c.Assign(rows, to, dist)
		require.Equal(t, []int32{1, -1, -1, -1, -1}, to, m)
		require.Equal(t, []float32{least, inf, inf, inf, inf}, dist, m)
		require.Empty(t, c.Probe([]float32{nan, 1}, 2, nil))
	}
	c, err := NewCentroids(L2, 2, []float32{0, 0, 5, 5})
	require.NoError(t, err)
	c.Residuals(rows, rows, to)
	require.Equal(t, []float32{-1, -1}, rows[:2])
	for _, x := range rows[2:] {
		require.True(t, math.IsNaN(float64(x)))
	}
}

func TestCentroidsThatCannotBeAreRefused(t *testing.T) {
	for _, c := range []struct {
		m    Metric
		dim  int
		flat []float32
		want string
	}{
		{Cosine, 2, []float32{1, 2}, "centroids rank by l2 or dot, not by cosine; under cosine normalise and use l2"},
		{L2, 0, []float32{1, 2}, "centroids of 0 dimensions"},
		{L2, 2, nil, "0 elements are not centroids of 2 dimensions"},
		{Dot, 2, []float32{1, 2, 3}, "3 elements are not centroids of 2 dimensions"},
		{L2, 2, []float32{1, 2, 3, float32(math.NaN())}, "centroid 1 has NaN as element 1"},
	} {
		_, err := NewCentroids(c.m, c.dim, c.flat)
		require.EqualError(t, err, c.want)
	}
}
