package vector

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clustered makes n rows around centers points, which are returned, too: each row belongs to center i%centers.
func clustered(r *rand.Rand, n, dim, centers int, spread float64) (rows, points []float32) {
	points = randomFloats(r, centers*dim)
	rows = make([]float32, n*dim)
	for i := range n {
		for d := range dim {
			rows[i*dim+d] = points[i%centers*dim+d] + float32(spread*r.NormFloat64())
		}
	}
	return rows, points
}

func TestKMeansFindsClusters(t *testing.T) {
	const n, dim, centers = 4000, 12, 20
	rows, points := clustered(seeded(50), n, dim, centers, 0.05)
	for name, o := range map[string]KMeansOptions{
		"plus plus":   {Clusters: centers},
		"mini-steps":  {Clusters: centers, BatchRows: 400, Iterations: 30},
		"few sampled": {Clusters: centers, SampleRows: 600},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := KMeans(t.Context(), rows, dim, o)
			require.NoError(t, err)
			// Every point has a centroid near it, and the loss is that of the noise.
			near := make([]float32, centers)
			to := make([]int32, centers)
			found.Centroids.Assign(points, to, near)
			slices.Sort(to)
			require.Len(t, slices.Compact(to), centers)
			for _, d := range near {
				require.Less(t, d, float32(0.01))
			}
			looked := 0
			for _, size := range found.Sizes {
				looked += size
			}
			require.InDelta(t, float64(looked)*dim*0.05*0.05, found.Loss, 0.1*float64(looked)*dim*0.05*0.05)
		})
	}
}

func TestKMeansLowersTheLoss(t *testing.T) {
	rows := randomFloats(seeded(51), 3000*16)
	for _, m := range []Metric{L2, Dot} {
		for _, start := range []Start{PlusPlus, Sampled, Nested} {
			before := math.Inf(1)
			for _, iterations := range []int{1, 3, 12} {
				found, err := KMeans(t.Context(), rows, 16, KMeansOptions{Clusters: 30, Metric: m, Start: start, Iterations: iterations, Seed: 4})
				require.NoError(t, err)
				require.LessOrEqual(t, found.Iterations, iterations)
				require.Less(t, found.Loss, before)
				before = found.Loss
			}
		}
	}
}

func TestKMeansDependsOnItsSeedAlone(t *testing.T) {
	rows := randomFloats(seeded(52), 2500*7)
	run := func(o KMeansOptions) *Clustering {
		o.Clusters = 23
		found, err := KMeans(t.Context(), rows, 7, o)
		require.NoError(t, err)
		return found
	}
	for _, o := range []KMeansOptions{{Seed: 9}, {Seed: 9, SampleRows: 500}, {Seed: 9, BatchRows: 100}, {Seed: 9, Start: Sampled, Metric: Dot}, {Seed: 9, Start: Nested}} {
		one := run(o)
		o.Workers = 5
		require.Equal(t, one, run(o), "%+v", o)
		o.Seed = 10
		require.NotEqual(t, one.Centroids.Flat(), run(o).Centroids.Flat(), "%+v", o)
	}
}

func TestANestedStartLosesLittle(t *testing.T) {
	rows, _ := clustered(seeded(56), 20000, 16, 300, 0.2)
	loss := map[Start]float64{}
	for _, start := range []Start{PlusPlus, Nested} {
		found, err := KMeans(t.Context(), rows, 16, KMeansOptions{Clusters: 500, Start: start, SampleRows: 20000, Workers: 2, Seed: 3})
		require.NoError(t, err)
		loss[start] = found.Loss
	}
	require.Less(t, loss[Nested], 1.05*loss[PlusPlus])
}

func TestNestedStartsOfOddRows(t *testing.T) {
	// Nearly all rows are one: one coarse cluster gets nearly all centroids, and looks at no more than its part of the rows.
	rows := slices.Repeat([]float32{1, 2, 3}, 3000)
	copy(rows, randomFloats(seeded(57), 100*3))
	found, err := KMeans(t.Context(), rows, 3, KMeansOptions{Clusters: 600, Start: Nested, SampleRows: 3000})
	require.NoError(t, err)
	require.Less(t, found.Loss, 1.0)
	// Distances between rows of this length overflow, so there is no coarse cluster for them.
	rows = slices.Repeat([]float32{1e19, -1e19, 1e19, 1e19}, 40)
	_, err = KMeans(t.Context(), rows, 2, KMeansOptions{Clusters: 40, Start: Nested})
	require.NoError(t, err)
}

func TestSharesAreNoMoreThanRows(t *testing.T) {
	r := seeded(58)
	for range 200 {
		ends := make([]int, 2+r.IntN(20))
		for c := range len(ends) - 1 {
			ends[c+1] = ends[c] + r.IntN(1<<r.IntN(8))
		}
		total := ends[len(ends)-1]
		if total == 0 {
			continue
		}
		loss := make([]float64, len(ends)-1)
		for c := range loss {
			loss[c] = float64(r.IntN(3)) * r.Float64()
		}
		n, sum := len(loss)+r.IntN(total), 0
		if n > total {
			continue
		}
		for c, share := range apportion(ends, loss, n) {
			require.GreaterOrEqual(t, share, min(1, ends[c+1]-ends[c]))
			require.LessOrEqual(t, share, ends[c+1]-ends[c])
			sum += share
		}
		require.Equal(t, n, sum)
	}
}

func TestClustersAreBalancedEnough(t *testing.T) {
	// Nine in ten rows lie in one place, whose rows should share more than one centroid.
	r := seeded(53)
	rows, _ := clustered(r, 20000, 8, 2, 0.5)
	for i := range 18000 {
		for d := range 8 {
			rows[i*8+d] = float32(0.01 * r.NormFloat64())
		}
	}
	found, err := KMeans(t.Context(), rows, 8, KMeansOptions{Clusters: 64, SampleRows: 20000, Iterations: 40})
	require.NoError(t, err)
	require.Less(t, slices.Max(found.Sizes), 3*unbalanced*20000/64)
}

func TestEmptyClustersSplitTheLargest(t *testing.T) {
	sizes, means := []int{0, 100, 3, 0}, []float32{9, 9, 4, 4, 1, 1, 9, 9}
	split(sizes, means, 2)
	require.Equal(t, []int{25, 50, 3, 25}, sizes)
	eps := float32(1.0 / 1024)
	require.Equal(t, []float32{4 * (1 - eps), 4 * (1 + eps)}, means[2:4])
	require.Equal(t, []float32{1, 1}, means[4:6])
	require.InDeltaSlice(t, []float32{4, 4, 4, 4}, append(means[:2:2], means[6:]...), 0.01)
	require.NotEqual(t, means[:2], means[6:])

	// Starved beside a giant: moved. Small beside others of a like size: left.
	sizes, means = []int{1, 900, 20, 20, 20, 20, 20, 20, 20, 20, 20}, make([]float32, 11)
	split(sizes, means, 1)
	require.Equal(t, []int{450, 450}, sizes[:2])
	sizes = []int{1, 90, 90, 90}
	split(sizes, make([]float32, 4), 1)
	require.Equal(t, []int{1, 90, 90, 90}, sizes)
}

func TestKMeansOfOddRows(t *testing.T) {
	t.Run("all equal", func(t *testing.T) {
		rows := slices.Repeat([]float32{3, -2}, 500)
		for _, o := range []KMeansOptions{{}, {BatchRows: 50}, {Start: Nested}} {
			o.Clusters = 16
			found, err := KMeans(t.Context(), rows, 2, o)
			require.NoError(t, err)
			require.InDelta(t, 0, found.Loss, 1e-2)
		}
	})
	t.Run("all zero", func(t *testing.T) {
		found, err := KMeans(t.Context(), make([]float32, 300), 3, KMeansOptions{Clusters: 10})
		require.NoError(t, err)
		require.Equal(t, 100, found.Sizes[0])
	})
	t.Run("not finite", func(t *testing.T) {
		rows := randomFloats(seeded(54), 100*2)
		rows[7], rows[100] = float32(math.NaN()), float32(math.Inf(1))
		for _, start := range []Start{PlusPlus, Nested} {
			found, err := KMeans(t.Context(), rows, 2, KMeansOptions{Clusters: 98, Start: start})
			require.NoError(t, err)
			require.Zero(t, found.Loss)
		}
		_, err := KMeans(t.Context(), rows, 2, KMeansOptions{Clusters: 99})
		require.EqualError(t, err, "k-means: 98 rows that are finite for 99 clusters; ask for fewer clusters or give more rows")
	})
	t.Run("too large", func(t *testing.T) {
		rows := append(slices.Repeat([]float32{3e38, -3e38}, 50), 1, 1, 2, 2)
		found, err := KMeans(t.Context(), rows, 2, KMeansOptions{Clusters: 2})
		require.NoError(t, err)
		require.Equal(t, []int{1, 1}, found.Sizes)
	})
}

func TestKMeansRefusesWhatCannotBe(t *testing.T) {
	rows := make([]float32, 12)
	for want, f := range map[string]func() error{
		"k-means: rows of 0 dimensions": func() error {
			_, err := KMeans(t.Context(), rows, 0, KMeansOptions{Clusters: 1})
			return err
		},
		"k-means: 12 elements are not rows of 5 dimensions": func() error {
			_, err := KMeans(t.Context(), rows, 5, KMeansOptions{Clusters: 1})
			return err
		},
		fmt.Sprintf("k-means: 0 clusters; it takes 1 to %d", math.MaxInt32): func() error {
			_, err := KMeans(t.Context(), rows, 2, KMeansOptions{})
			return err
		},
		"k-means: clusters by l2 or dot, not by cosine; under cosine normalise and use l2": func() error {
			_, err := KMeans(t.Context(), rows, 2, KMeansOptions{Clusters: 1, Metric: Cosine})
			return err
		},
	} {
		require.EqualError(t, f(), want)
	}
}

func TestKMeansEndsWithItsContext(t *testing.T) {
	rows := randomFloats(seeded(55), 5000*4)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range []KMeansOptions{{}, {Workers: 3}, {Start: Sampled, Workers: 3}, {Start: Sampled, BatchRows: 10}, {Start: Nested}} {
		o.Clusters = 20
		_, err := KMeans(ctx, rows, 4, o)
		require.ErrorIs(t, err, context.Canceled)
	}
}
