package flight

import (
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"google.golang.org/grpc"

	"github.com/flightd/flightd/internal/offheap"
)

// parameters returns the rows of parameters that a stream brings, those of all its batches as one, or nil when it
// brings none: statements without parameters send no batch, or one without columns. The caller releases them.
func (s *service) parameters(stream grpc.ServerStream, first *message) (arrow.RecordBatch, error) {
	limit := int64(s.maxMessage) * decodeFactor
	reader := s.newBatchReader(stream, first, limit)
	defer reader.close()
	var parts []arrow.RecordBatch
	defer func() {
		for _, part := range parts {
			part.Release()
		}
	}()
	size := int64(0)
	for {
		batch, err := reader.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("parameters: %w", err)
		}
		parts = append(parts, batch.record)
		if size += recordBytes(batch.record) + batchOverhead; size > limit {
			return nil, fmt.Errorf("%w: the parameters have more than %d bytes; bind fewer rows at a time, or load them by CommandStatementIngest (adbc_ingest)", errTooLarge, limit)
		}
	}
	if len(parts) == 0 || parts[0].NumCols() == 0 {
		return nil, nil
	}
	return joinBatches(parts)
}

// batchOverhead is what a batch takes beside its buffers, roughly.
const batchOverhead = 1 << 10

// joinBatches returns the rows of batches of one schema as one batch.
func joinBatches(parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(parts) == 1 {
		parts[0].Retain()
		return parts[0], nil
	}
	columns := make([]arrow.Array, parts[0].NumCols())
	defer func() {
		for _, column := range columns {
			if column != nil {
				column.Release()
			}
		}
	}()
	rows := int64(0)
	for _, part := range parts {
		rows += part.NumRows()
	}
	for i := range columns {
		pieces := make([]arrow.Array, len(parts))
		for j, part := range parts {
			pieces[j] = part.Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(pieces, offheap.Default); err != nil {
			return nil, invalid("join the batches of parameters: column %q: %w", parts[0].ColumnName(i), err)
		}
	}
	return array.NewRecordBatch(parts[0].Schema(), columns, rows), nil
}
