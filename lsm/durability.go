package lsm

import "fmt"

// Durability is what it means that a batch of a stream is visible, and so what its ack means. Everything else, which is
// statements, DDL, stages and whatever has an idempotency key, is durable before it is visible in any table: whoever
// sends it waits for one answer, and what it says is final.
type Durability string

const (
	// Durable is: it is synced, and survives a power cut.
	Durable Durability = "durable"
	// Buffered is: it is in the log and in memory, and synced within Options.LogInterval. A power cut may take the last
	// batches, never one from between others; the end of the process alone takes none.
	Buffered Durability = "buffered"
)

// validate refuses what is neither; empty is for a default.
func (d Durability) validate() error {
	switch d {
	case "", Durable, Buffered:
		return nil
	}
	return fmt.Errorf("%w durability %q: there are %q and %q", ErrInvalid, string(d), Durable, Buffered)
}
