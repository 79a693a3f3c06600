package ivf

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// bench/shuffle.py runs BenchmarkShuffle once for each line of its table, in a process of its own, with these.
var (
	shuffleLayout     = flag.String("shuffle.layout", "groups", "groups, writers or records")
	shufflePartitions = flag.Int("shuffle.partitions", 256, "number of partitions")
	shuffleRows       = flag.Int("shuffle.rows", 300_000, "number of rows")
	shuffleBuffer     = flag.Int64("shuffle.buffer", 4<<20, "bytes that are sorted at a time")
	shuffleInMemory   = flag.Bool("shuffle.inmemory", false, "keep the metadata of pages in memory")
	shuffleCurve      = flag.String("shuffle.curve", "", "file for the memory over time: seconds, rows, bytes")
)

// BenchmarkShuffle moves rows with codes of 16 bytes, whose partitions are given, and reads all partitions in order. It
// reports the anonymous memory over that of the start, open files, processor time, and what the reads are of it.
func BenchmarkShuffle(b *testing.B) {
	for b.Loop() {
		run := shuffleRun{b: b, root: b.TempDir()}
		run.move()
	}
}

// shuffleRun is one run of BenchmarkShuffle.
type shuffleRun struct {
	b    *testing.B
	root string

	mu      sync.Mutex
	rows    int
	base    int64
	peak    int64
	handles int
	curve   strings.Builder
}

const shuffleWidth = 16

func (r *shuffleRun) open() shuffler {
	folder := spill.NewFolder(object.NewScratch(r.root), nil)
	o := ShuffleOptions{BufferBytes: *shuffleBuffer, PagesInMemory: *shuffleInMemory}
	if *shuffleLayout == "records" {
		return newRecordShuffle(r.b.Context(), folder, *shufflePartitions, shuffleWidth, o)
	}
	s, err := layouts[*shuffleLayout](r.b.Context(), folder, *shufflePartitions, shuffleWidth, o)
	require.NoError(r.b, err)
	return s
}

func (r *shuffleRun) move() {
	debug.FreeOSMemory()
	r.base = anonymousBytes(r.b)
	stop, done := make(chan struct{}), make(chan struct{})
	go r.sample(stop, done)
	cpu := cpuSeconds(r.b)
	s := r.open()
	r.add(s)
	require.NoError(r.b, s.Finish())
	written := cpuSeconds(r.b)
	files := int64(0)
	require.NoError(r.b, filepath.Walk(r.root, func(_ string, in os.FileInfo, err error) error {
		if err == nil && !in.IsDir() {
			files += in.Size()
		}
		return err
	}))
	reading, began := cpuSeconds(r.b), time.Now()
	found := 0
	for p := range *shufflePartitions {
		require.NoError(r.b, s.Partition(p, func(ids []uint64, codes []byte) error {
			found += len(ids)
			return nil
		}))
	}
	require.Equal(r.b, *shuffleRows, found)
	read, elapsed := cpuSeconds(r.b), time.Since(began)
	require.NoError(r.b, s.Close())
	close(stop)
	<-done
	r.b.ReportMetric(float64(r.peak)/1e6, "MB-over-base")
	r.b.ReportMetric(float64(r.handles), "files")
	r.b.ReportMetric(written-cpu, "cpu-s-write")
	r.b.ReportMetric(read-reading, "cpu-s-read")
	r.b.ReportMetric(elapsed.Seconds(), "s-read")
	r.b.ReportMetric(float64(files)/1e6, "MB-disk")
	if *shuffleCurve != "" {
		require.NoError(r.b, os.WriteFile(*shuffleCurve, []byte(r.curve.String()), 0o644))
	}
}

// add makes rows in one piece of memory, which it uses again.
func (r *shuffleRun) add(s shuffler) {
	const batch = 8192
	parts, ids, codes := make([]int32, batch), make([]uint64, batch), make([]byte, batch*shuffleWidth)
	random := rand.New(rand.NewPCG(1, 1))
	for at := 0; at < *shuffleRows; {
		n := min(batch, *shuffleRows-at)
		for i := range n {
			parts[i], ids[i] = int32(random.IntN(*shufflePartitions)), uint64(at+i)
			codes[i*shuffleWidth] = byte(at + i)
		}
		require.NoError(r.b, s.Add(parts[:n], ids[:n], codes[:n*shuffleWidth]))
		at += n
		r.mu.Lock()
		r.rows = at
		r.mu.Unlock()
	}
}

// sample looks at the memory of the process until it is told to stop; nothing but the report depends on when.
func (r *shuffleRun) sample(stop, done chan struct{}) {
	defer close(done)
	began, tick := time.Now(), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		over := anonymousBytes(r.b) - r.base
		r.mu.Lock()
		r.peak = max(r.peak, over)
		if i%10 == 0 {
			open, _ := os.ReadDir("/proc/self/fd")
			r.handles = max(r.handles, len(open))
		}
		fmt.Fprintf(&r.curve, "%.3f,%d,%d\n", time.Since(began).Seconds(), r.rows, over)
		r.mu.Unlock()
	}
}

// anonymousBytes is the memory of the process that is of no file.
func anonymousBytes(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip("the system does not tell the memory of a process")
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			require.NoError(b, err)
			return kib << 10
		}
	}
	b.Skip("the system does not tell anonymous memory")
	return 0
}

func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
