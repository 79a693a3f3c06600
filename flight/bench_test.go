package flight

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

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
