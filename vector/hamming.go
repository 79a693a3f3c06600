package vector

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// HammingDistances writes the number of bits in which q and each row differ to out: len(rows) = len(q)·len(out).
//
// It has no assembly: the compiler makes POPCNT of OnesCount64, and eight bytes a cycle are as many as memory gives.
func HammingDistances(q, rows []byte, out []float32) {
	mustShape(len(q), len(rows), len(out))
	for i := range out {
		out[i] = float32(differing(q, rows[i*len(q):(i+1)*len(q)]))
	}
}

// HammingDistance is the number of bits in which two vectors of one length differ.
func HammingDistance(a, b []byte) float32 {
	if len(a) != len(b) {
		panic(fmt.Sprintf("vector: vectors of %d and %d bytes compared", len(a), len(b)))
	}
	return float32(differing(a, b))
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
