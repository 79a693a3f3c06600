package flight

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lsm"
)

// intake turns the batches of a stream into batches of a table. Both doors of ingest share it. It belongs to one
// goroutine.
type intake struct {
	db      *lsm.DB
	reader  *batchReader
	conform *lsm.Conformer
	// maxRows bounds the rows of one batch, so that it fits into the reader's limit as rows of the table.
	maxRows int64
	// batches and rows count what was given to the table, the batch at hand included.
	batches, rows int64
}

// newIntake plans how batches of a schema become batches of a table, or says why they cannot.
func (s *Server) newIntake(reader *batchReader, schema *arrow.Schema, table *lsm.Table) (*intake, error) {
	conform, err := table.Conform(schema)
	if err != nil {
		return nil, err
	}
	return &intake{db: s.db, reader: reader, conform: conform, maxRows: reader.limit / rowBytes(table.Schema())}, nil
}

// noSchema returns why a stream has no schema.
func noSchema(err error) error {
	if errors.Is(err, io.EOF) {
		return invalid("the stream ended before its schema")
	}
	return err
}

// each gives all batches of the stream to store, in order, as batches of the table. store retains what it keeps. An
// error names the batch.
func (in *intake) each(ctx context.Context, store func(lsm.Batch) error) error {
	for {
		b, err := in.reader.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		in.batches++
		if err != nil {
			return fmt.Errorf("batch %d: %w", in.batches, err)
		}
		first := in.rows
		in.rows += b.record.NumRows()
		err = in.give(ctx, b, store)
		b.release()
		if err != nil {
			if broken := in.db.Err(); broken != nil {
				err = fmt.Errorf("%w: %w", broken, err) // the engine's state says what the client can do
			}
			return fmt.Errorf("batch %d (rows %d to %d of the stream): %w", in.batches, first, in.rows-1, err)
		}
	}
}

// give gives one batch to store.
func (in *intake) give(ctx context.Context, b batch, store func(lsm.Batch) error) error {
	if rows := b.record.NumRows(); rows > in.maxRows {
		return fmt.Errorf("%w: %d rows, of which %d fit into memory at once; send fewer rows in a batch", errTooLarge, rows, in.maxRows)
	}
	if in.conform.Identity() {
		out := lsm.Batch{Record: b.record}
		if b.raw {
			out.Meta, out.Body = b.meta, b.body
		}
		return store(out)
	}
	record, err := in.conform.Apply(ctx, b.record)
	if err != nil {
		return err
	}
	defer record.Release()
	return store(lsm.Batch{Record: record})
}

// rowBytes returns the fewest bytes that a row of the schema takes in memory. Columns that the stream leaves out
// take them too, which a few bytes on the wire could ask for millions of times.
func rowBytes(schema *arrow.Schema) int64 {
	bits := int64(8)
	for _, field := range schema.Fields() {
		bits += typeBits(field.Type)
	}
	return bits / 8
}

// typeBits is rowBytes for one column.
func typeBits(t arrow.DataType) int64 {
	switch t := t.(type) {
	case *arrow.FixedSizeListType:
		return int64(t.Len()) * typeBits(t.Elem())
	case arrow.FixedWidthDataType:
		return int64(t.BitWidth())
	}
	return 32
}
