package lsm

import (
	"context"
	"path"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/bitmap"
	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// valueIndex finds the rows that have some values. The ids are addresses in the base, and rows in a generation.
type valueIndex interface {
	Type() arrow.DataType
	// Rows counts the rows that it is over.
	Rows() int64
	Lookup(ctx context.Context, keys arrow.Array, fn func(i int, id uint64) error) error
	Range(ctx context.Context, from, to btree.Bound, fn func(ids []uint64) error) error
	CountRange(from, to btree.Bound) (least, most int64, err error)
	Close() error
}

// columnSegment is an open index over a column that is not the key, of a generation or of some fragments of the base.
type columnSegment struct {
	meta  manifest.Index
	kind  IndexKind
	index valueIndex
	// tree is the index when it is a BTREE; others are another program's.
	tree *btree.Index
}

// field returns the id of the column.
func (s *columnSegment) field() int32 { return s.meta.Fields[0] }

// openColumns opens the segments that a dataset has over columns of a schema other than the key's. One that cannot be
// used is left out: it is a help and no more, and scans look at its rows one by one.
func openColumns(ctx context.Context, st object.Store, root string, v *manifest.Version, now *tableSchema, warn func(msg string, err error)) []*columnSegment {
	var out []*columnSegment
	for _, x := range addressed(v) {
		if x.Fragments == nil || len(x.Fields) != 1 || now.isKey(x.Fields) {
			continue
		}
		c := now.column(x.Fields[0])
		if c < 0 {
			continue
		}
		s, err := openColumn(ctx, st, root, v, x)
		if err != nil {
			warn("open index "+x.Name+"; its rows are looked at one by one", err)
		}
		if s == nil {
			continue
		}
		f, ok := now.arrow.Field(c), true
		if s.kind == LabelListIndex {
			f, ok = itemOf(f)
		}
		if !ok || !arrow.TypeEqual(s.index.Type(), f.Type) || newColumnCodec(f, c) == nil {
			_ = s.index.Close() // open for reading only
			continue
		}
		out = append(out, s)
	}
	return out
}

// openColumn opens a segment, nil when it is of a kind that scans have no use for.
func openColumn(ctx context.Context, st object.Store, root string, v *manifest.Version, x manifest.Index) (*columnSegment, error) {
	dir := path.Join(root, x.Dir())
	switch {
	case x.BTree():
		index, err := btree.Open(ctx, st, dir, btree.Options{Files: indexFiles(x)})
		if err != nil {
			return nil, err
		}
		return &columnSegment{meta: x, kind: BTreeIndex, index: index, tree: index}, nil
	case x.Bitmap() || x.LabelList():
		index, err := bitmap.Open(ctx, st, dir, bitmapOptions(v, &x))
		if err != nil {
			return nil, err
		}
		s := &columnSegment{meta: x, kind: BitmapIndex, index: index}
		if x.LabelList() {
			s.kind = LabelListIndex
		}
		return s, nil
	}
	return nil, nil
}

// bitmapOptions returns what a manifest knows of a BITMAP.
func bitmapOptions(v *manifest.Version, x *manifest.Index) bitmap.Options {
	o := bitmap.Options{FragmentRows: func(id uint32) int64 {
		if f, ok := v.Fragment(uint64(id)); ok {
			return f.Rows
		}
		return 0
	}}
	for it := x.Fragments.Iterator(); it.HasNext(); {
		o.Rows += o.FragmentRows(it.Next())
	}
	for _, f := range x.Files {
		o.Bytes = f.Bytes // it has one file
	}
	return o
}

// isKey reports whether some fields are the key's.
func (s *tableSchema) isKey(fields []int32) bool {
	return s.codec != nil && len(s.codec.cols) == 1 && len(fields) == 1 && s.keyIDs()[0] == fields[0]
}

// closeColumns ends the use of segments.
func closeColumns(list []*columnSegment) {
	for _, s := range list {
		_ = s.index.Close() // open for reading only
	}
}

// columnOver returns the generation's index over the column with a field id, nil without one.
func (g *generation) columnOver(field int32) *columnSegment {
	for _, s := range g.columns {
		if s.field() == field && s.kind != LabelListIndex && s.meta.Fragments.Contains(uint32(g.frag.id)) {
			return s
		}
	}
	return nil
}

// newColumnSegment returns what a manifest says of a segment that is to be written: all but its fragments and files.
func newColumnSegment(x indexEntry, version uint64) (manifest.Index, error) {
	out := manifest.Index{Name: x.Name, UUID: uuid.New(), Fields: x.Fields, Version: version, Fragments: roaring.New(), IndexVersion: btreeIndexVersion}
	var err error
	out.Details, err = lancepb.NewAny(&lancepb.BTreeIndexDetails{})
	return out, err
}

// writeColumn writes the files of a segment below the root of a dataset. fill hands out its rows.
func writeColumn(ctx context.Context, st object.Store, root string, x *manifest.Index, codec *keyCodec, fill func(w *columnWriter) error) error {
	w, err := btree.Create(ctx, st, path.Join(root, x.Dir()), codec.typ, btree.WriterOptions{})
	if err != nil {
		return err
	}
	out := newColumnWriter(ctx, w, codec)
	defer out.b.Release()
	if err = fill(out); err == nil {
		err = out.flush()
	}
	if err != nil {
		w.Abort()
		return err
	}
	files, err := w.Finish(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		x.Files = append(x.Files, manifest.IndexFile{Path: f.Path, Bytes: f.Bytes})
	}
	return nil
}

// columnWriter writes entries, which come in the order of an index, to a BTREE. It is the sink of a memtable's index,
// too.
type columnWriter struct {
	ctx   context.Context
	w     *btree.Writer
	codec *keyCodec
	b     array.Builder
	ids   []uint64
	// id returns what the index calls a row of the sink, and whether it has it.
	id func(row uint32) (uint64, bool)
	// rows counts what was written.
	rows int64
}

func newColumnWriter(ctx context.Context, w *btree.Writer, codec *keyCodec) *columnWriter {
	return &columnWriter{ctx: ctx, w: w, codec: codec, b: array.NewBuilder(memory.DefaultAllocator, codec.typ)}
}

// add makes room for an entry and takes its id; its value is then appended to b.
func (c *columnWriter) add(id uint64) error {
	if len(c.ids) == indexBatch {
		if err := c.flush(); err != nil {
			return err
		}
	}
	c.ids = append(c.ids, id)
	return nil
}

// each calls add and then put for the rows of a sink that the index has.
func (c *columnWriter) each(rows []uint32, put func(i int)) error {
	for i, row := range rows {
		id, ok := c.id(row)
		if !ok {
			continue
		}
		if err := c.add(id); err != nil {
			return err
		}
		put(i)
	}
	return nil
}

// Nulls implements memindex.Sink.
func (c *columnWriter) Nulls(rows []uint32) error {
	return c.each(rows, func(int) { c.b.AppendNull() })
}

// Ints implements memindex.Sink.
func (c *columnWriter) Ints(values []int64, rows []uint32) error {
	return c.each(rows, func(i int) { appendInt(c.b, values[i]) })
}

// Wide implements memindex.Sink.
func (c *columnWriter) Wide(values [][]byte, rows []uint32) error {
	return c.each(rows, func(i int) { appendWide(c.b, values[i]) })
}

// flush hands what is there to the BTREE.
func (c *columnWriter) flush() error {
	values := c.b.NewArray()
	defer values.Release()
	err := c.w.Add(c.ctx, values, c.ids)
	c.rows += int64(len(c.ids))
	c.ids = c.ids[:0]
	return err
}

// writeColumns writes the indexes of a memtable with its generation: as they are where the memtable kept them, else
// made of its batches. Rows that the memtable itself replaced are in none of them.
func writeColumns(ctx context.Context, st object.Store, dir string, t *Table, now *tableSchema, m *memtable) ([]manifest.Index, error) {
	var out []manifest.Index
	rows := m.rows.Load()
	dead := rows.deadBitmap()
	for _, entry := range t.indexList() {
		c := m.kept(entry.ID)
		if c == nil {
			if c = newMemColumn(entry, now); c == nil {
				continue // its column was dropped, or is the key
			}
			for _, b := range rows.batches {
				c.add(b)
			}
			defer c.index.Release()
		}
		at := now.column(entry.Fields[0])
		if at < 0 || c.broken.Load() {
			continue
		}
		x, err := newColumnSegment(entry, 1)
		if err != nil {
			return nil, err
		}
		x.Fragments.Add(0)
		err = writeColumn(ctx, st, dir, &x, newColumnCodec(now.arrow.Field(at), at), func(w *columnWriter) error {
			w.id = func(row uint32) (uint64, bool) { return uint64(row), dead == nil || !dead.Contains(row) }
			return c.index.Write(w)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// kept returns the index with an id, nil when the memtable does not keep it.
func (m *memtable) kept(id uint64) *memColumn {
	for _, c := range m.columns {
		if c.entry.ID == id && !c.broken.Load() {
			return c
		}
	}
	return nil
}
