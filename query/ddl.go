package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// A tableRef is a table's name in a statement.
type tableRef struct{ schema, name string }

// lsm returns the name as the engine has it.
func (r tableRef) lsm() lsm.TableName { return lsm.TableName{Schema: r.schema, Name: r.name} }

// tableName reads [catalog.][schema.]name at token i and returns it with the place behind it.
func (p *parsed) tableName(i int) (tableRef, int, error) {
	var parts []string
	start := i
	for i < len(p.tokens) && p.tokens[i].ident() {
		parts = append(parts, p.tokens[i].name)
		i++
		if p.word(i) != "." {
			break
		}
		i++
	}
	if len(parts) > 1 && strings.EqualFold(parts[0], catalogName) {
		parts = parts[1:]
	}
	switch len(parts) {
	case 1:
		return tableRef{lsm.MainSchema, parts[0]}, i, nil
	case 2:
		return tableRef{parts[0], parts[1]}, i, nil
	}
	return tableRef{}, i, p.syntaxError(start, "a table name is expected")
}

// syntaxError points at token i.
func (p *parsed) syntaxError(i int, message string) error {
	if i >= len(p.tokens) {
		return &Error{Code: InvalidArgument, Message: "Parser Error: " + message + " at the end of the statement", Position: len(p.sql) + 1}
	}
	t := p.tokens[i]
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf("Parser Error: %s at or near %q", message, p.sql[t.start:t.end]), Position: t.start + 1}
}

// end fails when there is a token at i.
func (p *parsed) end(i int) error {
	if i < len(p.tokens) {
		return p.syntaxError(i, "syntax error")
	}
	return nil
}

// optimizeTarget reads OPTIMIZE [TABLE] name and CALL flightd_flush('name').
func (p *parsed) optimizeTarget() (tableRef, error) {
	if p.word(0) == "CALL" {
		if len(p.tokens) != 5 || !p.tokens[2].is("(") || p.tokens[3].kind != literal || !p.tokens[4].is(")") {
			return tableRef{}, p.syntaxError(2, "CALL flightd_flush('table') takes the table's name as a string,")
		}
		return nameInString(p.tokens[3].text)
	}
	return p.onlyTable()
}

// onlyTable reads [TABLE] name behind the first word, and nothing after it.
func (p *parsed) onlyTable() (tableRef, error) {
	i := 1
	if p.word(1) == "TABLE" && len(p.tokens) > 2 {
		i = 2
	}
	ref, next, err := p.tableName(i)
	if err != nil {
		return ref, err
	}
	if err := ref.writable(); err != nil {
		return ref, err
	}
	return ref, p.end(next)
}

// nameInString reads a table name from a SQL string.
func nameInString(text string) (tableRef, error) {
	if !strings.HasPrefix(text, "'") {
		return tableRef{}, errorf(InvalidArgument, "flightd_flush takes the table's name as a string")
	}
	sql := strings.ReplaceAll(text[1:len(text)-1], "''", "'")
	tokens, err := lex(sql)
	if err != nil {
		return tableRef{}, err
	}
	p := &parsed{sql: sql, tokens: tokens}
	ref, next, err := p.tableName(0)
	if err == nil {
		err = ref.writable()
	}
	if err != nil {
		return ref, err
	}
	return ref, p.end(next)
}

// dropTarget reads DROP TABLE [IF EXISTS] name [RESTRICT].
func (p *parsed) dropTarget() (ref tableRef, ifExists bool, err error) {
	i := 2
	if p.word(i) == "IF" && p.word(i+1) == "EXISTS" {
		i, ifExists = i+2, true
	}
	ref, next, err := p.tableName(i)
	if err != nil {
		return ref, ifExists, err
	}
	if p.word(next) == "RESTRICT" || p.word(next) == "CASCADE" { // nothing depends on a table yet
		next++
	}
	if err := ref.writable(); err != nil {
		return ref, ifExists, err
	}
	return ref, ifExists, p.end(next)
}

// drop runs DROP TABLE.
func (st *Statement) drop(ctx context.Context) error {
	ref, ifExists, err := st.parsed.dropTarget()
	if err != nil {
		return err
	}
	if st.e.isView(ref) {
		return errorf(InvalidArgument, "%q is a view, and this is for tables; drop it with DROP VIEW", ref.name)
	}
	err = st.e.store.drop(ctx, ref.schema, ref.name)
	if e, ok := engineError(err).(*Error); ok && e.Code == NotFound && ifExists {
		return nil
	}
	return err
}

// truncateTarget reads TRUNCATE [TABLE] name.
func (p *parsed) truncateTarget() (tableRef, error) { return p.onlyTable() }

// truncate runs TRUNCATE: an empty table takes the place of the one there is.
func (st *Statement) truncate(ctx context.Context, l *lease) error {
	ref, err := st.parsed.truncateTarget()
	if err != nil {
		return err
	}
	t, err := l.target(ref)
	if err != nil {
		return err
	}
	return st.e.store.stageTable(ctx, t, true, func(func(arrow.RecordBatch) error) error { return nil })
}

// A creation is what the lexer sees of CREATE TABLE.
type creation struct {
	table       tableRef
	ifNotExists bool
	replace     bool
	options     tableOptions
	sql         string // without the WITH clause, its places kept
	query       span   // what follows AS
}

// creation reads CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name (...) [WITH (...)] [AS query [WITH [NO] DATA]]. What is
// between the parentheses is DuckDB's.
func (p *parsed) creation() (c creation, err error) {
	i := 2
	if c.replace = p.word(1) == "OR"; c.replace {
		i = 4
	}
	if p.word(i) == "IF" && p.word(i+1) == "NOT" && p.word(i+2) == "EXISTS" {
		i, c.ifNotExists = i+3, true
	}
	if c.table, i, err = p.tableName(i); err != nil {
		return c, err
	}
	if err := c.table.writable(); err != nil {
		return c, err
	}
	c.sql = p.sql
	if p.word(i) == "(" {
		i = p.closing(i) + 1
	}
	if p.word(i) == "WITH" && p.word(i+1) == "(" {
		list, next, err := p.options(i+1, "table")
		if err != nil {
			return c, err
		}
		if c.options, err = p.tableOptions(list); err != nil {
			return c, err
		}
		from, to := p.tokens[i].start, p.tokens[next-1].end
		c.sql = p.sql[:from] + blank(p.sql[from:to]) + p.sql[to:]
		i = next
	}
	if p.word(i) == "AS" {
		end := p.dataClause(len(p.tokens))
		c.query = span{i + 1, end}
		// The shadow gets no rows: it only tells the columns. Ours come from the query, unless it says NO DATA.
		c.sql = c.sql[:p.tokens[end-1].end] + " WITH NO DATA"
		if end < len(p.tokens) && p.word(end+1) == "NO" {
			c.query = span{}
		}
	}
	return c, nil
}

// dataClause returns the place of WITH DATA or WITH NO DATA before the end, or the end.
func (p *parsed) dataClause(end int) int {
	switch {
	case p.word(end-1) != "DATA":
	case p.word(end-2) == "WITH":
		return end - 2
	case p.word(end-2) == "NO" && p.word(end-3) == "WITH":
		return end - 3
	}
	return end
}

// blank replaces a text by spaces, so that the places of what follows stay.
func blank(s string) string {
	out := []byte(s)
	for i, c := range out {
		if c != '\n' {
			out[i] = ' '
		}
	}
	return string(out)
}

// closing returns the place of the parenthesis that closes the one at i.
func (p *parsed) closing(i int) int {
	depth := p.tokens[i].depth
	for i++; i < len(p.tokens); i++ {
		if p.tokens[i].is(")") && p.tokens[i].depth == depth {
			return i
		}
	}
	return i
}

// prepareCreate checks the syntax. Names and types are looked up when the statement runs: other statements may
// come between.
func (st *Statement) prepareCreate(l *lease) error {
	c, err := st.parsed.creation()
	if err != nil {
		return err
	}
	conn, err := l.shadow.in.connect()
	if err != nil {
		return err
	}
	defer bind.Disconnect(&conn)
	x, err := l.shadow.in.extract(conn, c.sql)
	if err != nil {
		return err
	}
	bind.DestroyExtracted(&x.list)
	if x.count > 1 {
		return openPivot("CREATE TABLE AS")
	}
	return nil
}

// create runs CREATE TABLE: the shadow makes the table and says what it is, and forgets it again; it shows up there
// when the catalog is refreshed, as everywhere.
func (st *Statement) create(ctx context.Context, l *lease) error {
	c, err := st.parsed.creation()
	if err != nil {
		return err
	}
	if _, ok := l.query.tables[fold(c.table.schema, c.table.name)]; ok && c.ifNotExists {
		return nil
	}
	t, err := st.tryCreate(l.shadow.in, c)
	if err != nil {
		return err
	}
	t.tableOptions = c.options
	switch {
	case !c.query.empty():
		err = st.createAs(ctx, t, c)
	case c.replace:
		err = st.e.store.stageTable(ctx, t, true, func(func(arrow.RecordBatch) error) error { return nil })
	default:
		err = st.e.store.create(ctx, t)
	}
	if e, ok := engineError(err).(*Error); ok && e.Code == AlreadyExists && c.ifNotExists {
		return nil
	}
	return err
}

// createAs makes the table with the rows of a query. A column that the query takes unchanged from a table keeps that
// table's Arrow type.
func (st *Statement) createAs(ctx context.Context, t tableInfo, c creation) error {
	for _, f := range t.arrow.Fields() {
		if lsm.IsReserved(f.Name) {
			return errorf(InvalidArgument, "the query has a column %q, a name that is kept for what searches add to rows, and a table cannot have; "+
				"name it otherwise (%s AS %s), or leave it out: SELECT * EXCLUDE (%s)", f.Name, f.Name, strings.TrimLeft(f.Name, "_"), f.Name)
		}
	}
	sql := st.parsed.text(c.query)
	tokens, err := lex(sql)
	if err != nil {
		return err
	}
	q := &Statement{e: st.e, session: st.session, parsed: &parsed{sql: sql, tokens: tokens, kind: kindSelect}}
	res, err := q.start(ctx, run{})
	if err != nil {
		return err
	}
	defer res.Close()
	if t.arrow, err = keepTypes(t.arrow, res.Schema()); err != nil {
		return err
	}
	return st.e.store.stageTable(ctx, t, c.replace, func(put func(arrow.RecordBatch) error) error {
		return res.each(ctx, func(rec arrow.RecordBatch) error { return putAs(t.arrow, rec, put) })
	})
}

// keepTypes gives columns the types of a query's result that are the same to SQL.
func keepTypes(made, came *arrow.Schema) (*arrow.Schema, error) {
	if made.NumFields() != came.NumFields() {
		return nil, fmt.Errorf("the query has %d columns, the table %d", came.NumFields(), made.NumFields())
	}
	fields := made.Fields()
	for i, f := range fields {
		sql, err := sqlTypeOf(came.Field(i))
		if err == nil && sameType(sql.field("").Type, f.Type) {
			fields[i].Type, fields[i].Metadata = came.Field(i).Type, came.Field(i).Metadata
		}
	}
	return arrow.NewSchema(fields, nil), nil
}

// putAs puts a batch in the columns of the schema.
func putAs(schema *arrow.Schema, rec arrow.RecordBatch, put func(arrow.RecordBatch) error) error {
	typed, err := joinRows([]arrow.RecordBatch{rec}, schema)
	if err != nil {
		return err
	}
	defer typed.Release()
	return put(typed)
}

// tryCreate creates the table in the shadow, reads its definition and rolls back.
func (st *Statement) tryCreate(in *instance, c creation) (t tableInfo, err error) {
	st.e.shadowMu.Lock()
	defer st.e.shadowMu.Unlock()
	conn, err := in.connect()
	if err != nil {
		return t, err
	}
	defer bind.Disconnect(&conn)
	if err := in.execOn(conn, "BEGIN TRANSACTION"); err != nil {
		return t, err
	}
	defer func() { _ = in.execOn(conn, "ROLLBACK") }()
	if err := in.onlyCreates(conn, c.sql); err != nil {
		return t, err
	}
	if err := in.execOn(conn, c.sql); err != nil {
		return t, err
	}
	return in.readTable(conn, c.table, func(int) bool { return false })
}

// onlyCreates is only for CREATE.
func (in *instance) onlyCreates(conn bind.Connection, sql string) error {
	return in.only(conn, sql, bind.StatementTypeCreate)
}

// only refuses a text that DuckDB itself takes for anything but one statement of a type, whatever our lexer made of it:
// it is about to run as a whole.
func (in *instance) only(conn bind.Connection, sql string, kind bind.StatementType) error {
	x, err := in.extract(conn, sql)
	if err != nil {
		return err
	}
	defer bind.DestroyExtracted(&x.list)
	var ps bind.PreparedStatement
	defer bind.DestroyPrepare(&ps)
	if bind.PrepareExtractedStatement(conn, x.list, 0, &ps) == bind.StateError {
		return in.check(bind.PrepareError(ps), sql)
	}
	if x.count != 1 || bind.PreparedStatementType(ps) != kind {
		return errorf(PermissionDenied, "only one statement of its kind may run here")
	}
	return nil
}

// readTable reads the definition of a table of the shadow.
func (in *instance) readTable(conn bind.Connection, ref tableRef, kept func(column int) bool) (t tableInfo, err error) {
	t = tableInfo{schema: ref.schema, name: ref.name}
	where := tableCondition(ref.schema, ref.name)
	rows, err := in.stringsOn(conn, "SELECT sql FROM duckdb_tables() WHERE "+where)
	if err != nil {
		return t, err
	}
	if len(rows) != 1 {
		return t, fmt.Errorf("the shadow has %d tables named %q", len(rows), ref.name)
	}
	t.sql = rows[0][0]
	if tokens, err := lex(t.sql); err != nil {
		return t, err
	} else if generated(tokens) {
		return t, errorf(Unimplemented, "generated columns are not implemented yet, because streams would have to compute them; use a query for what follows from other columns")
	} else if slices.ContainsFunc(tokens, func(t token) bool { return t.is("COLLATE") }) {
		return t, errorf(Unimplemented, "collations of columns are not implemented yet, as queries would not see them; write COLLATE where texts are compared or sorted")
	}
	notNull, err := in.readConstraints(conn, where, &t)
	if err != nil {
		return t, err
	}
	t.arrow, err = in.readColumns(conn, t, notNull, kept)
	return t, err
}

// tableCondition selects a table in the shadow's catalog functions.
func tableCondition(schema, name string) string {
	return fmt.Sprintf("database_name = %s AND lower(schema_name) = lower(%s) AND lower(table_name) = lower(%s)",
		quoteString(catalogName), quoteString(schema), quoteString(name))
}

// generated says whether DuckDB's own DDL of a table has generated columns.
func generated(tokens []token) bool {
	for i, t := range tokens {
		if t.is("GENERATED") && i+1 < len(tokens) && tokens[i+1].is("ALWAYS") {
			return true
		}
	}
	return false
}

// readConstraints sets the key and returns the columns that must not be null. Constraints that only SQL would hold,
// and streams would not, are refused.
func (in *instance) readConstraints(conn bind.Connection, where string, t *tableInfo) (map[string]bool, error) {
	rows, err := in.stringsOn(conn, "SELECT constraint_type, coalesce(unnest(constraint_column_names), '') FROM duckdb_constraints() WHERE "+where)
	if err != nil {
		return nil, err
	}
	notNull := map[string]bool{}
	for _, r := range rows {
		switch kind, column := r[0], r[1]; kind {
		case "PRIMARY KEY":
			t.key = append(t.key, column)
			notNull[column] = true
		case "NOT NULL":
			notNull[column] = true
		default:
			return nil, errorf(Unimplemented, "%s constraints are not implemented yet, because streams would not hold them; PRIMARY KEY and NOT NULL are", kind)
		}
	}
	return notNull, nil
}

// keyMetadata marks the columns of the key, as Lance does.
const keyMetadata = "lance-schema:unenforced-primary-key"

// readColumns returns the columns as Arrow fields. Those that are kept have a type already, which SQL's may not tell.
func (in *instance) readColumns(conn bind.Connection, t tableInfo, notNull map[string]bool, kept func(column int) bool) (*arrow.Schema, error) {
	sql := "FROM " + t.qualified()
	ps, free, err := in.prepareOne(conn, sql)
	if err != nil {
		return nil, err
	}
	defer free()
	fields := make([]arrow.Field, bind.PreparedStatementColumnCount(ps))
	for i := range fields {
		name := bind.PreparedStatementColumnName(ps, bind.IdxT(i))
		l := bind.PreparedStatementColumnLogicalType(ps, bind.IdxT(i))
		typ, err := sqlTypeOfLogical(l)
		bind.DestroyLogicalType(&l)
		if err != nil && !kept(i) {
			return nil, errorf(Unimplemented, "column %q: %v", name, err)
		}
		if fields[i] = (arrow.Field{Name: name, Type: arrow.Null}); err == nil {
			fields[i] = typ.field(name)
		}
		fields[i].Nullable = !notNull[name]
		if slices.Contains(t.key, name) {
			md := fields[i].Metadata
			fields[i].Metadata = arrow.NewMetadata(append(slices.Clone(md.Keys()), keyMetadata), append(slices.Clone(md.Values()), "true"))
		}
	}
	return arrow.NewSchema(fields, nil), nil
}
