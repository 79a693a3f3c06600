package lsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/internal/rows"
)

// BenchmarkPutsAndClose puts batches, flushes them and closes the DB: at the end every row is in a generation with its key
// index, and all of it is synced. limit-s is what the disk takes, in the same run, to write and sync the bytes of the log
// and of the generations (before and after it, the mean of the two), and of-limit our time in these: lower is better, 1 is
// the disk's own speed. rate-of-limit is the inverse.
func BenchmarkPutsAndClose(b *testing.B) {
	for _, x := range []struct {
		name, schema string
		batches, n   int
	}{
		{"schema=A/batch=1000", benchSchema, 4000, 1000},
		{"schema=B/batch=1000", "id int64 key, vector fsl(128,float), text utf8", 600, 1000},
		{"schema=lance/batch=100", "id int64 key, vector fsl(512,float), text utf8", 1000, 100},
	} {
		b.Run(x.name, func(b *testing.B) { benchPutsAndClose(b, x.schema, x.batches, x.n) })
	}
}

func benchPutsAndClose(b *testing.B, schema string, count, n int) {
	ctx := context.Background()
	batches := benchRows(b, schema, count, n)
	var bytes int64
	var limit, total time.Duration
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		dir := b.TempDir()
		db, err := Open(ctx, Options{Dir: dir, Durability: Buffered})
		if err != nil {
			b.Fatal(err)
		}
		table := benchTable(b, db, schema)
		b.StartTimer()
		start := time.Now()
		for _, x := range batches {
			if _, err := table.Put(ctx, x); err != nil {
				b.Fatal(err)
			}
		}
		if err := db.Flush(ctx, table.Name()); err != nil {
			b.Fatal(err)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		total += time.Since(start)
		b.StopTimer()
		bytes = benchLogBytes(batches) + benchDiskUsed(b, dir)
		limit += (benchDisk(b, dir, bytes) + benchDisk(b, dir, bytes)) / 2
		b.StartTimer()
	}
	all := float64(count) * float64(n) * float64(b.N)
	b.ReportMetric(all/total.Seconds()/1e6, "Mrows/s")
	b.ReportMetric(float64(bytes)/float64(count*n), "B/row")
	b.ReportMetric(limit.Seconds()/float64(b.N), "limit-s")
	b.ReportMetric(total.Seconds()/limit.Seconds(), "of-limit")
	b.ReportMetric(limit.Seconds()/total.Seconds(), "rate-of-limit")
}

// benchRows returns batches of n rows of a schema whose first column is the key, rising, as they come from the wire, with
// their IPC bytes outside the Go heap. Texts have 65 bytes.
func benchRows(b *testing.B, schema string, count, n int) []Batch {
	b.Helper()
	if schema == benchSchema {
		return benchBatches(b, count, n, false)
	}
	s, err := rows.Schema(schema)
	if err != nil {
		b.Fatal(err)
	}
	d, err := newBatchDecoder(s)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]Batch, count)
	rb := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer rb.Release()
	for i := range out {
		vectors := rb.Field(1).(*array.FixedSizeListBuilder)
		dims := int(s.Field(1).Type.(*arrow.FixedSizeListType).Len())
		for j := range n {
			rb.Field(0).(*array.Int64Builder).Append(int64(i*n + j))
			vectors.Append(true)
			for range dims {
				vectors.ValueBuilder().(*array.Float32Builder).Append(r.Float32())
			}
			rb.Field(2).(*array.StringBuilder).Append(fmt.Sprintf("row %010d of a benchmark, whose text is as long as a short note.", i*n+j))
		}
		rec := rb.NewRecordBatch()
		meta, body, err := encodeBatch(rec, offheap.Default)
		rec.Release()
		if err != nil {
			b.Fatal(err)
		}
		if rec, err = d.decode(meta, body); err != nil {
			b.Fatal(err)
		}
		out[i] = Batch{Record: rec, Meta: meta, Body: body.Bytes()}
	}
	return out
}
