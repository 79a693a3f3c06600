package query

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// Defaults returns, by the name of the column in lower case, functions for the defaults of a table's columns, as they
// are now. Each gives the values of n rows. A default that is the same for all rows is evaluated once, when it is first
// asked for, so that now() is one moment for all of a stream; one that differs from row to row, like random(), is
// evaluated for each.
func (e *Engine) Defaults(ctx context.Context, name lsm.TableName) (map[string]func(context.Context, int) (arrow.Array, error), error) {
	for attempt := 0; ; attempt++ {
		version := e.store.catalogVersion()
		out, err := e.defaults(ctx, name)
		if err == nil || !e.overtaken(version, err) || attempt == maxAttempts {
			return out, err
		}
	}
}

// defaults is Defaults with the catalogs as they are now.
func (e *Engine) defaults(ctx context.Context, name lsm.TableName) (map[string]func(context.Context, int) (arrow.Array, error), error) {
	l, err := e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.release()
	t, err := l.target(tableRefOf(name))
	if err != nil {
		return nil, err
	}
	columns, err := l.shadow.in.columnsOf(t)
	if err != nil {
		return nil, engineError(err)
	}
	if len(columns) != t.arrow.NumFields() {
		return nil, errTableChanged
	}
	out := make(map[string]func(context.Context, int) (arrow.Array, error))
	for i, c := range columns {
		if c.initial != "" {
			d := &defaultValue{e: e, expr: c.initial, field: t.arrow.Field(i)}
			out[strings.ToLower(c.name)] = d.rows
		}
	}
	return out, nil
}

// tableRefOf returns a table's name as statements have it.
func tableRefOf(name lsm.TableName) tableRef {
	if name.Schema == "" {
		name.Schema = lsm.MainSchema
	}
	return tableRef{name.Schema, name.Name}
}

// A defaultValue is the default of one column for one stream.
type defaultValue struct {
	e     *Engine
	expr  string
	field arrow.Field

	mu sync.Mutex
	// same is the value of all rows, once it is known that there is one.
	same  func(context.Context, int) (arrow.Array, error)
	known bool
}

// rows returns the values of n rows.
func (d *defaultValue) rows(ctx context.Context, n int) (arrow.Array, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.same != nil {
		return d.same(ctx, n)
	}
	l, err := d.e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.release()
	conn, err := l.shadow.in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	volatile := d.known
	if !d.known {
		if volatile, err = l.shadow.in.volatile(conn, d.expr); err != nil {
			return nil, engineError(err)
		}
		d.known = true
	}
	if volatile {
		return l.shadow.in.evaluate(conn, d.expr, d.field, n)
	}
	one, err := l.shadow.in.evaluate(conn, d.expr, d.field, 1)
	if err != nil {
		return nil, err
	}
	d.same = lsm.Constant(one)
	return d.same(ctx, n)
}

// evaluate returns n values of an expression without columns, in the type of a field.
func (in *instance) evaluate(conn bind.Connection, expr string, f arrow.Field, n int) (arrow.Array, error) {
	expr, err := cast(expr, f)
	if err != nil {
		return nil, err
	}
	sql := fmt.Sprintf("SELECT %s FROM range(%d)", expr, n)
	ps, free, err := in.prepareOne(conn, sql)
	if err != nil {
		return nil, unplaced(err)
	}
	defer free()
	parts, err := in.collect(conn, ps, sql)
	defer func() { releaseAll(parts) }()
	if err != nil {
		return nil, unplaced(err)
	}
	rec, err := joinRows(parts, arrow.NewSchema([]arrow.Field{f}, nil))
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	if rec.NumRows() != int64(n) {
		return nil, fmt.Errorf("%s has %d values, want %d", expr, rec.NumRows(), n)
	}
	out := rec.Column(0)
	out.Retain()
	return out, nil
}

// addAttempts bounds the races with other changes of a table's columns that one AddColumns may lose.
const addAttempts = 20

// AddColumns adds columns of an Arrow schema to a table, as ALTER TABLE does, without defaults. Those that it has
// already, by name, are left as they are.
func (e *Engine) AddColumns(ctx context.Context, name lsm.TableName, fields []arrow.Field) error {
	var err error
	for range addAttempts {
		err = e.addColumns(ctx, name, fields)
		if !errors.Is(err, errTableChanged) {
			return err
		}
	}
	return err
}

// addColumns is one attempt of AddColumns.
func (e *Engine) addColumns(ctx context.Context, name lsm.TableName, fields []arrow.Field) error {
	l, err := e.acquire(ctx)
	if err != nil {
		return err
	}
	defer l.release()
	t, err := l.target(tableRefOf(name))
	if err != nil {
		return err
	}
	columns, err := l.shadow.in.columnsOf(t)
	if err != nil {
		return engineError(err)
	}
	had := len(columns)
	for _, f := range fields {
		if t.field(f.Name) >= 0 {
			continue
		}
		if f.Name == "" {
			return errorf(InvalidArgument, "a column that is to be added has no name; give it one")
		}
		columns = append(columns, alteredColumn{name: f.Name, text: quoteIdent(f.Name) + " " + sqlTypeText(f), came: &f})
	}
	if len(columns) == had {
		return nil
	}
	return engineError(e.alter(ctx, l.shadow.in, t, columns))
}
