package flight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// DefaultTransactionIdle is how long a client may send nothing on such a stream unless Options say otherwise.
const DefaultTransactionIdle = 5 * time.Minute

// DefaultMaxMessageBytes is the largest message that a server takes unless Options say otherwise.
const DefaultMaxMessageBytes = 64 << 20

const (
	// windowBytes is what a client may send ahead of the server on a stream. With gRPC's own estimate the window starts at
	// 64 KiB and grows; a set window of 8 MiB together with the buffers below gave 16 to 80 % more throughput. With little
	// memory it is a share of that for receiving, windowShare, and at least minWindow: writers that wait fill their windows.
	windowBytes = 8 << 20
	windowShare = 128
	minWindow   = 1 << 20
	// socketBytes is the size of the read and the write buffer of a connection.
	socketBytes = 128 << 10
	// maxHeaderBytes bounds the headers of a call. JDBC sends unknown URL properties as headers, so that gRPC's
	// customary 8 KiB were too few for others.
	maxHeaderBytes = 64 << 10
	// maxStreams bounds the calls that one connection may have open.
	maxStreams = 1024

	// pingAfter and pingTimeout find clients that vanished without closing their connection; minPing is how often a
	// client may ping.
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
	minPing     = 10 * time.Second

	// handshakeTimeout is how long a new connection may take to say that it speaks HTTP/2. gRPC's own two minutes
	// would let a port scan hold its connections for long.
	handshakeTimeout = 5 * time.Second

	// failWithin is how long open streams have to end with a status of their own after the grace period, before
	// their connections are cut.
	failWithin = time.Second
)

// Options configures a Server.
type Options struct {
	// DB is the engine that ingest writes to. Required; the server does not close it.
	DB *lsm.DB
	// Query runs the statements. Required; the server does not close it.
	Query *query.Engine
	// Logger receives faults of the server; nil discards them.
	Logger *slog.Logger
	// TransactionIdle is how long a client may send nothing on a stream that is applied as a whole or under an idempotency
	// key, DefaultTransactionIdle when 0. Then the stream is aborted, as it holds space or its key.
	TransactionIdle time.Duration
	// MaxMessageBytes is the largest message a client may send, DefaultMaxMessageBytes when 0.
	MaxMessageBytes int
	// ReceiveBytes is the memory for messages that are being received, together. Streams of large messages wait for it. 0 is
	// no bound.
	ReceiveBytes int64
	// PartitionRows is about how many rows of a table one endpoint of a flight with several has, DefaultPartitionRows
	// when 0. A query over fewer than two times as many has one endpoint.
	PartitionRows int64
	// SessionIdle is how long a session without calls keeps its prepared statements and results; 30 minutes when 0.
	SessionIdle time.Duration
	// ReadIdle is how long a client may take nothing of a result that is on its way before the query is ended; 5
	// minutes when 0. When writers wait for the memory that such results hold, 10 seconds are enough.
	ReadIdle time.Duration
	// Version is what clients are told as the server's version.
	Version string
}

// validate fills in defaults and reports what is missing.
func (o *Options) validate() error {
	if o.DB == nil || o.Query == nil {
		return errors.New("flight: Options need a DB and a Query engine")
	}
	if o.TransactionIdle < 0 {
		return fmt.Errorf("flight: TransactionIdle is %s", o.TransactionIdle)
	}
	if o.TransactionIdle == 0 {
		o.TransactionIdle = DefaultTransactionIdle
	}
	if o.MaxMessageBytes < 0 {
		return fmt.Errorf("flight: MaxMessageBytes is %d", o.MaxMessageBytes)
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if o.ReceiveBytes < 0 {
		return fmt.Errorf("flight: ReceiveBytes is %d", o.ReceiveBytes)
	}
	if o.PartitionRows < 0 || o.SessionIdle < 0 || o.ReadIdle < 0 {
		return fmt.Errorf("flight: PartitionRows is %d, SessionIdle %v, ReadIdle %v", o.PartitionRows, o.SessionIdle, o.ReadIdle)
	}
	o.PartitionRows = cmp.Or(o.PartitionRows, DefaultPartitionRows)
	o.SessionIdle = cmp.Or(o.SessionIdle, 30*time.Minute)
	o.ReadIdle = cmp.Or(o.ReadIdle, 5*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "unknown"
	}
	return nil
}

// window returns what a client may send ahead of the server on a stream.
func (o *Options) window() int32 {
	if o.ReceiveBytes == 0 {
		return windowBytes
	}
	return int32(min(max(o.ReceiveBytes/windowShare, minWindow), windowBytes))
}

// Server serves Arrow Flight, Flight SQL and gRPC health on one listener.
type Server struct {
	db            *lsm.DB
	query         *query.Engine
	log           *slog.Logger
	info          map[uint32]any // the answers to GetSqlInfo
	maxMessage    int
	partitionRows int64
	sessionIdle   time.Duration
	readIdle      time.Duration
	// idle is Options.TransactionIdle.
	idle time.Duration
	// room is for large messages on their way in, nil when nothing bounds them.
	room *room

	grpc     *grpc.Server
	health   *health.Server
	prepared *preparedStatements
	running  *runningQueries
	returned *returnedRows
	leases   *leases
	sessions *sessions
	streams  *liveStreams
	jobs     *jobs

	mu sync.Mutex
	// listeners are those that Serve was given.
	listeners []*listener

	// sweeper is the goroutine that lets go of what clients have left.
	sweeper sync.WaitGroup
	// tasks counts the goroutines that start began.
	tasks sync.WaitGroup
	// drain ends when Shutdown begins, stop when what still runs then has to end.
	drain, stop          context.Context
	beginDrain, endCalls context.CancelFunc
}

// NewServer returns a server that Serve starts.
func NewServer(o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		db: o.DB, query: o.Query, log: o.Logger, maxMessage: o.MaxMessageBytes, idle: o.TransactionIdle,
		info: sqlInfoOf(o.Version, o.SessionIdle), health: health.NewServer(), prepared: newPreparedStatements(), running: newRunningQueries(),
		returned: newReturnedRows(), leases: newLeases(), sessions: newSessions(), streams: newLiveStreams(), jobs: newJobs(),
		partitionRows: o.PartitionRows, sessionIdle: o.SessionIdle, readIdle: o.ReadIdle, room: newRoom(o.ReceiveBytes),
	}
	s.drain, s.beginDrain = context.WithCancel(context.Background())
	s.stop, s.endCalls = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(newCodec(o.MaxMessageBytes)),
		// The codec holds messages against the limit itself, so that it can say which batch was too large; gRPC cuts
		// off before it reads what is larger still.
		grpc.MaxRecvMsgSize(2*o.MaxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.ReadBufferSize(socketBytes), grpc.WriteBufferSize(socketBytes),
		grpc.InitialWindowSize(o.window()), grpc.InitialConnWindowSize(2*o.window()),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.StatsHandler(&connections{server: s}),
		grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream),
	)
	pb.RegisterFlightServiceServer(s.grpc, &service{Server: s})
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	s.query.ServeClients(s)
	s.sweeper.Go(s.sweepLoop)
	return s, nil
}

// Serve accepts connections until Shutdown, which makes it return nil. It closes the listener.
func (s *Server) Serve(l net.Listener) error {
	for _, name := range []string{"", pb.FlightService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	remembered := newListener(l)
	s.mu.Lock()
	s.listeners = append(s.listeners, remembered)
	s.mu.Unlock()
	if err := s.grpc.Serve(remembered); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting calls and lets those that run finish until ctx ends. Then open ingests are told what was
// acknowledged and fail with UNAVAILABLE, as do queries, and within a second more the connections are cut. It
// returns ctx's error when anything had to be failed, and always only after the last goroutine that served a client
// has ended.
func (s *Server) Shutdown(ctx context.Context) error {
	s.health.Shutdown()
	s.beginDrain()
	s.cut(true)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.grpc.GracefulStop()
		s.tasks.Wait()
	}()
	var cut error
	select {
	case <-finished:
	case <-ctx.Done():
		cut = fmt.Errorf("shut down: streams were still open: %w", ctx.Err())
		s.failOpen(finished)
	}
	s.sweeper.Wait()
	s.prepared.closeAll()
	s.returned.closeAll()
	s.leases.dropWhere(func(*lease) bool { return true })
	return cut
}

// failOpen ends what still runs, at first by a status of its own, then by cutting the connections.
func (s *Server) failOpen(finished <-chan struct{}) {
	s.endCalls()
	timer := time.NewTimer(failWithin)
	defer timer.Stop()
	select {
	case <-finished:
		return
	case <-timer.C:
	}
	s.cut(false)
	s.grpc.Stop()
	<-finished
}

// cut closes the connections of all listeners, or only those that were never heard of.
func (s *Server) cut(silentOnly bool) {
	s.mu.Lock()
	listeners := slices.Clone(s.listeners)
	s.mu.Unlock()
	for _, l := range listeners {
		l.cut(silentOnly)
	}
}

// draining says whether Shutdown has begun.
func (s *Server) draining() bool { return s.drain.Err() != nil }
