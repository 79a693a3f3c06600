package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// strangers checks the shards of other MemWAL writers in front of a dataset: those that the next Open takes over, and what is
// left of those that it has.
func (c *checker) strangers(ctx context.Context, root string, v *manifest.Version, own func(dir string) bool) {
	list, err := c.st.List(ctx, path.Join(root, "_mem_wal"))
	if err != nil {
		c.fault(path.Join(root, "_mem_wal"), err)
		return
	}
	for _, x := range list {
		s := stranger{dir: path.Join(root, "_mem_wal", x.Name)}
		if !x.Dir || own(s.dir) {
			continue
		}
		if s.man, err = manifest.LoadShard(ctx, c.st, s.dir, manifest.Options{}); errors.Is(err, object.ErrNotExist) {
			if err = s.refuseHeadless(ctx, c.st); err == nil {
				continue
			}
		}
		if err == nil && s.man.ID.String() != x.Name {
			err = fmt.Errorf("it is of shard %s", s.man.ID)
		}
		if err != nil {
			c.fault(path.Join(s.dir, "manifest"), err)
			continue
		}
		c.sum.Strangers++
		for _, g := range unmerged(s.man.Generations, v.Compacted[s.man.ID]) {
			c.sum.Generations++
			c.strangerGeneration(ctx, path.Join(s.dir, g.Path), g)
		}
		c.strangerEntries(ctx, &s)
	}
}

// strangerGeneration checks a generation of another writer's shard. Its key index, which is not read, may have rows that the
// generation itself has replaced, and it may have none.
func (c *checker) strangerGeneration(ctx context.Context, dir string, g manifest.Generation) {
	v := c.dataset(ctx, dir)
	if v == nil {
		return
	}
	rows := int64(0)
	for i := range v.Fragments {
		rows += v.Fragments[i].Rows
	}
	if rows != g.Rows && g.Rows > 0 { // Lance need not say
		c.fault(dir, fmt.Errorf("generation %d has %d rows, the shard's manifest says %d", g.Number, rows, g.Rows))
	}
	keys := path.Join(dir, keyIndexFolder)
	if list, err := c.st.List(ctx, keys); err != nil || len(list) == 0 {
		return
	}
	err := c.btree(ctx, keys, btree.Options{}, func(id uint64) error {
		if id >= uint64(rows) {
			return fmt.Errorf("it leads to row %d of %d", id, rows)
		}
		return nil
	})
	if err != nil {
		c.fault(keys, err)
	}
}

// strangerEntries checks the log entries of another writer's shard that no generation has.
func (c *checker) strangerEntries(ctx context.Context, s *stranger) {
	dir := path.Join(s.dir, entriesFolder)
	list, err := c.st.List(ctx, dir)
	if err != nil {
		c.fault(dir, err)
		return
	}
	last := s.man.ReplayAfter
	for _, x := range list {
		if p, ok := wal.EntryPosition(x.Name); ok {
			last = max(last, p)
		}
	}
	for p := s.man.ReplayAfter + 1; p <= last && ctx.Err() == nil; p++ {
		name := path.Join(dir, wal.EntryName(p))
		e, err := wal.ReadLanceEntry(ctx, c.st, name, p)
		if errors.Is(err, object.ErrNotExist) {
			err = &object.CorruptError{Name: name, Err: fmt.Errorf("entry %d is missing, and later ones are there: %w", p, err)}
		}
		if err == nil && e.Epoch > s.man.Epoch {
			err = fmt.Errorf("it has epoch %d, the shard's manifest %d", e.Epoch, s.man.Epoch)
		}
		if err != nil {
			c.fault(name, err)
			continue
		}
		c.sum.StrangerEntries++
		c.sum.Unsummed++
		e.Release()
	}
}

// guests checks the shards in front of datasets that the catalog does not know: the next Open makes tables of them, if it
// can. The datasets themselves are another program's business until then.
func (c *checker) guests(ctx context.Context, cat *catalog) {
	roots, err := c.st.List(ctx, ".")
	if err != nil {
		c.fault(".", err)
		return
	}
	for _, r := range roots {
		named := func(e tableEntry) bool { return e.folder() == r.Name }
		if !r.Dir || !strings.HasSuffix(r.Name, folderSuffix) || slices.ContainsFunc(cat.Tables, named) || slices.ContainsFunc(cat.Dropped, named) {
			continue
		}
		if v, err := manifest.Latest(ctx, c.st, r.Name, manifest.Options{}); err == nil {
			c.strangers(ctx, r.Name, v, func(string) bool { return false })
		}
	}
}
