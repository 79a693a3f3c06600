package ivf

import (
	"math/rand/v2"
)

// clustered returns n vectors around some centres, which are the same for all seeds.
func clustered(seed uint64, n, dim, centres int) []float32 {
	c := rand.New(rand.NewPCG(99, uint64(dim)))
	middles := make([]float32, centres*dim)
	for i := range middles {
		middles[i] = float32(c.NormFloat64())
	}
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]float32, n*dim)
	for i := range n {
		m := r.IntN(centres)
		for j := range dim {
			out[i*dim+j] = middles[m*dim+j] + 0.3*float32(r.NormFloat64())
		}
	}
	return out
}
