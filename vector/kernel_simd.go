//go:build !purego && (amd64 || arm64)

package vector

import "unsafe"

// The assembly takes pointers, so that a call passes five words and not a dozen. unsafe.SliceData gives them; the lengths
// have been checked, and where n is 0 nothing is read or written.

//go:noescape
func l2RowsSIMD(q, rows, out *float32, dim, n int)

//go:noescape
func dotRowsSIMD(q, rows, out *float32, dim, n int)

//go:noescape
func dotSquareRowsSIMD(q, rows, dots, squares *float32, dim, n int)

//go:noescape
func widenSIMD(dst *float32, src *uint16, n int)

//go:noescape
func narrowSIMD(dst *uint16, src *float32, n int)

//go:noescape
func l2PackedSIMD(x *float32, stride, n int, data *float32, dim int, out *float32, blocks int)

//go:noescape
func dotPackedSIMD(x *float32, stride, n int, data *float32, dim int, out *float32, blocks int)

//go:noescape
func argminSIMD(v *float32, n int) (at int32, least float32)

//go:noescape
func hammingRowsSIMD(q, rows *byte, out *float32, dim, n int)

//go:noescape
func fastScanSIMD(steps, blocks *byte, width, n int, sums *uint16)

// l2Rows writes the L2 distance of q to each row.
func l2Rows(q, rows, out []float32) {
	if !accelerated {
		l2RowsGo(q, rows, out)
		return
	}
	l2RowsSIMD(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(out), len(q), len(out))
}

// dotRows writes the dot product of q and each row.
func dotRows(q, rows, out []float32) {
	if !accelerated {
		dotRowsGo(q, rows, out)
		return
	}
	dotRowsSIMD(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(out), len(q), len(out))
}

// dotSquareRows writes the dot product of q and each row, and that of each row with itself.
func dotSquareRows(q, rows, dots, squares []float32) {
	if !accelerated {
		dotSquareRowsGo(q, rows, dots, squares)
		return
	}
	dotSquareRowsSIMD(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(dots), unsafe.SliceData(squares), len(q), len(dots))
}

// widen converts binary16 to float32. The kernel takes eight at a time.
func widen(dst []float32, src []uint16) {
	n := 0
	if accelerated {
		n = len(src) &^ 7
		widenSIMD(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	widenGo(dst[n:], src[n:])
}

// narrow converts float32 to binary16. The kernel takes eight at a time.
func narrow(dst []uint16, src []float32) {
	n := 0
	if accelerated {
		n = len(src) &^ 7
		narrowSIMD(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	narrowGo(dst[n:], src[n:])
}

// l2Packed writes the L2 distances between n vectors, the i-th at x[i*stride], and the points in data, which packed
// describes: a row for each vector.
func l2Packed(x []float32, stride, n int, data []float32, dim int, out []float32) {
	if !accelerated {
		l2PackedGo(x, stride, n, data, dim, out)
		return
	}
	l2PackedSIMD(unsafe.SliceData(x), stride, n, unsafe.SliceData(data), dim, unsafe.SliceData(out), len(data)/dim/lanes)
}

// dotPacked is l2Packed for the metric Dot.
func dotPacked(x []float32, stride, n int, data []float32, dim int, out []float32) {
	if !accelerated {
		dotPackedGo(x, stride, n, data, dim, out)
		return
	}
	dotPackedSIMD(unsafe.SliceData(x), stride, n, unsafe.SliceData(data), dim, unsafe.SliceData(out), len(data)/dim/lanes)
}

// argmin returns the place of the least number below +Inf, the first of equals, and the number; -1 and +Inf if there is
// none. NaN is not less than anything. The length is a multiple of sixteen.
func argmin(v []float32) (int32, float32) {
	if !accelerated {
		return argminGo(v)
	}
	return argminSIMD(unsafe.SliceData(v), len(v))
}

// fastScan adds the steps of each row's code: 32 steps for each byte of it, 32 rows to a block.
func fastScan(steps, blocks []byte, sums []uint16) {
	if !accelerated {
		fastScanGo(steps, blocks, sums)
		return
	}
	fastScanSIMD(unsafe.SliceData(steps), unsafe.SliceData(blocks), len(steps)/32, len(sums)/BlockRows, unsafe.SliceData(sums))
}

// hammingRows writes the number of bits in which q and each row differ.
func hammingRows(q, rows []byte, out []float32) {
	if !accelerated {
		hammingRowsGo(q, rows, out)
		return
	}
	hammingRowsSIMD(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(out), len(q), len(out))
}
