package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/lsm/policy"
	"github.com/flightd/flightd/manifest"
)

// fragmentRows is how many rows a new fragment of the base has at most; Lance's own default.
const fragmentRows = 1 << 20

// merged is the rows of some generations on their way into new fragments.
type merged struct {
	schema *tableSchema
	// set has the generations, base is what the commit stands on: that of set, or a newer one when other programs changed it
	// meanwhile.
	set  *layerSet
	base *base
	gens []layerRef
	// live holds, for each generation, the rows that go over: neither tombstones nor replaced by another generation.
	live []*roaring.Bitmap
	// ranks are those of live.
	ranks []*rowRank
	// first is, for each generation, the place of its first live row among all that go over.
	first []int64
	rows  int64
	frags []manifest.Fragment
}

// merge brings all generations into the base: one commit appends their live rows, deletes the base rows that they
// replace, and says of each shard which generations it has, so that none is merged twice. Flushes go on meanwhile; what
// they add is no part of it. It returns the rows it appended.
func (c *compactor) merge(ctx context.Context) (int64, error) {
	if err := errors.Join(c.refreshBase(ctx), c.refuseDivided()); err != nil {
		return 0, err
	}
	now, err := c.align(ctx)
	if err != nil {
		return 0, err
	}
	t := c.table
	set := t.holdStored()
	if set == nil {
		return 0, t.ended()
	}
	defer set.unref()
	m := newMerged(now, set)
	if len(m.gens) == 0 {
		return 0, nil
	}
	if err := c.writeFragments(ctx, m); err != nil {
		return 0, err
	}
	v, err := c.commitMerge(ctx, m, replacedBase(set))
	for try := 1; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		// Another program changed the base. The rows that go over are the same, and so are their fragments: what they replace
		// is another.
		var fresh *base
		var dead map[uint64]*roaring.Bitmap
		if fresh, dead, err = c.moveOn(ctx, m); err != nil {
			break
		}
		m.base = fresh
		v, err = c.commitMerge(ctx, m, dead)
		fresh.unref()
	}
	if errors.Is(err, manifest.ErrConflict) || errors.Is(err, manifest.ErrUnpublished) {
		t.discardFragments(ctx, m.frags) // after any other error they may be part of a version
	}
	if err != nil {
		return 0, err
	}
	c.db.counters.compactWritten.Add(fileSizes(m.frags))
	// The commit stands: a caller who went away must not leave the shards behind it.
	return m.rows, c.rebase(context.WithoutCancel(ctx), v)
}

// commitMerge makes one attempt to publish a merge on the base that it stands on, of which it deletes some rows.
func (c *compactor) commitMerge(ctx context.Context, m *merged, dead map[uint64]*roaring.Bitmap) (*manifest.Version, error) {
	t := c.table
	change := manifest.Change{Append: m.frags, Delete: dead, Compacted: m.compacted(t), Shards: len(t.shards)}
	if m.schema.codec != nil {
		change.ShardedBy = m.schema.keyIDs()[0]
	}
	segments := c.newSegmentWriter(m)
	defer segments.close()
	if m.base.version.StableRowIDs() != nil {
		segments.m = &merged{} // indexes name rows by those ids, and are left to Lance
	}
	if err := segments.prepare(ctx, &change); err != nil {
		return nil, fmt.Errorf("%w: %w", manifest.ErrUnpublished, err)
	}
	v, err := manifest.Commit(ctx, c.db.st, t.root, m.base.version, change, t.manifestOptions())
	c.discardSegments(ctx, segments.written, v, err)
	return v, err
}

// moveOn returns the newest base, with a reference, and which of its rows a merge replaces.
func (c *compactor) moveOn(ctx context.Context, m *merged) (*base, map[uint64]*roaring.Bitmap, error) {
	t := c.table
	if err := errors.Join(c.refreshBase(ctx), c.refuseDivided()); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", manifest.ErrUnpublished, err)
	}
	b, err := t.holdBase()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", manifest.ErrUnpublished, err)
	}
	if t.now() != m.schema || !m.schema.sameColumns(b.version) {
		b.unref()
		return nil, nil, fmt.Errorf("%w: its columns are others", manifest.ErrConflict)
	}
	dead := make(map[uint64]*roaring.Bitmap)
	for i := range m.set.chains {
		mask, err := b.replacedBy(ctx, m.set, i, m.set.chains[i].generations())
		if err != nil {
			b.unref()
			return nil, nil, fmt.Errorf("%w: %w", manifest.ErrUnpublished, err)
		}
		for id, rows := range mask.dead {
			if dead[id] == nil {
				dead[id] = rows.Bitmap
				continue
			}
			dead[id] = roaring.Or(dead[id], rows.Bitmap)
		}
	}
	return b, dead, nil
}

// compacted returns for each shard the newest generation that goes over.
func (m *merged) compacted(t *Table) map[uuid.UUID]uint64 {
	last := make(map[uuid.UUID]uint64)
	for i, s := range t.shards {
		if n := m.set.chains[i].newest(); n > 0 {
			last[s.id] = n
		}
	}
	return last
}

// newMerged works out which rows of the generations go over.
func newMerged(now *tableSchema, set *layerSet) *merged {
	m := &merged{schema: now, set: set, base: set.base}
	for _, c := range set.chains {
		m.gens = append(m.gens, c.generations()...)
	}
	for _, l := range m.gens {
		g := l.layer.(*generation)
		live := roaring.New()
		live.AddRange(0, uint64(g.frag.rows))
		if g.frag.hidden != nil {
			live.AndNot(g.frag.hidden)
		}
		if l.mask != nil {
			if replaced := l.mask.flushed.fragment(0); replaced != nil {
				live.AndNot(replaced)
			}
		}
		m.live, m.ranks = append(m.live, live), append(m.ranks, newRowRank(live))
		m.first = append(m.first, m.rows)
		m.rows += int64(live.GetCardinality())
	}
	return m
}

// place returns where a row of a generation goes, as a number among all rows that go over, and whether it does.
func (m *merged) place(gen int, row uint32) (int64, bool) {
	n, ok := m.ranks[gen].place(row)
	return m.first[gen] + n, ok
}

// address returns the row address of a place, given the ids of the appended fragments.
func address(place int64, appended []uint64) uint64 {
	return appended[place/fragmentRows]<<32 | uint64(place%fragmentRows)
}

// replacedBase returns the base rows that the generations replace, by fragment.
func replacedBase(set *layerSet) map[uint64]*roaring.Bitmap {
	out := make(map[uint64]*roaring.Bitmap)
	for _, f := range set.base.frags {
		if dead := set.replaced(f.id); len(dead) == 1 {
			out[f.id] = dead[0]
		} else if len(dead) > 1 {
			out[f.id] = roaring.FastOr(dead...)
		}
	}
	return out
}

// indexable reports whether the base has a BTREE over the key: Lance's are over one column.
func (t *Table) indexable() bool {
	codec := t.now().codec
	return codec != nil && len(codec.cols) == 1
}

// fragmentWriter writes rows into fragments of fragmentRows each.
type fragmentWriter struct {
	table  *Table
	schema *tableSchema
	w      *lance.Writer
	name   string
	// stored is the schema of the open file, whose columns have the forms of the base's.
	stored *lance.Schema
	// note, which may be nil, is called with the name of each file before it is begun.
	note func(name string)
	// pause, which may be nil, is called with the bytes that were moved since the last call.
	pause func(ctx context.Context, n int64) error
	rows  int64 // in the open fragment
	all   int64 // in all fragments
	done  []manifest.Fragment
}

// writeFragments writes the rows that go over, oldest generation first.
func (c *compactor) writeFragments(ctx context.Context, m *merged) error {
	w := &fragmentWriter{table: c.table, schema: m.schema}
	w.pause = func(ctx context.Context, n int64) error {
		return c.pause(ctx, n, func(now *layerSet) bool {
			gens, _ := now.generations()
			return policy.Behind(w.all, m.rows, len(m.gens), gens-len(m.gens))
		})
	}
	var err error
	for i, l := range m.gens {
		if err = w.copyLive(ctx, l.layer.(*generation).frag, m.live[i]); err != nil {
			break
		}
	}
	if err == nil {
		err = w.cut(ctx)
	}
	if err != nil {
		w.abort(ctx)
		return err
	}
	m.frags = w.done
	return nil
}

// abort removes what was written.
func (w *fragmentWriter) abort(ctx context.Context) {
	if w.w != nil {
		w.w.Abort()
	}
	w.table.discardFragments(ctx, w.done)
}

// discardFragments removes files that no version names.
func (t *Table) discardFragments(ctx context.Context, frags []manifest.Fragment) {
	for _, f := range frags {
		t.discard(ctx, path.Join(t.root, "data", f.Files[0].Path))
	}
}

// discardSegments removes the index segments of attempts that came to nothing, given how the commit ended.
func (c *compactor) discardSegments(ctx context.Context, segments []uuid.UUID, v *manifest.Version, err error) {
	if err != nil && !errors.Is(err, manifest.ErrConflict) && !errors.Is(err, manifest.ErrUnpublished) {
		return // the last one may be part of a version
	}
	for _, id := range segments {
		if v == nil || !slices.ContainsFunc(v.Indexes, func(x manifest.Index) bool { return x.UUID == id }) {
			c.table.discard(ctx, path.Join(c.table.root, (&manifest.Index{UUID: id}).Dir()))
		}
	}
}

// copyRows is how many rows of a generation are looked at together: few enough that their copies are small beside a
// memtable, vectors included.
const copyRows = 16_384

// copyLive appends the live rows of a file.
func (w *fragmentWriter) copyLive(ctx context.Context, f *fragment, live *roaring.Bitmap) error {
	dead := roaring.Flip(live, 0, uint64(f.rows))
	for first := int64(0); first < f.rows; first += copyRows {
		n := min(copyRows, f.rows-first)
		rows := liveRows(uint32(first), uint32(n), []*roaring.Bitmap{dead}, nil)
		var err error
		if rows == nil {
			err = w.copyRange(ctx, f, first, n)
		} else if len(rows) > 0 {
			err = w.copyTaken(ctx, f, first, rows)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyRange appends n rows from first on, as they lie in the file.
func (w *fragmentWriter) copyRange(ctx context.Context, f *fragment, first, n int64) error {
	sc := f.scan(w.schema, w.schema.all(), first, n, n)
	defer sc.Close()
	for {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = w.write(ctx, rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
}

// copyTaken appends some rows, counted from first.
func (w *fragmentWriter) copyTaken(ctx context.Context, f *fragment, first int64, rows []uint32) error {
	at := make([]int64, len(rows))
	for i, r := range rows {
		at[i] = first + int64(r)
	}
	rec, err := f.take(ctx, w.schema, w.schema.all(), at)
	if err != nil {
		return err
	}
	defer rec.Release()
	return w.write(ctx, rec)
}

// write appends a batch, over as many fragments as it needs.
func (w *fragmentWriter) write(ctx context.Context, rec arrow.RecordBatch) error {
	for off := int64(0); off < rec.NumRows(); {
		if w.w == nil {
			if err := w.begin(ctx); err != nil {
				return err
			}
		}
		n := min(rec.NumRows()-off, fragmentRows-w.rows)
		part := rec.NewSlice(off, off+n)
		err := w.w.Write(ctx, part)
		if err == nil && w.pause != nil {
			err = w.pause(ctx, 2*recordBytes(part)) // read and written
		}
		part.Release()
		if err != nil {
			return err
		}
		off += n
		w.all += n
		if w.rows += n; w.rows == fragmentRows {
			if err := w.cut(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin opens a file.
func (w *fragmentWriter) begin(ctx context.Context) error {
	var err error
	if w.name, err = newFileName(); err != nil {
		return err
	}
	t := w.table
	if w.note != nil {
		w.note(path.Join("data", w.name))
	}
	w.stored = t.inForms(w.schema.lance)
	w.w, err = lance.Create(ctx, t.db.st, path.Join(t.root, "data", w.name), w.stored, lance.WriterOptions{Version: t.fileVersion(), Compress: t.fileVersion() != lance.Version20})
	w.rows = 0
	return err
}

// cut finishes the open fragment, if there is one.
func (w *fragmentWriter) cut(ctx context.Context) error {
	if w.w == nil {
		return nil
	}
	info, err := w.w.Finish(ctx)
	if err != nil {
		return err
	}
	w.done = append(w.done, writtenFragment(w.name, info, w.stored))
	w.w = nil
	return nil
}

// unmerged returns the generations above a number.
func unmerged(gens []manifest.Generation, last uint64) []manifest.Generation {
	var rest []manifest.Generation
	for _, g := range gens {
		if g.Number > last {
			rest = append(rest, g)
		}
	}
	return rest
}
