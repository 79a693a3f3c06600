package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// Another program may put another content in the place of a dataset's: by an overwrite, or by restoring an older version. Rows that
// are not merged then were written over what is gone, and nobody but the user knows whether they belong on top of what
// came. Readers see them there, as they are newer than any commit of another program, and the table is divided: it is not
// written, nor merged by itself, until OPTIMIZE puts the rows there for good.
//
// Whether a table is divided is told by its versions: there is one that another program overwrote or restored, no version of our own
// above it, and it is not among those that were taken up when no rows were unmerged, which the catalog notes
// (tableEntry.Accepted) a moment later. A crash before the note makes the table ask once too often, never too seldom.

// divided says of a version that it has another content than rows which are not merged were written over, or another key.
type divided struct {
	table     TableName
	version   uint64
	operation string
	// key is set when the version declares another key, and says which and what is in its way.
	key string
}

// Error implements error.
func (d *divided) Error() string {
	if d.key != "" {
		return fmt.Sprintf("version %d of the dataset %s", d.version, d.key)
	}
	did := map[string]string{"Restore": "restored an older version of", "Overwrite": "overwrote"}[d.operation]
	if did == "" {
		did = "replaced"
	}
	return fmt.Sprintf("another program %s the dataset in version %d while rows were not merged yet; %s puts them on top of it, and %s",
		did, d.version, optimizeHint(d.table), discardHint(d.table))
}

// optimizeHint and discardHint name the two ways out for a table with rows that are not merged.
func optimizeHint(n TableName) string { return "OPTIMIZE " + quoteName(n) }

func discardHint(n TableName) string {
	return "CALL flightd_discard('" + strings.ReplaceAll(quoteName(n), "'", "''") + "') drops the rows that are not merged"
}

// quoteName writes a table's name as SQL has it.
func quoteName(n TableName) string { return `"` + strings.ReplaceAll(n.Name, `"`, `""`) + `"` }

// divisionIn returns what another program replaced the content by in a version, or in one below it and above a number, of which
// nothing of ours was written since; nil when there is none. on is the version that the rows in front of the base were written
// over, nil for the newest of ours, or that of the number: a restore of just its content replaces nothing.
func (t *Table) divisionIn(ctx context.Context, v, on *manifest.Version, above uint64) (*divided, error) {
	var found *divided
	var came *manifest.Version
	last := max(above, 1) // the first version replaces nothing
	for u, err := range t.back(ctx, v, last) {
		if err != nil {
			return nil, err
		}
		if u.Ours() || u.Number == last {
			if found != nil && on == nil {
				on = u
			}
			break
		}
		if found != nil {
			continue
		}
		op, err := u.Operation(ctx, t.db.st, t.root)
		if err != nil && !errors.Is(err, object.ErrNotExist) {
			return nil, err
		}
		switch op {
		case "Overwrite", "Restore", "Clone":
			found, came = &divided{table: t.name, version: u.Number, operation: op}, u
		}
		if found != nil && on != nil {
			break
		}
	}
	if found != nil && on != nil && sameContent(came, on) {
		return nil, nil
	}
	return found, nil
}

// sameContent reports whether two versions have the same rows at the same places.
func sameContent(a, b *manifest.Version) bool {
	return slices.EqualFunc(a.Fragments, b.Fragments, func(x, y manifest.Fragment) bool {
		return x.ID == y.ID && sameFiles(&x, &y) && sameDeletion(x.Deletion, y.Deletion)
	})
}

// unmergedRows reports whether there is anything in front of the base. done has for each shard the newest generation that the
// base has, or had, whatever the shard's manifest says; nil is none.
func (t *Table) unmergedRows(done []uint64) bool {
	set := t.holdSet()
	if set == nil {
		return false
	}
	defer set.unref()
	if t.staged.Load() > 0 { // a stage is on its way into the manifests
		return true
	}
	for i, c := range set.chains {
		if done == nil && c.newest() > 0 || done != nil && c.newest() > done[i] {
			return true
		}
		if slices.ContainsFunc(c.memtables(), func(m *memtable) bool { return len(m.rows.Load().batches) > 0 }) {
			return true
		}
	}
	return false
}

// takeOn calls publish, which lets readers have a version that other programs made of another, and divides the table before if
// it has to be. rekeyed is why the key that the version declares cannot be taken up, nil when it declares no other.
// REQUIRES: t.basing is held.
func (t *Table) takeOn(ctx context.Context, v, readers *manifest.Version, rekeyed *divided, publish func() error) error {
	d, err := t.divisionIn(ctx, v, readers, readers.Number)
	if err != nil {
		return err
	}
	if d != nil {
		done, err := t.compacted(ctx, v)
		if err != nil {
			return err
		}
		if !t.unmergedRows(done) {
			defer t.accept(v.Number) // in a version that was not published there is nothing to accept
			d = nil
		}
	}
	if d == nil {
		d = rekeyed
	}
	before := t.divided.Load()
	if d == nil && (before == nil || before.key == "") {
		return publish()
	}
	t.divided.Store(d) // nil when the other key was taken back
	if err := publish(); err != nil {
		t.divided.Store(before)
		return err
	}
	if d != nil {
		t.warn("the table is not written", d)
	}
	return nil
}

// accept has the trimmer note that versions up to a number were taken up.
func (t *Table) accept(number uint64) {
	t.accepted.Store(number)
	t.db.poke()
}

// noteAccepted notes in the catalog which versions were taken up. REQUIRES: db.ddl is held.
func (db *DB) noteAccepted() error {
	for _, t := range db.list() {
		n := t.accepted.Load()
		i := slices.IndexFunc(db.cat.Tables, func(e tableEntry) bool { return e.Incarnation == t.entry.Incarnation })
		if i < 0 || n <= db.cat.Tables[i].Accepted {
			continue
		}
		if err := db.logDDL(db.stop, ddl{Accept: &ddlAccept{Incarnation: t.entry.Incarnation, Version: n}}); err != nil {
			return err
		}
	}
	return nil
}

// ddlAccept notes that no rows were unmerged when a version of a table's dataset was taken up.
type ddlAccept struct {
	Incarnation uint64 `json:"incarnation"`
	Version     uint64 `json:"version"`
}

// recall finds out whether a table is divided that was opened just now. REQUIRES: the log was replayed, and nobody else runs.
func (t *Table) recall(ctx context.Context) error {
	set := t.set.Load()
	if set == nil {
		return nil // it was set aside since
	}
	v := set.base.version
	if !t.unmergedRows(nil) {
		if !v.Ours() {
			t.accepted.Store(v.Number)
		}
		return t.recallKey(ctx, v)
	}
	d, err := t.divisionIn(ctx, v, nil, t.entry.Accepted)
	if err == nil && d == nil && t.rekeyed(v) {
		d = t.rekeyedUnder(v)
	}
	if err == nil && d != nil {
		t.divided.Store(d)
		t.warn("rows are not merged", d)
	}
	return err
}

// unite merges what is in front of the base of a divided table, which then is none, and takes the key up that the base declares.
func (t *Table) unite(ctx context.Context) error {
	if err := t.refuseNullKeys(ctx); err != nil {
		return err
	}
	if err := t.compactor.order(ctx, t.compactor.unite); err != nil {
		return err
	}
	return t.takeUpBaseKey(ctx)
}

// unite is Table.unite but for the key.
func (c *compactor) unite(ctx context.Context) error {
	c.uniting = true
	defer func() { c.uniting = false }()
	if err := c.mergeAll(ctx); err != nil {
		return err
	}
	t := c.table
	if t.unmergedRows(nil) {
		return nil
	}
	v := t.set.Load().base.version
	if !t.rekeyed(v) { // else its key is the next
		t.divided.Store(nil)
	}
	t.accept(v.Number)
	c.wantAlign()
	return nil
}

// refuseDivided refuses a merge that nobody asked to put rows on top of what another program put below them.
func (c *compactor) refuseDivided() error {
	if d := c.table.divided.Load(); d != nil && !c.uniting {
		return &ReadOnlyError{Table: c.table.name, Err: d}
	}
	return nil
}
