package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/manifest"
)

// moving is the live rows of some fragments of the base on their way into new ones.
type moving struct {
	c    *compactor
	base *base
	old  []*fragment
	ids  *roaring.Bitmap // of old
	// live has the rows that go over, by fragment, with their ranks, and first the place of a fragment's first among all
	// that do.
	live  map[uint64]*roaring.Bitmap
	ranks map[uint64]*rowRank
	first map[uint64]int64
	rows  int64
	frags []manifest.Fragment
	// made are the segments of all attempts of the commit.
	made []manifest.Index
	// bytes counts what was written.
	bytes int64
}

// rewriteFragments writes fragments of the base anew, together and without their deleted rows, in one commit with
// segments of the indexes that cover them. It is Lance's compaction: no row changes. Rows that generations replace go
// over like others, and are deleted when those are merged. It returns the rows and bytes that it wrote.
func (c *compactor) rewriteFragments(ctx context.Context, ids []uint64) (rows, bytes int64, err error) {
	if err := c.refreshBase(ctx); err != nil {
		return 0, 0, err
	}
	now, err := c.align(ctx)
	if err != nil {
		return 0, 0, err
	}
	set := c.table.holdStored()
	if set == nil {
		return 0, 0, c.table.ended()
	}
	defer set.unref()
	m, err := c.newMoving(set.base, ids)
	if err != nil {
		return 0, 0, err
	}
	if err := m.write(ctx, now); err != nil {
		return 0, 0, err
	}
	sources := m.sources(ctx)
	change := manifest.Change{Append: m.frags, Rewrite: []manifest.RewriteGroup{{Old: ids, New: len(m.frags)}}, RemoveIndexes: m.emptied(sources)}
	if len(sources) > 0 && m.rows > 0 {
		change.Indexes = func(_ *manifest.Version, appended []uint64) ([]manifest.Index, error) {
			return m.index(ctx, sources, appended)
		}
	}
	v, err := manifest.Commit(ctx, c.db.st, c.table.root, set.base.version, change, c.table.manifestOptions())
	c.discardIndexes(ctx, m.made, v, err)
	if errors.Is(err, manifest.ErrConflict) || errors.Is(err, manifest.ErrUnpublished) {
		c.table.discardFragments(ctx, m.frags) // after any other error they may be part of a version
	}
	if errors.Is(err, manifest.ErrConflict) {
		return 0, 0, errStale
	}
	if err != nil {
		return 0, 0, fmt.Errorf("write fragments anew: %w", err)
	}
	// The commit stands: a caller who went away must not leave readers behind it.
	return m.rows, m.bytes, c.rebase(context.WithoutCancel(ctx), v)
}

// newMoving works out which rows go over.
func (c *compactor) newMoving(b *base, ids []uint64) (*moving, error) {
	m := &moving{c: c, base: b, ids: fragmentSet(ids), live: make(map[uint64]*roaring.Bitmap), ranks: make(map[uint64]*rowRank), first: make(map[uint64]int64)}
	for _, id := range ids {
		f := b.fragment(id)
		if f == nil {
			return nil, errStale
		}
		live := roaring.New()
		live.AddRange(0, uint64(f.rows))
		if f.hidden != nil {
			live.AndNot(f.hidden)
		}
		m.old, m.live[id], m.first[id] = append(m.old, f), live, m.rows
		m.ranks[id] = newRowRank(live)
		m.rows += int64(live.GetCardinality())
	}
	return m, nil
}

// write writes the new fragments.
func (m *moving) write(ctx context.Context, now *tableSchema) error {
	w := &fragmentWriter{table: m.c.table, schema: now}
	w.pause = func(ctx context.Context, n int64) error { return m.c.pause(ctx, n, unhurried) }
	var err error
	for _, f := range m.old {
		if err = w.copyLive(ctx, f, m.live[f.id]); err != nil {
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
	m.bytes = fileSizes(w.done)
	return nil
}

// fileSizes returns the bytes of the files of some fragments.
func fileSizes(frags []manifest.Fragment) (sum int64) {
	for _, f := range frags {
		for _, file := range f.Files {
			sum += file.Bytes
		}
	}
	return sum
}

// sources returns the segments, by index, that have entries of the old fragments, each of them all or none.
func (m *moving) sources(ctx context.Context) map[string][]*manifest.Index {
	out := make(map[string][]*manifest.Index)
	covered := make(map[string]*roaring.Bitmap)
	for i := range m.base.version.Indexes {
		x := &m.base.version.Indexes[i]
		if _, ok := m.c.entriesOf(ctx, x); !ok || !x.Fragments.Intersects(m.ids) {
			continue
		}
		name := m.c.groupOf(x)
		out[name] = append(out[name], x)
		if covered[name] == nil {
			covered[name] = roaring.New()
		}
		covered[name].Or(x.Fragments)
	}
	for name, have := range covered {
		// The new fragments would be covered in part: the index had better not have them at all.
		if have.AndCardinality(m.ids) < m.ids.GetCardinality() {
			delete(out, name)
		}
	}
	return out
}

// emptied returns the segments that have no fragment of the table when the old ones have gone.
func (m *moving) emptied(sources map[string][]*manifest.Index) []uuid.UUID {
	var out []uuid.UUID
	for _, list := range sources {
		for _, x := range list {
			if !slices.ContainsFunc(m.base.frags, func(f *fragment) bool { return x.Fragments.Contains(uint32(f.id)) && !m.ids.Contains(uint32(f.id)) }) {
				out = append(out, x.UUID)
			}
		}
	}
	return out
}

// index writes the segments over the new fragments.
func (m *moving) index(ctx context.Context, sources map[string][]*manifest.Index, appended []uint64) ([]manifest.Index, error) {
	var out []manifest.Index
	for _, list := range sources {
		x, err := m.c.writeSegment(ctx, m.base, list, fragmentSet(appended), func(source int, id uint64) (uint64, bool) {
			rank := m.ranks[id>>32]
			if rank == nil || !list[source].Fragments.Contains(uint32(id>>32)) {
				return 0, false
			}
			n, ok := rank.place(uint32(id))
			if !ok {
				return 0, false
			}
			return address(m.first[id>>32]+n, appended), true
		})
		m.made = append(m.made, x)
		if err != nil {
			return nil, err
		}
		for _, f := range x.Files {
			m.bytes += f.Bytes
		}
		out = append(out, x)
	}
	return out, nil
}

// pausedEntries is how many entries of an index are written between two pauses, and entryBytes about what one moves.
const (
	pausedEntries = 1 << 16
	entryBytes    = 32
)

// writeSegment makes one segment of an index of several others, over some fragments. keep says what becomes of an entry.
func (c *compactor) writeSegment(ctx context.Context, b *base, list []*manifest.Index, over *roaring.Bitmap, keep func(source int, id uint64) (uint64, bool)) (manifest.Index, error) {
	if list[0].Vector() {
		return c.writeVectorSegment(ctx, b, list, over, keep)
	}
	x := manifest.Index{Name: list[0].Name, UUID: uuid.New(), Fields: list[0].Fields, Version: b.version.Number, Fragments: over,
		Details: list[0].Details, IndexVersion: list[0].IndexVersion}
	var open []*btree.Index
	defer func() {
		for _, s := range open {
			_ = s.Close() // open for reading only
		}
	}()
	for _, s := range list {
		index, err := c.openSegment(ctx, s)
		if err != nil {
			return x, err
		}
		open = append(open, index)
	}
	w, err := btree.Create(ctx, c.db.st, path.Join(c.table.root, x.Dir()), open[0].Type(), btree.WriterOptions{})
	if err != nil {
		return x, err
	}
	n := 0
	err = btree.Merge(ctx, w, open, func(source int, id uint64) (uint64, bool) {
		if n++; n%pausedEntries == 0 {
			_ = c.pause(ctx, pausedEntries*entryBytes, unhurried) // the merge looks at ctx itself
		}
		return keep(source, id)
	})
	if err != nil {
		w.Abort()
		return x, err
	}
	files, err := w.Finish(ctx)
	for _, f := range files {
		x.Files = append(x.Files, manifest.IndexFile{Path: f.Path, Bytes: f.Bytes})
	}
	return x, err
}

// mergeSegments makes one segment of several of an index, without the entries of rows that have gone. It returns the
// entries and bytes that it wrote.
func (c *compactor) mergeSegments(ctx context.Context, name string, ids []string) (rows, bytes int64, err error) {
	if err := c.refreshBase(ctx); err != nil {
		return 0, 0, err
	}
	set := c.table.holdStored()
	if set == nil {
		return 0, 0, c.table.ended()
	}
	defer set.unref()
	b := set.base
	var list []*manifest.Index
	change := manifest.Change{}
	for i := range b.version.Indexes {
		if x := &b.version.Indexes[i]; slices.Contains(ids, x.UUID.String()) && c.groupOf(x) == name {
			list = append(list, x)
			change.RemoveIndexes = append(change.RemoveIndexes, x.UUID)
		}
	}
	if len(list) < len(ids) {
		return 0, 0, errStale
	}
	from := make(map[uint64]int) // the segment whose entries of a fragment count
	over := roaring.New()
	for i, x := range list {
		for _, f := range b.frags {
			if _, taken := from[f.id]; !taken && x.Fragments.Contains(uint32(f.id)) {
				from[f.id] = i
				over.Add(uint32(f.id))
			}
		}
	}
	var made []manifest.Index
	if !over.IsEmpty() {
		x, err := c.writeSegment(ctx, b, list, over, func(source int, id uint64) (uint64, bool) {
			f := b.byID[id>>32]
			if f == nil || f.hides(uint32(id)) {
				return 0, false
			}
			s, ok := from[f.id]
			if !ok || s != source {
				return 0, false
			}
			rows++
			return id, true
		})
		made = append(made, x)
		if err != nil {
			c.discardIndexes(ctx, made, nil, manifest.ErrUnpublished)
			return 0, 0, err
		}
		for _, f := range x.Files {
			bytes += f.Bytes
		}
		change.Indexes = func(*manifest.Version, []uint64) ([]manifest.Index, error) { return made, nil }
	}
	v, err := manifest.Commit(ctx, c.db.st, c.table.root, b.version, change, c.table.manifestOptions())
	c.discardIndexes(ctx, made, v, err)
	if errors.Is(err, manifest.ErrConflict) {
		return 0, 0, errStale
	}
	if err != nil {
		return 0, 0, fmt.Errorf("put index segments together: %w", err)
	}
	return rows, bytes, c.rebase(context.WithoutCancel(ctx), v)
}
