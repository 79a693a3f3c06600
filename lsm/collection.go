package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// collection is one removal of what a table keeps no longer. The order makes it safe:
//
//	files are listed     while the table's compactor does nothing else, and without those that statements are writing:
//	                     what is being written now is not in the list
//	versions are listed  so that a file of the list that was committed meanwhile is seen to be needed
//	versions go          oldest first, the hint at the newest one before, and the folder is synced
//	versions are listed  again: what others have committed since is needed, too
//	files go             those that no version needs
//
// A crash in the middle leaves files that no version names, and a later collection finds them by their age.
type collection struct {
	t  *Table
	st object.Store
	// cutoff is the time before which things are not kept, unnamed the one for files that were never named.
	cutoff, unnamed time.Time
	// versions is cutoff for versions: where a process may have been overtaken and not know it, it must find the numbers taken
	// that it would put next.
	versions time.Time

	files []storedFile
	// standing is the oldest version that a commit of ours may be built on: that which readers have, or that of a statement. It
	// must not find the number of a version that was there and has gone; so newer versions stay until it has seen them.
	standing uint64
	// shards are the versions of the shards' manifests.
	shards []uint64
	keep   map[uint64]bool
	// used has the versions that were to go and that somebody has begun to read meanwhile. It is nil while versions of shards go.
	used map[uint64]bool
	// keepFiles is set when there is a version that cannot be read any more and may need any file.
	keepFiles bool
	needed    map[string]bool
	known     map[string]bool
	sum       Collected
}

// run does all of it.
func (c *collection) run(ctx context.Context) error {
	if err := c.t.compactor.order(ctx, c.list); err != nil {
		return err
	}
	if err := c.t.db.home.owned(ctx); err != nil { // else it may be a successor's
		return err
	}
	for i, s := range c.t.shards {
		if err := c.collectShard(ctx, s, c.shards[i]); err != nil {
			return err
		}
	}
	if err := c.collectTable(ctx); err != nil {
		return err
	}
	return c.t.removeLeftovers(ctx, c)
}

// list lists the files, and what is in use. It is called by the compactor.
func (c *collection) list(ctx context.Context) error {
	set := c.t.set.Load()
	if set == nil {
		return c.t.ended()
	}
	c.standing = set.base.version.Number
	for _, s := range c.t.shards {
		c.shards = append(c.shards, s.manifest().Version)
	}
	for _, folder := range collected {
		infos, err := c.st.List(ctx, path.Join(c.t.root, folder))
		if err != nil {
			return err
		}
		for _, x := range infos {
			if f, ok := collectable(folder, x); ok {
				c.files = append(c.files, f)
			}
		}
	}
	c.keep = make(map[uint64]bool)
	c.t.heldMu.Lock()
	defer c.t.heldMu.Unlock()
	// Whoever has finished since the folders were listed has committed its files, or removed them.
	c.files = slices.DeleteFunc(c.files, func(f storedFile) bool { return c.t.writing[f.owner] })
	for _, n := range c.t.building {
		c.standing = min(c.standing, n)
	}
	for _, b := range c.t.held {
		c.keep[b.version.Number] = true
		b.version.Needs(func(name string) { c.needed[name] = true })
	}
	return nil
}

// collected are the folders of a table in which versions have their files.
var collected = []string{"data", "_deletions", "_transactions", "_indices"}

// collectable tells what an entry of a table's folder is, if it is of a kind that versions name.
func collectable(folder string, x object.Info) (storedFile, bool) {
	name := path.Join(folder, x.Name)
	f := storedFile{name: name, owner: name, dir: x.Dir, bytes: x.Size, time: x.ModTime}
	ext := path.Ext(x.Name)
	switch folder {
	case "data":
		if x.Dir { // what a column of a data file keeps outside of it
			f.owner += ".lance"
			return f, true
		}
		return f, ext == ".lance"
	case "_deletions":
		return f, !x.Dir && (ext == ".bin" || ext == ".arrow")
	case "_transactions":
		return f, !x.Dir && ext == ".txn"
	}
	return f, x.Dir && len(x.Name) == 36 && strings.Count(x.Name, "-") == 4 // a UUID
}

// collectShard removes versions of a shard's manifest that are older than one. Nobody reads them; they tell what happened.
func (c *collection) collectShard(ctx context.Context, s *shard, version uint64) error {
	h := manifest.ShardHistory(c.st, s.dir(), c.t.manifestOptions())
	chain, err := h.List(ctx)
	if err != nil {
		return err
	}
	old := expiredVersions(chain, nil, version, c.versions)
	if c.t.db.home.grace() > 0 {
		if old, err = s.withoutClaims(ctx, chain, old); err != nil {
			return err
		}
	}
	return c.removeVersions(ctx, h, chain, old)
}

// withoutClaims leaves the versions out that raised the epoch. They stay for good: whoever was overtaken, however long it
// sleeps, would put its next version where its successor's claim is.
func (s *shard) withoutClaims(ctx context.Context, chain, old []manifest.VersionFile) ([]manifest.VersionFile, error) {
	if len(old) == 0 {
		return nil, nil
	}
	if s.epochs == nil {
		s.epochs = make(map[uint64]uint64)
	}
	going := make(map[uint64]bool, len(old))
	for _, v := range old {
		going[v.Number] = true
	}
	var out []manifest.VersionFile
	before := uint64(0)
	for _, v := range chain {
		if v.Number > old[len(old)-1].Number {
			break
		}
		epoch, known := s.epochs[v.Number]
		if !known {
			man, err := manifest.LoadShardFile(ctx, s.db.st, manifest.ShardFile(s.dir(), v.Number))
			if err != nil {
				return nil, fmt.Errorf("find out who wrote version %d of shard %s: %w", v.Number, s.id, err)
			}
			epoch = man.Epoch
		}
		if epoch > before {
			s.epochs[v.Number] = epoch
		} else if going[v.Number] {
			out = append(out, v)
		}
		before = max(before, epoch)
	}
	return out, nil
}

// removeVersions removes versions of a chain.
func (c *collection) removeVersions(ctx context.Context, h *manifest.History, chain, old []manifest.VersionFile) error {
	if len(old) == 0 {
		return nil
	}
	newest := chain[len(chain)-1].Number
	if newer, err := h.Newer(ctx, newest); err != nil {
		return err
	} else if len(newer) > 0 {
		newest = newer[len(newer)-1]
	}
	// In its turn, too: of a table that was dropped meanwhile it would make the folder anew, or mislead the next one.
	if err := c.t.remove(ctx, 1, func(int) error { return h.Point(ctx, newest) }); err != nil {
		return err
	}
	err := c.t.remove(ctx, len(old), func(i int) error {
		if c.used != nil && c.t.isHeld(old[i].Number) { // somebody has begun to read it
			c.used[old[i].Number] = true
			return nil
		}
		if err := h.Delete(ctx, old[i].Number); err != nil {
			return err
		}
		c.sum.Files++
		c.sum.Bytes += old[i].Bytes
		return nil
	})
	return errors.Join(err, h.Sync(context.WithoutCancel(ctx)))
}

// collectTable removes old versions of the table, and then files.
func (c *collection) collectTable(ctx context.Context) error {
	h := manifest.TableHistory(c.st, c.t.root, c.t.manifestOptions())
	chain, err := h.List(ctx)
	if err != nil || len(chain) == 0 {
		return err
	}
	if err := c.readRefs(ctx, chain); err != nil {
		return err
	}
	old := expiredVersions(chain, c.keep, c.standing, c.versions)
	if err := c.readVersions(ctx, chain, old); err != nil {
		return err
	}
	before := c.sum.Files
	c.used = make(map[uint64]bool)
	err = c.removeVersions(ctx, h, chain, old)
	c.sum.Versions += c.sum.Files - before
	if err != nil || c.keepFiles {
		return err
	}
	newer, err := h.Newer(ctx, chain[len(chain)-1].Number)
	if err != nil {
		return err
	}
	for n := range c.used {
		newer = append(newer, n)
	}
	for _, n := range newer {
		if err := c.need(ctx, n, c.needed); err != nil {
			return err
		}
	}
	return c.removeFiles(ctx)
}

// readRefs keeps what tags and branches name. The files of a branch are those of the version at which it began, and its
// own in a folder of its own; when that version has gone, what it needs is unknown and all files stay.
func (c *collection) readRefs(ctx context.Context, chain []manifest.VersionFile) error {
	refs, err := manifest.Refs(ctx, c.st, c.t.root)
	if err != nil {
		return err
	}
	there := make(map[uint64]bool, len(chain))
	for _, v := range chain {
		there[v.Number] = true
	}
	for _, r := range refs {
		c.keep[r.Version] = true
		if r.Branch && !there[r.Version] {
			c.keepFiles = true
		}
	}
	return nil
}

// readVersions finds out what the versions need that stay, and what those named that go.
func (c *collection) readVersions(ctx context.Context, chain, old []manifest.VersionFile) error {
	going := make(map[uint64]bool, len(old))
	for _, v := range old {
		going[v.Number] = true
	}
	for _, v := range chain {
		into := c.needed
		if going[v.Number] {
			into = c.known
		}
		if err := c.need(ctx, v.Number, into); err != nil {
			return err
		}
	}
	detached, err := manifest.Detached(ctx, c.st, c.t.root)
	if err != nil {
		return err
	}
	for _, v := range detached {
		v.Needs(func(name string) { c.needed[name] = true })
	}
	return nil
}

// need notes what a version needs; one that another program has just removed needs nothing.
func (c *collection) need(ctx context.Context, number uint64, into map[string]bool) error {
	v, err := manifest.Load(ctx, c.st, c.t.root, number)
	if errors.Is(err, object.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find out what version %d needs: %w", number, err)
	}
	v.Needs(func(name string) { into[name] = true })
	return nil
}

// removeFiles removes the files that no version needs.
func (c *collection) removeFiles(ctx context.Context) error {
	for i := range c.files {
		if f := &c.files[i]; f.dir && !c.needed[f.owner] {
			if err := weigh(ctx, c.st, f, path.Join(c.t.root, f.name)); err != nil {
				return err
			}
		}
	}
	old := expiredFiles(c.files, c.needed, c.known, c.cutoff, c.unnamed)
	return c.t.remove(ctx, len(old), func(i int) error {
		name := path.Join(c.t.root, old[i].name)
		var err error
		if old[i].dir {
			err = c.st.DeleteAll(ctx, name)
		} else {
			err = c.st.Delete(ctx, name)
		}
		if errors.Is(err, object.ErrNotExist) {
			return nil // somebody else was faster
		}
		if err == nil {
			c.sum.Files++
			c.sum.Bytes += old[i].bytes
		}
		return err
	})
}

// weigh finds the size of a folder and when something in it was last written.
func weigh(ctx context.Context, st object.Store, f *storedFile, dir string) error {
	infos, err := st.List(ctx, dir)
	if err != nil {
		return err
	}
	for _, x := range infos {
		if x.Dir {
			if err := weigh(ctx, st, f, path.Join(dir, x.Name)); err != nil {
				return err
			}
			continue
		}
		f.bytes += x.Size
		if x.ModTime.After(f.time) {
			f.time = x.ModTime
		}
	}
	return nil
}

// removeLeftovers tries again to remove what failed attempts left and could not be removed then.
func (t *Table) removeLeftovers(ctx context.Context, c *collection) error {
	t.leftMu.Lock()
	names := t.leftovers
	t.leftovers = nil
	t.leftMu.Unlock()
	return t.remove(ctx, len(names), func(i int) error {
		t.discard(ctx, names[i]) // notes it again when it fails
		c.sum.Files++
		return nil
	})
}
