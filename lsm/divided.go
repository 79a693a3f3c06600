package lsm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/flightd/flightd/lance"
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

// divided says of a version that it has another content than rows which are not merged were written over.
type divided struct {
	table     TableName
	version   uint64
	operation string
}

// Error implements error.
func (d *divided) Error() string {
	did := map[string]string{"Restore": "restored an older version of", "Overwrite": "overwrote"}[d.operation]
	if did == "" {
		did = "replaced"
	}
	return fmt.Sprintf("another program %s the dataset in version %d while rows were not merged yet; OPTIMIZE %s puts them on top of it",
		did, d.version, quoteName(d.table))
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
// it has to be. REQUIRES: t.basing is held.
func (t *Table) takeOn(ctx context.Context, v, readers *manifest.Version, publish func() error) error {
	d, err := t.divisionIn(ctx, v, readers, readers.Number)
	if err != nil {
		return err
	}
	if d == nil {
		return publish()
	}
	done, err := t.compacted(ctx, v)
	if err != nil {
		return err
	}
	if !t.unmergedRows(done) {
		if err = publish(); err == nil {
			t.accept(v.Number)
		}
		return err
	}
	before := t.divided.Swap(d)
	if err := publish(); err != nil {
		t.divided.Store(before)
		return err
	}
	t.warn("rows are not merged", d)
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
	if !t.unmergedRows(nil) {
		if v := set.base.version; !v.Ours() {
			t.accepted.Store(v.Number)
		}
		return nil
	}
	d, err := t.divisionIn(ctx, set.base.version, nil, t.entry.Accepted)
	if err == nil && d != nil {
		t.divided.Store(d)
		t.warn("rows are not merged", d)
	}
	return err
}

// unite merges what is in front of the base of a divided table, which then is none.
func (c *compactor) unite(ctx context.Context) error {
	c.uniting = true
	defer func() { c.uniting = false }()
	if err := c.mergeAll(ctx); err != nil {
		return err
	}
	if t := c.table; !t.unmergedRows(nil) {
		t.divided.Store(nil)
		t.accept(t.set.Load().base.version.Number)
		c.wantAlign()
	}
	return nil
}

// refuseDivided refuses a merge that nobody asked to put rows on top of what another program put below them.
func (c *compactor) refuseDivided() error {
	if d := c.table.divided.Load(); d != nil && !c.uniting {
		return &ReadOnlyError{Table: c.table.name, Err: d}
	}
	return nil
}

// checkKey refuses a version that declares another primary key than the table has. One that declares none, as after an overwrite
// that forgot it, leaves the table's.
func (t *Table) checkKey(v *manifest.Version) error {
	var fields []lance.Field
	for _, f := range v.Schema.Fields {
		if f.Key > 0 {
			fields = append(fields, f)
		}
	}
	slices.SortStableFunc(fields, func(a, b lance.Field) int { return int(a.Key) - int(b.Key) })
	var ids []int32
	var names []string
	for _, f := range fields {
		ids, names = append(ids, f.ID), append(names, f.Name)
	}
	now := t.now()
	if len(ids) == 0 || now.codec != nil && slices.Equal(ids, now.keyIDs()) {
		return nil
	}
	was := "none"
	if now.codec != nil {
		was = "(" + strings.Join(now.codec.names, ", ") + ")"
	}
	return &alienError{root: t.root, version: v.Number, fault: fmt.Sprintf("declares the primary key (%s), the table has %s", strings.Join(names, ", "), was)}
}
