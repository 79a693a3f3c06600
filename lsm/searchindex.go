package lsm

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/vector"
)

const (
	// DefaultNProbes is how many partitions of an index a search looks into when it is not told.
	DefaultNProbes = 20
	// DefaultRefine is how many times more rows than are wanted it takes from there to compute their distances.
	DefaultRefine = 5
	// fewRows is how many rows are compared one by one rather than found by an index: with so few, that costs no more and misses none.
	fewRows = 4096
)

// indexSource is an index over some pieces of a view.
type indexSource struct {
	// layer is what the pieces are, and name that of the index, for SearchPlan.
	layer, name string
	// disk or mem is the index.
	disk *ivf.Index
	mem  *memVector
	// piece is that of a generation or memtable, and of is the piece of each fragment of the base that the index covers.
	piece *piece
	of    map[uint64]*piece
	// below is the number of rows of a memtable that its index has; those behind it are compared one by one.
	below uint32
}

// sources finds the indexes by which a search finds rows. A piece that one covers is compared row by row from its mark exactFrom on only.
func (s *search) sources() []*indexSource {
	var out []*indexSource
	field := s.view.schema.lance.Fields[s.o.Column].ID
	b := s.view.set.base
	number := s.view.numberPieces()
	for _, seg := range b.searchedOver(field) {
		if seg.index.Metric() != s.metric {
			continue
		}
		src := &indexSource{layer: "base", name: seg.meta.Name, disk: seg.index, of: map[uint64]*piece{}}
		covers := b.vectorCovers(seg)
		for _, f := range b.frags {
			p := &s.pieces[number[f]]
			if covers.Contains(uint32(f.id)) && p.exactFrom == 0 {
				src.of[f.id], p.exactFrom = p, f.rows
			}
		}
		if len(src.of) > 0 {
			out = append(out, src)
		}
	}
	for _, c := range s.view.set.chains {
		for _, l := range c.layers {
			switch x := l.layer.(type) {
			case *generation:
				for _, seg := range x.vectorsOver(field) {
					if p := &s.pieces[number[x.frag]]; seg.index.Model().Metric() == s.metric && p.exactFrom == 0 {
						p.exactFrom = x.frag.rows
						out = append(out, &indexSource{layer: "generation", name: seg.meta.Name, disk: seg.index, piece: p})
					}
				}
			case *memtable:
				for _, mem := range x.vectorsOver(field) {
					p := &s.pieces[number[x]]
					known := p.rows.indexed().rowCount()
					if mem.ivf.Metric() == s.metric && mem.ivf.PQ() != nil && p.exactFrom == 0 && known > 0 {
						p.exactFrom = known
						out = append(out, &indexSource{layer: "memtable", name: mem.entry.Name, mem: mem, piece: p, below: uint32(known)})
					}
				}
			}
		}
	}
	return out
}

// place returns the piece and the row of an id of the index; ok is false for rows that do not count.
func (x *indexSource) place(only *Places, id uint64) (p *piece, row uint32, ok bool) {
	if p, row = x.piece, uint32(id); x.of != nil {
		p = x.of[id>>32]
	}
	if p == nil {
		return nil, 0, false
	}
	if rows, picked := only.of(p.number); picked && (rows == nil || !rows.Contains(row)) {
		return nil, 0, false
	}
	for _, h := range p.hidden {
		if h != nil && h.Contains(row) {
			return nil, 0, false
		}
	}
	return p, row, p.rows == nil || !p.rows.tombstone(row)
}

// probing is the search of one index for one query.
type probing struct {
	src *indexSource
	// disk is set for an index on disk; the others are for one in memory.
	disk   *ivf.Search
	query  []float32
	order  []vector.Neighbor
	probed int
	top    *vector.TopK
	only   *Places
}

// start begins to look for the nearest rows by an index.
func (x *indexSource) start(only *Places, q []float32, limit int) (*probing, error) {
	keep := func(id uint64) bool { _, _, ok := x.place(only, id); return ok }
	p := &probing{src: x, only: only}
	if x.disk != nil {
		var err error
		p.disk, err = x.disk.Start(q, ivf.SearchOptions{Limit: limit, Keep: keep})
		return p, err
	}
	model := x.mem.ivf
	p.query, p.top = make([]float32, len(q)), vector.NewTopK(limit)
	model.Prepare(p.query, q)
	p.order = model.Probe(p.query, model.Partitions(), nil)
	return p, nil
}

// probe looks into the next n partitions.
func (p *probing) probe(ctx context.Context, n int) error {
	if p.disk != nil {
		_, err := p.disk.Probe(ctx, n)
		return err
	}
	parts := p.order[p.probed:min(p.probed+n, len(p.order))]
	p.probed += len(parts)
	p.src.mem.index.Search(p.query, parts, p.src.below, func(rows []uint32, dist []float32) bool {
		limit := p.top.Limit()
		for i, row := range rows {
			if dist[i] > limit {
				continue
			}
			if _, _, ok := p.src.place(p.only, uint64(row)); ok {
				p.top.Push(uint64(row), dist[i])
				limit = p.top.Limit()
			}
		}
		return ctx.Err() == nil
	})
	return ctx.Err()
}

// left reports whether there are partitions that were not looked into.
func (p *probing) left() bool {
	if p.disk != nil {
		return p.disk.Left() > 0
	}
	return p.probed < len(p.order)
}

// found returns how many rows were found so far.
func (p *probing) found() int {
	if p.disk != nil {
		return p.disk.Len()
	}
	return p.top.Len()
}

// candidates appends the places of the rows that were found, with distances that are about right.
func (p *probing) candidates(dst []vector.Neighbor) []vector.Neighbor {
	from := len(dst)
	if p.disk != nil {
		dst = p.disk.Neighbors(dst)
	} else {
		dst = p.top.AppendSorted(dst)
	}
	for i := range dst[from:] {
		n := &dst[from+i]
		if p.disk == nil {
			n.Distance = p.src.mem.ivf.Distance(n.Distance)
		}
		at, row, _ := p.src.place(p.only, n.ID)
		n.ID = uint64(placeAt(at.number, row))
	}
	return dst
}

// close ends the search.
func (p *probing) close() {
	if p.disk != nil {
		p.disk.Close()
	}
}

// indexed reports whether a search finds rows by indexes, and sees to it that what these cover is not compared row by row.
func (s *search) indexed() []*indexSource {
	if s.o.NoIndex || s.rows <= fewRows-s.o.fewer || s.o.Only != nil && s.rows <= int64(s.o.K)*int64(s.refine()) {
		return nil
	}
	return s.sources()
}

// VectorSearchPlan tells how a search would find its rows: by which metric, and of each layer by which index how many rows, and how many are
// compared one by one.
func (v *View) VectorSearchPlan(ctx context.Context, o VectorSearchOptions) (vector.Metric, []LayerPlan, error) {
	s, err := v.newSearch(ctx, o)
	if err != nil {
		return 0, nil, fmt.Errorf("search table %q: %w", v.table.name, err)
	}
	var out []LayerPlan
	for _, x := range s.indexed() {
		out = append(out, LayerPlan{Layer: x.layer, Access: "index " + x.name, Rows: x.rows()})
	}
	rest := map[string]int64{}
	for i := range s.pieces {
		if n := s.pieces[i].rowCount() - s.pieces[i].exactFrom; n > 0 {
			rest[s.pieces[i].layer] += n
		}
	}
	for _, layer := range []string{"base", "generation", "memtable"} {
		if rest[layer] > 0 {
			out = append(out, LayerPlan{Layer: layer, Access: "exact" + s.why(layer), Rows: rest[layer]})
		}
	}
	return s.metric, out, nil
}

// why says why rows of a layer are compared one by one though there is an index, "" if nothing is to be said.
func (s *search) why(layer string) string {
	b := s.view.set.base
	if reason := b.refused[s.view.schema.lance.Fields[s.o.Column].ID]; reason != "" && layer == "base" {
		return " (" + reason + ")"
	}
	return ""
}

// probes and refine are what is asked for, or what is usual.
func (s *search) probes() int {
	if s.o.NProbes > 0 {
		return s.o.NProbes
	}
	return DefaultNProbes
}

func (s *search) refine() int {
	if s.o.Refine > 0 {
		return s.o.Refine
	}
	return DefaultRefine
}

// byIndex returns, for each query, the nearest rows by the indexes, and those that no index covers, in the order of distance and place. Distances are
// computed from the rows themselves. It returns ok = false for a query that found fewer rows than there may be: indexes lack rows whose
// distances overflow.
func (s *search) byIndex(ctx context.Context, sources []*indexSource, k int) (out [][]vector.Neighbor, ok []bool, err error) {
	all := make([]int, len(s.queries))
	for i := range all {
		all[i] = i
	}
	kept := k + tieSlack
	if out, err = s.nearest(ctx, all, kept); err != nil {
		return nil, nil, err
	}
	ok = make([]bool, len(all))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range max(1, min(runtime.GOMAXPROCS(0), len(all))) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(all)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				found, err := s.probeAll(ctx, sources, &s.queries[i], k)
				if err != nil {
					cancel(err)
					return
				}
				top := vector.NewTopK(kept)
				for _, n := range slices.Concat(out[i], found) {
					top.Push(n.ID, n.Distance)
				}
				out[i] = top.AppendSorted(nil)
				ok[i] = len(out[i]) >= k
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	return out, ok, nil
}

// probeAll looks for the rows that are nearest to one query in all indexes: in more and more partitions until there are k, or no more partitions.
func (s *search) probeAll(ctx context.Context, sources []*indexSource, q *searchQuery, k int) ([]vector.Neighbor, error) {
	limit := int(min(int64(ivf.Candidates(k, s.refine())), s.rows)) + tieSlack
	var all []*probing
	defer func() {
		for _, p := range all {
			p.close()
		}
	}()
	for _, x := range sources {
		p, err := x.start(s.o.Only, q.floats, limit)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		all = append(all, p)
	}
	least := s.leastProbes(sources)
	for round := 0; ; round++ {
		found, more := 0, false
		for i, p := range all {
			if err := p.probe(ctx, least[i]<<round); err != nil {
				return nil, err
			}
			found, more = found+p.found(), more || p.left()
		}
		if found >= k || !more {
			break
		}
	}
	top := vector.NewTopK(limit)
	var some []vector.Neighbor
	for _, p := range all {
		some = p.candidates(some[:0])
		for _, n := range some {
			top.Push(n.ID, n.Distance)
		}
	}
	return s.exactly(ctx, q, top.AppendSorted(some[:0]))
}

// leastProbes returns how many partitions of each index are looked into at first: as many as were asked for, and as have about fewRows rows of
// all indexes together. Where partitions are small, a few of them miss rows that it costs next to nothing to look at.
func (s *search) leastProbes(sources []*indexSource) []int {
	rows := int64(1)
	for _, x := range sources {
		rows += x.rows()
	}
	out := make([]int, len(sources))
	for i, x := range sources {
		few := (int64(x.model().Partitions())*(fewRows-s.o.fewer) + rows - 1) / rows
		out[i] = max(s.probes(), int(few))
	}
	return out
}

// rows returns how many rows the index has, those that do not count included.
func (x *indexSource) rows() int64 {
	if x.disk != nil {
		return x.disk.Rows()
	}
	return int64(x.below)
}

// model returns what the index puts rows in by.
func (x *indexSource) model() *vector.IVF {
	if x.disk != nil {
		return x.disk.Model()
	}
	return x.mem.ivf
}

// exactly computes the distances of some rows from the rows themselves.
func (s *search) exactly(ctx context.Context, q *searchQuery, rows []vector.Neighbor) ([]vector.Neighbor, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	places := make([]uint64, len(rows))
	for i, n := range rows {
		places[i] = n.ID
	}
	slices.Sort(places)
	parts, err := s.view.takeSorted(ctx, []int{s.o.Column}, places)
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	if err != nil {
		return nil, err
	}
	out := rows[:0]
	var dist []float32
	for _, p := range parts {
		block, err := newVectorBlock(p.Column(0), s.kind)
		if err != nil {
			return nil, err
		}
		dist = grown(dist, block.rows)
		block.distances(s.metric, q, 0, block.rows, dist)
		for i := range block.rows {
			if block.valid(i) {
				out = append(out, vector.Neighbor{ID: places[i], Distance: dist[i]})
			}
		}
		places = places[block.rows:]
	}
	return out, nil
}
