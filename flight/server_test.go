package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that end at once unless something is wrong.
const patience = time.Minute

// harness is a server over a data folder, and a client.
type harness struct {
	t      testing.TB
	dir    string
	engine lsm.Options // Dir is dir
	db     *lsm.DB
	query  *query.Engine
	server *Server
	served chan error
	addr   string
	client *Client
}

// serve starts a server over an empty data folder.
func serve(t testing.TB, change ...func(*Options)) *harness {
	t.Helper()
	h := &harness{t: t, dir: t.TempDir()}
	h.start(change...)
	t.Cleanup(func() { h.stop(context.Background()) })
	return h
}

// start opens the folder and serves it.
func (h *harness) start(change ...func(*Options)) {
	h.t.Helper()
	ctx := context.Background()
	var err error
	h.engine.Dir = h.dir
	h.db, err = lsm.Open(ctx, h.engine)
	require.NoError(h.t, err)
	h.query, err = query.Open(ctx, query.Options{DB: h.db, Threads: 2, Temp: h.t.TempDir()})
	require.NoError(h.t, err)
	o := Options{DB: h.db, Query: h.query, Logger: slog.New(slog.DiscardHandler), Version: "test"}
	for _, c := range change {
		c(&o)
	}
	h.server, err = NewServer(o)
	require.NoError(h.t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(h.t, err)
	h.addr = l.Addr().String()
	h.served = make(chan error, 1)
	go func() { h.served <- h.server.Serve(l) }()
	h.client, err = Dial(h.addr)
	require.NoError(h.t, err)
}

// stop ends everything; a second call does nothing.
func (h *harness) stop(ctx context.Context) error {
	if h.server == nil {
		return nil
	}
	require.NoError(h.t, h.client.Close())
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := h.server.Shutdown(ctx)
	require.NoError(h.t, <-h.served)
	require.NoError(h.t, h.query.Close())
	require.NoError(h.t, h.db.Close())
	h.server = nil
	return err
}

// eventSchema is the schema of the tables of most tests; keyed says whether id is its primary key.
func eventSchema(keyed bool) *arrow.Schema {
	id := arrow.Field{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: !keyed}
	if keyed {
		id.Metadata = arrow.NewMetadata([]string{"lance-schema:unenforced-primary-key"}, []string{"true"})
	}
	return arrow.NewSchema([]arrow.Field{id, {Name: "tag", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
}

// createTable makes a table of eventSchema.
func (h *harness) createTable(name string, keyed bool) *lsm.Table {
	h.t.Helper()
	def := lsm.TableDef{Name: lsm.TableName{Name: name}, Schema: eventSchema(keyed), SQL: "CREATE TABLE " + quoteName(name) + " (id BIGINT, tag VARCHAR)"}
	if keyed {
		def.Key = []string{"id"}
		def.SQL = "CREATE TABLE " + quoteName(name) + " (id BIGINT PRIMARY KEY, tag VARCHAR)"
	}
	require.NoError(h.t, h.db.CreateTable(context.Background(), def))
	table, err := h.db.Table(def.Name)
	require.NoError(h.t, err)
	return table
}

// events returns rows first to first+n-1 of eventSchema.
func events(t testing.TB, keyed bool, first, n int64, tag string) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, eventSchema(keyed))
	defer b.Release()
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(first + i)
		b.Field(1).(*array.StringBuilder).Append(tag)
	}
	r := b.NewRecordBatch()
	t.Cleanup(r.Release)
	return r
}

// ids returns the ids of a table, sorted.
func (h *harness) ids(name string) []int64 {
	h.t.Helper()
	ctx := context.Background()
	snapshot, err := h.db.Snapshot(ctx)
	require.NoError(h.t, err)
	defer snapshot.Release()
	view, err := snapshot.Table(lsm.TableName{Name: name})
	require.NoError(h.t, err)
	scan, err := view.Scan(ctx, lsm.ScanOptions{Columns: []int{0}})
	require.NoError(h.t, err)
	defer scan.Close()
	var out []int64
	for {
		m, err := scan.Next(ctx)
		if errors.Is(err, io.EOF) {
			slices.Sort(out)
			return out
		}
		require.NoError(h.t, err)
		values := m.Record.Column(0).(*array.Int64)
		if m.Live == nil {
			out = append(out, values.Int64Values()...)
		}
		for _, row := range m.Live {
			out = append(out, values.Value(int(row)))
		}
		m.Release()
	}
}

// put opens a stream into a table.
func (h *harness) put(ctx context.Context, schema *arrow.Schema, path ...string) *Upload {
	h.t.Helper()
	u, err := h.client.Put(ctx, schema, path...)
	require.NoError(h.t, err)
	return u
}

// drainAcks reads acks to the end and returns the last one and the status.
func drainAcks(u *Upload) (last UploadAck, err error) {
	for {
		ack, err := u.Ack()
		if errors.Is(err, io.EOF) {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		last = ack
	}
}

// requireCode asserts an error's gRPC code and parts of its message.
func requireCode(t testing.TB, err error, code codes.Code, parts ...string) {
	t.Helper()
	require.Error(t, err)
	st, ok := status.FromError(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, st.Code(), "%v", err)
	for _, part := range parts {
		require.ErrorContains(t, err, part)
	}
}

func TestHealthFollowsTheServer(t *testing.T) {
	h := serve(t)
	conn, err := grpc.NewClient(h.addr, dialInsecure())
	require.NoError(t, err)
	defer conn.Close()
	health := grpc_health_v1.NewHealthClient(conn)
	for _, name := range []string{"", "arrow.flight.protocol.FlightService"} {
		answer, err := health.Check(context.Background(), &grpc_health_v1.HealthCheckRequest{Service: name})
		require.NoError(t, err)
		require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, answer.GetStatus())
	}
	watch, err := health.Watch(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	answer, err := watch.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, answer.GetStatus())
	require.NoError(t, h.stop(context.Background()), "a watcher held up the shutdown")
}

func TestASilentConnectionHoldsUpNothing(t *testing.T) {
	h := serve(t)
	silent, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, h.stop(context.Background()))
	// One that began and went silent then is cut at the end of the grace period.
	h.start()
	half, err := net.Dial("tcp", h.addr)
	require.NoError(t, err)
	defer half.Close()
	_, err = half.Write([]byte("PRI * HTTP/2"))
	require.NoError(t, err)
	heard := func() bool {
		h.server.mu.Lock()
		listeners := h.server.listeners
		h.server.mu.Unlock()
		if len(listeners) == 0 {
			return false
		}
		l := listeners[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		for c := range l.open {
			if c.heard.Load() {
				return true
			}
		}
		return false
	}
	require.Eventually(t, heard, patience, patience/1000)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, h.stop(over), context.Canceled)
}

func TestPanicsBecomeInternal(t *testing.T) {
	h := serve(t)
	_, err := h.server.unary(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: "/x"},
		func(context.Context, any) (any, error) { panic("boom") })
	requireCode(t, err, codes.Internal, "boom")
	failed := make(chan error, 1)
	h.server.start("test", func() error { panic("bang") }, func(err error) { failed <- err })
	requireCode(t, statusOf(<-failed), codes.Internal, "test failed inside the server: bang")
}

func TestErrorsHaveCodes(t *testing.T) {
	f := func(err error, want codes.Code) {
		t.Helper()
		requireCode(t, statusOf(fmt.Errorf("act: %w", err)), want)
	}
	f(invalid("x"), codes.InvalidArgument)
	f(invalid("x: %w", errTooLarge), codes.ResourceExhausted)
	f(lsm.ErrTableNotFound, codes.NotFound)
	f(lsm.ErrTableExists, codes.AlreadyExists)
	f(lsm.ErrKeyExists, codes.AlreadyExists)
	f(lsm.ErrClosed, codes.Unavailable)
	f(fmt.Errorf("%w: %w", lsm.ErrPoisoned, syscall.EIO), codes.Unavailable)
	f(fmt.Errorf("%w: %w", lsm.ErrFenced, lsm.ErrPoisoned), codes.Aborted)
	f(&query.Error{Code: query.FailedPrecondition, Err: lsm.ErrFenced}, codes.Aborted)
	f(fmt.Errorf("%w: %w", lsm.ErrPoisoned, syscall.ENOSPC), codes.ResourceExhausted)
	f(&lsm.CorruptError{Name: "data/x.lance", Offset: 64, Err: io.ErrUnexpectedEOF}, codes.DataLoss)
	f(invalid("x: %w", &lsm.CorruptError{Name: "data/x.lance", Err: io.ErrUnexpectedEOF}), codes.DataLoss)
	f(&lsm.ColumnError{Column: "c"}, codes.InvalidArgument)
	f(&lsm.KeyError{Column: "c"}, codes.InvalidArgument)
	f(&query.Error{Code: query.NotFound}, codes.NotFound)
	f(&query.Error{Code: query.Cancelled}, codes.Canceled)
	f(context.DeadlineExceeded, codes.DeadlineExceeded)
	f(errStopping, codes.Unavailable)
	f(errCancelled, codes.Canceled)
	f(errors.New("anything else"), codes.Internal)
	require.NoError(t, statusOf(nil))
}

func TestWantOfRoomSaysWhenToTryAgain(t *testing.T) {
	retry := func(err error) time.Duration {
		for _, detail := range status.Convert(statusOf(err)).Details() {
			if info, ok := detail.(*errdetails.RetryInfo); ok {
				return info.GetRetryDelay().AsDuration()
			}
		}
		return 0
	}
	require.Equal(t, retryDelay, retry(fmt.Errorf("flush: %w", syscall.ENOSPC)))
	require.Equal(t, retryDelay, retry(&query.Error{Code: query.ResourceExhausted}))
	require.Zero(t, retry(invalid("batch 3: %w", errTooLarge)), "the same batch is too large tomorrow as well")
	require.Zero(t, retry(invalid("x")))
}

func TestTheEndOfAServerIsSaid(t *testing.T) {
	h := serve(t)
	conn, err := grpc.NewClient(h.addr, dialInsecure())
	require.NoError(t, err)
	defer conn.Close()
	h.server.beginDrain()
	_, err = flight.NewClientFromConn(conn, nil).GetSchema(context.Background(), &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{"t"}})
	requireCode(t, err, codes.Unavailable, "shutting down")
}

func TestCallsThatDoNotExistSayWhatDoes(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	_, err := h.client.sql.Client.GetFlightInfo(ctx, &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: []byte("garbage")})
	requireCode(t, err, codes.InvalidArgument, "not a Flight SQL command")
	_, err = h.client.sql.Client.GetFlightInfo(ctx, &flight.FlightDescriptor{})
	requireCode(t, err, codes.InvalidArgument)
	_, err = h.client.sql.BeginTransaction(ctx)
	requireCode(t, err, codes.Unimplemented, "transactions")
	exchange, err := h.client.sql.Client.DoExchange(ctx)
	require.NoError(t, err)
	_, err = exchange.Recv()
	requireCode(t, err, codes.Unimplemented, "DoPut")
	acted, err := h.client.sql.Client.DoAction(ctx, &flight.Action{Type: "Dance"})
	require.NoError(t, err)
	_, err = acted.Recv()
	requireCode(t, err, codes.Unimplemented, "Dance")
	stream, err := h.client.sql.Client.DoGet(ctx, &flight.Ticket{Ticket: []byte(strings.Repeat("x", 100))})
	require.NoError(t, err)
	_, err = stream.Recv()
	requireCode(t, err, codes.InvalidArgument)
}
