package query

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// An altering is what the lexer sees of ALTER TABLE.
type altering struct {
	table    tableRef
	ifExists bool // of the table
	action   alterAction
	column   string
	lenient  bool   // IF [NOT] EXISTS of the column
	to       string // the new name
	text     span   // the definition of a column, its default, or its type
	key      []string
}

// alterAction is what ALTER TABLE does.
type alterAction uint8

const (
	alterAdd alterAction = iota
	alterDrop
	alterRename
	alterSetDefault
	alterDropDefault
	alterSetNotNull
	alterDropNotNull
	alterType
	alterKey
)

// altering reads ALTER TABLE [IF EXISTS] name action. The definition of a column is DuckDB's.
func (p *parsed) altering() (a altering, err error) {
	i := 2
	if p.word(1) != "TABLE" {
		return a, p.unimplemented("ALTER " + p.word(1))
	}
	if p.word(i) == "IF" && p.word(i+1) == "EXISTS" {
		i, a.ifExists = i+2, true
	}
	if a.table, i, err = p.tableName(i); err != nil {
		return a, err
	}
	verb := p.word(i)
	i++
	if key := p.keyAt(i); verb == "ADD" && key > 0 {
		a.action = alterKey
		return a, p.alterKey(&a, key)
	}
	if p.word(i) == "COLUMN" {
		i++
	} else if slices.Contains([]string{"PRIMARY", "CONSTRAINT", "UNIQUE", "CHECK", "FOREIGN", "TO"}, p.word(i)) {
		return a, p.unimplementedAt(i-1, "ALTER TABLE "+verb+" "+p.word(i)+" (make a new table by CREATE TABLE AS)")
	}
	switch verb {
	case "ADD":
		a.action = alterAdd
		return a, p.alterAdd(&a, i)
	case "DROP":
		a.action = alterDrop
		if p.word(i) == "IF" && p.word(i+1) == "EXISTS" {
			i, a.lenient = i+2, true
		}
		if i, err = p.alterColumn(&a, i); err != nil {
			return a, err
		}
		if p.word(i) == "RESTRICT" || p.word(i) == "CASCADE" { // nothing depends on a column yet
			i++
		}
		return a, p.end(i)
	case "RENAME":
		a.action = alterRename
		if i, err = p.alterColumn(&a, i); err != nil {
			return a, err
		}
		if p.word(i) != "TO" || i+1 >= len(p.tokens) || !p.tokens[i+1].ident() {
			return a, p.syntaxError(i, "TO and the new name are expected")
		}
		a.to = p.tokens[i+1].name
		return a, p.end(i + 2)
	case "ALTER":
		return a, p.alterColumnDefinition(&a, i)
	}
	return a, p.unimplementedAt(i-1, "ALTER TABLE "+verb)
}

// keyAt returns the place of what is behind [CONSTRAINT name] PRIMARY KEY, 0 when that is not at token i.
func (p *parsed) keyAt(i int) int {
	if p.word(i) == "CONSTRAINT" && i+1 < len(p.tokens) && p.tokens[i+1].ident() {
		i += 2
	}
	if p.word(i) == "PRIMARY" && p.word(i+1) == "KEY" {
		return i + 2
	}
	return 0
}

// alterKey reads (column, …) behind ADD PRIMARY KEY.
func (p *parsed) alterKey(a *altering, i int) error {
	if p.word(i) != "(" {
		return p.syntaxError(i, "the columns of the key are expected in parentheses")
	}
	for i++; i < len(p.tokens) && p.tokens[i].ident(); i += 2 {
		a.key = append(a.key, p.tokens[i].name)
		switch p.word(i + 1) {
		case ")":
			return p.end(i + 2)
		case ",":
			continue
		}
		return p.syntaxError(i+1, "syntax error")
	}
	return p.syntaxError(i, "a column name is expected")
}

// alterColumn reads a column's name.
func (p *parsed) alterColumn(a *altering, i int) (next int, err error) {
	if i >= len(p.tokens) || !p.tokens[i].ident() {
		return i, p.syntaxError(i, "a column name is expected")
	}
	a.column = p.tokens[i].name
	if p.word(i+1) == "." {
		return i, p.unimplementedAt(i, "ALTER TABLE of a field within a column")
	}
	return i + 1, nil
}

// alterAdd reads [IF NOT EXISTS] name type ... behind ADD [COLUMN].
func (p *parsed) alterAdd(a *altering, i int) (err error) {
	if p.word(i) == "IF" && p.word(i+1) == "NOT" && p.word(i+2) == "EXISTS" {
		i, a.lenient = i+3, true
	}
	a.text = span{i, len(p.tokens)}
	if _, err = p.alterColumn(a, i); err != nil {
		return err
	}
	return p.oneDefinition(i)
}

// oneDefinition refuses text from token i on that would be more than one piece of a list in parentheses.
func (p *parsed) oneDefinition(i int) error {
	depth := 0
	for ; i < len(p.tokens); i++ {
		switch t := p.tokens[i]; {
		case t.is("(") || t.is("[") || t.is("{"):
			depth++
		case t.is(")") || t.is("]") || t.is("}"):
			depth--
		case t.is(",") && depth == 0:
			return p.syntaxError(i, "one change at a time: ALTER TABLE takes one action")
		}
		if depth < 0 {
			return p.syntaxError(i, "syntax error")
		}
	}
	return nil
}

// alterColumnDefinition reads name [SET DATA] TYPE, SET DEFAULT, DROP DEFAULT, SET NOT NULL or DROP NOT NULL behind ALTER [COLUMN].
func (p *parsed) alterColumnDefinition(a *altering, i int) (err error) {
	if i, err = p.alterColumn(a, i); err != nil {
		return err
	}
	verb, what := p.word(i), p.word(i+1)
	switch {
	case verb == "SET" && what == "DEFAULT":
		a.action, a.text = alterSetDefault, span{i + 2, len(p.tokens)}
		if a.text.empty() {
			return p.syntaxError(i+2, "an expression is expected")
		}
		return p.oneDefinition(i + 2)
	case verb == "DROP" && what == "DEFAULT":
		a.action = alterDropDefault
		return p.end(i + 2)
	case (verb == "SET" || verb == "DROP") && what == "NOT" && p.word(i+2) == "NULL":
		a.action = alterSetNotNull
		if verb == "DROP" {
			a.action = alterDropNotNull
		}
		return p.end(i + 3)
	case verb == "TYPE":
		return p.alterType(a, i+1)
	case verb == "SET" && what == "TYPE":
		return p.alterType(a, i+2)
	case verb == "SET" && what == "DATA" && p.word(i+2) == "TYPE":
		return p.alterType(a, i+3)
	}
	return p.syntaxError(i, "SET DATA TYPE, SET DEFAULT, DROP DEFAULT, SET NOT NULL or DROP NOT NULL is expected")
}

// alterType reads the type behind [SET DATA] TYPE.
func (p *parsed) alterType(a *altering, i int) error {
	a.action, a.text = alterType, span{i, len(p.tokens)}
	if a.text.empty() {
		return p.syntaxError(i, "a type is expected")
	}
	for j := i; j < len(p.tokens); j++ {
		if w := p.word(j); w == "USING" || w == "COLLATE" {
			return p.unimplementedAt(j, w+" in a change of a column's type (add a column of the other type, UPDATE it, drop the old one and rename the new)")
		}
	}
	return p.oneDefinition(i)
}

// An alteredColumn is one column of a table that is being altered.
type alteredColumn struct {
	was     string // its name until now, "" for a new one
	name    string
	text    string // of a new one: its definition
	typ     string
	initial string // its default, "" without one
	notNull bool
	retyped bool         // it is to have another type
	came    *arrow.Field // of a new one that came as an Arrow schema
	fill    arrow.Array  // of a new one: the value of the rows that are there, nil for null
}

// definition writes the column for CREATE TABLE.
func (c alteredColumn) definition() string {
	if c.text != "" {
		return c.text
	}
	s := quoteIdent(c.name) + " " + c.typ
	if c.initial != "" {
		s += " DEFAULT (" + c.initial + ")"
	}
	if c.notNull {
		s += " NOT NULL"
	}
	return s
}

// alter runs ALTER TABLE: the statement is made into the CREATE TABLE of the table as it will be, which the shadow
// tries, so that types, defaults and constraints are DuckDB's.
func (st *Statement) alter(ctx context.Context, l *lease) error {
	a, err := st.parsed.altering()
	if err != nil {
		return err
	}
	t, err := l.target(a.table)
	if e, ok := err.(*Error); ok && e.Code == NotFound && a.ifExists {
		return nil
	}
	if err != nil {
		return err
	}
	if a.action == alterKey {
		for _, name := range a.key {
			if t.field(name) < 0 {
				return errorf(InvalidArgument, "Binder Error: Table %q does not have a column with name %q", t.name, name)
			}
		}
		return st.e.store.declareKey(ctx, a.table, a.key)
	}
	columns, err := l.shadow.in.columnsOf(t)
	if err != nil {
		return err
	}
	columns, err = st.parsed.change(a, t, columns)
	if err != nil || columns == nil {
		return err
	}
	return st.e.alter(ctx, l.shadow.in, t, columns)
}

// columnsOf returns the columns of a table of the shadow.
func (in *instance) columnsOf(t tableInfo) ([]alteredColumn, error) {
	conn, err := in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	return in.columnsOn(conn, t)
}

// columnsOn is columnsOf on a connection, which may have a transaction.
func (in *instance) columnsOn(conn bind.Connection, t tableInfo) ([]alteredColumn, error) {
	rows, err := in.stringsOn(conn, "SELECT column_name, data_type, coalesce(column_default, ''), CASE WHEN is_nullable THEN '' ELSE 'no' END FROM duckdb_columns() WHERE "+
		tableCondition(t.schema, t.name)+" ORDER BY column_index")
	if err != nil {
		return nil, err
	}
	out := make([]alteredColumn, len(rows))
	for i, r := range rows {
		out[i] = alteredColumn{was: r[0], name: r[0], typ: r[1], initial: r[2], notNull: r[3] != ""}
		if strings.EqualFold(out[i].initial, "NULL") {
			out[i].initial = ""
		}
	}
	return out, nil
}

// change applies the statement to the columns. It returns nil when there is nothing to do.
func (p *parsed) change(a altering, t tableInfo, columns []alteredColumn) ([]alteredColumn, error) {
	named := func(name string) int {
		return slices.IndexFunc(columns, func(c alteredColumn) bool { return strings.EqualFold(c.name, name) })
	}
	i := named(a.column)
	if a.action == alterAdd {
		if i < 0 {
			return append(columns, alteredColumn{name: a.column, text: p.text(a.text)}), nil
		}
		if a.lenient {
			return nil, nil
		}
		return nil, errorf(AlreadyExists, "Catalog Error: Column with name %s already exists!", a.column)
	}
	if i < 0 {
		if a.lenient {
			return nil, nil
		}
		return nil, errorf(InvalidArgument, "Binder Error: Table %q does not have a column with name %q", t.name, a.column)
	}
	c := &columns[i]
	switch a.action {
	case alterDrop:
		if len(columns) == 1 {
			return nil, errorf(InvalidArgument, "Catalog Error: Cannot drop column: table only has one column remaining!")
		}
		return slices.Delete(columns, i, i+1), nil
	case alterRename:
		if other := named(a.to); other >= 0 && other != i {
			return nil, errorf(AlreadyExists, "Catalog Error: Column with name %s already exists!", a.to)
		}
		c.name = a.to
	case alterSetDefault:
		c.initial = p.text(a.text)
	case alterDropDefault:
		c.initial = ""
	case alterSetNotNull:
		c.notNull = true
	case alterDropNotNull:
		if t.isKey(c.was) {
			return nil, errorf(FailedPrecondition, "column %q is part of the primary key, which is never null", c.was)
		}
		c.notNull = false
	case alterType:
		c.typ, c.retyped = p.text(a.text), true
	}
	return columns, nil
}

// alter gives a table other columns.
func (e *Engine) alter(ctx context.Context, in *instance, t tableInfo, columns []alteredColumn) error {
	definitions := make([]string, len(columns))
	for i, c := range columns {
		definitions[i] = c.definition()
	}
	var key []string
	for _, k := range t.key {
		i := slices.IndexFunc(columns, func(c alteredColumn) bool { return strings.EqualFold(c.was, k) })
		if i < 0 {
			return errorf(FailedPrecondition, "column %q is part of the primary key of table %q (%s) and cannot be dropped; make a table without it by CREATE TABLE AS", k, t.name, strings.Join(t.key, ", "))
		}
		key = append(key, quoteIdent(columns[i].name))
	}
	sql := "CREATE OR REPLACE TABLE " + t.qualified() + "(" + strings.Join(definitions, ", ")
	if len(key) > 0 {
		sql += ", PRIMARY KEY(" + strings.Join(key, ", ") + ")"
	}
	next, err := e.tryAlter(in, t, columns, sql+"\n)")
	if err != nil {
		return err
	}
	return e.store.alter(ctx, t, columns, next)
}

// tryAlter makes the altered table in the shadow, reads its definition and the values that new columns have in the
// rows that are there, and rolls back.
func (e *Engine) tryAlter(in *instance, t tableInfo, columns []alteredColumn, sql string) (next tableInfo, err error) {
	e.shadowMu.Lock()
	defer e.shadowMu.Unlock()
	conn, err := in.connect()
	if err != nil {
		return next, err
	}
	defer bind.Disconnect(&conn)
	if err := in.execOn(conn, "BEGIN TRANSACTION"); err != nil {
		return next, err
	}
	defer func() { _ = in.execOn(conn, "ROLLBACK") }()
	if err := in.onlyCreates(conn, sql); err != nil {
		return next, unplaced(err)
	}
	if err := in.execOn(conn, sql); err != nil {
		return next, unplaced(err)
	}
	if next, err = in.readTable(conn, tableRef{t.schema, t.name}, func(i int) bool { return i < len(columns) && columns[i].was != "" }); err != nil {
		return next, err
	}
	now, err := in.columnsOn(conn, t)
	if err != nil {
		return next, err
	}
	if len(now) != len(columns) || next.arrow.NumFields() != len(columns) || len(next.key) != len(t.key) {
		return next, errorf(InvalidArgument, "Parser Error: one column at a time can be altered")
	}
	for i := range columns {
		if columns[i].was == "" {
			if columns[i].fill, err = in.constant(conn, now[i], next.arrow.Field(i)); err != nil {
				return next, err
			}
		}
	}
	return next, nil
}

// unplaced takes the place off an error about a text that the client did not write.
func unplaced(err error) error {
	var e *Error
	if errors.As(err, &e) {
		e.Message, _, _ = strings.Cut(e.Message, "\n\nLINE ")
		e.Message, _, _ = strings.Cut(e.Message, "\nLINE ")
		e.Position = 0
	}
	return err
}

// constant evaluates the default of a new column once, for all rows that are there; nil is null.
func (in *instance) constant(conn bind.Connection, c alteredColumn, f arrow.Field) (arrow.Array, error) {
	if c.initial == "" {
		return nil, nil
	}
	volatile, err := in.volatile(conn, c.initial)
	if err != nil {
		return nil, err
	}
	if volatile {
		return nil, errorf(Unimplemented, "ADD COLUMN with a default that differs from row to row is not implemented: add column %q without it, UPDATE the rows, and then ALTER COLUMN SET DEFAULT", c.name)
	}
	return in.evaluate(conn, c.initial, f, 1)
}

// volatile says whether an expression calls a function whose result differs from row to row.
func (in *instance) volatile(conn bind.Connection, expr string) (bool, error) {
	tokens, err := lex(expr)
	if err != nil {
		return false, err
	}
	var names []string
	for i, t := range tokens {
		if t.ident() && i+1 < len(tokens) && tokens[i+1].is("(") {
			names = append(names, quoteString(strings.ToLower(t.name)))
		}
	}
	if len(names) == 0 {
		return false, nil
	}
	rows, err := in.stringsOn(conn, "SELECT function_name FROM duckdb_functions() WHERE stability = 'VOLATILE' AND function_name IN ("+strings.Join(names, ", ")+") LIMIT 1")
	return len(rows) > 0, err
}

// retypes reports whether a column would have another type in SQL: Arrow has several for some.
func (t tableInfo) retypes(column string, to arrow.Field) bool {
	i := t.field(column)
	if i < 0 {
		return true
	}
	from, err := sqlTypeOf(t.arrow.Field(i))
	into, err2 := sqlTypeOf(to)
	return err != nil || err2 != nil || from.String() != into.String()
}

// alter implements store.
func (s lsmStore) alter(ctx context.Context, t tableInfo, columns []alteredColumn, next tableInfo) error {
	a := lsm.Alteration{Incarnation: t.incarnation, SchemaID: t.version, SQL: next.sql}
	for i, c := range columns {
		f := next.arrow.Field(i)
		if c.came != nil {
			f = *c.came
		}
		a.Columns = append(a.Columns, lsm.AlteredColumn{Was: c.was, Field: f, Fill: c.fill, Widen: c.retyped && t.retypes(c.was, f)})
	}
	return s.db.AlterTable(ctx, lsm.TableName{Schema: t.schema, Name: t.name}, a)
}
