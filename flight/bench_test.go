package flight

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/flightd/flightd/internal/offheap"
)

// BenchmarkPut streams batches into a table without a key and reads the acks: client, wire, log and memtable on the
// machine's cores together.
func BenchmarkPut(b *testing.B) {
	for _, rows := range []int64{100, 1000, 8192} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			h := serve(b)
			h.createTable("events", false)
			batch := events(b, false, 0, rows, "a tag of some length")
			u := h.put(context.Background(), eventSchema(false), "events")
			acked := make(chan error, 1)
			go func() {
				_, err := drainAcks(u)
				acked <- err
			}()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				require.NoError(b, u.Send(batch))
			}
			require.NoError(b, u.CloseSend())
			require.NoError(b, <-acked)
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkDecode decodes a batch that came over the wire.
func BenchmarkDecode(b *testing.B) {
	for _, rows := range []int64{100, 1000, 8192} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			schema := eventSchema(false)
			messages := encodeStream(b, schema, nil)
			stream, err := parseSchema(messages[0].header)
			require.NoError(b, err)
			batch := events(b, false, 0, rows, "a tag of some length")
			m := encodeStream(b, schema, []arrow.RecordBatch{batch})[1]
			d := newDecoder(stream, offheap.Default, 1<<30)
			defer d.Close()
			body := bodyBuffer(offheap.Default, m.body)
			defer body.Release()
			b.ReportAllocs()
			for b.Loop() {
				out, _, err := d.Decode(m.header, body)
				require.NoError(b, err)
				out.record.Release()
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkGet reads a query's result of two integers and a string.
func BenchmarkGet(b *testing.B) {
	h := serve(b)
	ctx := context.Background()
	info, err := h.client.sql.Execute(ctx, "SELECT range AS a, range * 2 AS b, 'a tag of some length' AS s FROM range(1000000)")
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		r, err := h.client.sql.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
		require.NoError(b, err)
		rows := int64(0)
		for r.Next() {
			rows += r.RecordBatch().NumRows()
		}
		require.NoError(b, r.Err())
		require.EqualValues(b, 1_000_000, rows)
		r.Release()
	}
	b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.SetBytes(40_000_000)
}

// BenchmarkSend sends a batch of 1 MiB that is at hand.
func BenchmarkSend(b *testing.B) {
	record := events(b, false, 0, 32_000, "a tag of some length")
	w := newSender(discard{}, record.Schema())
	b.SetBytes(recordBytes(record))
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, w.send(record))
	}
}

// discard is a stream that frees what it is given, as gRPC does when it has written it.
type discard struct{ grpc.ServerStream }

// SendMsg implements grpc.ServerStream.
func (discard) SendMsg(m any) error {
	m.(*outgoing).parts.Free()
	return nil
}
