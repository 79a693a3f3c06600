package lsm

import (
	"context"
	"path"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// writeVectorFiles writes the files of a segment below the root of a dataset. fill hands out its rows, partition by partition.
func writeVectorFiles(ctx context.Context, st object.Store, root string, x *manifest.Index, m vectorModel, fill func(w *ivf.Writer) error) error {
	w, err := ivf.Create(ctx, st, path.Join(root, x.Dir()), m.ivf, ivf.WriterOptions{Element: m.item, Trained: m.trained})
	if err != nil {
		return err
	}
	if err := fill(w); err != nil {
		w.Abort()
		return err
	}
	files, err := w.Finish(ctx)
	if err != nil {
		w.Abort()
		return err
	}
	for _, f := range files {
		x.Files = append(x.Files, manifest.IndexFile{Path: f.Path, Bytes: f.Bytes})
	}
	return nil
}

// writeVectors writes the indexes over vectors of a memtable with its generation, as writeColumns does the others: by the model that the base has
// by now, from the memtable's own index if that is the same. Rows that the memtable itself replaced are in none of them.
func writeVectors(ctx context.Context, st object.Store, dir string, t *Table, now *tableSchema, m *memtable) ([]manifest.Index, error) {
	var out []manifest.Index
	rows := m.rows.Load()
	dead := rows.deadBitmap()
	for _, model := range t.vectorModels(t.baseNow()) {
		c := m.keptVector(model)
		if c == nil {
			if c = newMemVector(model, now); c == nil {
				continue // its column was dropped
			}
			defer c.index.Release()
			for _, b := range rows.batches {
				c.add(b)
			}
		}
		if c.broken.Load() {
			continue
		}
		x, err := newVectorMeta(model, 1)
		if err != nil {
			return nil, err
		}
		x.Fragments.Add(0)
		if model.ivf.PQ() == nil {
			err = t.writeFlat(ctx, st, dir, &x, c, rows, dead)
		} else {
			err = writeVectorFiles(ctx, st, dir, &x, model, func(w *ivf.Writer) error { return c.write(ctx, w, dead) })
		}
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

// write hands the rows of the index that are not dead to a segment.
func (c *memVector) write(ctx context.Context, w *ivf.Writer, dead *roaring.Bitmap) error {
	width := c.ivf.CodeBytes()
	var ids []uint64
	var kept []byte
	return c.index.Write(func(part int, rows []uint32, codes []byte) error {
		ids, kept = ids[:0], kept[:0]
		for i, row := range rows {
			if dead != nil && dead.Contains(row) {
				continue
			}
			ids = append(ids, uint64(row))
			kept = append(kept, codes[i*width:(i+1)*width]...)
		}
		return w.Add(ctx, part, ids, kept)
	})
}

// writeFlat writes the files of an IVF_FLAT, which has the vectors themselves, of the rows of a memtable that are not dead.
func (t *Table) writeFlat(ctx context.Context, st object.Store, dir string, x *manifest.Index, c *memVector, rows *memRows, dead *roaring.Bitmap) error {
	b, err := ivf.NewBuilder(ctx, st, path.Join(dir, x.Dir()), c.ivf, t.buildOptions(c.vectorModel, rows.rowCount()))
	if err != nil {
		return err
	}
	in := newVectorFeed(b, c.ivf.Dim())
	for _, batch := range rows.batches {
		values, err := c.schema.pick(batch.schema, batch.rec, c.column)
		if err == nil {
			err = in.add(ctx, values, func(i int) (uint64, bool) {
				row := batch.first + uint32(i)
				return uint64(row), dead == nil || !dead.Contains(row)
			})
			values.Release()
		}
		if err != nil {
			b.Abort()
			return err
		}
	}
	return finishVectors(ctx, b, x)
}
