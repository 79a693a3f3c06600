package vector

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The twins: each kernel in plain Go, the oracle of the assembly and what machines without it run. Four sums break the
// chain of additions, which alone makes them more than twice as fast as one.

func l2RowsGo(q, rows, out []float32) {
	for i := range out {
		out[i] = l2Go(q, rows[i*len(q):(i+1)*len(q)])
	}
}

func dotRowsGo(q, rows, out []float32) {
	for i := range out {
		out[i] = dotGo(q, rows[i*len(q):(i+1)*len(q)])
	}
}

func dotSquareRowsGo(q, rows, dots, squares []float32) {
	for i := range dots {
		row := rows[i*len(q) : (i+1)*len(q)]
		dots[i], squares[i] = dotGo(q, row), dotGo(row, row)
	}
}

func l2Go(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	for ; len(a) >= 4; a, b = a[4:], b[4:] {
		d0, d1, d2, d3 := a[0]-b[0], a[1]-b[1], a[2]-b[2], a[3]-b[3]
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
	}
	for i, x := range a {
		d := x - b[i]
		s0 += d * d
	}
	return (s0 + s1) + (s2 + s3)
}

func dotGo(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	for ; len(a) >= 4; a, b = a[4:], b[4:] {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

func widenGo(dst []float32, src []uint16) {
	for i, h := range src {
		dst[i] = widenOne(h)
	}
}

func narrowGo(dst []uint16, src []float32) {
	for i, f := range src {
		dst[i] = narrowOne(f)
	}
}

func l2PackedGo(x []float32, stride, n int, data []float32, dim int, out []float32) {
	width := len(data) / dim
	for i := range n {
		v := x[i*stride:][:dim]
		for b := 0; b < width; b += lanes {
			var sums [lanes]float32
			block := data[b*dim : (b+lanes)*dim]
			for d, a := range v {
				points := (*[lanes]float32)(block[d*lanes:])
				for l, c := range points {
					diff := a - c
					sums[l] += diff * diff
				}
			}
			copy(out[i*width+b:], sums[:])
		}
	}
}

func dotPackedGo(x []float32, stride, n int, data []float32, dim int, out []float32) {
	width := len(data) / dim
	for i := range n {
		v := x[i*stride:][:dim]
		for b := 0; b < width; b += lanes {
			var sums [lanes]float32
			block := data[b*dim : (b+lanes)*dim]
			for d, a := range v {
				points := (*[lanes]float32)(block[d*lanes:])
				for l, c := range points {
					sums[l] += a * c
				}
			}
			for l, s := range sums {
				out[i*width+b+l] = 1 - s
			}
		}
	}
}

func argminGo(v []float32) (int32, float32) {
	at, least := int32(-1), float32(math.Inf(1))
	for i, x := range v {
		if x < least {
			at, least = int32(i), x
		}
	}
	return at, least
}

func fastScanGo(steps, blocks []byte, sums []uint16) {
	clear(sums)
	width := len(steps) / 32
	for i := range sums {
		block := blocks[i/BlockRows*BlockRows*width:]
		for j := range width {
			c := block[j*BlockRows+i%BlockRows]
			sums[i] += uint16(steps[j*32+int(c&15)]) + uint16(steps[j*32+16+int(c>>4)])
		}
	}
}

func hammingRowsGo(q, rows []byte, out []float32) {
	for i := range out {
		out[i] = float32(differing(q, rows[i*len(q):(i+1)*len(q)]))
	}
}

func differing(a, b []byte) int {
	n := 0
	for ; len(a) >= 8 && len(b) >= 8; a, b = a[8:], b[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(a) ^ binary.LittleEndian.Uint64(b))
	}
	for i, x := range a {
		n += bits.OnesCount8(x ^ b[i])
	}
	return n
}
