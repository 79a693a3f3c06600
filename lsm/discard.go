package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/flightd/flightd/manifest"
)

// Discard is the other way out, beside OPTIMIZE, for a table that another program has put something else below: what is in front
// of the base is dropped, and the newest version of the dataset taken up as it is, with its columns and its key.
//
//	flushers and compactor stand still ──▶ one DDL record ──▶ the shards' manifests lose their generations ──▶ readers
//
// The record has everything: rows of the table that the log has before it, and generations of a manifest that was written before
// it, do not count any more, whether the manifests were written in time or not.

// Discard drops the rows of a table that only lie in front of its base, and returns how many there were: newer versions of a row
// and deletions count, rows that they replaced do not. Of a table that is not served the number is not known, and is -1.
// A table that is written as usual keeps its rows, and the answer is 0.
func (db *DB) Discard(ctx context.Context, n TableName) (rows int64, err error) {
	defer db.poke()
	if t, err := db.Table(n); err == nil {
		if err := t.refresh(ctx); err != nil {
			return 0, err
		}
	}
	t, unlock, err := db.seizeForDDL(ctx, n)
	var unserved *UnservedError
	if errors.As(err, &unserved) && unserved.incarnation > 0 {
		return -1, db.discardAside(ctx, unserved)
	}
	if err != nil {
		return 0, err
	}
	defer unlock()
	if t.divided.Load() == nil && t.stuck.Load() == nil {
		return 0, nil
	}
	if err := db.settled(ctx, LSN(t.last.Load())); err != nil {
		return 0, err
	}
	err = t.alone(ctx, func(ctx context.Context) error {
		rows, err = t.discardRows(ctx)
		return err
	})
	var fault *keyFault
	if errors.As(err, &fault) || foreignFault(err) {
		err = &ReadOnlyError{Table: n, Err: err}
	}
	if err != nil {
		return 0, fmt.Errorf("discard rows: %w", err)
	}
	return rows, nil
}

// alone runs something while neither the compactor nor the flushers of the table work.
func (t *Table) alone(ctx context.Context, do func(context.Context) error) error {
	return t.compactor.order(ctx, func(ctx context.Context) error { return withoutFlushes(ctx, t.shards, do) })
}

// withoutFlushes runs something while the flushers of some shards do not work.
func withoutFlushes(ctx context.Context, shards []*shard, do func(context.Context) error) error {
	if len(shards) == 0 {
		return do(ctx)
	}
	return shards[0].order(ctx, func(ctx context.Context) error { return withoutFlushes(ctx, shards[1:], do) })
}

// discardRows is Discard while nobody writes the table and db.ddl is held. REQUIRES: it is run by alone.
func (t *Table) discardRows(ctx context.Context) (int64, error) {
	for _, s := range t.shards { // what is frozen, no applier works on
		if err := s.freeze(ctx); err != nil {
			return 0, err
		}
	}
	t.adopting.Lock()
	defer t.adopting.Unlock()
	if t.pending != nil {
		if err := t.adopt(ctx); err != nil {
			return 0, err
		}
	}
	if err := t.basing.lock(ctx); err != nil {
		return 0, err
	}
	defer t.basing.unlock()
	v, err := manifest.Latest(ctx, t.db.st, t.root, t.manifestOptions())
	if err != nil {
		return 0, err
	}
	was, err := t.columnsBefore(ctx, v, t.set.Load().base.version)
	if err != nil {
		return 0, err
	}
	change, err := t.changeAnew(v, was)
	if err == nil {
		err = t.refuseTwins(ctx, v, change.next)
	}
	if err != nil {
		return 0, err
	}
	rows, err := t.rowsInFront(ctx)
	if err != nil {
		return 0, err
	}
	return rows, t.dropFront(ctx, change)
}

// dropFront logs that the rows in front of the base do not count any more, and has everybody forget them. REQUIRES: as of
// discardRows, and t.basing is held.
func (t *Table) dropFront(ctx context.Context, c *columnChange) error {
	r, err := t.newRebaseAnew(ctx, c.version, c.next)
	if err != nil {
		return err
	}
	defer r.base.unref()
	inc := t.entry.Incarnation
	if err := t.db.logDDL(ctx, ddl{Alter: c.record, Discard: inc, Accept: &ddlAccept{Incarnation: inc, Version: c.version.Number}}); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	t.entry.Discarded = t.db.cat.LSN
	err = t.finishDiscard(ctx)
	if !r.tryPublish(ctx) {
		err = errors.Join(err, errors.New("rows came meanwhile"))
	}
	if err != nil { // until it is repeated, or the next Open, nothing is written that the manifests would take for what was dropped
		return err
	}
	t.divided.Store(nil)
	t.stuck.Store(nil)
	t.accepted.Store(c.version.Number)
	t.db.logger.Info("rows that were not merged are dropped", "table", t.name.String(), "version", c.version.Number)
	t.compactor.wantAlign()
	return nil
}

// freeze has the applier freeze what it was given so far, and waits until it has.
func (s *shard) freeze(ctx context.Context) error {
	frozen := make(chan struct{})
	select {
	case s.freezes <- frozen:
	case <-s.table.stop.Done():
		return s.table.ended()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-frozen:
	case <-s.table.stop.Done():
		return s.table.ended()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// rowsInFront returns how many rows and deletions count of what is in front of the base.
func (t *Table) rowsInFront(ctx context.Context) (n int64, err error) {
	set := t.holdSet()
	if set == nil {
		return 0, t.ended()
	}
	defer set.unref()
	v := &View{table: t, schema: t.now(), lsn: t.db.marks.visible(), set: set}
	for _, c := range set.chains {
		for i, l := range c.layers {
			switch x := l.layer.(type) {
			case *generation:
				n += x.frag.live
			case *memtable:
				rows := x.rows.Load().upTo(v.lsn)
				n += rows.rowCount() - int64(len(rows.dead))
			}
			m, err := v.mask(ctx, c, i)
			if err != nil {
				return 0, err
			}
			if m != nil {
				n -= m.count()
			}
		}
	}
	return max(n, 0), nil
}

// finishDiscard takes the generations off the shards' manifests that were written before the table's rows were dropped.
// REQUIRES: the shards were claimed.
func (t *Table) finishDiscard(ctx context.Context) error {
	for _, s := range t.shards {
		if t.entry.Discarded == 0 || len(s.manifest().Generations) == 0 || s.replayAfter() > t.entry.Discarded {
			continue
		}
		if err := s.edit(ctx, func(n *manifest.Shard) { n.Generations = nil }); err != nil {
			return err
		}
	}
	return nil
}

// discardAside is Discard for a table that was set aside: it is opened as what its dataset is now.
func (db *DB) discardAside(ctx context.Context, u *UnservedError) error {
	if err := db.lockDDL(); err != nil {
		return err
	}
	defer db.ddl.Unlock()
	i := slices.IndexFunc(db.cat.Tables, func(e tableEntry) bool { return e.Incarnation == u.incarnation })
	if i < 0 || !db.isAside(u.incarnation) {
		return u
	}
	v, err := manifest.Latest(ctx, db.st, u.root, manifest.Options{ScanBatch: db.opt.ManifestScanBatch})
	if err != nil {
		return err
	}
	e, err := foreignSchema(v)
	if err != nil {
		return fmt.Errorf("discard rows of table %q: %w", u.Table, err)
	}
	last := db.cat.Tables[i].Schemas[len(db.cat.Tables[i].Schemas)-1]
	e.ID, e.LastField = last.ID+1, max(e.LastField, last.LastField)
	if err := validateShards(db.cat.Tables[i].Shards, e.key); err != nil {
		return fmt.Errorf("discard rows of table %q: %w", u.Table, err)
	}
	alter := &ddlAlter{Incarnation: u.incarnation, Schema: e.schemaEntry, Key: e.key, Anew: true}
	if err := db.logDDL(ctx, ddl{Alter: alter, Discard: u.incarnation, Accept: &ddlAccept{Incarnation: u.incarnation, Version: v.Number}}); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	t, err := newTable(db, db.cat.Tables[i])
	if err == nil {
		err = db.openTable(ctx, t)
	}
	if err != nil {
		return fmt.Errorf("open table %q without its rows: %w; restart flightd", u.Table, err)
	}
	db.moment.Lock()
	delete(db.aside, u.incarnation)
	db.moment.Unlock()
	t.start()
	return nil
}
