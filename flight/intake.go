package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lsm"
)

// intake turns the batches of a stream into batches of a table. Both doors of ingest share it. It belongs to one
// goroutine.
type intake struct {
	s       *Server
	reader  *batchReader
	schema  *arrow.Schema
	table   *lsm.Table
	options ingestOptions
	live    *liveStream
	conform *lsm.Conformer
	// maxRows bounds the rows of one batch, so that it fits into the reader's limit as rows of the table.
	maxRows int64
	// batches and rows count what was given to the table, the batch at hand included.
	batches, rows int64
}

// newIntake plans how batches of a schema become batches of a table, or says why they cannot. Columns that the table
// lacks are added to it first, if the options say so.
func (s *Server) newIntake(ctx context.Context, reader *batchReader, schema *arrow.Schema, table *lsm.Table, o ingestOptions, live *liveStream) (*intake, error) {
	in := &intake{s: s, reader: reader, schema: schema, table: table, options: o, live: live}
	if o.evolve {
		if unknown := table.Unknown(schema); len(unknown) > 0 {
			if err := s.query.AddColumns(ctx, table.Name(), addedColumns(unknown)); err != nil {
				return nil, err
			}
		}
	}
	return in, in.plan(ctx)
}

// addedColumns returns columns of a stream as those of a table that has rows: they may be null, and are no key.
func addedColumns(stream []arrow.Field) []arrow.Field {
	fields := tableColumns(arrow.NewSchema(stream, nil)).Fields()
	for i, f := range fields {
		m := f.Metadata.ToMap()
		maps.DeleteFunc(m, func(name, _ string) bool { return strings.HasPrefix(name, keyMetadata) })
		fields[i].Nullable, fields[i].Metadata = true, arrow.MetadataFrom(m)
	}
	return fields
}

// keyMetadata begins the names of metadata that makes a column part of the primary key.
const keyMetadata = "lance-schema:unenforced-primary-key"

// plan works out how the stream fits the table's columns of now.
func (in *intake) plan(ctx context.Context) error {
	o := lsm.ConformOptions{Missing: in.options.missing}
	if in.lacks() {
		var err error
		if o.Defaults, err = in.s.query.Defaults(ctx, in.table.Name()); err != nil {
			return err
		}
	}
	conform, err := in.table.Conform(in.schema, o)
	if err != nil {
		return err
	}
	in.conform, in.maxRows = conform, in.reader.limit/rowBytes(in.table.Schema())
	return nil
}

// lacks says whether the table has columns that the stream does not have.
func (in *intake) lacks() bool {
	for _, f := range in.table.Schema().Fields() {
		if !slices.ContainsFunc(in.schema.Fields(), func(s arrow.Field) bool { return strings.EqualFold(s.Name, f.Name) }) {
			return true
		}
	}
	return false
}

// maxPlans bounds how often one batch is made anew because the table was altered meanwhile.
const maxPlans = 100

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
		in.live.came(b)
		in.live.waits.Store(waitsForTable)
		err = in.give(ctx, b, store)
		for n := 0; n < maxPlans && errors.Is(err, lsm.ErrTableChanged); n++ { // an ALTER TABLE came between
			if err = in.plan(ctx); err == nil {
				err = in.give(ctx, b, store)
			}
		}
		b.release()
		in.live.waits.Store(waitsForClient)
		if err != nil {
			if broken := in.s.db.Err(); broken != nil {
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
		out := lsm.Batch{Record: b.record, Keep: in.conform.Keep()}
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
	return store(lsm.Batch{Record: record, Keep: in.conform.Keep()})
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
