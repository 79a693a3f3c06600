package lsm

import (
	"errors"
	"fmt"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// CorruptError reports bytes on disk that cannot be what was written, with the file and the offset. It is here for
// callers that know the engine and not the store below it.
type CorruptError = object.CorruptError

// Sentinels of the engine. Each is wrapped with the name it is about; test with errors.Is.
var (
	// ErrClosed is returned by every call on a DB that is closed or closing.
	ErrClosed = errors.New("the database is closed")

	// ErrInUse is returned when another process has the data folder open.
	ErrInUse = errors.New("in use")

	// ErrTableExists is returned by CreateTable when the name, whatever its case, is taken.
	ErrTableExists = errors.New("table already exists")

	// ErrTableNotFound is returned when no table has the name, and by writes to a table that was dropped meanwhile.
	ErrTableNotFound = errors.New("table does not exist")

	// ErrVersionNotFound is returned for a version of a table that is not there, or not any more.
	ErrVersionNotFound = errors.New("no version")

	// ErrViewNotFound is returned by DropView when no view has the name.
	ErrViewNotFound = errors.New("no view has the name")

	// ErrKeyExists is returned by Insert when a row with one of the keys is already stored, or a key comes twice.
	ErrKeyExists = errors.New("duplicate key")

	// ErrKeyBusy is returned when another stream is at work under the idempotency key.
	ErrKeyBusy = errors.New("another stream is at work under it")

	// ErrUnsupported is returned for what another program wrote in a form of Lance's that is not read here.
	ErrUnsupported = lance.ErrUnsupported

	// ErrInvalid is returned for a definition or a request that no state of the database could satisfy.
	ErrInvalid = errors.New("invalid")

	// ErrTableChanged is returned for a batch that was made for columns that the table had before an ALTER TABLE. The
	// remedy is to look at the table again and to make the batch anew.
	ErrTableChanged = errors.New("the table was altered meanwhile")

	// ErrConflict is returned by what lost one race after another to other programs' commits, and did nothing. The remedy is
	// to try again when they commit less.
	ErrConflict = manifest.ErrConflict

	// ErrKeyColumn is returned for an alteration that would take a column out of the primary key, or give it another type.
	ErrKeyColumn = errors.New("a column of the primary key stays as it is")

	// ErrColumnIndexed is returned for another type of a column that an index of the table is over.
	ErrColumnIndexed = errors.New("the column has an index")

	// ErrIndexExists is returned by CreateIndex when the table has an index of the name.
	ErrIndexExists = errors.New("index already exists")

	// ErrIndexNotFound is returned when the table has no index of the name.
	ErrIndexNotFound = errors.New("index does not exist")

	// ErrTagExists and ErrTagNotFound are returned for a tag that the table has, or does not have.
	ErrTagExists   = errors.New("tag already exists")
	ErrTagNotFound = errors.New("tag does not exist")

	// ErrNotNull is returned for an alteration that forbids nulls where rows have them.
	ErrNotNull = errors.New("rows would violate NOT NULL")

	// ErrNotUnique is returned for a primary key that rows which are there do not have: two share one, or one has a null in it.
	ErrNotUnique = errors.New("rows would violate the primary key")

	// ErrDiskFull is returned by writes for which the disk has no room beside its reserve. Reads, deletes and merges go on,
	// and writes do when there is room again.
	ErrDiskFull = errors.New("the disk is full")

	// ErrFenced is returned once another process has taken the data over: nothing that this one writes is durable any more,
	// and what it reads may be old. The remedy is to turn to the other process; this one has to end.
	ErrFenced = errors.New("another process has taken the data over")

	// ErrPoisoned is returned after a write or sync of the log failed: what is durable is then unknown, so nothing
	// more is accepted. The remedy is to restart on a healthy disk; replay decides what was stored.
	ErrPoisoned = errors.New("the log failed; restart flightd to replay it")
)

// ColumnError says that a column of a stream cannot become a column of the table.
type ColumnError struct {
	// Table and Column name the place.
	Table, Column string
	// Came is what the stream brought, Want what the table has; either may be empty.
	Came, Want string
	// Hint is the remedy.
	Hint string
}

// Error implements error.
func (e *ColumnError) Error() string {
	s := fmt.Sprintf("table %q, column %q", e.Table, e.Column)
	if e.Came != "" {
		s += ": got " + e.Came
	}
	if e.Want != "" {
		s += ", want " + e.Want
	}
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// NoKeyError is returned for what needs a primary key on a table without one.
type NoKeyError struct{ Table TableName }

// Error implements error.
func (e *NoKeyError) Error() string { return noKeyHint(e.Table) }

// KeyError says that a row has no usable key.
type KeyError struct {
	// Table and Column name the place, Row is the row's number in its batch, from 0.
	Table, Column string
	Row           int64
	// Problem says what is wrong with it.
	Problem string
}

// Error implements error.
func (e *KeyError) Error() string {
	return fmt.Sprintf("table %q, key column %q, row %d: %s", e.Table, e.Column, e.Row, e.Problem)
}
