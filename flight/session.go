package flight

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// catalogName is the only catalog.
const catalogName = "flightd"

// Names of the session options, as ADBC and JDBC send them.
const (
	optionCatalog = "catalog"
	optionSchema  = "schema"
)

// session is what the calls with one bearer token share, or without a token those of one connection. There are no
// cookies: ADBC keeps none by default.
type session struct {
	// id is its number in flightd_catalog; 0 for one that is none of sessions.
	id int64
	// client is the address of the connection, empty when a token names the session.
	client  string
	started time.Time

	mu     sync.Mutex
	schema string
	calls  int       // that run now
	last   time.Time // when the last one ended
}

// newSession returns a session with the default options.
func newSession() *session {
	now := time.Now()
	return &session{schema: lsm.MainSchema, started: now, last: now}
}

// stats returns what flightd_catalog tells of the session, but for its prepared statements.
func (s *session) stats() query.SessionStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	kind := "connection"
	if s.client == "" {
		kind = "token"
	}
	return query.SessionStats{ID: s.id, Kind: kind, Client: s.client, Schema: s.schema, Started: s.started, LastCall: s.last, Calls: int64(s.calls)}
}

// begin counts a call.
func (s *session) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
}

// end gives up what begin counted.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	s.last = time.Now()
}

// idle says whether the session has had no call for the given time. If so, that time begins anew.
func (s *session) idle(now time.Time, limit time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls > 0 || now.Sub(s.last) < limit {
		return false
	}
	s.last = now
	return true
}

// tokenHash stands for a bearer token: the token itself is a secret that need not be kept.
type tokenHash [sha256.Size]byte

// sessions are all sessions.
type sessions struct {
	mu   sync.Mutex
	last int64 // the id that was given last
	// byToken has those of bearer tokens; they end when they are closed or idle.
	byToken map[tokenHash]*session
	// connections has those of connections; they end with them. An idle one keeps its options.
	connections map[*session]struct{}
}

func newSessions() *sessions {
	return &sessions{byToken: make(map[tokenHash]*session), connections: make(map[*session]struct{})}
}

// enter returns the context of a call with its session, in which the call counts until leave.
func (r *sessions) enter(ctx context.Context) (_ context.Context, leave func()) {
	token, ok := bearerToken(ctx)
	if !ok {
		own := sessionOf(ctx)
		own.begin()
		return ctx, own.end
	}
	hash := tokenHash(sha256.Sum256([]byte(token)))
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.byToken[hash]
	if s == nil {
		s = r.addLocked()
		r.byToken[hash] = s
	}
	s.begin()
	return context.WithValue(ctx, sessionKey{}, s), s.end
}

// bearerToken returns the token of a call's authorization header.
func bearerToken(ctx context.Context) (string, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), true
		}
	}
	return "", false
}

// addLocked makes a session with an id.
func (r *sessions) addLocked() *session {
	s := newSession()
	r.last++
	s.id = r.last
	return s
}

// connect makes the session of a connection.
func (r *sessions) connect(client string) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.addLocked()
	s.client = client
	r.connections[s] = struct{}{}
	return s
}

// all returns all sessions.
func (r *sessions) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.AppendSeq(slices.Collect(maps.Values(r.byToken)), maps.Keys(r.connections))
}

// disconnect forgets it.
func (r *sessions) disconnect(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.connections, s)
}

// idle returns the sessions without a call for the given time, and forgets those of tokens.
func (r *sessions) idle(now time.Time, limit time.Duration) (out []*session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for hash, s := range r.byToken {
		if s.idle(now, limit) {
			delete(r.byToken, hash)
			out = append(out, s)
		}
	}
	for s := range r.connections {
		if s.idle(now, limit) {
			out = append(out, s)
		}
	}
	return out
}

// endSession frees what a session holds on the server.
func (s *Server) endSession(session *session) {
	s.prepared.closeOwned(session)
	s.jobs.endOwned(session)
}

// sessionKey finds the session in a call's context.
type sessionKey struct{}

// sessionOf returns the session of a call.
func sessionOf(ctx context.Context) *session {
	if s, ok := ctx.Value(sessionKey{}).(*session); ok {
		return s
	}
	return newSession()
}

// currentSchema returns the schema in which unqualified names are looked up.
func (s *session) currentSchema() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schema
}

// setSchema changes it.
func (s *session) setSchema(schema string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schema = schema
}

// querySession returns the session as the SQL engine takes it.
func (s *service) querySession(ctx context.Context) *query.Session {
	q := s.query.NewSession()
	q.Catalog, q.Schema, q.ID = catalogName, sessionOf(ctx).currentSchema(), sessionOf(ctx).id
	return q
}

// connections gives each connection its session and closes what is left of it when the connection ends. It is a
// stats.Handler because gRPC tells of a connection's end nowhere else.
type connections struct{ server *Server }

// TagConn implements stats.Handler.
func (c *connections) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	client := "unknown"
	if info.RemoteAddr != nil {
		client = info.RemoteAddr.String()
	}
	return context.WithValue(ctx, sessionKey{}, c.server.sessions.connect(client))
}

// HandleConn implements stats.Handler.
func (c *connections) HandleConn(ctx context.Context, event stats.ConnStats) {
	if _, ok := event.(*stats.ConnEnd); !ok {
		return
	}
	var err error
	defer c.server.recovered("end of a connection", &err)
	c.server.sessions.disconnect(sessionOf(ctx))
	c.server.endSession(sessionOf(ctx))
}

// TagRPC implements stats.Handler.
func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (c *connections) HandleRPC(context.Context, stats.RPCStats) {}

// setSessionOptions sets what it can and says what is wrong with the rest.
func (s *service) setSessionOptions(ctx context.Context, r *pb.SetSessionOptionsRequest) *pb.SetSessionOptionsResult {
	result := &pb.SetSessionOptionsResult{Errors: make(map[string]*pb.SetSessionOptionsResult_Error)}
	refuse := func(name string, why pb.SetSessionOptionsResult_ErrorValue) {
		result.Errors[name] = &pb.SetSessionOptionsResult_Error{Value: why}
	}
	for name, value := range r.GetSessionOptions() {
		text, isText := value.GetOptionValue().(*pb.SessionOptionValue_StringValue)
		reset := value.GetOptionValue() == nil
		switch {
		case name != optionCatalog && name != optionSchema:
			refuse(name, flight.SetSessionOptionsResultErrorInvalidName)
		case reset && name == optionSchema:
			sessionOf(ctx).setSchema(lsm.MainSchema)
		case reset:
		case !isText:
			refuse(name, flight.SetSessionOptionsResultErrorInvalidValue)
		case name == optionCatalog && !strings.EqualFold(text.StringValue, catalogName):
			refuse(name, flight.SetSessionOptionsResultErrorInvalidValue)
		case name == optionSchema && !s.hasSchema(text.StringValue):
			refuse(name, flight.SetSessionOptionsResultErrorInvalidValue)
		case name == optionSchema:
			sessionOf(ctx).setSchema(text.StringValue)
		}
	}
	return result
}

// sessionOptions returns the session's options.
func (s *service) sessionOptions(ctx context.Context) (*pb.GetSessionOptionsResult, error) {
	values, err := flight.NewSessionOptionValues(map[string]any{
		optionCatalog: catalogName, optionSchema: sessionOf(ctx).currentSchema(),
	})
	if err != nil {
		return nil, internal("encode the session options: %w", err)
	}
	return &pb.GetSessionOptionsResult{SessionOptions: values}, nil
}

// closeSession forgets what the session holds. Later calls find it as it was when it was new.
func (s *service) closeSession(ctx context.Context) *pb.CloseSessionResult {
	session := sessionOf(ctx)
	s.endSession(session)
	session.setSchema(lsm.MainSchema)
	return &pb.CloseSessionResult{Status: flight.CloseSessionResultClosed}
}
