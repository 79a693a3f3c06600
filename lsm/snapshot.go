package lsm

import (
	"context"
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
)

// Snapshot is all tables at one moment. It holds the memory and files of that moment until it is released, so
// release it soon. It is safe for concurrent use.
type Snapshot struct {
	lsn     LSN
	version uint64

	mu    sync.Mutex
	views map[string]*View // by folded name; empty once released
}

// View is one table at the moment of a snapshot, and is valid until that is released.
type View struct {
	table  *Table
	schema *tableSchema
	lsn    LSN
	set    *layerSet
}

// Snapshot returns all tables as of now: everything acknowledged is in it, and nothing that is not durable.
func (db *DB) Snapshot(ctx context.Context) (*Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	db.moment.Lock()
	defer db.moment.Unlock()
	if db.closed {
		return nil, ErrClosed
	}
	if err := db.lost(); err != nil { // what is here may be old, and files may be missing
		return nil, err
	}
	s := &Snapshot{lsn: db.marks.visible(), version: db.version.Load(), views: make(map[string]*View, len(db.tables))}
	for name, t := range db.tables {
		set := t.set.Load()
		set.retain()
		s.views[name] = &View{table: t, schema: t.now(), lsn: s.lsn, set: set}
	}
	return s, nil
}

// LSN returns the position in the log up to which the snapshot has everything.
func (s *Snapshot) LSN() LSN { return s.lsn }

// CatalogVersion returns the version of the list of tables that the snapshot has.
func (s *Snapshot) CatalogVersion() uint64 { return s.version }

// Keep lets go of all tables but those named: a statement that is read slowly then holds no memory of tables that it
// does not read. Names that the snapshot does not have are passed over.
func (s *Snapshot) Keep(names ...TableName) {
	kept := make(map[string]*View, len(names))
	s.mu.Lock()
	for _, n := range names {
		if v := s.views[n.fold()]; v != nil {
			kept[n.fold()] = v
			delete(s.views, n.fold())
		}
	}
	gone := s.views
	s.views = kept
	s.mu.Unlock()
	unrefAll(gone)
}

// Release lets the snapshot go; scans of it must be closed before. Further calls do nothing.
func (s *Snapshot) Release() {
	s.mu.Lock()
	gone := s.views
	s.views = nil
	s.mu.Unlock()
	unrefAll(gone)
}

// unrefAll lets go of views. Files may be removed by it, so it needs to be called without a lock.
func unrefAll(views map[string]*View) {
	for _, v := range views {
		v.set.unref()
	}
}

// Table returns a table of the snapshot, or ErrTableNotFound.
func (s *Snapshot) Table(n TableName) (*View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[n.fold()]
	if v == nil {
		return nil, fmt.Errorf("table %q: %w", n, ErrTableNotFound)
	}
	return v, nil
}

// Schema returns the table's columns.
func (v *View) Schema() *arrow.Schema { return v.schema.arrow }

// Name returns the table's name.
func (v *View) Name() TableName { return v.table.name }

// Rows returns an upper bound of the view's rows that costs nothing: rows that newer ones replace are counted as
// far as that is known.
func (v *View) Rows() int64 {
	n := v.set.base.rows
	for _, c := range v.set.chains {
		n -= c.replaced.flushed.count()
		for _, l := range c.layers {
			switch x := l.layer.(type) {
			case *generation:
				n += x.frag.live - l.mask.flushed.count()
			case *memtable:
				rows := x.rows.Load().upTo(v.lsn)
				n += rows.rowCount() - int64(len(rows.dead))
			}
		}
	}
	return max(n, 0)
}

// baseMask returns what of the base the chains have replaced as of the snapshot, a mask for each that has replaced some.
func (v *View) baseMask(ctx context.Context) (rowMasks, error) {
	var out rowMasks
	for _, c := range v.set.chains {
		m, err := v.maskOf(ctx, c, v.set.base, c.replaced, -1)
		if err != nil {
			return nil, err
		}
		if m != nil && len(m.dead) > 0 {
			out = append(out, m)
		}
	}
	return out, nil
}

// mask returns the mask of layer i of a chain as of the snapshot, nil when there can be none.
func (v *View) mask(ctx context.Context, c *chain, i int) (*rowMask, error) {
	return v.maskOf(ctx, c, c.layers[i].layer, c.layers[i].mask, i)
}

// maskOf returns what a cell has of a layer by the keys of the memtables behind layer i of a chain.
func (v *View) maskOf(ctx context.Context, c *chain, l layer, cell *maskCell, i int) (*rowMask, error) {
	if v.schema.codec == nil || cell == nil {
		return nil, nil
	}
	return cell.at(ctx, v.lsn, l, func(above LSN) *keyRun {
		var newer []*memRows
		for _, m := range c.memtablesAfter(i) {
			newer = append(newer, m.rows.Load().upTo(v.lsn))
		}
		return keysAbove(v.schema.codec, newer, above)
	})
}

// lookUp calls fn for the layers that may have keys of a run, with those of them that no newer layer has settled: the
// chain of each key's shard from its newest layer on, then the base. fn marks the keys, by their place in the run that it
// got, that the layer has settled.
func (v *View) lookUp(run *keyRun, fn func(l layer, run *keyRun) (settled []bool, err error)) error {
	rest := &keyRun{codec: run.codec}
	parts := v.table.byShard(run)
	for i, c := range v.set.chains {
		part := parts[i]
		for j := len(c.layers) - 1; j >= 0 && part.Len() > 0; j-- {
			settled, err := fn(c.layers[j].layer, part)
			if err != nil {
				return err
			}
			part = part.unsettled(settled)
		}
		if len(parts) == 1 {
			rest = part
		} else {
			rest.ints, rest.wide = append(rest.ints, part.ints...), append(rest.wide, part.wide...)
		}
	}
	if rest.Len() == 0 {
		return nil
	}
	if len(parts) > 1 {
		rest = newKeyRun(run.codec, rest.ints, rest.wide)
	}
	_, err := fn(v.set.base, rest)
	return err
}

// firstStored returns a key of the run that has a live row, nil when none has. REQUIRES: the snapshot is the newest and
// nobody writes the table, so that the newest row of a key in a memtable is one of the snapshot.
func (v *View) firstStored(ctx context.Context, run *keyRun) (*keyRun, error) {
	var stored *keyRun
	err := v.lookUp(run, func(l layer, run *keyRun) ([]bool, error) {
		settled := make([]bool, run.Len())
		for k := range settled {
			if stored != nil {
				return settled, nil
			}
			found, dead := false, false
			err := l.resolve(ctx, run.one(k), func(fragment uint64, row uint32) {
				found = true
				dead = v.hidden(l, fragment, row)
			})
			if err != nil {
				return nil, err
			}
			if found && !dead {
				stored = run.one(k)
			}
			settled[k] = found
		}
		return settled, nil
	})
	return stored, err
}

// hidden reports whether a row that is the newest of its key is a tombstone or, in the base, deleted.
func (v *View) hidden(l layer, fragment uint64, row uint32) bool {
	switch x := l.(type) {
	case *memtable:
		return x.rows.Load().tombstone(row)
	case *generation:
		return x.frag.hides(row)
	case *base:
		f := x.fragment(fragment)
		return f == nil || f.hides(row)
	}
	return false
}
