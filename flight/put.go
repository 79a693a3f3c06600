package flight

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

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
	if !statement.IsUpdate() && !statement.Returns() {
		return invalid("the statement returns rows; run it as a query")
	}
	rows, err := statement.Update(ctx, nil)
	if err != nil {
		return cause(ctx, err)
	}
	return putResult(stream, &pb.DoPutUpdateResult{RecordCount: rows})
}

// putPrepared runs a prepared update once for each row of parameters that the stream brings, or once without any.
// All of them are one update, in however many batches they came: it takes effect as a whole or not at all.
func (s *service) putPrepared(stream pb.FlightService_DoPutServer, first *message, handle []byte) error {
	p, release, err := s.prepared.acquire(handle)
	if err != nil {
		return err
	}
	defer release()
	if !p.statement.IsUpdate() && !p.statement.Returns() {
		return invalid("the prepared statement returns rows; run it as a query")
	}
	params, err := s.parameters(stream, first)
	if err != nil {
		return err
	}
	ctx := stream.Context()
	var rows int64
	if params == nil {
		rows, err = s.update(ctx, p)
	} else {
		defer params.Release()
		rows, err = p.statement.Update(ctx, params)
	}
	if err != nil {
		return cause(ctx, err)
	}
	return putResult(stream, &pb.DoPutUpdateResult{RecordCount: rows})
}

// putParameters binds the parameters that the stream brings to a prepared statement.
func (s *service) putParameters(stream pb.FlightService_DoPutServer, first *message, handle []byte) error {
	p, release, err := s.prepared.acquire(handle)
	if err != nil {
		return err
	}
	defer release()
	params, err := s.parameters(stream, first)
	if err != nil {
		return err
	}
	p.bind(params)
	return putResult(stream, &pb.DoPutPreparedStatementResult{PreparedStatementHandle: handle})
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
	// room, which may be nil, is for large messages; flying is that of the next one, taken what the last one has of it, and
	// largest the largest body so far.
	room           *room
	flying         *flying
	taken, largest int64
	// silence is since when the reader waits for the client, in nanoseconds since 1970; notWaiting while it does not, and
	// expired once nobody wants to hear of the client any more.
	silence atomic.Int64
}

// What batchReader.silence says beside a time.
const (
	notWaiting = 0
	expired    = -1
)

// newBatchReader returns a reader of the stream's batches, the first message included. A batch may grow to limit
// bytes when it is decoded.
func (s *Server) newBatchReader(stream grpc.ServerStream, first *message, limit int64) *batchReader {
	return &batchReader{stream: stream, first: first, limit: limit, room: s.room}
}

// close frees the decoder, and the room that the last message had.
func (r *batchReader) close() {
	r.leaveRoom()
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
	if err := r.makeRoom(); err != nil {
		return nil, err
	}
	r.silence.Store(time.Now().UnixNano())
	m, err := receive(r.stream)
	r.fillRoom(m)
	if r.silence.Swap(notWaiting) == expired {
		if err == nil {
			m.release()
		}
		return nil, errSilent
	}
	return m, err
}

// errSilent is what a reader returns whose client was silent for too long.
var errSilent = errors.New("the client was silent for too long")

// expire gives the client up if it has been silent for as long as limit, and returns how long it may be silent yet, 0
// when it was given up: then nothing that it sends counts any more.
func (r *batchReader) expire(limit time.Duration) (left time.Duration) {
	since := r.silence.Load()
	if since == notWaiting {
		return limit
	}
	if left = limit - time.Since(time.Unix(0, since)); left > 0 {
		return left
	}
	if !r.silence.CompareAndSwap(since, expired) {
		return limit // it has just sent something
	}
	return 0
}

// drain reads the rest of the stream and drops it.
func (r *batchReader) drain() error {
	for {
		m, err := r.message()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m.release()
	}
}
