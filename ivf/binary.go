package ivf

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/vector"
)

// byteElement is that of binary vectors, which have IVF_FLAT under hamming only.
var byteElement = element{arrow.PrimitiveTypes.Uint8, lancepb.TensorType_TENSOR_UINT8, 1}

// readBinaryCentroids returns the centroids of binary vectors and the bytes that each has. A bit becomes an element, 0 or 1: then the
// square of their distance is the number of bits in which they differ, and they are probed as others are.
func readBinaryCentroids(m *lancepb.IVF) (*vector.Centroids, int, error) {
	t := m.GetCentroidsTensor()
	shape := t.GetShape()
	if t.GetDataType() != byteElement.tensor {
		return nil, 0, fmt.Errorf("centroids of %v under hamming: %w", t.GetDataType(), errUnsupported)
	}
	if len(shape) != 2 || shape[0] == 0 || shape[1] == 0 || shape[1] > math.MaxInt32/8 || uint64(shape[0])*uint64(shape[1]) != uint64(len(t.GetData())) {
		return nil, 0, fmt.Errorf("%d bytes are no tensor of shape %v", len(t.GetData()), shape)
	}
	c, err := vector.NewCentroids(vector.L2, 8*int(shape[1]), bitsOf(nil, t.GetData()))
	return c, int(shape[1]), err
}

// bitsOf appends an element for each bit.
func bitsOf(dst []float32, data []byte) []float32 {
	for _, b := range data {
		for i := range 8 {
			dst = append(dst, float32(b>>i&1))
		}
	}
	return dst
}

// binaryQuery makes bytes of a query, and of them what is probed with.
func (s *Search) binaryQuery(q []float32) error {
	s.bytes = s.bytes[:0]
	for i, v := range q {
		if v != float32(byte(max(min(v, math.MaxUint8), 0))) {
			return fmt.Errorf("a query for binary vectors with %v in element %d, which is no byte", v, i)
		}
		s.bytes = append(s.bytes, byte(v))
	}
	s.query = bitsOf(s.query[:0], s.bytes)
	return nil
}

// binary offers binary vectors.
func (s *Search) binary(p *partition) {
	dim := s.x.dim
	for at := 0; at < len(p.ids); at += chunkRows {
		n := min(chunkRows, len(p.ids)-at)
		vector.HammingDistances(s.bytes, p.codes[at*dim:(at+n)*dim], s.dist[:n])
		s.offer(p.ids[at:at+n], s.dist[:n])
	}
}
