package vector

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// packedKernel is a kernel of several vectors and packed points; of its terms the distance is base plus sign times the sum.
type packedKernel struct {
	name         string
	kernel, twin func(x []float32, stride, n int, data []float32, dim int, out []float32)
	term         func(a, b float64) float64
	base, sign   float64
}

func packedKernels() []packedKernel {
	return []packedKernel{
		{"l2", l2Packed, l2PackedGo, func(a, b float64) float64 { return (a - b) * (a - b) }, 0, 1},
		{"dot", dotPacked, dotPackedGo, func(a, b float64) float64 { return a * b }, 1, -1},
	}
}

func (k packedKernel) require(t *testing.T, x []float32, stride, n int, p packed, points, got []float32) {
	t.Helper()
	for i := range n {
		for j := range p.n {
			var sum, abs float64
			for d := range p.dim {
				term := k.term(float64(x[i*stride+d]), float64(points[j*p.dim+d]))
				sum, abs = sum+term, abs+math.Abs(term)
			}
			bound := float64(p.dim+4) * 0x1p-24 * (abs + k.base)
			require.InDelta(t, k.base+k.sign*sum, float64(got[i*p.padded()+j]), bound, "%s of vector %d of %d, point %d of %d, %d dimensions", k.name, i, n, j, p.n, p.dim)
		}
	}
}

func TestPackedKernelsKnowEachPoint(t *testing.T) {
	r := seeded(30)
	for _, k := range packedKernels() {
		for _, dim := range []int{1, 2, 3, 4, 5, 8, 12, 16, 31, 128} {
			for _, points := range []int{1, 15, 16, 17, 48, 64, 65, 80, 150} {
				for _, n := range []int{1, 3, 4, 5, 9} {
					stride := dim + r.IntN(5)
					flat, x := randomFloats(r, points*dim), guarded(t, randomFloats(r, (n-1)*stride+dim))
					p := pack(dim, flat)
					p.data = guarded(t, p.data)
					got, twin := guarded(t, make([]float32, n*p.padded())), make([]float32, n*p.padded())
					k.kernel(x, stride, n, p.data, dim, got)
					k.twin(x, stride, n, p.data, dim, twin)
					k.require(t, x, stride, n, p, flat, got)
					k.require(t, x, stride, n, p, flat, twin)
					one := make([]float32, p.padded())
					for i := range n {
						k.kernel(x[i*stride:], stride, 1, p.data, dim, one)
						require.Equal(t, one, got[i*p.padded():(i+1)*p.padded()], "the bits depend on the number of vectors")
					}
				}
			}
		}
	}
}

func TestArgminIsTheFirstOfTheLeast(t *testing.T) {
	r := seeded(31)
	for range 2000 {
		v := guarded(t, make([]float32, 16*r.IntN(20)))
		for i := range v {
			switch v[i] = float32(r.IntN(40) - 9); r.IntN(3 + r.IntN(40)) {
			case 0:
				v[i] = float32(math.NaN())
			case 1:
				v[i] = float32(math.Inf(1))
			}
		}
		if r.IntN(10) == 0 && len(v) > 0 {
			v[r.IntN(len(v))] = float32(math.Inf(-1))
		}
		wantAt, want := argminGo(v)
		at, least := argmin(v)
		require.Equal(t, wantAt, at)
		require.Equal(t, want, least)
	}
}

// FuzzPackedKernels looks for a shape in which a packed kernel computes something else than the definition.
func FuzzPackedKernels(f *testing.F) {
	f.Add(uint8(8), uint8(255), uint8(6), uint8(120), uint64(1))
	f.Fuzz(func(t *testing.T, dim, points, n, gap uint8, seed uint64) {
		if dim == 0 || points == 0 || n == 0 {
			return
		}
		r, d, vectors := seeded(seed), int(dim), int(n%20)+1
		stride := d + int(gap)
		flat, x := randomFloats(r, int(points)*d), randomFloats(r, (vectors-1)*stride+d)
		p := pack(d, flat)
		for _, k := range packedKernels() {
			out := make([]float32, vectors*p.padded())
			k.kernel(x, stride, vectors, p.data, d, out)
			k.require(t, x, stride, vectors, p, flat, out)
		}
	})
}
