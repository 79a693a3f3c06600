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
	"google.golang.org/grpc/metadata"

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
	sent   mark
	any    bool
	reader *batchReader
	live   *liveStream
	// options say how the rows become those of the table.
	options ingestOptions
	// claim is the request that the stream goes on with, nil when it has no key, and begun what was stored of it before.
	claim *lsm.Claim
	begun mark
}

// putRows stores the rows of a stream in the table that its descriptor names.
func (s *service) putRows(stream pb.FlightService_DoPutServer, first *message) error {
	o, err := readOptions(stream.Context(), nil)
	if err != nil {
		return err
	}
	table, err := s.tableAt(stream.Context(), first.descriptor.GetPath())
	if err != nil {
		return err
	}
	if err := o.allow(table); err != nil {
		return err
	}
	if o.key != "" && !o.resume {
		return s.putWhole(stream, first, table, o)
	}
	in := &ingest{s: s, stream: stream, options: o, reader: s.newBatchReader(stream, first, int64(s.maxMessage)*decodeFactor)}
	if o.resume {
		return in.resume(table, o.key)
	}
	return in.run(table)
}

// putWhole stores the rows of a stream under an idempotency key, all at its end.
func (s *service) putWhole(stream pb.FlightService_DoPutServer, first *message, table *lsm.Table, o ingestOptions) error {
	w := &whole{s: s, name: table.Name(), options: o, late: func(err error) error { return err },
		stage: func(context.Context, *arrow.Schema) (*lsm.Stage, error) { return table.Stage(), nil }}
	result, err := w.run(stream, first)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.PutResult{AppMetadata: result.encode()}); err != nil {
		return fmt.Errorf("send an ack: %w", err)
	}
	return nil
}

// resume goes on with the request under a key. Before it reads any batch it tells the client what is there already.
func (in *ingest) resume(table *lsm.Table, key string) error {
	ctx := in.stream.Context()
	claim, err := in.s.db.Claim(ctx, table.Name(), lsm.Request{Key: key, Resume: true})
	if err != nil {
		return err
	}
	a, err := claim.Answer(ctx, nil)
	if err == nil {
		in.begun = mark{Batches: a.Batches, Rows: a.Rows, Seq: a.Seq, Complete: a.Complete, Repeated: a.Complete}
		err = in.transmit(in.begun)
	}
	if err != nil {
		claim.Release()
		return err
	}
	in.claim = claim
	if !a.Complete {
		return in.run(table)
	}
	in.stream.SetTrailer(metadata.Pairs(repeatedTrailer, "true"))
	return in.s.await(in.stream, in.reader, func(ctx context.Context) error {
		defer claim.Release()
		if schema, err := in.reader.schema(); err == nil { // a client that has nothing left to send may send no schema
			if _, err := claim.Answer(ctx, schema.plain); err != nil {
				return err
			}
		} else if !errors.Is(err, io.EOF) {
			return err
		}
		return in.reader.drain()
	})
}

// run stores the stream and sends acks.
func (in *ingest) run(table *lsm.Table) error {
	var end func()
	in.live, end = in.s.streams.begin(in.stream.Context(), table.Name(), streamByBatch)
	defer end()
	in.acks = newAcks(in.begun)
	finished := make(chan error, 1)
	ctx, cancel := context.WithCancel(in.stream.Context())
	defer cancel()
	in.s.start("ingest", func() error {
		defer in.reader.close()
		if in.claim != nil {
			defer in.claim.Release() // nothing is stored from here on
		}
		return in.store(ctx, table)
	}, func(err error) { finished <- err })
	return in.acknowledge(finished)
}

// store puts the stream's batches into the table, in order, until the stream or ctx ends.
func (in *ingest) store(ctx context.Context, table *lsm.Table) error {
	schema, err := in.reader.schema()
	if err != nil {
		return noSchema(err)
	}
	if in.claim != nil {
		if _, err := in.claim.Answer(ctx, schema.plain); err != nil {
			return err
		}
	}
	rows, err := in.s.newIntake(ctx, in.reader, schema.plain, table, in.options, in.live)
	if err != nil {
		return err
	}
	so := func() mark { return mark{Batches: in.begun.Batches + rows.batches, Rows: in.begun.Rows + rows.rows} }
	if in.claim == nil {
		return in.pour(ctx, table, rows, so)
	}
	err = rows.each(ctx, func(b lsm.Batch) (err error) {
		in.received.Add(1)
		m := so()
		if m.Seq, err = in.claim.Put(ctx, table, b, lsm.Answer{Batches: m.Batches, Rows: m.Rows}); err == nil {
			in.acks.add(m)
		}
		return err
	})
	in.live.waits.Store(waitsForCommit)
	if err != nil {
		return err
	}
	m := so()
	if m.Seq, err = in.claim.Finish(ctx, table, lsm.Answer{Batches: m.Batches, Rows: m.Rows}); err != nil {
		return err
	}
	m.Complete = true
	in.acks.add(m)
	return nil
}

// pour stores the batches of a stream without a key: none waits for the log to have those before it. so tells what the
// stream has come to.
func (in *ingest) pour(ctx context.Context, table *lsm.Table, rows *intake, so func() mark) error {
	stream := table.Stream(in.acks.logged)
	err := rows.each(ctx, func(b lsm.Batch) error {
		in.received.Add(1)
		b.Durable = in.options.durability == lsm.Durable
		in.acks.expect(so())
		err := stream.Put(ctx, b)
		if err != nil {
			in.acks.unexpect()
		}
		return err
	})
	in.live.waits.Store(waitsForCommit)
	// Also after an error and for a client that is gone: what came before is stored, and the last ack says so.
	unlogged := stream.Wait(context.WithoutCancel(ctx))
	if err == nil && unlogged != nil {
		err = fmt.Errorf("a batch up to batch %d: %w", rows.batches, unlogged)
	}
	return err
}

// acknowledge sends acks until the stream is stored or must end, and returns how it ended.
func (in *ingest) acknowledge(finished <-chan error) error {
	drained := in.s.drain.Done()
	var idle <-chan time.Time // ticks once the server drains
	heard := int64(-1)
	var fenced <-chan struct{}
	silence := time.NewTimer(in.s.idle)
	defer silence.Stop()
	if in.claim != nil {
		fenced = in.claim.Fenced()
	} else {
		silence.Stop() // such a stream holds nothing that others may wait for
	}
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
		case <-fenced:
			return in.finish(aborted("another stream goes on under the same idempotency key; only the newest one may"))
		case <-silence.C:
			left := in.reader.expire(in.s.idle)
			if left == 0 {
				return in.finish(in.s.silent("what was acknowledged is stored"))
			}
			silence.Reset(left)
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
	if in.live != nil {
		in.live.acked(m)
	}
	return nil
}
