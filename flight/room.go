package flight

import (
	"context"
	"sync"
	"time"
)

const (
	// freeMessage is the size up to which messages are received without asking: a stream's window lets as much come in
	// before anybody reads it.
	freeMessage = 1 << 20
	// roomLook is how often who waits for room looks whether others rest.
	roomLook = 20 * time.Millisecond
	// roomResting is how long a message may be on its way before its room is given to others: its client has nothing to
	// send, or is slow. At most what the share has is let in beyond it in that time.
	roomResting = 500 * time.Millisecond
)

// room is the memory for large messages on their way in: gRPC's frames and the body that is joined from them. A stream
// takes what its next message is expected to need before it reads it, and what is not read stays with the client. Who sends
// and who has opened a stream and rests cannot be told apart but by waiting.
//
// INVARIANT: what has come gives its room back without anybody else's help: it waits for a flush, at most.
type room struct {
	share int64

	mu sync.Mutex
	// used is what messages have that are there, or are on their way and do not rest.
	used    int64
	flights map[*flying]struct{} // those on their way that do not rest
	freed   chan struct{}        // closed and replaced when room comes back
}

// flying is the room of a message that is on its way.
type flying struct {
	bytes int64
	since time.Time
}

// newRoom returns room, nil when nothing bounds it.
func newRoom(share int64) *room {
	if share <= 0 {
		return nil
	}
	return &room{share: share, flights: make(map[*flying]struct{}), freed: make(chan struct{})}
}

// take takes n bytes for a message, and waits until there are as many. A message that is larger than the share comes alone.
func (r *room) take(ctx context.Context, n int64) (*flying, error) {
	for {
		f, freed := r.try(n)
		if f != nil {
			return f, nil
		}
		timer := time.NewTimer(roomLook)
		select {
		case <-freed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// try takes n bytes, or returns a channel that is closed when room comes back.
func (r *room) try(n int64) (*flying, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.used > 0 && r.used+n > r.share {
		for f := range r.flights {
			if now.Sub(f.since) >= roomResting {
				delete(r.flights, f)
				r.used -= f.bytes
			}
		}
	}
	if r.used > 0 && r.used+n > r.share {
		return nil, r.freed
	}
	f := &flying{n, now}
	r.flights[f] = struct{}{}
	r.used += n
	return f, nil
}

// came says that a message is there and takes some bytes, or that none will come.
func (r *room) came(f *flying, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.used
	if _, ok := r.flights[f]; ok {
		delete(r.flights, f)
		r.used -= f.bytes
	}
	if r.used += bytes; r.used < before {
		r.tellLocked()
	}
}

// give gives n bytes back.
func (r *room) give(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used -= n
	r.tellLocked()
}

// tellLocked wakes those who wait. REQUIRES: r.mu is held.
func (r *room) tellLocked() {
	close(r.freed)
	r.freed = make(chan struct{})
}

// makeRoom waits for the room that the next message is expected to need: two times the largest one so far, as its frames and
// its body are there together, or half of the share before the first. What the message before it took is given back: the
// table counts what it keeps.
func (r *batchReader) makeRoom() error {
	if r.room == nil {
		return nil
	}
	r.leaveRoom()
	n := 2 * r.largest
	if r.largest == 0 {
		n = r.room.share / 2
	}
	if n <= 2*freeMessage {
		return nil
	}
	var err error
	r.flying, err = r.room.take(r.stream.Context(), n)
	return err
}

// fillRoom notes the message that came, nil when none did.
func (r *batchReader) fillRoom(m *message) {
	size := int64(0)
	if m != nil && m.body != nil {
		size = int64(m.body.Len())
		r.largest = max(r.largest, size)
	}
	if r.flying != nil {
		r.room.came(r.flying, size)
		r.flying, r.taken = nil, size
	}
}

// leaveRoom gives back what the last message took.
func (r *batchReader) leaveRoom() {
	if r.taken > 0 {
		r.room.give(r.taken)
		r.taken = 0
	}
}
