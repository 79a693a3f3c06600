package flight

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// errTooLarge marks what is refused for its size alone: fewer rows at a time would do.
var errTooLarge = errors.New("too large")

// errStopping ends what still runs when the server stops.
var errStopping error = &refusal{codes.Unavailable, errors.New("the server is shutting down")}

// refusal is an error whose code is known where it arises.
type refusal struct {
	code codes.Code
	err  error
}

// Error implements error.
func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the cause.
func (r *refusal) Unwrap() error { return r.err }

// invalid refuses what a client sent.
func invalid(format string, args ...any) error {
	return &refusal{codes.InvalidArgument, fmt.Errorf(format, args...)}
}

// notFound refuses a name or handle that is not known.
func notFound(format string, args ...any) error {
	return &refusal{codes.NotFound, fmt.Errorf(format, args...)}
}

// unimplemented refuses a call that this server does not have; the message is the reason or the remedy.
func unimplemented(format string, args ...any) error {
	return &refusal{codes.Unimplemented, fmt.Errorf(format, args...)}
}

// precondition refuses a call that the state of the session does not allow.
func precondition(format string, args ...any) error {
	return &refusal{codes.FailedPrecondition, fmt.Errorf(format, args...)}
}

// aborted refuses what came too late for what somebody else did meanwhile: trying again may help.
func aborted(format string, args ...any) error {
	return &refusal{codes.Aborted, fmt.Errorf(format, args...)}
}

// internal reports a fault of the server itself.
func internal(format string, args ...any) error {
	return &refusal{codes.Internal, fmt.Errorf(format, args...)}
}

// retryDelay is when a client that was refused for want of memory or disk may come again: a flush or a query takes
// about as long to give some back.
const retryDelay = time.Second

// statusOf gives an error the code that a client can act on. The message is the error's own, so that names, places
// and remedies that were wrapped on the way reach the client. What is refused for want of room says when to try
// again; what is too large for any room does not.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	st := status.New(codeOf(err), err.Error())
	if st.Code() == codes.ResourceExhausted && !errors.Is(err, errTooLarge) {
		retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)}
		if detailed, wrong := st.WithDetails(retry); wrong == nil {
			st = detailed
		}
	}
	return st.Err()
}

// sentinelCodes are the codes of errors that are told by identity, most telling first.
var sentinelCodes = []struct {
	err  error
	code codes.Code
}{
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{errTooLarge, codes.ResourceExhausted},
	{lsm.ErrDiskFull, codes.ResourceExhausted},
	{syscall.ENOSPC, codes.ResourceExhausted},
	{lsm.ErrFenced, codes.Aborted},
	{lsm.ErrTableNotFound, codes.NotFound},
	{lsm.ErrViewNotFound, codes.NotFound},
	{lsm.ErrTableExists, codes.AlreadyExists},
	{lsm.ErrKeyExists, codes.AlreadyExists},
	{lsm.ErrKeyBusy, codes.Aborted},
	{lsm.ErrInvalid, codes.InvalidArgument},
	{lsm.ErrTableChanged, codes.Aborted},
	{lsm.ErrConflict, codes.Aborted},
	{lsm.ErrKeyColumn, codes.FailedPrecondition},
	{lsm.ErrNotNull, codes.FailedPrecondition},
	{lsm.ErrPoisoned, codes.Unavailable},
	{lsm.ErrClosed, codes.Unavailable},
}

// queryCodes are the codes of query's errors.
var queryCodes = map[query.Code]codes.Code{
	query.InvalidArgument:    codes.InvalidArgument,
	query.NotFound:           codes.NotFound,
	query.AlreadyExists:      codes.AlreadyExists,
	query.Unimplemented:      codes.Unimplemented,
	query.PermissionDenied:   codes.PermissionDenied,
	query.ResourceExhausted:  codes.ResourceExhausted,
	query.Cancelled:          codes.Canceled,
	query.DeadlineExceeded:   codes.DeadlineExceeded,
	query.FailedPrecondition: codes.FailedPrecondition,
	query.Internal:           codes.Internal,
}

// codeOf chooses the code of an error. Corruption goes before everything that wraps it: a client must never take
// damaged data for a fault of its own.
func codeOf(err error) codes.Code {
	var (
		corrupt *lsm.CorruptError
		refused *refusal
		column  *lsm.ColumnError
		noKey   *lsm.NoKeyError
		key     *lsm.KeyError
		sql     *query.Error
		foreign *lsm.UnservedError
		fixed   *lsm.ReadOnlyError
	)
	switch {
	case errors.As(err, &corrupt):
		return codes.DataLoss
	case errors.As(err, &column), errors.As(err, &key):
		return codes.InvalidArgument
	case errors.As(err, &noKey), errors.As(err, &foreign), errors.As(err, &fixed):
		return codes.FailedPrecondition
	}
	for _, known := range sentinelCodes {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	if errors.As(err, &refused) {
		return refused.code
	}
	if errors.As(err, &sql) {
		if code, ok := queryCodes[sql.Code]; ok {
			return code
		}
		return codes.Internal
	}
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return codes.Internal
}
