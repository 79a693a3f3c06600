package query

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/util"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// A writer takes the rows of one change of a table. They take effect together, or not at all. Batches are the
// caller's to release.
type writer interface {
	// insert puts rows whose keys are new.
	insert(ctx context.Context, rec arrow.RecordBatch) error
	// upsert puts rows whose keys are there or not, but come once.
	upsert(ctx context.Context, rec arrow.RecordBatch) error
	// replace puts rows whose keys are there.
	replace(ctx context.Context, rec arrow.RecordBatch) error
	// remove deletes the rows with these keys.
	remove(ctx context.Context, keys arrow.RecordBatch) error
	// move deletes the rows with the old keys and then inserts rows.
	move(ctx context.Context, old, rows []arrow.RecordBatch) error
}

// A change is what an UPDATE, DELETE or INSERT does: the query that finds its rows, and what becomes of them.
type change struct {
	table tableInfo
	sql   string
	// schema has the query's columns in the types of the table.
	schema *arrow.Schema
	// moves says that the query has the rows' old keys behind the table's columns.
	moves bool
	put   func(w writer) func(context.Context, arrow.RecordBatch) error
}

// changeRows runs an INSERT with a query, an UPDATE or a DELETE. All rows of parameters of an INSERT apply together;
// of the others each sees what those before it did.
func (st *Statement) changeRows(ctx context.Context, l *lease, params arrow.RecordBatch) (int64, error) {
	c, err := st.change(l)
	if err != nil {
		return 0, err
	}
	if params == nil || params.NumCols() == 0 {
		return st.apply(ctx, c, run{})
	}
	rows := int(params.NumRows())
	r := run{params: params, names: st.names()}
	if st.parsed.kind == kindInsert && !st.parsed.hasConflict() {
		r.rows = rows
		return st.apply(ctx, c, r)
	}
	var total int64
	for r.row = range rows {
		n, err := st.apply(ctx, c, r)
		if err != nil {
			return total, inRow(err, r.row, rows)
		}
		total += n
	}
	return total, nil
}

// names returns the parameters' names in the order in which their values come.
func (st *Statement) names() []string {
	var out []string
	for _, f := range st.ParameterSchema().Fields() {
		out = append(out, f.Name)
	}
	return out
}

// apply runs the change while nobody else writes the table. It returns the number of rows.
func (st *Statement) apply(ctx context.Context, c *change, r run) (n int64, err error) {
	t := c.table
	err = st.e.store.modify(ctx, t.schema, t.name, func(ctx context.Context, snap snapshot, w writer) error {
		n = 0
		r.snap = snap
		if c.moves {
			n, err = st.move(ctx, c, r, w)
			return err
		}
		put := c.put(w)
		for i := range max(r.rows, 1) {
			one := r
			one.row += i
			err := st.each(ctx, c, one, func(rec arrow.RecordBatch) error {
				n += rec.NumRows()
				return put(ctx, rec)
			})
			if err != nil {
				return inRow(engineError(err), i, max(r.rows, 1))
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// move is apply for an UPDATE that changes keys. Its rows wait in memory until all are known: the new key of one may
// be the old key of a later one.
func (st *Statement) move(ctx context.Context, c *change, r run, w writer) (n int64, err error) {
	var old, rows []arrow.RecordBatch
	defer func() { releaseAll(old); releaseAll(rows) }()
	var bytes int64
	columns := c.table.arrow.NumFields()
	err = st.each(ctx, c, r, func(rec arrow.RecordBatch) error {
		n += rec.NumRows()
		if bytes += util.TotalRecordSize(rec); bytes > st.e.opts.Memory {
			return errorf(ResourceExhausted, "the rows whose keys the UPDATE changes take more than %d bytes; change fewer at a time", st.e.opts.Memory)
		}
		rows = append(rows, columnsOf(rec, 0, columns))
		old = append(old, columnsOf(rec, columns, int(rec.NumCols())))
		return nil
	})
	if err != nil || n == 0 {
		return n, err
	}
	return n, w.move(ctx, old, rows)
}

// columnsOf returns some columns of a batch.
func columnsOf(rec arrow.RecordBatch, from, to int) arrow.RecordBatch {
	return array.NewRecordBatch(arrow.NewSchema(rec.Schema().Fields()[from:to], nil), rec.Columns()[from:to], rec.NumRows())
}

// each runs the change's query on the snapshot and calls fn with its rows, in the types of the table.
func (st *Statement) each(ctx context.Context, c *change, r run, fn func(arrow.RecordBatch) error) error {
	tokens, err := lex(c.sql)
	if err != nil {
		return err
	}
	q := &Statement{e: st.e, session: st.session, parsed: &parsed{sql: c.sql, tokens: tokens, kind: kindSelect}}
	res, err := q.start(ctx, r)
	if err != nil {
		return err
	}
	defer res.Close()
	for {
		rec, err := res.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		typed, err := joinRows([]arrow.RecordBatch{rec}, c.schema)
		rec.Release()
		if err != nil {
			return err
		}
		err = fn(typed)
		typed.Release()
		if err != nil {
			return err
		}
	}
}

// target looks a table up.
func (l *lease) target(ref tableRef) (tableInfo, error) {
	t, ok := l.shadow.tables[fold(ref.schema, ref.name)]
	if !ok {
		return t, errorf(NotFound, "Catalog Error: Table with name %s does not exist!", ref.name)
	}
	return t, nil
}

// change makes the query of the statement.
func (st *Statement) change(l *lease) (*change, error) {
	switch st.parsed.kind {
	case kindUpdate:
		return st.parsed.updateChange(l)
	case kindDelete:
		return st.parsed.deleteChange(l)
	}
	return st.parsed.insertChange(l)
}

// requireKey refuses what finds stored rows by their key.
func (t tableInfo) requireKey(what string) error {
	if len(t.key) > 0 {
		return nil
	}
	return errorf(Unimplemented, "%s is not implemented yet for tables without a primary key, because it tells rows by their key: table %q has no primary key; declare one with PRIMARY KEY or the Arrow field metadata %s",
		what, t.name, keyMetadata)
}

// field returns the place of a column, -1 without one.
func (t tableInfo) field(name string) int {
	return slices.IndexFunc(t.arrow.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
}

// isKey says whether a column is one of the key.
func (t tableInfo) isKey(name string) bool {
	return slices.ContainsFunc(t.key, func(k string) bool { return strings.EqualFold(k, name) })
}

// keyColumns writes the columns of the key as seen under a name, and returns their fields.
func (t tableInfo) keyColumns(of string) ([]string, []arrow.Field) {
	var columns []string
	var fields []arrow.Field
	for _, k := range t.key {
		f := t.arrow.Field(t.field(k))
		columns = append(columns, of+"."+quoteIdent(f.Name))
		fields = append(fields, f)
	}
	return columns, fields
}

// cast writes an expression as a value of a column.
func cast(expr string, f arrow.Field) (string, error) {
	t, err := sqlTypeOf(f)
	if err != nil {
		return "", errorf(Unimplemented, "column %q has a type that SQL cannot write: %v", f.Name, err)
	}
	return "CAST((" + expr + ") AS " + t.String() + ")", nil
}

// deleteChange finds the keys of the rows to delete.
func (p *parsed) deleteChange(l *lease) (*change, error) {
	d, err := p.changing()
	if err != nil {
		return nil, err
	}
	t, err := l.target(d.table)
	if err != nil {
		return nil, err
	}
	if err := t.requireKey("DELETE"); err != nil {
		return nil, err
	}
	columns, fields := t.keyColumns(quoteIdent(d.name))
	distinct := ""
	if !d.others.empty() { // a row may match several of the others
		distinct = "DISTINCT "
	}
	return &change{
		table: t, schema: arrow.NewSchema(fields, nil),
		sql: p.with() + "SELECT " + distinct + strings.Join(columns, ", ") + p.rest(d),
		put: func(w writer) func(context.Context, arrow.RecordBatch) error { return w.remove },
	}, nil
}

// rest writes FROM and WHERE.
func (p *parsed) rest(d changing) string {
	sql := " FROM " + p.text(d.target)
	if !d.others.empty() {
		sql += ", " + p.text(d.others)
	}
	if !d.where.empty() {
		sql += " WHERE (" + p.text(d.where) + ")"
	}
	return sql
}

// updateChange finds the rows to update, as they will be, and their old keys when these change.
func (p *parsed) updateChange(l *lease) (*change, error) {
	u, err := p.changing()
	if err != nil {
		return nil, err
	}
	t, err := l.target(u.table)
	if err != nil {
		return nil, err
	}
	if err := t.requireKey("UPDATE"); err != nil {
		return nil, err
	}
	set, err := p.setValues(l, t, u.set)
	if err != nil {
		return nil, err
	}
	c := &change{table: t, put: func(w writer) func(context.Context, arrow.RecordBatch) error { return w.replace }}
	fields := t.arrow.Fields()
	columns := make([]string, len(fields))
	for i, f := range fields {
		columns[i] = quoteIdent(u.name) + "." + quoteIdent(f.Name)
		if v, ok := set[i]; ok {
			columns[i] = v
			c.moves = c.moves || t.isKey(f.Name)
		} else if _, err := sqlTypeOf(f); err != nil {
			return nil, errorf(Unimplemented, "UPDATE is not implemented for tables with a column that SQL cannot hold: column %q: %v", f.Name, err)
		}
	}
	keys, keyFields := t.keyColumns(quoteIdent(u.name))
	if c.moves {
		columns, fields = append(columns, keys...), append(fields, keyFields...)
	}
	distinct := ""
	if !u.others.empty() { // a row may match several of the others: one of them counts
		distinct = "DISTINCT ON (" + strings.Join(keys, ", ") + ") "
	}
	c.schema = arrow.NewSchema(fields, nil)
	c.sql = p.with() + "SELECT " + distinct + strings.Join(columns, ", ") + p.rest(u)
	return c, nil
}

// setValues writes what SET assigns, by the place of the column.
func (p *parsed) setValues(l *lease, t tableInfo, set span) (map[int]string, error) {
	list, err := p.assignments(set)
	if err != nil {
		return nil, err
	}
	defaults, err := l.shadow.in.defaults(t)
	if err != nil {
		return nil, err
	}
	out := map[int]string{}
	for _, a := range list {
		i := t.field(a.column)
		if i < 0 {
			return nil, errorf(InvalidArgument, "Binder Error: table %q has no column %q", t.name, a.column)
		}
		expr := p.text(a.value)
		if a.value.to == a.value.from+1 && p.word(a.value.from) == "DEFAULT" {
			expr = defaults[i]
		}
		if out[i], err = cast(expr, t.arrow.Field(i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// defaults returns the expressions that columns get when an INSERT leaves them out, by place.
func (in *instance) defaults(t tableInfo) ([]string, error) {
	conn, err := in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	rows, err := in.stringsOn(conn, "SELECT coalesce(column_default, 'NULL') FROM duckdb_columns() WHERE "+tableCondition(t.schema, t.name)+" ORDER BY column_index")
	if err != nil {
		return nil, err
	}
	if len(rows) != t.arrow.NumFields() {
		return nil, errors.New("the shadow has another table")
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r[0]
	}
	return out, nil
}
