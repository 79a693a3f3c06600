package flight

import (
	"context"
	"fmt"
	"sync"

	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
)

// errCancelled ends a query that CancelFlightInfo names.
var errCancelled = fmt.Errorf("the query was ended by CancelFlightInfo: %w", context.Canceled)

// runningQueries finds the queries that read a ticket at the moment, for CancelFlightInfo.
type runningQueries struct {
	mu sync.Mutex
	// byTicket has an entry per ticket that is being read, and in it one per reader.
	byTicket map[string]map[*context.CancelCauseFunc]struct{}
}

func newRunningQueries() *runningQueries {
	return &runningQueries{byTicket: make(map[string]map[*context.CancelCauseFunc]struct{})}
}

// begin returns a context that cancelling the ticket ends. done must be called when the query has ended.
func (r *runningQueries) begin(ctx context.Context, ticket []byte) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	key := string(ticket)
	r.mu.Lock()
	defer r.mu.Unlock()
	readers := r.byTicket[key]
	if readers == nil {
		readers = make(map[*context.CancelCauseFunc]struct{})
		r.byTicket[key] = readers
	}
	readers[&cancel] = struct{}{}
	return ctx, func() {
		r.mu.Lock()
		delete(readers, &cancel)
		if len(readers) == 0 {
			delete(r.byTicket, key)
		}
		r.mu.Unlock()
		cancel(nil)
	}
}

// cancel ends the queries that read a ticket and says how many these were.
func (r *runningQueries) cancel(ticket []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	readers := r.byTicket[string(ticket)]
	for cancel := range readers {
		(*cancel)(errCancelled)
	}
	return len(readers)
}

// cancelInfo ends the queries that read the endpoints of a flight.
func (s *service) cancelInfo(info *pb.FlightInfo) error {
	found := 0
	for _, endpoint := range info.GetEndpoint() {
		found += s.running.cancel(endpoint.GetTicket().GetTicket())
	}
	if found == 0 {
		return notFound("no query of this flight is running; it has ended, or its result was not asked for")
	}
	return nil
}
