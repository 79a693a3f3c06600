package query

import (
	"context"
	"errors"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// TableSQL returns the CREATE TABLE statement of a table that comes as an Arrow schema. DuckDB has tried it, because
// a table whose statement it refuses could be written, but never queried.
func (e *Engine) TableSQL(ctx context.Context, name lsm.TableName, columns *arrow.Schema, key []string) (string, error) {
	l, err := e.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer l.release()
	schema := name.Schema
	if schema == "" {
		schema = lsm.MainSchema
	}
	for i, f := range columns.Fields() {
		if f.Name == "" {
			return "", errorf(InvalidArgument, "column %d of %d has no name, by which SQL could ask for it; give it one", i+1, columns.NumFields())
		}
	}
	text := tableSQL(schema, name.Name, columns, key, nil)
	var refused *Error
	err = e.try(l.shadow.in, strings.Replace(text, "CREATE", "CREATE OR REPLACE", 1))
	if errors.As(err, &refused) && refused.Code == AlreadyExists { // a column is there twice
		refused.Code = InvalidArgument
	}
	return text, engineError(err)
}

// try runs a statement on the shadow and takes it back.
func (e *Engine) try(in *instance, sql string) error {
	e.shadowMu.Lock()
	defer e.shadowMu.Unlock()
	conn, err := in.connect()
	if err != nil {
		return err
	}
	defer bind.Disconnect(&conn)
	if err := in.execOn(conn, "BEGIN TRANSACTION"); err != nil {
		return err
	}
	defer func() { _ = in.execOn(conn, "ROLLBACK") }()
	return in.execOn(conn, sql)
}
