package ivf

import (
	"context"
	"fmt"
	"math"

	"github.com/flightd/flightd/vector"
)

// SearchOptions say what a search looks for.
type SearchOptions struct {
	// NProbes is how many partitions are looked into, the nearest ones; 0 means 20, as in Lance's extension of DuckDB.
	NProbes int
	// Limit is how many rows are wanted. It is positive.
	Limit int
	// Keep tells whether a row may be in the answer; nil keeps all. It is called for rows that are near enough, from the searching
	// goroutine only.
	Keep func(id uint64) bool
}

// defaultProbes is Lance's own choice.
const defaultProbes = 20

// leastCandidates is how many rows are looked at again at least. A row that is at hand costs some 30 ns; on vectors of texts of 128 dimensions (64
// partitions, 16 sub-vectors of 8 bits, 16 of them probed) 64 rows instead of 40 bring recall@10 from .954 to .970.
const leastCandidates = 64

// Candidates is how many rows to ask an index for when k are wanted and refine times as many shall be looked at again, by their own
// distances: refine times k, and no fewer than is cheap.
func Candidates(k, refine int) int {
	if k > math.MaxInt/max(refine, 1) {
		return math.MaxInt
	}
	return max(k*max(refine, 1), leastCandidates)
}

// Search returns the rows that are nearest to a query by what the index knows of them, the nearest first: at most Limit, fewer if the
// partitions have no more that are kept. Distances are approximate with product quantisation, so a caller asks for more rows than it needs and
// computes theirs from the rows themselves.
func (x *Index) Search(ctx context.Context, q []float32, o SearchOptions) ([]vector.Neighbor, error) {
	s, err := x.Start(q, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if o.NProbes == 0 {
		o.NProbes = defaultProbes
	}
	if _, err := s.Probe(ctx, o.NProbes); err != nil {
		return nil, err
	}
	return s.Neighbors(nil), nil
}

// Search is a search that can be widened. It belongs to one goroutine.
type Search struct {
	x    *Index
	keep func(id uint64) bool
	// order is the partitions from the nearest on, as many as were needed so far; probed of them are done.
	order  []vector.Neighbor
	probed int
	seen   int64
	top    *vector.TopK
	// tabled is set when the table is that of the query: without residuals one serves all partitions.
	tabled bool
	*scratch
}

// scratch is the memory of a search, which the next one takes over.
type scratch struct {
	query []float32 // as the model prepared it
	diff  []float32 // its difference from a centroid
	table vector.Table
	fast  vector.FastTable
	dist  []float32
	sums  []uint16
	block []byte
	// decoded is rows of IVF_SQ, bytes the query for binary vectors.
	decoded []float32
	bytes   []byte
}

// chunkRows is how many distances are computed before they are looked at: they stay in the first cache. It is a multiple
// of vector.BlockRows.
const chunkRows = 1024

// Start begins a search. Nothing is read before Probe.
func (x *Index) Start(q []float32, o SearchOptions) (*Search, error) {
	dim := x.dim
	if len(q) != dim {
		return nil, fmt.Errorf("a query of %d dimensions, the index %s has %d", len(q), x.dir, dim)
	}
	if o.Limit <= 0 || o.NProbes < 0 {
		return nil, fmt.Errorf("a search for %d rows in %d partitions; rows are at least 1", o.Limit, o.NProbes)
	}
	for i, v := range q {
		if v-v != 0 {
			return nil, fmt.Errorf("a query with %v in element %d has no neighbours", v, i)
		}
	}
	w, _ := x.scratches.Get().(*scratch)
	if w == nil {
		w = &scratch{query: make([]float32, dim), diff: make([]float32, dim), dist: make([]float32, chunkRows), sums: make([]uint16, chunkRows)}
	}
	out := &Search{x: x, keep: o.Keep, top: vector.NewTopK(o.Limit), scratch: w}
	if err := out.prepare(q); err != nil {
		out.Close()
		return nil, err
	}
	return out, nil
}

// prepare makes of a query what is probed with.
func (s *Search) prepare(q []float32) error {
	if s.x.metric == vector.Hamming {
		return s.binaryQuery(q)
	}
	s.x.model.Prepare(s.query, q)
	if v := s.query[0]; v-v != 0 {
		return fmt.Errorf("a query of length %v has no neighbours under %s", vector.Norm(q), s.x.metric)
	}
	return nil
}

// Probe looks into the next n partitions and returns how many it looked into: fewer when there are no more. A partition is
// never looked into twice.
func (s *Search) Probe(ctx context.Context, n int) (int, error) {
	all := s.x.Partitions()
	upto := s.probed + min(max(n, 0), all-s.probed)
	if upto > len(s.order) {
		want := upto
		if len(s.order) > 0 {
			// Who asks again may do so often.
			want = all
		}
		// The order is total, so the first of more are those of before.
		s.order = s.x.model.Probe(s.query, want, s.order[:0])
		upto = min(upto, len(s.order))
	}
	from := s.probed
	for ; s.probed < upto; s.probed++ {
		if err := ctx.Err(); err != nil {
			return s.probed - from, err
		}
		if err := s.probe(ctx, int(s.order[s.probed].ID)); err != nil {
			return s.probed - from, fmt.Errorf("search index %s: %w", s.x.dir, err)
		}
	}
	return s.probed - from, nil
}

// Left is the number of partitions that were not looked into yet.
func (s *Search) Left() int { return s.x.Partitions() - s.probed }

// Seen is the number of rows in the partitions that were looked into.
func (s *Search) Seen() int64 { return s.seen }

// Len is how many neighbours there are so far.
func (s *Search) Len() int { return s.top.Len() }

// Neighbors appends what was found so far to dst, the nearest first, and returns it. The search can go on.
func (s *Search) Neighbors(dst []vector.Neighbor) []vector.Neighbor {
	from := len(dst)
	dst = s.top.AppendSorted(dst)
	if s.x.kind == PQ {
		for i := range dst[from:] {
			dst[from+i].Distance = s.x.model.Distance(dst[from+i].Distance)
		}
	}
	return dst
}

// Close ends the search.
func (s *Search) Close() {
	if s.scratch != nil {
		s.x.scratches.Put(s.scratch)
		s.scratch = nil
	}
}

// probe offers the rows of a partition.
func (s *Search) probe(ctx context.Context, number int) error {
	if s.x.starts[number] == s.x.starts[number+1] {
		return nil
	}
	if pq := s.x.model.PQ(); pq != nil && (!s.tabled || s.x.model.Residual()) {
		s.tabled = true
		s.x.model.Table(s.query, number, s.diff, &s.table)
		if pq.Bits() == 4 {
			s.table.Fast(&s.fast)
		}
	}
	if s.x.isLarge(number) {
		return s.x.pieces(ctx, number, s.rows)
	}
	p, err := s.x.partition(ctx, number)
	if err != nil {
		return err
	}
	defer p.release()
	return s.rows(p)
}

// rows offers the rows of a partition, or of a piece of one.
func (s *Search) rows(p *partition) error {
	s.seen += int64(len(p.ids))
	switch pq := s.x.model.PQ(); {
	case s.x.kind == SQ:
		s.scalars(p)
	case s.x.metric == vector.Hamming:
		s.binary(p)
	case pq == nil:
		s.flat(p)
	case pq.Bits() == 4:
		s.fastScan(p)
	default:
		s.scan(p)
	}
	return nil
}

// scan offers rows with codes of 8 bits.
func (s *Search) scan(p *partition) {
	n := len(p.ids)
	if cap(s.dist) < n {
		s.dist = make([]float32, n)
	}
	dist := s.dist[:n]
	s.table.ScanColumns(p.codes, dist)
	s.offer(p.ids, dist)
}

// fastScan offers rows with codes of 4 bits. Columns become blocks on the way: that copies 32 bytes at a time, which costs less than it
// would to keep blocks of many partitions.
func (s *Search) fastScan(p *partition) {
	n, width := len(p.ids), s.x.width
	if need := vector.BlockBytes(chunkRows, width); cap(s.block) < need {
		s.block = make([]byte, need)
	}
	for at := 0; at < n; at += chunkRows {
		chunk := min(chunkRows, n-at)
		blocks := (chunk + vector.BlockRows - 1) / vector.BlockRows
		for j := range width {
			toBlocks(s.block[j*vector.BlockRows:], width*vector.BlockRows, p.codes[j*n+at:j*n+at+chunk])
		}
		sums := s.sums[:blocks*vector.BlockRows]
		s.fast.Scan(s.block[:blocks*vector.BlockRows*width], sums)
		for i, sum := range sums[:chunk] {
			s.dist[i] = s.fast.Distance(sum)
		}
		s.offer(p.ids[at:at+chunk], s.dist[:chunk])
	}
}

// toBlocks spreads a column over blocks that are stride bytes apart. What is left of the last block stays as it was: any codes will do.
func toBlocks(blocks []byte, stride int, column []byte) {
	at := 0
	for ; len(column) >= vector.BlockRows; column = column[vector.BlockRows:] {
		// Arrays of this size are moved by a few instructions, without a call.
		*(*[vector.BlockRows]byte)(blocks[at:]) = [vector.BlockRows]byte(column)
		at += stride
	}
	if len(column) > 0 {
		copy(blocks[at:], column)
	}
}

// flat offers rows that are there as they are.
func (s *Search) flat(p *partition) {
	dim := s.x.dim
	for at := 0; at < len(p.ids); at += chunkRows {
		n := min(chunkRows, len(p.ids)-at)
		dist := s.dist[:n]
		if p.halves != nil {
			halves := p.halves[at*dim : (at+n)*dim]
			vector.DistancesFloat16(s.x.metric, s.query, halves, dist)
		} else {
			vector.Distances(s.x.metric, s.query, p.floats[at*dim:(at+n)*dim], dist)
		}
		s.offer(p.ids[at:at+n], dist)
	}
}

// offer pushes the rows that are near enough and may be in the answer. Most rows fail the first comparison, and NaN does.
func (s *Search) offer(ids []uint64, dist []float32) {
	limit := s.top.Limit()
	for i, d := range dist {
		if d > limit || math.IsNaN(float64(d)) {
			continue
		}
		if s.keep != nil && !s.keep(ids[i]) {
			continue
		}
		s.top.Push(ids[i], d)
		limit = s.top.Limit()
	}
}
