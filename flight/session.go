package flight

import (
	"context"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
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

// session is what the calls of one connection share. There are no cookies: ADBC keeps none by default.
type session struct {
	mu     sync.Mutex
	schema string
}

// sessionKey finds the session in a call's context.
type sessionKey struct{}

// sessionOf returns the session of the connection that a call came on.
func sessionOf(ctx context.Context) *session {
	if s, ok := ctx.Value(sessionKey{}).(*session); ok {
		return s
	}
	return &session{schema: lsm.MainSchema}
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
	q.Catalog, q.Schema = catalogName, sessionOf(ctx).currentSchema()
	return q
}

// connections gives each connection its session and closes what is left of it when the connection ends. It is a
// stats.Handler because gRPC tells of a connection's end nowhere else.
type connections struct{ server *Server }

// TagConn implements stats.Handler.
func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, sessionKey{}, &session{schema: lsm.MainSchema})
}

// HandleConn implements stats.Handler.
func (c *connections) HandleConn(ctx context.Context, event stats.ConnStats) {
	if _, ok := event.(*stats.ConnEnd); !ok {
		return
	}
	var err error
	defer c.server.recovered("end of a connection", &err)
	c.server.prepared.closeOwned(sessionOf(ctx))
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

// closeSession forgets what the session holds. The connection goes on with a new one.
func (s *service) closeSession(ctx context.Context) *pb.CloseSessionResult {
	session := sessionOf(ctx)
	s.prepared.closeOwned(session)
	session.setSchema(lsm.MainSchema)
	return &pb.CloseSessionResult{Status: flight.CloseSessionResultClosed}
}
