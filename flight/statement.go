package flight

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"

	"github.com/flightd/flightd/query"
)

// queryTicket is what a statement's ticket says. Any connection may redeem it, as often as it likes. A query and an
// update are self-contained: the server remembers nothing. A part is one of several that read one snapshot, which a
// lease keeps for some time.
//
//	+-------+---------+-------------------+-----------+-----+
//	| kind  | nonce   | schema length: u8 | schema    | sql |   kind 'q', a query
//	| 1     | 8 bytes |                   |           |     |
//	+-------+---------+-------------------+-----------+-----+
//	| kind  | nonce   | rows: i64, little-endian            |   kind 'u', an update that has run
//	+-------+---------+-------------------------------------+
//	| kind  | nonce   | handle                              |   kind 'r', rows that a statement returned that has run
//	+-------+---------+-------------------+-----------------+
//	| kind  | nonce   | part: u16, l.-e.  | lease           |   kind 'p', a part of a query
//	+-------+---------+-------------------+-----------------+
//	| kind  | nonce   | prepared length: u8 | prepared | as 'q' |   kind 's', a query that was prepared
//	+-------+---------+---------------------+----------+--------+
//
// A prepared query is read through the prepared statement, which knows its plan, while there is one, and from its text
// afterwards: who asked for partitions may be gone when others read them.
//
// An update runs when its FlightInfo is asked for, once; its ticket only repeats the count, or names the rows that it
// returned (see returnedRows), so that reading it twice changes nothing. The nonce keeps two runs of one text apart for CancelFlightInfo.
type queryTicket struct {
	schema string
	sql    string
	// prepared is the handle of the prepared statement that the query comes from, or empty.
	prepared string
	update   bool
	rows     int64
	// returned is the handle of rows that the server keeps for a while.
	returned string
	lease    string
	part     int
}

const (
	ticketQuery    = 'q'
	ticketUpdate   = 'u'
	ticketRows     = 'r'
	ticketPart     = 'p'
	ticketPrepared = 's'
	nonceBytes     = 8
)

// countSchema is what an update answers when it is read as a query, as DuckDB has it.
var countSchema = arrow.NewSchema([]arrow.Field{{Name: "Count", Type: arrow.PrimitiveTypes.Int64}}, nil)

// packTicket encodes a ticket.
func packTicket(t queryTicket) ([]byte, error) {
	handle := make([]byte, 1+nonceBytes, 1+nonceBytes+1+len(t.schema)+len(t.sql))
	handle[0] = ticketQuery
	if _, err := rand.Read(handle[1:]); err != nil {
		return nil, internal("make a ticket: %w", err)
	}
	switch {
	case t.update:
		handle[0] = ticketUpdate
		handle = binary.LittleEndian.AppendUint64(handle, uint64(t.rows))
	case t.returned != "":
		handle[0] = ticketRows
		handle = append(handle, t.returned...)
	case t.lease != "":
		handle[0] = ticketPart
		handle = append(binary.LittleEndian.AppendUint16(handle, uint16(t.part)), t.lease...)
	default:
		if t.prepared != "" {
			handle[0] = ticketPrepared
			handle = append(append(handle, byte(len(t.prepared))), t.prepared...)
		}
		handle = append(handle, byte(len(t.schema)))
		handle = append(append(handle, t.schema...), t.sql...)
	}
	return packCommand(&pb.TicketStatementQuery{StatementHandle: handle})
}

// parseTicket decodes what packTicket encoded.
func parseTicket(handle []byte) (queryTicket, error) {
	bad := invalid("the ticket is not one of this server's")
	if len(handle) < 1+nonceBytes+1 {
		return queryTicket{}, bad
	}
	rest := handle[1+nonceBytes:]
	switch handle[0] {
	case ticketUpdate:
		if len(rest) != 8 {
			return queryTicket{}, bad
		}
		return queryTicket{update: true, rows: int64(binary.LittleEndian.Uint64(rest))}, nil
	case ticketRows:
		return queryTicket{returned: string(rest)}, nil
	case ticketPart:
		if len(rest) < 3 {
			return queryTicket{}, bad
		}
		return queryTicket{lease: string(rest[2:]), part: int(binary.LittleEndian.Uint16(rest))}, nil
	case ticketQuery, ticketPrepared:
		var t queryTicket
		ok := true
		if handle[0] == ticketPrepared {
			t.prepared, rest, ok = cutShort(rest)
		}
		if ok {
			t.schema, rest, ok = cutShort(rest)
		}
		if !ok {
			return queryTicket{}, bad
		}
		t.sql = string(rest)
		return t, nil
	}
	return queryTicket{}, bad
}

// cutShort splits a text with its length in a byte in front of it off b.
func cutShort(b []byte) (text string, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}

// ticketOf decodes a whole ticket; what is not a statement's has neither lease nor text.
func ticketOf(ticket []byte) (queryTicket, error) {
	command, err := parseCommand(ticket)
	if err != nil {
		return queryTicket{}, err
	}
	t, ok := command.(*pb.TicketStatementQuery)
	if !ok {
		return queryTicket{}, nil
	}
	return parseTicket(t.GetStatementHandle())
}

// quoteName writes an identifier so that SQL reads it as it is.
func quoteName(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// statementInfo describes the result of a statement, and runs it when it is an update.
func (s *service) statementInfo(ctx context.Context, sql string, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	statement, err := s.query.Prepare(ctx, s.querySession(ctx), sql)
	if err != nil {
		return nil, err
	}
	defer s.close(statement)
	if statement.IsUpdate() {
		rows, err := statement.Update(ctx, nil)
		if err != nil {
			return nil, err
		}
		return countInfo(rows, d)
	}
	if statement.Returns() {
		return s.runReturning(ctx, statement, nil, d)
	}
	schema, err := s.resultSchema(ctx, statement, nil)
	if err != nil {
		return nil, err
	}
	if parts, err := s.partition(ctx, statement); parts != nil || err != nil {
		if err != nil {
			return nil, err
		}
		return s.leasedInfo(schema, d, parts)
	}
	return queryInfo(sessionOf(ctx).currentSchema(), sql, schema, d)
}

// queryInfo describes the result of a query by a ticket that holds its text.
func queryInfo(schemaName, sql string, schema *arrow.Schema, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	ticket, err := packTicket(queryTicket{schema: schemaName, sql: sql})
	if err != nil {
		return nil, err
	}
	return newInfo(schema, d, ticket), nil
}

// partition cuts a statement into parts when its result is large, else it returns nil.
func (s *service) partition(ctx context.Context, statement *query.Statement) (*query.Partitions, error) {
	parts, err := statement.Partition(ctx, s.partitionRows, maxEndpoints)
	if err != nil {
		return nil, cause(ctx, err)
	}
	return parts, nil
}

// countInfo describes the answer of an update that has run.
func countInfo(rows int64, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	ticket, err := packTicket(queryTicket{update: true, rows: rows})
	if err != nil {
		return nil, err
	}
	return newInfo(countSchema, d, ticket), nil
}

// statementSchema returns the schema of a statement's result without running it.
func (s *service) statementSchema(ctx context.Context, sql string) (*arrow.Schema, error) {
	statement, err := s.query.Prepare(ctx, s.querySession(ctx), sql)
	if err != nil {
		return nil, err
	}
	defer s.close(statement)
	return s.resultSchema(ctx, statement, nil)
}

// resultSchema returns the schema of what reading a statement gives. Where the columns depend on the parameters'
// values, as in SELECT ?, or on what the tables hold, as in PIVOT without IN, it runs the statement to see what comes.
func (s *service) resultSchema(ctx context.Context, statement *query.Statement, params arrow.RecordBatch) (*arrow.Schema, error) {
	if statement.IsUpdate() {
		return countSchema, nil
	}
	if schema := statement.DatasetSchema(); schema != nil {
		return describeResult(schema), nil
	}
	if params != nil && params.NumRows() == 0 {
		return nil, invalid("the result's columns depend on the parameters' values, and the parameters have no row")
	}
	if params != nil {
		params = params.NewSlice(0, 1)
		defer params.Release()
	} else if schema := statement.ParameterSchema(); schema != nil && schema.NumFields() > 0 {
		return nil, invalid("the result's columns are not known before the parameters are bound; prepare the statement and bind them")
	}
	result, err := statement.Query(ctx, params)
	if err != nil {
		return nil, cause(ctx, err)
	}
	schema := describeResult(result.Schema())
	if err := result.Close(); err != nil {
		return nil, fmt.Errorf("close a result: %w", err)
	}
	return schema, nil
}

// close ends a statement; what fails then changes nothing for the client.
func (s *Server) close(statement *query.Statement) {
	if err := statement.Close(); err != nil {
		s.log.Warn("close a statement", "err", err)
	}
}

// getStatement streams what a statement's ticket stands for.
func (s *service) getStatement(stream pb.FlightService_DoGetServer, ticket, handle []byte) error {
	t, err := parseTicket(handle)
	if err != nil {
		return err
	}
	if t.update {
		return s.getCount(stream, t.rows)
	}
	if t.returned != "" {
		return s.getReturned(stream, t.returned)
	}
	return s.serveResult(stream, ticket, func(ctx context.Context, out grpc.ServerStream) error {
		if t.lease != "" {
			return s.getPart(ctx, out, t)
		}
		return s.getQuery(ctx, out, t)
	})
}

// getQuery runs the query of a ticket.
func (s *service) getQuery(ctx context.Context, out grpc.ServerStream, t queryTicket) error {
	if p, release, err := s.prepared.acquire([]byte(t.prepared)); err == nil {
		defer release()
		return s.readQuery(ctx, out, p.statement)
	}
	session := s.querySession(ctx)
	session.Schema = t.schema
	statement, err := s.query.Prepare(ctx, session, t.sql)
	if err != nil {
		return err
	}
	defer s.close(statement)
	return s.readQuery(ctx, out, statement)
}

// readQuery streams the result of a statement that a ticket names, which may be forged.
func (s *service) readQuery(ctx context.Context, out grpc.ServerStream, statement *query.Statement) error {
	if statement.IsUpdate() || statement.Returns() {
		return invalid("the ticket is not one of this server's: reading never changes anything")
	}
	return s.sendResults(ctx, out, statement, nil)
}

// getPart runs a part of a query that a lease holds.
func (s *service) getPart(ctx context.Context, out grpc.ServerStream, t queryTicket) error {
	l, err := s.leases.find(t.lease)
	if err != nil {
		return err
	}
	result, err := l.parts.Query(ctx, t.part)
	if err != nil {
		return cause(ctx, err)
	}
	sent, err := s.sendResult(ctx, out, nil, result)
	if err != nil {
		return err
	}
	if err := sent.close(); err != nil {
		return err
	}
	s.leases.done(l, t.part)
	return nil
}

// getCount streams the row count of an update.
func (s *service) getCount(stream pb.FlightService_DoGetServer, rows int64) error {
	b := array.NewRecordBuilder(memory.DefaultAllocator, countSchema)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(rows)
	record := b.NewRecordBatch()
	defer record.Release()
	return sendRecord(stream, record)
}
