package flight

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/flightd/flightd/query"
)

const (
	// leaseTime is how long the tickets of a flight with several endpoints can be read, unless they are renewed.
	leaseTime = 5 * time.Minute
	// DefaultPartitionRows is about how many rows of a table an endpoint has unless Options say otherwise: enough that
	// the call costs nothing beside them.
	DefaultPartitionRows = 1 << 20
	// maxEndpoints bounds the endpoints of a flight. Clients such as ADBC open all of them at once.
	maxEndpoints = 16
	// maxLeases bounds the flights that wait to be read; each holds a snapshot.
	maxLeases = 1024
)

// lease is a flight of several endpoints. Its snapshot stays until it expires or is cancelled, also after its session,
// because the tickets are made to be read by others: Spark's driver plans, and its workers read.
type lease struct {
	id    string
	parts *query.Partitions

	// What follows is guarded by leases.mu.
	expires time.Time
	unread  map[int]struct{} // parts that nobody has read to the end
}

// leases are the flights whose tickets can be read.
type leases struct {
	mu   sync.Mutex
	byID map[string]*lease
}

func newLeases() *leases { return &leases{byID: make(map[string]*lease)} }

// add takes over the parts of a query.
func (r *leases) add(parts *query.Partitions, now time.Time) *lease {
	l := &lease{id: rand.Text(), parts: parts, expires: now.Add(leaseTime), unread: make(map[int]struct{})}
	for i := range parts.Count() {
		l.unread[i] = struct{}{}
	}
	r.mu.Lock()
	full := len(r.byID) >= maxLeases
	r.byID[l.id] = l
	r.mu.Unlock()
	if full {
		r.dropOne()
	}
	return l
}

// find returns a lease.
func (r *leases) find(id string) (*lease, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.byID[id]; l != nil {
		return l, nil
	}
	return nil, notFound("the ticket has expired, was cancelled, or its snapshot was given up because writers needed the memory; run the query again")
}

// done notes that a part was read to its end.
func (r *leases) done(l *lease, part int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(l.unread, part)
}

// renew makes a lease last from now on.
func (r *leases) renew(l *lease, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.expires = now.Add(leaseTime)
	return l.expires
}

// drop ends a lease; results that are being read go on.
func (r *leases) drop(id string) bool {
	return r.dropWhere(func(l *lease) bool { return l.id == id }) > 0
}

// expire ends the leases whose time is over.
func (r *leases) expire(now time.Time) {
	r.dropWhere(func(l *lease) bool { return !now.Before(l.expires) })
}

// dropOne ends the lease that will be missed least: one that was read to the end, else the one that expires first. It
// says whether there was one.
func (r *leases) dropOne() bool {
	r.mu.Lock()
	var least *lease
	for _, l := range r.byID {
		if least == nil || l.before(least) {
			least = l
		}
	}
	r.mu.Unlock()
	return least != nil && r.drop(least.id)
}

// before orders leases by how little they will be missed. REQUIRES: leases.mu is held.
func (l *lease) before(other *lease) bool {
	if read, otherRead := len(l.unread) == 0, len(other.unread) == 0; read != otherRead {
		return read
	}
	return l.expires.Before(other.expires)
}

// dropWhere ends the leases that match and says how many these were.
func (r *leases) dropWhere(match func(*lease) bool) int {
	r.mu.Lock()
	gone := takeWhere(r.byID, match)
	r.mu.Unlock()
	for _, l := range gone {
		l.parts.Release()
	}
	return len(gone)
}

// leasedInfo describes a result in parts, one for each endpoint.
func (s *service) leasedInfo(schema *arrow.Schema, d *flight.FlightDescriptor, parts *query.Partitions) (*flight.FlightInfo, error) {
	l := s.leases.add(parts, time.Now())
	expires := timestamppb.New(l.expires)
	info := newInfo(schema, d, nil)
	info.Endpoint = nil
	for part := range parts.Count() {
		ticket, err := packTicket(queryTicket{lease: l.id, part: part})
		if err != nil {
			s.leases.drop(l.id)
			return nil, err
		}
		info.Endpoint = append(info.Endpoint, &flight.FlightEndpoint{Ticket: &flight.Ticket{Ticket: ticket}, ExpirationTime: expires})
	}
	return info, nil
}

// renewEndpoint answers RenewFlightEndpoint. Tickets that do not expire come back as they are.
func (s *service) renewEndpoint(e *flight.FlightEndpoint) (*flight.FlightEndpoint, error) {
	t, err := ticketOf(e.GetTicket().GetTicket())
	if err != nil {
		return nil, err
	}
	renewed := &flight.FlightEndpoint{Ticket: e.GetTicket(), Location: slices.Clone(e.GetLocation()), AppMetadata: e.GetAppMetadata()}
	if t.lease == "" {
		return renewed, nil
	}
	l, err := s.leases.find(t.lease)
	if err != nil {
		return nil, err
	}
	renewed.ExpirationTime = timestamppb.New(s.leases.renew(l, time.Now()))
	return renewed, nil
}
