package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
)

// Alteration is what ALTER TABLE makes of a table's columns and of its DDL.
type Alteration struct {
	// Incarnation and SchemaID tell what the alteration was made of. When the table is another by now, or has another
	// schema, AlterTable returns ErrTableChanged.
	Incarnation uint64
	SchemaID    uint32
	// Columns are the columns from now on, in order. Those that are left out are dropped.
	Columns []AlteredColumn
	// SQL is the CREATE TABLE statement that makes the same table in DuckDB, as in TableDef.
	SQL string
}

// AlteredColumn is one column of an Alteration.
type AlteredColumn struct {
	// Was is the name that the column has until now, empty for a new one.
	Was string
	// Field is the column from now on. Of a column that stays only the name and the nullability count, and the type when
	// Widen is set: then the new type has all values of the old one.
	Field arrow.Field
	Widen bool
	// Fill is one value that rows which are there already have in a new column; nil means null.
	Fill arrow.Array
}

// ddlAlter is the part of a DDL record that alters a table.
type ddlAlter struct {
	// Incarnation names the table.
	Incarnation uint64 `json:"incarnation"`
	// Schema is its next schema; SQL and Key take the place of those that it has.
	Schema schemaEntry `json:"schema"`
	SQL    string      `json:"sql"`
	Key    []string    `json:"key,omitempty"`
	// SQLColumns goes with SQL.
	SQLColumns map[int32]string `json:"sql_columns,omitempty"`
	// Anew is set when no row has one of the schemas before: the key may be another, and they are forgotten.
	Anew bool `json:"anew,omitempty"`
}

// apply changes a catalog entry.
func (a *ddlAlter) apply(e *tableEntry) {
	e.SQL, e.SQLColumns, e.Key = a.SQL, a.SQLColumns, a.Key
	if a.Anew {
		e.Schemas = nil
	}
	e.Schemas = append(slices.Clone(e.Schemas), a.Schema)
	e.Indexes = indexesWith(e.Indexes, a.Schema.Fields)
}

// AlterTable gives a table other columns. It is durable and visible when AlterTable returns. It does not touch any
// row, however many there are; the files of the base follow in the background. Only a column that is no longer to
// have nulls is read, as the rows have to be looked at.
func (db *DB) AlterTable(ctx context.Context, n TableName, a Alteration) error {
	defer db.poke()
	t, unlock, err := db.seizeForDDL(ctx, n)
	if err != nil {
		return err
	}
	defer unlock()
	if err := t.refuseWrite(); err != nil {
		return err
	}
	now := t.now()
	if t.entry.Incarnation != a.Incarnation || now.id != a.SchemaID {
		return fmt.Errorf("table %q: %w", n, ErrTableChanged)
	}
	d, next, err := t.alter(now, a)
	if err != nil {
		return fmt.Errorf("alter table %q: %w", n, err)
	}
	if err := t.refuseNulls(ctx, now, next); err != nil {
		return fmt.Errorf("alter table %q: %w", n, err)
	}
	if err := db.logDDL(ctx, ddl{Alter: d}); err != nil {
		return fmt.Errorf("alter table %q: %w", n, err)
	}
	t.showSchema(next)
	t.compactor.wantAlign()
	return nil
}

// showSchema gives the table its next schema. REQUIRES: db.ddl is held.
func (t *Table) showSchema(next *tableSchema) {
	t.db.moment.Lock()
	defer t.db.moment.Unlock()
	t.setSchemaLocked(next)
}

// setSchemaLocked is showSchema for who holds db.moment, too.
func (t *Table) setSchemaLocked(next *tableSchema) {
	list := append(slices.Clone(*t.schemas.Load()), next)
	if next.anew {
		list = list[len(list)-1:]
	}
	t.schemas.Store(&list)
	indexes := indexesWith(t.indexList(), next.fieldIDs())
	t.indexes.Store(&indexes)
	t.db.version.Add(1)
}

// alter works out the next schema and the record that brings it.
func (t *Table) alter(now *tableSchema, a Alteration) (*ddlAlter, *tableSchema, error) {
	last := max(now.lastField, t.set.Load().base.version.NextFieldID()-1)
	// One id is left out: the next may be that of _tombstone in generations.
	b := schemaBuilder{now: now, next: last + 2, fill: make(map[int32]arrow.Array), was: maps.Clone(now.was)}
	for _, c := range a.Columns {
		if err := b.add(c); err != nil {
			return nil, nil, err
		}
	}
	if err := t.refuseIndexed(b.widened); err != nil {
		return nil, nil, err
	}
	key, err := b.key()
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := keyedSchema(TableDef{Schema: arrow.NewSchema(b.fields, nil), Key: key}); err != nil {
		return nil, nil, err
	}
	e := schemaEntry{ID: now.id + 1, Fields: b.ids, LastField: max(last, b.next-1)}
	if e.Arrow, err = marshalSchema(arrow.NewSchema(b.fields, nil)); err != nil {
		return nil, nil, err
	}
	if e.Fill, err = marshalFill(b.fill); err != nil {
		return nil, nil, err
	}
	e.Was = b.was
	next, err := newTableSchema(&e, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	next.sql, next.strict, next.files = a.SQL, now.strict, now.files
	return &ddlAlter{Incarnation: t.entry.Incarnation, Schema: e, SQL: a.SQL, Key: key}, next, nil
}

// schemaBuilder puts the columns of the next schema together.
type schemaBuilder struct {
	now    *tableSchema
	next   int32 // the next free field id
	fields []arrow.Field
	ids    []int32 // of fields and what is nested in them
	fill   map[int32]arrow.Array
	kept   []int32 // ids of the columns that stay
	was    map[int32]int32
	// widened are ids of the columns that are widened, those that they had.
	widened []int32
}

// add appends a column.
func (b *schemaBuilder) add(c AlteredColumn) error {
	if c.Was == "" {
		s, err := lance.SchemaFromArrow(arrow.NewSchema([]arrow.Field{c.Field}, nil), b.next)
		if err == nil {
			err = s.Check(b.now.files)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if c.Fill != nil && c.Fill.IsValid(0) {
			if c.Fill.Len() != 1 || !sameLayout(c.Fill.DataType(), c.Field.Type) {
				return fmt.Errorf("%w: the value for column %q has type %s, want one %s", ErrInvalid, c.Field.Name, c.Fill.DataType(), c.Field.Type)
			}
			one := relabel(c.Fill, c.Field.Type)
			b.fill[b.next] = one
		}
		b.fields = append(b.fields, c.Field)
		b.ids = append(b.ids, s.FieldIDs()...)
		b.next = s.LastID() + 1
		return nil
	}
	i := columnIndex(b.now.arrow, c.Was)
	if i < 0 {
		return fmt.Errorf("%w: it has no column %q", ErrInvalid, c.Was)
	}
	old := b.now.lance.Fields[i]
	if slices.Contains(b.kept, old.ID) {
		return fmt.Errorf("%w: column %q is there twice", ErrInvalid, c.Was)
	}
	f := b.now.arrow.Field(i)
	f.Name, f.Nullable = c.Field.Name, c.Field.Nullable && old.Key == 0
	if c.Widen {
		f.Type = c.Field.Type
		return b.widen(old, f)
	}
	b.fields = append(b.fields, f)
	b.ids = append(b.ids, (&lance.Schema{Fields: b.now.lance.Fields[i : i+1]}).FieldIDs()...)
	b.kept = append(b.kept, old.ID)
	if one := b.now.fill[old.ID]; one != nil {
		b.fill[old.ID] = one
	}
	return nil
}

// widen appends a column that takes the place of a narrower one.
func (b *schemaBuilder) widen(old lance.Field, f arrow.Field) error {
	if old.Key > 0 {
		return fmt.Errorf("%w: column %q is part of the primary key, whose type cannot change; make a table with the other type by CREATE TABLE AS", ErrKeyColumn, old.Name)
	}
	if !widens(old.Type, f.Type) {
		return fmt.Errorf("%w: column %q is %s, and %s does not have all its values; add a column of that type, UPDATE it, drop the old one and rename the new", ErrInvalid, old.Name, old.Type, f.Type)
	}
	id := b.next
	b.next++
	if b.was == nil {
		b.was = make(map[int32]int32)
	}
	b.was[id] = old.ID
	b.widened = append(b.widened, old.ID)
	b.fields, b.ids = append(b.fields, f), append(b.ids, id)
	if one := b.now.fill[old.ID]; one != nil {
		wide, err := (&tableSchema{lance: &lance.Schema{Fields: []lance.Field{{Name: f.Name, Type: f.Type}}}}).widened(one, 0)
		if err != nil {
			return err
		}
		b.fill[id] = wide
	}
	return nil
}

// refuseIndexed refuses to change columns that an index of the table is over.
func (t *Table) refuseIndexed(ids []int32) error {
	for _, x := range t.indexList() {
		if slices.ContainsFunc(x.Fields, func(id int32) bool { return slices.Contains(ids, id) }) {
			return fmt.Errorf("%w: %q; DROP INDEX it before the column's type changes, and CREATE INDEX afterwards", ErrColumnIndexed, x.Name)
		}
	}
	return nil
}

// key returns the names of the key's columns, all of which must stay.
func (b *schemaBuilder) key() ([]string, error) {
	if b.now.codec == nil {
		return nil, nil
	}
	var names []string
	for i, id := range b.now.keyIDs() {
		if !slices.Contains(b.kept, id) {
			return nil, fmt.Errorf("%w: column %q is part of the primary key (%s); make a table without it by CREATE TABLE AS", ErrKeyColumn, b.now.codec.names[i], strings.Join(b.now.codec.names, ", "))
		}
		at := 0 // the place of the field among ids with nested ones
		for _, f := range b.fields {
			if b.ids[at] == id {
				names = append(names, f.Name)
			}
			n, err := lance.SchemaFromArrow(arrow.NewSchema([]arrow.Field{f}, nil), 0)
			if err != nil {
				return nil, err
			}
			at += len(n.FieldIDs())
		}
	}
	return names, nil
}

// refuseNulls looks for rows that have a null where the next schema allows none. REQUIRES: t.writes is held for
// writing.
func (t *Table) refuseNulls(ctx context.Context, now, next *tableSchema) error {
	var added string  // a column in which all rows would be null
	var columns []int // of now
	for i, f := range next.arrow.Fields() {
		if f.Nullable {
			continue
		}
		id := next.lance.Fields[i].ID
		switch c := now.column(id); {
		case c < 0 && next.fill[id] == nil:
			added = f.Name
		case c >= 0 && now.arrow.Field(c).Nullable:
			columns = append(columns, c)
			next.strict = next.id
		}
	}
	if added == "" && len(columns) == 0 {
		return nil
	}
	if added != "" {
		next.strict = next.id
	}
	if err := t.db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return err
	}
	snap, err := t.db.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snap.Release()
	v, err := snap.Table(t.name)
	if err != nil {
		return err
	}
	return v.refuseNulls(ctx, columns, added)
}

// refuseNulls returns an ErrNotNull when rows have a null in one of some columns, or there are rows and a column is added that would be null in them.
func (v *View) refuseNulls(ctx context.Context, columns []int, added string) error {
	sc, err := v.Scan(ctx, ScanOptions{Columns: columns})
	if err != nil {
		return err
	}
	defer sc.Close()
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = refuseNullsIn(m, added)
		m.Release()
		if err != nil {
			return err
		}
	}
}

// refuseNullsIn looks at one morsel.
func refuseNullsIn(m *Morsel, added string) error {
	if added != "" && m.Rows() > 0 {
		return fmt.Errorf("%w: column %q may not be null, has no default, and there are rows; add it with a DEFAULT", ErrNotNull, added)
	}
	for i, col := range m.Record.Columns() {
		if hasNull(col, 0, col.Len(), func(row int) bool { return !m.lives(row) }) {
			return fmt.Errorf("%w: column %q has nulls; update them before SET NOT NULL", ErrNotNull, m.Record.ColumnName(i))
		}
	}
	return nil
}

// lives reports whether the view has a row of the morsel.
func (m *Morsel) lives(row int) bool {
	if m.Live == nil {
		return true
	}
	_, ok := slices.BinarySearch(m.Live, uint32(row))
	return ok
}
