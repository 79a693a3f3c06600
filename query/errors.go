package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/flightd/flightd/lsm"
)

// Code says what kind of failure an Error is.
type Code int

// The codes, named after what the caller can do about it.
const (
	// Internal is a fault of ours or of DuckDB's.
	Internal Code = iota
	// InvalidArgument means that the statement or its parameters are wrong.
	InvalidArgument
	// NotFound means that something the statement names does not exist.
	NotFound
	// AlreadyExists means that the table or the key is there already.
	AlreadyExists
	// Unimplemented means that flightd does not run statements of this kind.
	Unimplemented
	// PermissionDenied means that the statement is off for clients, however it is written.
	PermissionDenied
	// ResourceExhausted means that memory or disk ran out; a smaller statement may pass.
	ResourceExhausted
	// Cancelled means that the caller's context ended, or the statement was interrupted.
	Cancelled
	// DeadlineExceeded means that the statement took longer than Options.Timeout.
	DeadlineExceeded
	// FailedPrecondition means that the state of the tables does not allow the statement.
	FailedPrecondition
)

// Error is what the calls of this package fail with. Errors of the engine that have a meaning of their own, such as
// *object.CorruptError, are in its chain.
type Error struct {
	// Code is the kind of failure.
	Code Code
	// Message is for people. It carries no stack trace of the SQL engine.
	Message string
	// Position is where in the SQL text, in bytes from 1; 0 means that it is about no place.
	Position int
	// Err is the cause; nil when the message is all there is.
	Err error
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// errTableChanged is what a scan fails with whose view names a table that was dropped or replaced meanwhile.
var errTableChanged = &Error{Code: FailedPrecondition, Message: "a table of the statement was dropped or replaced meanwhile; run it again"}

// errRestarted is what statements fail with that ran in an instance of DuckDB when another statement made it give up.
var errRestarted = &Error{Code: FailedPrecondition, Message: "the SQL engine started anew after an internal error in another statement; run this one again"}

// errClosed is what calls on a closed engine fail with.
var errClosed = &Error{Code: FailedPrecondition, Message: "the query engine is closed"}

// errorf makes an Error.
func errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// prefixCodes maps the class that DuckDB's messages begin with. What is not listed is Internal.
var prefixCodes = map[string]Code{
	"Parser Error": InvalidArgument, "Syntax Error": InvalidArgument, "Binder Error": InvalidArgument,
	"Conversion Error": InvalidArgument, "Out of Range Error": InvalidArgument, "Invalid Input Error": InvalidArgument,
	"Invalid Type Error": InvalidArgument, "Invalid type Error": InvalidArgument, "Mismatch Type Error": InvalidArgument, "Divide by Zero Error": InvalidArgument,
	"Constraint Error": InvalidArgument, "Parameter Not Resolved Error": InvalidArgument, "Expression Error": InvalidArgument,
	"Parameter Not Allowed Error": InvalidArgument, "Invalid Configuration Error": InvalidArgument, "Sequence Error": InvalidArgument,
	"Decimal Error": InvalidArgument, "Object Size Error": InvalidArgument, "Unknown Type Error": InvalidArgument,
	"Catalog Error": NotFound, "Dependency Error": FailedPrecondition, "TransactionContext Error": FailedPrecondition,
	"Not implemented Error": Unimplemented, "Missing Extension Error": PermissionDenied, "Permission Error": PermissionDenied,
	"Out of Memory Error": ResourceExhausted, "INTERRUPT Error": Cancelled, "IO Error": ResourceExhausted,
}

// duckError maps a message of DuckDB about the SQL text. Its class is the text before the first colon.
func duckError(message, sql string) *Error {
	if strings.Contains(message, "database has been invalidated because of a previous fatal error") {
		return errRestarted
	}
	if i := strings.Index(message, "\n\nStack Trace"); i >= 0 {
		message = message[:i]
	} else if i := strings.Index(message, "Stack Trace:"); i >= 0 {
		message = strings.TrimSpace(message[:i])
	}
	class, text, _ := strings.Cut(message, ":")
	e := &Error{Code: Internal, Message: message, Position: positionOf(message, sql)}
	if code, ok := prefixCodes[class]; ok {
		e.Code = code
	}
	switch {
	case e.Code == NotFound && strings.Contains(text, "already exists"):
		e.Code = AlreadyExists
	case e.Code == NotFound && strings.HasPrefix(text, " Existing object "): // a view where a table is to be made, or the reverse
		e.Code = AlreadyExists
	case e.Code == NotFound && strings.HasSuffix(text, " is not an table"):
		e.Code, e.Message = InvalidArgument, strings.TrimSuffix(message, "an table")+"a table"
	case e.Code == NotFound && strings.HasSuffix(text, " is not a table"):
		e.Code = InvalidArgument
	case class == "Binder Error" && strings.HasPrefix(text, ` Catalog "`):
		e.Code = NotFound
	case class == "Binder Error" && strings.HasPrefix(text, " "+searchMacro):
		if _, why, _ := strings.Cut(text, ": "); strings.HasPrefix(why, "table ") && strings.Contains(why, " does not exist") {
			e.Code = NotFound
		}
	case class == "Constraint Error" && strings.Contains(text, "PRIMARY KEY or UNIQUE constraint violation"):
		e.Code = AlreadyExists
	case class == "Out of Memory Error":
		// DuckDB's advice is to change settings, which clients cannot.
		e.Message, _, _ = strings.Cut(message, "\n\n")
	}
	return e
}

// fatal says whether DuckDB refuses all further work in the instance that said this.
func fatal(message string) bool {
	return strings.HasPrefix(message, "INTERNAL Error") || strings.HasPrefix(message, "FATAL Error") ||
		strings.Contains(message, "database has been invalidated")
}

// positionOf finds the place that DuckDB marks with a caret: "LINE 2: ...text...\n       ^". The text may be cut at
// either end, so it is looked up in that line of the SQL.
func positionOf(message, sql string) int {
	i := strings.LastIndex(message, "\nLINE ")
	if i < 0 {
		return 0
	}
	var line int
	if _, err := fmt.Sscanf(message[i+1:], "LINE %d:", &line); err != nil {
		return 0
	}
	quoted, caret, ok := strings.Cut(message[i+1:], "\n")
	if !ok || !strings.Contains(caret, "^") {
		return 0
	}
	head := len(fmt.Sprintf("LINE %d: ", line))
	column := strings.Index(caret, "^") - head
	if len(quoted) < head || column < 0 {
		return 0
	}
	text := quoted[head:]
	start := 0
	for range line - 1 {
		n := strings.IndexByte(sql[start:], '\n')
		if n < 0 {
			return 0
		}
		start += n + 1
	}
	if cut, ok := strings.CutPrefix(text, "..."); ok && !strings.HasPrefix(sql[start:], "...") {
		text, column = cut, column-3
	}
	text = strings.TrimSuffix(text, "...")
	at := strings.Index(sql[start:], text)
	if at < 0 || column < 0 {
		return 0
	}
	return start + at + column + 1
}

// mapError chooses between the three things that can have ended a statement.
func mapError(ctx context.Context, message string, scanErr error, sql string) error {
	if err := ctx.Err(); err != nil {
		var own *Error
		if errors.As(context.Cause(ctx), &own) {
			return own
		}
		return &Error{Code: Cancelled, Message: "the statement was cancelled: " + context.Cause(ctx).Error(), Err: err}
	}
	if scanErr != nil {
		return engineError(scanErr)
	}
	return duckError(message, sql)
}

// engineError maps an error of the engine below. Our own errors pass as they are.
func engineError(err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	if errors.Is(err, lsm.ErrTableChanged) {
		return &Error{Code: FailedPrecondition, Message: err.Error() + "; run it again", Err: errors.Join(errTableChanged, err)}
	}
	e := &Error{Code: Internal, Message: err.Error(), Err: err}
	var column *lsm.ColumnError
	var key *lsm.KeyError
	var unserved *lsm.UnservedError
	var readOnly *lsm.ReadOnlyError
	switch {
	case errors.As(err, &unserved), errors.As(err, &readOnly):
		e.Code = FailedPrecondition
	case errors.Is(err, lsm.ErrTableExists), errors.Is(err, lsm.ErrKeyExists), errors.Is(err, lsm.ErrIndexExists), errors.Is(err, lsm.ErrTagExists):
		e.Code = AlreadyExists
	case errors.Is(err, lsm.ErrTableNotFound), errors.Is(err, lsm.ErrViewNotFound), errors.Is(err, lsm.ErrVersionNotFound), errors.Is(err, lsm.ErrIndexNotFound), errors.Is(err, lsm.ErrTagNotFound):
		e.Code = NotFound
	case errors.Is(err, lsm.ErrDiskFull):
		e.Code = ResourceExhausted
	case errors.Is(err, lsm.ErrInvalid), errors.As(err, &column), errors.As(err, &key):
		e.Code = InvalidArgument
	case errors.Is(err, lsm.ErrKeyColumn), errors.Is(err, lsm.ErrColumnIndexed), errors.Is(err, lsm.ErrNotNull), errors.Is(err, lsm.ErrNotUnique), errors.Is(err, lsm.ErrUnsupported):
		e.Code = FailedPrecondition
	case errors.Is(err, lsm.ErrClosed), errors.Is(err, lsm.ErrPoisoned), errors.Is(err, lsm.ErrFenced):
		e.Code = FailedPrecondition
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Code = Cancelled
	}
	return e
}
