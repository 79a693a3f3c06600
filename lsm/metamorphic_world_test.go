package lsm

import (
	"path"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
)

// foreign commits what change returns on the newest version, which has all rows and columns, as another program does. The next
// look shows it.
func (x *metaRun) foreign(change func(v *manifest.Version) *manifest.Change) {
	x.optimize()
	x.foreignNow(change)
}

// foreignNow is foreign for a change that stands beside rows which are not merged.
func (x *metaRun) foreignNow(change func(v *manifest.Version) *manifest.Change) {
	x.gate.Lock()
	defer x.gate.Unlock()
	root := x.table().root
	v, err := manifest.Latest(x.ctx, x.s.db.st, root, manifest.Options{})
	x.ok(err)
	c := change(v)
	if c == nil {
		return
	}
	_, err = manifest.Commit(x.ctx, x.s.db.st, root, v, *c, manifest.Options{})
	x.ok(err)
	x.ok(x.table().takeUpBeside(x.ctx)) // Refresh asks a store of objects but once a second
}

// foreignFile writes rows as another program does.
func (x *metaRun) foreignFile(v *manifest.Version, text string) manifest.Fragment {
	rec, err := rows.Parse(v.Schema.Arrow(), text)
	x.ok(err)
	defer rec.Release()
	name, err := newFileName()
	x.ok(err)
	w, err := lance.Create(x.ctx, x.s.db.st, path.Join(x.table().root, "data", name), v.Schema, lance.WriterOptions{})
	x.ok(err)
	x.ok(w.Write(x.ctx, rec))
	info, err := w.Finish(x.ctx)
	x.ok(err)
	return writtenFragment(name, info, v.Schema)
}

// foreignAppend adds rows with keys that are new: of others Lance would have two.
func (x *metaRun) foreignAppend() {
	commit := x.foreign
	if v, err := manifest.Latest(x.ctx, x.s.db.st, x.table().root, manifest.Options{}); err == nil && x.table().now().sameColumns(v) {
		commit = x.foreignNow
	}
	commit(func(v *manifest.Version) *manifest.Change {
		text, apply := x.rowsWith(5, x.freshKey)
		x.note("  %s", oneLine(text))
		apply()
		return &manifest.Change{Append: []manifest.Fragment{x.foreignFile(v, text)}}
	})
}

// foreignDelete deletes a row.
func (x *metaRun) foreignDelete() {
	x.foreign(func(*manifest.Version) *manifest.Change {
		if len(x.m.rows) == 0 {
			return nil
		}
		key := x.someRow(x.m)
		snap, err := x.s.db.Snapshot(x.ctx)
		x.ok(err)
		defer snap.Release()
		at := x.addresses(snap, func(k int64) bool { return k == key })
		x.want(len(at) == 1, "key %s is there %d times", x.m.keyText(key), len(at))
		x.note("  %s", x.m.keyText(key))
		delete(x.m.rows, key)
		return &manifest.Change{Delete: map[uint64]*roaring.Bitmap{at[0] >> 32: roaring.BitmapOf(uint32(at[0]))}}
	})
}

// foreignCompact writes all rows anew.
func (x *metaRun) foreignCompact() {
	x.foreign(func(v *manifest.Version) *manifest.Change {
		if len(x.m.rows) == 0 {
			return nil
		}
		c := &manifest.Change{Append: []manifest.Fragment{x.foreignFile(v, strings.Join(x.m.lines(), "\n"))}, Delete: map[uint64]*roaring.Bitmap{}}
		for _, f := range v.Fragments {
			c.Delete[f.ID] = roaring.New()
			c.Delete[f.ID].AddRange(0, uint64(f.Rows))
		}
		return c
	})
}
