package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// cover brings all rows that were written before the call into an index: what is in front of the base is merged into
// it, and what the base has without the index is sorted and added as one more segment, beside everybody else's work. An index over
// vectors is trained anew before, if that is due or wanted.
func (t *Table) cover(ctx context.Context, x indexEntry, retrain bool, progress func(done, total int64)) error {
	if t.now().isKey(x.Fields) {
		return nil // the key's own index has them
	}
	if err := t.refuseIndexes(); err != nil {
		return err
	}
	done, err := t.beginBuild()
	if err != nil {
		return err
	}
	defer done()
	t.covering.Store(x.ID, true)
	defer t.covering.Delete(x.ID)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.db.stop, func() { cancel(ErrClosed) })()
	defer context.AfterFunc(t.stop, func() { cancel(t.ended()) })()
	if x.Kind.isVector() {
		err = t.coverVectors(ctx, x, retrain, progress)
	} else {
		err = t.coverBase(ctx, x, progress)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err) // a store says only that it was cancelled
	}
	return t.db.diskError(err)
}

// beginBuild notes that files are being written below the table's folder beside the flusher: until done is called, it
// does not become another table's.
func (t *Table) beginBuild() (done func(), err error) {
	closed, err := t.db.begin()
	if err != nil {
		return nil, err
	}
	t.place.Lock()
	defer t.place.Unlock()
	if t.left {
		closed()
		return nil, fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	t.done.Add(1)
	return func() {
		t.done.Done()
		closed()
	}, nil
}

// maxCoverRounds bounds how often fragments are looked for that came without the index meanwhile: only other programs
// make such.
const maxCoverRounds = 5

// coverBase is cover without its preparations.
func (t *Table) coverBase(ctx context.Context, x indexEntry, progress func(done, total int64)) error {
	return t.coverRounds(ctx, x, func(b *base) (more bool, err error) { return t.coverOnce(ctx, x, b, progress) })
}

// coverRounds has everything merged and calls once for the base, and again for what other programs committed meanwhile. It ends
// when once finds nothing more to do, or after some rounds if what is left are rows that came since: those who append without
// end do not keep it from its end. Rows that were there, and which others wrote anew without the index each time, are an error.
func (t *Table) coverRounds(ctx context.Context, x indexEntry, once func(b *base) (more bool, err error)) error {
	if err := t.optimize(ctx); err != nil {
		return err
	}
	var first *manifest.Version
	for range maxCoverRounds {
		b, err := t.holdBase()
		if err != nil {
			return err
		}
		if first == nil {
			first = b.version
		}
		more, err := once(b)
		b.unref()
		if !more || err != nil {
			return err
		}
	}
	return t.refuseUncovered(ctx, x, first)
}

// refuseUncovered returns an error when an index may lack rows that a version had.
func (t *Table) refuseUncovered(ctx context.Context, x indexEntry, first *manifest.Version) error {
	b, err := t.holdBase()
	if err != nil {
		return err
	}
	defer b.unref()
	frags := b.lackingAny(x)
	moved, err := t.movedRows(ctx, first.Number, b.version)
	if err != nil {
		return err
	}
	if !moved {
		frags = slices.DeleteFunc(frags, func(f *fragment) bool {
			_, there := first.Fragment(f.id)
			return !there
		})
	}
	rows := int64(0)
	for _, f := range frags {
		rows += f.live
	}
	if rows == 0 {
		return nil
	}
	return fmt.Errorf("%w: other programs wrote rows anew without index %q as often as it took them in, %d times in a row; it lacks %d rows, which scans look at one by one; try again when they commit less",
		ErrConflict, x.Name, maxCoverRounds, rows)
}

// movedRows reports whether another program may have put rows into other fragments, in a version behind some number.
func (t *Table) movedRows(ctx context.Context, above uint64, v *manifest.Version) (bool, error) {
	for u, err := range t.back(ctx, v, above+1) {
		if err != nil {
			return false, err
		}
		if u.Ours() { // then the index has them there, too
			continue
		}
		op, err := u.Operation(ctx, t.db.st, t.root)
		if err != nil && !errors.Is(err, object.ErrNotExist) {
			return false, err
		}
		if !slices.Contains(stillOperations, op) {
			return true, nil
		}
	}
	return false, nil
}

// stillOperations are those of Lance that leave rows in their fragments.
var stillOperations = []string{"Append", "Delete", "CreateIndex", "ReserveFragments", "UpdateConfig", "Project", "UpdateMemWalState"}

// holdBase returns the table's base as of now with a reference.
func (t *Table) holdBase() (*base, error) {
	set := t.holdSet()
	if set == nil {
		return nil, t.ended()
	}
	defer set.unref()
	set.base.retain()
	return set.base, nil
}

// lacking returns the fragments that no segment of an index covers.
func (b *base) lacking(x indexEntry) []*fragment {
	have := roaring.New()
	for _, s := range b.columnsNamed(x) {
		have.Or(s.meta.Fragments)
	}
	return slices.DeleteFunc(slices.Clone(b.frags), func(f *fragment) bool { return have.Contains(uint32(f.id)) })
}

// lackingAny is lacking for an index of any kind.
func (b *base) lackingAny(x indexEntry) []*fragment {
	if !x.Kind.isVector() {
		return b.lacking(x)
	}
	model, ok := b.modelOf(x)
	if !ok {
		return nil // there are too few rows for one
	}
	return b.lackingVectors(x, model.id)
}

// coverOnce adds a segment over the fragments of a version that lack one, and reports whether there were any.
func (t *Table) coverOnce(ctx context.Context, x indexEntry, b *base, progress func(done, total int64)) (more bool, err error) {
	frags := b.lacking(x)
	column := b.schema.column(x.Fields[0])
	if len(frags) == 0 || column < 0 {
		return false, nil
	}
	codec := newColumnCodec(b.schema.arrow.Field(column), column)
	note, done := t.build(b.version.Number)
	defer done()
	sorter := newColumnSorter(codec, t.db.opt.Temp, t.db.opt.sortBytes)
	defer sorter.close()
	p := newProgress(frags, progress)
	for _, f := range frags {
		err := sorter.add(ctx, f, b.schema, nil, func(row uint32) uint64 { return f.id<<32 | uint64(row) }, p.step)
		if err != nil {
			return false, err
		}
	}
	seg, err := newColumnSegment(x, b.version.Number)
	if err != nil {
		return false, err
	}
	for _, f := range frags {
		seg.Fragments.Add(uint32(f.id))
	}
	note(seg.Dir())
	err = writeColumn(ctx, t.db.st, t.root, &seg, codec, func(w *columnWriter) error {
		sources := sorter.sources(ctx)
		defer closeSources(sources)
		return mergeColumn(sources, w, func(_ int, id uint64) (uint64, bool) {
			p.step(1)
			return id, ctx.Err() == nil
		})
	})
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	tried := false
	if err == nil {
		err = t.compactor.order(ctx, func(ctx context.Context) error {
			tried = true
			return t.compactor.commitColumn(ctx, x, seg, b)
		})
	}
	if err != nil && !tried {
		t.discard(ctx, t.root+"/"+seg.Dir())
	}
	p.end()
	return true, err
}

// closeSources ends the use of sources.
func closeSources(list []*keySource) {
	for _, s := range list {
		s.close()
	}
}

// commitColumn adds a segment that was built of a version of the base to the newest one. Fragments whose column is
// another by now drop out of it; should none be left it is removed. REQUIRES: it is called by the compactor.
func (c *compactor) commitColumn(ctx context.Context, x indexEntry, seg manifest.Index, of *base) error {
	err := manifest.ErrConflict
	for try := 0; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		err = c.tryCommitColumn(ctx, x, seg, of)
	}
	if err != nil && !errors.Is(err, errCommitOpen) {
		c.table.discard(ctx, c.table.root+"/"+seg.Dir())
	}
	return err
}

// errCommitOpen is for a commit that may stand or not.
var errCommitOpen = errors.New("whether the commit stands is open")

// tryCommitColumn is one attempt of commitColumn.
func (c *compactor) tryCommitColumn(ctx context.Context, x indexEntry, seg manifest.Index, of *base) error {
	if err := c.refreshBase(ctx); err != nil {
		return err
	}
	if now, ok := c.table.index(x.Name); !ok || now.ID != x.ID {
		return ErrIndexNotFound
	}
	b, err := c.table.holdBase()
	if err != nil {
		return err
	}
	defer b.unref()
	seg.Fragments = seg.Fragments.Clone()
	for _, other := range b.columnsNamed(x) {
		seg.Fragments.AndNot(other.meta.Fragments)
	}
	for _, id := range seg.Fragments.ToArray() {
		if !sameColumn(of.version, b.version, uint64(id), x.Fields[0]) {
			seg.Fragments.Remove(id)
		}
	}
	if seg.Fragments.IsEmpty() {
		return c.db.st.DeleteAll(ctx, c.table.root+"/"+seg.Dir())
	}
	change := manifest.Change{
		RemoveIndexes: b.replaced(x, seg.Fragments),
		Indexes:       func(*manifest.Version, []uint64) ([]manifest.Index, error) { return []manifest.Index{seg}, nil },
	}
	v, err := manifest.Commit(ctx, c.db.st, c.table.root, b.version, change, c.table.manifestOptions())
	if err != nil {
		if !errors.Is(err, manifest.ErrConflict) && !errors.Is(err, manifest.ErrUnpublished) {
			err = errors.Join(err, errCommitOpen)
		}
		return err
	}
	return c.rebase(context.WithoutCancel(ctx), v)
}

// sameColumn reports whether a fragment has the same values in a column in two versions: whatever changes them writes
// another file.
func sameColumn(a, b *manifest.Version, id uint64, field int32) bool {
	x, ok := a.Fragment(id)
	y, still := b.Fragment(id)
	return ok && still && fileOf(x, field) == fileOf(y, field)
}

// fileOf returns the file of a fragment that has a field, empty when none has.
func fileOf(f *manifest.Fragment, field int32) string {
	for _, file := range f.Files {
		if slices.Contains(file.Fields, field) {
			return file.Path
		}
	}
	return ""
}

// dropColumns takes the segments with the name of an index out of the base, but for those of the key; their files stay
// for readers of older versions. REQUIRES: it is called by the compactor.
func (c *compactor) dropColumns(ctx context.Context, name string) error {
	return c.dropSegments(ctx, func(x *manifest.Index) bool { return strings.EqualFold(x.Name, name) })
}

// dropReplaced takes the segments out of the base that CREATE OR REPLACE INDEX left of indexes over other columns when a
// crash came before it had done so.
func (c *compactor) dropReplaced(ctx context.Context) error {
	list := c.table.indexList()
	return c.dropSegments(ctx, func(x *manifest.Index) bool {
		return slices.ContainsFunc(list, func(e indexEntry) bool { return e.replaces(x) })
	})
}

// dropSegments takes segments that are not the key's out of the base.
func (c *compactor) dropSegments(ctx context.Context, choose func(x *manifest.Index) bool) error {
	err := manifest.ErrConflict
	for try := 0; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		if err = c.refreshBase(ctx); err != nil {
			return err
		}
		on, now := c.table.set.Load().base.version, c.table.now()
		var gone []uuid.UUID
		for i := range on.Indexes {
			if x := &on.Indexes[i]; !now.isKey(x.Fields) && choose(x) {
				gone = append(gone, x.UUID)
			}
		}
		if len(gone) == 0 {
			return nil
		}
		var v *manifest.Version
		v, err = manifest.Commit(ctx, c.db.st, c.table.root, on, manifest.Change{RemoveIndexes: gone}, c.table.manifestOptions())
		if err == nil {
			err = c.rebase(context.WithoutCancel(ctx), v)
		}
	}
	return err
}

// buildProgress tells somebody how far a build is: rows count half when they are read and half when they are written.
type buildProgress struct {
	tell         func(done, total int64)
	steps, total int64
	told         int64
}

func newProgress(frags []*fragment, tell func(done, total int64)) *buildProgress {
	p := &buildProgress{tell: tell}
	for _, f := range frags {
		p.total += f.rows
	}
	return p
}

// progressRows is how many rows are done between two calls.
const progressRows = 1 << 17

// step notes that some rows were read, or written.
func (p *buildProgress) step(n int64) {
	p.steps += n
	if p.tell != nil && p.steps-p.told >= progressRows {
		p.told = p.steps
		p.tell(min(p.steps/2, p.total), p.total)
	}
}

// end says that all is done.
func (p *buildProgress) end() {
	if p.tell != nil {
		p.tell(p.total, p.total)
	}
}
