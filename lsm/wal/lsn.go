package wal

import "fmt"

const (
	// countBits is the width of the count in an LSN: at a million records a second an epoch lasts twelve days, and
	// there are 16 million epochs.
	countBits = 40
	maxCount  = 1<<countBits - 1
	maxEpoch  = 1<<(64-countBits) - 1
)

// LSN is the position of a record in the log: the log's epoch << 40 | a count from 1. LSNs rise with the order of the
// records and are never used twice, not even after records were lost. Zero is below all of them.
type LSN uint64

// newLSN returns the LSN of a count in an epoch.
func newLSN(epoch, count uint64) LSN { return LSN(epoch<<countBits | count) }

// Epoch returns the opening of the log in which the LSN was given.
func (l LSN) Epoch() uint64 { return uint64(l) >> countBits }

// N returns the count within the epoch.
func (l LSN) N() uint64 { return uint64(l) & maxCount }

// String returns epoch-count.
func (l LSN) String() string { return fmt.Sprintf("%d-%d", l.Epoch(), l.N()) }
