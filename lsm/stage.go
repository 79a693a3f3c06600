package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/flightd/flightd/lsm/wal"
)

// Stage is a set of batches of one table that take effect together, or not at all. It is invisible until Commit.
// What a stage cannot hold in memory it writes as generations that no manifest names; a crash or Abort leaves
// nothing of it that the next Open does not remove. It is for one goroutine.
//
// A stage does not wait for memory: one that did while it holds some, or while its own snapshot pins memtables, could
// wait for itself. So it holds little, and what is larger goes to disk at once, which is where it ends anyway.
type Stage struct {
	table *Table
	// puts are in memory, bytes is their size.
	puts  []*put
	bytes int64
	rows  int64
	// keep are the field ids of columns whose values wait for what is stored, sent those of all other columns that came.
	keep, sent []int32
	// oldest is the id of the table's schema at the first batch.
	oldest uint32
	// spilled are written, in order.
	spilled []spilledGeneration
	// keys are what Insert has put.
	keys stagedKeys
	// born is set when the stage makes its table.
	born *birth
	// claim is the request that the stage is, nil when it has no idempotency key; batches are those of the request.
	claim   *Claim
	batches int64
	// with is logged in the group that commits, nil for nothing.
	with *wal.Record
	// locked is true when the caller of Commit holds table.writes for writing.
	locked bool
	closed bool
}

// Stage begins a stage of the table.
func (t *Table) Stage() *Stage { return &Stage{table: t} }

// Table returns the stage's table. One that StageTable made is not in the catalog before Commit.
func (s *Stage) Table() *Table { return s.table }

// Rows returns the number of rows put so far, tombstones included.
func (s *Stage) Rows() int64 { return s.rows }

// Under makes the stage all of a request of so many batches: its commit is remembered under the request's key.
func (s *Stage) Under(c *Claim, batches int64) { s.claim, s.batches = c, batches }

// news returns what the stage's commit logs beside the rows: what its key came to, if it has one, and what came with it.
func (s *Stage) news() []*wal.Record {
	var list []*wal.Record
	if s.claim != nil {
		list = append(list, s.claim.news(s.table, Answer{Batches: s.batches, Rows: s.rows, Complete: true}))
	}
	if s.with != nil {
		list = append(list, s.with)
	}
	return list
}

// Put adds a batch. After ErrTableChanged the batch can be made anew for the table as it is now, and put; after any
// other error the stage can only be aborted.
func (s *Stage) Put(ctx context.Context, b Batch) error {
	if s.closed {
		return ErrClosed
	}
	if b.Record.NumRows() == 0 {
		return nil
	}
	if err := s.table.refuseWrite(); err != nil {
		return err
	}
	now := s.table.now()
	check := s.table.check
	if len(b.Keep) > 0 {
		check = s.table.checkShape // nulls are looked for when the rows are whole
	}
	if b.Keep != nil {
		s.noteKept(now, b.Keep)
	}
	if err := check(now, b.Record); err != nil {
		return err
	}
	bytes := b.bytes()
	if err := s.table.db.roomFor(ctx, now, b, bytes); err != nil {
		return fmt.Errorf("table %q: %w", s.table.name, err)
	}
	p, err := s.table.newPut(now, b, bytes, 0)
	if err != nil {
		return err
	}
	if len(s.puts) > 0 && s.puts[0].schema != p.schema && s.table.db.home.oneSchema() {
		if err := s.spill(ctx); err != nil {
			p.letGo()
			return err
		}
	}
	s.table.db.budget.add(p.bytes)
	if s.rows == 0 {
		s.oldest = now.id
	}
	s.puts = append(s.puts, p)
	s.bytes += p.held()
	s.rows += p.rec.NumRows()
	if s.bytes >= s.table.db.opt.StageBytes {
		return s.spill(ctx)
	}
	return nil
}

// noteKept remembers which columns of the table a batch has, and which it leaves as they are.
func (s *Stage) noteKept(now *tableSchema, keep []int) {
	for i, f := range now.lance.Fields {
		list := &s.sent
		if slices.Contains(keep, i) {
			list = &s.keep
		}
		if !slices.Contains(*list, f.ID) {
			*list = append(*list, f.ID)
		}
	}
}

// spill writes what is in memory as a generation of each shard that it has rows of.
func (s *Stage) spill(ctx context.Context) error {
	t := s.table
	if s.born == nil && !s.locked {
		// No DROP removes the folder meanwhile.
		if err := t.writes.rlock(ctx); err != nil {
			return fmt.Errorf("table %q: wait for a statement: %w", t.name, err)
		}
		defer t.writes.runlock()
	}
	if t.dropped {
		return fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	done, err := t.db.begin()
	if err != nil {
		return fmt.Errorf("table %q: spill stage: %w", t.name, err)
	}
	defer done()
	memtables := make([]*memtable, len(t.shards))
	for _, p := range s.puts {
		for _, x := range p.leaveParts() {
			i := x.shard.index
			if memtables[i] == nil {
				memtables[i] = t.newMemtable(t.baseNow())
				defer memtables[i].unref()
			}
			memtables[i].add(1, x)
			t.db.budget.add(memtables[i].index(1, false))
		}
	}
	s.puts, s.bytes = nil, 0
	for i, m := range memtables {
		if m == nil {
			continue
		}
		m.publish()
		g, err := writeGeneration(ctx, t.db.st, t.shards[i], m, m.sortedRows(), uint64(len(s.spilled)))
		s.spilled = append(s.spilled, spilledGeneration{g, t.shards[i]}) // also after an error, so that Abort removes it
		if err != nil {
			return fmt.Errorf("table %q: spill stage: %w", t.name, t.db.blame(ctx, t.db.diskError(err)))
		}
	}
	return nil
}

// Commit makes all batches durable and visible, at one moment, and returns the LSN at which readers have them.
func (s *Stage) Commit(ctx context.Context) (LSN, error) {
	if s.closed {
		return 0, ErrClosed
	}
	defer s.Abort()
	if s.born != nil {
		return s.table.db.bear(ctx, s)
	}
	if s.sent != nil {
		if err := s.table.writes.lock(ctx); err != nil {
			return 0, fmt.Errorf("table %q: wait for other writers: %w", s.table.name, err)
		}
		defer s.table.writes.unlock()
		if s.table.dropped {
			return 0, fmt.Errorf("table %q: commit stage: %w", s.table.name, ErrTableNotFound)
		}
		s.locked = true
		if keep := s.kept(s.table.now()); len(keep) > 0 {
			if err := s.settleKept(ctx, keep); err != nil {
				return 0, err
			}
		}
	}
	if !s.locked {
		if len(s.spilled) > 0 && len(s.puts) > 0 {
			if err := s.spill(ctx); err != nil {
				return 0, err
			}
		}
		if len(s.spilled) == 0 {
			if err := s.table.writes.rlock(ctx); err != nil {
				return 0, fmt.Errorf("table %q: wait for a statement: %w", s.table.name, err)
			}
			defer s.table.writes.runlock()
		} else {
			if err := s.table.writes.lock(ctx); err != nil {
				return 0, fmt.Errorf("table %q: wait for other writers: %w", s.table.name, err)
			}
			defer s.table.writes.unlock()
		}
	}
	var lsn LSN
	var err error
	if len(s.spilled) == 0 {
		lsn, err = s.log(ctx)
	} else {
		lsn, err = s.publish(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("table %q: commit stage: %w", s.table.name, s.table.db.blame(ctx, err))
	}
	return lsn, s.table.db.Wait(ctx, lsn)
}

// log commits a stage that is in memory: all its records go to the log in one group, which a crash leaves whole or
// not at all, and readers get them at once. REQUIRES: table.writes is held.
func (s *Stage) log(ctx context.Context) (LSN, error) {
	t := s.table
	if err := s.admissible(); err != nil {
		return 0, err
	}
	recs := make([]*wal.Record, len(s.puts))
	for i, p := range s.puts {
		recs[i] = t.logRecord(p)
		p.atomic = len(s.puts)
	}
	all := append(recs, s.news()...)
	if len(all) == 0 {
		return LSN(t.last.Load()), nil
	}
	lsn, err := t.db.log.Append(ctx, all...)
	if err != nil {
		return 0, t.db.diskError(logError(err))
	}
	s.puts = nil // the memtable has them
	t.noteLast(lsn)
	return lsn, nil
}

// admissible returns why the table cannot take the stage's batches any more. Other schemas than the current one are no
// reason, as long as none refuses nulls that theirs allowed. REQUIRES: table.writes is held.
func (s *Stage) admissible() error {
	switch {
	case s.table.dropped:
		return ErrTableNotFound
	case s.rows > 0 && s.oldest < s.table.now().strict:
		return fmt.Errorf("%w: a column may not be null any more, or the key is another; send the rows again", ErrTableChanged)
	}
	return nil
}

// publish commits a stage that has spilled: what came before it is flushed, the log gets the commit, and the shard's
// manifest the generations. REQUIRES: table.writes is held for writing.
func (s *Stage) publish(ctx context.Context) (LSN, error) {
	t := s.table
	if err := s.admissible(); err != nil {
		return 0, err
	}
	if len(s.puts) > 0 {
		if err := s.spill(ctx); err != nil {
			return 0, err
		}
	}
	lsn, published, err := t.commitStage(ctx, s)
	if err != nil {
		return 0, err
	}
	// It is committed, whatever happens: shards whose manifests cannot be written now try until they can.
	select {
	case <-published:
		return lsn, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-t.db.overtaken.Done():
		err = t.db.lost()
	case <-t.stop.Done():
		err = ErrClosed
	}
	return 0, fmt.Errorf("%w: %w", errUnpublished, err)
}

// Abort drops the stage. After Commit it does nothing.
func (s *Stage) Abort() {
	if s.closed {
		return
	}
	s.closed = true
	s.keys.close()
	t := s.table
	for _, p := range s.puts {
		p.drop(t)
	}
	for _, g := range s.spilled {
		t.discard(context.Background(), g.dir())
	}
	if s.born != nil && t.db.lockDDL() == nil { // of a DB that is closed the next Open removes it
		t.db.home.unborn(t)
		t.db.ddl.Unlock()
	}
}

// Modify runs fn while nobody else writes the table: fn gets a snapshot with everything that was written so far, and
// a stage, which is committed when fn returns nil. That is how a statement reads and writes as one.
func (t *Table) Modify(ctx context.Context, fn func(ctx context.Context, snap *Snapshot, stage *Stage) error) error {
	if err := t.writes.lock(ctx); err != nil {
		return fmt.Errorf("table %q: wait for other writers: %w", t.name, err)
	}
	defer t.writes.unlock()
	if t.dropped {
		return fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	if err := t.db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return err
	}
	snap, err := t.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Release()
	stage := t.Stage()
	stage.locked = true
	if err := fn(ctx, snap, stage); err != nil {
		stage.Abort()
		return err
	}
	_, err = stage.Commit(ctx)
	return err
}

// errUnpublished is for a stage that readers will have when its shard's manifest can be written.
var errUnpublished = errors.New("the stage is committed and not published yet")

// errStageName is for two stages that make the same table.
var errStageName = errors.New("another statement made it meanwhile")
