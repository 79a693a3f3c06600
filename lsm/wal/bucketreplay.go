package wal

import (
	"container/heap"
	"context"
	"errors"
	"fmt"

	"github.com/flightd/flightd/object"
)

// Reads of a replay that are under way at once, of each stream and of all.
const (
	streamReads = 8
	bucketReads = 32
)

// ReplayStreams calls fn with the records of streams that were fenced, merged in the order of their LSNs. prefix is what
// the body of a batch begins with, given the header of its IPC message. The record and its body are valid only during fn;
// an error of fn ends the replay.
//
// Between Stream.After and the sentinel each position has an entry, so one that is missing, and bytes that are not what was
// written, are damage: an object.CorruptError. So is an entry of a program that does not write records of flightd.
func ReplayStreams(ctx context.Context, st object.Store, streams []*Stream, prefix func(meta []byte) []byte, fn func(*Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	limit := make(chan struct{}, bucketReads)
	var h recordHeap
	defer func() {
		cancel()
		for _, f := range h {
			f.drain()
		}
	}()
	for _, s := range streams {
		s.stored, s.checked = nil, stored{}
		f := &streamFeed{ctx: ctx, st: st, stream: s, end: s.next - 1, limit: limit, prefix: prefix, ask: s.After}
		ok, err := f.advance()
		if ok || err != nil {
			h = append(h, f)
		}
		if err != nil {
			return err
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		f := h[0]
		r := &f.recs[0]
		if err := fn(r); err != nil {
			return fmt.Errorf("replay log record %s: %w", r.LSN, err)
		}
		f.recs = f.recs[1:]
		ok, err := f.advance()
		switch {
		case err != nil:
			return err
		case ok:
			heap.Fix(&h, 0)
		default:
			heap.Pop(&h)
		}
	}
	return nil
}

// streamFeed reads one stream ahead.
type streamFeed struct {
	ctx    context.Context
	st     object.Store
	stream *Stream
	// end is the last position, ask the last that was asked for.
	end, ask uint64
	limit    chan struct{}
	prefix   func([]byte) []byte
	reads    []chan fetched
	// recs are the records that are not given yet; last is the one before them.
	recs []Record
	last LSN
}

// fetched is an entry that was read, or could not be.
type fetched struct {
	readEntry
	err error
}

// advance makes sure that there is a record to give, and tells whether there is.
func (f *streamFeed) advance() (bool, error) {
	for len(f.recs) == 0 {
		for f.ask < f.end && len(f.reads) < streamReads {
			f.ask++
			f.reads = append(f.reads, f.fetch(f.ask))
		}
		if len(f.reads) == 0 {
			return false, nil
		}
		e := <-f.reads[0]
		f.reads = f.reads[1:]
		if e.err != nil {
			return false, e.err
		}
		name := f.stream.entryPath(e.position)
		switch {
		case !e.own && !e.sentinel:
			return false, &object.CorruptError{Name: name, Err: errors.New("it is the log entry of another program, in a shard that is flightd's")}
		case len(e.records) > 0 && e.records[0].LSN <= f.last:
			return false, &object.CorruptError{Name: name, Err: fmt.Errorf("it begins with record %s, the entry before ends with %s", e.records[0].LSN, f.last)}
		}
		f.recs = e.records
		f.last = max(f.last, e.last)
		f.stream.note(e.stored)
		if e.checkpoint > 0 {
			f.stream.checked = e.stored
		}
	}
	return true, nil
}

// fetch reads an entry in a goroutine of its own.
func (f *streamFeed) fetch(position uint64) chan fetched {
	out := make(chan fetched, 1)
	go func() {
		var e fetched
		select {
		case f.limit <- struct{}{}:
			e.readEntry, e.err = loadEntry(f.ctx, f.st, f.stream, position, f.prefix)
			<-f.limit
		case <-f.ctx.Done():
			e.err = context.Cause(f.ctx)
		}
		e.position = position
		out <- e
	}()
	return out
}

// drain waits for the reads that are under way.
func (f *streamFeed) drain() {
	for _, r := range f.reads {
		<-r
	}
}

// loadEntry reads the entry at a position.
func loadEntry(ctx context.Context, st object.Store, s *Stream, position uint64, prefix func([]byte) []byte) (readEntry, error) {
	name := s.entryPath(position)
	b, err := st.Get(ctx, name)
	if errors.Is(err, object.ErrNotExist) {
		return readEntry{}, &object.CorruptError{Name: name, Err: fmt.Errorf("the entry is missing, and later ones are there: %w", err)}
	}
	if err != nil {
		return readEntry{}, fmt.Errorf("read the log: %w", err)
	}
	e, err := decodeEntry(name, b, prefix)
	e.position = position
	return e, err
}

// recordHeap orders feeds by the LSN of their next record.
type recordHeap []*streamFeed

// Len implements heap.Interface.
func (h recordHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h recordHeap) Less(i, j int) bool { return h[i].recs[0].LSN < h[j].recs[0].LSN }

// Swap implements heap.Interface.
func (h recordHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *recordHeap) Push(x any) { *h = append(*h, x.(*streamFeed)) }

// Pop implements heap.Interface.
func (h *recordHeap) Pop() any {
	old := *h
	f := old[len(old)-1]
	*h = old[:len(old)-1]
	return f
}
