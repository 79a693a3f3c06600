package flight

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

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
	if err := checkOptions(stream.Context(), nil); err != nil {
		return err
	}
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
	if err != nil {
		return noSchema(err)
	}
	rows, err := in.s.newIntake(reader, schema.plain, table)
	if err != nil {
		return err
	}
	return rows.each(ctx, func(b lsm.Batch) error {
		in.received.Add(1)
		seq, err := table.Put(ctx, b)
		if err == nil {
			in.acks.add(mark{Batches: rows.batches, Rows: rows.rows, Seq: seq})
		}
		return err
	})
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
