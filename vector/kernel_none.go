//go:build purego || !(amd64 || arm64)

package vector

// accelerated is false: there is no assembly in this build.
const accelerated = false

func l2Rows(q, rows, out []float32)                  { l2RowsGo(q, rows, out) }
func dotRows(q, rows, out []float32)                 { dotRowsGo(q, rows, out) }
func dotSquareRows(q, rows, dots, squares []float32) { dotSquareRowsGo(q, rows, dots, squares) }
func widen(dst []float32, src []uint16)              { widenGo(dst, src) }
func narrow(dst []uint16, src []float32)             { narrowGo(dst, src) }

func l2Packed(x []float32, stride, n int, data []float32, dim int, out []float32) {
	l2PackedGo(x, stride, n, data, dim, out)
}

func dotPacked(x []float32, stride, n int, data []float32, dim int, out []float32) {
	dotPackedGo(x, stride, n, data, dim, out)
}

func argmin(v []float32) (int32, float32) { return argminGo(v) }

func fastScan(steps, blocks []byte, sums []uint16) { fastScanGo(steps, blocks, sums) }

func hammingRows(q, rows []byte, out []float32) { hammingRowsGo(q, rows, out) }
