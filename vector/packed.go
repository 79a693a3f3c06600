package vector

import "math"

// packed holds points in the order in which many distances at once read them: blocks of lanes points, in a block all first
// elements, then all second elements and so on. A kernel then has a point in each lane of its registers, needs no sum over
// lanes at the end, and does as well for the 4 or 8 dimensions of a sub-vector as for 1,536.
//
//	block 0                                              block 1
//	+---------------------+---------------------+-----+------
//	| element 0 of 16 pts | element 1 of 16 pts | ... | ...
//	+---------------------+---------------------+-----+------
//
// The last block is filled up with zeros, whose distances nobody may look at.
type packed struct {
	dim, n int
	data   []float32
}

// lanes is how many points are in a block: two registers of AVX2, four of NEON.
const lanes = 16

// pack copies flat, which holds points of dim elements.
func pack(dim int, flat []float32) packed {
	p := packed{dim: dim, n: len(flat) / dim}
	p.data = make([]float32, (p.n+lanes-1)/lanes*lanes*dim)
	for i := range p.n {
		block := p.data[i/lanes*lanes*dim:]
		for d := range dim {
			block[d*lanes+i%lanes] = flat[i*dim+d]
		}
	}
	return p
}

// padded is the number of points with those that fill up the last block.
func (p *packed) padded() int { return len(p.data) / p.dim }

// distances writes the distances between n vectors and the points of blocks [from, to) to out, a row of (to-from)·lanes
// for each vector. Vector i begins at x[i*stride]. The points that fill up the last block are infinitely far.
func (p *packed) distances(m Metric, x []float32, stride, n, from, to int, out []float32) {
	data, width := p.data[from*lanes*p.dim:to*lanes*p.dim], (to-from)*lanes
	// The kernel is told no lengths, so these slices are its checks.
	_, out = x[:(n-1)*stride+p.dim], out[:n*width]
	if m == Dot {
		dotPacked(x, stride, n, data, p.dim, out)
	} else {
		l2Packed(x, stride, n, data, p.dim, out)
	}
	if to*lanes <= p.n {
		return
	}
	for i := range n {
		row := out[i*width : (i+1)*width]
		for j := p.n - from*lanes; j < width; j++ {
			row[j] = float32(math.Inf(1))
		}
	}
}

// Assignment goes through the points in groups that stay in the cache while a chunk of rows passes, and through the rows of
// a chunk a few at a time, as many as a kernel takes.
const (
	groupBytes = 128 << 10
	groupLanes = 256
	stepRows   = 4
)

// nearest finds the nearest point of each of n vectors: to[i] is its number and dist[i] its distance, or -1 and +Inf if the
// least distance is not finite. Of equally near points it is the first. Vector i begins at x[i*stride].
func (p *packed) nearest(m Metric, x []float32, stride, n int, to []int32, dist []float32) {
	for at := 0; at < n; at += chunkRows {
		end := min(at+chunkRows, n)
		p.nearestOfChunk(m, x[at*stride:], stride, end-at, to[at:end], dist[at:end])
	}
}

func (p *packed) nearestOfChunk(m Metric, x []float32, stride, n int, to []int32, dist []float32) {
	var out [stepRows * groupLanes]float32
	group := max(1, min(groupBytes/(4*p.dim), groupLanes)/lanes)
	blocks := p.padded() / lanes
	for from := 0; from < blocks; from += group {
		end := min(from+group, blocks)
		width := (end - from) * lanes
		for i := 0; i < n; i += stepRows {
			step := min(stepRows, n-i)
			p.distances(m, x[i*stride:], stride, step, from, end, out[:])
			for j := range step {
				at, d := argmin(out[j*width : (j+1)*width])
				if from == 0 {
					to[i+j], dist[i+j] = at, d
				} else if d < dist[i+j] {
					to[i+j], dist[i+j] = at+int32(from*lanes), d
				}
			}
		}
	}
	for i, d := range dist {
		// Under Dot an infinite element is infinitely near.
		if math.IsInf(float64(d), -1) {
			to[i], dist[i] = -1, float32(math.Inf(1))
		}
	}
}
