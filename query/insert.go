package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// insert runs INSERT ... VALUES. The shadow makes the rows, with casts, defaults and checks, and forgets them; the
// store puts them into the table, all in one batch, and refuses keys that it has.
func (st *Statement) insert(ctx context.Context, l *lease, params arrow.RecordBatch, out *returning) (int64, error) {
	ins, err := st.parsed.insertion()
	if err != nil {
		return 0, err
	}
	t, err := l.target(ins.table)
	if err != nil {
		return 0, err
	}
	rec, err := st.shadowInsert(ctx, l, t, params)
	if err != nil {
		return 0, err
	}
	defer rec.Release()
	if err := out.add(ctx, rec, nil); err != nil {
		return 0, err
	}
	return st.e.store.insert(ctx, t.schema, t.name, rec)
}

// shadowInsert runs the statement on the shadow's empty table, once for each row of parameters, and returns the rows
// in the table's Arrow types.
func (st *Statement) shadowInsert(ctx context.Context, l *lease, t tableInfo, params arrow.RecordBatch) (arrow.RecordBatch, error) {
	st.e.shadowMu.Lock()
	defer st.e.shadowMu.Unlock()
	if l.stale(t) {
		return nil, errTableChanged
	}
	in := l.shadow.in
	conn, err := in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	// DuckDB is not waited for in vain: the statement is interrupted when ctx ends, before the connection goes.
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		bind.Interrupt(conn)
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted
		}
	}()
	if err := in.execOn(conn, "BEGIN TRANSACTION"); err != nil {
		return nil, err
	}
	defer func() { _ = in.execOn(conn, "ROLLBACK") }()

	sql := st.insertedText()
	ps, free, err := in.prepareOne(conn, sql)
	if err != nil {
		return nil, err
	}
	defer free()
	runs := 1
	if params != nil && params.NumCols() > 0 {
		runs = int(params.NumRows())
	}
	var parts []arrow.RecordBatch
	defer func() { releaseAll(parts) }()
	for row := range runs {
		if ctx.Err() != nil {
			return nil, mapError(ctx, "", nil, sql)
		}
		if err := bindParams(ps, params, row); err != nil {
			return nil, inRow(err, row, runs)
		}
		more, err := in.collect(conn, ps, sql)
		parts = append(parts, more...)
		if err != nil {
			if ctx.Err() != nil {
				return nil, mapError(ctx, "", nil, sql)
			}
			return nil, inRow(err, row, runs)
		}
	}
	return joinRows(parts, t.arrow)
}

// insertedText returns the statement as it tells all its rows.
func (st *Statement) insertedText() string {
	p := st.parsed
	list := p.returning().list
	if list.empty() {
		return p.sql + " RETURNING *"
	}
	return p.sql[:p.tokens[list.from-1].start] + "RETURNING *"
}

// inRow says in which row of the parameters an error was found.
func inRow(err error, row, rows int) error {
	var e *Error
	if rows == 1 || !errors.As(err, &e) {
		return err
	}
	return &Error{Code: e.Code, Message: fmt.Sprintf("parameter row %d: %s", row+1, e.Message), Position: e.Position, Err: e}
}

// collect runs a prepared statement and returns all its rows in their natural types.
func (in *instance) collect(conn bind.Connection, ps bind.PreparedStatement, sql string) ([]arrow.RecordBatch, error) {
	var res bind.Result
	defer bind.DestroyResult(&res)
	if bind.ExecutePrepared(ps, &res) == bind.StateError {
		return nil, in.check(bind.ResultError(&res), sql)
	}
	return in.drain(conn, &res, sql)
}

// drain reads a result to its end.
func (in *instance) drain(conn bind.Connection, res *bind.Result, sql string) ([]arrow.RecordBatch, error) {
	n := int(bind.ColumnCount(res))
	names, types := make([]string, n), make([]bind.LogicalType, n)
	for i := range n {
		names[i] = bind.ColumnName(res, bind.IdxT(i))
		types[i] = bind.ColumnLogicalType(res, bind.IdxT(i))
		defer bind.DestroyLogicalType(&types[i])
	}
	options := bind.ResultGetArrowOptions(res)
	defer bind.DestroyArrowOptions(&options)
	natural, err := naturalSchema(conn, names, types)
	if err != nil {
		return nil, err
	}
	var out []arrow.RecordBatch
	for {
		chunk := bind.FetchChunk(*res)
		if chunk.Ptr == nil {
			break
		}
		rec, err := chunkRecord(options, natural, chunk)
		bind.DestroyDataChunk(&chunk)
		if err != nil {
			return out, err
		}
		out = append(out, rec)
	}
	if message := bind.ResultError(res); message != "" {
		return out, in.check(message, sql)
	}
	return out, nil
}

// joinRows makes one batch of the table's schema.
func joinRows(parts []arrow.RecordBatch, schema *arrow.Schema) (arrow.RecordBatch, error) {
	var rows int64
	for _, p := range parts {
		rows += p.NumRows()
	}
	columns := make([]arrow.Array, 0, schema.NumFields())
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	for i, f := range schema.Fields() {
		column, err := rowsColumn(parts, i, f)
		if err != nil {
			return nil, errorf(InvalidArgument, "column %q: %v", f.Name, err)
		}
		columns = append(columns, column)
	}
	return array.NewRecordBatch(schema, columns, rows), nil
}

// rowsColumn joins one column and gives it the table's type.
func rowsColumn(parts []arrow.RecordBatch, i int, f arrow.Field) (arrow.Array, error) {
	if len(parts) > 0 && int64(i) >= parts[0].NumCols() {
		return nil, fmt.Errorf("the shadow returned %d columns", parts[0].NumCols())
	}
	if len(parts) == 0 {
		return array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 0), nil
	}
	column, err := joinColumn(parts, i)
	if err != nil || sameType(column.DataType(), f.Type) {
		return column, err
	}
	// Bytes that SQL computed are no value of a type that SQL has not.
	if t, err := sqlTypeOf(f); err == nil && t.isOpaque() {
		defer column.Release()
		if column.NullN() < column.Len() {
			return nil, fmt.Errorf("SQL has no type for Arrow's %s; only NULL, or a column of this type as it is, can be written to it", f.Type)
		}
		return array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, column.Len()), nil
	}
	return retype(column, f.Type)
}

// stringsOn runs a query of ours whose columns are all strings.
func (in *instance) stringsOn(conn bind.Connection, sql string) ([][]string, error) {
	var res bind.Result
	defer bind.DestroyResult(&res)
	if bind.Query(conn, sql, &res) == bind.StateError {
		return nil, in.check(bind.ResultError(&res), sql)
	}
	recs, err := in.drain(conn, &res, sql)
	defer releaseAll(recs)
	if err != nil {
		return nil, err
	}
	var out [][]string
	for _, rec := range recs {
		for row := range int(rec.NumRows()) {
			line := make([]string, rec.NumCols())
			for i, c := range rec.Columns() {
				line[i] = strings.Clone(c.ValueStr(row)) // an array's strings lie in its buffers
			}
			out = append(out, line)
		}
	}
	return out, nil
}
