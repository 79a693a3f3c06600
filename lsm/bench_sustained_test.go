package lsm

import (
	"context"
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/internal/rows"
)

// sustain is how long BenchmarkSustained writes.
var sustain = flag.Duration("sustain", 5*time.Second, "how long BenchmarkSustained writes in each of its parts")

// benchRandomKeys is how many keys random writes choose from.
const benchRandomKeys = 100_000_000

// BenchmarkSustained writes batches of 100 rows of schema A for a while, flushes and merges included, and then waits until
// the last of them is durable. limit-Mrows/s is what the disk could take of the bytes that the process wrote for a row
// (log, generations, merges and new log segments), measured in the same run, and rate-of-limit our part of it. p99.9-ms and
// max-ms are of the calls of Put. over-MiB is the most memory that the process had beyond Options.Memory, the benchmark's own
// included: RssAnon and RssShmem, looked at ten times a second.
func BenchmarkSustained(b *testing.B) {
	for _, order := range []string{"sequential", "random"} {
		b.Run("keys="+order, func(b *testing.B) {
			for range b.N {
				benchSustained(b, order == "random")
			}
		})
	}
}

func benchSustained(b *testing.B, random bool) {
	const n = 100
	ctx := context.Background()
	dir := b.TempDir()
	db, err := Open(ctx, Options{Dir: dir, Durability: Buffered, Retain: -1})
	if err != nil {
		b.Fatal(err)
	}
	table := benchTable(b, db, benchSchema)
	source := newBatchSource(b, n, random)
	most := watchMemory(b)
	var calls []time.Duration
	const probe = 512 << 20
	limit := benchDisk(b, dir, probe)
	before := benchWritten(b)
	start := time.Now()
	var lsn LSN
	for time.Since(start) < *sustain {
		x := source.next(b)
		at := time.Now()
		if lsn, err = table.Put(ctx, x.Batch); err != nil {
			b.Fatal(err)
		}
		calls = append(calls, time.Since(at))
		x.release()
	}
	if err := db.Wait(ctx, lsn); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	written := benchWritten(b) - before
	limit = (limit + benchDisk(b, dir, probe)) / 2
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	total := float64(len(calls) * n)
	rate, could := total/took.Seconds(), probe/limit.Seconds()/(float64(written)/total)
	slices.Sort(calls)
	b.ReportMetric(rate/1e6, "Mrows/s")
	b.ReportMetric(float64(written)/total, "B/row")
	b.ReportMetric(could/1e6, "limit-Mrows/s")
	b.ReportMetric(rate/could, "rate-of-limit")
	b.ReportMetric(float64(most()-db.opt.Memory)/(1<<20), "over-MiB")
	b.ReportMetric(calls[len(calls)*999/1000].Seconds()*1e3, "p99.9-ms")
	b.ReportMetric(calls[len(calls)-1].Seconds()*1e3, "max-ms")
}

// batchSource makes batches of schema A without end. Only their keys differ.
type batchSource struct {
	n       int
	decoder *batchDecoder
	meta    []byte
	body    []byte
	keys    int // where the keys lie in body
	rows    int64
	random  *rand.Rand
}

// sourceBatch is a batch with its memory.
type sourceBatch struct {
	Batch
	body *memory.Buffer
}

func newBatchSource(b *testing.B, n int, random bool) *batchSource {
	b.Helper()
	s, err := rows.Schema(benchSchema)
	if err != nil {
		b.Fatal(err)
	}
	x := &batchSource{n: n}
	if x.decoder, err = newBatchDecoder(s); err != nil {
		b.Fatal(err)
	}
	if random {
		x.random = rand.New(rand.NewPCG(1, 2))
	}
	first := benchBatches(b, 1, n, false)[0]
	x.meta, x.body = first.Meta, first.Body
	keys := first.Record.Column(0).Data().Buffers()[1].Bytes()
	for x.keys = 0; &x.body[x.keys] != &keys[0]; x.keys++ {
	}
	return x
}

// next returns a batch, which the caller releases.
func (x *batchSource) next(b *testing.B) sourceBatch {
	body := memory.NewResizableBuffer(offheap.Default)
	body.Resize(len(x.body))
	copy(body.Bytes(), x.body)
	for i := range x.n {
		key := x.rows + int64(i)
		if x.random != nil {
			key = x.random.Int64N(benchRandomKeys)
		}
		binary.LittleEndian.PutUint64(body.Bytes()[x.keys+8*i:], uint64(key))
	}
	x.rows += int64(x.n)
	var rec arrow.RecordBatch
	rec, err := x.decoder.decode(x.meta, body)
	if err != nil {
		b.Fatal(err)
	}
	return sourceBatch{Batch{Record: rec, Meta: x.meta, Body: body.Bytes()}, body}
}

// release gives the source's references back.
func (x sourceBatch) release() {
	x.Record.Release()
	x.body.Release()
}

// watchMemory looks at the process's memory until the function that it returns is called, which returns the most there was.
func watchMemory(b *testing.B) (stop func() int64) {
	done, most := make(chan struct{}), make(chan int64)
	go func() {
		high := int64(0)
		for tick := time.Tick(100 * time.Millisecond); ; {
			high = max(high, benchMemory(b))
			select {
			case <-tick:
			case <-done:
				most <- high
				return
			}
		}
	}()
	return func() int64 {
		close(done)
		return <-most
	}
}

// memoryLines are those of what Options.Memory bounds.
var memoryLines = regexp.MustCompile(`(?m)^Rss(?:Anon|Shmem):\s*(\d+) kB$`)

// benchMemory returns the memory of the process that no file backs, 0 when the system does not tell.
func benchMemory(b *testing.B) (bytes int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for _, found := range memoryLines.FindAllSubmatch(text, -1) {
		kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
		if err != nil {
			b.Error(err)
		}
		bytes += kilobytes << 10
	}
	return bytes
}

// benchWritten returns how many bytes the process has given to disks so far.
func benchWritten(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skip("the kernel does not count what a process writes:", err)
	}
	found := regexp.MustCompile(`(?m)^write_bytes: (\d+)$`).FindSubmatch(text)
	if found == nil {
		b.Skip("the kernel does not count what a process writes to disks")
	}
	written, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return written
}
