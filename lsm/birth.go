package lsm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// stageFolder holds the datasets of tables that are being made, each under its incarnation. The log's DDL record
// brings such a table into the catalog; then its folder moves to the table's place, at once or at the next Open.
const stageFolder = systemFolder + "/stage"

// birth is a table that a stage makes.
type birth struct {
	entry tableEntry
	// replace allows that a table of the name exists; the new one takes its place.
	replace bool
}

// stageRoot returns the folder of a table that is being made.
func stageRoot(incarnation uint64) string {
	return stageFolder + "/" + strconv.FormatUint(incarnation, 10) + ".lance"
}

// StageTable begins a stage that makes its table: Commit brings both at once. With replace it takes the place of a
// table of the same name, if there is one then; without, that is ErrTableExists.
func (db *DB) StageTable(ctx context.Context, d TableDef, replace bool) (*Stage, error) {
	defer db.poke() // the trimmer passes over DDL that it meets
	if err := db.lockDDL(); err != nil {
		return nil, err
	}
	defer db.ddl.Unlock()
	if err := db.refuseTaken(d.Name, replace); err != nil {
		return nil, err
	}
	if err := db.space.admit(ctx, 0); err != nil {
		return nil, fmt.Errorf("table %q: %w", d.Name, err)
	}
	db.cat.LastIncarnation++
	e, err := newTableEntry(d, db.cat.LastIncarnation)
	if err == nil {
		err = db.home.named(db.cat, &e)
	}
	if err != nil {
		return nil, err
	}
	t, err := newTable(db, e)
	if err != nil {
		return nil, err
	}
	if _, err := db.Table(d.Name); errors.Is(err, ErrTableNotFound) {
		if err := db.refuseFolder(ctx, d.Name, t.root); err != nil {
			return nil, err
		}
	}
	if t.root, err = db.home.stage(ctx, &e); err != nil {
		return nil, fmt.Errorf("stage table %q: %w", d.Name, err)
	}
	if err := t.found(ctx); err != nil {
		db.home.unborn(t)
		return nil, fmt.Errorf("stage table %q: %w", d.Name, err)
	}
	return &Stage{table: t, born: &birth{entry: e, replace: replace}}, nil
}

// refuseTaken returns ErrTableExists for a name that is in use, unless it may be replaced.
func (db *DB) refuseTaken(n TableName, replace bool) error {
	if db.hasView(n) {
		return fmt.Errorf("table %q: %w: a view has the name", n, ErrTableExists)
	}
	_, err := db.Table(n)
	switch {
	case err == nil && replace, errors.Is(err, ErrTableNotFound):
		return nil
	case err == nil:
		return fmt.Errorf("table %q: %w", n, ErrTableExists)
	}
	return err
}

// found makes the dataset and the shards of a table that has none.
func (t *Table) found(ctx context.Context) error {
	if _, err := t.createDataset(ctx); err != nil {
		return err
	}
	return t.claimShards(ctx)
}

// bear commits a stage that makes its table.
func (db *DB) bear(ctx context.Context, s *Stage) (LSN, error) {
	if err := s.complete(ctx); err != nil {
		return 0, err
	}
	old, err := db.Table(s.table.name)
	if err == nil {
		unlock, err := old.seize(ctx)
		if err != nil {
			return 0, err
		}
		defer unlock()
	}
	defer db.poke()
	if err := db.lockDDL(); err != nil {
		return 0, err
	}
	defer db.ddl.Unlock()
	if now, _ := db.Table(s.table.name); now != old || old != nil && old.dropped {
		return 0, fmt.Errorf("table %q: %w: %w", s.table.name, ErrTableExists, errStageName)
	}
	if err := errors.Join(db.refuseTaken(s.table.name, s.born.replace), db.removeDropped(ctx)); err != nil {
		return 0, err
	}
	if root := s.born.entry.folder(); old == nil && s.table.root != root { // it has to move there
		if err := db.refuseFolder(ctx, s.table.name, root); err != nil {
			return 0, err
		}
	}
	return db.place(ctx, s, old)
}

// complete writes what the stage still has in memory and lists all generations in its shards' manifests.
func (s *Stage) complete(ctx context.Context) error {
	done, err := s.table.db.begin()
	if err != nil {
		return fmt.Errorf("table %q: %w", s.table.name, err)
	}
	defer done()
	if len(s.puts) > 0 {
		if err := s.spill(ctx); err != nil {
			return err
		}
	}
	for i, sh := range s.table.shards {
		list := s.generations(i)
		if len(list) == 0 {
			continue
		}
		err := sh.edit(ctx, func(n *manifest.Shard) {
			for i, g := range list {
				g.Number = n.CurrentGeneration + uint64(i)
				n.Generations = append(n.Generations, g)
			}
			n.CurrentGeneration += uint64(len(list))
		})
		if err != nil {
			return fmt.Errorf("table %q: %w", s.table.name, err)
		}
	}
	return nil
}

// place logs the new table, moves its folder and lets readers have it instead of old, which may be nil. REQUIRES:
// db.ddl is held, and old.writes for writing.
func (db *DB) place(ctx context.Context, s *Stage, old *Table) (LSN, error) {
	d := ddl{Create: &s.born.entry}
	if old != nil {
		if err := db.Wait(ctx, LSN(old.last.Load())); err != nil {
			return 0, err
		}
		d.Drop = old.entry.Incarnation
	}
	if err := db.logDDL(ctx, d, s.news()...); err != nil {
		if errors.Is(err, wal.ErrPoisoned) {
			s.spilled, s.born = nil, nil // the record may be in the log: the next Open decides
		}
		return 0, err
	}
	ctx = context.WithoutCancel(ctx)
	s.spilled, s.born = nil, nil // they belong to the table now
	if old != nil {
		old.dropped = true
		old.leave()
		old.halt()
	}
	t, err := newTable(db, *d.Create)
	if err == nil {
		err = db.openTable(ctx, t)
	}
	if err != nil && old != nil {
		db.forget(old) // before its layers go: a snapshot takes those of every table
	}
	if old != nil {
		old.close()
		db.home.leave(old)
		db.outlive(old)
	}
	if err != nil {
		return 0, fmt.Errorf("open new table %q: %w; restart flightd", s.table.name, err)
	}
	t.start()
	return db.cat.LSN, nil
}

// moveIn brings the folder of a table that was made by a stage to its place, whatever lies there: bear has seen to it that
// this is nothing, or the table that it replaces.
func (db *DB) moveIn(ctx context.Context, t *Table) error {
	from := stageRoot(t.entry.Incarnation)
	if _, err := db.st.Stat(ctx, from); errors.Is(err, object.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := db.st.DeleteAll(ctx, t.root); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(db.opt.Dir, from), filepath.Join(db.opt.Dir, t.root)); err != nil {
		return fmt.Errorf("move new table into place: %w", err)
	}
	return errors.Join(db.st.SyncDirs(ctx, t.root), db.st.SyncDirs(ctx, from))
}

// removeUnborn removes the folders of tables that were being made when the process ended. REQUIRES: the tables of
// the catalog, that of the log included, have moved theirs away.
func (db *DB) removeUnborn(ctx context.Context) error { return db.st.DeleteAll(ctx, stageFolder) }
