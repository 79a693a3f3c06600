package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/google/uuid"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/manifest"
)

// foreignVectors returns the index over vectors with a name that another program made in the base.
func (t *Table) foreignVectors(name string) (indexEntry, bool) {
	b, err := t.holdBase()
	if err != nil {
		return indexEntry{}, false
	}
	defer b.unref()
	for _, x := range t.vectorEntries(b) {
		if strings.EqualFold(x.Name, name) {
			return x, true
		}
	}
	return indexEntry{}, false
}

// coverVectors is cover for an index over vectors. Without a model, and when it is to be trained anew, it is trained with a sample of the
// base; then one segment is built over all fragments that none with that model covers. Segments with other models go. An index
// for which there are too few rows stays without a model: the next merge, or OptimizeIndex, that finds enough makes it.
func (t *Table) coverVectors(ctx context.Context, x indexEntry, retrain bool, progress func(done, total int64)) error {
	err := t.coverRounds(ctx, x, func(b *base) (more bool, err error) {
		more, err = t.coverVectorsOnce(ctx, x, b, retrain, progress)
		retrain = false
		return more, err
	})
	return errors.Join(err, t.awaitTurn(ctx))
}

// coverVectorsOnce does a round on a version of the base, and reports whether there was anything to do.
func (t *Table) coverVectorsOnce(ctx context.Context, x indexEntry, b *base, retrain bool, progress func(done, total int64)) (more bool, err error) {
	column := b.schema.column(x.Fields[0])
	if len(b.frags) == 0 || column < 0 {
		return false, nil
	}
	note, done := t.build(b.version.Number)
	defer done()
	model, ok := b.modelOf(x)
	if ok && !retrain {
		retrain = b.drifted(x, model)
	}
	if !ok || retrain {
		if model, ok, err = t.trainOnBase(ctx, x, b, column); err != nil || !ok {
			return false, err
		}
	}
	frags := b.lackingVectors(x, model.id)
	if len(frags) == 0 && !b.hasOtherModels(x, model.id) {
		return false, nil
	}
	p := newProgress(frags, progress)
	seg, err := newVectorMeta(model, b.version.Number)
	if err != nil {
		return false, err
	}
	note(seg.Dir())
	if len(frags) > 0 {
		err = t.buildVectors(ctx, &seg, model, b, column, frags, p)
	}
	tried := false
	if err == nil {
		err = t.compactor.order(ctx, func(ctx context.Context) error {
			tried = true
			return t.compactor.commitVectors(ctx, x, model.id, seg, b)
		})
	}
	if err != nil && !tried {
		t.discard(ctx, t.root+"/"+seg.Dir())
	}
	p.end()
	return true, err
}

// outgrown is how many times as many partitions an index would get now, if the number was left to us, that it is trained anew: as its
// rows are then sixteen times those of before.
const outgrown = 4

// drifted reports whether an index should be trained anew: because its rows lie much more unevenly in its partitions than those
// that it was trained with, or because it has outgrown their number.
func (b *base) drifted(x indexEntry, model vectorModel) bool {
	sizes, rows := make([]int64, model.ivf.Partitions()), int64(0)
	for _, s := range b.vectorsOf(x) {
		if s.model != model.id {
			continue
		}
		for p, n := range s.index.Sizes() {
			sizes[p] += n
			rows += n
		}
	}
	if x.Options[optionPartitions] == "" && ivf.DefaultPartitions(rows) >= outgrown*len(sizes) {
		return true
	}
	return ivf.Drifted(sizes, model.trained)
}

// hasOtherModels reports whether segments of an index have other models.
func (b *base) hasOtherModels(x indexEntry, model modelID) bool {
	for _, s := range b.vectorsOf(x) {
		if s.model != model {
			return true
		}
	}
	return false
}

// trainOnBase makes a model of a sample of the base's rows. It returns false when there are too few.
func (t *Table) trainOnBase(ctx context.Context, x indexEntry, b *base, column int) (vectorModel, bool, error) {
	rows := int64(0)
	for _, f := range b.frags {
		rows += f.live
	}
	p, err := newTrainPlan(x, b.schema.arrow.Field(column), rows)
	if err != nil || rows < p.least {
		return vectorModel{}, false, err
	}
	s, err := p.sampler(t.db.opt.Temp)
	if err != nil {
		return vectorModel{}, false, err
	}
	defer s.Close()
	in := newVectorFeed(s, p.dim)
	for _, f := range b.frags {
		if err := in.fragment(ctx, f, b.schema, column, nil, func(uint32) uint64 { return 0 }, nil); err != nil {
			return vectorModel{}, false, err
		}
	}
	return s.train(ctx)
}

// buildVectors writes a segment over some fragments of a base.
func (t *Table) buildVectors(ctx context.Context, seg *manifest.Index, model vectorModel, b *base, column int, frags []*fragment, p *buildProgress) error {
	rows := int64(0)
	for _, f := range frags {
		rows += f.rows
	}
	w, err := ivf.NewBuilder(ctx, t.db.st, path.Join(t.root, seg.Dir()), model.ivf, t.buildOptions(model, rows))
	if err != nil {
		return err
	}
	in := newVectorFeed(w, model.ivf.Dim())
	for _, f := range frags {
		err := in.fragment(ctx, f, b.schema, column, nil, func(row uint32) uint64 { return f.id<<32 | uint64(row) }, p.step)
		if err != nil {
			w.Abort()
			return err
		}
		seg.Fragments.Add(uint32(f.id))
	}
	return finishVectors(ctx, w, seg)
}

// commitVectors adds a segment with a model that was built of a version of the base to the newest one, as commitColumn does, and takes the
// segments with other models out of whose rows it has some. A segment without fragments only does the latter. REQUIRES: it is
// called by the compactor.
func (c *compactor) commitVectors(ctx context.Context, x indexEntry, model modelID, seg manifest.Index, of *base) error {
	err := manifest.ErrConflict
	for try := 0; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		err = c.tryCommitVectors(ctx, x, model, seg, of)
	}
	if err != nil && !errors.Is(err, errCommitOpen) && len(seg.Files) > 0 {
		c.table.discard(ctx, c.table.root+"/"+seg.Dir())
	}
	return err
}

// tryCommitVectors is one attempt of commitVectors.
func (c *compactor) tryCommitVectors(ctx context.Context, x indexEntry, model modelID, seg manifest.Index, of *base) error {
	if err := c.refreshBase(ctx); err != nil {
		return err
	}
	if now, ok := c.table.index(x.Name); x.ID > 0 && (!ok || now.ID != x.ID) {
		return ErrIndexNotFound
	}
	b, err := c.table.holdBase()
	if err != nil {
		return err
	}
	defer b.unref()
	seg.Fragments = seg.Fragments.Clone()
	for _, id := range seg.Fragments.ToArray() {
		if !sameColumn(of.version, b.version, uint64(id), x.Fields[0]) {
			seg.Fragments.Remove(id)
		}
	}
	have := seg.Fragments.Clone()
	var gone []uuid.UUID
	for _, other := range b.vectorsOf(x) {
		if other.model == model {
			seg.Fragments.AndNot(other.meta.Fragments)
			have.Or(other.meta.Fragments)
		}
	}
	for _, other := range b.vectorsOf(x) {
		if live := b.vectorCovers(other); other.model != model && (live.IsEmpty() || live.Intersects(have)) {
			gone = append(gone, other.meta.UUID)
		}
	}
	gone = append(gone, b.replaced(x, seg.Fragments)...)
	if seg.Fragments.IsEmpty() && len(seg.Files) > 0 {
		if err := c.db.st.DeleteAll(ctx, c.table.root+"/"+seg.Dir()); err != nil {
			return err
		}
	}
	change := manifest.Change{RemoveIndexes: gone}
	if !seg.Fragments.IsEmpty() {
		change.Indexes = func(*manifest.Version, []uint64) ([]manifest.Index, error) { return []manifest.Index{seg}, nil }
	} else if len(gone) == 0 {
		return nil
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

// optimizeVectors brings the indexes over vectors up to the table after its compaction: those that have no model for lack of rows, and
// those whose partitions have drifted.
func (t *Table) optimizeVectors(ctx context.Context) error {
	b, err := t.holdBase()
	if err != nil {
		return err
	}
	var due []indexEntry
	for _, x := range t.vectorEntries(b) {
		if model, ok := b.modelOf(x); !ok || b.drifted(x, model) || b.hasOtherModels(x, model.id) {
			due = append(due, x)
		}
	}
	b.unref()
	for _, x := range due {
		if err := t.cover(ctx, x, false, nil); err != nil && !errors.Is(err, ErrIndexNotFound) {
			return fmt.Errorf("index %q: %w", x.Name, err)
		}
	}
	return t.awaitTurn(ctx)
}

// behind returns the shards whose memtables do not keep the indexes over vectors which one that is begun now would keep.
func (t *Table) behind() (out []*shard) {
	set := t.holdSet()
	if set == nil {
		return nil
	}
	defer set.unref()
	for i, c := range set.chains {
		if !t.keepsVectors(c.active(), set.base) {
			out = append(out, t.shards[i])
		}
	}
	return out
}

// turnModels has other memtables begun in the place of those that are behind.
func (t *Table) turnModels() {
	for _, s := range t.behind() {
		select {
		case s.freezes <- nil:
		default: // it is asked to already
		}
	}
}

// awaitTurn is turnModels, and waits for it: what is written after a statement that trained an index is put in by it.
func (t *Table) awaitTurn(ctx context.Context) error {
	for _, s := range t.behind() {
		if err := s.freeze(ctx); err != nil {
			return err
		}
	}
	return nil
}
