package lsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/manifest"
)

// Rewrite is what a statement changes in a table without a key, whose rows have no name but their address in the base:
// rows that it deletes there, and rows that it adds. It is for one goroutine.
type Rewrite struct {
	table *Table
	// w writes the new rows, as fragments that no version names yet.
	w *fragmentWriter
	// deleted has the rows that go, by fragment.
	deleted map[uint64]*roaring.Bitmap
}

// Rewrite runs fn on a snapshot in which all rows of the table lie in the base, so that scans of it have RowAddress,
// and then deletes and adds what fn told rw in one commit of the base. Several Rewrites of a table run one after the
// other. Those who write rows wait only while what they wrote before is brought into the base, and their new rows are
// no part of the snapshot. Other programs may commit meanwhile: when one changed the same fragments, fn runs again on
// what it left.
func (t *Table) Rewrite(ctx context.Context, fn func(ctx context.Context, snap *Snapshot, rw *Rewrite) error) error {
	if err := t.refuseWrite(); err != nil {
		return err
	}
	if t.now().codec != nil {
		return fmt.Errorf("%w rewrite of table %q: its rows have keys", ErrInvalid, t.name)
	}
	if err := t.turn.lock(ctx); err != nil {
		return fmt.Errorf("table %q: wait for a statement: %w", t.name, err)
	}
	defer t.turn.unlock()
	err := t.rewrite(ctx, fn)
	for try := 1; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		err = t.rewrite(ctx, fn)
	}
	return err
}

// rewrite is one attempt of Rewrite.
func (t *Table) rewrite(ctx context.Context, fn func(ctx context.Context, snap *Snapshot, rw *Rewrite) error) error {
	snap, view, err := t.settle(ctx)
	if err != nil {
		return err
	}
	defer snap.Release()
	rw := &Rewrite{table: t, w: &fragmentWriter{table: t, schema: view.schema}, deleted: make(map[uint64]*roaring.Bitmap)}
	write, done := t.build(view.set.base.version.Number)
	defer done()
	rw.w.note = write
	err = fn(ctx, snap, rw)
	if err == nil {
		err = rw.w.cut(ctx)
	}
	if err == nil { // the commit is not in the log: it may not outlive what it was made of, which a power cut takes from there
		err = t.db.settled(ctx, snap.LSN())
	}
	if err != nil {
		rw.abort(ctx)
		return err
	}
	if len(rw.deleted) == 0 && len(rw.w.done) == 0 {
		return nil
	}
	change := manifest.Change{Append: rw.w.done, Delete: rw.deleted}
	tried := false
	err = t.compactor.order(ctx, func(ctx context.Context) error {
		tried = true
		return t.compactor.commitRewrite(ctx, view.set.base, change)
	})
	if !tried {
		rw.abort(ctx)
	}
	if err == nil { // a process that was overtaken may not say that it is done
		err = t.db.home.owned(ctx)
	}
	if err != nil {
		return fmt.Errorf("commit rewrite of table %q: %w", t.name, err)
	}
	return nil
}

// settle brings everything into the base that was written so far, and returns a snapshot of that moment. Most of the
// work is done before others have to wait. REQUIRES: t.turn is held, so that the table stays.
func (t *Table) settle(ctx context.Context) (*Snapshot, *View, error) {
	if err := t.bringIn(ctx); err != nil {
		return nil, nil, err
	}
	if err := t.writes.lock(ctx); err != nil {
		return nil, nil, fmt.Errorf("table %q: wait for other writers: %w", t.name, err)
	}
	defer t.writes.unlock()
	if t.dropped {
		return nil, nil, fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	for {
		snap, err := t.db.Snapshot(ctx)
		if err != nil {
			return nil, nil, err
		}
		view, err := snap.Table(t.name)
		if err == nil && !view.unmerged() && LSN(t.last.Load()) <= snap.LSN() {
			return snap, view, nil
		}
		snap.Release()
		if err != nil {
			return nil, nil, err
		}
		if err := t.bringIn(ctx); err != nil {
			return nil, nil, err
		}
	}
}

// bringIn brings everything into the base that was written before the call.
func (t *Table) bringIn(ctx context.Context) error {
	if err := t.optimize(ctx); err != nil {
		return fmt.Errorf("merge table %q: %w", t.name, err)
	}
	return nil
}

// Delete deletes the rows with these addresses, which a scan of the snapshot gave. Some may be deleted already.
func (rw *Rewrite) Delete(addresses []uint64) {
	for _, a := range addresses {
		rows := rw.deleted[a>>32]
		if rows == nil {
			rows = roaring.New()
			rw.deleted[a>>32] = rows
		}
		rows.Add(uint32(a))
	}
}

// Put adds rows, in the columns of the table. The batch stays the caller's.
func (rw *Rewrite) Put(ctx context.Context, rec arrow.RecordBatch) error {
	if err := rw.table.check(rw.w.schema, rec); err != nil {
		return err
	}
	if err := rw.table.db.space.admit(ctx, recordBytes(rec)); err != nil {
		return fmt.Errorf("table %q: %w", rw.table.name, err)
	}
	rec.Retain()
	rec = relabelRecord(rec, rw.w.schema.arrow)
	defer rec.Release()
	return rw.w.write(ctx, rec)
}

// abort removes what was written.
func (rw *Rewrite) abort(ctx context.Context) {
	rw.w.abort(ctx)
}

// commitRewrite publishes a rewrite of the rows of a base. Versions that followed it may have added rows; if they took
// some away from the same fragments, that is ErrConflict. REQUIRES: it is called by the compactor.
func (c *compactor) commitRewrite(ctx context.Context, on *base, change manifest.Change) error {
	_, err := manifest.Commit(ctx, c.db.st, c.table.root, on.version, change, c.table.manifestOptions())
	if errors.Is(err, manifest.ErrConflict) || errors.Is(err, manifest.ErrUnpublished) {
		c.table.discardFragments(ctx, change.Append) // after any other error they may be part of a version
		return err
	}
	// The version stands, or it is open whether it does: either way readers get what is there, though the caller may
	// have gone away.
	if fresh := c.refreshBase(context.WithoutCancel(ctx)); fresh != nil {
		err = errors.Join(err, fmt.Errorf("open what was committed: %w", fresh))
	}
	return err
}
