package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/object"
)

// LanceEntry is a log entry that another MemWAL writer left, Lance's own as a rule: an Arrow IPC stream without checksums.
type LanceEntry struct {
	// Position is its place in the stream.
	Position uint64
	// Epoch is that of the claim under which it was written.
	Epoch uint64
	// Generation is the number of the memtable that the rows went to, 0 when the writer did not say.
	Generation uint64
	// Sentinel is true of an entry without rows, which a claim put there.
	Sentinel bool
	// Schema is that of the batches, nil in a sentinel.
	Schema *arrow.Schema
	// Batches are its rows, in order, on the Go heap.
	Batches []arrow.RecordBatch
}

// Release lets go of the batches.
func (e *LanceEntry) Release() {
	for _, b := range e.Batches {
		b.Release()
	}
	e.Batches = nil
}

// Rows counts the rows of all batches.
func (e *LanceEntry) Rows() (n int64) {
	for _, b := range e.Batches {
		n += b.NumRows()
	}
	return n
}

// EntryPosition returns the position in the name of an entry, and false for a name that is none's.
func EntryPosition(name string) (position uint64, ok bool) { return parseEntryName(name) }

// EntryName returns the name of the entry at a position.
func EntryName(position uint64) string { return entryName(position) }

// Sentinel returns the position of the sentinel that Fence put. REQUIRES: Fence returned nil.
func (s *Stream) Sentinel() uint64 { return s.next - 1 }

// ReadLanceEntry reads the entry of another writer from an object. The caller releases it. Bytes that are no such entry,
// and an entry that flightd wrote with records of its own, are an object.CorruptError.
func ReadLanceEntry(ctx context.Context, st object.Store, name string, position uint64) (*LanceEntry, error) {
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	e, err := decodeLanceEntry(b)
	if err != nil {
		return nil, &object.CorruptError{Name: name, Err: err}
	}
	e.Position = position
	return e, nil
}

// decodeLanceEntry reads an entry's bytes. No length in them is used before it is held against their number, and all
// offsets in the arrays are verified: what follows gives them to code that does not look.
func decodeLanceEntry(b []byte) (e *LanceEntry, err error) {
	e = &LanceEntry{}
	defer func() {
		// Flatbuffers are read without looking whether they can be.
		if r := recover(); r != nil {
			err = fmt.Errorf("it is no Arrow IPC stream: %v", r)
		}
		if err != nil {
			e.Release()
		}
	}()
	if own, err := verifyEntry(b); err != nil {
		return e, err
	} else if own {
		return e, decodeOwnSentinel(e, b)
	}
	if err := walkMessages(b); err != nil {
		return e, err
	}
	mem := &cappedAllocator{left: int64(len(b))*entryGrowth + entrySlack}
	reader, err := ipc.NewReader(bytes.NewReader(b), ipc.WithAllocator(mem))
	if err != nil {
		return e, err
	}
	defer reader.Release()
	if err := e.readMetadata(reader.Schema().Metadata()); err != nil {
		return e, err
	}
	for reader.Next() {
		rec := reader.RecordBatch()
		if e.Sentinel {
			return e, errors.New("it is a fence sentinel and has rows")
		}
		for i, c := range rec.Columns() {
			if err := array.ValidateFull(c); err != nil {
				return e, fmt.Errorf("column %q: %w", rec.ColumnName(i), err)
			}
		}
		rec.Retain()
		e.Batches = append(e.Batches, rec)
	}
	if !e.Sentinel {
		e.Schema = reader.Schema()
	}
	return e, reader.Err()
}

// decodeOwnSentinel reads an entry of flightd's, which must be a sentinel: a take-over that a crash cut off has left it.
func decodeOwnSentinel(e *LanceEntry, b []byte) error {
	own, err := decodeEntry("", b, func([]byte) []byte { return nil })
	if err != nil {
		return err
	}
	if !own.sentinel {
		return errors.New("it is a log entry of another flightd, which has records that only that one can replay")
	}
	e.Epoch, e.Sentinel = own.epoch, true
	return nil
}

// readMetadata reads what the schema's metadata say of the entry.
func (e *LanceEntry) readMetadata(md arrow.Metadata) (err error) {
	text, ok := md.GetValue(metaEpoch)
	if !ok {
		return fmt.Errorf("its schema does not tell the %s", metaEpoch)
	}
	if e.Epoch, err = strconv.ParseUint(text, 10, 64); err != nil {
		return fmt.Errorf("%s: %w", metaEpoch, err)
	}
	if text, ok := md.GetValue(metaGeneration); ok {
		if e.Generation, err = strconv.ParseUint(text, 10, 64); err != nil {
			return fmt.Errorf("%s: %w", metaGeneration, err)
		}
	}
	text, _ = md.GetValue(metaSentinel)
	e.Sentinel = text == "true"
	return nil
}

// walkMessages verifies that an object is a chain of whole IPC messages with an end.
func walkMessages(b []byte) error {
	rest := b
	for {
		var end bool
		var err error
		var m message
		at := len(b) - len(rest)
		if m, rest, end, err = nextMessage(rest); err == nil && !end {
			err = checkSchema(m.meta)
		}
		if err != nil {
			return fmt.Errorf("byte %d: %w", at, err)
		}
		if end {
			if len(rest) > 0 {
				return fmt.Errorf("byte %d: %d bytes follow the end of the stream", len(b)-len(rest), len(rest))
			}
			return nil
		}
	}
}

// What an entry may take in memory, given its size: Lance writes entries without compression, but a reader of Arrow
// decompresses what says that it is compressed, to a size that it tells by itself.
const (
	entryGrowth = 8
	entrySlack  = 1 << 20
)

// cappedAllocator is memory of the Go heap, up to a limit, at which it panics: Arrow's allocators cannot fail otherwise.
type cappedAllocator struct {
	memory.GoAllocator
	left int64
}

// Allocate implements memory.Allocator.
func (a *cappedAllocator) Allocate(size int) []byte {
	if a.left -= int64(size); a.left < 0 {
		panic("it asks for more memory than an entry of its size can need")
	}
	return a.GoAllocator.Allocate(size)
}

// Reallocate implements memory.Allocator.
func (a *cappedAllocator) Reallocate(size int, b []byte) []byte {
	if a.left -= int64(size - len(b)); a.left < 0 {
		panic("it asks for more memory than an entry of its size can need")
	}
	return a.GoAllocator.Reallocate(size, b)
}
