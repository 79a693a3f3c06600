package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// paramsOf makes a batch of parameters, one column for each builder function.
func paramsOf(columns ...arrow.Array) arrow.RecordBatch {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: fmt.Sprint(i + 1), Type: c.DataType(), Nullable: true}
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, int64(columns[0].Len()))
}

func int64s(v ...int64) arrow.Array {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	b.AppendValues(v, nil)
	return b.NewArray()
}

func texts(v ...string) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	b.AppendValues(v, nil)
	return b.NewArray()
}

func vectors(n int32, v ...float32) arrow.Array {
	b := array.NewFixedSizeListBuilder(memory.DefaultAllocator, n, arrow.PrimitiveTypes.Float32)
	for i, x := range v {
		if int32(i)%n == 0 {
			b.Append(true)
		}
		b.ValueBuilder().(*array.Float32Builder).Append(x)
	}
	return b.NewArray()
}

// numbersTable makes a table n with the numbers below count, cut in morsels.
func numbersTable(t testing.TB, s *memStore, name string, count, step int64) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, nil)
	var morsels []memMorsel
	for from := int64(0); from < count; from += step {
		b := array.NewRecordBuilder(offheap.Default, schema)
		for i := from; i < min(from+step, count); i++ {
			b.Field(0).(*array.Int64Builder).Append(i)
			b.Field(1).(*array.Float64Builder).Append(float64(i) / 2)
		}
		morsels = append(morsels, memMorsel{rec: b.NewRecordBatch()})
		b.Release()
	}
	s.add(t, name, schema, []string{"id"}, morsels...)
}

// codeOf returns the code of an error of ours.
func codeOf(t testing.TB, err error) Code {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	return e.Code
}

func TestPrepareDescribes(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	_, err := runUpdate(e, "CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR, emb FLOAT[3], ts TIMESTAMPTZ)", nil)
	require.NoError(t, err)
	f := func(sql string, update bool, dataset, params string) {
		t.Helper()
		st, err := e.Prepare(t.Context(), e.NewSession(), sql)
		require.NoError(t, err, sql)
		require.Equal(t, update, st.IsUpdate(), sql)
		require.Equal(t, dataset, describe(st.DatasetSchema()), sql)
		require.Equal(t, params, describe(st.ParameterSchema()), sql)
	}
	f("SELECT id, body FROM docs WHERE id = ? AND ts > $2", false, "id int64, body utf8", "1 int64, 2 timestamp[us, tz=UTC]")
	f("SELECT * FROM docs WHERE id IN (?, ?) LIMIT ?;", false,
		"id int64, body utf8, emb fixed_size_list<item: float32, nullable>[3], ts timestamp[us, tz=UTC]", "1 int64, 2 int64, 3 int64")
	f("SELECT array_distance(emb, ?::FLOAT[3]) AS d FROM docs", false, "d float32", "1 fixed_size_list<item: float32, nullable>[3]")
	f("SELECT $x + 1", false, "unknown", "x utf8")
	f("SELECT id FROM docs WHERE id = $key", false, "id int64", "key int64")
	f("INSERT INTO docs VALUES (?, ?, ?, now())", true, "", "1 int64, 2 utf8, 3 fixed_size_list<item: float32, nullable>[3]")
	f("INSERT INTO docs (body, id) VALUES (upper(?), 1), ('x', ?)", true, "", "1 utf8, 2 int64")
	f("CREATE TABLE x (i INT)", true, "", "")
	f("DROP TABLE docs", true, "", "")
	f("OPTIMIZE docs", true, "", "")
	f("CALL flightd_flush('docs')", true, "", "")
	f("EXPLAIN SELECT * FROM docs", false, "explain_key utf8, explain_value utf8", "")
	f("SHOW TABLES", false, "name utf8", "")
	f("FROM docs SELECT count(*) AS n", false, "n int64", "")
	f("VALUES (1, 'a')", false, "col0 int32, col1 utf8", "")
	f("WITH a AS (SELECT 1 AS x) SELECT x FROM a -- WITH a DELETE in a comment", false, "x int32", "")
	f("SELECT table_name FROM information_schema.tables", false, "table_name utf8", "")
	f("PIVOT docs ON body USING count(*)", false, "unknown", "")
	f("SELECT $$INSERT; UPDATE$$ AS s, 'a;b' AS \"x;y\" /* ; /* nested ; */ */", false, "s utf8, x;y utf8", "")
}

// describe writes a schema on one line.
func describe(s *arrow.Schema) string {
	if s == nil {
		return "unknown"
	}
	var out []string
	for _, f := range s.Fields() {
		out = append(out, f.Name+" "+f.Type.String())
	}
	return strings.Join(out, ", ")
}

func TestParametersBind(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 5000, 1000)
	e := newTestEngine(t, s)
	rec := collectRows(t, e, "SELECT id FROM n WHERE id BETWEEN ? AND ? ORDER BY id", paramsOf(int64s(10), int64s(12)))
	require.Equal(t, []string{"10", "11", "12"}, printRows(rec))

	// Every value that a column can have can be bound, and comes back as it went in or as its SQL neighbour.
	for _, dt := range allTypes() {
		arr := randomArray(rowMaker{}.seeded(5), dt, 6)
		for row := range arr.Len() {
			one := array.NewSlice(arr, int64(row), int64(row+1))
			rec, err := tryRows(e, "SELECT ? AS v", paramsOf(one))
			if err != nil {
				require.Contains(t, []Code{InvalidArgument}, codeOf(t, err), "%s: %v", dt, err)
				continue
			}
			require.Equal(t, one.IsNull(0) || dt.ID() == arrow.NULL, rec.Column(0).IsNull(0), "%s", dt)
			if exact(arrow.Field{Type: dt}) && dt.ID() != arrow.FIXED_SIZE_LIST {
				require.Equal(t, rawCell(one, 0), rawCell(rec.Column(0), 0), "%s", dt)
			}
			rec.Release()
			one.Release()
		}
		arr.Release()
	}
	rec = collectRows(t, e, "SELECT array_distance(?, [1, 2, 4]::FLOAT[3]) AS d", paramsOf(vectors(3, 1, 2, 3)))
	require.Equal(t, []string{"1"}, printRows(rec))
	rec = collectRows(t, e, "SELECT ?::FLOAT[3] AS v", paramsOf(vectors(3, 1, 2, 3)))
	require.Equal(t, "[1,2,3]", rec.Column(0).ValueStr(0))
	rec = collectRows(t, e, "SELECT length(?)", paramsOf(texts("a\x00b")))
	require.Equal(t, []string{"3"}, printRows(rec))

	for sql, params := range map[string]arrow.RecordBatch{
		"SELECT ?":                      nil,
		"SELECT ?, ?":                   paramsOf(int64s(1)),
		"SELECT 1":                      paramsOf(int64s(1)),
		"SELECT ? AS two":               paramsOf(int64s(1, 2)),
		"SELECT ?::INT":                 paramsOf(texts("x")),
		"SELECT ?::FLOAT[2] AS short":   paramsOf(vectors(3, 1, 2, 3)),
		"SELECT id FROM n WHERE id = ?": paramsOf(int64s()),
	} {
		_, err := tryRows(e, sql, params)
		require.Equal(t, InvalidArgument, codeOf(t, err), sql)
	}
}

// TestStatementRunsAgain runs one prepared statement several times, also after the table changed.
func TestStatementRunsAgain(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	create := func(sql string) {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err)
	}
	create("CREATE TABLE a (id BIGINT PRIMARY KEY, v INTEGER)")
	st, err := e.Prepare(t.Context(), e.NewSession(), "SELECT * FROM a WHERE id > ?")
	require.NoError(t, err)
	run := func() string {
		r, err := st.Query(t.Context(), paramsOf(int64s(0)))
		require.NoError(t, err)
		defer r.Close()
		_, err = r.Next(t.Context())
		require.Equal(t, io.EOF, err)
		return describe(r.Schema())
	}
	require.Equal(t, "id int64, v int32", run())
	require.Equal(t, "id int64, v int32", run())
	create("DROP TABLE a")
	_, err = st.Query(t.Context(), paramsOf(int64s(0)))
	require.Equal(t, NotFound, codeOf(t, err))
	create("CREATE TABLE a (id BIGINT PRIMARY KEY, w VARCHAR)")
	require.Equal(t, "id int64, w utf8", run())
}

func TestProjectionIsPushedDown(t *testing.T) {
	s := &memStore{}
	m := rowMaker{}.withSeed(1)
	m.table(t, s, "t", wideSchema, morselPlan{sizes: []int{10}, alive: []float64{1}})
	e := newTestEngine(t, s)
	f := func(sql string, want ...[]int) {
		t.Helper()
		s.scanned = nil
		collectRows(t, e, sql, nil).Release()
		require.ElementsMatch(t, want, s.scanned, sql)
	}
	f("SELECT count(*) FROM t", []int(nil))
	f("SELECT s FROM t", []int{6})
	f("SELECT sum(f64) FROM t WHERE id > 3", []int{0, 4})
	f("SELECT a.s, b.b FROM t a JOIN t b ON a.id = b.id", []int{0, 6}, []int{0, 5})
}

// TestBatchesAreCoalesced wants few batches of narrow rows and small ones of wide rows.
func TestBatchesAreCoalesced(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 300_000, 50_000)
	e := newTestEngine(t, s)
	for sql, narrow := range map[string]bool{
		"SELECT id, v FROM n":                                     true,
		"SELECT repeat('x', 20000) FROM n LIMIT 1000":             false,
		"SELECT repeat('x', 5000000) FROM n LIMIT 3":              false,
		"SELECT list_value(id, id)::BIGINT[2] FROM n LIMIT 50000": true,
	} {
		st, err := e.Prepare(t.Context(), nil, sql)
		require.NoError(t, err)
		r, err := st.Query(t.Context(), nil)
		require.NoError(t, err)
		batches, rows := 0, int64(0)
		for {
			rec, err := r.Next(t.Context())
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			batches, rows = batches+1, rows+rec.NumRows()
			if !narrow && rec.NumRows() > 1 {
				require.LessOrEqual(t, rec.NumRows()*20000, int64(maxBatchBytes)+20000, sql)
			}
			rec.Release()
		}
		if narrow {
			require.Less(t, batches, 8, sql)
		}
		require.NoError(t, r.Close())
		require.Positive(t, rows)
	}
}

// TestAbandonedStreams closes results at every stage; newTestEngine looks for what is left.
func TestAbandonedStreams(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 400_000, 10_000)
	e := newTestEngine(t, s)
	for i := range 20 {
		st, err := e.Prepare(t.Context(), nil, "SELECT a.*, b.v AS w FROM n a JOIN n b USING (id)")
		require.NoError(t, err)
		r, err := st.Query(t.Context(), nil)
		require.NoError(t, err)
		for range i % 3 {
			rec, err := r.Next(t.Context())
			require.NoError(t, err)
			rec.Release()
		}
		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
		_, err = r.Next(t.Context())
		require.Error(t, err)
		require.Zero(t, s.open.Load())
		require.Zero(t, morselsAlive())
	}
}

// TestCancel ends queries that would run for minutes: before they start, while they compute, in mid-stream, and while
// a scan waits for a morsel.
func TestCancel(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 200_000, 10_000)
	e := newTestEngine(t, s)
	long := "SELECT count(*) FROM n a, n b, n c WHERE hash(a.id + b.id + c.id) = 1"
	run := func(ctx context.Context, sql string) error {
		st, err := e.Prepare(context.Background(), nil, sql)
		require.NoError(t, err)
		r, err := st.Query(ctx, nil)
		if err != nil {
			return err
		}
		defer r.Close()
		for {
			rec, err := r.Next(ctx)
			if err != nil {
				return err
			}
			rec.Release()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, Cancelled, codeOf(t, run(ctx, "SELECT 1")))

	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := run(ctx, long)
	require.Equal(t, Cancelled, codeOf(t, err))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	// What runs on would take hours. Half a minute is what a busy machine may make of the second that is promised.
	ctx, cancel = context.WithCancel(t.Context())
	var from time.Time
	timer := time.AfterFunc(50*time.Millisecond, func() {
		from = time.Now()
		cancel()
	})
	err = run(ctx, long)
	require.Equal(t, Cancelled, codeOf(t, err))
	require.False(t, timer.Stop(), "it ended by itself")
	require.Less(t, time.Since(from), 30*time.Second)
	require.Zero(t, e.Running())

	st, err := e.Prepare(t.Context(), nil, "SELECT a.id FROM n a, n b")
	require.NoError(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	r, err := st.Query(ctx, nil)
	require.NoError(t, err)
	rec, err := r.Next(t.Context())
	require.NoError(t, err)
	rec.Release()
	cancel()
	for err == nil {
		if rec, err = r.Next(t.Context()); err == nil {
			rec.Release()
		}
	}
	require.Equal(t, Cancelled, codeOf(t, err))
	require.NoError(t, r.Close())

	s.mu.Lock()
	s.block = make(chan struct{})
	s.mu.Unlock()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Equal(t, Cancelled, codeOf(t, run(ctx, "SELECT sum(id) FROM n")))
	s.mu.Lock()
	close(s.block)
	s.block = nil
	s.mu.Unlock()
	require.Equal(t, io.EOF, run(t.Context(), "SELECT sum(id) FROM n"))
}

// TestCloseWhileNextWaits closes a result under a goroutine whose Next waits for a scan.
func TestCloseWhileNextWaits(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 1_000_000, 10_000)
	e := newTestEngine(t, s)
	st, err := e.Prepare(t.Context(), nil, "SELECT id FROM n")
	require.NoError(t, err)
	r, err := st.Query(t.Context(), nil)
	require.NoError(t, err)
	s.mu.Lock()
	s.block = make(chan struct{})
	s.mu.Unlock()
	done := make(chan error)
	go func() {
		for {
			rec, err := r.Next(context.Background())
			if err != nil {
				done <- err
				return
			}
			rec.Release()
		}
	}()
	require.Eventually(t, func() bool { return s.waiting.Load() > 0 }, time.Minute, time.Millisecond)
	require.NoError(t, r.Close())
	require.Equal(t, Cancelled, codeOf(t, <-done))
}

// TestScanErrors passes the engine's errors on as they are, at the start and in mid-stream.
func TestScanErrors(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 50_000, 10_000)
	e := newTestEngine(t, s)
	broken := errors.New("block 7 is damaged")
	s.failNext = broken
	_, err := tryRows(e, "SELECT sum(id) FROM n", nil)
	require.ErrorIs(t, err, broken)
	require.Equal(t, Internal, codeOf(t, err))
	s.mu.Lock()
	s.failNext = nil
	s.mu.Unlock()
	require.Equal(t, []string{"1249975000"}, printRows(collectRows(t, e, "SELECT sum(id)::BIGINT FROM n", nil)))
}

// TestBadMorsels gives the bridge morsels that would make DuckDB read beyond a buffer.
func TestBadMorsels(t *testing.T) {
	for name, live := range map[string][]uint32{"out of range": {0, 10}, "out of order": {3, 2}, "twice": {1, 1}} {
		s := &memStore{}
		numbersTable(t, s, "n", 10, 10)
		s.list[0].morsels[0].live = live
		e := newTestEngine(t, s)
		_, err := tryRows(e, "SELECT * FROM n", nil)
		require.ErrorContains(t, err, "lists row", name)
	}
	s := &memStore{}
	numbersTable(t, s, "n", 10, 10)
	s.list[0].info.arrow = arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "v", Type: arrow.PrimitiveTypes.Float64}}, nil)
	e := newTestEngine(t, s)
	_, err := tryRows(e, "SELECT id FROM n", nil)
	require.ErrorContains(t, err, `column "id" of a morsel is int64, the table has utf8`)
}

// TestPanicInScan turns a panic of the store into an error of the statement.
func TestPanicInScan(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 10, 10)
	e := newTestEngine(t, s)
	s.mu.Lock()
	s.panicNext = true
	s.mu.Unlock()
	_, err := tryRows(e, "SELECT id FROM n", nil)
	require.ErrorContains(t, err, "panic in a scan: broken store")
	require.Equal(t, Internal, codeOf(t, err))
}

// TestInternalErrorOfDuckDB makes DuckDB give up, by text that is not UTF-8 in a stored column: it declares its whole
// instance dead. The next statement finds a new one; a stream in the old one ends with an error that says so.
func TestInternalErrorOfDuckDB(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 400_000, 10_000)
	b := array.NewStringBuilder(offheap.Default)
	b.AppendValues([]string{"abc\xff\xc3", "\xe2\x98", "\xf0"}, nil)
	c := b.NewArray()
	schema := arrow.NewSchema([]arrow.Field{{Name: "s", Type: c.DataType()}}, nil)
	s.add(t, "x", schema, nil, memMorsel{rec: array.NewRecordBatch(schema, []arrow.Array{c}, 3)})
	c.Release()
	e := newTestEngine(t, s)
	e.opts.Logger = slog.New(slog.DiscardHandler)

	st, err := e.Prepare(t.Context(), nil, "SELECT a.id FROM n a, range(100)")
	require.NoError(t, err)
	stream, err := st.Query(t.Context(), nil)
	require.NoError(t, err)
	_, err = tryRows(e, "SELECT s FROM x ORDER BY s COLLATE NOCASE", nil)
	require.Equal(t, Internal, codeOf(t, err))
	require.Contains(t, err.Error(), "INTERNAL Error")
	require.NotContains(t, err.Error(), "Stack")
	require.Equal(t, []string{"400000"}, printRows(collectRows(t, e, "SELECT count(*) FROM n", nil)))
	for err = nil; err == nil; {
		var rec arrow.RecordBatch
		if rec, err = stream.Next(t.Context()); err == nil {
			rec.Release()
		}
	}
	if err != io.EOF { // DuckDB may also have let it finish
		require.ErrorIs(t, err, errRestarted)
	}
	require.NoError(t, stream.Close())
	_, err = tryRows(e, "SELECT ?", paramsOf(texts("a\xffb")))
	require.Equal(t, InvalidArgument, codeOf(t, err))
}

// TestStatementsOfAPivotNeedItsColumns refuses what has to know the columns of a PIVOT before its rows tell them, and says
// the way that there is.
func TestStatementsOfAPivotNeedItsColumns(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 10, 3)
	e := newTestEngine(t, s)
	for _, sql := range []string{
		"INSERT INTO n FROM (PIVOT n ON id USING count(*))", "CREATE TABLE p AS PIVOT n ON id USING count(*)", "CREATE OR REPLACE TABLE n AS FROM (PIVOT n ON id USING count(*))",
		"EXPLAIN PIVOT n ON id USING count(*)", "EXPLAIN ANALYZE SELECT * FROM (PIVOT n ON id USING count(*))",
	} {
		_, err := e.Prepare(t.Context(), e.NewSession(), sql)
		require.Equal(t, Unimplemented, codeOf(t, err), "%s: %v", sql, err)
		require.ErrorContains(t, err, "IN (", sql)
	}
	rec := collectRows(t, e, "EXPLAIN PIVOT n ON id IN (1, 2) USING count(*)", nil)
	defer rec.Release()
	require.NotEmpty(t, printRows(rec))
}

// TestPivotFindsItsColumns runs a PIVOT whose columns only the rows tell.
func TestPivotFindsItsColumns(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 10, 3)
	e := newTestEngine(t, s)
	rec := collectRows(t, e, "PIVOT (SELECT id % 2 AS p, 'k' || (id % 3) AS k FROM n) ON k USING count(*) GROUP BY p ORDER BY p", nil)
	require.Equal(t, "p int64, k0 int64, k1 int64, k2 int64", describe(rec.Schema()))
	require.Equal(t, []string{"0 | 2 | 1 | 2", "1 | 2 | 2 | 1"}, printRows(rec))
}

// TestMemoryLimit refuses what does not fit, and goes on.
func TestMemoryLimit(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 1000, 1000)
	e, err := open(t.Context(), Options{Threads: 2, Memory: 32 << 20}.withDefaults(), s)
	require.NoError(t, err)
	defer e.Close()
	_, err = tryRows(e, "SELECT list(a.id + b.id) FROM n a, n b, range(100)", nil)
	require.Equal(t, ResourceExhausted, codeOf(t, err), err)
	require.Equal(t, []string{"1000"}, printRows(collectRows(t, e, "SELECT count(*) FROM n", nil)))
}

func TestClosedEngine(t *testing.T) {
	e, err := open(t.Context(), Options{}.withDefaults(), &memStore{})
	require.NoError(t, err)
	require.NoError(t, e.Close())
	require.NoError(t, e.Close())
	_, err = e.Prepare(t.Context(), nil, "SELECT 1")
	require.Equal(t, FailedPrecondition, codeOf(t, err))
}

// TestStreamsHoldFewMorsels reads slowly from a table of many morsels: only those at work are in memory.
func TestStreamsHoldFewMorsels(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 1_000_000, 5_000)
	e := newTestEngine(t, s)
	for _, sql := range []string{"SELECT * FROM n", "SELECT n.id, b.v FROM n JOIN n b USING (id)", "SELECT max(v) FROM n GROUP BY id"} {
		st, err := e.Prepare(t.Context(), nil, sql)
		require.NoError(t, err)
		r, err := st.Query(t.Context(), nil)
		require.NoError(t, err)
		for {
			rec, err := r.Next(t.Context())
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.LessOrEqual(t, morselsAlive(), int64(20), sql)
			rec.Release()
		}
		require.NoError(t, r.Close())
	}
}

// TestLimitReadsFewMorsels ends scans early, and counts rows without reading any column.
func TestLimitReadsFewMorsels(t *testing.T) {
	s := &memStore{}
	numbersTable(t, s, "n", 1_000_000, 5_000)
	e := newTestEngine(t, s)
	for _, sql := range []string{"SELECT * FROM n LIMIT 10", "SELECT id FROM n WHERE id >= 0 LIMIT 3 OFFSET 5", "SELECT 1 FROM n LIMIT 1"} {
		before := s.handed.Load()
		collectRows(t, e, sql, nil).Release()
		require.LessOrEqual(t, s.handed.Load()-before, int64(20), sql)
	}
	collectRows(t, e, "SELECT count(*) FROM n", nil).Release()
	require.Empty(t, s.scanned[len(s.scanned)-1])
}

// TestAStatementKeepsOnlyTheTablesItReads looks at what is left of the snapshot while a result is not yet read.
func TestAStatementKeepsOnlyTheTablesItReads(t *testing.T) {
	s := &memStore{}
	for _, name := range []string{"a", "b", "other"} {
		numbersTable(t, s, name, 1000, 100)
	}
	e := newTestEngine(t, s)
	f := func(sql string, want ...string) {
		t.Helper()
		st, err := e.Prepare(t.Context(), nil, sql)
		require.NoError(t, err)
		r, err := st.Query(t.Context(), nil)
		require.NoError(t, err)
		defer r.Close()
		var got []string
		for _, table := range *s.kept.Load() {
			got = append(got, table.name)
		}
		require.ElementsMatch(t, want, got, sql)
	}
	f("SELECT * FROM a", "a")
	f("SELECT 1")
	f("SELECT * FROM a WHERE id IN (SELECT id FROM b) UNION ALL SELECT * FROM a", "a", "b")
	f("WITH x AS (SELECT * FROM b) SELECT count(*) FROM x", "b")
}
