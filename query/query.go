package query

import (
	"context"
	"errors"
	"log/slog"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lsm"
)

// Code says what kind of failure an Error is.
type Code int

// The codes, named after what the caller can do about it.
const (
	Internal Code = iota
	InvalidArgument
	NotFound
	AlreadyExists
	Unimplemented
	PermissionDenied
	ResourceExhausted
	Cancelled
	FailedPrecondition
)

// Error is what every call of this package fails with.
type Error struct {
	Code     Code
	Message  string
	Position int
	err      error
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Options configures an Engine.
type Options struct {
	DB      *lsm.DB
	Threads int
	Memory  int64
	Temp    string
	Logger  *slog.Logger
}

// Engine runs SQL.
type Engine struct{}

// Session is what a client's statements share.
type Session struct{ Catalog, Schema string }

// Statement is a prepared statement.
type Statement struct{}

// Result is a stream of record batches.
type Result struct{}

var errSkeleton = errors.New("not built yet")

// Open starts an engine.
func Open(ctx context.Context, o Options) (*Engine, error) { return nil, errSkeleton }

// Close ends it.
func (e *Engine) Close() error { return nil }

// NewSession returns a session.
func (e *Engine) NewSession() *Session { return &Session{} }

// Prepare prepares one statement.
func (e *Engine) Prepare(ctx context.Context, s *Session, sql string) (*Statement, error) {
	return nil, errSkeleton
}

// IsUpdate tells whether Update runs it.
func (st *Statement) IsUpdate() bool { return false }

// DatasetSchema returns the schema of the result.
func (st *Statement) DatasetSchema() *arrow.Schema { return nil }

// ParameterSchema returns the schema of the parameters.
func (st *Statement) ParameterSchema() *arrow.Schema { return nil }

// Close frees it.
func (st *Statement) Close() error { return nil }

// Query runs a statement that returns rows.
func (st *Statement) Query(ctx context.Context, params arrow.RecordBatch) (*Result, error) {
	return nil, errSkeleton
}

// Update runs a statement that changes something.
func (st *Statement) Update(ctx context.Context, params arrow.RecordBatch) (int64, error) {
	return 0, errSkeleton
}

// Schema returns the result's schema.
func (r *Result) Schema() *arrow.Schema { return nil }

// Next returns the next batch, io.EOF at the end.
func (r *Result) Next(ctx context.Context) (arrow.RecordBatch, error) { return nil, errSkeleton }

// Close frees the result.
func (r *Result) Close() error { return nil }
