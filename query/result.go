package query

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/arrow/util"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

const (
	// batchBytes is how much a batch gathers before it leaves: chunks of 2,048 narrow rows alone would drown the
	// wire in headers.
	batchBytes = 1 << 20
	// maxBatchBytes is where a batch is cut: clients accept messages of 4 MiB and more.
	maxBatchBytes = 2 << 20
	// interruptEvery repeats an interrupt, because DuckDB forgets one that comes just before a statement starts.
	interruptEvery = 20 * time.Millisecond
)

// Result is a stream of record batches. Next and Close may be called by different goroutines.
type Result struct {
	cancel  context.CancelCauseFunc
	ctx     context.Context // ends with the caller's context, or with Close
	watched sync.WaitGroup
	guard   *memoryGuard

	mu      sync.Mutex
	closed  bool
	sql     string
	parsed  *parsed
	lease   *lease
	inner   bool   // the lease is that of the statement around it
	leave   func() // lets go of older versions of tables, nil without any
	in      *instance
	exec    *execution
	snap    snapshot
	conn    bind.Connection
	connID  uint64
	ps      bind.PreparedStatement
	res     bind.Result
	started bool // res is there
	options bind.ArrowOptions
	shape   shape
	natural *arrow.Schema
	schema  *arrow.Schema
	ready   []arrow.RecordBatch
	end     error // what the stream ended with
	// active, which may be nil, is the statement in the list of those that run.
	active *runningStatement
	// last, which may be nil, comes behind DuckDB's own rows.
	last arrow.RecordBatch
}

// A run is what one execution of a query takes.
type run struct {
	params arrow.RecordBatch // nil for none
	row    int               // of params
	// names tell which column of params belongs to which parameter; without them it is the one of the same place.
	names []string
	// snap is what the query reads, if it is not to take a snapshot of its own. The caller keeps it.
	snap snapshot
	// part is set if the query reads one part of them, from snap, which it takes over.
	part *Partitions
	// rows is the number of rows of params, from row on, for which a change runs as one.
	rows int
	// own is what a query of ours reads as the table ownRows, in memory outside the Go heap. It then reads no other.
	own arrow.RecordBatch
	// plan is what tells the types of the result, if the shadow cannot plan the query itself.
	plan string
	// wire asks for columns as clients see them: dictionaries are that, and not their values.
	wire bool
	// lease is that of the statement within which a query of ours runs, which keeps it; its columns have DuckDB's own types.
	lease *lease
}

// bind binds the parameters.
func (r run) bind(ps bind.PreparedStatement) error {
	if r.names == nil {
		return bindParams(ps, r.params, r.row)
	}
	return bindNamed(ps, r.params, r.row, r.names)
}

// values returns the parameters' values by their names in the statement.
func (r run) values(ps bind.PreparedStatement) map[string]paramValue {
	out := map[string]paramValue{}
	for i := range int(bind.NParams(ps)) {
		name, column := bind.ParameterName(ps, bind.IdxT(i+1)), i
		if r.names != nil {
			column = slices.Index(r.names, name)
		}
		if r.params != nil && column >= 0 && column < int(r.params.NumCols()) {
			out[name] = paramValue{r.params.Column(column), r.row}
		}
	}
	return out
}

// newResult returns a result that is not open yet.
func newResult(ctx context.Context, st *Statement) *Result {
	r := &Result{sql: st.parsed.sql, parsed: st.parsed}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// start begins to run the query.
func (st *Statement) start(ctx context.Context, in run) (_ *Result, err error) {
	r := newResult(ctx, st)
	r.guard = st.e.guard
	r.guard.add(r)
	defer func() {
		if err != nil {
			if err = engineError(err); r.lease != nil {
				err = r.lease.explain(err)
			}
			_ = r.Close()
		}
	}()
	if st, err = r.arrive(ctx, st); err != nil {
		return nil, err
	}
	if err := r.open(ctx, st, in); err != nil {
		return nil, err
	}
	if err := r.execute(in); err != nil {
		return nil, err
	}
	return r, nil
}

// arrive opens the older versions of tables that a statement reads, and returns it as it runs now.
func (r *Result) arrive(ctx context.Context, st *Statement) (*Statement, error) {
	if !st.parsed.isTravelling() {
		return st, nil
	}
	l, err := st.e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.release()
	if st, r.leave, err = st.arrived(ctx, l); err != nil {
		return nil, l.explain(err)
	}
	r.sql, r.parsed = st.parsed.sql, st.parsed
	return st, nil
}

// open takes the snapshot, unless there is one, and a connection that reads from it.
func (r *Result) open(ctx context.Context, st *Statement, in run) (err error) {
	if in.part != nil {
		r.snap = in.snap
	}
	if r.lease, r.inner = in.lease, in.lease != nil; !r.inner {
		if r.lease, err = st.e.acquire(ctx); err != nil {
			return err
		}
		if r.shape, err = st.shape(r.lease, in.plan); err != nil {
			return err
		}
	}
	r.in = r.lease.query.in
	r.exec = &execution{ctx: r.ctx, carries: r.shape.carries, own: in.own, progress: progressOf(ctx)}
	if st.parsed.kind == kindCatalog {
		r.in = r.lease.shadow.in
	} else if in.own == nil {
		if err := r.see(ctx, st, in); err != nil {
			return err
		}
	}
	r.exec.source = func(id int64) (source, error) {
		if id == ownRows && in.own != nil {
			return ownSource{in.own}, nil
		}
		if p, ok := st.e.past(id); ok {
			return p.source, nil
		}
		t, ok := r.lease.query.byID[id]
		if !ok || r.snap == nil {
			return nil, errTableChanged
		}
		r.exec.use(id)
		return r.snap.table(t.schema, t.name)
	}
	r.exec.within = func(sql string) (*Result, error) {
		p, err := parse(sql)
		if err != nil {
			return nil, err
		}
		return (&Statement{e: st.e, session: st.session, parsed: p, source: sql}).start(r.ctx, run{snap: r.snap, lease: r.lease})
	}
	if r.conn, err = r.in.connect(); err != nil {
		return err
	}
	r.connID = connectionID(r.conn)
	r.in.bridge.start(r.connID, r.exec)
	r.watched.Add(1)
	go r.watch(r.conn)
	return nil
}

// see finds the snapshot that the query reads, which must have the tables of the catalog that it runs in.
func (r *Result) see(ctx context.Context, st *Statement, in run) (err error) {
	switch {
	case in.part != nil:
		return in.part.check(r.lease)
	case in.snap != nil:
		r.snap = &systemSnapshot{snapshot: borrowed{in.snap}, ctx: r.ctx, e: st.e, in: r.in}
	default:
		snap, err := st.e.store.snapshot(ctx)
		if err != nil {
			return err
		}
		r.snap = &systemSnapshot{snapshot: snap, ctx: r.ctx, e: st.e, in: r.in}
	}
	if r.snap.catalogVersion() != r.lease.version {
		return errTableChanged
	}
	return nil
}

// A borrowed snapshot is narrowed and released by its owner.
type borrowed struct{ snapshot }

func (borrowed) keep([]tableInfo) {}

func (borrowed) release() {}

// watch interrupts DuckDB from the end of the context until nothing runs any more.
func (r *Result) watch(conn bind.Connection) {
	defer r.watched.Done()
	<-r.ctx.Done()
	bind.Interrupt(conn)
	tick := time.NewTicker(interruptEvery)
	defer tick.Stop()
	for !r.mu.TryLock() {
		<-tick.C
		bind.Interrupt(conn)
	}
	r.mu.Unlock()
}

// execute prepares, binds and starts the statement.
func (r *Result) execute(in run) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	stmts, err := r.in.extract(r.conn, r.sql)
	if err != nil {
		return err
	}
	defer bind.DestroyExtracted(&stmts.list)
	h := r.hintsOf(stmts.count, in)
	r.exec.beginBinding()
	for i := range stmts.count {
		if r.ps, err = r.in.prepare(r.conn, stmts, i, r.sql); err != nil {
			return r.causeOr(err)
		}
		if i == stmts.count-1 {
			break
		}
		if err := r.runFirst(); err != nil {
			return err
		}
	}
	if err := in.bind(r.ps); err != nil {
		return err
	}
	if err := r.useHints(h, in.values(r.ps)); err != nil {
		return err
	}
	r.exec.beginBinding()
	if r.ctx.Err() != nil {
		return mapError(r.ctx, "", nil, r.sql)
	}
	r.started = true
	if bind.ExecutePreparedStreaming(r.ps, &r.res) == bind.StateError {
		return r.failure()
	}
	r.narrow()
	return r.describe(in.wire)
}

// narrow lets go of the tables that the statement does not read: its client may take long to read the result. DuckDB
// has bound the statement for the last time.
func (r *Result) narrow() {
	if r.snap == nil || r.exec.readsViews() {
		return
	}
	var tables []tableInfo
	for _, id := range r.exec.uses() {
		tables = append(tables, r.lease.query.byID[id]) // older versions of tables are not of the snapshot
	}
	r.snap.keep(tables)
}

// causeOr prefers what a scan or the context failed with over DuckDB's words about it.
func (r *Result) causeOr(err error) error {
	if r.ctx.Err() != nil || r.exec.cause() != nil {
		return mapError(r.ctx, err.Error(), r.exec.cause(), r.sql)
	}
	return err
}

// failure is the error of the result.
func (r *Result) failure() error {
	message := bind.ResultError(&r.res)
	_ = r.in.check(message, r.sql)
	return mapError(r.ctx, message, r.exec.cause(), r.sql)
}

// runFirst runs a statement that prepares the ground for the next.
func (r *Result) runFirst() error {
	defer bind.DestroyPrepare(&r.ps)
	var res bind.Result
	defer bind.DestroyResult(&res)
	if bind.ExecutePrepared(r.ps, &res) == bind.StateError {
		message := bind.ResultError(&res)
		_ = r.in.check(message, r.sql)
		return mapError(r.ctx, message, r.exec.cause(), r.sql)
	}
	return nil
}

// describe reads the schema of the running result.
func (r *Result) describe(wire bool) error {
	n := int(bind.ColumnCount(&r.res))
	names, types := make([]string, n), make([]bind.LogicalType, n)
	for i := range n {
		names[i] = bind.ColumnName(&r.res, bind.IdxT(i))
		types[i] = bind.ColumnLogicalType(&r.res, bind.IdxT(i))
		defer bind.DestroyLogicalType(&types[i])
	}
	r.options = bind.ResultGetArrowOptions(&r.res)
	var err error
	if r.natural, err = naturalSchema(r.conn, names, types); err != nil {
		return errorf(Unimplemented, "the result has a type that Arrow cannot carry: %v", err)
	}
	if r.inner {
		r.schema = r.natural
		return nil
	}
	if r.schema, err = r.shape.schema(r.natural); err == nil && wire {
		r.schema = lsm.WireSchema(r.schema)
	}
	return err
}

// Schema returns the schema of all batches.
func (r *Result) Schema() *arrow.Schema { return r.schema }

// Next returns the next batch, which the caller releases; io.EOF after the last one. When ctx ends, the whole query
// does.
func (r *Result) Next(ctx context.Context) (arrow.RecordBatch, error) {
	stop := context.AfterFunc(ctx, func() { r.cancel(context.Cause(ctx)) })
	defer stop()
	r.active.waits(false)
	defer r.active.waits(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.ready) == 0 && r.end == nil {
		if r.closed {
			return nil, errorf(Cancelled, "the result is closed")
		}
		r.gather()
	}
	if len(r.ready) > 0 {
		rec := r.ready[0]
		r.ready = r.ready[1:]
		r.active.handed(rec.NumRows())
		return rec, nil
	}
	return nil, r.end
}

// gather fetches chunks until they make a batch, or the end.
func (r *Result) gather() {
	var parts []arrow.RecordBatch
	defer func() { releaseAll(parts) }()
	var bytes int64
	for bytes < batchBytes && r.end == nil {
		// INVARIANT: watch stops once it finds nobody at work, so whoever starts after the end of the context
		// has to see it here.
		if r.ctx.Err() != nil {
			r.end = mapError(r.ctx, "", nil, r.sql)
			return
		}
		chunk := bind.FetchChunk(r.res)
		if chunk.Ptr == nil {
			r.end = io.EOF
			// The end of an interrupted or failed stream looks like any end.
			if bind.ResultError(&r.res) != "" {
				r.end = r.failure()
			} else if r.ctx.Err() != nil {
				r.end = mapError(r.ctx, "", nil, r.sql)
			} else if r.last != nil {
				parts, r.last = append(parts, r.last), nil
			}
			break
		}
		rec, err := chunkRecord(r.options, r.natural, chunk)
		bind.DestroyDataChunk(&chunk)
		if err != nil {
			r.end = engineError(err)
			return
		}
		parts = append(parts, rec)
		bytes += util.TotalRecordSize(rec)
	}
	if r.end != nil && r.end != io.EOF || len(parts) == 0 {
		return
	}
	if err := r.cut(parts, bytes); err != nil {
		r.end = engineError(err)
	}
}

// releaseAll releases batches.
func releaseAll(recs []arrow.RecordBatch) {
	for _, rec := range recs {
		rec.Release()
	}
}

// cut joins the parts, gives the columns their types, and cuts batches that can travel.
func (r *Result) cut(parts []arrow.RecordBatch, bytes int64) error {
	rec, err := r.join(parts)
	if errors.Is(err, errDictionaryFull) {
		return r.halve(parts, bytes, err)
	}
	if err != nil {
		return err
	}
	defer rec.Release()
	rows := rec.NumRows()
	step := max(rows, 1)
	if bytes > maxBatchBytes {
		step = max(rows*maxBatchBytes/bytes, 1)
	}
	for from := int64(0); from < rows; from += step {
		r.ready = append(r.ready, rec.NewSlice(from, min(from+step, rows)))
	}
	return nil
}

// halve cuts batches from each half of the parts, whose values are too many for the indices of a dictionary.
func (r *Result) halve(parts []arrow.RecordBatch, bytes int64, full error) error {
	if n := len(parts) / 2; n > 0 {
		if err := r.cut(parts[:n], bytes/2); err != nil {
			return err
		}
		return r.cut(parts[n:], bytes/2)
	}
	rows := parts[0].NumRows()
	if rows < 2 {
		return full
	}
	for _, half := range [][2]int64{{0, rows / 2}, {rows / 2, rows}} {
		part := parts[0].NewSlice(half[0], half[1])
		err := r.cut([]arrow.RecordBatch{part}, bytes/2)
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// join concatenates the parts column by column.
func (r *Result) join(parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	var rows int64
	for _, p := range parts {
		rows += p.NumRows()
	}
	columns := make([]arrow.Array, 0, r.schema.NumFields())
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	for i := range r.schema.NumFields() {
		column, err := joinColumn(parts, i)
		if err != nil {
			return nil, err
		}
		if !sameType(column.DataType(), r.schema.Field(i).Type) {
			if column, err = retype(column, r.schema.Field(i).Type); err != nil {
				return nil, err
			}
		}
		columns = append(columns, column)
	}
	return array.NewRecordBatch(r.schema, columns, rows), nil
}

// joinColumn concatenates one column.
func joinColumn(parts []arrow.RecordBatch, i int) (arrow.Array, error) {
	if len(parts) == 1 {
		c := parts[0].Column(i)
		c.Retain()
		return c, nil
	}
	arrays := make([]arrow.Array, len(parts))
	for j, p := range parts {
		arrays[j] = p.Column(i)
	}
	return array.Concatenate(arrays, memory.DefaultAllocator)
}

// Close ends the query, however far it is, and frees what it holds.
func (r *Result) Close() error {
	r.cancel(context.Canceled)
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.guard.remove(r)
	defer r.active.end()
	// INVARIANT: interrupt, result, statement, connection, snapshot, in this order. The connection's end waits for
	// the workers of a stream that was not read to its end; nothing may be freed under them.
	r.watched.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	releaseAll(r.ready)
	r.ready = nil
	if r.last != nil {
		r.last.Release()
	}
	bind.DestroyArrowOptions(&r.options)
	if r.started {
		bind.DestroyResult(&r.res)
	}
	bind.DestroyPrepare(&r.ps)
	if r.conn.Ptr != nil {
		bind.Disconnect(&r.conn)
		r.in.bridge.start(r.connID, nil)
	}
	if r.snap != nil {
		r.snap.release()
	}
	if r.leave != nil {
		r.leave()
	}
	if r.lease != nil && !r.inner {
		r.lease.release()
	}
	return nil
}

// activate names the entry of the result in the list of running statements, which Close ends. REQUIRES: nobody else has
// the result yet.
func (r *Result) activate(q *runningStatement) {
	q.waits(true)
	r.active = q
}
