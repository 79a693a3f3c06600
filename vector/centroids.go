package vector

import (
	"fmt"
	"math"
)

// Centroids are the points around which rows are partitioned, ready to find the nearest for many rows. They are immutable
// and safe for concurrent use.
//
// The metric is L2 or Dot. Under Cosine, Lance normalises rows, queries and centroids' training data and partitions by L2;
// callers do the same with Normalize.
type Centroids struct {
	metric Metric
	dim    int
	flat   []float32
	packed packed
}

// NewCentroids takes k centroids of dim elements. It keeps flat, which must not change any more, beside a copy of its own.
// Numbers that are not finite are refused: a centroid has come from a file, or from the mean of rows that are finite.
func NewCentroids(metric Metric, dim int, flat []float32) (*Centroids, error) {
	switch {
	case metric != L2 && metric != Dot:
		return nil, fmt.Errorf("centroids rank by l2 or dot, not by %v; under cosine normalise and use l2", metric)
	case dim <= 0:
		return nil, fmt.Errorf("centroids of %d dimensions", dim)
	case len(flat) == 0 || len(flat)%dim != 0:
		return nil, fmt.Errorf("%d elements are not centroids of %d dimensions", len(flat), dim)
	case len(flat)/dim > math.MaxInt32:
		return nil, fmt.Errorf("%d centroids, at most %d can be told apart", len(flat)/dim, math.MaxInt32)
	}
	if at := notFinite(flat); at >= 0 {
		return nil, fmt.Errorf("centroid %d has %v as element %d", at/dim, flat[at], at%dim)
	}
	return &Centroids{metric: metric, dim: dim, flat: flat, packed: pack(dim, flat)}, nil
}

// notFinite is the place of the first NaN or infinity, -1 if there is none.
func notFinite(v []float32) int {
	for i, x := range v {
		if x-x != 0 {
			return i
		}
	}
	return -1
}

// Metric is what ranks centroids.
func (c *Centroids) Metric() Metric { return c.metric }

// Dim is the number of elements of a centroid.
func (c *Centroids) Dim() int { return c.dim }

// Len is the number of centroids.
func (c *Centroids) Len() int { return c.packed.n }

// Flat is all centroids, one after the other. It must not be changed.
func (c *Centroids) Flat() []float32 { return c.flat }

// Row is the centroid of partition i. It must not be changed.
func (c *Centroids) Row(i int) []float32 { return c.flat[i*c.dim : (i+1)*c.dim : (i+1)*c.dim] }

// Assign finds the nearest centroid of each row: to[i] is its partition, the lowest of equals, or -1 for a row that has
// none, because it holds a NaN or an infinity or is so large that distances overflow. dist[i] is the distance, +Inf where there is none; dist may be
// nil. len(rows) = len(to)·Dim.
func (c *Centroids) Assign(rows []float32, to []int32, dist []float32) {
	mustShape(c.dim, len(rows), len(to))
	if dist != nil && len(dist) != len(to) {
		panic(fmt.Sprintf("vector: %d rows assigned, room for %d distances", len(to), len(dist)))
	}
	if dist != nil {
		c.packed.nearest(c.metric, rows, c.dim, len(to), to, dist)
		return
	}
	var scratch [chunkRows]float32
	for at := 0; at < len(to); at += chunkRows {
		end := min(at+chunkRows, len(to))
		c.packed.nearest(c.metric, rows[at*c.dim:], c.dim, end-at, to[at:end], scratch[:])
	}
}

// Probe appends the n centroids that are nearest to the query to dst, the nearest first, and returns it; all of them when there are fewer
// than n, none when the query has a NaN. The distances have the last bit of Assign's.
func (c *Centroids) Probe(q []float32, n int, dst []Neighbor) []Neighbor {
	mustShape(c.dim, len(q), 1)
	var out [groupLanes]float32
	top := NewTopK(n)
	blocks := c.packed.padded() / lanes
	for from := 0; from < blocks; from += groupLanes / lanes {
		end := min(from+groupLanes/lanes, blocks)
		c.packed.distances(c.metric, q, c.dim, 1, from, end, out[:])
		top.PushRange(uint64(from*lanes), out[:min(end*lanes, c.Len())-from*lanes])
	}
	return top.AppendSorted(dst)
}

// Residuals writes each row less its partition's centroid to dst, which may be rows itself. This is what product quantisation
// encodes under L2 (Jégou et al. 2011); under Dot, Lance encodes the rows as they are. A row of partition -1 becomes NaN.
func (c *Centroids) Residuals(dst, rows []float32, parts []int32) {
	mustShape(c.dim, len(rows), len(parts))
	mustShape(c.dim, len(dst), len(parts))
	for i, p := range parts {
		row, out := rows[i*c.dim:(i+1)*c.dim], dst[i*c.dim:(i+1)*c.dim]
		if p < 0 {
			for j := range out {
				out[j] = float32(math.NaN())
			}
			continue
		}
		for j, x := range c.Row(int(p)) {
			out[j] = row[j] - x
		}
	}
}
