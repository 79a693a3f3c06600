package lsm

import (
	"context"
	"errors"
	"io"
	"path"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
)

// wantAlign asks the compactor to bring the base's columns to those of the table.
func (c *compactor) wantAlign() {
	c.unaligned.Store(true)
	poke(c.work)
}

// alignWanted does what wantAlign asked for. Should it fail, the next merge does it, and until then the base is read as
// it is.
func (c *compactor) alignWanted(ctx context.Context) {
	if c.table.divided.Load() != nil || !c.unaligned.Swap(false) {
		return
	}
	err := manifest.ErrConflict
	for try := 0; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		if err = c.refreshBase(ctx); err == nil {
			_, err = c.align(ctx)
		}
	}
	if err == nil {
		err = c.dropReplaced(ctx)
	}
	if err != nil && ctx.Err() == nil {
		c.table.warn("bring the columns of an ALTER TABLE into the base; the next merge will try again", err)
	}
}

// align brings the base's columns to those of the table's current schema, which it returns, in one commit. It is how
// Lance alters tables: dropped and renamed columns change the schema alone, and a column with a value for the rows that
// are there gets one more file in each fragment, so that other programs never see a null instead.
func (c *compactor) align(ctx context.Context) (*tableSchema, error) {
	t := c.table
	now := t.now()
	set := t.holdStored()
	if set == nil {
		return nil, t.ended()
	}
	defer set.unref()
	old := set.base
	if now.sameColumns(old.version) {
		return now, nil
	}
	change := manifest.Change{Schema: now.underOf(old.version)}
	var err error
	if change.AddFiles, err = c.writeAdded(ctx, now, old); err != nil {
		return nil, err
	}
	v, err := manifest.Commit(ctx, c.db.st, t.root, old.version, change, t.manifestOptions())
	if err != nil {
		if errors.Is(err, manifest.ErrConflict) {
			c.discardAdded(ctx, change.AddFiles) // after any other error they may be part of a version
		}
		return nil, err
	}
	return now, c.rebase(context.WithoutCancel(ctx), v)
}

// sameColumns reports whether a version of the dataset has the schema's columns, in their order.
func (s *tableSchema) sameColumns(v *manifest.Version) bool {
	mine, other := s.underOf(v), v.Schema
	if len(other.Fields) != len(mine.Fields) {
		return false
	}
	for i, f := range mine.Fields {
		if o := other.Fields[i]; o.ID != f.ID || o.Name != f.Name || o.Nullable != f.Nullable {
			return false
		}
	}
	return true
}

// writeAdded writes, for each fragment of a base, the values that its rows have in columns which the base does not have:
// the value that a column was added with, or those of the narrower column whose place it took.
func (c *compactor) writeAdded(ctx context.Context, now *tableSchema, b *base) (map[uint64][]manifest.DataFile, error) {
	var columns []int
	for i, f := range now.lance.Fields {
		if fieldByID(b.version.Schema, f.ID) != nil {
			continue
		}
		narrower := false
		for id := range now.lives(i) {
			narrower = narrower || fieldByID(b.version.Schema, id) != nil
		}
		if narrower || now.fill[f.ID] != nil {
			columns = append(columns, i)
		}
	}
	out := make(map[uint64][]manifest.DataFile)
	for i := 0; i < len(b.frags) && len(columns) > 0; i++ {
		file, err := c.writeColumns(ctx, now, columns, b.frags[i])
		if err != nil {
			c.discardAdded(ctx, out)
			return nil, err
		}
		out[b.frags[i].id] = []manifest.DataFile{file}
	}
	return out, nil
}

// writeColumns writes some columns of all rows of a fragment to a file of their own.
func (c *compactor) writeColumns(ctx context.Context, now *tableSchema, columns []int, f *fragment) (manifest.DataFile, error) {
	none := manifest.DataFile{}
	name, err := newFileName()
	if err != nil {
		return none, err
	}
	schema := &lance.Schema{}
	for _, i := range columns {
		schema.Fields = append(schema.Fields, now.lance.Fields[i])
	}
	w, err := lance.Create(ctx, c.db.st, path.Join(c.table.root, "data", name), schema, lance.WriterOptions{Version: c.table.fileVersion()})
	if err != nil {
		return none, err
	}
	if err := copyColumns(ctx, w, schema.Arrow(), f.scan(now, columns, 0, f.rows, copyRows)); err != nil {
		w.Abort()
		return none, err
	}
	info, err := w.Finish(ctx)
	if err != nil {
		return none, err
	}
	return writtenFragment(name, info, schema).Files[0], nil
}

// copyColumns writes what is read.
func copyColumns(ctx context.Context, w *lance.Writer, s *arrow.Schema, r rowReader) error {
	defer r.Close()
	for {
		rec, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		cols := make([]arrow.Array, rec.NumCols())
		for i := range cols {
			cols[i] = relabel(rec.Column(i), s.Field(i).Type)
		}
		out := array.NewRecordBatch(s, cols, rec.NumRows())
		rec.Release()
		for _, col := range cols {
			col.Release()
		}
		err = w.Write(ctx, out)
		out.Release()
		if err != nil {
			return err
		}
	}
}

// discardAdded removes files that no version names.
func (c *compactor) discardAdded(ctx context.Context, files map[uint64][]manifest.DataFile) {
	for _, list := range files {
		for _, f := range list {
			c.table.discard(ctx, path.Join(c.table.root, "data", f.Path))
		}
	}
}
