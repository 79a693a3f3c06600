package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// noColumns is the schema of statements that return no rows, and of statements without parameters.
var noColumns = arrow.NewSchema(nil, nil)

// Statement is a prepared statement. It holds nothing open: it can be kept as long as its client likes, and run by
// several goroutines at once.
type Statement struct {
	e       *Engine
	session *Session
	parsed  *parsed
	source  string // what the client wrote

	// mu guards what the statement was found to be as of a version of the catalog.
	mu      sync.Mutex
	version uint64
	dataset *arrow.Schema // nil if only the parameters' values tell
	params  *arrow.Schema
}

// Prepare checks one statement and finds out what it takes and returns.
func (e *Engine) Prepare(ctx context.Context, s *Session, sql string) (*Statement, error) {
	for attempt := 0; ; attempt++ {
		version := e.store.catalogVersion()
		st, err := e.prepare(ctx, s, sql)
		if err == nil || !e.overtaken(version, err) || attempt == maxAttempts {
			return st, err
		}
	}
}

// prepare is Prepare with the catalogs as they are now.
func (e *Engine) prepare(ctx context.Context, s *Session, sql string) (*Statement, error) {
	p, err := parse(sql)
	if err != nil {
		return nil, err
	}
	l, err := e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.release()
	if p.kind == kindShowIndexes {
		if p, err = l.indexQuery(p); err != nil {
			return nil, err
		}
	}
	written := p
	p, leave, err := e.arrive(ctx, l, p)
	if err != nil {
		return nil, l.explain(err)
	}
	defer leave()
	st := &Statement{e: e, session: s, parsed: p, source: sql, version: l.version, dataset: noColumns, params: noColumns}
	switch p.kind {
	case kindOptimize:
		_, err = p.optimizeTarget()
	case kindCall:
		var c calling
		c, err = p.calling()
		st.dataset = callSchemas[c.name]
	case kindVacuum:
		st.dataset = vacuumSchema
		_, _, err = p.vacuumTarget()
	case kindCreate:
		err = st.prepareCreate(l)
	case kindDrop, kindDropView:
		_, _, err = p.dropTarget()
	case kindCreateView:
		_, err = p.viewCreation()
	case kindTruncate:
		_, err = p.truncateTarget()
	case kindAlter, kindComment, kindCreateIndex, kindDropIndex, kindOptimizeIndex: // classify has read it; what it names is looked up when it runs
	case kindInsert, kindUpdate, kindDelete, kindMerge:
		err = st.describe(l, &l.shadow)
	default:
		err = st.prepareSelect(l)
	}
	if err != nil {
		return nil, l.explain(explainOpaque(engineError(err), l.shadow.tables, p))
	}
	if p != written { // which versions it reads is found out anew when it runs
		written.kind, st.parsed = p.kind, written
	}
	return st, nil
}

// SQL returns the statement's text.
func (st *Statement) SQL() string { return st.source }

// IsUpdate tells whether the statement changes something and returns no rows: Update runs it. One that Returns rows of
// its change is for Run, and the others are for Query.
func (st *Statement) IsUpdate() bool { return st.changes() && !st.Returns() }

// changes tells whether the statement changes something.
func (st *Statement) changes() bool {
	return st.parsed.kind != kindSelect && st.parsed.kind != kindCatalog
}

// DatasetSchema returns the schema of the rows: an empty one for updates, nil when it depends on the parameters'
// values and Result.Schema tells.
func (st *Statement) DatasetSchema() *arrow.Schema {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.dataset
}

// Renew brings the schemas of the statement up to date, if tables were made, dropped or altered since it was prepared. A
// statement that these tables do not allow any more fails, as it would if it ran.
func (st *Statement) Renew(ctx context.Context) error {
	st.mu.Lock()
	same := st.version == st.e.store.catalogVersion() && !st.parsed.isTravelling()
	st.mu.Unlock()
	if same {
		return nil
	}
	fresh, err := st.e.Prepare(ctx, st.session, st.source)
	if err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.version, st.dataset, st.params = fresh.version, fresh.dataset, fresh.params
	return nil
}

// ParameterSchema returns the types that the parameters are taken as, in order. A parameter whose type the
// statement leaves open is a string here; any type can be bound to it.
func (st *Statement) ParameterSchema() *arrow.Schema {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.params
}

// Close ends the use of the statement. Results that it gave stay open.
func (st *Statement) Close() error { return nil }

// prepareSelect describes a query. Queries over the catalog run on the shadow, unless they read tables as well.
func (st *Statement) prepareSelect(l *lease) error {
	c := &l.query
	if st.parsed.kind == kindCatalog {
		plan, err := planOf(&l.shadow, st.parsed.sql)
		if err != nil {
			return err
		}
		if plan != nil && plan.scansTables(l.shadow.tables) {
			st.parsed.kind = kindSelect
		} else {
			c = &l.shadow
		}
	}
	return st.describe(l, c)
}

// describe asks DuckDB for the schemas.
func (st *Statement) describe(l *lease, c *view) error {
	conn, err := c.in.connect()
	if err != nil {
		return err
	}
	defer bind.Disconnect(&conn)
	sql := st.parsed.sql
	if st.changes() {
		sql = st.parsed.text(st.parsed.all()) // its parameters are counted in the order of the text
	}
	stmts, err := c.in.extract(conn, sql)
	if err != nil {
		return err
	}
	defer bind.DestroyExtracted(&stmts.list)
	if stmts.count > 1 { // PIVOT without IN runs a query of its own before it knows its columns
		if st.parsed.kind == kindInsert { // DuckDB compares their number with the table's when it plans, which is too early
			return openPivot("INSERT from")
		}
		if st.parsed.word(0) == "EXPLAIN" { // of the several statements, which DuckDB explains one by one
			return openPivot("EXPLAIN of")
		}
		st.dataset = nil
		return nil
	}
	ps, err := c.in.prepareKind(conn, stmts, 0, sql, st.parsed.kind)
	if err != nil {
		return err
	}
	defer bind.DestroyPrepare(&ps)
	known, err := st.describeParams(conn, ps)
	if err != nil || st.changes() && !st.Returns() {
		return err
	}
	var natural *arrow.Schema
	if known {
		natural, err = preparedSchema(conn, ps)
	}
	if err == nil && natural == nil {
		natural = st.openSchema(l, conn, c, ps)
	}
	if err != nil || natural == nil {
		st.dataset = nil
		return err
	}
	shape, err := st.shape(l, "")
	if err != nil {
		return err
	}
	if natural, err = shape.schema(natural); err != nil {
		return err
	}
	st.dataset = lsm.WireSchema(natural)
	return nil
}

// openPivot refuses a PIVOT whose columns its rows tell.
func openPivot(what string) error {
	return errorf(Unimplemented, "%s a PIVOT whose columns its rows tell is not implemented yet; list them: PIVOT … ON column IN (…)", what)
}

// shape tells which columns of the result come unchanged from tables. plan is what the shadow can plan in place of the
// statement, if that is none that clients write.
func (st *Statement) shape(l *lease, plan string) (shape, error) {
	p := st.parsed
	if st.Returns() {
		var err error
		if plan, err = st.returningPlan(l); err != nil {
			return shape{}, err
		}
	}
	if plan != "" {
		tokens, err := lex(plan)
		if err != nil {
			return shape{}, err
		}
		return shapeOf(&l.shadow, &parsed{sql: plan, tokens: tokens, kind: kindSelect})
	}
	if st.parsed.kind != kindSelect {
		return shape{}, nil
	}
	return shapeOf(&l.shadow, p)
}

// preparedSchema returns the natural schema of a statement that was not run yet, nil when DuckDB does not know it: a table
// function with a parameter in it, the type of which is known, is bound with the value.
func preparedSchema(conn bind.Connection, ps bind.PreparedStatement) (*arrow.Schema, error) {
	n := int(bind.PreparedStatementColumnCount(ps))
	names, types := make([]string, n), make([]bind.LogicalType, n)
	for i := range n {
		names[i] = bind.PreparedStatementColumnName(ps, bind.IdxT(i))
		types[i] = bind.PreparedStatementColumnLogicalType(ps, bind.IdxT(i))
		defer bind.DestroyLogicalType(&types[i])
	}
	for _, t := range types {
		if bind.GetTypeId(t) == bind.TypeInvalid {
			return nil, nil
		}
	}
	return naturalSchema(conn, names, types)
}

// describeParams sets the parameters' schema. known is false if the type of one is open: DuckDB then knows nothing
// of the result, either.
func (st *Statement) describeParams(conn bind.Connection, ps bind.PreparedStatement) (known bool, err error) {
	known = true
	fields := make([]arrow.Field, bind.NParams(ps))
	for i := range fields {
		place := bind.IdxT(i + 1)
		fields[i] = arrow.Field{Name: bind.ParameterName(ps, place), Type: arrow.BinaryTypes.String, Nullable: true}
		if bind.ParamType(ps, place) == bind.TypeInvalid {
			known = false
			continue
		}
		l := bind.ParamLogicalType(ps, place)
		s, err := naturalSchema(conn, []string{fields[i].Name}, []bind.LogicalType{l})
		bind.DestroyLogicalType(&l)
		if err != nil {
			return false, fmt.Errorf("parameter %d: %w", i+1, err)
		}
		fields[i] = s.Field(0)
	}
	st.params = arrow.NewSchema(fields, nil)
	return known, nil
}

// Query runs a statement that returns rows. params is nil or has one row with a column for each parameter, in
// order. The result is one snapshot of all tables; ctx bounds its whole life.
func (st *Statement) Query(ctx context.Context, params arrow.RecordBatch) (*Result, error) {
	if err := checkOneRow(params); err != nil {
		return nil, err
	}
	if st.changes() {
		return nil, errorf(InvalidArgument, "the statement changes something; run it as an update")
	}
	// A table that is replaced between our look at the catalog and DuckDB's is seen by the scan; the next attempt
	// looks again. Nothing was handed out yet.
	ctx, active := st.e.activity.begin(ctx, st, "query")
	for attempt := 0; ; attempt++ {
		version := st.e.store.catalogVersion()
		r, err := st.start(ctx, run{params: params, wire: true})
		if err != nil && st.e.overtaken(version, err) && attempt < maxAttempts {
			continue
		}
		if err != nil {
			err = timedOut(ctx, err)
			active.end()
			return nil, err
		}
		r.activate(active)
		return r, nil
	}
}

// maxAttempts is how often a statement that was overtaken by changes of the catalog runs again.
const maxAttempts = 4

// overtaken says whether a statement that began at a version of the catalog may have failed only because the catalog
// changed under it: what it names was there when it looked, or its columns were others.
func (e *Engine) overtaken(version uint64, err error) bool {
	if errors.Is(err, errTableChanged) || errors.Is(err, errRestarted) {
		return true
	}
	var own *Error
	return errors.As(err, &own) && (own.Code == InvalidArgument || own.Code == NotFound) && e.store.catalogVersion() != version
}

// Update runs a statement that changes something, and returns the number of rows that it wrote. params is nil or
// has a row for each run. Those of an INSERT without ON CONFLICT apply together or not at all; those of another
// statement one after the other, and after an error the number is that of the runs before.
func (st *Statement) Update(ctx context.Context, params arrow.RecordBatch) (int64, error) {
	return st.again(func() (int64, error) {
		n, rows, err := st.updateOnce(ctx, params)
		if rows != nil {
			rows.Close()
		}
		return n, err
	})
}

// again runs a change until the catalogs stay while it runs.
func (st *Statement) again(do func() (int64, error)) (int64, error) {
	for attempt := 0; ; attempt++ {
		version := st.e.store.catalogVersion()
		n, err := do()
		if err == nil || n > 0 || !st.e.overtaken(version, err) || attempt == maxAttempts {
			return n, err
		}
	}
}

// updateOnce is Update and Run with the catalogs as they are now. The rows are nil if the statement returns none.
func (st *Statement) updateOnce(ctx context.Context, params arrow.RecordBatch) (n int64, rows *Rows, err error) {
	ctx, active := st.e.activity.begin(ctx, st, "update")
	defer active.end()
	defer func() { err = timedOut(ctx, err) }()
	l, err := st.e.acquire(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer l.release()
	st, leave, err := st.arrived(ctx, l)
	if err != nil {
		return 0, nil, l.explain(err)
	}
	defer leave()
	out, err := st.newReturning(l)
	if err != nil {
		return 0, nil, l.explain(err)
	}
	n, err = st.update(ctx, l, params, out)
	if out == nil {
		return n, nil, l.explain(err)
	}
	if err == nil {
		rows, err = out.finish(ctx, n)
	}
	if err != nil {
		out.out.close()
	}
	return n, rows, l.explain(err)
}

// update runs the statement by its kind.
func (st *Statement) update(ctx context.Context, l *lease, params arrow.RecordBatch, out *returning) (int64, error) {
	dml := slices.Contains([]statementKind{kindInsert, kindUpdate, kindDelete, kindMerge}, st.parsed.kind)
	if !dml && params != nil && params.NumCols() > 0 {
		return 0, errorf(InvalidArgument, "the statement has no parameters, %d were given", params.NumCols())
	}
	switch st.parsed.kind {
	case kindCreate:
		return 0, st.create(ctx, l)
	case kindDrop:
		return 0, st.drop(ctx)
	case kindCreateView:
		return 0, st.createView(ctx, l)
	case kindDropView:
		return 0, st.dropView(ctx, l)
	case kindInsert, kindUpdate, kindDelete, kindMerge:
		if st.parsed.kind == kindInsert && st.parsed.plainValues() {
			return st.insert(ctx, l, params, out)
		}
		return st.changeRows(ctx, l, params, out)
	case kindAlter:
		return 0, st.alter(ctx, l)
	case kindComment:
		return 0, st.comment(ctx, l)
	case kindTruncate:
		return 0, st.truncate(ctx, l)
	case kindCreateIndex, kindDropIndex, kindOptimizeIndex:
		return 0, st.changeIndex(ctx, l)
	case kindOptimize:
		t, err := st.parsed.optimizeTarget()
		if err == nil {
			err = st.e.notView(t)
		}
		if err != nil {
			return 0, err
		}
		return 0, st.e.store.optimize(ctx, t.schema, t.name)
	case kindVacuum:
		return st.vacuum(ctx, out)
	case kindCall:
		return st.call(ctx, out)
	}
	return 0, errorf(InvalidArgument, "the statement returns rows; run it as a query")
}

// An extraction is a text split into statements by DuckDB.
type extraction struct {
	list  bind.ExtractedStatements
	count int
}

// extract splits the text, which has one statement, except that DuckDB makes several of a PIVOT. The caller destroys
// the list.
func (in *instance) extract(conn bind.Connection, sql string) (extraction, error) {
	var x extraction
	x.count = int(bind.ExtractStatements(conn, sql, &x.list))
	if x.count > 1 && !pivots(sql) {
		bind.DestroyExtracted(&x.list)
		return x, errorf(InvalidArgument, "one statement at a time: DuckDB sees %d", x.count)
	}
	if x.count > 0 {
		return x, nil
	}
	message := bind.ExtractStatementsError(x.list)
	bind.DestroyExtracted(&x.list)
	if message == "" {
		return x, errorf(InvalidArgument, "there is no statement in the text")
	}
	return x, in.check(message, sql)
}

// pivots reports whether the text has a PIVOT outside of names, texts and comments.
func pivots(sql string) bool {
	tokens, err := lex(sql)
	return err == nil && slices.ContainsFunc(tokens, func(t token) bool { return t.is("PIVOT") || t.is("PIVOT_WIDER") })
}

// prepare prepares the i-th statement. The caller destroys it; after an error there is none.
func (in *instance) prepare(conn bind.Connection, x extraction, i int, sql string) (bind.PreparedStatement, error) {
	return in.prepareKind(conn, x, i, sql, kindSelect)
}

// prepareKind is prepare for a statement of a kind. A MERGE, for which DuckDB's C interface has no name, is never run,
// only described.
func (in *instance) prepareKind(conn bind.Connection, x extraction, i int, sql string, kind statementKind) (bind.PreparedStatement, error) {
	var ps bind.PreparedStatement
	var err error
	if bind.PrepareExtractedStatement(conn, x.list, bind.IdxT(i), &ps) == bind.StateError {
		err = in.check(bind.PrepareError(ps), sql)
	} else if t := bind.PreparedStatementType(ps); !allowed(t, i < x.count-1) && !(kind == kindMerge && t == bind.StatementTypeInvalid) {
		err = errorf(PermissionDenied, "statements of this kind are off for clients")
	}
	if err != nil {
		bind.DestroyPrepare(&ps)
	}
	return ps, err
}

// prepareOne prepares the first statement of a text that DuckDB splits. The caller calls free when err is nil.
func (in *instance) prepareOne(conn bind.Connection, sql string) (ps bind.PreparedStatement, free func(), err error) {
	x, err := in.extract(conn, sql)
	if err != nil {
		return ps, nil, err
	}
	if ps, err = in.prepare(conn, x, 0, sql); err != nil {
		bind.DestroyExtracted(&x.list)
		return ps, nil, err
	}
	return ps, func() {
		bind.DestroyPrepare(&ps)
		bind.DestroyExtracted(&x.list)
	}, nil
}

// allowed is the second door behind classify: what DuckDB itself says the statement is. A PIVOT may create a
// temporary type first; INSERT and CREATE only ever run on the shadow, UPDATE and DELETE are only prepared there.
func allowed(t bind.StatementType, first bool) bool {
	switch t {
	case bind.StatementTypeSelect, bind.StatementTypeExplain, bind.StatementTypeInsert, bind.StatementTypeUpdate, bind.StatementTypeDelete:
		return true
	case bind.StatementTypeCreate:
		return first
	}
	return false
}

// scalar runs a query of ours that returns one string.
func (in *instance) scalar(sql string) (string, error) {
	rows, err := in.strings(sql)
	if err != nil {
		return "", err
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return "", fmt.Errorf("%d rows where one was expected", len(rows))
	}
	return rows[0][0], nil
}

// strings runs a query of ours whose columns are all strings, on a connection of its own.
func (in *instance) strings(sql string) ([][]string, error) {
	conn, err := in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	return in.stringsOn(conn, sql)
}
