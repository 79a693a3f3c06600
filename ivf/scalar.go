package ivf

import (
	"fmt"
	"math"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/vector"
)

// sqMeta is the JSON of metaStorage for IVF_SQ and IVF_HNSW_SQ: each element is a byte, its part of the way from the least to the
// greatest.
type sqMeta struct {
	Dim    int `json:"dim"`
	Bits   int `json:"num_bits"`
	Bounds struct {
		Start float64 `json:"start"`
		End   float64 `json:"end"`
	} `json:"bounds"`
}

// scalar turns the bytes of scalar quantisation into numbers.
type scalar [256]float32

// readScalar reads how the elements of vectors were quantised.
func readScalar(r *lance.Reader, dim int) (*scalar, error) {
	var m sqMeta
	if err := readStorage(r, &m); err != nil {
		return nil, err
	}
	span := m.Bounds.End - m.Bounds.Start
	switch {
	case m.Bits != 8:
		return nil, fmt.Errorf("scalar quantisation with %d bits: %w", m.Bits, errUnsupported)
	case m.Dim != dim:
		return nil, fmt.Errorf("scalar quantisation of %d dimensions, centroids of %d", m.Dim, dim)
	case !(span >= 0) || math.Abs(m.Bounds.Start) > math.MaxFloat32 || math.Abs(m.Bounds.End) > math.MaxFloat32:
		return nil, fmt.Errorf("scalar quantisation from %v to %v", m.Bounds.Start, m.Bounds.End)
	}
	s := &scalar{}
	for code := range s {
		// Lance rounds down, so the middle of a step is nearest to what was there; the greatest number has a step of its own.
		s[code] = float32(m.Bounds.Start + math.Min(float64(code)+0.5, 255)*span/255)
	}
	return s, nil
}

// scalarRows is how many rows are decoded at a time: with 1,536 dimensions they are 384 KiB.
const scalarRows = 64

// scalars offers rows that are quantised by element.
func (s *Search) scalars(p *partition) {
	dim := s.x.dim
	if cap(s.decoded) < scalarRows*dim {
		s.decoded = make([]float32, scalarRows*dim)
	}
	for at := 0; at < len(p.ids); at += scalarRows {
		n := min(scalarRows, len(p.ids)-at)
		rows := s.decoded[:n*dim]
		for i, code := range p.codes[at*dim : (at+n)*dim] {
			rows[i] = s.x.scalar[code]
		}
		vector.Distances(s.x.metric, s.query, rows, s.dist[:n])
		s.offer(p.ids[at:at+n], s.dist[:n])
	}
}
