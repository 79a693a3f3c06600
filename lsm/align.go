package lsm

import (
	"context"
	"errors"
	"path"

	"github.com/apache/arrow-go/v18/arrow"

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
	if !c.unaligned.Swap(false) {
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
	set := t.holdSet()
	if set == nil {
		return nil, t.ended()
	}
	defer set.unref()
	old := set.base
	if now.sameColumns(old.version.Schema) {
		return now, nil
	}
	change := manifest.Change{Schema: &lance.Schema{Fields: now.lance.Fields, Metadata: old.version.Schema.Metadata}}
	var err error
	if change.AddFiles, err = c.writeAdded(ctx, now, old.version); err != nil {
		return nil, err
	}
	v, err := manifest.Commit(ctx, c.db.st, t.root, old.version, change, t.manifestOptions())
	if err != nil {
		if errors.Is(err, manifest.ErrConflict) {
			c.discardAdded(ctx, change.AddFiles) // after any other error they may be part of a version
		}
		return nil, err
	}
	b, err := openBase(context.WithoutCancel(ctx), c.db.st, t, v, old)
	if err != nil {
		return nil, err
	}
	defer b.unref()
	t.swap.Lock()
	defer t.swap.Unlock()
	t.publish(b, t.set.Load().chains) // the same rows have the same addresses, so the masks stay
	return now, nil
}

// sameColumns reports whether a dataset has the schema's columns, in their order.
func (s *tableSchema) sameColumns(other *lance.Schema) bool {
	if len(other.Fields) != len(s.lance.Fields) {
		return false
	}
	for i, f := range s.lance.Fields {
		if o := other.Fields[i]; o.ID != f.ID || o.Name != f.Name || o.Nullable != f.Nullable {
			return false
		}
	}
	return true
}

// writeAdded writes, for each fragment of a version, the values that its rows have in columns which the version does
// not have.
func (c *compactor) writeAdded(ctx context.Context, now *tableSchema, v *manifest.Version) (map[uint64][]manifest.DataFile, error) {
	added := &lance.Schema{}
	var ones []arrow.Array
	for _, f := range now.lance.Fields {
		known := false
		for _, o := range v.Schema.Fields {
			known = known || o.ID == f.ID
		}
		if one := now.fill[f.ID]; one != nil && !known {
			added.Fields = append(added.Fields, f)
			ones = append(ones, one)
		}
	}
	out := make(map[uint64][]manifest.DataFile)
	for i := 0; i < len(v.Fragments) && len(ones) > 0; i++ {
		f := &v.Fragments[i]
		file, err := c.writeConstants(ctx, added, ones, f.Rows)
		if err != nil {
			c.discardAdded(ctx, out)
			return nil, err
		}
		out[f.ID] = []manifest.DataFile{file}
	}
	return out, nil
}

// writeConstants writes a file of columns that are the same in all rows.
func (c *compactor) writeConstants(ctx context.Context, schema *lance.Schema, ones []arrow.Array, rows int64) (manifest.DataFile, error) {
	name, err := newFileName()
	if err != nil {
		return manifest.DataFile{}, err
	}
	part, err := constants(schema.Arrow(), ones, int(min(rows, copyRows)))
	if err != nil {
		return manifest.DataFile{}, err
	}
	defer part.Release()
	w, err := lance.Create(ctx, c.db.st, path.Join(c.table.root, "data", name), schema, lance.WriterOptions{Version: c.table.fileVersion()})
	if err != nil {
		return manifest.DataFile{}, err
	}
	for done := int64(0); done < rows; done += part.NumRows() {
		some := part.NewSlice(0, min(part.NumRows(), rows-done))
		err := w.Write(ctx, some)
		some.Release()
		if err != nil {
			w.Abort()
			return manifest.DataFile{}, err
		}
	}
	info, err := w.Finish(ctx)
	if err != nil {
		return manifest.DataFile{}, err
	}
	return writtenFragment(name, info, schema).Files[0], nil
}

// discardAdded removes files that no version names.
func (c *compactor) discardAdded(ctx context.Context, files map[uint64][]manifest.DataFile) {
	for _, list := range files {
		for _, f := range list {
			c.table.discard(ctx, path.Join(c.table.root, "data", f.Path))
		}
	}
}
