package manifest

import (
	"errors"
	"fmt"

	"github.com/flightd/flightd/object"
)

var (
	// ErrConflict is returned by Commit when another writer changed the table in a way that does not commute with
	// the change. Nothing was published; the change must be worked out again on the newest version.
	ErrConflict = errors.New("another writer changed the table")

	// ErrUnpublished is returned by Commit, with the cause, when it failed and certainly published nothing: what it was
	// given to publish can be removed or tried again.
	ErrUnpublished = errors.New("nothing was committed")

	// ErrFenced is returned when a newer writer has claimed the shard. It is final for this writer.
	ErrFenced = errors.New("a newer writer has claimed the shard")

	// ErrSealed is returned when a shard that is sealed is claimed by someone who does not expect it to be.
	ErrSealed = errors.New("shard is sealed and refuses claims")
)

// UnsupportedError reports a feature of a table that this program does not know.
type UnsupportedError struct {
	// Name is the manifest, as its store names it.
	Name string
	// Bit is the number of the feature flag.
	Bit int
	// Write is true when the table can be read but not written.
	Write bool
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	act := "read"
	if e.Write {
		act = "write"
	}
	return fmt.Sprintf("%s uses feature flag %d (%s), which this flightd cannot %s; remove the feature with Lance or use a newer flightd",
		e.Name, e.Bit, flagName(e.Bit), act)
}

func corrupt(name string, offset int64, format string, args ...any) error {
	return &object.CorruptError{Name: name, Offset: offset, Err: fmt.Errorf(format, args...)}
}
