package flight

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

func dialInsecure() grpc.DialOption {
	return grpc.WithTransportCredentials(insecure.NewCredentials())
}

// sequence returns first … first+n-1.
func sequence(first, n int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = first + int64(i)
	}
	return out
}

func TestAcksComeWhileTheStreamRuns(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	u := h.put(context.Background(), eventSchema(true), "events")
	last := UploadAck{}
	for i := range int64(5) {
		require.NoError(t, u.Send(events(t, true, 100*i, 100, "x")))
		ack, err := u.Ack()
		require.NoError(t, err)
		require.Equal(t, i+1, ack.Batches)
		require.Equal(t, 100*(i+1), ack.Rows)
		require.Greater(t, ack.Seq, last.Seq)
		require.Len(t, h.ids("events"), int(ack.Rows), "what is acknowledged is visible")
		last = ack
	}
	require.NoError(t, u.CloseSend())
	_, err := u.Ack()
	require.ErrorIs(t, err, io.EOF, "the last ack came before")
}

func TestAcksArePipelined(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	u := h.put(context.Background(), eventSchema(false), "main", "events")
	const batches, rows = 500, 20
	var acks []UploadAck
	read := make(chan error, 1)
	go func() {
		for {
			ack, err := u.Ack()
			if err != nil {
				read <- err
				return
			}
			acks = append(acks, ack)
		}
	}()
	for i := range int64(batches) {
		require.NoError(t, u.Send(events(t, false, i*rows, rows, "x")))
	}
	require.NoError(t, u.CloseSend())
	require.ErrorIs(t, <-read, io.EOF)
	require.NotEmpty(t, acks)
	for i, ack := range acks {
		require.Equal(t, ack.Batches*rows, ack.Rows)
		if i > 0 {
			require.Greater(t, ack.Batches, acks[i-1].Batches)
			require.Greater(t, ack.Seq, acks[i-1].Seq)
		}
	}
	require.EqualValues(t, batches, acks[len(acks)-1].Batches)
	require.Equal(t, sequence(0, batches*rows), h.ids("events"))
}

func TestAnEmptyStreamIsAcknowledged(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	u := h.put(context.Background(), eventSchema(true), "events")
	require.NoError(t, u.Send(events(t, true, 0, 0, "x")))
	require.NoError(t, u.CloseSend())
	ack, err := drainAcks(u)
	require.NoError(t, err)
	require.EqualValues(t, 1, ack.Batches)
	require.Zero(t, ack.Rows)
}

func TestAClientThatReadsNoAcksIsNotWaitedFor(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	// The client takes no more acks than fit into the smallest window that gRPC lets it have.
	conn, err := grpc.NewClient(h.addr, dialInsecure(), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
	require.NoError(t, err)
	defer conn.Close()
	stream, err := flight.NewClientFromConn(conn, nil).DoPut(context.Background())
	require.NoError(t, err)
	w := flight.NewRecordWriter(stream, ipc.WithSchema(eventSchema(true)))
	w.SetFlightDescriptor(&flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{"events"}})
	const batches = 4000
	for i := range int64(batches) {
		require.NoError(t, w.Write(events(t, true, i, 1, "x")))
	}
	require.NoError(t, w.Close())
	require.NoError(t, stream.CloseSend())
	require.Eventually(t, func() bool { return len(h.ids("events")) == batches }, patience, patience/1000)
	u := &Upload{stream: stream}
	ack, err := drainAcks(u)
	require.NoError(t, err)
	require.EqualValues(t, batches, ack.Batches)
}

func TestConcurrentStreamsOverTheSameKeys(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	const streams, batches, rows = 8, 50, 40
	var wg sync.WaitGroup
	for s := range streams {
		wg.Go(func() {
			u, err := h.client.Put(context.Background(), eventSchema(true), "events")
			if err != nil {
				t.Error(err)
				return
			}
			for i := range int64(batches) {
				if err := u.Send(events(t, true, i*rows/2, rows, string(rune('a'+s)))); err != nil {
					t.Error(err)
					return
				}
			}
			if err := u.CloseSend(); err != nil {
				t.Error(err)
			}
			if ack, err := drainAcks(u); err != nil || ack.Batches != batches {
				t.Errorf("stream %d: %+v, %v", s, ack, err)
			}
		})
	}
	wg.Wait()
	got := h.ids("events")
	require.Equal(t, sequence(0, (batches+1)*rows/2), got)
}

func TestAClientThatVanishesLeavesWholeBatches(t *testing.T) {
	h := serve(t)
	h.createTable("events", false)
	ctx, vanish := context.WithCancel(context.Background())
	u := h.put(ctx, eventSchema(false), "events")
	const rows = 10
	var acked UploadAck
	for i := range int64(50) {
		require.NoError(t, u.Send(events(t, false, i*rows, rows, "x")))
		if i == 25 {
			var err error
			acked, err = u.Ack()
			require.NoError(t, err)
		}
	}
	vanish()
	_, err := drainAcks(u)
	require.Error(t, err)
	h.server.tasks.Wait()

	// It comes back. What it gets acknowledged then lies behind all that it left in the log.
	u = h.put(context.Background(), eventSchema(false), "events")
	require.NoError(t, u.Send(events(t, false, -1, 1, "x")))
	require.NoError(t, u.CloseSend())
	_, err = drainAcks(u)
	require.NoError(t, err)
	got := h.ids("events")[1:]
	require.Zero(t, len(got)%rows)
	require.GreaterOrEqual(t, int64(len(got)), acked.Rows)
	require.Equal(t, sequence(0, int64(len(got))), got)
}

// rawPut sends messages as they are.
func (h *harness) rawPut(messages ...*flight.FlightData) (UploadAck, error) {
	h.t.Helper()
	stream, err := h.client.sql.Client.DoPut(context.Background())
	require.NoError(h.t, err)
	for _, m := range messages {
		if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
			require.NoError(h.t, err)
		}
	}
	require.NoError(h.t, stream.CloseSend())
	return drainAcks(&Upload{stream: stream})
}

// pathTo describes a stream into a table.
func pathTo(path ...string) *flight.FlightDescriptor {
	return &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: path}
}

// dataOf returns the stream of the records as messages, the first of them with the descriptor.
func dataOf(t testing.TB, d *flight.FlightDescriptor, schema *arrow.Schema, records ...arrow.RecordBatch) []*flight.FlightData {
	var out []*flight.FlightData
	for _, m := range encodeStream(t, schema, records) {
		out = append(out, &flight.FlightData{DataHeader: m.header, DataBody: m.body})
	}
	out[0].FlightDescriptor = d
	return out
}

func TestBadStreamsAreRefused(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	good := dataOf(t, pathTo("events"), eventSchema(true), events(t, true, 0, 3, "x"), events(t, true, 3, 3, "y"))
	wrongType := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}, {Name: "tag", Type: arrow.BinaryTypes.String}}, nil)
	extra := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "colour", Type: arrow.BinaryTypes.String}}, nil)
	nullable := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {Name: "tag", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	for _, c := range []struct {
		name     string
		messages []*flight.FlightData
		code     codes.Code
		parts    []string
	}{
		{"nothing", nil, codes.InvalidArgument, []string{"FlightDescriptor"}},
		{"no descriptor", dataOf(t, nil, eventSchema(true)), codes.InvalidArgument, []string{"no FlightDescriptor", "[schema, table]"}},
		{"empty path", dataOf(t, pathTo(), eventSchema(true)), codes.InvalidArgument, []string{"0 parts"}},
		{"empty name", dataOf(t, pathTo(""), eventSchema(true)), codes.InvalidArgument, []string{"empty table name"}},
		{"path too long", dataOf(t, pathTo("a", "b", "c"), eventSchema(true)), codes.InvalidArgument, []string{"3 parts"}},
		{"unknown table", dataOf(t, pathTo("nosuch"), eventSchema(true)), codes.NotFound, []string{`"nosuch"`, "CREATE TABLE"}},
		{"unknown schema", dataOf(t, pathTo("other", "events"), eventSchema(true)), codes.NotFound, []string{"other.events"}},
		{"no schema", []*flight.FlightData{{FlightDescriptor: pathTo("events")}}, codes.InvalidArgument, []string{"ended before its schema"}},
		{"batch before schema", []*flight.FlightData{{FlightDescriptor: pathTo("events")}, good[1]}, codes.InvalidArgument, []string{"not with a schema"}},
		{"garbage schema", []*flight.FlightData{{FlightDescriptor: pathTo("events"), DataHeader: []byte("garbage garbage")}}, codes.InvalidArgument, []string{"flatbuffer"}},
		{"second schema", append(slices.Clone(good), &flight.FlightData{DataHeader: good[0].DataHeader}), codes.InvalidArgument, []string{"second schema"}},
		{"wrong type", dataOf(t, pathTo("events"), wrongType), codes.InvalidArgument, []string{`"id"`, "utf8", "int64"}},
		{"unknown column", dataOf(t, pathTo("events"), extra), codes.InvalidArgument, []string{`"colour"`}},
		{"null key", dataOf(t, pathTo("events"), nullable, recordOf(t, nullable, `[{"id":1},{"id":null}]`)), codes.InvalidArgument, []string{"batch 1", `"id"`}},
		{"garbage command", []*flight.FlightData{{FlightDescriptor: &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: []byte("\xFFgarbage")}}}, codes.InvalidArgument, []string{"not a Flight SQL command"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := h.rawPut(c.messages...)
			requireCode(t, err, c.code, c.parts...)
		})
	}
	ack, err := h.rawPut(good...)
	require.NoError(t, err, "the server lives on")
	require.EqualValues(t, 6, ack.Rows)
}

func TestAnErrorNamesItsBatchAndKeepsWhatWasBefore(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	good := dataOf(t, pathTo("events"), eventSchema(true), events(t, true, 0, 3, "x"), events(t, true, 3, 3, "y"), events(t, true, 6, 3, "z"))
	good[3].DataBody = bytes.Repeat([]byte{0xFF}, len(good[3].DataBody))
	ack, err := h.rawPut(append(good, good[1])...)
	requireCode(t, err, codes.InvalidArgument, "batch 3", `column "tag"`)
	require.EqualValues(t, 2, ack.Batches)
	require.EqualValues(t, 6, ack.Rows)
	require.Equal(t, sequence(0, 6), h.ids("events"))
}

func TestTooLargeBatchesAreRefusedByName(t *testing.T) {
	h := serve(t, func(o *Options) { o.MaxMessageBytes = 64 << 10 })
	h.createTable("events", true)
	text := strings.Repeat("x", 70<<10)
	ack, err := h.rawPut(dataOf(t, pathTo("events"), eventSchema(true), events(t, true, 0, 3, "x"), events(t, true, 3, 1, text))...)
	requireCode(t, err, codes.ResourceExhausted, "batch 2", "at most 65536", "fewer rows")
	require.EqualValues(t, 1, ack.Batches)
	_, err = h.rawPut(dataOf(t, pathTo("events"), eventSchema(true), events(t, true, 3, 1, strings.Repeat(text, 2)))...)
	requireCode(t, err, codes.ResourceExhausted, "larger than max")
	require.Equal(t, sequence(0, 3), h.ids("events"))
}

func TestOptionsOfAStreamAreObeyedOrRefused(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	for _, c := range []struct {
		name, value string
		code        codes.Code
		part        string
	}{
		{"durability", "durable", codes.OK, ""},
		{"missing", "null", codes.OK, ""},
		{"durability", "buffered", codes.InvalidArgument, `table "events" is durable`},
		{"durability", "eventual", codes.InvalidArgument, `"eventual"`},
		{"missing", "keep", codes.OK, ""},
		{"missing", "error", codes.OK, ""},
		{"missing", "drop", codes.InvalidArgument, `"drop"`},
		{"evolve", "add-columns", codes.OK, ""},
		{"evolve", "true", codes.InvalidArgument, "add-columns"},
		{"idempotency-key", "k1", codes.OK, ""},
		{"idempotency-key", "", codes.InvalidArgument, "empty"},
		{"idempotency-key", strings.Repeat("k", 257), codes.InvalidArgument, "1 to 256"},
		{"resume", "true", codes.InvalidArgument, "idempotency-key"},
		{"resume", "perhaps", codes.InvalidArgument, "perhaps"},
		{"transaction", "t1", codes.Unimplemented, "transactions"},
		{"colour", "red", codes.InvalidArgument, `"colour"`},
	} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "x-flightd-"+c.name, c.value)
		u := h.put(ctx, eventSchema(true), "events")
		require.NoError(t, u.CloseSend())
		_, err := drainAcks(u)
		if c.code == codes.OK {
			require.NoError(t, err)
		} else {
			requireCode(t, err, c.code, c.part)
		}
	}
}

// TestAcksOfABufferedTable: nobody has the log synced but a stream that is durable, and nothing else is told to wait.
func TestAcksOfABufferedTable(t *testing.T) {
	h := &harness{t: t, dir: t.TempDir(), engine: lsm.Options{Durability: lsm.Buffered, LogInterval: time.Hour}}
	h.start()
	t.Cleanup(func() { _ = h.stop(context.Background()) })
	table := h.createTable("events", true)
	require.Equal(t, lsm.Buffered, table.Durability())
	var rows int64
	send := func(durability string) (seq, durable uint64) {
		t.Helper()
		ctx := context.Background()
		if durability != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-flightd-durability", durability)
		}
		u := h.put(ctx, eventSchema(true), "events")
		require.NoError(t, u.Send(events(t, true, rows, 10, "x")))
		ack, err := u.Ack() // while the stream is open
		require.NoError(t, err)
		rows += 10
		require.Len(t, h.ids("events"), int(rows), "what is acknowledged is visible")
		durable = uint64(h.db.Metrics().Durable)
		require.NoError(t, u.CloseSend())
		_, err = drainAcks(u)
		require.NoError(t, err)
		return uint64(ack.Seq), durable
	}
	for _, durability := range []string{"", "buffered"} {
		seq, durable := send(durability)
		require.Less(t, durable, seq)
	}
	seq, durable := send("durable")
	require.GreaterOrEqual(t, durable, seq)
	seq, durable = send("")
	require.Less(t, durable, seq)

	ctx := metadata.AppendToOutgoingContext(context.Background(), "x-flightd-durability", "buffered", "x-flightd-idempotency-key", "k")
	u := h.put(ctx, eventSchema(true), "events")
	require.NoError(t, u.CloseSend())
	_, err := drainAcks(u)
	requireCode(t, err, codes.InvalidArgument, "buffered", "idempotency-key")

	require.NoError(t, h.stop(context.Background()))
	h.start()
	require.Len(t, h.ids("events"), int(rows), "a shutdown syncs everything")
}

func TestEncodedStreamsAreStored(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	encoded := arrow.NewSchema([]arrow.Field{
		{Name: "TAG", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, Nullable: true},
		{Name: "Id", Type: arrow.PrimitiveTypes.Int16},
	}, nil)
	record := recordOf(t, encoded, `[{"TAG":"a","Id":7},{"TAG":null,"Id":8},{"TAG":"b","Id":9}]`)
	_, err := h.rawPut(dataOf(t, pathTo("EVENTS"), encoded, record)...)
	require.NoError(t, err)
	for _, codec := range []ipc.Option{ipc.WithLZ4(), ipc.WithZstd()} {
		var messages []*flight.FlightData
		for _, m := range encodeStream(t, eventSchema(true), []arrow.RecordBatch{events(t, true, 10, 20, "compressed")}, codec) {
			messages = append(messages, &flight.FlightData{DataHeader: m.header, DataBody: m.body})
		}
		messages[0].FlightDescriptor = pathTo("events")
		_, err = h.rawPut(messages...)
		require.NoError(t, err)
	}
	require.ElementsMatch(t, append(sequence(7, 3), sequence(10, 20)...), h.ids("events"))
}

func TestMemoryGoesBack(t *testing.T) {
	before := offheap.Default.InUse()
	h := serve(t)
	h.createTable("events", true)
	for range 3 {
		_, err := h.rawPut(dataOf(t, pathTo("events"), eventSchema(true), events(t, true, 0, 1000, "x"))...)
		require.NoError(t, err)
	}
	require.NoError(t, h.stop(context.Background()))
	require.Equal(t, before, offheap.Default.InUse())
}

func TestShutdownWaitsForAStreamThatEnds(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	u := h.put(context.Background(), eventSchema(true), "events")
	require.NoError(t, u.Send(events(t, true, 0, 10, "x")))
	_, err := u.Ack()
	require.NoError(t, err)
	shut := make(chan error, 1)
	go func() { shut <- h.server.Shutdown(context.Background()) }()
	<-h.server.drain.Done()
	require.NoError(t, u.Send(events(t, true, 10, 10, "x")))
	require.NoError(t, u.CloseSend())
	ack, err := drainAcks(u)
	require.NoError(t, err)
	require.EqualValues(t, 20, ack.Rows)
	require.NoError(t, <-shut)
}

func TestShutdownFailsAnOpenStreamWithItsLastAck(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  bool // the grace period is over at once
	}{{"idle", false}, {"cut", true}} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t)
			h.createTable("events", true)
			u := h.put(context.Background(), eventSchema(true), "events")
			const rows = 10
			require.NoError(t, u.Send(events(t, true, 0, rows, "x")))
			_, err := u.Ack()
			require.NoError(t, err)
			require.NoError(t, u.Send(events(t, true, rows, rows, "x")))
			ctx, cancel := context.WithCancel(context.Background())
			if c.cut {
				cancel()
			}
			shut := make(chan error, 1)
			go func() { shut <- h.server.Shutdown(ctx) }()
			last, err := drainAcks(u)
			requireCode(t, err, codes.Unavailable, "shutting down")
			require.Equal(t, c.cut, <-shut != nil)
			cancel()
			acked := max(last.Rows, rows)
			require.NoError(t, h.db.Wait(context.Background(), h.db.Metrics().Appended), "what is in the log may become visible behind the last ack")
			got := h.ids("events")
			require.GreaterOrEqual(t, int64(len(got)), acked)
			require.NoError(t, h.client.Close())
			require.NoError(t, h.query.Close())
			require.NoError(t, h.db.Close())
			<-h.served
			h.start()
			require.Equal(t, got, h.ids("events"))
		})
	}
}

func TestAStreamEndsWithItsEngine(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	u := h.put(context.Background(), eventSchema(true), "events")
	require.NoError(t, u.Send(events(t, true, 0, 10, "x")))
	_, err := u.Ack()
	require.NoError(t, err)
	require.NoError(t, h.db.Close())
	require.NoError(t, u.Send(events(t, true, 10, 10, "x")))
	_, err = drainAcks(u)
	requireCode(t, err, codes.Unavailable, "closed")
}

func TestATableThatIsDroppedEndsItsStreams(t *testing.T) {
	h := serve(t)
	h.createTable("events", true)
	u := h.put(context.Background(), eventSchema(true), "events")
	require.NoError(t, u.Send(events(t, true, 0, 10, "x")))
	_, err := u.Ack()
	require.NoError(t, err)
	h.execute("DROP TABLE events")
	require.NoError(t, u.Send(events(t, true, 10, 10, "x")))
	_, err = drainAcks(u)
	requireCode(t, err, codes.NotFound, "batch 2", "events")
}
