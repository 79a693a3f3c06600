package flight

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"google.golang.org/grpc"

	"github.com/flightd/flightd/query"
)

// Results are cut into messages between these sizes. Below, the cost per message rules; above, buffers leave the
// caches and the pools (38 MB batches were 30 to 55 % slower than 4.8 MB), and ADBC takes no more than 16 MiB.
const (
	aimBytes = 1 << 20
	maxBytes = 2 << 20
)

// sender writes a stream of batches to a client: the schema first, then the batches, cut to size.
type sender struct {
	ipc    *ipc.Writer
	schema *arrow.Schema
}

// newSender returns a sender of batches of the schema. The schema goes out with the first batch, or on close.
func newSender(stream grpc.ServerStream, schema *arrow.Schema) *sender {
	return &sender{ipc.NewWriterWithPayloadWriter(payloads{stream}, ipc.WithSchema(schema)), schema}
}

// send writes a batch, which stays the caller's.
func (w *sender) send(record arrow.RecordBatch) error {
	rows := record.NumRows()
	size := recordBytes(record)
	if size <= maxBytes || rows <= 1 {
		return w.write(record)
	}
	step := max(1, rows*aimBytes/size)
	for at := int64(0); at < rows; at += step {
		piece := record.NewSlice(at, min(at+step, rows))
		err := w.write(piece)
		piece.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// write writes one message.
func (w *sender) write(record arrow.RecordBatch) error {
	if err := w.ipc.Write(record); err != nil {
		return fmt.Errorf("send a batch: %w", err)
	}
	return nil
}

// close writes the schema if no batch came, and frees the encoder.
func (w *sender) close() error {
	if err := w.ipc.Close(); err != nil {
		return fmt.Errorf("send the schema: %w", err)
	}
	return nil
}

// sendRecord streams one batch as a whole result.
func sendRecord(stream grpc.ServerStream, record arrow.RecordBatch) error {
	out := newSender(stream, record.Schema())
	if err := out.send(record); err != nil {
		return err
	}
	return out.close()
}

// payloads implements ipc.PayloadWriter over a stream.
type payloads struct{ stream grpc.ServerStream }

// Start implements ipc.PayloadWriter.
func (p payloads) Start() error { return nil }

// Close implements ipc.PayloadWriter.
func (p payloads) Close() error { return nil }

// WritePayload implements ipc.PayloadWriter.
func (p payloads) WritePayload(payload ipc.Payload) error {
	meta := payload.Meta()
	defer meta.Release()
	var body bodyWriter
	if err := payload.SerializeBody(&body); err != nil {
		return err
	}
	return p.stream.SendMsg(newOutgoing(meta.Bytes(), &body))
}

// sendResults runs a statement, once for each row of its parameters, and streams what comes out as one result.
// A nil params runs it once.
func (s *service) sendResults(ctx context.Context, stream grpc.ServerStream, statement *query.Statement, params arrow.RecordBatch) error {
	rows := int64(1)
	if params != nil {
		rows = max(params.NumRows(), 1)
	}
	var out *sender
	for i := range rows {
		row := params
		if rows > 1 {
			row = params.NewSlice(i, i+1)
		}
		result, err := statement.Query(ctx, row)
		if rows > 1 {
			row.Release()
		}
		if err != nil {
			return cause(ctx, err)
		}
		if out, err = s.sendResult(ctx, stream, out, result); err != nil {
			return err
		}
	}
	return out.close()
}

// sendResult sends the batches of a result, which it closes, to out, which it makes when it is nil.
func (s *service) sendResult(ctx context.Context, stream grpc.ServerStream, out *sender, result *query.Result) (*sender, error) {
	defer func() {
		if err := result.Close(); err != nil {
			s.log.Warn("close a result", "err", err)
		}
	}()
	schema := describeResult(result.Schema())
	if out == nil {
		out = newSender(stream, schema)
	} else if !out.schema.Equal(schema) {
		return nil, aborted("a table got other columns between two rows of parameters; run the query again")
	}
	for {
		record, err := result.Next(ctx)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, cause(ctx, err)
		}
		described := array.NewRecordBatch(schema, record.Columns(), record.NumRows())
		record.Release()
		err = out.send(described)
		described.Release()
		if err != nil {
			return nil, err
		}
	}
}

// cause returns why ctx ended, when that is why err came.
func cause(ctx context.Context, err error) error {
	if reason := context.Cause(ctx); reason != nil {
		return reason
	}
	return err
}

// recordBytes returns about how many bytes a batch takes in a message. Arrow's own count looks at whole buffers,
// of which a batch may be a small slice.
func recordBytes(record arrow.RecordBatch) int64 {
	total := int64(0)
	for _, column := range record.Columns() {
		total += dataBytes(column.Data())
	}
	return total
}

// dataBytes is recordBytes for one array.
func dataBytes(data arrow.ArrayData) int64 {
	rows := int64(data.Len())
	total := int64(0)
	if data.NullN() > 0 {
		total = rows / 8
	}
	switch t := data.DataType().(type) {
	case arrow.BinaryDataType:
		return total + binaryBytes(data, t)
	case arrow.FixedWidthDataType:
		return total + rows*int64(t.BitWidth())/8
	case *arrow.FixedSizeListType:
		return total + share(data.Children()[0], rows*int64(t.Len()))
	}
	for _, child := range data.Children() {
		total += 4*rows + dataBytes(child)
	}
	return total
}

// share returns the bytes of n values of an array.
func share(data arrow.ArrayData, n int64) int64 {
	if data.Len() == 0 {
		return 0
	}
	return int64(float64(dataBytes(data)) / float64(data.Len()) * float64(n))
}

// binaryBytes is dataBytes for strings and bytes.
func binaryBytes(data arrow.ArrayData, t arrow.BinaryDataType) int64 {
	if data.Len() == 0 || data.Buffers()[1] == nil {
		return 0
	}
	width := 4
	switch t.ID() {
	case arrow.LARGE_STRING, arrow.LARGE_BINARY:
		width = 8
	case arrow.STRING_VIEW, arrow.BINARY_VIEW:
		return int64(data.SizeInBytes())
	}
	offsets := data.Buffers()[1].Bytes()
	first, last := offsetAt(offsets, data.Offset(), width), offsetAt(offsets, data.Offset()+data.Len(), width)
	return int64(data.Len()*width) + last - first
}
