package object

import (
	"errors"
	"fmt"
)

var (
	// ErrNotExist is returned when no object has the given name.
	ErrNotExist = errors.New("object does not exist")

	// ErrExists is returned by PutIfAbsent and Create when the name is taken.
	ErrExists = errors.New("object exists already")

	// ErrClosed is returned when a Reader or Writer is used after its end.
	ErrClosed = errors.New("object is closed")
)

// CorruptError reports bytes that cannot be what was written.
type CorruptError struct {
	// Name is the object, as its store names it.
	Name string
	// Offset is where the bad bytes begin, in bytes from the start of the object.
	Offset int64
	// Err tells what was found and what was expected.
	Err error
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is corrupt at offset %d: %v", e.Name, e.Offset, e.Err)
}

// Unwrap returns the reason.
func (e *CorruptError) Unwrap() error { return e.Err }
