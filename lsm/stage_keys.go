package lsm

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// stagedKeys are the keys that a stage has put by Insert. Those of batches in memory are runs; those of batches on
// disk are in the key indexes of their generations, so that a stage of any size knows its keys in bounded memory.
type stagedKeys struct {
	runs   []*keyRun
	opened []*generation // the stage's spilled generations, as far as Insert needed them
}

// close lets the generations go.
func (k *stagedKeys) close() {
	for _, g := range k.opened {
		g.unref()
	}
	k.opened = nil
}

// add remembers a run. Runs are merged such that their sizes at least halve from one to the next.
func (k *stagedKeys) add(run *keyRun) {
	for n := len(k.runs); n > 0 && k.runs[n-1].Len() < 2*run.Len(); n = len(k.runs) {
		last := k.runs[n-1]
		run = newKeyRun(run.codec, slices.Concat(last.ints, run.ints), slices.Concat(last.wide, run.wide))
		k.runs = k.runs[:n-1]
	}
	k.runs = append(k.runs, run)
}

// Insert puts rows whose keys are new: the stage has not inserted them yet, and they are not stored in the snapshot,
// which is the one that Modify gave. Without a snapshot, stored keys are upserted. On a table without a key it is Put.
// A key that is there is ErrKeyExists.
func (s *Stage) Insert(ctx context.Context, snap *Snapshot, rec arrow.RecordBatch) error {
	return s.insert(ctx, snap, rec, nil)
}

// Move deletes the rows with the keys of old, and inserts rows, whose keys may be among those of old, but not stored
// otherwise. The batches of old have the columns of the key, in the key's order.
func (s *Stage) Move(ctx context.Context, snap *Snapshot, old []arrow.RecordBatch, rows iter.Seq2[arrow.RecordBatch, error]) error {
	var ints []int64
	var wide [][]byte
	for _, rec := range old {
		full, err := s.deletion(rec)
		if err != nil {
			return err
		}
		run := s.table.now().codec.run(full)
		ints, wide = append(ints, run.ints...), append(wide, run.wide...)
		err = s.Put(ctx, Batch{Record: full})
		full.Release()
		if err != nil {
			return err
		}
	}
	gone := newKeyRun(s.table.now().codec, ints, wide)
	for rec, err := range rows {
		if err != nil {
			return err
		}
		if err := s.insert(ctx, snap, rec, gone); err != nil {
			return err
		}
	}
	return nil
}

// Delete deletes the rows with the keys of the batch, which has the columns of the key, in the key's order.
func (s *Stage) Delete(ctx context.Context, keys arrow.RecordBatch) error {
	rec, err := s.deletion(keys)
	if err != nil {
		return err
	}
	defer rec.Release()
	return s.Put(ctx, Batch{Record: rec})
}

// deletion returns a batch of tombstones.
func (s *Stage) deletion(keys arrow.RecordBatch) (arrow.RecordBatch, error) {
	t, now := s.table, s.table.now()
	if now.codec == nil {
		return nil, &ColumnError{Table: t.name.String(), Column: TombstoneColumn, Hint: noKeyHint(t.name)}
	}
	if int(keys.NumCols()) != len(now.codec.cols) {
		return nil, fmt.Errorf("%w deletion: it has %d key columns, table %q has %d", ErrInvalid, keys.NumCols(), t.name, len(now.codec.cols))
	}
	n := int(keys.NumRows())
	cols := make([]arrow.Array, now.arrow.NumFields(), now.arrow.NumFields()+1)
	for i, c := range now.codec.cols {
		cols[c] = keys.Column(i)
		cols[c].Retain()
	}
	for i, f := range now.arrow.Fields() {
		if cols[i] == nil {
			cols[i] = now.nulls(f.Type, n, memory.DefaultAllocator)
		}
	}
	b := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(n)
	for range n {
		b.UnsafeAppend(true)
	}
	cols = append(cols, b.NewArray())
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	return array.NewRecordBatch(now.withTombstones(true), cols, int64(n)), nil
}

// run returns the keys of a batch, which it does not alias.
func (k *keyCodec) run(rec arrow.RecordBatch) *keyRun {
	keys := k.normalise(rec, nil)
	var wide [][]byte
	if keys.wide != nil {
		wide = make([][]byte, rec.NumRows())
		for i := range wide {
			wide[i] = bytes.Clone(keys.wide(i))
		}
	}
	return newKeyRun(k, keys.ints, wide)
}

// insert is Insert of keys that may be stored if they are in gone.
func (s *Stage) insert(ctx context.Context, snap *Snapshot, rec arrow.RecordBatch, gone *keyRun) error {
	t, now := s.table, s.table.now()
	if now.codec == nil || rec.NumRows() == 0 {
		return s.Put(ctx, Batch{Record: rec})
	}
	if err := t.check(now, rec); err != nil {
		return err
	}
	run := now.codec.run(rec)
	if run.Len() < int(rec.NumRows()) {
		return fmt.Errorf("%w: the statement has a key of table %q twice", ErrKeyExists, t.name)
	}
	if err := s.refuseStaged(ctx, run); err != nil {
		return err
	}
	if snap != nil {
		if err := s.refuseStored(ctx, snap, run.without(gone)); err != nil {
			return err
		}
	}
	spilled := len(s.spilled)
	if err := s.Put(ctx, Batch{Record: rec}); err != nil {
		return err
	}
	if len(s.spilled) > spilled {
		s.keys.runs = nil // the generations have them
	} else {
		s.keys.add(run)
	}
	return nil
}

// without returns the keys that are not in another run, which may be nil.
func (r *keyRun) without(other *keyRun) *keyRun {
	if other == nil {
		return r
	}
	rest := &keyRun{codec: r.codec}
	column := r.column()
	for i := range r.Len() {
		switch {
		case other.contains(column, i):
		case r.codec.wide:
			rest.wide = append(rest.wide, r.wide[i])
		default:
			rest.ints = append(rest.ints, r.ints[i])
		}
	}
	return rest
}

// column returns the keys as a column.
func (r *keyRun) column() keyColumn {
	if r.codec.wide {
		return keyColumn{wide: func(i int) []byte { return r.wide[i] }}
	}
	return keyColumn{ints: r.ints}
}

// refuseStaged returns ErrKeyExists when the stage has inserted a key of the run.
func (s *Stage) refuseStaged(ctx context.Context, run *keyRun) error {
	column := run.column()
	for _, earlier := range s.keys.runs {
		for i := range run.Len() {
			if earlier.contains(column, i) {
				return fmt.Errorf("%w: the statement has key %s of table %q twice", ErrKeyExists, run.describe(i), s.table.name)
			}
		}
	}
	for len(s.keys.opened) < len(s.spilled) {
		x := &s.spilled[len(s.keys.opened)]
		g, err := openGeneration(ctx, s.table.db.st, x.shard, x.Generation)
		if err != nil {
			return err
		}
		s.keys.opened = append(s.keys.opened, g)
	}
	for _, g := range s.keys.opened {
		twice := false
		// A tombstone is no insertion: Move writes those of the rows that it moves before.
		err := g.resolve(ctx, run, func(_ uint64, row uint32) { twice = twice || !g.frag.hides(row) })
		if err != nil {
			return err
		}
		if twice {
			return fmt.Errorf("%w: the statement has a key of table %q twice", ErrKeyExists, s.table.name)
		}
	}
	return nil
}

// refuseStored returns ErrKeyExists when a key of the run is stored.
func (s *Stage) refuseStored(ctx context.Context, snap *Snapshot, run *keyRun) error {
	v, err := snap.Table(s.table.name)
	if err != nil {
		return err
	}
	// Most inserted keys are in no layer at all, which one pass over all of them finds out.
	if found, err := v.mayStore(ctx, run); err != nil || !found {
		return err
	}
	stored, err := v.firstStored(ctx, run)
	if err != nil || stored == nil {
		return err
	}
	return fmt.Errorf("%w: table %q already has a row with key %s", ErrKeyExists, s.table.name, stored.describe(0))
}

// mayStore reports whether any layer has any key of the run, be it dead or alive.
func (v *View) mayStore(ctx context.Context, run *keyRun) (bool, error) {
	found := false
	mark := func(uint64, uint32) { found = true }
	if err := v.set.base.resolve(ctx, run, mark); err != nil || found {
		return found, err
	}
	parts := v.table.byShard(run)
	for i, c := range v.set.chains {
		for _, l := range c.layers {
			if parts[i].Len() == 0 {
				break
			}
			if err := l.layer.resolve(ctx, parts[i], mark); err != nil || found {
				return found, err
			}
		}
	}
	return false, nil
}
