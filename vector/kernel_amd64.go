//go:build !purego

package vector

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// accelerated says that the machine has what the assembly needs.
var accelerated = cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C

// The assembly takes pointers, so that a call passes five words and not a dozen. unsafe.SliceData gives them; the lengths
// have been checked, and where n is 0 nothing is read or written.

//go:noescape
func l2RowsAVX2(q, rows, out *float32, dim, n int)

//go:noescape
func dotRowsAVX2(q, rows, out *float32, dim, n int)

//go:noescape
func dotSquareRowsAVX2(q, rows, dots, squares *float32, dim, n int)

//go:noescape
func widenF16C(dst *float32, src *uint16, n int)

//go:noescape
func narrowF16C(dst *uint16, src *float32, n int)

// l2Rows writes the L2 distance of q to each row.
func l2Rows(q, rows, out []float32) {
	if !accelerated {
		l2RowsGo(q, rows, out)
		return
	}
	l2RowsAVX2(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(out), len(q), len(out))
}

// dotRows writes the dot product of q and each row.
func dotRows(q, rows, out []float32) {
	if !accelerated {
		dotRowsGo(q, rows, out)
		return
	}
	dotRowsAVX2(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(out), len(q), len(out))
}

// dotSquareRows writes the dot product of q and each row, and that of each row with itself.
func dotSquareRows(q, rows, dots, squares []float32) {
	if !accelerated {
		dotSquareRowsGo(q, rows, dots, squares)
		return
	}
	dotSquareRowsAVX2(unsafe.SliceData(q), unsafe.SliceData(rows), unsafe.SliceData(dots), unsafe.SliceData(squares), len(q), len(dots))
}

// widen converts binary16 to float32. The kernel takes eight at a time.
func widen(dst []float32, src []uint16) {
	n := 0
	if accelerated {
		n = len(src) &^ 7
		widenF16C(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	widenGo(dst[n:], src[n:])
}

// narrow converts float32 to binary16. The kernel takes eight at a time.
func narrow(dst []uint16, src []float32) {
	n := 0
	if accelerated {
		n = len(src) &^ 7
		narrowF16C(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	narrowGo(dst[n:], src[n:])
}
