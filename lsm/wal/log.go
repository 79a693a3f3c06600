package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

var (
	// ErrPoisoned is returned by every Append, and by WaitDurable above the durable position, after a write or a sync
	// has failed. It comes with the cause. Replaying the log and opening it again is the way out.
	ErrPoisoned = errors.New("log is poisoned: restart to replay it")

	// ErrClosed is returned when the log is used after Close.
	ErrClosed = errors.New("log is closed")

	// ErrTooLarge is returned when the records of one Append are larger than a group may be.
	ErrTooLarge = errors.New("records are too large for one log group")

	// ErrNotReplayed is returned by Open when Options.End is not where the log in the folder ends.
	ErrNotReplayed = errors.New("log must be replayed before it is opened")
)

// Log is a write-ahead log. Local is the one on a local disk, Bucket the one in a store of objects.
//
// A log that loses its place to another owner (a fenced one) is poisoned with that cause: whoever learns that its writes
// may not count cannot acknowledge anything any more, whatever the reason.
type Log interface {
	// Append gives the records consecutive LSNs and hands them to the storage, together: after a crash all of them are
	// there or none. It returns the last LSN. The records are not durable yet (see WaitDurable), but once Append has
	// returned, all that was appended later comes after them. Many goroutines may call it at once. A sync begins at once,
	// unless all records are buffered.
	//
	// When ctx ends before the log has taken up the records, nothing of them is appended.
	Append(ctx context.Context, recs ...*Record) (LSN, error)
	// Send is Append for a caller that does not wait: it returns once the records are queued, and the log's goroutine calls
	// receipt.Logged with what Append would have returned, once, behind Options.Appended. What is sent by one goroutine is
	// appended in that order; an Order, which may be nil, also keeps records from being appended behind ones that failed.
	// Records, their bodies and recs belong to the log until Logged is called. After an error it is not called.
	Send(order *Order, receipt Receipt, recs ...*Record) error
	// AppendedLSN returns the LSN of the last record that was handed to the storage.
	AppendedLSN() LSN
	// DurableLSN returns the LSN up to which everything survives a power loss.
	DurableLSN() LSN
	// WaitDurable blocks until the LSN, which Append or Replay gave, is durable. It has the log synced at once.
	WaitDurable(ctx context.Context, lsn LSN) error
	// Err returns why the log is poisoned, nil when it is not.
	Err() error
	// Trim tells that no replay will ask for records at or below an LSN. Segments without others are used again.
	Trim(upTo LSN) error
	// Close writes and syncs what was appended, and ends the log. It returns the poison, if there is any.
	Close() error
}

// Receipt is told what became of records that were sent.
type Receipt interface {
	// Logged gets the LSN of the last record, or why none of them was appended. It is called by the log's goroutine, under
	// no lock, must return soon and must not call the log.
	Logged(last LSN, err error)
}

// Order ties calls of Send together: once one has failed, those behind it fail with its error, so that no later part of a
// stream is there without an earlier one. The zero value is ready to use.
type Order struct {
	err error // belongs to the log's goroutine
}

const (
	// maxGroupBytes bounds a group: offsets in a segment have 32 bits, and a reader holds a group in memory.
	maxGroupBytes = 1 << 30
	// defaultSegmentBytes makes a change of segments, which waits for a sync, rare: once in 64 ms at 1 GB/s.
	defaultSegmentBytes = 64 << 20
	minSegmentBytes     = 8 << 10
	maxSegmentBytes     = 1 << 30
	// defaultSpares is enough to take up all segments that the flush of a memtable of 256 MiB gives back.
	defaultSpares = 4
	// defaultInterval costs ten syncs a second, which no disk feels, and a power cut a tenth of a second.
	defaultInterval = 100 * time.Millisecond
)

// Options configure a Local. The zero value of each field is its default, except for Dir.
type Options struct {
	// Dir is the folder of the log. It is created when it is missing. Whoever opens a log must be the only one.
	Dir string
	// End is what Replay of Dir returned. Open continues there.
	End State
	// After is an LSN that was given in the past, whether or not the log still has it. All new ones are above it.
	After LSN
	// SegmentBytes is the size of a segment, 8 KiB to 1 GiB. Default 64 MiB.
	SegmentBytes int64
	// Interval is how long buffered records may stay unsynced when nobody waits. Default 100 ms.
	Interval time.Duration
	// Spares is how many trimmed segments are kept for use. Default 4; less than zero keeps none.
	Spares int
	// Appended is called with each written group, one after the other in the order of the LSNs, by the log goroutine or in a
	// call of Append, before Append returns and before Durable is called for them. The slice is valid only during the call.
	// It must not call the log.
	Appended func(recs []*Record)
	// Durable is called when the durable position has risen, by the sync goroutine or in a call of WaitDurable, never twice
	// at once. It must not wait for the log.
	Durable func(LSN)
	// Checkpoint returns what every segment begins with, so that Trim forgets nothing of it; nil is nothing. It is called
	// whenever a segment is entered, after Appended has returned for all records before, by the log goroutine and by
	// Open, and under no lock. It must not call the log, and should be small beside a segment. Appended does not get it.
	Checkpoint func() *Record
	// Poisoned is called once, when the log is poisoned. It must not call the log.
	Poisoned func(error)
	// Logger takes what an operator may want to know. Default: nothing is logged.
	Logger *slog.Logger
}

// validate fills in defaults and refuses what cannot be.
func (o *Options) validate() error {
	if o.Dir == "" {
		return errors.New("wal: Options.Dir is empty: name the log's folder")
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes || o.SegmentBytes%groupAlign != 0 {
		return fmt.Errorf("wal: Options.SegmentBytes is %d: it must be a multiple of %d from %d to %d",
			o.SegmentBytes, groupAlign, minSegmentBytes, maxSegmentBytes)
	}
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Interval < 0 {
		return fmt.Errorf("wal: Options.Interval is %s: it must be more than nothing", o.Interval)
	}
	switch {
	case o.Spares == 0:
		o.Spares = defaultSpares
	case o.Spares < 0:
		o.Spares = 0
	}
	if o.Appended == nil {
		o.Appended = func([]*Record) {}
	}
	if o.Durable == nil {
		o.Durable = func(LSN) {}
	}
	if o.Checkpoint == nil {
		o.Checkpoint = func() *Record { return nil }
	}
	if o.Poisoned == nil {
		o.Poisoned = func(error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
