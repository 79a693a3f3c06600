package flight

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/flightd/flightd/query"
)

const (
	// returnedFor is how long the rows of a statement that changed something can be read.
	returnedFor = 5 * time.Minute
	// maxReturned bounds how many of them wait. Each holds 64 KiB of memory at most; what is more lies in a file.
	maxReturned = 1024
)

// returnedRows holds what statements with RETURNING returned. Such a statement runs once, when its FlightInfo is asked
// for; reading its ticket, as often as one likes, only reads these rows.
type returnedRows struct {
	max int // how many wait

	mu sync.Mutex
	// order has the handles, oldest first.
	order    []string
	byHandle map[string]*returnedEntry
}

// returnedEntry is the rows of one statement.
type returnedEntry struct {
	rows  *query.Rows
	read  bool // by somebody, to the end
	timer *time.Timer
}

func newReturnedRows() *returnedRows {
	return &returnedRows{max: maxReturned, byHandle: make(map[string]*returnedEntry)}
}

// add takes over rows and returns their handle. When too many wait, the oldest go that somebody has read, or else the
// oldest.
func (r *returnedRows) add(rows *query.Rows) string {
	handle := rand.Text()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) >= r.max {
		gone := r.order[0]
		for _, h := range r.order {
			if r.byHandle[h].read {
				gone = h
				break
			}
		}
		r.removeLocked(gone)
	}
	r.byHandle[handle] = &returnedEntry{rows: rows, timer: time.AfterFunc(returnedFor, func() { r.remove(handle) })}
	r.order = append(r.order, handle)
	return handle
}

// get returns the rows of a handle, nil when they are gone.
func (r *returnedRows) get(handle string) *query.Rows {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byHandle[handle]; e != nil {
		return e.rows
	}
	return nil
}

// markRead notes that somebody has all rows.
func (r *returnedRows) markRead(handle string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byHandle[handle]; e != nil {
		e.read = true
	}
}

// remove lets rows go; those who read them read on.
func (r *returnedRows) remove(handle string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(handle)
}

func (r *returnedRows) removeLocked(handle string) {
	e := r.byHandle[handle]
	if e == nil {
		return
	}
	e.timer.Stop()
	e.rows.Close()
	delete(r.byHandle, handle)
	for i, h := range r.order {
		if h == handle {
			r.order = append(r.order[:i], r.order[i+1:]...)
			break
		}
	}
}

// closeAll lets all rows go.
func (r *returnedRows) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 {
		r.removeLocked(r.order[0])
	}
}

// runReturning runs a statement that changes rows and returns them, and describes what it returned.
func (s *service) runReturning(ctx context.Context, statement *query.Statement, params arrow.RecordBatch, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	rows, err := statement.Run(ctx, params)
	if err != nil {
		return nil, cause(ctx, err)
	}
	return s.returnedInfo(rows, d)
}

// returnedInfo describes rows that are there, and takes them over.
func (s *service) returnedInfo(rows *query.Rows, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	expires := time.Now().Add(returnedFor)
	ticket, err := packTicket(queryTicket{returned: s.returned.add(rows)})
	if err != nil {
		return nil, err
	}
	info := newInfo(describeResult(rows.Schema()), d, ticket)
	info.Endpoint[0].ExpirationTime = timestamppb.New(expires)
	return info, nil
}

// getReturned streams what a statement returned.
func (s *service) getReturned(stream pb.FlightService_DoGetServer, handle string) error {
	rows := s.returned.get(handle)
	if rows == nil {
		return notFound("the rows that the statement returned are gone: they can be read for %s, and many statements came since", returnedFor)
	}
	schema := describeResult(rows.Schema())
	out := newSender(stream, schema)
	err := rows.Read(func(record arrow.RecordBatch) error {
		if err := stream.Context().Err(); err != nil {
			return context.Cause(stream.Context())
		}
		described := array.NewRecordBatch(schema, record.Columns(), record.NumRows())
		defer described.Release()
		return out.send(described)
	})
	if err != nil {
		return err
	}
	s.returned.markRead(handle)
	return out.close()
}
