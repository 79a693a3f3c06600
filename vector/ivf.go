package vector

import (
	"fmt"
	"sync"
)

// IVF is the model of an inverted file (Jégou, Douze, Schmid 2011), the one truth of how a vector gets its partition and its code: the
// index on disk and those in memory share it, so that codes move between them as they are. It is immutable and safe for
// concurrent use.
//
// The rules are Lance's. Partitions are those of the nearest centroid: by L2, under Dot by Dot. Under Cosine rows and queries are scaled to
// length 1 first and then treated as under L2. Product quantisation encodes what a row differs from its centroid by under L2 and
// Cosine, and the row as it is under Dot. Without product quantisation (IVF_FLAT) there are no codes.
//
// A row with a NaN or an infinity, a row so large that distances overflow, and a row of zeros under Cosine have partition -1: no
// index takes them.
type IVF struct {
	metric    Metric
	centroids *Centroids
	pq        *PQ
	scratch   sync.Pool // of *[]float32, chunkRows·Dim elements
}

// NewIVF joins centroids and a product quantiser, nil if there is none, for a metric, which is L2, Cosine or Dot.
func NewIVF(m Metric, c *Centroids, pq *PQ) (*IVF, error) {
	want := m
	switch {
	case m == Cosine:
		want = L2
	case m != L2 && m != Dot:
		return nil, fmt.Errorf("no inverted file for metric %v; it is l2, cosine or dot", m)
	}
	if c.Metric() != want {
		return nil, fmt.Errorf("centroids of metric %v; under %v they rank by %v", c.Metric(), m, want)
	}
	if pq != nil && pq.Dim() != c.Dim() {
		return nil, fmt.Errorf("product quantisation of %d dimensions, centroids of %d", pq.Dim(), c.Dim())
	}
	v := &IVF{metric: m, centroids: c, pq: pq}
	v.scratch.New = func() any {
		rows := make([]float32, chunkRows*c.Dim())
		return &rows
	}
	return v, nil
}

// Metric is what ranks rows.
func (v *IVF) Metric() Metric { return v.metric }

// Centroids are the centres of the partitions.
func (v *IVF) Centroids() *Centroids { return v.centroids }

// PQ makes the codes, nil if there are none.
func (v *IVF) PQ() *PQ { return v.pq }

// Dim is the number of elements of a vector.
func (v *IVF) Dim() int { return v.centroids.Dim() }

// Partitions is the number of partitions.
func (v *IVF) Partitions() int { return v.centroids.Len() }

// CodeBytes is the length of a row's code, 0 if there are none.
func (v *IVF) CodeBytes() int {
	if v.pq == nil {
		return 0
	}
	return v.pq.CodeBytes()
}

// Residual reports whether codes are those of residuals, so that the table of a query differs from partition to partition.
func (v *IVF) Residual() bool { return v.pq != nil && v.metric != Dot }

// Prepare writes rows as partitions and codes are computed from them to dst, which may be rows itself: scaled to length 1 under Cosine,
// else as they are.
func (v *IVF) Prepare(dst, rows []float32) {
	if v.metric == Cosine {
		Normalize(v.Dim(), dst, rows)
		return
	}
	mustShape(1, len(dst), len(rows))
	copy(dst, rows)
}

// Assign writes the partition of each row to parts, -1 for a row that no index takes. Rows are as they came, under Cosine of
// any length.
func (v *IVF) Assign(rows []float32, parts []int32) { v.each(rows, parts, nil, true) }

// Encode writes the codes of rows, whose partitions are known, to codes, which stand in rows. The code of a row of partition -1 means
// nothing. There is a product quantiser.
func (v *IVF) Encode(rows []float32, parts []int32, codes []byte) { v.each(rows, parts, codes, false) }

// AssignEncode is Assign and Encode at once, for less than both; without a product quantiser it is Assign and codes are nil.
func (v *IVF) AssignEncode(rows []float32, parts []int32, codes []byte) {
	v.each(rows, parts, codes, true)
}

// each goes over the rows in chunks that stay in the cache from the scaling to the codes.
func (v *IVF) each(rows []float32, parts []int32, codes []byte, assign bool) {
	dim, width := v.Dim(), 0
	mustShape(dim, len(rows), len(parts))
	encode := v.pq != nil && (codes != nil || !assign)
	if encode {
		width = v.pq.CodeBytes()
	}
	if encode || codes != nil {
		mustShape(width, len(codes), len(parts))
	}
	held := v.scratch.Get().(*[]float32)
	defer v.scratch.Put(held)
	for at := 0; at < len(parts); at += chunkRows {
		n := min(chunkRows, len(parts)-at)
		chunk, to := rows[at*dim:(at+n)*dim], parts[at:at+n]
		if v.metric == Cosine {
			v.Prepare((*held)[:n*dim], chunk)
			chunk = (*held)[:n*dim]
		}
		if assign {
			v.centroids.Assign(chunk, to, nil)
		}
		if !encode {
			continue
		}
		if v.Residual() {
			v.centroids.Residuals((*held)[:n*dim], chunk, to)
			chunk = (*held)[:n*dim]
		}
		v.pq.Encode(chunk, codes[at*width:(at+n)*width])
	}
}

// Probe appends the n partitions that are nearest to a query to dst, the nearest first. The query is one that Prepare made.
func (v *IVF) Probe(q []float32, n int, dst []Neighbor) []Neighbor {
	return v.centroids.Probe(q, n, dst)
}

// Table fills t with the distances of a query to the codes of a partition. The query is one that Prepare made; scratch has Dim
// elements and is overwritten. Unless Residual, t serves all partitions.
func (v *IVF) Table(q []float32, part int, scratch []float32, t *Table) {
	if !v.Residual() {
		v.pq.Table(v.centroids.Metric(), q, t)
		return
	}
	for i, x := range v.centroids.Row(part) {
		scratch[i] = q[i] - x
	}
	v.pq.Table(L2, scratch[:v.Dim()], t)
}

// Distance is the distance under Metric for one that Table or L2 over prepared rows gives.
func (v *IVF) Distance(d float32) float32 {
	if v.metric == Cosine {
		return d / 2
	}
	return d
}
