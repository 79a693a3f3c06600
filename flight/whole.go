package flight

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/metadata"

	"github.com/flightd/flightd/lsm"
)

// repeatedTrailer is the trailer of a stream that was not applied because it had been before.
const repeatedTrailer = "x-flightd-repeated"

// whole is a stream that takes effect as a whole when the client half-closes, or not at all; and once, however often
// it comes, if it has an idempotency key.
type whole struct {
	s    *service
	name lsm.TableName
	// options have the idempotency key, and say how the rows become those of the table.
	options ingestOptions
	// stage begins the stage that the rows go to, given the stream's schema.
	stage func(context.Context, *arrow.Schema) (*lsm.Stage, error)
	// late explains an error of stage or of its commit.
	late func(error) error
}

// run stores the stream and returns what came of it, now or when it came first.
func (w *whole) run(stream pb.FlightService_DoPutServer, first *message) (result mark, err error) {
	live, end := w.s.streams.begin(stream.Context(), w.name, streamWhole)
	defer end()
	reader := w.s.newBatchReader(stream, first, int64(w.s.maxMessage)*decodeFactor)
	err = w.s.await(stream, reader, func(ctx context.Context) error {
		result, err = w.store(ctx, reader, live)
		return err
	})
	if err == nil && result.Repeated {
		stream.SetTrailer(metadata.Pairs(repeatedTrailer, "true"))
	}
	return result, err
}

// store stores the stream, if it was not stored before.
func (w *whole) store(ctx context.Context, reader *batchReader, live *liveStream) (mark, error) {
	schema, err := reader.schema()
	if err != nil {
		return mark{}, noSchema(err)
	}
	var claim *lsm.Claim
	if w.options.key != "" {
		if claim, err = w.s.db.Claim(ctx, w.name, lsm.Request{Key: w.options.key}); err != nil {
			return mark{}, err
		}
		defer claim.Release()
		a, err := claim.Answer(ctx, schema.plain)
		if err != nil {
			return mark{}, err
		}
		if a.Complete {
			return mark{Batches: a.Batches, Rows: a.Rows, Seq: a.Seq, Repeated: true}, reader.drain()
		}
	}
	return w.apply(ctx, reader, schema.plain, claim, live)
}

// apply stores the stream under a claim, which is nil when it has no key.
func (w *whole) apply(ctx context.Context, reader *batchReader, schema *arrow.Schema, claim *lsm.Claim, live *liveStream) (mark, error) {
	stage, err := w.stage(ctx, schema)
	if err != nil {
		return mark{}, w.late(err)
	}
	defer stage.Abort()
	rows, err := w.s.newIntake(ctx, reader, schema, stage.Table(), w.options, live)
	if err != nil {
		return mark{}, err
	}
	if err := rows.each(ctx, func(batch lsm.Batch) error { return stage.Put(ctx, batch) }); err != nil {
		return mark{}, fmt.Errorf("%w; nothing of the stream was stored", err)
	}
	live.waits.Store(waitsForCommit)
	if claim != nil {
		stage.Under(claim, rows.batches)
	}
	seq, err := stage.Commit(ctx)
	if err != nil {
		return mark{}, w.late(err)
	}
	return mark{Batches: rows.batches, Rows: rows.rows, Seq: seq}, nil
}

// await runs work on a stream of which the client hears at its end. The stream is read by a goroutine of its own, so
// that the call can end with a status when the server stops, or the client sends nothing for too long; gRPC then ends
// the goroutine's wait for the client.
func (s *service) await(stream pb.FlightService_DoPutServer, reader *batchReader, work func(context.Context) error) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	finished := make(chan error, 1)
	s.start("ingest", func() error {
		defer reader.close()
		return work(ctx)
	}, func(err error) { finished <- err })
	idle := time.NewTimer(s.idle)
	defer idle.Stop()
	for {
		select {
		case err := <-finished:
			return cause(stream.Context(), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-idle.C:
			left := reader.expire(s.idle)
			if left == 0 {
				return s.silent("nothing of the stream was stored")
			}
			idle.Reset(left)
		}
	}
}

// silent returns the error for a client that was silent for too long.
func (s *service) silent(stored string) error {
	return aborted("the client sent nothing for %s, so the stream was ended; %s; send it again", s.idle, stored)
}
