package lsm

import (
	"context"
	"fmt"
	"path"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/manifest"
)

// vectorMerge is how a merge extends one index over vectors: the rows that go over come into a new segment with the model that the index
// has in the base. Generations that have the same give their codes, rows of others are encoded anew.
type vectorMerge struct {
	model  vectorModel
	column int
	// from has, for each generation of the merge, its segment with the model, or nil.
	from []*vectorSegment
	// late are fragments of the base without the index, which the new segment catches up with.
	late *roaring.Bitmap
}

// lateVectors bounds the rows of the base that a merge encodes for an index: more is the work of OptimizeIndex.
const lateVectors = 1 << 18

// lackingVectors returns the fragments that no segment of an index covers with a model.
func (b *base) lackingVectors(x indexEntry, model modelID) []*fragment {
	have := roaring.New()
	for _, s := range b.vectorsOf(x) {
		if s.model == model {
			have.Or(s.meta.Fragments)
		}
	}
	var out []*fragment
	for _, f := range b.frags {
		if !have.Contains(uint32(f.id)) {
			out = append(out, f)
		}
	}
	return out
}

// prepareVectors chooses how the indexes over vectors are extended. One that has no model yet is trained, if there are rows enough.
func (w *segmentWriter) prepareVectors(ctx context.Context) error {
	for _, x := range w.table.vectorEntries(w.m.base) {
		column := w.m.schema.column(x.Fields[0])
		if column < 0 {
			continue
		}
		c := &vectorMerge{column: column, late: roaring.New()}
		_, covering := w.table.covering.Load(x.ID)
		model, ok := w.m.base.modelOf(x)
		if !ok {
			if covering && x.ID > 0 || len(w.m.base.unread(x)) > 0 {
				continue // the model is being made, or will be by OptimizeIndex, and with it a segment over everything
			}
			var err error
			if model, ok, err = w.trainFirst(ctx, x, c); err != nil {
				return fmt.Errorf("index %q: %w", x.Name, err)
			}
			if !ok {
				continue
			}
		} else if !covering {
			c.catchUp(w.m, x, model)
		}
		c.model = model
		for _, l := range w.m.gens {
			s := l.layer.(*generation).vectorOf(x)
			if s != nil && s.model != model.id {
				s = nil
			}
			c.from = append(c.from, s)
		}
		w.vectors = append(w.vectors, c)
	}
	return nil
}

// catchUp chooses the fragments that the new segment covers beside those that are appended: such that have no segment at all.
func (c *vectorMerge) catchUp(m *merged, x indexEntry, model vectorModel) {
	have := m.base.unreadFragments(x)
	for _, s := range m.base.vectorsOf(x) {
		have.Or(s.meta.Fragments)
	}
	left := int64(lateVectors)
	for _, f := range m.base.lackingVectors(x, model.id) {
		if f.rows <= left && !have.Contains(uint32(f.id)) {
			left -= f.rows
			c.late.Add(uint32(f.id))
		}
	}
}

// trainFirst makes the first model of an index, of all rows that the table will have, if these are enough: those that it takes when
// somebody waits for the merge, and else so many that the number of partitions is one to stay with.
func (w *segmentWriter) trainFirst(ctx context.Context, x indexEntry, c *vectorMerge) (vectorModel, bool, error) {
	rows := w.m.rows
	for _, f := range w.m.base.frags {
		rows += f.live
	}
	p, err := newTrainPlan(x, w.m.schema.arrow.Field(c.column), rows)
	if err != nil {
		return vectorModel{}, false, err
	}
	if w.c.paced {
		p.least = max(p.least, autoTrainRows)
	}
	if rows < p.least || rows-w.m.rows > lateVectors {
		return vectorModel{}, false, nil
	}
	s, err := p.sampler(w.table.db.opt.Temp)
	if err != nil {
		return vectorModel{}, false, err
	}
	defer s.Close()
	in := newVectorFeed(s, p.dim)
	id := func(uint32) uint64 { return 0 }
	for _, f := range w.m.base.frags {
		c.late.Add(uint32(f.id))
		if err := in.fragment(ctx, f, w.m.schema, c.column, nil, id, nil); err != nil {
			return vectorModel{}, false, err
		}
	}
	for i, l := range w.m.gens {
		if err := in.fragment(ctx, l.layer.(*generation).frag, w.m.schema, c.column, w.m.live[i], id, nil); err != nil {
			return vectorModel{}, false, err
		}
	}
	return s.train(ctx)
}

// write writes the new segment, of the appended fragments and the late ones.
func (c *vectorMerge) write(ctx context.Context, t *Table, m *merged, appended []uint64) (manifest.Index, error) {
	x, err := newVectorMeta(c.model, m.base.version.Number)
	if err != nil {
		return x, err
	}
	for _, id := range appended {
		x.Fragments.Add(uint32(id))
	}
	x.Fragments.Or(c.late)
	b, err := ivf.NewBuilder(ctx, t.db.st, path.Join(t.root, x.Dir()), c.model.ivf, t.buildOptions(c.model, m.rows+lateVectors))
	if err != nil {
		return x, err
	}
	if err := c.fill(ctx, b, m, appended); err != nil {
		b.Abort()
		return x, err
	}
	return x, finishVectors(ctx, b, &x)
}

// fill hands the rows to a build.
func (c *vectorMerge) fill(ctx context.Context, b *ivf.Builder, m *merged, appended []uint64) error {
	in := newVectorFeed(b, c.model.ivf.Dim())
	for _, id := range c.late.ToArray() {
		f := m.base.byID[uint64(id)]
		if err := in.fragment(ctx, f, m.schema, c.column, nil, func(row uint32) uint64 { return f.id<<32 | uint64(row) }, nil); err != nil {
			return err
		}
	}
	for i, l := range m.gens {
		if s := c.from[i]; s != nil {
			err := b.AddIndex(s.index, func(id uint64) (uint64, bool) {
				place, ok := m.place(i, uint32(id))
				if !ok {
					return 0, false
				}
				return address(place, appended), true
			})
			if err != nil {
				return err
			}
			continue
		}
		next := m.first[i]
		err := in.fragment(ctx, l.layer.(*generation).frag, m.schema, c.column, m.live[i], func(uint32) uint64 {
			next++
			return address(next-1, appended)
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// writeVectorSegment makes one segment of an index over vectors of several others of one model, as writeSegment does.
func (c *compactor) writeVectorSegment(ctx context.Context, b *base, list []*manifest.Index, over *roaring.Bitmap, keep func(source int, id uint64) (uint64, bool)) (manifest.Index, error) {
	x := manifest.Index{Name: list[0].Name, UUID: uuid.New(), Fields: list[0].Fields, Version: b.version.Number, Fragments: over,
		Details: list[0].Details, IndexVersion: list[0].IndexVersion}
	var open []*vectorSegment
	defer func() { closeVectors(open) }()
	for _, s := range list {
		index, err := c.openVectorSegment(ctx, s)
		if err != nil {
			return x, err
		}
		open = append(open, &vectorSegment{meta: *s, index: index})
	}
	model := vectorModel{ivf: open[0].index.Model(), item: open[0].index.Element(), trained: trainedOf(open, modelID{})}
	w, err := ivf.NewBuilder(ctx, c.db.st, path.Join(c.table.root, x.Dir()), model.ivf, c.table.buildOptions(model, 0))
	if err != nil {
		return x, err
	}
	n := 0
	for source, s := range open {
		err := w.AddIndex(s.index, func(id uint64) (uint64, bool) {
			if n++; n%pausedEntries == 0 {
				_ = c.pause(ctx, int64(pausedEntries*(8+s.index.RowBytes())), unhurried) // the build looks at ctx itself
			}
			return keep(source, id)
		})
		if err != nil {
			w.Abort()
			return x, err
		}
	}
	return x, finishVectors(ctx, w, &x)
}

// openVectorSegment opens a segment of the table.
func (c *compactor) openVectorSegment(ctx context.Context, x *manifest.Index) (*ivf.Index, error) {
	return ivf.Open(ctx, c.db.st, path.Join(c.table.root, x.Dir()), ivf.Options{Files: vectorFiles(*x), Models: &c.db.models})
}
