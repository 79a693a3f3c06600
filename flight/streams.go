package flight

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// Kinds of streams of rows: acknowledged batch by batch, or taking effect at their end.
const (
	streamByBatch = "stream"
	streamWhole   = "whole"
)

// What a stream waits for, see query.StreamStats.
const (
	waitsForClient int32 = iota
	waitsForTable
	waitsForCommit
)

// waitNames are what flightd_catalog calls them.
var waitNames = [...]string{waitsForClient: "client", waitsForTable: "table", waitsForCommit: "commit"}

// liveStreams are the streams of rows that run, for flightd_catalog.
type liveStreams struct {
	mu   sync.Mutex // nothing is locked or called under it
	last int64
	live map[*liveStream]struct{}
}

// newLiveStreams returns a list of none.
func newLiveStreams() *liveStreams { return &liveStreams{live: make(map[*liveStream]struct{})} }

// liveStream counts what one stream brought. Its goroutines write it, anyone reads it.
type liveStream struct {
	id      int64
	session int64
	table   lsm.TableName
	kind    string
	started time.Time

	batches, rows, bytes   atomic.Int64
	ackedBatches, ackedRow atomic.Int64
	waits                  atomic.Int32
}

// begin notes a stream of the call of ctx. The caller calls end.
func (l *liveStreams) begin(ctx context.Context, table lsm.TableName, kind string) (s *liveStream, end func()) {
	s = &liveStream{session: sessionOf(ctx).id, table: table, kind: kind, started: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	s.id = l.last
	l.live[s] = struct{}{}
	return s, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.live, s)
	}
}

// came counts a batch that is about to be stored.
func (s *liveStream) came(b batch) {
	s.batches.Add(1)
	s.rows.Add(b.record.NumRows())
	s.bytes.Add(recordBytes(b.record))
}

// acked notes what the client was told of.
func (s *liveStream) acked(m mark) {
	s.ackedBatches.Store(m.Batches)
	s.ackedRow.Store(m.Rows)
}

// list returns the streams, the oldest first.
func (l *liveStreams) list() []query.StreamStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]query.StreamStats, 0, len(l.live))
	for s := range l.live {
		// Acks first: they never are ahead of what came.
		x := query.StreamStats{ID: s.id, Session: s.session, Table: s.table, Kind: s.kind, Started: s.started,
			AckedBatches: s.ackedBatches.Load(), AckedRows: s.ackedRow.Load(), WaitingFor: waitNames[s.waits.Load()]}
		x.Batches, x.Rows, x.Bytes = s.batches.Load(), s.rows.Load(), s.bytes.Load()
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b query.StreamStats) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Streams implements query.Clients.
func (s *Server) Streams() []query.StreamStats { return s.streams.list() }

// Sessions implements query.Clients.
func (s *Server) Sessions() []query.SessionStats {
	held := s.prepared.held()
	var out []query.SessionStats
	for _, x := range s.sessions.all() {
		stats := x.stats()
		stats.Prepared = held[x]
		out = append(out, stats)
	}
	slices.SortFunc(out, func(a, b query.SessionStats) int { return cmp.Compare(a.ID, b.ID) })
	return out
}
