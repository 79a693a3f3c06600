package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// A MemWAL writer of another program leaves a shard of its own in a table's folder: generations, and entries of its log that
// no generation has. Open takes such a shard over, once, and for good:
//
//	intent        a DDL record: the catalog knows the shard, and that its rows are not the table's yet
//	claim         a version of its manifest with the next epoch, sealed: who wrote it is fenced, and nobody claims it again
//	sentinel      at the end of its entries: who does not look at the manifest collides there
//	rows          of the generations that are not in the base, in their order, then of the entries, go into one stage
//	commit        of the stage, with a DDL record in the same group of the log: the catalog knows that the rows are the table's
//	retire        a version of the manifest without generations, behind the sentinel
//	removal       of generations and entries; the manifests and the sentinels stay, for a writer that wakes up late
//
// A crash before the commit leaves nothing of the stage, and the next Open begins anew, which the intent allows it to: any
// other sealed shard belongs to somebody who is dropping the dataset. A crash behind it leaves what is only removed.
//
// The rows are put, and do not become fragments of the base by a commit that carries Lance's compacted_sstables, though
// that would be one write less: the log is where a row of any table, with a key or without, gets its place among those that
// came before and after, in one moment for all of a shard, without a rival's commit to rebase over. They are as new as the
// moment in which they are taken in, newer than what lies in flightd's own generations by then; Lance has no order between
// shards either.

// takenShard is a shard of another writer that this table has taken over, or is about to.
type takenShard struct {
	ID uuid.UUID `json:"id"`
	// Done is set when the rows are the table's.
	Done bool `json:"done,omitempty"`
}

// ddlTake is the part of a DDL record that takes a shard over.
type ddlTake struct {
	// Incarnation names the table.
	Incarnation uint64 `json:"incarnation"`
	takenShard
}

// apply changes a catalog entry.
func (d *ddlTake) apply(e *tableEntry) {
	e.Taken = append(slices.DeleteFunc(slices.Clone(e.Taken), func(s takenShard) bool { return s.ID == d.ID }), d.takenShard)
}

// stranger is a shard in a table's folder that is none of the table's own.
type stranger struct {
	dir string // below the data folder
	// man is the newest version of its manifest, nil when it has none.
	man *manifest.Shard
	// taken is what the catalog knows of it, nil when it does not.
	taken *takenShard
}

// strangers returns the shards of other writers in a table's folder.
func (db *DB) strangers(ctx context.Context, t *Table) ([]stranger, error) {
	list, err := db.st.List(ctx, path.Join(t.root, "_mem_wal"))
	if err != nil {
		return nil, err
	}
	taken := db.takenShards(t)
	var out []stranger
	for _, x := range list {
		s := stranger{dir: path.Join(t.root, "_mem_wal", x.Name)}
		if !x.Dir || slices.ContainsFunc(t.shards, func(own *shard) bool { return own.dir() == s.dir }) {
			continue
		}
		if s.man, err = manifest.LoadShard(ctx, db.st, s.dir, t.manifestOptions()); errors.Is(err, object.ErrNotExist) {
			if s.man, err = nil, s.refuseHeadless(ctx, db.st); err == nil {
				continue // no shard
			}
		}
		if err == nil && s.man.ID.String() != x.Name {
			err = fmt.Errorf("its manifest is that of shard %s", s.man.ID)
		}
		if err != nil {
			return out, db.untaken(s.dir, err)
		}
		if i := slices.IndexFunc(taken, func(x takenShard) bool { return x.ID == s.man.ID }); i >= 0 {
			s.taken = &taken[i]
		}
		out = append(out, s)
	}
	return out, nil
}

// takenShards returns what the catalog knows of shards that the table has taken over. REQUIRES: nobody else runs.
func (db *DB) takenShards(t *Table) []takenShard {
	i := slices.IndexFunc(db.cat.Tables, func(e tableEntry) bool { return e.Incarnation == t.entry.Incarnation })
	if i < 0 {
		return nil
	}
	return db.cat.Tables[i].Taken
}

// refuseHeadless returns an error when a shard without a manifest has rows. Lance never removes entries, so a shard that has
// rows has entries; generations without any are what a crash left of a shard that was being removed.
func (s *stranger) refuseHeadless(ctx context.Context, st object.Store) error {
	entries, err := st.List(ctx, path.Join(s.dir, entriesFolder))
	if err == nil && len(entries) > 0 {
		err = &object.CorruptError{Name: path.Join(s.dir, "manifest"), Err: errors.New("the shard has log entries and no manifest")}
	}
	return err
}

// isGeneration reports whether an entry of a shard's folder is that of a generation.
func isGeneration(x object.Info) bool { return x.Dir && strings.Contains(x.Name, "_gen_") }

// entriesFolder holds the log entries of another writer's shard.
const entriesFolder = "wal"

// untaken says what cannot be taken over, why, and what to do about it.
func (db *DB) untaken(dir string, err error) error {
	return fmt.Errorf("the shard %s of another MemWAL writer cannot be taken over: %w; look at it with flightd inspect, put right what is wrong, "+
		"or move its folder away, which gives up its rows, and restart flightd", filepath.Join(db.opt.Dir, dir), err)
}

// errDropping is for a shard that somebody else has sealed.
var errDropping = errors.New("it is sealed, and not by this flightd: another program is dropping the dataset, or another flightd owns it")

// refuseDropping returns an error when a shard lies in the folder of a dataset that somebody has sealed: it is about to be
// dropped, and with it rows that a table of it would have.
func (db *DB) refuseDropping(ctx context.Context, t *Table) error {
	list, err := db.strangers(ctx, t)
	for _, s := range list {
		if err == nil && s.man.Sealed && s.taken == nil {
			err = db.untaken(s.dir, errDropping)
		}
	}
	return err
}

// takeOver takes over the shards of other writers in a table's folder. When that fails the table is only read.
// REQUIRES: the log is open, the table runs and nobody else does.
func (db *DB) takeOver(ctx context.Context, t *Table) error {
	list, err := db.strangers(ctx, t)
	for _, s := range list {
		if err == nil {
			if err = db.takeShard(ctx, t, s); err != nil {
				err = db.untaken(s.dir, err)
			}
		}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || db.log.Err() != nil {
		return err
	}
	t.untaken = err
	db.logger.Error("the table is not written", "table", t.name.String(), "error", err)
	return nil
}

// takeShard takes one shard over, or finishes that.
func (db *DB) takeShard(ctx context.Context, t *Table, s stranger) error {
	if s.taken == nil && s.man.Sealed {
		return errDropping
	}
	if db.home.oneShard() { // rows and the record that they are the table's would not be one
		db.logger.Warn("a shard of another MemWAL writer is left alone; its rows are not seen here", "table", t.name.String(), "shard", s.dir)
		return nil
	}
	if s.taken == nil || !s.taken.Done {
		if err := t.refuseWrite(); err != nil {
			return err
		}
		if s.taken == nil {
			if err := db.logDDL(ctx, ddl{Take: &ddlTake{t.entry.Incarnation, takenShard{ID: s.man.ID}}}); err != nil {
				return err
			}
		}
		if err := db.takeRows(ctx, t, &s); err != nil {
			return err
		}
	}
	return s.retire(ctx, t)
}

// takeRows claims a shard and makes its rows the table's.
func (db *DB) takeRows(ctx context.Context, t *Table, s *stranger) error {
	man, err := manifest.ClaimShard(ctx, db.st, s.dir, s.man.ID, true, t.manifestOptions())
	if err != nil {
		return err
	}
	s.man = man
	stage := t.Stage()
	defer stage.Abort()
	taking := &taking{t: t, st: db.st, dir: s.dir, man: man, stage: stage, now: t.now()}
	if err := taking.read(ctx); err != nil {
		// Its writer may have a remedy, which it cannot apply to a sealed shard.
		_, undo := man.Commit(context.WithoutCancel(ctx), db.st, s.dir, func(n *manifest.Shard) { n.Sealed = false })
		return errors.Join(err, undo)
	}
	if err := db.commitTaken(ctx, t, stage, man.ID); err != nil {
		return err
	}
	db.logger.Info("rows of another MemWAL writer are the table's", "table", t.name.String(), "shard", man.ID, "epoch", man.Epoch,
		"generations", taking.generations, "entries", taking.entries, "rows", stage.Rows())
	return nil
}

// commitTaken commits the rows together with the record that says so.
func (db *DB) commitTaken(ctx context.Context, t *Table, stage *Stage, id uuid.UUID) error {
	d := ddl{Take: &ddlTake{t.entry.Incarnation, takenShard{ID: id, Done: true}}}
	record, err := d.record()
	if err != nil {
		return err
	}
	stage.with = record
	lsn, err := stage.Commit(ctx)
	if err != nil && lsn == 0 && !errors.Is(err, errUnpublished) {
		return err
	}
	// It is committed if it is durable, whatever became of it then.
	if err := db.log.WaitDurable(context.WithoutCancel(ctx), record.LSN); err != nil {
		return logError(err)
	}
	db.cat.apply(record.LSN, d)
	db.checkpoint(ctx)
	return err
}

// retire leaves a shard without rows, and removes them.
func (s *stranger) retire(ctx context.Context, t *Table) error {
	st := t.db.st
	entries, err := st.List(ctx, path.Join(s.dir, entriesFolder))
	if err != nil {
		return err
	}
	last := s.man.ReplayAfter
	for _, x := range entries {
		if p, ok := wal.EntryPosition(x.Name); ok {
			last = max(last, p)
		}
	}
	if len(s.man.Generations) > 0 || last > s.man.ReplayAfter || !s.man.Sealed {
		s.man, err = s.man.Commit(ctx, st, s.dir, func(n *manifest.Shard) {
			n.Generations, n.ReplayAfter, n.LastSeen, n.Sealed = nil, last, last, true
		})
		if err != nil {
			return err
		}
	}
	if err := s.removeRows(ctx, st, entries); err != nil {
		t.warn("remove rows of another writer's shard that was taken over; will try again at the next start", err)
	}
	return nil
}

// maxSentinelBytes is more than any sentinel has.
const maxSentinelBytes = 4 << 10

// removeRows removes generations and entries. Sentinels stay: a writer that was fenced and sleeps would find room for an
// entry where one was.
func (s *stranger) removeRows(ctx context.Context, st object.Store, entries []object.Info) error {
	below, err := st.List(ctx, s.dir)
	if err != nil {
		return err
	}
	for _, x := range below {
		if isGeneration(x) {
			if err := st.DeleteAll(ctx, path.Join(s.dir, x.Name)); err != nil {
				return err
			}
		}
	}
	for _, x := range entries {
		p, ok := wal.EntryPosition(x.Name)
		if !ok {
			continue
		}
		name := path.Join(s.dir, entriesFolder, x.Name)
		if x.Size <= maxSentinelBytes {
			e, err := wal.ReadLanceEntry(ctx, st, name, p)
			if err != nil {
				return err
			}
			e.Release()
			if e.Sentinel {
				continue
			}
		}
		if err := st.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
