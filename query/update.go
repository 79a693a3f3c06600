package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// target looks a table up.
func (l *lease) target(ref tableRef) (tableInfo, error) {
	if err := ref.writable(); err != nil {
		return tableInfo{}, err
	}
	t, ok := l.shadow.tables[fold(ref.schema, ref.name)]
	if !ok {
		return t, l.noTable(ref)
	}
	return t, nil
}

// noTable is the error for a name that no table has.
func (l *lease) noTable(ref tableRef) error {
	if err := l.e.notView(ref); err != nil {
		return err
	}
	return errorf(NotFound, "Catalog Error: Table with name %s does not exist!", ref.name)
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

// identity writes the columns by which stored rows are told, as seen under a name: the key, or where the row lies.
func (t tableInfo) identity(of string) ([]string, []arrow.Field) {
	if len(t.key) > 0 {
		return t.keyColumns(of)
	}
	return []string{of + "." + addressColumn}, []arrow.Field{addressField}
}

// allColumns writes all columns as seen under a name. SQL must be able to hold them.
func (t tableInfo) allColumns(of, act string) ([]string, error) {
	out := make([]string, t.arrow.NumFields())
	for i, f := range t.arrow.Fields() {
		if _, err := sqlTypeOf(f); err != nil {
			return nil, errorf(Unimplemented, "%s is not implemented for tables with a column that SQL cannot hold: column %q: %v", act, f.Name, err)
		}
		out[i] = of + "." + quoteIdent(f.Name)
	}
	return out, nil
}

// write sets the query of the change: text writes it, given the table under the name that the statement's clauses know.
// One without a key is read with the addresses of its rows, which its view does not show; the shadow has none, and
// plans the same with a number in their place.
func (c *change) write(l *lease, target, name string, text func(target string) string) error {
	t := c.table
	if len(t.key) > 0 {
		c.sql = text(target)
		return nil
	}
	scanned, ok := l.query.tables[fold(t.schema, t.name)]
	if !ok || scanned.id == 0 {
		return errTableChanged
	}
	columns := []string{addressColumn}
	for _, f := range t.arrow.Fields() {
		columns = append(columns, quoteIdent(f.Name))
	}
	c.sql = text(fmt.Sprintf("(SELECT %s FROM %s(%d)) AS %s", strings.Join(columns, ", "), scanFunction, scanned.id, quoteIdent(name)))
	columns[0] = "0::UBIGINT AS " + addressColumn
	c.plan = text(fmt.Sprintf("(SELECT %s FROM %s) AS %s", strings.Join(columns, ", "), t.qualified(), quoteIdent(name)))
	return nil
}

// cast writes an expression as a value of a column.
func cast(expr string, f arrow.Field) (string, error) {
	t, err := sqlTypeOf(f)
	if err != nil {
		return "", errorf(Unimplemented, "column %q has a type that SQL cannot write: %v", f.Name, err)
	}
	return "CAST((" + expr + ") AS " + t.String() + ")", nil
}

// deleteChange finds the rows to delete: what tells them, and all of them if they are returned.
func (p *parsed) deleteChange(l *lease) (*change, error) {
	d, err := p.changing()
	if err != nil {
		return nil, err
	}
	t, err := l.target(d.table)
	if err != nil {
		return nil, err
	}
	c := &change{table: t, put: func(ctx context.Context, w writer, b changed) error { return w.remove(ctx, b.ident) }}
	ident, fields := t.identity(quoteIdent(d.name))
	c.ident = len(ident)
	columns := ident
	if !d.returning.empty() {
		c.rows = true
		if columns, err = t.allColumns(quoteIdent(d.name), "DELETE ... RETURNING"); err != nil {
			return nil, err
		}
		columns, fields = append(columns, ident...), slices.Concat(t.arrow.Fields(), fields)
	}
	c.schema = arrow.NewSchema(fields, nil)
	return c, p.find(l, c, d, ident, columns)
}

// find writes the query of an UPDATE or DELETE. Each row comes once, though it may match several of the other tables: one
// of them counts.
func (p *parsed) find(l *lease, c *change, d changing, ident, columns []string) error {
	head, tail := p.with()+"SELECT ", ""
	if !d.others.empty() {
		head += "DISTINCT ON (" + strings.Join(ident, ", ") + ") "
		tail += ", " + p.text(d.others)
	}
	if !d.where.empty() {
		tail += " WHERE (" + p.text(d.where) + ")"
	}
	head += strings.Join(columns, ", ") + " FROM "
	return c.write(l, p.text(d.target), d.name, func(target string) string { return head + target + tail })
}

// updateChange finds the rows to update, as they will be. What told them before is behind, where it is needed.
func (p *parsed) updateChange(l *lease) (*change, error) {
	u, err := p.changing()
	if err != nil {
		return nil, err
	}
	t, err := l.target(u.table)
	if err != nil {
		return nil, err
	}
	set, err := p.setValues(l, t, u.set)
	if err != nil {
		return nil, err
	}
	columns, err := t.allColumns(quoteIdent(u.name), "UPDATE")
	if err != nil {
		return nil, err
	}
	c := &change{table: t, rows: true, put: func(ctx context.Context, w writer, b changed) error { return w.replace(ctx, b.rows) }}
	for i, v := range set {
		columns[i] = v
		c.moves = c.moves || t.isKey(t.arrow.Field(i).Name)
	}
	fields := t.arrow.Fields()
	ident, identFields := t.identity(quoteIdent(u.name))
	if len(t.key) == 0 {
		c.put = func(ctx context.Context, w writer, b changed) error {
			return errors.Join(w.remove(ctx, b.ident), w.insert(ctx, b.rows))
		}
	}
	if c.moves || len(t.key) == 0 {
		c.ident = len(ident)
		columns, fields = append(columns, ident...), slices.Concat(fields, identFields)
	}
	c.schema = arrow.NewSchema(fields, nil)
	return c, p.find(l, c, u, ident, columns)
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
		if out[i], err = p.assigned(a.value, t.arrow.Field(i), defaults[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// assigned writes a value that a statement gives to a column; DEFAULT stands for the column's.
func (p *parsed) assigned(value span, f arrow.Field, byDefault string) (string, error) {
	expr := p.text(value)
	if value.to == value.from+1 && p.word(value.from) == "DEFAULT" {
		expr = byDefault
	}
	return cast(expr, f)
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
		return nil, errTableChanged
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = r[0]
	}
	return out, nil
}
