package vector

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// seeded is a generator of its own for each test, so that a failure repeats.
func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

func randomFloats(r *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

// rowKernel is a kernel of one query and many rows, and what it should compute: the sum of terms, and the sum of their
// absolute values, which bounds the rounding.
type rowKernel struct {
	name         string
	kernel, twin func(q, rows, out []float32)
	term         func(a, b float64) float64
}

func rowKernels() []rowKernel {
	first := func(f func(q, rows, dots, squares []float32)) func(q, rows, out []float32) {
		return func(q, rows, out []float32) { f(q, rows, out, make([]float32, len(out))) }
	}
	second := func(f func(q, rows, dots, squares []float32)) func(q, rows, out []float32) {
		return func(q, rows, out []float32) { f(q, rows, make([]float32, len(out)), out) }
	}
	l2 := func(a, b float64) float64 { return (a - b) * (a - b) }
	dot := func(a, b float64) float64 { return a * b }
	square := func(_, b float64) float64 { return b * b }
	return []rowKernel{
		{"l2", l2Rows, l2RowsGo, l2},
		{"dot", dotRows, dotRowsGo, dot},
		{"dot of both", first(dotSquareRows), first(dotSquareRowsGo), dot},
		{"square of both", second(dotSquareRows), second(dotSquareRowsGo), square},
	}
}

// sums is the oracle's oracle: the sum of terms in float64, and that of their absolute values.
func (k rowKernel) sums(q, row []float32) (sum, abs float64) {
	for i := range q {
		t := k.term(float64(q[i]), float64(row[i]))
		sum += t
		abs += math.Abs(t)
	}
	return sum, abs
}

// requireSums checks a kernel's outputs within the bound of doc.go.
func requireSums(t *testing.T, k rowKernel, q, rows, got []float32) {
	t.Helper()
	for i, g := range got {
		want, abs := k.sums(q, rows[i*len(q):(i+1)*len(q)])
		require.InDelta(t, want, float64(g), float64(len(q)+4)*0x1p-24*abs, "%s, row %d of %d, %d dimensions", k.name, i, len(got), len(q))
	}
}

// kernelDims has each tail up to a whole step of all kernels and a few beyond.
func kernelDims() []int {
	var dims []int
	for d := range 65 {
		dims = append(dims, d)
	}
	return append(dims, 96, 100, 127, 128, 129, 384, 784, 1000, 1536)
}

func TestRowKernelsSumWhatTheyShould(t *testing.T) {
	r := seeded(1)
	for _, k := range rowKernels() {
		for _, dim := range kernelDims() {
			for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 11} {
				offset := r.IntN(8)
				q := randomFloats(r, offset+dim)[offset:]
				rows := randomFloats(r, offset+1+n*dim)[offset+1:]
				got, twin := make([]float32, n+1), make([]float32, n+1)
				got[n], twin[n] = 42, 42
				k.kernel(q, rows, got[:n])
				k.twin(q, rows, twin[:n])
				requireSums(t, k, q, rows, got[:n])
				requireSums(t, k, q, rows, twin[:n])
				require.Equal(t, float32(42), got[n], "%s wrote behind its output", k.name)
			}
		}
	}
}

func TestADistanceDoesNotDependOnItsPlace(t *testing.T) {
	r := seeded(2)
	for _, k := range rowKernels() {
		for _, dim := range kernelDims() {
			const n = 11
			q, rows := randomFloats(r, dim), randomFloats(r, n*dim)
			all, one := make([]float32, n), make([]float32, 1)
			k.kernel(q, rows, all)
			for i := range n {
				k.kernel(q, rows[i*dim:(i+1)*dim], one)
				require.Equal(t, math.Float32bits(one[0]), math.Float32bits(all[i]), "%s, row %d, %d dimensions", k.name, i, dim)
			}
		}
	}
}

func TestKernelsCarrySpecialValues(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, k := range rowKernels() {
		for _, dim := range []int{1, 7, 8, 15, 16, 17, 40} {
			for at := range dim {
				for _, special := range []float32{inf, -inf, nan} {
					const n = 6
					q, rows := randomFloats(seeded(3), dim), randomFloats(seeded(4), n*dim)
					for i := range q {
						q[i] = 1 + q[i]*q[i]
					}
					rows[2*dim+at], rows[5*dim+at] = special, special
					got, twin := make([]float32, n), make([]float32, n)
					k.kernel(q, rows, got)
					k.twin(q, rows, twin)
					for i := range got {
						message := fmt.Sprintf("%s of %v at %d of %d, row %d", k.name, special, at, dim, i)
						require.Equal(t, math.IsNaN(float64(twin[i])), math.IsNaN(float64(got[i])), message)
						require.Equal(t, math.IsInf(float64(twin[i]), 1), math.IsInf(float64(got[i]), 1), message)
						require.Equal(t, math.IsInf(float64(twin[i]), -1), math.IsInf(float64(got[i]), -1), message)
						require.Equal(t, i == 2 || i == 5, math.IsNaN(float64(got[i])) || math.IsInf(float64(got[i]), 0), message)
					}
				}
			}
		}
	}
}

// FuzzRowKernels looks for a shape in which a kernel computes something else than its twin.
func FuzzRowKernels(f *testing.F) {
	f.Add(uint16(128), uint8(9), uint8(1), uint64(1))
	f.Add(uint16(0), uint8(0), uint8(0), uint64(0))
	f.Fuzz(func(t *testing.T, dim uint16, n, offset uint8, seed uint64) {
		d, rows, at := int(dim%2048), int(n%40), int(offset%16)
		r := seeded(seed)
		q, data := randomFloats(r, d+at)[at:], randomFloats(r, rows*d+at)[at:]
		for _, k := range rowKernels() {
			out := make([]float32, rows)
			k.kernel(q, data, out)
			requireSums(t, k, q, data, out)
			k.twin(q, data, out)
			requireSums(t, k, q, data, out)
		}
	})
}
