package lsm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
)

// Another program may change the columns of a dataset. Its change and ours, an ALTER TABLE that the dataset does not have yet,
// are told apart by what the dataset had before: a column that was there and is not any more was dropped by the other
// program, one that we have and that was never there is about to come. What follows is a schema of the table like those of
// ALTER TABLE, brought by the same DDL record; rows that are not merged yet have null in a column that the other program
// added.

// reconcile returns what makes the table's columns those of a version: the dataset had the columns was, and has is. Both
// results are nil when the columns are the same as before.
func (t *Table) reconcile(now *tableSchema, was, is *lance.Schema) (*ddlAlter, *tableSchema, error) {
	if sameSchema(was, is) || sameSchema(now.lance, is) {
		return nil, nil, nil
	}
	m := &schemaMerge{now: now, was: was, is: is}
	if err := m.run(); err != nil {
		return nil, nil, err
	}
	key, err := m.key()
	if err != nil {
		return nil, nil, err
	}
	s := arrow.NewSchema(m.fields, nil)
	if slices.Equal(m.ids, now.lance.FieldIDs()) && slices.EqualFunc(s.Fields(), now.arrow.Fields(), sameField) {
		return nil, nil, nil // what they did is in it, and what the dataset lacks is an ALTER TABLE
	}
	if _, _, err := keyedSchema(TableDef{Schema: s, Key: key}); err != nil {
		return nil, nil, err
	}
	return m.record(t, s, key)
}

// record returns the DDL record of the columns that were put together, with a key, and the schema that they are.
func (m *schemaMerge) record(t *Table, s *arrow.Schema, key []string) (*ddlAlter, *tableSchema, error) {
	now := m.now
	last := now.lastField
	for _, id := range m.ids {
		last = max(last, id)
	}
	e := schemaEntry{ID: now.id + 1, Fields: m.ids, LastField: last, Was: now.was}
	var err error
	if e.Arrow, err = marshalSchema(s); err != nil {
		return nil, nil, err
	}
	if e.Fill, err = marshalFill(now.fill); err != nil {
		return nil, nil, err
	}
	next, err := newTableSchema(&e, key)
	if err != nil {
		return nil, nil, err
	}
	next.strict, next.files = now.strict, now.files
	next.sql, next.sqlColumns = now.sql, now.columnsOfSQL(m.ids)
	return &ddlAlter{Incarnation: t.entry.Incarnation, Schema: e, SQL: next.sql, SQLColumns: next.sqlColumns, Key: key}, next, nil
}

// sameSchema reports whether two schemas have the same columns, in their order.
func sameSchema(a, b *lance.Schema) bool {
	return slices.EqualFunc(a.Fields, b.Fields, func(x, y lance.Field) bool {
		return x.ID == y.ID && x.Name == y.Name && x.Nullable == y.Nullable && sameLayout(x.Type, y.Type)
	}) && slices.Equal(a.FieldIDs(), b.FieldIDs())
}

// sameField reports whether a column has the same name and type, and may be null as before.
func sameField(a, b arrow.Field) bool {
	return a.Name == b.Name && a.Nullable == b.Nullable && sameLayout(a.Type, b.Type)
}

// columnsBefore returns the columns that the dataset had when nobody but flightd had changed those of readers: the columns of
// a version that follows theirs, if they are others, came from there by other programs' doing. Between the two may be a
// version of our own whose publication is under way.
func (t *Table) columnsBefore(ctx context.Context, v, readers *manifest.Version) (*lance.Schema, error) {
	if sameSchema(v.Schema, readers.Schema) {
		return readers.Schema, nil
	}
	for u, err := range t.back(ctx, v, readers.Number+1) {
		if err != nil {
			return nil, err
		}
		if u.Ours() {
			return u.Schema, nil
		}
	}
	return readers.Schema, nil
}

// takenUp returns the newest version of which it is known that its columns are, or were, those of the table but for what ALTER
// TABLE did; 0 when none is.
func (t *Table) takenUp() (number uint64) {
	for _, s := range *t.schemas.Load() {
		number = max(number, s.base)
	}
	return number
}

// schemaMerge puts the columns together.
type schemaMerge struct {
	now     *tableSchema
	was, is *lance.Schema
	fields  []arrow.Field
	ids     []int32
}

// run goes over the dataset's columns, and then over those that it does not have yet.
func (m *schemaMerge) run() error {
	theirs := m.is.Arrow()
	for i := range m.is.Fields {
		f := &m.is.Fields[i]
		mine, before := m.now.column(f.ID), fieldByID(m.was, f.ID)
		field := theirs.Field(i)
		switch {
		case mine < 0 && before != nil:
			continue // ALTER TABLE has dropped it
		case mine < 0:
			if err := m.check(f); err != nil {
				return err
			}
		case before == nil:
			return fmt.Errorf("has a new column %q with the field id of column %q, which ALTER TABLE has added meanwhile", f.Name, m.now.lance.Fields[mine].Name)
		default:
			var err error
			if field, err = m.kept(field, mine, before); err != nil {
				return err
			}
		}
		m.add(field, (&lance.Schema{Fields: m.is.Fields[i : i+1]}).FieldIDs())
	}
	for i := range m.now.lance.Fields {
		f := &m.now.lance.Fields[i]
		if fieldByID(m.is, f.ID) == nil && fieldByID(m.was, f.ID) == nil {
			m.add(m.now.arrow.Field(i), (&lance.Schema{Fields: m.now.lance.Fields[i : i+1]}).FieldIDs())
		}
	}
	return nil
}

// add appends a column.
func (m *schemaMerge) add(f arrow.Field, ids []int32) {
	m.fields, m.ids = append(m.fields, f), append(m.ids, ids...)
}

// check refuses a column of another program that the table cannot have.
func (m *schemaMerge) check(f *lance.Field) error {
	if err := (&lance.Schema{Fields: []lance.Field{*f}}).Check(m.now.files); err != nil {
		return fmt.Errorf("has a new column %q that flightd cannot have: %w", f.Name, err)
	}
	return nil
}

// kept returns a column that is there on both sides: its name and whether it may be null are the other program's if it
// changed them. A null that is not merged yet outlives that nulls were forbidden.
func (m *schemaMerge) kept(theirs arrow.Field, mine int, before *lance.Field) (arrow.Field, error) {
	f := m.now.arrow.Field(mine)
	if !sameLayout(theirs.Type, f.Type) {
		return f, fmt.Errorf("has column %q as %s, the table as %s", theirs.Name, theirs.Type, f.Type)
	}
	if theirs.Name != before.Name {
		f.Name = theirs.Name
	}
	f.Nullable = f.Nullable || theirs.Nullable && !before.Nullable
	return f, nil
}

// key returns the names of the key's columns from now on.
func (m *schemaMerge) key() ([]string, error) {
	if m.now.codec == nil {
		return nil, nil
	}
	var names []string
	for i, id := range m.now.keyIDs() {
		f := fieldByID(m.is, id)
		if f == nil {
			return nil, fmt.Errorf("has no column %q any more, which is part of the primary key (%s)", m.now.codec.names[i], strings.Join(m.now.codec.names, ", "))
		}
		at := 0 // of the field among ids with nested ones
		for j := range m.fields {
			if m.ids[at] == id {
				if m.fields[j].Nullable {
					return nil, fmt.Errorf("has column %q, which is part of the primary key, with nulls", f.Name)
				}
				names = append(names, m.fields[j].Name)
			}
			at += idsOf(m.fields[j].Type)
		}
	}
	return names, nil
}

// idsOf returns how many field ids a column of a type takes.
func idsOf(t arrow.DataType) int {
	s, err := lance.SchemaFromArrow(arrow.NewSchema([]arrow.Field{{Name: "x", Type: t, Nullable: true}}, nil), 0)
	if err != nil {
		return 1 // it is a column of a schema, so it has a type that is known
	}
	return len(s.FieldIDs())
}

// fieldByID returns the column of a schema with an id, nil without one.
func fieldByID(s *lance.Schema, id int32) *lance.Field {
	for i := range s.Fields {
		if s.Fields[i].ID == id {
			return &s.Fields[i]
		}
	}
	return nil
}

// columnChange is what brings the columns of a version to the table.
type columnChange struct {
	version *manifest.Version
	record  *ddlAlter
	next    *tableSchema
}

// columnChange returns what another program changed in the columns of a version, nil when that is nothing, or an *alienError.
// was is what the dataset had before.
func (t *Table) columnChange(v *manifest.Version, was *lance.Schema) (*columnChange, error) {
	record, next, err := t.reconcile(t.now(), was, v.Schema)
	if err != nil {
		return nil, t.alien(v, err.Error())
	}
	if record == nil {
		return nil, nil
	}
	record.Schema.Base, next.base = v.Number, v.Number
	return &columnChange{v, record, next}, nil
}

// missedChange is columnChange for a table that is being opened. What the dataset had before is told by the newest version that
// flightd wrote, or whose columns it took up. When that has gone, it is the newest one that has columns which the table has
// or had, and without one, all that differs is the other program's doing.
func (t *Table) missedChange(ctx context.Context, v *manifest.Version) (*columnChange, error) {
	known := t.takenUp()
	if sameSchema(v.Schema, t.now().lance) || v.Ours() || v.Number == known {
		return nil, nil // an ALTER TABLE may have left it behind
	}
	var like *manifest.Version
	if t.checkSchema(v) == nil {
		like = v
	}
	for old, err := range t.olderVersions(ctx, v) {
		if err != nil {
			return nil, fmt.Errorf("find out what another program changed: %w", err)
		}
		if old.Ours() || old.Number == known {
			return t.columnChange(v, old.Schema)
		}
		if like == nil && t.checkSchema(old) == nil {
			like = old
		}
		if old.Number < known && like != nil {
			break
		}
	}
	switch like {
	case v:
		return nil, nil
	case nil:
		return t.columnChange(v, t.now().lance)
	}
	return t.columnChange(v, like.Schema)
}

// patience is how long who takes columns up waits for statements that keep the table as it is: one of them may wait for it.
const patience = time.Second

// takeUpColumns takes up the newest version of the table when it has other columns.
func (t *Table) takeUpColumns(ctx context.Context) error {
	wait, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("table %q: %w by another program, and a statement is at work on it", t.name, ErrTableChanged))
	defer cancel()
	release, err := t.seize(wait)
	if err != nil {
		return err
	}
	defer release()
	return t.holdStill(ctx, func(readers *manifest.Version) error {
		v, err := manifest.Latest(ctx, t.db.st, t.root, manifest.Options{Warn: t.warn})
		if err != nil || v.Number <= readers.Number {
			return err
		}
		was, err := t.columnsBefore(ctx, v, readers)
		if err != nil {
			return err
		}
		err = t.takeUpVersion(ctx, v, was, readers)
		t.noteStuck(err)
		return err
	})
}

// holdStill runs something with the version that readers have, which stays: no table is made, altered or dropped meanwhile, and nobody takes
// another version of this one up. REQUIRES: the table is seized.
func (t *Table) holdStill(ctx context.Context, do func(readers *manifest.Version) error) error {
	if err := t.db.lockDDL(); err != nil {
		return err
	}
	defer t.db.ddl.Unlock()
	if t.dropped {
		return t.ended()
	}
	if err := t.basing.lock(ctx); err != nil {
		return err
	}
	defer t.basing.unlock()
	set := t.set.Load() // only for its version
	if set == nil {
		return t.ended()
	}
	return do(set.base.version)
}

// takeUpVersion takes a version up that may have other columns, or declare another key. REQUIRES: as of applyColumns.
func (t *Table) takeUpVersion(ctx context.Context, v *manifest.Version, was *lance.Schema, readers *manifest.Version) error {
	var rekeyed *divided
	if t.rekeyed(v) {
		var err error
		if rekeyed, err = t.takeUpKey(ctx, v, was); rekeyed == nil || err != nil {
			return err
		}
	}
	change, err := t.columnChange(v, was)
	if err != nil {
		return err
	}
	return t.takeOn(ctx, v, readers, rekeyed, func() error {
		if change == nil {
			return t.rebase(ctx, v)
		}
		return t.applyColumns(ctx, change)
	})
}

// applyColumns gives the table the columns of a version, and readers the version at the same moment. REQUIRES: the table is
// seized, and db.ddl and t.basing are held, or nobody else runs.
func (t *Table) applyColumns(ctx context.Context, c *columnChange) error {
	if err := t.refuseMixed(ctx, c); err != nil {
		return err
	}
	open := t.newRebase
	if c.next.anew {
		open = t.newRebaseAnew
	}
	r, err := open(ctx, c.version, c.next)
	if err != nil {
		return err
	}
	defer r.base.unref()
	r.next = c.next
	if err := t.db.logDDL(ctx, ddl{Alter: c.record}); err != nil {
		return fmt.Errorf("take up the columns of version %d of table %q: %w", c.version.Number, t.name, err)
	}
	t.db.logger.Info("the columns of a table are those of a version of its dataset", "table", t.name.String(), "version", c.version.Number, "columns", columnList(c.next.arrow))
	err = r.run(context.WithoutCancel(ctx))
	if err != nil && t.now() != c.next && !c.next.anew { // the log has it: readers get it with the base that they have
		t.showSchema(c.next)
	}
	return err
}

// refuseMixed refuses another type of a column, and another column under the id of one that was dropped, as long as there are
// rows with the old one that are not merged. REQUIRES: nobody writes the table.
func (t *Table) refuseMixed(ctx context.Context, c *columnChange) error {
	what, column := "has another type for column %q", c.cast(t.now())
	if column == "" {
		what, column = "has a new column %q with the field id of one that was dropped", c.reused(t.now(), *t.schemas.Load())
	}
	if column == "" {
		return nil
	}
	if err := t.db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return err
	}
	set := t.holdSet()
	if set == nil {
		return t.ended()
	}
	defer set.unref()
	for _, chain := range set.chains {
		if rows := chain.active().rows.Load(); len(chain.layers) > 1 || len(rows.batches) > 0 {
			return t.alien(c.version, fmt.Sprintf(what+", of which there are rows that were not merged yet", column))
		}
	}
	return nil
}

// cast returns the name of a column that another program gave another type: Lance drops it and adds one of the same name. It
// is empty when there is none.
func (c *columnChange) cast(now *tableSchema) string {
	for _, f := range now.lance.Fields {
		if i := columnIndex(c.next.arrow, f.Name); i >= 0 && c.next.column(f.ID) < 0 {
			return f.Name
		}
	}
	return ""
}

// reused returns the name of a new column whose field id an older one had: Lance gives the id of a column that has gone, and of which
// no file has anything, to the next one. It is empty when there is none.
func (c *columnChange) reused(now *tableSchema, old []*tableSchema) string {
	for _, f := range c.next.lance.Fields {
		if now.column(f.ID) >= 0 {
			continue
		}
		for _, s := range old {
			if i := s.column(f.ID); i >= 0 && (s.lance.Fields[i].Name != f.Name || !sameLayout(s.lance.Fields[i].Type, f.Type)) {
				return f.Name
			}
		}
	}
	return ""
}
