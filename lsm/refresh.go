package lsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// Other programs commit to the datasets of tables while we run. Who is about to take a snapshot calls Refresh, so that it
// has what they committed before: for each table one look for the next version, and when there is one, that is opened
// and the masks of its new fragments are made. The compactor does the same before it works on the base. Of two that find a
// version one takes it up, and the other waits for it (Table.basing).

// refreshEvery is how often the dataset of a table in a store of objects is looked at, at most: an answer takes a round trip
// there, on a disk a microsecond or two.
const refreshEvery = time.Second

// Refresh takes up what other programs have committed to the tables. A version that cannot be taken up is no error here:
// readers keep the one before, it is logged, and writers of the table are told why.
func (db *DB) Refresh(ctx context.Context) error {
	for _, t := range db.list() {
		if err := t.refresh(ctx); err != nil {
			return err
		}
	}
	return nil
}

// refresh is Refresh for one table.
func (t *Table) refresh(ctx context.Context) error {
	set := t.set.Load() // only for the number of its version
	if set == nil || !t.looks() {
		return nil
	}
	current, err := manifest.Current(ctx, t.db.st, t.root, set.base.version.Number)
	if err == nil && !current {
		err = t.takeUpBeside(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && t.stop.Err() == nil && t.stuck.Load() == nil: // else that is logged
		t.warn("take up what another program committed; the version before is served", err)
	}
	return nil
}

// looks reports whether it is time to look for versions of other programs.
func (t *Table) looks() bool {
	if t.db.opt.Store == nil {
		return true
	}
	last, now := t.looked.Load(), time.Now().UnixNano()
	return time.Duration(now-last) >= refreshEvery && t.looked.CompareAndSwap(last, now)
}

// takeUpBeside is takeUp for others than the compactor: the table is not closed meanwhile.
func (t *Table) takeUpBeside(ctx context.Context) error {
	done, err := t.beginBuild()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.stop, cancel)()
	err = t.takeUp(ctx)
	poke(t.compactor.work) // there may be something to do
	return err
}

// takeUp lets readers have the newest version of the table, if they do not. Should that be one that flightd cannot take up,
// the table can only be read until there is another.
func (t *Table) takeUp(ctx context.Context) error {
	err := t.takeUpRows(ctx)
	if errors.Is(err, errOtherColumns) {
		err = t.takeUpColumns(ctx)
	}
	return err
}

// errOtherColumns is for a version whose columns the table does not have yet.
var errOtherColumns = errors.New("another program changed the columns")

// takeUpRows is takeUp for a version with the columns of the one before.
func (t *Table) takeUpRows(ctx context.Context) error {
	if err := t.basing.lock(ctx); err != nil {
		return err
	}
	defer t.basing.unlock()
	set := t.set.Load() // only for its version
	if set == nil {
		return t.ended()
	}
	v, err := manifest.Latest(ctx, t.db.st, t.root, t.manifestOptions())
	if err == nil && v.Number > set.base.version.Number {
		var was *lance.Schema
		if was, err = t.columnsBefore(ctx, v, set.base.version); err == nil && (!sameSchema(v.Schema, was) || t.rekeyed(v)) {
			return errOtherColumns
		}
		if err == nil {
			err = t.takeOn(ctx, v, set.base.version, nil, func() error { return t.rebase(ctx, v) })
		}
	}
	t.noteStuck(err)
	return err
}

// stuck is why the newest version of a table cannot be taken up.
type stuck struct{ err error }

// noteStuck notes how an attempt to take a version up ended. What may be otherwise next time, as with a store that does not
// answer, leaves the table as it is.
func (t *Table) noteStuck(err error) {
	var unsupported *manifest.UnsupportedError
	var corrupt *object.CorruptError
	var alien *alienError
	switch {
	case err == nil:
		t.stuck.Store(nil)
	case errors.As(err, &unsupported), errors.As(err, &corrupt), errors.As(err, &alien):
		if t.stuck.Swap(&stuck{err}) == nil {
			t.warn("another program committed what cannot be taken up; the version before is served, and the table is not written", err)
		}
	}
}

// alienError is why the columns of a version cannot become those of the table.
type alienError struct {
	table   TableName
	root    string
	version uint64
	fault   string
}

// Error implements error.
func (e *alienError) Error() string {
	return fmt.Sprintf("version %d of the dataset %s %s: another program changed its columns; restore an older version with Lance, or %s", e.version, e.root, e.fault, discardHint(e.table))
}

// alien returns why the columns of a version cannot become those of the table.
func (t *Table) alien(v *manifest.Version, fault string) *alienError {
	return &alienError{table: t.name, root: t.root, version: v.Number, fault: fault}
}
