package query

import (
	"context"
	"fmt"
	"slices"
	"strings"

	bind "github.com/duckdb/duckdb-go-bindings"
)

// hasConflict says whether an INSERT says what happens to keys that are there.
func (p *parsed) hasConflict() bool {
	c, err := p.insertion()
	return err == nil && c.conflict
}

// plainValues says whether an INSERT has nothing but values, which the shadow turns into rows.
func (p *parsed) plainValues() bool {
	c, err := p.insertion()
	return err == nil && c.values && !c.conflict
}

// insertChange makes the query whose rows an INSERT inserts.
func (p *parsed) insertChange(l *lease) (*change, error) {
	ins, err := p.insertion()
	if err != nil {
		return nil, err
	}
	t, err := l.target(ins.table)
	if err != nil {
		return nil, err
	}
	c := &change{table: t, schema: t.arrow, rows: true, put: func(ctx context.Context, w writer, b changed) error { return w.insert(ctx, b.rows) }}
	if c.sql, err = p.newRows(l, t, ins); err != nil {
		return nil, err
	}
	upsert := func(ctx context.Context, w writer, b changed) error { return w.upsert(ctx, b.rows) }
	switch {
	case !ins.conflict:
	case ins.update:
		c.put = upsert
		c.sql, err = p.mergedRows(l, t, ins, c.sql)
	case ins.or == "REPLACE":
		c.put = upsert
		c.sql, err = p.replacedRows(l, t, ins, c.sql)
	default:
		c.sql = missingRows(t, c.sql)
	}
	c.sql = p.with() + c.sql
	return c, err
}

// newRows writes the query for the rows as they come: the source's columns cast to those of the table, defaults for
// the others.
func (p *parsed) newRows(l *lease, t tableInfo, ins insertion) (string, error) {
	names, err := p.sourceColumns(l, t, ins)
	if err != nil {
		return "", err
	}
	defaults, err := l.shadow.in.defaults(t)
	if err != nil {
		return "", err
	}
	places := make([]string, len(names))
	for i := range names {
		places[i] = fmt.Sprintf("flightd_%d", i+1)
	}
	var columns []string
	for i, f := range t.arrow.Fields() {
		expr := defaults[i]
		if j := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, f.Name) }); j >= 0 {
			expr = "flightd_rows." + places[j]
		}
		if expr, err = cast(expr, f); err != nil {
			return "", err
		}
		columns = append(columns, expr+" AS "+quoteIdent(f.Name))
	}
	sql := "SELECT " + strings.Join(columns, ", ")
	if !ins.none {
		sql += " FROM (" + p.text(ins.source) + ") AS flightd_rows(" + strings.Join(places, ", ") + ")"
	}
	return sql, nil
}

// sourceColumns returns the table's columns in the order in which the source has them.
func (p *parsed) sourceColumns(l *lease, t tableInfo, ins insertion) ([]string, error) {
	switch {
	case ins.none:
		return nil, nil
	case ins.byName:
		return l.shadow.in.columnNames(p.with() + p.text(ins.source))
	case ins.columns != nil:
		return ins.columns, nil
	}
	var names []string
	for _, f := range t.arrow.Fields() {
		names = append(names, f.Name)
	}
	return names, nil
}

// columnNames returns the names of a query's columns.
func (in *instance) columnNames(sql string) ([]string, error) {
	conn, err := in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	ps, free, err := in.prepareOne(conn, sql)
	if err != nil {
		return nil, err
	}
	defer free()
	names := make([]string, bind.PreparedStatementColumnCount(ps))
	for i := range names {
		names[i] = bind.PreparedStatementColumnName(ps, bind.IdxT(i))
	}
	return names, nil
}

// sameKey writes the condition that two rows have one key.
func (t tableInfo) sameKey(a, b string) string {
	x, _ := t.keyColumns(a)
	y, _ := t.keyColumns(b)
	for i := range x {
		x[i] += " = " + y[i]
	}
	return strings.Join(x, " AND ")
}

// missingRows leaves only rows whose keys are not stored, one for each key.
func missingRows(t tableInfo, rows string) string {
	keys, _ := t.keyColumns("flightd_new")
	stored := quoteIdent(t.name)
	return fmt.Sprintf("SELECT DISTINCT ON (%s) flightd_new.* FROM (%s) AS flightd_new WHERE NOT EXISTS (SELECT 1 FROM %s WHERE %s)",
		strings.Join(keys, ", "), rows, t.qualified(), t.sameKey(stored, "flightd_new"))
}

// mergedRows writes the query for DO UPDATE: a row as it came where its key is not stored, else the stored row with
// what SET assigns. There the stored row's columns are known by their names, and those of the row that came as fields
// of excluded, which therefore is one column.
func (p *parsed) mergedRows(l *lease, t tableInfo, ins insertion, rows string) (string, error) {
	set, err := p.setValues(l, t, ins.set)
	if err != nil {
		return "", err
	}
	for i := range set {
		if f := t.arrow.Field(i); t.isKey(f.Name) {
			return "", errorf(Unimplemented, "DO UPDATE of column %q, which is of the primary key, is not implemented", f.Name)
		}
	}
	where := ""
	if !ins.where.empty() {
		where = p.text(ins.where)
	}
	return mergeSQL(t, ins.name, rows, set, where), nil
}

// replacedRows is mergedRows for INSERT OR REPLACE: all columns that the statement names are set.
func (p *parsed) replacedRows(l *lease, t tableInfo, ins insertion, rows string) (string, error) {
	names, err := p.sourceColumns(l, t, ins)
	if err != nil {
		return "", err
	}
	set := map[int]string{}
	for _, name := range names {
		if i := t.field(name); i >= 0 && !t.isKey(name) {
			set[i] = "excluded." + quoteIdent(t.arrow.Field(i).Name)
		}
	}
	return mergeSQL(t, ins.name, rows, set, ""), nil
}

// as writes the table under a name. Its own it has with its schema's in front, too.
func (t tableInfo) as(name string) string {
	if strings.EqualFold(name, t.name) {
		return t.qualified()
	}
	return t.qualified() + " AS " + quoteIdent(name)
}

// mergeSQL writes the query of mergedRows.
func mergeSQL(t tableInfo, name, rows string, set map[int]string, where string) string {
	stored := quoteIdent(name)
	key := stored + "." + quoteIdent(t.arrow.Field(t.field(t.key[0])).Name)
	var columns, pack []string
	for i, f := range t.arrow.Fields() {
		name := quoteIdent(f.Name)
		value := stored + "." + name
		if v, ok := set[i]; ok {
			value = v
		}
		columns = append(columns, fmt.Sprintf("CASE WHEN %s IS NULL THEN flightd_came.excluded.%s ELSE %s END AS %s", key, name, value, name))
		pack = append(pack, name+" := flightd_new."+name)
	}
	sql := fmt.Sprintf("SELECT %s FROM (SELECT struct_pack(%s) AS excluded FROM (%s) AS flightd_new) AS flightd_came LEFT JOIN %s ON %s",
		strings.Join(columns, ", "), strings.Join(pack, ", "), rows, t.as(name), t.sameKey(stored, "flightd_came.excluded"))
	if where != "" {
		sql += fmt.Sprintf(" WHERE %s IS NULL OR (%s)", key, where)
	}
	return sql
}
