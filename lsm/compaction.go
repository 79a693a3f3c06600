package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/lsm/policy"
	"github.com/flightd/flightd/manifest"
)

// What compaction keeps a table within; package policy says what follows from it. The rest of the limits depends on the
// number of shards.
const (
	smallFan    = 8
	segmentFan  = 4
	maxDeleted  = 1.0 / 3
	maxJobBytes = 1 << 30
	// minReclaim is the dead bytes in a base below which nothing is written anew: small tables gain nothing from it.
	minReclaim = 1 << 20
)

// backgroundJobs bounds the tables that are compacted at a time without anybody waiting for it. They take turns.
const backgroundJobs = 2

// limits returns what compaction keeps the table within.
func (c *compactor) limits() policy.Limits {
	return policy.Limits{Generations: maxGenerations, AllGenerations: maxGenerations + generationsPerShard*len(c.table.shards),
		FragmentRows: fragmentRows, Fan: smallFan, SegmentFan: segmentFan, Deleted: maxDeleted, DeletedBytes: c.db.minReclaim, JobBytes: maxJobBytes}
}

// plan returns what should be done next in the table as it is in a layer set.
func (c *compactor) plan(ctx context.Context, set *layerSet) []policy.Job {
	if set.base.readOnly != nil || c.table.divided.Load() != nil {
		return nil
	}
	s := policy.State{Room: c.db.space.spare()}
	for i, chain := range set.chains {
		for _, l := range chain.generations() {
			g := l.layer.(*generation)
			live := g.frag.live - int64(replacedIn(l))
			s.Generations = append(s.Generations, policy.Generation{Shard: i, Rows: g.frag.rows, Live: max(live, 0), Bytes: g.bytes})
		}
	}
	x := c.indexState(ctx, set.base)
	stable := set.base.version.StableRowIDs() != nil // Lance puts their fragments together
	busy := c.table.changing() || stable
	if !busy { // a build may be about to put one in the place of some of them
		s.Segments = x.segments
	}
	for _, f := range set.base.frags {
		p := policy.Fragment{ID: f.id, Rows: f.rows, Live: f.live, Group: strings.Join(x.groups[f.id], "\x00"), Pinned: busy || x.pinned[f.id]}
		for _, dead := range set.replaced(f.id) {
			p.Replaced += int64(dead.GetCardinality())
		}
		if meta, ok := set.base.version.Fragment(f.id); ok {
			for _, file := range meta.Files {
				p.Bytes += max(file.Bytes, 8*f.rows) // other writers may not say
			}
		}
		s.Fragments = append(s.Fragments, p)
	}
	return policy.Plan(s, c.limits())
}

// replacedIn returns how many rows of a generation newer ones replaced.
func replacedIn(l layerRef) uint64 {
	if l.mask == nil {
		return 0
	}
	if dead := l.mask.flushed.fragment(0); dead != nil {
		return dead.GetCardinality()
	}
	return 0
}

// changing reports whether a statement or an index build stands on the fragments of the base: they must not become
// others under it, or it would have to run again.
func (t *Table) changing() bool {
	t.heldMu.Lock()
	defer t.heldMu.Unlock()
	return len(t.building) > 0
}

// indexState is what compaction knows of the indexes of a base.
type indexState struct {
	segments []policy.Segment
	// groups are the indexes that cover a fragment.
	groups map[uint64][]string
	// pinned are the fragments that an index covers which cannot follow their rows.
	pinned map[uint64]bool
}

// indexState looks at the indexes of a base.
func (c *compactor) indexState(ctx context.Context, b *base) indexState {
	out := indexState{groups: make(map[uint64][]string), pinned: make(map[uint64]bool)}
	c.forgetEntries(b.version)
	for i := range b.version.Indexes {
		x := &b.version.Indexes[i]
		entries, ok := c.entriesOf(ctx, x)
		s := policy.Segment{Index: c.groupOf(x), ID: x.UUID.String(), Rows: entries}
		for _, f := range x.Files {
			s.Bytes += f.Bytes
		}
		s.Overlaps = slices.ContainsFunc(b.version.Indexes, func(y manifest.Index) bool {
			_, readable := c.entriesOf(ctx, &y)
			return readable && y.UUID != x.UUID && c.groupOf(&y) == s.Index && b.coverBoth(x, &y)
		})
		for _, f := range b.frags {
			switch {
			case x.Fragments != nil && !x.Fragments.Contains(uint32(f.id)):
				continue
			case !ok:
				out.pinned[f.id] = true
				continue
			}
			s.Live += f.live
			if g := out.groups[f.id]; !slices.Contains(g, s.Index) {
				out.groups[f.id] = append(g, s.Index)
				slices.Sort(out.groups[f.id])
			}
		}
		if ok {
			s.Rows = max(s.Rows, s.Live) // a column may have been dropped with the entries
			out.segments = append(out.segments, s)
		}
	}
	return out
}

// coverBoth reports whether two segments cover a fragment of the version.
func (b *base) coverBoth(x, y *manifest.Index) bool {
	if x.Fragments == nil || !x.Fragments.Intersects(y.Fragments) {
		return false
	}
	return slices.ContainsFunc(b.frags, func(f *fragment) bool {
		return x.Fragments.Contains(uint32(f.id)) && y.Fragments.Contains(uint32(f.id))
	})
}

// indexName returns what the segments of one index have in common.
func indexName(x *manifest.Index) string {
	return fmt.Sprintf("%s %v", x.Name, x.Fields)
}

// segmentEntries is what compaction knows of a segment.
type segmentEntries struct {
	rows int64 // -1 when it cannot be read
	// model is that of an index over vectors.
	model modelID
}

// entriesOf returns how many entries a segment has, and whether compaction can make others of it: a BTREE, or an index over vectors of a
// kind that is read here, of one column, that says what it covers.
func (c *compactor) entriesOf(ctx context.Context, x *manifest.Index) (int64, bool) {
	if !x.BTree() && !x.Vector() || x.Fragments == nil || len(x.Fields) != 1 {
		return 0, false
	}
	n, known := c.entries[x.UUID]
	if !known {
		var err error
		if n, err = c.readEntries(ctx, x); err != nil {
			if ctx.Err() != nil {
				return 0, false
			}
			n.rows = -1
		}
		c.entries[x.UUID] = n
	}
	return n.rows, n.rows >= 0
}

// readEntries looks into a segment.
func (c *compactor) readEntries(ctx context.Context, x *manifest.Index) (segmentEntries, error) {
	if x.Vector() {
		index, err := c.openVectorSegment(ctx, x)
		if err != nil {
			return segmentEntries{}, err
		}
		if !index.Extensible() {
			return segmentEntries{rows: -1}, index.Close()
		}
		n := segmentEntries{rows: index.Rows(), model: newModelID(index.Model(), index.Element())}
		return n, index.Close()
	}
	index, err := c.openSegment(ctx, x)
	if err != nil {
		return segmentEntries{}, err
	}
	return segmentEntries{rows: index.Rows()}, index.Close()
}

// groupOf returns what segments have in common of which one can be made: the index, and with it the model if it is one over vectors.
// REQUIRES: entriesOf was asked.
func (c *compactor) groupOf(x *manifest.Index) string {
	name := indexName(x)
	if x.Vector() {
		name += " " + c.entries[x.UUID].model.String()
	}
	return name
}

// openSegment opens a segment of the table.
func (c *compactor) openSegment(ctx context.Context, x *manifest.Index) (*btree.Index, error) {
	return btree.Open(ctx, c.db.st, path.Join(c.table.root, x.Dir()), btree.Options{Files: indexFiles(*x)})
}

// forgetEntries forgets the segments that a version does not have.
func (c *compactor) forgetEntries(v *manifest.Version) {
	for id := range c.entries {
		if !slices.ContainsFunc(v.Indexes, func(x manifest.Index) bool { return x.UUID == id }) {
			delete(c.entries, id)
		}
	}
}

// next returns the most urgent job but for those that rest, if there is one. rests may be nil.
func (c *compactor) next(ctx context.Context, rests func(policy.Job) bool) (policy.Job, bool) {
	set := c.table.holdStored()
	if set == nil {
		return policy.Job{}, false
	}
	defer set.unref()
	for _, j := range c.plan(ctx, set) {
		if rests == nil || !rests(j) {
			return j, true
		}
	}
	return policy.Job{}, false
}

// rests reports whether a job is left alone because one like it has failed: merges, which writers may wait for, are not
// held up by what else fails, nor the other way round.
func (c *compactor) rests(j policy.Job) bool {
	if j.Kind == policy.Merge {
		return !c.mergeAfter.IsZero()
	}
	return !c.jobAfter.IsZero()
}

// rested ends the rests that are over.
func (c *compactor) rested() {
	for _, at := range []*time.Time{&c.mergeAfter, &c.jobAfter} {
		if !time.Now().Before(*at) {
			*at = time.Time{}
		}
	}
}

// wake returns a channel that is ready when the first rest is over, nil when nothing rests.
func (c *compactor) wake() <-chan time.Time {
	at := c.mergeAfter
	if at.IsZero() || !c.jobAfter.IsZero() && c.jobAfter.Before(at) {
		at = c.jobAfter
	}
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// compactAll does everything that is planned. Other programs' commits count, too.
func (c *compactor) compactAll(ctx context.Context) error {
	if err := c.mergeAll(ctx); err != nil {
		return err
	}
	for range maxJobs {
		j, ok := c.next(ctx, nil)
		if !ok {
			return nil
		}
		if err := c.do(ctx, j); err != nil {
			return err
		}
	}
	return nil
}

// maxJobs bounds the jobs of one OPTIMIZE: others may commit without end. Each halves what it is about, and the rest is
// left to the background.
const maxJobs = 1000

// background does what is planned, as far as nobody waits for it, in turns with other tables. What failed is left alone for
// some time.
func (c *compactor) background(ctx context.Context) error {
	c.rested()
	if c.db.opt.manual {
		return nil
	}
	for ctx.Err() == nil {
		j, ok := c.next(ctx, c.rests)
		if !ok {
			return nil
		}
		select {
		case c.db.turns <- struct{}{}:
		case o := <-c.orders: // whoever waits goes first, and may leave less to do
			o.done <- o.do()
			continue
		case <-ctx.Done():
			return nil
		}
		c.paced = true
		err := c.do(ctx, j)
		c.paced = false
		<-c.db.turns
		if err != nil {
			return err
		}
	}
	return nil
}

// do does a job. What another program changed meanwhile is planned anew.
func (c *compactor) do(ctx context.Context, j policy.Job) error {
	if j.Kind == policy.Merge {
		return c.mergeAll(ctx)
	}
	start := time.Now()
	e := CompactEvent{Table: c.table.name, Job: j.Kind.String(), Fragments: len(j.Fragments), Segments: len(j.IDs), Read: j.Read}
	var err error
	if j.Kind == policy.Rewrite {
		e.Rows, e.Written, err = c.rewriteFragments(ctx, j.Fragments)
	} else {
		e.Rows, e.Written, err = c.mergeSegments(ctx, j.Index, j.IDs)
	}
	if c.stale++; !errors.Is(err, errStale) {
		c.stale = 0
	} else if c.stale < maxMergeTries {
		return c.refreshBase(ctx)
	}
	e.Duration, e.Err = time.Since(start), err
	c.compacted(e)
	if err != nil && ctx.Err() == nil {
		c.jobAfter = time.Now().Add(maxRetry)
	}
	return err
}

// errStale is for a job whose fragments or segments are not there any more.
var errStale = errors.New("the table is another by now")

// compacted counts a job and tells of it.
func (c *compactor) compacted(e CompactEvent) {
	n := &c.db.counters
	if e.Err == nil {
		n.compactJobs.Add(1)
		n.compactRead.Add(e.Read)
		n.compactWritten.Add(e.Written)
		c.db.litter()
	}
	if f := c.db.opt.Events.Compact; f != nil {
		f(e)
	}
}

// pause holds a job in the background to the pace. n bytes were moved since the last call. Orders are not paced, nor is
// a job that they or writers wait for, nor one that is behind, which the layers of now tell.
func (c *compactor) pause(ctx context.Context, n int64, behind func(now *layerSet) bool) error {
	if !c.paced {
		return nil
	}
	return c.db.pace.wait(ctx, n, func() bool {
		set := c.table.set.Load()
		return c.waiting.Load() > 0 || set != nil && (set.due(hurryShare) || behind(set)) || c.db.space.relieving()
	})
}

// unhurried is for a job that nothing comes after while it runs.
func unhurried(*layerSet) bool { return false }

// hurryShare is how many times as many generations as may be left alone lift the pace of their merge.
const hurryShare = 2

// fragmentSet returns ids as a bitmap.
func fragmentSet(ids []uint64) *roaring.Bitmap {
	out := roaring.New()
	for _, id := range ids {
		out.Add(uint32(id))
	}
	return out
}

// discardIndexes removes the segments of attempts that came to nothing, given how the commit ended.
func (c *compactor) discardIndexes(ctx context.Context, made []manifest.Index, v *manifest.Version, err error) {
	var ids []uuid.UUID
	for _, x := range made {
		ids = append(ids, x.UUID)
	}
	c.discardSegments(ctx, ids, v, err)
}
