package flight

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// errCancelled ends a query that CancelFlightInfo names.
var errCancelled = fmt.Errorf("the query was ended by CancelFlightInfo: %w", context.Canceled)

// stallBeforeCut is how long a reader must have taken nothing before its query is ended for the memory that it holds.
const stallBeforeCut = 10 * time.Second

// runningQueries are the queries that are being read at the moment. It finds them by their ticket, for
// CancelFlightInfo, and those whose readers have stalled.
type runningQueries struct {
	mu sync.Mutex
	// byTicket has an entry per ticket that is being read, and in it one per reader.
	byTicket map[string]map[*reading]struct{}
}

func newRunningQueries() *runningQueries {
	return &runningQueries{byTicket: make(map[string]map[*reading]struct{})}
}

// reading is one read of a ticket.
type reading struct {
	cancel context.CancelCauseFunc
	// blocked is when the message was handed to gRPC that the client has no room for yet, in nanoseconds of Unix time;
	// 0 while the server computes.
	blocked atomic.Int64
}

// begin returns a context that cancelling the ticket ends. done must be called when the query has ended.
func (r *runningQueries) begin(ctx context.Context, ticket []byte) (_ context.Context, read *reading, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	key := string(ticket)
	read = &reading{cancel: cancel}
	r.mu.Lock()
	defer r.mu.Unlock()
	readers := r.byTicket[key]
	if readers == nil {
		readers = make(map[*reading]struct{})
		r.byTicket[key] = readers
	}
	readers[read] = struct{}{}
	return ctx, read, func() {
		r.mu.Lock()
		delete(readers, read)
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
	for read := range readers {
		read.cancel(errCancelled)
	}
	return len(readers)
}

// cutStalled ends the queries whose readers have taken nothing for the time of idle.
func (r *runningQueries) cutStalled(now time.Time, idle time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, readers := range r.byTicket {
		for read := range readers {
			if read.stalled(now) >= idle {
				read.cancel(aborted("the client took nothing of the result for %v, and a result that is not read holds memory; "+
					"run the query again and read it as it comes", idle))
			}
		}
	}
}

// cutLongest ends the query whose reader has stalled for longest, if any has for some time.
func (r *runningQueries) cutLongest(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var longest *reading
	for _, readers := range r.byTicket {
		for read := range readers {
			if longest == nil || read.stalled(now) > longest.stalled(now) {
				longest = read
			}
		}
	}
	if longest != nil && longest.stalled(now) >= stallBeforeCut {
		longest.cancel(&refusal{codes.ResourceExhausted, fmt.Errorf("the client took nothing of the result for %v, while writers "+
			"waited for the memory that its snapshot holds; run the query again and read it as it comes", stallBeforeCut)})
	}
}

// stalled returns for how long the reader has taken nothing.
func (read *reading) stalled(now time.Time) time.Duration {
	since := read.blocked.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// watchedStream notes when its messages wait for the client.
type watchedStream struct {
	pb.FlightService_DoGetServer
	read *reading
}

// SendMsg implements grpc.ServerStream.
func (w watchedStream) SendMsg(m any) error {
	w.read.blocked.Store(time.Now().UnixNano())
	defer w.read.blocked.Store(0)
	return w.FlightService_DoGetServer.SendMsg(m)
}

// serveResult runs work, which sends a result to stream. It runs in a goroutine of its own, because a message that the
// client does not take cannot be called back: when the query ends before its time the call answers at once, which
// frees that goroutine.
func (s *service) serveResult(stream pb.FlightService_DoGetServer, ticket []byte, work func(context.Context, grpc.ServerStream) error) error {
	ctx, read, done := s.running.begin(stream.Context(), ticket)
	result := make(chan error, 1)
	s.start("DoGet", func() error {
		return work(ctx, watchedStream{stream, read})
	}, func(err error) {
		result <- err
		done() // INVARIANT: the result is there before the context ends by it
	})
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-result:
		return err
	default:
		return context.Cause(ctx)
	}
}

// cancelInfo ends the queries that read the endpoints of a flight, its lease, and the statement in the background.
func (s *service) cancelInfo(info *pb.FlightInfo) error {
	found := 0
	if id, err := jobID(info.GetAppMetadata()); err == nil {
		found += s.jobs.endWhere(errCancelled, func(j *job) bool { return j.id == id })
	}
	for _, endpoint := range info.GetEndpoint() {
		ticket := endpoint.GetTicket().GetTicket()
		if t, err := ticketOf(ticket); err == nil && t.lease != "" && s.leases.drop(t.lease) {
			found++
		}
		found += s.running.cancel(ticket)
	}
	if found == 0 {
		return notFound("no query of this flight is running; it has ended, or its result was not asked for")
	}
	return nil
}
