package ivf

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"weak"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/vector"
)

// Models lets open indexes share their models: those of one index's segments, and of the generations of a table, are the same nearly always, and
// each is centroids and code words twice (4,096 centroids of 128 dimensions: 4 MiB). It holds none: a model goes with the last
// index that has it. The zero value is ready to use, by any number of goroutines.
type Models struct {
	mu sync.Mutex
	// held is guarded by mu.
	held map[modelKey]weak.Pointer[vector.IVF]
}

// modelKey is a hash of all that a model is made of.
type modelKey [sha256.Size]byte

// newModelKey returns the key of a model by what the files of an index have of it. codebook is nil without product quantisation.
func newModelKey(metric vector.Metric, m *lancepb.IVF, codebook *pqBook) modelKey {
	h := sha256.New()
	var b []byte
	part := func(kind byte, data []byte) {
		b = binary.LittleEndian.AppendUint64(append(b[:0], kind), uint64(len(data)))
		h.Write(b)
		h.Write(data)
	}
	part('m', []byte(metric.String()))
	tensor := func(kind byte, t *lancepb.Tensor) {
		part(kind, []byte(t.GetDataType().String()))
		for _, n := range t.GetShape() {
			part('s', binary.LittleEndian.AppendUint32(nil, n))
		}
		part('d', t.GetData())
	}
	tensor('c', m.GetCentroidsTensor())
	if codebook != nil {
		part('q', []byte{byte(codebook.meta.Bits)})
		part('q', binary.LittleEndian.AppendUint64(nil, uint64(codebook.meta.SubVectors)))
		tensor('b', codebook.tensor)
	}
	return modelKey(h.Sum(nil))
}

// get returns a model that is open somewhere, nil without one. A nil Models has none.
func (s *Models) get(key modelKey) *vector.IVF {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[key].Value()
}

// put makes a model known and returns the one to use: that of another, which was quicker, or the model itself.
func (s *Models) put(key modelKey, m *vector.IVF) *vector.IVF {
	if s == nil {
		return m
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.held[key].Value(); other != nil {
		return other
	}
	if s.held == nil {
		s.held = map[modelKey]weak.Pointer[vector.IVF]{}
	}
	for k, p := range s.held {
		if p.Value() == nil {
			delete(s.held, k)
		}
	}
	s.held[key] = weak.Make(m)
	return m
}
