package flight

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Sink takes the result of a statement.
type Sink interface {
	// Begin is called once, before the first batch, also when there will be none.
	Begin(*arrow.Schema) error
	// Batch is called for each batch in order. It is released afterwards; what is kept must be retained.
	Batch(arrow.RecordBatch) error
}

// NoCount is what Run returns for a statement with a result.
const NoCount = -1

// Run runs a statement of any kind. The result of a query goes to sink; of anything else Run returns how many rows it
// changed. Errors of the server are a *ServerError.
func (c *Client) Run(ctx context.Context, statement string, sink Sink) (changed int64, err error) {
	prepared, err := c.sql.Prepare(ctx, statement)
	if err != nil {
		return 0, Plain(err)
	}
	// The server forgets statements by itself, too, so a failure to close one costs nothing.
	defer func() { _ = prepared.Close(context.WithoutCancel(ctx)) }()
	if schema := prepared.DatasetSchema(); schema == nil || schema.NumFields() == 0 {
		changed, err = prepared.ExecuteUpdate(ctx)
		return changed, Plain(err)
	}
	return NoCount, Plain(c.result(ctx, prepared, sink))
}

// result executes a query and hands out what it returns.
func (c *Client) result(ctx context.Context, prepared *flightsql.PreparedStatement, sink Sink) error {
	info, err := prepared.Execute(ctx)
	if err != nil {
		return err
	}
	begun := false
	for _, endpoint := range info.Endpoint {
		reader, err := c.sql.DoGet(ctx, endpoint.Ticket)
		if err != nil {
			return err
		}
		if !begun {
			begun, err = true, sink.Begin(reader.Schema())
		}
		for err == nil && reader.Next() {
			err = sink.Batch(reader.RecordBatch())
		}
		if err == nil {
			err = reader.Err()
		}
		reader.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// ServerError is what a server answered instead of a result.
type ServerError struct {
	// Code is the name of the gRPC code, such as NotFound.
	Code string
	// Message is the server's own.
	Message string

	err error
}

// Error implements error.
func (e *ServerError) Error() string { return fmt.Sprintf("%s (%s)", e.Message, e.Code) }

// Unwrap returns the error as the transport gave it.
func (e *ServerError) Unwrap() error { return e.err }

// Unreachable reports whether an error means that no server answered, rather than that one refused.
func Unreachable(err error) bool { return status.Code(rootStatus(err)) == codes.Unavailable }

// Plain takes the noise of the transport off an error of a Client. Errors that are not the server's stay as they are.
func Plain(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(rootStatus(err))
	if !ok || s.Code() == codes.OK {
		return err
	}
	return &ServerError{Code: s.Code().String(), Message: s.Message(), err: err}
}

// rootStatus returns the innermost error that carries a status, since those around it repeat its text.
func rootStatus(err error) error {
	var carrier interface {
		error
		GRPCStatus() *status.Status
	}
	if errors.As(err, &carrier) {
		return carrier
	}
	return err
}

// CreateTable makes a table without rows that has the columns of an Arrow schema. Fields with the metadata
// lance-schema:unenforced-primary-key = true are its key. A table that exists is an error.
func (c *Client) CreateTable(ctx context.Context, name string, schema *arrow.Schema) error {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	empty := b.NewRecordBatch() // a stream without any batch would not even have a schema
	defer empty.Release()
	none, err := array.NewRecordReader(schema, []arrow.RecordBatch{empty})
	if err != nil {
		return fmt.Errorf("create table %q: %w", name, err)
	}
	defer none.Release()
	_, err = c.sql.ExecuteIngest(ctx, none, &flightsql.ExecuteIngestOpts{
		Table: name,
		TableDefinitionOptions: &flightsql.TableDefinitionOptions{
			IfNotExist: flightsql.TableDefinitionOptionsTableNotExistOptionCreate,
			IfExists:   flightsql.TableDefinitionOptionsTableExistsOptionFail,
		},
	})
	return Plain(err)
}
