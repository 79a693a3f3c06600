package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Collected counts what a collection removed.
type Collected struct {
	// Table is the table that it was about.
	Table TableName
	// Versions are old versions of the table; Files are those and all other files, Bytes the size of all.
	Versions, Files, Bytes int64
}

// CollectEvent describes a collection that removed something, or failed.
type CollectEvent struct {
	Collected
	Duration time.Duration
	Err      error
}

// Vacuum removes what a table keeps no longer: see Options.Retain. The collector does the same by itself from time to
// time.
func (db *DB) Vacuum(ctx context.Context, n TableName) (Collected, error) {
	t, err := db.Table(n)
	if err != nil {
		return Collected{Table: n}, err
	}
	done, err := db.begin()
	if err != nil {
		return Collected{Table: n}, err
	}
	defer done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(db.stop, func() { cancel(ErrClosed) })()
	c, err := t.collect(ctx)
	if errors.Is(err, context.Canceled) && db.stop.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrClosed, err) // a store says only that it was cancelled
	}
	return c, err
}

// collectLoop is the collector. It waits before its first round, so that a start is not slowed.
func (db *DB) collectLoop() {
	defer db.done.Done()
	wait := min(minCollect, collectEvery(db.opt.Retain))
	for {
		timer := time.NewTimer(wait)
		select {
		case <-db.stop.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-db.garbage:
			timer.Stop()
		}
		wait = collectEvery(db.opt.Retain)
		db.collectAll()
	}
}

// collectAll collects in every table, and removes the folders of dropped tables that could not be removed then.
func (db *DB) collectAll() {
	for _, t := range db.Tables() {
		_, err := t.collect(db.stop)
		if db.stop.Err() != nil || db.lost() != nil {
			return
		}
		if err != nil && !errors.Is(err, ErrTableNotFound) && !errors.Is(err, ErrClosed) {
			db.logger.Warn("collect what is no longer needed; will try again", "table", t.name.String(), "error", err)
		}
	}
	if db.ddl.TryLock() {
		err := db.removeDropped(db.stop)
		db.ddl.Unlock()
		db.poke() // the trimmer passes over DDL that it meets
		if err != nil && db.stop.Err() == nil {
			db.logger.Warn("remove dropped tables; will try again", "error", err)
		}
	}
}

// litter wakes the collector when it should not leave what has just become useless until its next round.
func (db *DB) litter() {
	if db.opt.Retain >= time.Minute {
		return
	}
	select {
	case db.garbage <- struct{}{}:
	default:
	}
}

// collect removes what the table keeps no longer.
func (t *Table) collect(ctx context.Context) (Collected, error) {
	select {
	case t.collecting <- struct{}{}:
		defer func() { <-t.collecting }()
	case <-ctx.Done():
		return Collected{Table: t.name}, context.Cause(ctx)
	}
	start := time.Now()
	if t.refuseWrite() != nil { // its versions may need files that we know nothing of
		return Collected{Table: t.name}, nil
	}
	c := &collection{t: t, st: t.db.st, needed: make(map[string]bool), known: make(map[string]bool), sum: Collected{Table: t.name}}
	grace := t.db.home.grace()
	c.cutoff, c.unnamed = start.Add(-t.db.opt.Retain), start.Add(-max(commitGrace, grace))
	c.versions = start.Add(-max(t.db.opt.Retain, grace))
	err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("vacuum table %q: %w", t.name, err)
	}
	n := &t.db.counters
	n.collectedVersions.Add(c.sum.Versions)
	n.collectedFiles.Add(c.sum.Files)
	n.collectedBytes.Add(c.sum.Bytes)
	if f := t.db.opt.Events.Collect; f != nil && (c.sum.Files > 0 || err != nil) {
		f(CollectEvent{Collected: c.sum, Duration: time.Since(start), Err: err})
	}
	if c.sum.Files > 0 {
		t.db.logger.Info("collected what was no longer needed", "table", t.name.String(), "versions", c.sum.Versions, "files", c.sum.Files,
			"bytes", c.sum.Bytes, "took", time.Since(start).Round(time.Millisecond))
	}
	return c.sum, err
}

// removeStride is how many files are removed while the table's folder is held.
const removeStride = 64

// remove calls do for n things to remove, while the folder is the table's. A table of the same name that took its place
// has versions with the same numbers.
func (t *Table) remove(ctx context.Context, n int, do func(i int) error) error {
	for i := 0; i < n; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := func() error {
			t.place.Lock()
			defer t.place.Unlock()
			if t.left {
				return fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
			}
			for end := min(i+removeStride, n); i < end; i++ {
				if err := do(i); err != nil {
					return err
				}
			}
			return nil
		}()
		if err != nil {
			return err
		}
	}
	return nil
}

// leave says that the folder is no longer the table's.
func (t *Table) leave() {
	t.place.Lock()
	t.left = true
	t.place.Unlock()
}

// hold notes that files of a version of the base are in use.
func (t *Table) hold(b *base) {
	t.heldMu.Lock()
	t.held = append(t.held, b)
	t.heldMu.Unlock()
}

// build notes that a commit on top of a version is under way beside the compactor. Files for it are noted with write. The
// caller calls done when they are part of a version, or are not going to be.
func (t *Table) build(version uint64) (write func(name string), done func()) {
	t.heldMu.Lock()
	defer t.heldMu.Unlock()
	t.building = append(t.building, version)
	var names []string
	write = func(name string) {
		t.heldMu.Lock()
		defer t.heldMu.Unlock()
		names = append(names, name)
		t.writing[name] = true
	}
	return write, func() {
		t.heldMu.Lock()
		defer t.heldMu.Unlock()
		t.building = slices.Delete(t.building, slices.Index(t.building, version), slices.Index(t.building, version)+1)
		for _, name := range names {
			delete(t.writing, name)
		}
	}
}

// letGo undoes hold.
func (t *Table) letGo(b *base) {
	t.heldMu.Lock()
	if i := slices.Index(t.held, b); i >= 0 {
		t.held = slices.Delete(t.held, i, i+1)
	}
	last := len(t.held) == 0
	t.heldMu.Unlock()
	if last && t.outlived.Load() {
		t.db.poke()
	}
}

// isRead reports whether somebody reads the table's files: every layer set and every view of the past holds a version of the base.
func (t *Table) isRead() bool {
	t.heldMu.Lock()
	defer t.heldMu.Unlock()
	return len(t.held) > 0
}
