package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/flightd/flightd/lsm"
)

// Clients tells of those who use an engine: its server does.
type Clients interface {
	// Sessions returns the open sessions, Streams the streams of rows into tables that run.
	Sessions() []SessionStats
	Streams() []StreamStats
}

// SessionStats is a session.
type SessionStats struct {
	// ID is above 0, and no two sessions of a server have the same.
	ID int64
	// Kind is "connection" or "token", Client the address of the connection, empty for a token, which may have many.
	Kind, Client string
	// Schema is the current schema.
	Schema  string
	Started time.Time
	// LastCall is when the last call ended, which matters when none runs.
	LastCall time.Time
	// Calls run now; Prepared statements are open.
	Calls, Prepared int64
}

// StreamStats is a stream of rows into a table.
type StreamStats struct {
	ID, Session int64
	Table       lsm.TableName
	// Kind is "stream", whose batches are acknowledged one by one, or "whole", which takes effect at its end.
	Kind    string
	Started time.Time
	// Batches, Rows and Bytes, which are those of the batches in memory, came so far.
	Batches, Rows, Bytes int64
	// AckedBatches and AckedRows were acknowledged to the client.
	AckedBatches, AckedRows int64
	// WaitingFor is "client" while the next batch is awaited, "table" while one is stored, which waits for memory when
	// that is short, and "commit" once the rest is to become durable.
	WaitingFor string
}

// ServeClients tells the engine whom to ask about its clients.
func (e *Engine) ServeClients(c Clients) { e.clients.Store(&c) }

// activity is the statements that run.
type activity struct {
	last atomic.Int64

	mu      sync.Mutex // nothing is locked or called under it
	running map[int64]*runningStatement
}

// A runningStatement is a statement of a client from its start to its end.
type runningStatement struct {
	a        *activity
	id       int64
	session  int64
	kind     string
	sql      string
	started  time.Time
	progress *Progress
	// rows were handed to the client, or changed.
	rows atomic.Int64
	// idle is set while the client is waited for.
	idle atomic.Bool
	// stop frees what the statement's context holds.
	stop context.CancelFunc
}

// queryStats is a running statement at one moment.
type queryStats struct {
	id, session, rows int64
	kind, state, sql  string
	started           time.Time
	progress          float64
}

// begin notes a statement and returns the context that it runs in, which ends when the statement takes too long. The
// caller calls end.
func (a *activity) begin(ctx context.Context, st *Statement, kind string) (context.Context, *runningStatement) {
	stop := context.CancelFunc(func() {})
	if limit := st.e.opts.Timeout; limit > 0 {
		ctx, stop = context.WithTimeoutCause(ctx, limit, &Error{Code: DeadlineExceeded,
			Message: fmt.Sprintf("the statement was ended because it took longer than %v, which the server allows; make it smaller, or raise --query-timeout", limit)})
	}
	p, ok := ctx.Value(progressKey{}).(*Progress)
	if !ok {
		p = &Progress{}
		ctx = WithProgress(ctx, p)
	}
	var session int64
	if st.session != nil {
		session = st.session.ID
	}
	q := &runningStatement{a: a, id: a.last.Add(1), session: session, kind: kind, sql: st.parsed.sql, started: time.Now(), progress: p, stop: stop}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running == nil {
		a.running = map[int64]*runningStatement{}
	}
	a.running[q.id] = q
	return ctx, q
}

// end forgets the statement. Further calls, and those of none, do nothing.
func (q *runningStatement) end() {
	if q == nil {
		return
	}
	q.a.mu.Lock()
	delete(q.a.running, q.id)
	q.a.mu.Unlock()
	q.stop()
}

// timedOut returns the error of a statement that failed as its time was over, and else err.
func timedOut(ctx context.Context, err error) error {
	var own *Error
	if err != nil && errors.As(context.Cause(ctx), &own) && own.Code == DeadlineExceeded {
		return own
	}
	return err
}

// handed counts rows that were handed to the client.
func (q *runningStatement) handed(rows int64) {
	if q != nil {
		q.rows.Add(rows)
	}
}

// waits notes whether the client is waited for.
func (q *runningStatement) waits(idle bool) {
	if q != nil {
		q.idle.Store(idle)
	}
}

// Running returns how many statements of clients run, those whose results are being read among them.
func (e *Engine) Running() int64 {
	e.activity.mu.Lock()
	defer e.activity.mu.Unlock()
	return int64(len(e.activity.running))
}

// list returns the statements that run, the oldest first.
func (a *activity) list() []queryStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]queryStats, 0, len(a.running))
	for _, q := range a.running {
		state := "running"
		if q.idle.Load() {
			state = "waiting for client"
		}
		out = append(out, queryStats{id: q.id, session: q.session, rows: q.rows.Load(), kind: q.kind, state: state, sql: q.sql,
			started: q.started, progress: q.progress.Fraction()})
	}
	slices.SortFunc(out, func(a, b queryStats) int { return cmp.Compare(a.id, b.id) })
	return out
}
