package query

import (
	"context"
	"maps"
	"slices"
	"strings"

	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// A commenting is a COMMENT ON, cut at its keywords.
type commenting struct {
	what   string // TABLE, VIEW or COLUMN
	of     tableRef
	column string
	text   span // a string or NULL
}

// commenting reads COMMENT ON TABLE|VIEW name IS text and COMMENT ON COLUMN name.column IS text.
func (p *parsed) commenting() (c commenting, err error) {
	if p.word(1) != "ON" {
		return c, p.syntaxError(1, "COMMENT ON is expected: syntax error")
	}
	i := 3
	switch c.what = p.word(2); c.what {
	case "TABLE", "VIEW":
		c.of, i, err = p.tableName(i)
	case "COLUMN":
		c.of, c.column, i, err = p.columnName(i)
	case "":
		return c, p.syntaxError(2, "TABLE, VIEW or COLUMN is expected: syntax error")
	default:
		return c, p.unimplementedAt(2, "COMMENT ON "+p.word(2)+" (of what there is, tables, views and their columns have comments)")
	}
	if err == nil {
		err = c.of.writable()
	}
	if err != nil {
		return c, err
	}
	if p.word(i) != "IS" {
		return c, p.syntaxError(i, "IS is expected: syntax error")
	}
	c.text = span{i + 1, len(p.tokens)}
	if p.word(i+1) != "NULL" && (i+1 >= len(p.tokens) || p.tokens[i+1].kind != literal) {
		return c, p.syntaxError(i+1, "a string or NULL is expected: syntax error")
	}
	return c, p.end(i + 2)
}

// columnName reads [catalog.][schema.]table.column at token i and returns it with the place behind it.
func (p *parsed) columnName(i int) (of tableRef, column string, next int, err error) {
	start := i
	for next = i; next+2 < len(p.tokens) && p.tokens[next].ident() && p.word(next+1) == "."; next += 2 {
	}
	if next == start || !p.tokens[next].ident() {
		return of, "", next, p.syntaxError(start, "a table's name and, behind a dot, that of its column are expected")
	}
	column = p.tokens[next].name
	// The table's name ends before the last dot.
	q := &parsed{sql: p.sql, tokens: p.tokens[:next-1]}
	of, _, err = q.tableName(start)
	return of, column, next + 1, err
}

// comment runs COMMENT ON: the shadow tries it and tells what the text is.
func (st *Statement) comment(ctx context.Context, l *lease) error {
	c, err := st.parsed.commenting()
	if err != nil {
		return err
	}
	text, err := st.e.tryComment(l.shadow.in, &c, st.parsed.text(c.text))
	if err != nil {
		return unplaced(err)
	}
	return st.e.store.comment(ctx, c.of, c.column, text)
}

// tryComment comments in the shadow, reads the comment and rolls back. It gives a column its name as the table has it:
// DuckDB finds a view's by nothing else.
func (e *Engine) tryComment(in *instance, c *commenting, literal string) (*string, error) {
	e.shadowMu.Lock()
	defer e.shadowMu.Unlock()
	conn, err := in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	if err := in.execOn(conn, "BEGIN TRANSACTION"); err != nil {
		return nil, err
	}
	defer func() { _ = in.execOn(conn, "ROLLBACK") }()
	name := quoteIdent(c.of.schema) + "." + quoteIdent(c.of.name)
	where := tableCondition(c.of.schema, c.of.name)
	from := "duckdb_tables() WHERE " + where
	switch c.what {
	case "VIEW":
		from = "(SELECT *, view_name AS table_name FROM duckdb_views()) WHERE " + where
	case "COLUMN":
		from = "duckdb_columns() WHERE " + where + " AND lower(column_name) = lower(" + quoteString(c.column) + ")"
		rows, err := in.stringsOn(conn, "SELECT column_name FROM "+from)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			c.column = rows[0][0]
		}
		name += "." + quoteIdent(c.column)
	}
	sql := "COMMENT ON " + c.what + " " + name + " IS " + literal
	if err := in.only(conn, sql, bind.StatementTypeAlter); err != nil {
		return nil, err
	}
	if err := in.execOn(conn, sql); err != nil {
		return nil, err
	}
	rows, err := in.stringsOn(conn, "SELECT coalesce(comment, ''), CASE WHEN comment IS NULL THEN 'none' ELSE '' END FROM "+from)
	switch {
	case err != nil:
		return nil, err
	case len(rows) == 0: // DuckDB itself takes a view for a table and a table for a view
		return nil, errorf(NotFound, "Catalog Error: %q is not a %s", c.of.name, strings.ToLower(c.what))
	case rows[0][1] != "":
		return nil, nil
	}
	return &rows[0][0], nil
}

// showComments shows the comments on tables and their columns, as far as they are others than those that are shown.
func (c *catalog) showComments(warn func(string, tableInfo, error)) {
	said := make(map[int64]lsm.Comments, len(c.tables))
	for _, t := range c.tables {
		if t.comments == nil || t.id == 0 {
			continue
		}
		old := c.said[t.id]
		if !sameText(old.Self, t.comments.Self) {
			if err := c.say("TABLE "+t.qualified(), t.comments.Self); err != nil {
				warn("comment on", t, err)
			}
		}
		names := slices.Concat(slices.Collect(maps.Keys(old.Columns)), slices.Collect(maps.Keys(t.comments.Columns)))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			was, now := columnText(old, name), columnText(*t.comments, name)
			if sameText(was, now) {
				continue
			}
			if err := c.say("COLUMN "+t.qualified()+"."+quoteIdent(name), now); err != nil {
				warn("comment on", t, err)
			}
		}
		said[t.id] = *t.comments
	}
	c.said = said
}

// showViewComments shows the comments on a view that has none yet.
func (c *catalog) showViewComments(v viewInfo) error {
	if v.comments.Self != nil {
		if err := c.say("VIEW "+v.qualified(), v.comments.Self); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.comments.Columns)) {
		err := c.say("COLUMN "+v.qualified()+"."+quoteIdent(name), columnText(v.comments, name))
		if err != nil && !strings.Contains(err.Error(), "does not have a column") { // its table was altered
			return err
		}
	}
	return nil
}

// say runs a COMMENT ON.
func (c *catalog) say(what string, text *string) error {
	value := "NULL"
	if text != nil {
		value = quoteString(*text)
	}
	return c.in.exec("COMMENT ON " + what + " IS " + value)
}

// columnText returns the comment on a column, nil without one.
func columnText(c lsm.Comments, name string) *string {
	if text, ok := c.Columns[name]; ok {
		return &text
	}
	return nil
}

// sameText compares two comments.
func sameText(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
