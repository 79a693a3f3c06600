package radix

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sources := map[string]func(i int) int64{
		"rising":     func(i int) int64 { return int64(i) },
		"falling":    func(i int) int64 { return int64(-i) },
		"one":        func(int) int64 { return 7 },
		"few":        func(int) int64 { return r.Int64N(5) - 2 },
		"narrow":     func(int) int64 { return 1<<40 + r.Int64N(1000) },
		"any":        func(int) int64 { return int64(r.Uint64()) },
		"ends":       func(int) int64 { return []int64{math.MinInt64, -1, 0, 1, math.MaxInt64}[r.IntN(5)] },
		"high digit": func(int) int64 { return int64(r.Uint64() &^ (1<<56 - 1)) },
	}
	var again Sorter // its scratch is of what it sorted before
	for name, next := range sources {
		for _, n := range []int{0, 1, 2, small - 1, small, small + 1, 10_000} {
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				keys, rows := make([]int64, n), make([]uint32, n)
				for i := range n {
					keys[i], rows[i] = next(i), uint32(i)
				}
				before, order := slices.Clone(keys), slices.Clone(rows)
				slices.SortStableFunc(order, func(a, b uint32) int { return cmp.Compare(before[a], before[b]) })
				other, otherRows := slices.Clone(keys), slices.Clone(rows)
				Sort(keys, rows)
				require.Equal(t, order, rows)
				again.Sort(other, otherRows)
				require.Equal(t, keys, other)
				require.Equal(t, rows, otherRows)
				for i, row := range rows {
					require.Equal(t, before[row], keys[i])
				}
			})
		}
	}
}

func BenchmarkSort(b *testing.B) {
	const n = 1 << 20
	r := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int64{n, 100_000_000, math.MaxInt64} {
		b.Run(fmt.Sprintf("below=%d", most), func(b *testing.B) {
			source := make([]int64, n)
			for i := range source {
				source[i] = r.Int64N(most)
			}
			keys, rows := make([]int64, n), make([]uint32, n)
			for range b.N {
				b.StopTimer()
				copy(keys, source)
				b.StartTimer()
				Sort(keys, rows)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mkeys/s")
		})
	}
}
