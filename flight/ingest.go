package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"

	"github.com/flightd/flightd/lsm"
)

const (
	// idleWhileDraining is how long an open stream may bring nothing before a server that shuts down ends it.
	idleWhileDraining = time.Second
	// settleWithin bounds the wait for the last batches of a stream that is ended by the server.
	settleWithin = 500 * time.Millisecond
)

// ingest is one stream of rows into a table. Two goroutines work on it: the call's own sends acks, and only it
// sends; the other receives, decodes and stores. Neither waits for the other, so that a client that reads no acks is
// served as fast as one that does, and the call can end while the other goroutine still waits for the client: gRPC
// then ends that wait.
type ingest struct {
	s      *service
	stream pb.FlightService_DoPutServer
	acks   *acks
	// received counts messages, to tell an idle stream from a busy one.
	received atomic.Int64
	// sent is the newest mark that went to the client, any says that one did. The call's goroutine owns them.
	sent mark
	any  bool
}

// putRows stores the rows of a stream in the table that its descriptor names.
func (s *service) putRows(stream pb.FlightService_DoPutServer, first *message) error {
	table, err := s.tableAt(stream.Context(), first.descriptor.GetPath())
	if err != nil {
		return err
	}
	in := &ingest{s: s, stream: stream, acks: newAcks()}
	finished := make(chan error, 1)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	reader := newBatchReader(stream, first, int64(s.maxMessage)*decodeFactor)
	s.start("ingest", func() error {
		defer reader.close()
		return in.store(ctx, table, reader)
	}, func(err error) { finished <- err })
	return in.acknowledge(finished)
}

// store puts the stream's batches into the table, in order, until the stream or ctx ends.
func (in *ingest) store(ctx context.Context, table *lsm.Table, reader *batchReader) error {
	schema, err := reader.schema()
	if errors.Is(err, io.EOF) {
		return invalid("the stream ended before its schema")
	}
	if err != nil {
		return err
	}
	conform, err := table.Conform(schema.plain)
	if err != nil {
		return err
	}
	width := rowBytes(table.Schema())
	var at mark
	for {
		batch, err := reader.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("batch %d: %w", at.Batches+1, err)
		}
		in.received.Add(1)
		rows := batch.record.NumRows()
		if rows > reader.limit/width {
			err = fmt.Errorf("%w: %d rows of at least %d bytes; send fewer rows in a batch", errTooLarge, rows, width)
		} else if rows > 0 {
			at.Seq, err = put(ctx, table, conform, batch)
		}
		batch.release()
		if err != nil {
			if broken := in.s.db.Err(); broken != nil {
				err = fmt.Errorf("%w: %w", broken, err) // the engine's state says what the client can do
			}
			return fmt.Errorf("batch %d (rows %d to %d of the stream): %w", at.Batches+1, at.Rows, at.Rows+rows-1, err)
		}
		at.Batches++
		at.Rows += rows
		in.acks.add(at)
	}
}

// put stores one batch.
func put(ctx context.Context, table *lsm.Table, conform *lsm.Conformer, b batch) (lsm.LSN, error) {
	if conform.Identity() {
		batch := lsm.Batch{Record: b.record}
		if b.raw {
			batch.Meta, batch.Body = b.meta, b.body
		}
		return table.Put(ctx, batch)
	}
	record, err := conform.Apply(ctx, b.record)
	if err != nil {
		return 0, err
	}
	defer record.Release()
	return table.Put(ctx, lsm.Batch{Record: record})
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

// acknowledge sends acks until the stream is stored or must end, and returns how it ended.
func (in *ingest) acknowledge(finished <-chan error) error {
	drained := in.s.drain.Done()
	var idle <-chan time.Time // ticks once the server drains
	heard := int64(-1)
	for {
		watch := in.s.db.Watch()
		reached, waiting := in.acks.advance(in.s.db.Visible())
		if err := in.send(reached); err != nil {
			return err
		}
		if !waiting {
			watch = nil
		} else if err := in.s.db.Err(); err != nil {
			return in.finish(err) // what waits will never be visible, and the client may send nothing more
		}
		select {
		case err := <-finished:
			return in.finish(err)
		case <-in.s.stop.Done():
			return in.finish(errStopping)
		case <-drained:
			drained = nil
			ticker := time.NewTicker(idleWhileDraining)
			defer ticker.Stop()
			idle = ticker.C
		case <-idle:
			now := in.received.Load()
			if now == heard {
				return in.finish(errStopping)
			}
			heard = now
		case <-watch:
		case <-in.acks.added:
		}
	}
}

// finish waits for what the stream brought before err, sends the last ack and returns the stream's end status.
func (in *ingest) finish(err error) error {
	ctx := in.stream.Context()
	if err != nil {
		err = cause(ctx, err)
		if ctx.Err() != nil && !errors.Is(err, errStopping) {
			return err // the client is gone
		}
		settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
		defer cancel()
		ctx = settle
	}
	unsettled := in.s.db.Wait(ctx, in.acks.newest().Seq)
	reached, _ := in.acks.advance(in.s.db.Visible())
	if !in.any || reached != in.sent {
		if err := in.transmit(reached); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return cause(ctx, unsettled)
}

// send tells the client of a mark unless it knows it.
func (in *ingest) send(m mark) error {
	if m == in.sent {
		return nil
	}
	return in.transmit(m)
}

// transmit tells the client of a mark.
func (in *ingest) transmit(m mark) error {
	if err := in.stream.Send(&pb.PutResult{AppMetadata: m.encode()}); err != nil {
		return fmt.Errorf("send an ack: %w", err)
	}
	in.sent, in.any = m, true
	return nil
}
