package flight

import (
	"context"
	"crypto/rand"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"

	"github.com/flightd/flightd/query"
)

// maxPrepared bounds the statements that one session may hold open.
const maxPrepared = 4096

// prepared is a prepared statement and the parameters that were bound to it last.
type prepared struct {
	handle    string
	statement *query.Statement
	owner     *session

	mu sync.Mutex
	// params is what the next execution takes, nil when nothing was bound.
	params arrow.RecordBatch
	// users counts the calls that hold the statement. It is closed by the last of them once closed is set, because
	// clients close a statement while its result is still on the way.
	users  int
	closed bool
}

// bind replaces the parameters and takes over the reference to them.
func (p *prepared) bind(params arrow.RecordBatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.params != nil {
		p.params.Release()
	}
	p.params = params
}

// bound returns the parameters, which the caller releases, or nil.
func (p *prepared) bound() arrow.RecordBatch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.params != nil {
		p.params.Retain()
	}
	return p.params
}

// preparedStatements holds the statements of all sessions. Any connection may use a handle, for results may be read
// over another one; the statement goes with the session that made it.
type preparedStatements struct {
	mu       sync.Mutex
	byHandle map[string]*prepared
}

func newPreparedStatements() *preparedStatements {
	return &preparedStatements{byHandle: make(map[string]*prepared)}
}

// add takes over a statement and returns it under its handle.
func (r *preparedStatements) add(owner *session, statement *query.Statement) (*prepared, error) {
	p := &prepared{handle: rand.Text(), statement: statement, owner: owner}
	r.mu.Lock()
	defer r.mu.Unlock()
	held := 0
	for _, other := range r.byHandle {
		if other.owner == owner {
			held++
		}
	}
	if held >= maxPrepared {
		return nil, precondition("the session holds %d prepared statements; close some", held)
	}
	r.byHandle[p.handle] = p
	return p, nil
}

// held returns how many statements each session holds open.
func (r *preparedStatements) held() map[*session]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[*session]int64)
	for _, p := range r.byHandle {
		out[p.owner]++
	}
	return out
}

// acquire returns the statement of a handle. release must be called when it is no longer used.
func (r *preparedStatements) acquire(handle []byte) (p *prepared, release func(), err error) {
	r.mu.Lock()
	p = r.byHandle[string(handle)]
	r.mu.Unlock()
	if p != nil && p.use() {
		return p, p.leave, nil
	}
	return nil, nil, notFound("the prepared statement does not exist; it was closed, or its session ended")
}

// use counts a user, unless the statement is closed.
func (p *prepared) use() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.users++
	return true
}

// leave gives up what use counted.
func (p *prepared) leave() {
	p.mu.Lock()
	p.users--
	last := p.closed && p.users == 0
	p.mu.Unlock()
	if last {
		p.free()
	}
}

// close lets the last user free the statement.
func (p *prepared) close() {
	p.mu.Lock()
	last := !p.closed && p.users == 0
	p.closed = true
	p.mu.Unlock()
	if last {
		p.free()
	}
}

// free ends the statement. Nobody uses it any more; what fails then changes nothing for anybody.
func (p *prepared) free() {
	p.bind(nil)
	_ = p.statement.Close()
}

// close closes the statement of a handle. An unknown one is closed already, which is no error to clients that close
// twice.
func (r *preparedStatements) close(handle []byte) {
	r.closeWhere(func(p *prepared) bool { return p.handle == string(handle) })
}

// closeOwned closes the statements of a session.
func (r *preparedStatements) closeOwned(owner *session) {
	r.closeWhere(func(p *prepared) bool { return p.owner == owner })
}

// closeAll closes all statements.
func (r *preparedStatements) closeAll() {
	r.closeWhere(func(*prepared) bool { return true })
}

// closeWhere closes the statements that match.
func (r *preparedStatements) closeWhere(match func(*prepared) bool) {
	r.mu.Lock()
	gone := takeWhere(r.byHandle, match)
	r.mu.Unlock()
	for _, p := range gone {
		p.close()
	}
}

// takeWhere removes the values that match from a map and returns them: what it takes to end them is done without its lock.
func takeWhere[K comparable, V any](m map[K]V, match func(V) bool) []V {
	var gone []V
	for k, v := range m {
		if match(v) {
			delete(m, k)
			gone = append(gone, v)
		}
	}
	return gone
}

// prepare makes a prepared statement. JDBC refuses statements without a dataset schema and cannot bind without a
// parameter schema; ADBC sends updates by DoPut only when it is told that they are updates.
func (s *service) prepare(ctx context.Context, request *pb.ActionCreatePreparedStatementRequest) (*pb.ActionCreatePreparedStatementResult, error) {
	if err := noTransaction(request.GetTransactionId()); err != nil {
		return nil, err
	}
	statement, err := s.query.Prepare(ctx, s.querySession(ctx), request.GetQuery())
	if err != nil {
		return nil, err
	}
	p, err := s.prepared.add(sessionOf(ctx), statement)
	if err != nil {
		s.close(statement)
		return nil, err
	}
	update := statement.IsUpdate()
	result := &pb.ActionCreatePreparedStatementResult{PreparedStatementHandle: []byte(p.handle), IsUpdate: &update}
	if schema := statement.DatasetSchema(); schema != nil {
		result.DatasetSchema = flight.SerializeSchema(describeResult(schema), memory.DefaultAllocator)
	}
	if schema := statement.ParameterSchema(); schema != nil {
		result.ParameterSchema = flight.SerializeSchema(schema, memory.DefaultAllocator)
	}
	return result, nil
}

// preparedInfo describes the result of a prepared statement, and runs it when it changes something.
func (s *service) preparedInfo(ctx context.Context, handle []byte, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	p, release, err := s.prepared.acquire(handle)
	if err != nil {
		return nil, err
	}
	defer release()
	if p.statement.IsUpdate() {
		rows, err := s.update(ctx, p)
		if err != nil {
			return nil, err
		}
		return countInfo(rows, d)
	}
	if err := p.statement.Renew(ctx); err != nil { // an ALTER TABLE may have come since
		return nil, err
	}
	if p.statement.Returns() {
		params := p.bound()
		if params != nil {
			defer params.Release()
		}
		return s.runReturning(ctx, p.statement, params, d)
	}
	schema, err := s.preparedSchema(ctx, p)
	if err != nil {
		return nil, err
	}
	if parts, err := s.partition(ctx, p.statement); parts != nil || err != nil {
		if err != nil {
			return nil, err
		}
		return s.leasedInfo(schema, d, parts)
	}
	ticket, err := s.preparedTicket(ctx, p)
	if err != nil {
		return nil, err
	}
	return newInfo(schema, d, ticket), nil
}

// preparedTicket returns the ticket of a prepared query. One without parameters outlives the prepared statement.
func (s *service) preparedTicket(ctx context.Context, p *prepared) ([]byte, error) {
	if params := p.bound(); params != nil {
		params.Release()
	} else if schema := p.statement.ParameterSchema(); schema == nil || schema.NumFields() == 0 {
		return packTicket(queryTicket{schema: sessionOf(ctx).currentSchema(), sql: p.statement.SQL(), prepared: p.handle})
	}
	return packCommand(&pb.CommandPreparedStatementQuery{PreparedStatementHandle: []byte(p.handle)})
}

// update runs a prepared update with the parameters that are bound.
func (s *service) update(ctx context.Context, p *prepared) (int64, error) {
	params := p.bound()
	if params != nil {
		defer params.Release()
	}
	return p.statement.Update(ctx, params)
}

// preparedSchema returns the schema of a prepared statement's result under the parameters that are bound.
func (s *service) preparedSchema(ctx context.Context, p *prepared) (*arrow.Schema, error) {
	params := p.bound()
	if params != nil {
		defer params.Release()
	}
	return s.resultSchema(ctx, p.statement, params)
}

// getPrepared streams the result of a prepared statement with the parameters that are bound.
func (s *service) getPrepared(stream pb.FlightService_DoGetServer, ticket, handle []byte) error {
	p, release, err := s.prepared.acquire(handle)
	if err != nil {
		return err
	}
	if p.statement.IsUpdate() || p.statement.Returns() {
		release()
		return invalid("the prepared statement changes rows; ask for its FlightInfo, or run it by DoPut")
	}
	params := p.bound()
	used := func() {
		if params != nil {
			params.Release()
		}
		release()
	}
	return s.serveResult(stream, ticket, func(ctx context.Context, out grpc.ServerStream) error {
		defer used()
		return s.sendResults(ctx, out, p.statement, params)
	})
}
