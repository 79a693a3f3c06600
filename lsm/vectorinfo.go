package lsm

import (
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/vector"
)

// VectorIndexInfo is what IndexInfo tells of an index over vectors.
type VectorIndexInfo struct {
	// Metric ranks its rows.
	Metric string
	// Partitions, SubVectors and Bits are those of its model, all 0 while there is none, because the table has too few rows; SubVectors
	// and Bits are 0 for an IVF_FLAT, too.
	Partitions, SubVectors, Bits int
}

// countVectors is count for an index over vectors.
func (x *IndexInfo) countVectors(set *layerSet, e indexEntry) {
	x.Vectors = &VectorIndexInfo{Metric: vector.L2.String()}
	if o := e.Options[optionMetric]; o != "" {
		x.Vectors.Metric = strings.ToLower(o)
	}
	model, ok := set.base.modelOf(e)
	if ok {
		x.Vectors.Metric, x.Vectors.Partitions = model.ivf.Metric().String(), model.ivf.Partitions()
		if pq := model.ivf.PQ(); pq != nil {
			x.Vectors.SubVectors, x.Vectors.Bits = pq.SubVectors(), pq.Bits()
		}
	}
	found := roaring.New()
	for _, s := range set.base.vectorsOf(e) {
		found.Or(s.meta.Fragments)
		x.Segments++
		x.Bytes += fileBytesOf(s.meta)
	}
	for _, f := range set.base.frags {
		x.rows(f.live, found.Contains(uint32(f.id)))
	}
	for _, c := range set.chains {
		for _, l := range c.layers {
			switch l := l.layer.(type) {
			case *generation:
				seg := l.vectorOf(e)
				if x.rows(l.frag.live, seg != nil && ok); seg != nil {
					x.Bytes += fileBytesOf(seg.meta)
				}
			case *memtable:
				all, known := l.rows.Load(), int64(0)
				if ok {
					if v := l.keptVector(model); v != nil {
						known = all.indexed().rowCount()
						x.MemoryBytes += v.index.MemoryBytes()
					}
				}
				x.rows(known, true)
				x.rows(all.rowCount()-known, false)
			}
		}
	}
}
