package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/internal/rows"
)

// benchSchema is schema A of the benchmarks: 39 bytes a row.
const benchSchema = "id int64 key, ts timestamp, value double, tag utf8"

// benchBatches returns batches of n rows as they come from the wire, with their IPC bytes outside the Go heap.
func benchBatches(b *testing.B, count, n int, random bool) []Batch {
	b.Helper()
	s, err := rows.Schema(benchSchema)
	if err != nil {
		b.Fatal(err)
	}
	d, err := newBatchDecoder(s)
	if err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]Batch, count)
	for i := range out {
		ids := make([]int64, n)
		for j := range ids {
			if ids[j] = int64(i*n + j); random {
				ids[j] = r.Int64N(1 << 20)
			}
		}
		rec := benchRecord(b, ids)
		meta, body, err := encodeBatch(rec, offheap.Default)
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

// benchRecord returns rows of schema A.
func benchRecord(b *testing.B, ids []int64) arrow.RecordBatch {
	b.Helper()
	s, err := rows.Schema(benchSchema)
	if err != nil {
		b.Fatal(err)
	}
	rb := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer rb.Release()
	for _, id := range ids {
		rb.Field(0).(*array.Int64Builder).Append(id)
		rb.Field(1).(*array.TimestampBuilder).Append(arrow.Timestamp(id))
		rb.Field(2).(*array.Float64Builder).Append(float64(id))
		rb.Field(3).(*array.StringBuilder).Append(fmt.Sprintf("tag-%06d", id%1000))
	}
	return rb.NewRecordBatch()
}

// BenchmarkPut streams batches through the log into memtables: every Put is durable at the end, in groups.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{100, 1000, 8192} {
		for _, order := range []string{"sequential", "random"} {
			b.Run(fmt.Sprintf("batch=%d/keys=%s", n, order), func(b *testing.B) {
				ctx := context.Background()
				batches := benchBatches(b, 2_000_000/n, n, order == "random")
				b.ReportAllocs()
				b.ResetTimer()
				total := 0
				for range b.N {
					b.StopTimer()
					db, table := benchDB(b)
					b.StartTimer()
					var lsn LSN
					for _, x := range batches {
						var err error
						if lsn, err = table.Put(ctx, x); err != nil {
							b.Fatal(err)
						}
						total += n
					}
					if err := db.Wait(ctx, lsn); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := db.Close(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				b.ReportMetric(float64(total)/b.Elapsed().Seconds()/1e6, "Mrows/s")
			})
		}
	}
}

func benchDB(b *testing.B) (*DB, *Table) {
	b.Helper()
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	return db, benchTable(b, db, benchSchema)
}

// benchTable creates the table t with a schema.
func benchTable(b *testing.B, db *DB, schema string) *Table {
	b.Helper()
	ctx := context.Background()
	s, err := rows.Schema(schema)
	if err != nil {
		b.Fatal(err)
	}
	if err := db.CreateTable(ctx, TableDef{Name: TableName{Name: "t"}, Schema: s}); err != nil {
		b.Fatal(err)
	}
	table, err := db.Table(TableName{Name: "t"})
	if err != nil {
		b.Fatal(err)
	}
	return table
}

// BenchmarkCountOverGenerations counts the rows of 40 generations of 20,000 rows whose keys overlap. Nothing merges them.
func BenchmarkCountOverGenerations(b *testing.B) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: b.TempDir(), manual: true})
	if err != nil {
		b.Fatal(err)
	}
	table := benchTable(b, db, benchSchema)
	defer db.Close()
	for i, x := range benchBatches(b, 40, 20_000, true) {
		if _, err := table.Put(ctx, x); err != nil {
			b.Fatal(err)
		}
		if err := db.Flush(ctx, table.Name()); err != nil {
			b.Fatal(i, err)
		}
	}
	b.ResetTimer()
	for range b.N {
		snap, err := db.Snapshot(ctx)
		if err != nil {
			b.Fatal(err)
		}
		v, err := snap.Table(table.Name())
		if err != nil {
			b.Fatal(err)
		}
		sc, err := v.Scan(ctx, ScanOptions{})
		if err != nil {
			b.Fatal(err)
		}
		total := int64(0)
		for {
			m, err := sc.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			total += m.Rows()
			m.Release()
		}
		sc.Close()
		snap.Release()
		b.ReportMetric(float64(total), "rows")
	}
	b.ReportMetric(float64(db.Metrics().Generations), "generations")
}

// BenchmarkScanOfKeys reads one row, or 1,000 in a row of keys, out of 2,000,000 that are in one kind of layer.
func BenchmarkScanOfKeys(b *testing.B) {
	const batches, n = 250, 8000
	ctx := context.Background()
	for _, layer := range []string{"fresh", "flushed", "merged"} {
		db, table := benchDB(b)
		for _, x := range benchBatches(b, batches, n, false) {
			if _, err := table.Put(ctx, x); err != nil {
				b.Fatal(err)
			}
		}
		err := db.Wait(ctx, LSN(table.last.Load()))
		if layer != "fresh" && err == nil {
			err = db.Flush(ctx, table.Name())
		}
		if layer == "merged" && err == nil {
			err = db.Optimize(ctx, table.Name())
		}
		if err != nil {
			b.Fatal(err)
		}
		for _, rows := range []int64{1, 1000} {
			b.Run(fmt.Sprintf("%s/rows=%d", layer, rows), func(b *testing.B) {
				r := rand.New(rand.NewPCG(1, 2))
				b.ReportAllocs()
				for range b.N {
					if got := benchKeys(b, db, table, r.Int64N(batches*n-rows), rows); got < rows {
						b.Fatalf("%d rows, expected %d", got, rows)
					}
				}
			})
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// benchKeys reads the rows of some keys from first on, and returns how many there were.
func benchKeys(b *testing.B, db *DB, table *Table, first, rows int64) int64 {
	ctx := context.Background()
	snap, err := db.Snapshot(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer snap.Release()
	v, err := snap.Table(table.Name())
	if err != nil {
		b.Fatal(err)
	}
	ids := array.NewInt64Builder(memory.DefaultAllocator)
	ids.AppendValues([]int64{first, first + rows}, nil)
	bounds := ids.NewArray()
	defer bounds.Release()
	low, high := array.NewSlice(bounds, 0, 1), array.NewSlice(bounds, 1, 2)
	keys := v.NewKeySet()
	if rows == 1 {
		err = keys.Add([]arrow.Array{low})
	} else {
		err = keys.AddRange(nil, KeyBound{Value: low}, KeyBound{Value: high, Exclusive: true})
	}
	if err != nil {
		b.Fatal(err)
	}
	sc, err := v.Scan(ctx, ScanOptions{Columns: []int{0, 1, 2, 3}, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	defer sc.Close()
	total := int64(0)
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return total
		}
		if err != nil {
			b.Fatal(err)
		}
		total += m.Rows()
		m.Release()
	}
}
