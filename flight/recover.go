package flight

import (
	"context"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// A panic in a goroutine ends the process unless that goroutine itself recovers. gRPC's goroutines are covered by
// the two interceptors here, every other goroutine that serves a client starts through Server.start.

// recovered turns a panic of the calling goroutine into an error. It must be deferred itself.
func (s *Server) recovered(act string, err *error) {
	if r := recover(); r != nil {
		s.log.Error("panic while serving a client", "act", act, "panic", r, "stack", string(debug.Stack()))
		*err = internal("%s failed inside the server: %v; the server's log has the details", act, r)
	}
}

// start runs work in a goroutine that Shutdown awaits and gives its error, or its panic as an error, to done.
func (s *Server) start(act string, work func() error, done func(error)) {
	s.tasks.Go(func() {
		done(func() (err error) {
			defer s.recovered(act, &err)
			return work()
		}())
	})
}

// unary guards a call with one answer: it refuses it while the server drains, ends it when the server stops,
// recovers, and gives errors their code.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	var answer any
	err := s.guard(ctx, info.FullMethod, func(ctx context.Context) (err error) {
		answer, err = handle(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// stream is unary for calls with streams.
func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return s.guard(stream.Context(), info.FullMethod, func(ctx context.Context) error {
		return handle(srv, &guardedStream{stream, ctx})
	})
}

// guardedStream is a stream whose context also ends when the server stops.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (g *guardedStream) Context() context.Context { return g.ctx }

// guard runs a call.
func (s *Server) guard(ctx context.Context, method string, call func(context.Context) error) error {
	if s.draining() && method != grpc_health_v1.Health_Check_FullMethodName {
		return statusOf(errStopping)
	}
	until := s.stop
	if method == grpc_health_v1.Health_Watch_FullMethodName {
		until = s.drain // it has nothing to finish, and would hold up the shutdown
	}
	ctx, leave := s.sessions.enter(ctx)
	defer leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(until, func() { cancel(errStopping) })()
	err := func() (err error) {
		defer s.recovered(method, &err)
		return call(ctx)
	}()
	if err != nil && codeOf(err) == codeOf(context.Canceled) {
		err = cause(ctx, err)
	}
	return statusOf(err)
}
