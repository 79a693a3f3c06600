package flight

import (
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/offheap"
)

// decodeFactor bounds what a batch may grow to by decompression and decoding, as a multiple of the message limit.
const decodeFactor = 4

// putCommand runs the Flight SQL command of a DoPut.
func (s *service) putCommand(stream pb.FlightService_DoPutServer, first *message) error {
	command, err := parseCommand(first.descriptor.GetCmd())
	if err != nil {
		return err
	}
	switch command := command.(type) {
	case *pb.CommandStatementUpdate:
		if err := noTransaction(command.GetTransactionId()); err != nil {
			return err
		}
		return s.putUpdate(stream, command.GetQuery())
	case *pb.CommandPreparedStatementUpdate:
		return s.putPrepared(stream, first, command.GetPreparedStatementHandle())
	case *pb.CommandPreparedStatementQuery:
		return s.putParameters(stream, first, command.GetPreparedStatementHandle())
	case *pb.CommandStatementIngest:
		return s.putBulk(stream, first, command)
	}
	return unknownCommand(command, "DoPut")
}

// putUpdate runs a statement that is not prepared.
func (s *service) putUpdate(stream pb.FlightService_DoPutServer, sql string) error {
	ctx := stream.Context()
	statement, err := s.query.Prepare(ctx, s.querySession(ctx), sql)
	if err != nil {
		return err
	}
	defer s.close(statement)
	if !statement.IsUpdate() {
		return invalid("the statement returns rows; run it as a query")
	}
	rows, err := statement.Update(ctx, nil)
	if err != nil {
		return cause(ctx, err)
	}
	return putResult(stream, &pb.DoPutUpdateResult{RecordCount: rows})
}

// putPrepared runs a prepared update once for each row of parameters that the stream brings, or once without any.
func (s *service) putPrepared(stream pb.FlightService_DoPutServer, first *message, handle []byte) error {
	p, release, err := s.prepared.acquire(handle)
	if err != nil {
		return err
	}
	defer release()
	if !p.statement.IsUpdate() {
		return invalid("the prepared statement returns rows; run it as a query")
	}
	ctx := stream.Context()
	total, batches := int64(0), 0
	err = s.parameters(stream, first, func(params arrow.RecordBatch) error {
		batches++
		rows, err := p.statement.Update(ctx, params)
		total += rows
		return cause(ctx, err)
	})
	if err == nil && batches == 0 {
		total, err = s.update(ctx, p)
	}
	if err != nil {
		return cause(ctx, err)
	}
	return putResult(stream, &pb.DoPutUpdateResult{RecordCount: total})
}

// putParameters binds the parameters that the stream brings to a prepared statement.
func (s *service) putParameters(stream pb.FlightService_DoPutServer, first *message, handle []byte) error {
	p, release, err := s.prepared.acquire(handle)
	if err != nil {
		return err
	}
	defer release()
	var bound arrow.RecordBatch
	err = s.parameters(stream, first, func(params arrow.RecordBatch) error {
		if bound != nil {
			return invalid("the parameters came in more than one batch; send them in one")
		}
		params.Retain()
		bound = params
		return nil
	})
	if err != nil {
		if bound != nil {
			bound.Release()
		}
		return err
	}
	p.bind(bound)
	return putResult(stream, &pb.DoPutPreparedStatementResult{PreparedStatementHandle: handle})
}

// parameters calls each with the batches of parameters of a stream. Statements without parameters send no batch, or
// one without columns, which is the same.
func (s *service) parameters(stream grpc.ServerStream, first *message, each func(arrow.RecordBatch) error) error {
	batches := newBatchReader(stream, first, int64(s.maxMessage)*decodeFactor)
	defer batches.close()
	for {
		batch, err := batches.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("parameters: %w", err)
		}
		if batch.record.NumCols() > 0 {
			err = each(batch.record)
		}
		batch.release()
		if err != nil {
			return err
		}
	}
}

// putResult sends the answer of a command.
func putResult(stream pb.FlightService_DoPutServer, answer proto.Message) error {
	b, err := proto.Marshal(answer)
	if err != nil {
		return internal("encode the result: %w", err)
	}
	if err := stream.Send(&pb.PutResult{AppMetadata: b}); err != nil {
		return fmt.Errorf("send the result: %w", err)
	}
	return nil
}

// batchReader reads the batches of a DoPut stream. It belongs to one goroutine.
type batchReader struct {
	stream  grpc.ServerStream
	first   *message // the message that was read to find out what the stream is for; nil once it is used
	limit   int64
	decoder *decoder // nil before the schema came
}

// newBatchReader returns a reader of the stream's batches, the first message included. A batch may grow to limit
// bytes when it is decoded.
func newBatchReader(stream grpc.ServerStream, first *message, limit int64) *batchReader {
	return &batchReader{stream: stream, first: first, limit: limit}
}

// close frees the decoder.
func (r *batchReader) close() {
	if r.decoder != nil {
		r.decoder.Close()
	}
}

// batch is a decoded batch with the message that it came in.
type batch struct {
	decoded
	meta []byte
	body []byte // lives as long as the record
}

// release gives up the record.
func (b batch) release() { b.record.Release() }

// schema reads messages up to the schema and returns it. io.EOF says that the stream ended without one.
func (r *batchReader) schema() (*streamSchema, error) {
	for r.decoder == nil {
		m, err := r.message()
		if err != nil {
			return nil, err
		}
		err = r.open(m)
		m.release()
		if err != nil {
			return nil, err
		}
	}
	return r.decoder.stream, nil
}

// open starts the decoder with a schema message. Messages without a header carry only metadata of the client's own.
func (r *batchReader) open(m *message) error {
	if len(m.header) == 0 {
		return nil
	}
	schema, err := parseSchema(m.header)
	if err != nil {
		return invalid("schema: %w", err)
	}
	r.decoder = newDecoder(schema, offheap.Default, r.limit)
	return nil
}

// next returns the next batch, io.EOF at the end of the stream. Its caller releases it.
func (r *batchReader) next() (batch, error) {
	if _, err := r.schema(); err != nil {
		return batch{}, err
	}
	for {
		m, err := r.message()
		if err != nil {
			return batch{}, err
		}
		b, ok, err := r.decode(m)
		m.release()
		if ok || err != nil {
			return b, err
		}
	}
}

// decode decodes a message; ok is false when it has no rows.
func (r *batchReader) decode(m *message) (b batch, ok bool, err error) {
	if len(m.header) == 0 {
		return batch{}, false, nil
	}
	d, ok, err := r.decoder.Decode(m.header, m.body)
	if err != nil {
		return batch{}, false, invalid("%w", err)
	}
	b = batch{decoded: d, meta: m.header}
	if m.body != nil {
		b.body = m.body.Bytes()
	}
	return b, ok, nil
}

// message returns the next message, beginning with the first.
func (r *batchReader) message() (*message, error) {
	if m := r.first; m != nil {
		r.first = nil
		return m, nil
	}
	return receive(r.stream)
}
