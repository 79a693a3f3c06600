package lsm

import (
	"context"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/manifest"
)

// columnMerge is how a merge extends one index over a column: the rows that go over come into a new segment, from the
// indexes of their generations where these have it, and sorted anew where not.
type columnMerge struct {
	entry indexEntry
	codec *keyCodec
	// from has, for each generation of the merge, its index, or nil where sorter has the rows.
	from   []*columnSegment
	sorter *columnSorter
	// late are fragments of the base that came without the index, from a Rewrite or another program: the new segment
	// catches up with them.
	late *roaring.Bitmap
}

const (
	// placeBit marks ids that are places among the rows that go over; others are addresses.
	placeBit = 1 << 63
	// lateRows bounds the rows of the base that a merge sorts for an index: more is the work of OptimizeIndex.
	lateRows = 4 << 20
)

// segmentWriter writes the segments of all indexes of the base that a merge adds: that of the key, and those over
// other columns.
type segmentWriter struct {
	table   *Table
	c       *compactor
	m       *merged
	columns []*columnMerge
	vectors []*vectorMerge
	// written are the segments of all attempts of the commit.
	written []uuid.UUID
}

func (c *compactor) newSegmentWriter(m *merged) *segmentWriter {
	return &segmentWriter{table: c.table, c: c, m: m}
}

// prepare makes the segments part of a change.
func (w *segmentWriter) prepare(ctx context.Context, change *manifest.Change) error {
	if w.m.rows == 0 {
		return nil
	}
	list := w.table.indexList()
	for _, x := range list {
		column := w.m.schema.column(x.Fields[0])
		if column < 0 || w.m.schema.isKey(x.Fields) || x.Kind.isVector() {
			continue
		}
		codec := newColumnCodec(w.m.schema.arrow.Field(column), column)
		c := &columnMerge{entry: x, codec: codec, late: roaring.New(),
			sorter: newColumnSorter(codec, w.table.db.opt.Temp, w.table.db.opt.sortBytes/int64(len(list)))}
		w.columns = append(w.columns, c)
		if _, built := w.table.covering.Load(x.ID); !built {
			c.catchUp(w.m)
		}
		if err := c.prepare(ctx, w.m); err != nil {
			return fmt.Errorf("index %q: %w", x.Name, err)
		}
	}
	if err := w.prepareVectors(ctx); err != nil {
		return err
	}
	if w.table.indexable() || len(w.columns)+len(w.vectors) > 0 {
		change.Indexes = func(_ *manifest.Version, appended []uint64) ([]manifest.Index, error) { return w.write(ctx, appended) }
	}
	return nil
}

// write writes the segments for an attempt of the commit.
func (w *segmentWriter) write(ctx context.Context, appended []uint64) ([]manifest.Index, error) {
	var out []manifest.Index
	if w.table.indexable() {
		x, err := w.c.writeKeyIndex(ctx, w.m, w.m.base, appended)
		w.written = append(w.written, x.UUID)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	for _, c := range w.columns {
		x, err := c.write(ctx, w.table, w.m, appended)
		w.written = append(w.written, x.UUID)
		if err != nil {
			return nil, fmt.Errorf("index %q: %w", c.entry.Name, err)
		}
		out = append(out, x)
	}
	for _, c := range w.vectors {
		x, err := c.write(ctx, w.table, w.m, appended)
		w.written = append(w.written, x.UUID)
		if err != nil {
			return nil, fmt.Errorf("index %q: %w", c.model.entry.Name, err)
		}
		out = append(out, x)
	}
	return out, nil
}

// close ends the use of scratch files.
func (w *segmentWriter) close() {
	for _, c := range w.columns {
		c.sorter.close()
	}
}

// catchUp chooses the fragments that the new segment covers beside those that are appended.
func (c *columnMerge) catchUp(m *merged) {
	left, unread := int64(lateRows), m.base.unreadFragments(c.entry)
	for _, f := range m.base.lacking(c.entry) {
		if f.rows <= left && !unread.Contains(uint32(f.id)) {
			left -= f.rows
			c.late.Add(uint32(f.id))
		}
	}
}

// prepare sorts the rows that no index has: those that go over by their places, as the merge does not know their
// addresses yet.
func (c *columnMerge) prepare(ctx context.Context, m *merged) error {
	for _, id := range c.late.ToArray() {
		f := m.base.byID[uint64(id)]
		if err := c.sorter.add(ctx, f, m.schema, nil, func(row uint32) uint64 { return f.id<<32 | uint64(row) }, nil); err != nil {
			return err
		}
	}
	for i, l := range m.gens {
		g := l.layer.(*generation)
		c.from = append(c.from, g.columnOver(c.entry.Fields[0]))
		if c.from[i] != nil && c.from[i].tree != nil {
			continue
		}
		c.from[i] = nil
		next := uint64(m.first[i])
		err := c.sorter.add(ctx, g.frag, m.schema, m.live[i], func(uint32) uint64 { next++; return (next - 1) | placeBit }, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

// columnsNamed returns the segments of an index.
func (b *base) columnsNamed(x indexEntry) []*columnSegment {
	var out []*columnSegment
	for _, seg := range b.columnsOver(x.Fields[0]) {
		if seg.meta.Name == x.Name {
			out = append(out, seg)
		}
	}
	return out
}

// write writes the new segment, of the appended fragments.
func (c *columnMerge) write(ctx context.Context, t *Table, m *merged, appended []uint64) (manifest.Index, error) {
	x, err := newColumnSegment(c.entry, m.base.version.Number)
	if err != nil {
		return x, err
	}
	for _, id := range appended {
		x.Fragments.Add(uint32(id))
	}
	x.Fragments.Or(c.late)
	var sources []*keySource
	defer func() { closeSources(sources) }()
	// ids translate those of each source, and say whether the row still lives.
	var ids []func(id uint64) (uint64, bool)
	for i, seg := range c.from {
		if seg == nil {
			continue
		}
		sources = append(sources, newKeySource(ctx, c.codec, seg.tree))
		ids = append(ids, func(id uint64) (uint64, bool) {
			place, ok := m.place(i, uint32(id))
			if !ok {
				return 0, false
			}
			return address(place, appended), true
		})
	}
	for _, src := range c.sorter.sources(ctx) {
		sources = append(sources, src)
		ids = append(ids, func(id uint64) (uint64, bool) {
			if id&placeBit == 0 {
				return id, true
			}
			return address(int64(id&^placeBit), appended), true
		})
	}
	err = writeColumn(ctx, t.db.st, t.root, &x, c.codec, func(w *columnWriter) error {
		return mergeColumn(sources, w, func(source int, id uint64) (uint64, bool) { return ids[source](id) })
	})
	return x, err
}
