package lsm

import (
	"context"
	"errors"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/manifest"
)

// refreshBase takes up the newest version of the table when other programs committed since.
func (c *compactor) refreshBase(ctx context.Context) error { return c.table.takeUp(ctx) }

// rebase lets readers have a version of the base that the compactor committed.
func (c *compactor) rebase(ctx context.Context, v *manifest.Version) error {
	t := c.table
	if err := t.basing.lock(ctx); err != nil {
		return err
	}
	defer t.basing.unlock()
	return t.rebase(ctx, v)
}

// rebase puts another version of the base in the place of the one that readers have, and of the generations that it
// contains: first for the next Open, then for readers. The folders of these generations go when no snapshot holds them any
// more. Flushes go on meanwhile. A version that is no newer than the readers' is passed over: whoever looked for other
// programs' versions has come upon it first. REQUIRES: t.basing is held.
func (t *Table) rebase(ctx context.Context, v *manifest.Version) error {
	if set := t.set.Load(); set != nil && v.Number <= set.base.version.Number {
		return nil
	}
	r, err := t.newRebase(ctx, v, t.now())
	if err != nil {
		return err
	}
	defer r.base.unref()
	return r.run(ctx)
}

// newRebaseAnew is newRebase for a version that stands alone: what is in front of the base is left behind.
func (t *Table) newRebaseAnew(ctx context.Context, v *manifest.Version, s *tableSchema) (*rebase, error) {
	set := t.holdStored()
	if set == nil {
		return nil, t.ended()
	}
	defer set.unref()
	b, err := openBase(ctx, t.db.st, t, v, s, nil)
	if err != nil {
		return nil, err
	}
	r := &rebase{table: t, base: b, anew: true, next: s, dead: make([]*rowMask, len(t.shards)), known: make([]uint64, len(t.shards)), done: make([]uint64, len(t.shards))}
	for i, c := range set.chains {
		r.done[i] = c.newest()
	}
	return r, nil
}

// rebase is the state of Table.rebase.
type rebase struct {
	table *Table
	base  *base
	// done is for each shard the number of the newest generation that the base has.
	done []uint64
	// known is for each shard the newest generation whose keys are in dead, which has the rows of the base that they
	// replace.
	known []uint64
	dead  []*rowMask
	// next is the schema that the table has from then on, nil when it stays.
	next *tableSchema
	// anew is set when nothing that is in front of the base goes over: nobody writes the table, the memtables that are active
	// have no rows, and everything is in the generations up to done or in memtables that nobody will flush.
	anew bool
}

// newRebase opens a version, to be read under a schema of the table, and does what can be done before readers have it. The
// caller drops the base.
func (t *Table) newRebase(ctx context.Context, v *manifest.Version, s *tableSchema) (*rebase, error) {
	on := t.holdStored()
	if on == nil {
		return nil, t.ended()
	}
	defer on.unref()
	b, err := openBase(ctx, t.db.st, t, v, s, on.base)
	if err != nil {
		return nil, err
	}
	r := &rebase{table: t, base: b, dead: make([]*rowMask, len(t.shards)), known: make([]uint64, len(t.shards))}
	if r.done, err = t.compacted(ctx, v); err == nil {
		err = r.carry(ctx, on)
	}
	if err != nil {
		b.unref()
		return nil, err
	}
	return r, nil
}

// run takes the generations that the base has off the manifests, and lets readers have it.
func (r *rebase) run(ctx context.Context) error {
	if err := r.trim(ctx); err != nil {
		return err
	}
	for {
		if err := r.resolve(ctx); err != nil {
			return err
		}
		if r.tryPublish(ctx) {
			r.table.turnModels()
			return nil
		}
	}
}

// trimmers bounds how many shards' manifests are written at a time.
const trimmers = 8

// trim takes the generations that the base has off the manifests.
func (r *rebase) trim(ctx context.Context) error {
	errs := make([]error, len(r.table.shards))
	slots := make(chan struct{}, trimmers)
	var all sync.WaitGroup
	for i, s := range r.table.shards {
		gens := s.manifest().Generations
		if len(unmerged(gens, r.done[i])) == len(gens) {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			errs[i] = s.edit(ctx, func(n *manifest.Shard) { n.Generations = unmerged(n.Generations, r.done[i]) })
			<-slots
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// carry finds the rows of the base that the generations of a set replace, of which most is known.
func (r *rebase) carry(ctx context.Context, on *layerSet) error {
	for i, c := range on.chains {
		var gens []layerRef
		for _, l := range c.generations() {
			if l.layer.(*generation).number > r.done[i] {
				gens = append(gens, l)
			}
		}
		if len(gens) == 0 {
			continue
		}
		var err error
		if r.dead[i], err = r.base.replacedBy(ctx, on, i, gens); err != nil {
			return err
		}
		r.known[i] = c.newest()
	}
	return nil
}

// replacedBy returns the rows that some generations of a chain replace. In a fragment that the base of the chain's set has
// with the same rows, keys are where they were, so that its mask is taken; what it has by generations that are in the new
// base, the new base has deleted. The others are searched.
func (b *base) replacedBy(ctx context.Context, on *layerSet, chain int, gens []layerRef) (*rowMask, error) {
	m := &rowMask{dead: make(map[uint64]*sharedRows)}
	if b.schema.codec == nil {
		return m, nil
	}
	fresh := b.since(on.base)
	for _, f := range b.frags {
		if dead := on.chains[chain].replaced.flushed.shared(f.id); dead != nil && !fresh.has(f) {
			m.dead[f.id] = without(dead, f.hidden)
		}
	}
	list := make([]*generation, len(gens))
	for i, l := range gens {
		list[i] = l.layer.(*generation)
	}
	masks, err := superseded(ctx, b.schema.codec, []layer{fresh}, []*rowMask{m}, list, 0)
	if err != nil {
		return nil, err
	}
	return masks[0], nil
}

// resolve finds the rows of the base that the other generations replace, as far as it was not done yet.
func (r *rebase) resolve(ctx context.Context) error {
	set := r.table.holdStored()
	if set == nil {
		return r.table.ended()
	}
	defer set.unref()
	for i, c := range set.chains {
		var fresh []*generation
		for _, l := range c.generations() {
			if g := l.layer.(*generation); g.number > max(r.done[i], r.known[i]) {
				fresh = append(fresh, g)
			}
		}
		if len(fresh) == 0 {
			continue
		}
		masks, err := superseded(ctx, r.base.schema.codec, []layer{r.base}, []*rowMask{r.mask(i, 0)}, fresh, 0)
		if err != nil {
			return err
		}
		r.dead[i], r.known[i] = masks[0], fresh[len(fresh)-1].number
	}
	return nil
}

// mask returns what is known to be dead by the keys of a shard, as of an LSN.
func (r *rebase) mask(shard int, upTo LSN) *rowMask {
	m := &rowMask{upTo: upTo}
	if r.dead[shard] != nil {
		m.dead = r.dead[shard].dead
	}
	return m
}

// tryPublish lets readers have the base, unless there are generations by now whose keys are not known.
func (r *rebase) tryPublish(ctx context.Context) bool {
	t := r.table
	t.swap.Lock()
	defer t.swap.Unlock()
	set := t.set.Load()
	chains := make([]*chain, len(set.chains))
	var merged []*generation
	for i, old := range set.chains {
		if old.newest() > max(r.done[i], r.known[i]) {
			return false
		}
		if r.anew {
			for _, l := range old.generations() {
				merged = append(merged, l.layer.(*generation))
			}
			chains[i] = r.emptyChain(old)
			defer chains[i].unref()
			continue
		}
		gens := old.generations()
		for len(gens) > 0 && gens[0].layer.(*generation).number <= r.done[i] {
			merged = append(merged, gens[0].layer.(*generation))
			gens = gens[1:]
		}
		chains[i] = old.grown(gens, 0, newMaskCell(r.mask(i, old.flushed)), old.flushed)
		defer chains[i].unref()
	}
	for _, g := range merged {
		g.removeLater(func(dir string) { t.discard(ctx, dir) })
	}
	t.publishAs(r.base, chains, r.next)
	return true
}

// emptyChain returns the chain of a shard that has nothing in front of the base.
func (r *rebase) emptyChain(old *chain) *chain {
	t := r.table
	now := r.next
	if now == nil {
		now = t.now()
	}
	active := t.newMemtableOf(now, r.base)
	defer active.unref()
	upTo := max(old.flushed, LSN(t.last.Load()))
	return newChain([]layerRef{{layer: active}}, newMaskCell(&rowMask{upTo: upTo}), upTo)
}

// without returns the rows of a bitmap that another, which may be nil, has not.
func without(rows *sharedRows, hidden *roaring.Bitmap) *sharedRows {
	if hidden == nil || !rows.Intersects(hidden) {
		return rows
	}
	return &sharedRows{Bitmap: roaring.AndNot(rows.Bitmap, hidden)}
}

// newFragments is the fragments of a base with rows that another has not, as a layer.
type newFragments struct {
	*base
	ids *roaring.Bitmap
}

// since returns the fragments with rows that a base has not: it has other files for them, or has deleted some, which a
// restore brought back.
func (b *base) since(old *base) newFragments {
	n := newFragments{base: b, ids: roaring.New()}
	for i := range b.version.Fragments {
		f := &b.version.Fragments[i]
		before, ok := old.version.Fragment(f.ID)
		if !ok || !sameFiles(before, f) || old.byID[f.ID].hidesMore(b.byID[f.ID]) {
			n.ids.Add(uint32(f.ID))
		}
	}
	return n
}

// hidesMore reports whether a fragment has deleted a row that another version of it has not.
func (f *fragment) hidesMore(other *fragment) bool {
	if f.hidden == nil || f.hidden == other.hidden {
		return false
	}
	return other.hidden == nil || f.hidden.GetCardinality() > f.hidden.AndCardinality(other.hidden)
}

// has reports whether a fragment is one of them.
func (n newFragments) has(f *fragment) bool { return n.ids.Contains(uint32(f.id)) }

// resolve implements layer. Segments and fragments that have none of them are not looked at.
func (n newFragments) resolve(ctx context.Context, run *keyRun, mark func(fragment uint64, row uint32)) error {
	part := &base{version: n.version, byID: n.byID, schema: n.schema}
	for _, s := range n.indexes {
		if s.meta.Fragments.Intersects(n.ids) {
			part.indexes = append(part.indexes, s)
		}
	}
	for _, f := range n.uncovered {
		if n.has(f) {
			part.uncovered = append(part.uncovered, f)
		}
	}
	return part.resolve(ctx, run, func(fragment uint64, row uint32) {
		if n.ids.Contains(uint32(fragment)) {
			mark(fragment, row)
		}
	})
}
