package flight

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/flightd/flightd/lsm"
)

// service is the Flight service: it finds out what a call wants and hands it on. It returns plain errors; the
// interceptors give them their codes.
type service struct {
	pb.UnimplementedFlightServiceServer
	*Server
}

// parseCommand reads a Flight SQL command or ticket.
func parseCommand(b []byte) (proto.Message, error) {
	var wrapped anypb.Any
	if err := proto.Unmarshal(b, &wrapped); err != nil {
		return nil, invalid("not a Flight SQL command: %w", err)
	}
	command, err := wrapped.UnmarshalNew()
	if err != nil {
		return nil, invalid("not a Flight SQL command: %w", err)
	}
	return command, nil
}

// packCommand is the inverse of parseCommand.
func packCommand(command proto.Message) ([]byte, error) {
	wrapped, err := anypb.New(command)
	if err != nil {
		return nil, internal("encode %T: %w", command, err)
	}
	b, err := proto.Marshal(wrapped)
	if err != nil {
		return nil, internal("encode %T: %w", command, err)
	}
	return b, nil
}

// unknownCommand refuses a command that a call does not take.
func unknownCommand(command proto.Message, call string) error {
	switch command.(type) {
	case *pb.CommandStatementSubstraitPlan, *pb.ActionCreatePreparedSubstraitPlanRequest:
		return unimplemented("Substrait plans are not run; send SQL")
	}
	return invalid("%s does not take a %s", call, command.ProtoReflect().Descriptor().Name())
}

// Handshake implements the Flight service.
func (s *service) Handshake(pb.FlightService_HandshakeServer) error {
	return unimplemented("this server asks for no user and no password; connect without them")
}

// GetFlightInfo implements the Flight service.
func (s *service) GetFlightInfo(ctx context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	if d.GetType() == flight.DescriptorPATH {
		table, err := s.tableAt(ctx, d.GetPath())
		if err != nil {
			return nil, err
		}
		return s.tableInfo(ctx, table, d)
	}
	command, err := parseCommand(d.GetCmd())
	if err != nil {
		return nil, err
	}
	switch command := command.(type) {
	case *pb.CommandStatementQuery:
		if err := noTransaction(command.GetTransactionId()); err != nil {
			return nil, err
		}
		return s.statementInfo(ctx, command.GetQuery(), d)
	case *pb.CommandPreparedStatementQuery:
		return s.preparedInfo(ctx, command.GetPreparedStatementHandle(), d)
	}
	if l, ok := s.listing(command); ok {
		return newInfo(l.schema, d, d.GetCmd()), nil
	}
	return nil, unknownCommand(command, "GetFlightInfo")
}

// GetSchema implements the Flight service.
func (s *service) GetSchema(ctx context.Context, d *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	schema, err := s.schemaOf(ctx, d)
	if err != nil {
		return nil, err
	}
	return &flight.SchemaResult{Schema: flight.SerializeSchema(schema, memory.DefaultAllocator)}, nil
}

// schemaOf returns the schema of what a descriptor describes.
func (s *service) schemaOf(ctx context.Context, d *flight.FlightDescriptor) (*arrow.Schema, error) {
	if d.GetType() == flight.DescriptorPATH {
		table, err := s.tableAt(ctx, d.GetPath())
		if err != nil {
			return nil, err
		}
		return describeTable(table), nil
	}
	command, err := parseCommand(d.GetCmd())
	if err != nil {
		return nil, err
	}
	switch command := command.(type) {
	case *pb.CommandStatementQuery:
		return s.statementSchema(ctx, command.GetQuery())
	case *pb.CommandPreparedStatementQuery:
		p, release, err := s.prepared.acquire(command.GetPreparedStatementHandle())
		if err != nil {
			return nil, err
		}
		defer release()
		return s.preparedSchema(ctx, p)
	}
	if l, ok := s.listing(command); ok {
		return l.schema, nil
	}
	return nil, unknownCommand(command, "GetSchema")
}

// DoGet implements the Flight service.
func (s *service) DoGet(t *flight.Ticket, stream pb.FlightService_DoGetServer) error {
	command, err := parseCommand(t.GetTicket())
	if err != nil {
		return err
	}
	switch command := command.(type) {
	case *pb.TicketStatementQuery:
		return s.getStatement(stream, t.GetTicket(), command.GetStatementHandle())
	case *pb.CommandPreparedStatementQuery:
		return s.getPrepared(stream, t.GetTicket(), command.GetPreparedStatementHandle())
	}
	if l, ok := s.listing(command); ok {
		return s.getListing(stream, l)
	}
	return unknownCommand(command, "DoGet")
}

// DoExchange implements the Flight service.
func (s *service) DoExchange(pb.FlightService_DoExchangeServer) error {
	return unimplemented("use DoPut to write and DoGet to read")
}

// ListFlights implements the Flight service: every table is a flight whose descriptor is its path.
func (s *service) ListFlights(_ *flight.Criteria, stream pb.FlightService_ListFlightsServer) error {
	for _, table := range s.db.Tables() {
		name := table.Name()
		path := []string{schemaName(name), name.Name}
		info, err := s.listedInfo(stream.Context(), table, &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: path})
		if err != nil {
			return err
		}
		if err := stream.Send(info); err != nil {
			return fmt.Errorf("send a flight: %w", err)
		}
	}
	return nil
}

// DoPut implements the Flight service.
func (s *service) DoPut(stream pb.FlightService_DoPutServer) error {
	first, err := receive(stream)
	if errors.Is(err, io.EOF) {
		return invalid("the stream is empty; its first message must have a FlightDescriptor. " +
			"An adbc_ingest without a batch sends no message at all: give it a batch without rows, or use CREATE TABLE")
	}
	if err != nil {
		return err
	}
	defer first.release()
	switch d := first.descriptor; {
	case d == nil:
		return invalid("the first message has no FlightDescriptor; to stream rows, give it the path [table] or [schema, table]")
	case d.GetType() == flight.DescriptorPATH:
		return s.putRows(stream, first)
	default:
		return s.putCommand(stream, first)
	}
}

// receive returns the next message of a stream, io.EOF at its end. Its caller releases it.
func receive(stream grpc.ServerStream) (*message, error) {
	m := new(message)
	if err := stream.RecvMsg(m); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, err
	}
	if m.err != nil {
		return nil, m.err
	}
	return m, nil
}

// schemaName returns the schema of a table's name.
func schemaName(name lsm.TableName) string {
	if name.Schema == "" {
		return lsm.MainSchema
	}
	return name.Schema
}

// tableAt returns the table that the path of a descriptor names.
func (s *service) tableAt(ctx context.Context, path []string) (*lsm.Table, error) {
	name := lsm.TableName{Schema: sessionOf(ctx).currentSchema()}
	switch len(path) {
	case 1:
		name.Name = path[0]
	case 2:
		name.Schema, name.Name = path[0], path[1]
	default:
		return nil, invalid("the descriptor's path has %d parts; it must be [table] or [schema, table]", len(path))
	}
	if name.Name == "" {
		return nil, invalid("the descriptor's path has an empty table name; it must be [table] or [schema, table]")
	}
	table, err := s.db.Table(name)
	var unserved *lsm.UnservedError
	if errors.Is(err, lsm.ErrTableNotFound) && !errors.As(err, &unserved) {
		return nil, notFound("table %q does not exist; create it first with CREATE TABLE", name)
	}
	if err != nil {
		return nil, err
	}
	return table, nil
}

// tableQuery is the statement that reads a whole table.
func tableQuery(table *lsm.Table) string {
	name := table.Name()
	return "SELECT * FROM " + quoteName(schemaName(name)) + "." + quoteName(name.Name)
}

// tableInfo describes reading a whole table. Its schema is the query's, in which every column may be null.
func (s *service) tableInfo(ctx context.Context, table *lsm.Table, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return s.statementInfo(ctx, tableQuery(table), d)
}

// listedInfo is tableInfo for a listing, which is no reason to keep snapshots: it has one endpoint.
func (s *service) listedInfo(ctx context.Context, table *lsm.Table, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	schema, err := s.statementSchema(ctx, tableQuery(table))
	if err != nil {
		return nil, err
	}
	return queryInfo(schemaName(table.Name()), tableQuery(table), schema, d)
}

// newInfo describes a result of one endpoint, on the connection at hand.
func newInfo(schema *arrow.Schema, d *flight.FlightDescriptor, ticket []byte) *flight.FlightInfo {
	return &flight.FlightInfo{
		Schema:           flight.SerializeSchema(schema, memory.DefaultAllocator),
		FlightDescriptor: d,
		Endpoint:         []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: ticket}}},
		TotalRecords:     -1,
		TotalBytes:       -1,
	}
}

// noTransaction refuses calls inside a transaction.
func noTransaction(id []byte) error {
	if len(id) > 0 {
		return unimplemented("transactions are not supported; every statement commits on its own")
	}
	return nil
}
