package flight

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/flightd/flightd/lsm"
)

// reopen stops the server and starts it again over the same folder.
func (h *harness) reopen() {
	h.t.Helper()
	require.NoError(h.t, h.stop(context.Background()))
	h.start()
}

// once sends records under a key, as a whole, and returns the one ack and how the stream ended.
func (h *harness) once(key string, schema *arrow.Schema, records ...arrow.RecordBatch) (UploadAck, error) {
	h.t.Helper()
	u, err := h.client.PutOnce(context.Background(), key, false, schema, "events")
	require.NoError(h.t, err)
	for _, r := range records { // a stream that is refused may be over before all is sent: why, its acks say
		if err := u.Send(r); !errors.Is(err, io.EOF) {
			require.NoError(h.t, err)
		}
	}
	if err := u.CloseSend(); !errors.Is(err, io.EOF) {
		require.NoError(h.t, err)
	}
	return drainAcks(u)
}

// repeated tells whether an upload that has ended carried the trailer of a repetition.
func repeated(u *Upload) bool {
	values := u.stream.Trailer().Get(repeatedTrailer)
	return len(values) == 1 && values[0] == "true"
}

func TestAStreamUnderAKeyIsStoredOnce(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	schema := eventSchema(false)
	records := []arrow.RecordBatch{events(t, false, 0, 10, "x"), events(t, false, 10, 10, "x")}
	first, err := h.once("k", schema, records...)
	require.NoError(t, err)
	require.EqualValues(t, 2, first.Batches)
	require.EqualValues(t, 20, first.Rows)
	require.False(t, first.Repeated)
	for range 2 {
		again, err := h.once("k", schema, records...)
		require.NoError(t, err)
		want := first
		want.Repeated = true
		require.Equal(t, want, again)
		require.Equal(t, sequence(0, 20), h.ids("events"))
		h.reopen()
	}
	other := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int32, Nullable: true}}, nil)
	_, err = h.once("k", other)
	requireCode(t, err, codes.InvalidArgument, `"k"`, "another schema")
	_, err = h.once("l", schema, records...)
	require.NoError(t, err)
	require.Len(t, h.ids("events"), 40, "another key is another request")
	empty, err := h.once("empty", schema)
	require.NoError(t, err)
	require.Zero(t, empty.Rows)
	empty, err = h.once("empty", schema, records...)
	require.NoError(t, err)
	require.True(t, empty.Repeated)
}

func TestABulkIngestionUnderAKeyIsAppliedOnce(t *testing.T) {
	h := serve(t)
	schema := eventSchema(false)
	for _, mode := range []*flightsql.TableDefinitionOptions{&modeCreate, &modeAppend, &modeReplace, &modeCreateAppend} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "x-flightd-idempotency-key", mode.IfNotExist.String()+mode.IfExists.String())
		o := &flightsql.ExecuteIngestOpts{Table: "events", TableDefinitionOptions: mode}
		before := 0
		if mode != &modeCreate && mode != &modeReplace {
			before = len(h.ids("events"))
		}
		for range 3 {
			n, err := h.ingestAs(ctx, o, schema, events(t, false, 0, 5, "x"), events(t, false, 5, 5, "x"))
			require.NoError(t, err)
			require.EqualValues(t, 10, n)
			require.Len(t, h.ids("events"), before+10)
			h.reopen()
		}
	}
	o := &flightsql.ExecuteIngestOpts{Table: "events", TableDefinitionOptions: &modeAppend, Options: map[string]string{"idempotency-key": "k"}}
	for range 2 {
		_, err := h.ingestAs(context.Background(), o, schema, events(t, false, 0, 1, "x"))
		require.NoError(t, err)
	}
	require.Len(t, h.ids("events"), 21)
}

func TestOneStreamAtATimeWorksUnderAKey(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	schema, rows := eventSchema(false), events(t, false, 0, 10, "x")
	other, err := h.db.Claim(context.Background(), lsm.TableName{Name: "events"}, lsm.Request{Key: "k"})
	require.NoError(t, err)
	_, err = h.once("k", schema, rows)
	requireCode(t, err, codes.Aborted, `"k"`, "another stream")
	o := &flightsql.ExecuteIngestOpts{Table: "events", TableDefinitionOptions: &modeAppend, Options: map[string]string{"idempotency-key": "k"}}
	_, err = h.ingestAs(context.Background(), o, schema, rows)
	requireCode(t, err, codes.Aborted, `"k"`, "another stream")
	other.Release()

	// Many at once: each is refused, or is the first, or comes after it.
	var first atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				u, err := h.client.PutOnce(context.Background(), "k", false, schema, "events")
				if err == nil {
					err = errors.Join(u.Send(rows), u.CloseSend())
				}
				if err != nil && !errors.Is(err, io.EOF) {
					t.Error(err)
					return
				}
				ack, err := drainAcks(u)
				if err == nil && !ack.Repeated {
					first.Add(1)
				}
				if err == nil {
					return
				}
				if codeOf(err) != codes.Aborted {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, first.Load())
	require.Equal(t, sequence(0, 10), h.ids("events"))
}

// resume begins a stream that goes on with what there is under a key, and returns what the server says of that.
func (h *harness) resume(key string) (*Upload, UploadAck) {
	h.t.Helper()
	u, err := h.client.PutOnce(context.Background(), key, true, eventSchema(false), "events")
	require.NoError(h.t, err)
	there, err := u.Ack()
	require.NoError(h.t, err)
	return u, there
}

func TestAStreamGoesOnWhereItWas(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	var rows int64
	for range 4 {
		u, there := h.resume("k")
		require.Equal(t, rows, there.Rows, "just what is in the table")
		require.Equal(t, rows/10, there.Batches)
		require.False(t, there.Complete || there.Repeated)
		require.Equal(t, rows, int64(len(h.ids("events"))))
		for range 3 {
			require.NoError(t, u.Send(events(t, false, rows, 10, "x")))
			rows += 10
			ack, err := u.Ack()
			require.NoError(t, err)
			require.Equal(t, rows, ack.Rows, "acks count from the first stream on")
			require.Equal(t, rows/10, ack.Batches)
		}
		require.NoError(t, h.client.Close()) // without an end
		h.client, _ = Dial(h.addr)
		h.reopen()
	}
	u, there := h.resume("k")
	require.NoError(t, u.CloseSend())
	end, err := drainAcks(u)
	require.NoError(t, err)
	require.True(t, end.Complete)
	require.Equal(t, rows, end.Rows)
	require.Greater(t, end.Seq, there.Seq)
	h.reopen()
	u, there = h.resume("k")
	require.Equal(t, UploadAck{Batches: rows / 10, Rows: rows, Seq: end.Seq, Complete: true, Repeated: true}, there)
	require.NoError(t, u.Send(events(t, false, 0, 10, "x"))) // it is told, and sends all the same
	require.NoError(t, u.CloseSend())
	_, err = u.Ack()
	require.ErrorIs(t, err, io.EOF)
	require.True(t, repeated(u))
	require.Equal(t, sequence(0, rows), h.ids("events"))
}

func TestTheNewestStreamGoesOn(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	older, _ := h.resume("k")
	require.NoError(t, older.Send(events(t, false, 0, 10, "x")))
	_, err := older.Ack()
	require.NoError(t, err)
	newer, there := h.resume("k")
	require.EqualValues(t, 10, there.Rows)
	_, err = drainAcks(older)
	requireCode(t, err, codes.Aborted, "another stream")
	_, err = h.once("k", eventSchema(false))
	requireCode(t, err, codes.Aborted)
	require.NoError(t, newer.Send(events(t, false, 10, 10, "x")))
	require.NoError(t, newer.CloseSend())
	_, err = drainAcks(newer)
	require.NoError(t, err)
	require.Equal(t, sequence(0, 20), h.ids("events"))
}

func TestAResumedStreamOfAnotherSchemaIsRefused(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	u, _ := h.resume("k")
	require.NoError(t, u.Send(events(t, false, 0, 10, "x")))
	_, err := u.Ack()
	require.NoError(t, err)
	other := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}}, nil)
	for _, complete := range []bool{false, true} {
		next, err := h.client.PutOnce(context.Background(), "k", true, other, "events")
		require.NoError(t, err)
		require.NoError(t, next.CloseSend())
		_, err = drainAcks(next)
		requireCode(t, err, codes.InvalidArgument, "another schema")
		_, err = h.once("k", eventSchema(false))
		if complete {
			require.NoError(t, err)
			continue
		}
		requireCode(t, err, codes.InvalidArgument, "go on with resume")
		u, _ := h.resume("k")
		require.NoError(t, u.CloseSend())
		_, err = drainAcks(u)
		require.NoError(t, err)
	}
	require.Len(t, h.ids("events"), 10)
}

func TestSilentStreamsAreEndedAndFreeWhatTheyHold(t *testing.T) {
	h := serve(t, func(o *Options) { o.TransactionIdle = 50 * time.Millisecond })
	h.createTable("events", false)
	ctx := context.Background()

	u, err := h.client.PutOnce(ctx, "k", false, eventSchema(false), "events")
	require.NoError(t, err)
	_ = u.Send(events(t, false, 0, 10, "x")) // it may come too late, as those below
	_, err = drainAcks(u)
	requireCode(t, err, codes.Aborted, "sent nothing for 50ms", "nothing of the stream was stored")
	_, err = h.once("k", eventSchema(false), events(t, false, 0, 10, "x"))
	for err != nil { // the claim goes when the stream's goroutine has heard of it
		requireCode(t, err, codes.Aborted)
		_, err = h.once("k", eventSchema(false), events(t, false, 0, 10, "x"))
	}
	require.Equal(t, sequence(0, 10), h.ids("events"))

	u, _ = h.resume("r")
	_ = u.Send(events(t, false, 10, 10, "x"))
	last, err := drainAcks(u)
	requireCode(t, err, codes.Aborted, "sent nothing", "what was acknowledged is stored")
	require.Len(t, h.ids("events"), 10+int(last.Rows))

	stream, err := h.client.sql.Client.DoPut(ctx)
	require.NoError(t, err)
	command := dataOf(t, bulkTo(t, "made", &modeCreate), eventSchema(false), events(t, false, 0, 10, "x"))
	for _, m := range command {
		_ = stream.Send(m)
	}
	_, err = stream.Recv()
	requireCode(t, err, codes.Aborted, "sent nothing")
	require.Eventually(t, func() bool {
		left, err := os.ReadDir(filepath.Join(h.dir, "_flightd", "stage"))
		return os.IsNotExist(err) || err == nil && len(left) == 0
	}, patience, patience/1000, "the table that the stream was making")

	plain := h.put(ctx, eventSchema(false), "events") // it holds nothing
	require.NoError(t, plain.Send(events(t, false, 20, 1, "x")))
	_, err = plain.Ack()
	require.NoError(t, err)
	<-time.After(120 * time.Millisecond)
	require.NoError(t, plain.Send(events(t, false, 21, 1, "x")))
	require.NoError(t, plain.CloseSend())
	_, err = drainAcks(plain)
	require.NoError(t, err)
}
