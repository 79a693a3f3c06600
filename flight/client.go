package flight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Client speaks to a server as its users do: statements by Flight SQL, streams of batches by plain DoPut.
// It is safe for concurrent use.
type Client struct {
	sql *flightsql.Client
}

// Dial returns a client of the server at address (HOST:PORT). It does not connect yet: the first call does.
func Dial(address string) (*Client, error) {
	sql, err := flightsql.NewClient(address, nil, nil,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxClientMessageBytes)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return &Client{sql: sql}, nil
}

// maxClientMessageBytes is the largest message a client takes, equal to what a server accepts by default.
const maxClientMessageBytes = 64 << 20

// Close ends the connection and with it all streams.
func (c *Client) Close() error { return c.sql.Close() }

// Execute runs a statement that returns no rows and says how many rows it changed.
func (c *Client) Execute(ctx context.Context, statement string) (int64, error) {
	n, err := c.sql.ExecuteUpdate(ctx, statement)
	if err != nil {
		return 0, fmt.Errorf("execute %q: %w", statement, err)
	}
	return n, nil
}

// Query runs a statement and calls each with its batches in order. A batch is released after each returns; what
// is kept must be retained.
func (c *Client) Query(ctx context.Context, statement string, each func(arrow.RecordBatch) error) error {
	info, err := c.sql.Execute(ctx, statement)
	if err != nil {
		return fmt.Errorf("query %q: %w", statement, err)
	}
	for _, endpoint := range info.Endpoint {
		if err := c.fetch(ctx, endpoint.Ticket, each); err != nil {
			return fmt.Errorf("query %q: %w", statement, err)
		}
	}
	return nil
}

// fetch reads one endpoint of a result.
func (c *Client) fetch(ctx context.Context, ticket *flight.Ticket, each func(arrow.RecordBatch) error) error {
	reader, err := c.sql.DoGet(ctx, ticket)
	if err != nil {
		return err
	}
	defer reader.Release()
	for reader.Next() {
		if err := each(reader.RecordBatch()); err != nil {
			return err
		}
	}
	return reader.Err()
}

// Upload is an open stream of batches into a table. One goroutine may send while another one receives acks.
type Upload struct {
	stream flight.FlightService_DoPutClient
	writer *flight.Writer
}

// UploadAck says what the server has made durable and visible so far. All numbers are cumulative.
type UploadAck struct {
	// Batches and Rows count from the beginning of the stream.
	Batches int64 `json:"batches"`
	Rows    int64 `json:"rows"`
	// Seq is the position of the last acknowledged batch in the server's log.
	Seq uint64 `json:"seq"`
	// Complete says that nothing more will be stored under the upload's key, Repeated that all of this had been before
	// the upload began.
	Complete bool `json:"complete"`
	Repeated bool `json:"repeated"`
}

// Put opens a stream of batches of the schema into the table that path names: [table] or [schema, table].
// It ends with ctx, or by CloseSend and reading acks up to io.EOF.
func (c *Client) Put(ctx context.Context, schema *arrow.Schema, path ...string) (*Upload, error) {
	stream, err := c.sql.Client.DoPut(ctx)
	if err != nil {
		return nil, fmt.Errorf("put into %v: %w", path, err)
	}
	writer := flight.NewRecordWriter(stream, ipc.WithSchema(schema))
	writer.SetFlightDescriptor(&flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: path})
	return &Upload{stream: stream, writer: writer}, nil
}

// PutOnce is Put of an upload that is stored once, however often it is sent under the same key. Without resume it is
// stored as a whole at its end, and there is one ack. With resume it is stored as it comes, and the first ack, which
// the caller has to wait for, says what earlier uploads have stored of it: those rows must not be sent again. All
// acks then count from the first of these uploads on.
func (c *Client) PutOnce(ctx context.Context, key string, resume bool, schema *arrow.Schema, path ...string) (*Upload, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, optionPrefix+"idempotency-key", key)
	if !resume {
		return c.Put(ctx, schema, path...)
	}
	stream, err := c.sql.Client.DoPut(metadata.AppendToOutgoingContext(ctx, optionPrefix+"resume", "true"))
	if err != nil {
		return nil, fmt.Errorf("put into %v: %w", path, err)
	}
	// The writer sends the schema with the first batch, and what that is the server has to say first.
	first := &flight.FlightData{FlightDescriptor: &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: path}}
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) { // io.EOF: the first ack tells why
		return nil, fmt.Errorf("put into %v: %w", path, err)
	}
	return &Upload{stream: stream, writer: flight.NewRecordWriter(stream, ipc.WithSchema(schema))}, nil
}

// Send sends one batch. It does not wait for an ack, only for room in the connection's window. io.EOF means that
// the server ended the stream; Ack then tells why.
func (u *Upload) Send(batch arrow.RecordBatch) error {
	err := u.writer.Write(batch)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("send a batch: %w", err)
	}
	return err
}

// CloseSend says that no more batches follow. Acks go on until Ack returns io.EOF.
func (u *Upload) CloseSend() error {
	return errors.Join(u.writer.Close(), u.stream.CloseSend())
}

// Ack waits for the next ack. io.EOF follows the last one of a stream that was stored completely.
func (u *Upload) Ack() (UploadAck, error) {
	result, err := u.stream.Recv()
	if errors.Is(err, io.EOF) {
		return UploadAck{}, io.EOF
	}
	if err != nil {
		return UploadAck{}, fmt.Errorf("receive an ack: %w", err)
	}
	var ack UploadAck
	if err := json.Unmarshal(result.AppMetadata, &ack); err != nil {
		return UploadAck{}, fmt.Errorf("receive an ack: app_metadata %q: %w", result.AppMetadata, err)
	}
	return ack, nil
}
