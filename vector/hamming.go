package vector

import "fmt"

// HammingDistances writes the number of bits in which q and each row differ to out: len(rows) = len(q)·len(out).
func HammingDistances(q, rows []byte, out []float32) {
	mustShape(len(q), len(rows), len(out))
	hammingRows(q, rows, out)
}

// HammingDistance is the number of bits in which two vectors of one length differ.
func HammingDistance(a, b []byte) float32 {
	if len(a) != len(b) {
		panic(fmt.Sprintf("vector: vectors of %d and %d bytes compared", len(a), len(b)))
	}
	var out [1]float32
	hammingRows(a, b, out[:])
	return out[0]
}
