package wal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/flightd/flightd/object"
)

// ErrFenced comes with ErrPoisoned when another process has taken a stream over. It is final for this one.
var ErrFenced = errors.New("another process writes this log now")

// Stream is the part of a log in its bucket form that is one shard's, or the catalog's: a folder of entries, numbered from
// 1. Before the log has it, it belongs to who opens it; then to the log.
type Stream struct {
	// ID is the shard's, uuid.Nil for the stream of the catalog.
	ID uuid.UUID
	// Dir is the folder of the entries.
	Dir string
	// Epoch is that of the shard's claim: entries have it, and one with a higher epoch ends this writer.
	Epoch uint64
	// After is the position up to which no entry is needed any more.
	After uint64
	// Generation is the number of the memtable that the records go to, for other readers.
	Generation atomic.Uint64

	// next is where the next entry goes. It belongs to the log's put goroutine.
	next uint64
	// stored are the entries behind After, in order, and floor is After as it rises. Both are guarded by Bucket.mu once
	// the log has the stream.
	stored []stored
	floor  uint64
	// checked is the last entry with a checkpoint of keys; only the catalog's stream has one. Guarded like stored.
	checked stored
	// rest are objects at or below After that were there when the stream was fenced; Trim looks at them once.
	rest []object.Info
}

// maxSentinels bounds how often a sentinel finds its place taken: by writers before, which collide with each other or
// with it soon, and by others that claim at the same time.
const maxSentinels = 1024

// Fence puts a sentinel at the end of the stream, so that whoever wrote it before collides there and stops.
//
// REQUIRES: the shard's claim with Epoch was published before, and after Fence the caller looks whether it still is the
// newest: only then nobody who claimed later can have read the stream up to a sentinel of his below ours.
//
// INVARIANT: sentinels are never removed. A writer that was overtaken and knows nothing of it, however long it slept, writes
// its next entry where the sentinel of one of its successors is.
func (s *Stream) Fence(ctx context.Context, st object.Store) error {
	if err := s.Find(ctx, st); err != nil {
		return err
	}
	data, err := sealSentinel(s.Epoch)
	if err != nil {
		return err
	}
	for range maxSentinels {
		name := s.entryPath(s.next)
		err := st.PutIfAbsent(ctx, name, data)
		if errors.Is(err, object.ErrExists) {
			if b, got := st.Get(ctx, name); got == nil && bytes.Equal(b, data) {
				err = nil // ours, and only the answer was lost
			}
		}
		if err == nil {
			s.note(stored{position: s.next, sentinel: true})
			s.next++
			return nil
		}
		if !errors.Is(err, object.ErrExists) {
			return fmt.Errorf("put a sentinel into log %s: %w", s.Dir, err)
		}
		s.next++
	}
	return fmt.Errorf("put a sentinel into log %s: %d places in a row were taken by others", s.Dir, maxSentinels)
}

// Find finds the end of the stream. It is for who only reads: a writer fences.
func (s *Stream) Find(ctx context.Context, st object.Store) error {
	list, err := st.List(ctx, s.Dir)
	if err != nil {
		return fmt.Errorf("find the end of log %s: %w", s.Dir, err)
	}
	s.floor, s.next, s.rest = s.After, s.After+1, nil
	for _, x := range list {
		p, ok := parseEntryName(x.Name)
		switch {
		case !ok:
		case p <= s.After:
			s.rest = append(s.rest, x)
		default:
			s.next = max(s.next, p+1)
		}
	}
	return nil
}

// note adds an entry that is in the store.
func (s *Stream) note(e stored) { s.stored = append(s.stored, e) }

// covered returns the position up to which all entries end at or below an LSN, and the LSN of the last news of keys in
// them. The last checkpoint of keys is needed whatever the LSN.
func (s *Stream) covered(lsn LSN) (position uint64, keys LSN) {
	position = s.floor
	for _, e := range s.stored {
		if e.last > lsn || s.checked.position > 0 && e.position >= s.checked.position {
			break
		}
		position, keys = max(position, e.position), max(keys, e.keys)
	}
	return position, keys
}

// removable takes the entries out of the list that nobody needs: those up to the floor that end at or below an LSN.
func (s *Stream) removable(upTo LSN) []stored {
	var out []stored
	s.stored = slices.DeleteFunc(s.stored, func(e stored) bool {
		if e.position > s.floor || e.last > upTo {
			return false
		}
		if !e.sentinel {
			out = append(out, e)
		}
		return true
	})
	return out
}

// restore puts entries back that could not be removed.
func (s *Stream) restore(list []stored) {
	s.stored = append(s.stored, list...)
	slices.SortFunc(s.stored, func(a, b stored) int { return cmp.Compare(a.position, b.position) })
}
