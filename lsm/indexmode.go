package lsm

import "fmt"

// IndexMode is whether a batch of a table waits for the indexes of its memtable before it is visible. Answers are the same
// in both modes, complete and exact; what differs is who pays for the indexes.
type IndexMode string

const (
	// Sync is: a batch is visible when the indexes have it, so readers find all rows by them. The default.
	Sync IndexMode = "sync"
	// Async is: a batch is visible when it is in the log and in the memtable, and its indexes follow. Until they have, readers
	// search the rows that they lack one by one.
	Async IndexMode = "async"
)

// validate refuses what is neither; empty is the default.
func (m IndexMode) validate() error {
	switch m {
	case "", Sync, Async:
		return nil
	}
	return fmt.Errorf("%w index mode %q: there are %q and %q", ErrInvalid, string(m), Sync, Async)
}
