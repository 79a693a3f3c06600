package ivf

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// bench/indexbuild.py runs BenchmarkBuild with these, in a process for each line, beside pylance.
var (
	buildFile       = flag.String("build.file", "", "Lance file whose first column has the vectors")
	buildPartitions = flag.Int("build.partitions", 256, "number of partitions")
	buildSampleRate = flag.Int("build.samplerate", 64, "rows of the sample for each centroid")
	buildIterations = flag.Int("build.iterations", 0, "at most how often centroids move; the default when 0")
	buildWorkers    = flag.Int("build.workers", 1, "goroutines that compute")
	buildCurve      = flag.String("build.curve", "", "file for seconds and bytes of anonymous memory over base, a line each 5 ms")
	buildOut        = flag.String("build.out", "", "folder for the index; a temporary one by default")
)

// BenchmarkBuild samples, trains, assigns, encodes, shuffles and writes an index over the vectors of a file, which is mapped.
// It reports processor time, the most anonymous memory over that of the start, and the most open files.
func BenchmarkBuild(b *testing.B) {
	if *buildFile == "" {
		b.Skip("give -build.file")
	}
	for b.Loop() {
		buildIndex(b)
	}
}

func buildIndex(b *testing.B) {
	ctx := b.Context()
	r, err := lance.Open(ctx, object.NewLocal(filepath.Dir(*buildFile)), filepath.Base(*buildFile), 0, lance.ReaderOptions{})
	require.NoError(b, err)
	defer func() { require.NoError(b, r.Close()) }()
	dim := int(r.Schema().Fields[0].Type.(interface{ Len() int32 }).Len())
	out := *buildOut
	if out == "" {
		out = b.TempDir()
	}
	debug.FreeOSMemory()
	m := watchMemory(b)
	cpu := cpuSeconds(b)
	o := TrainOptions{Partitions: *buildPartitions, SubVectors: dim / 8, SampleRate: *buildSampleRate, Rows: r.Rows(), Iterations: *buildIterations, Workers: *buildWorkers, Seed: 1}
	want, err := o.SampleRows(dim)
	require.NoError(b, err)
	sampler := NewSampler(dim, want, 1, b.TempDir())
	defer sampler.Close()
	eachBatch(b, r, func(_ int, rows []float32) { sampler.Add(rows) })
	model, _, err := Train(ctx, sampler.Rows(), dim, o)
	require.NoError(b, err)
	sampler.Close()
	trained := cpuSeconds(b)
	atTraining := m.highest()
	builder, err := NewBuilder(ctx, object.NewLocal(out), "x", model, BuildOptions{Workers: *buildWorkers, Scratch: object.NewScratch(b.TempDir())})
	require.NoError(b, err)
	defer builder.Abort()
	var ids []uint64
	eachBatch(b, r, func(first int, rows []float32) {
		ids = ids[:0]
		for i := range len(rows) / dim {
			ids = append(ids, uint64(first+i))
		}
		require.NoError(b, builder.Add(ctx, ids, rows))
	})
	added := cpuSeconds(b)
	_, err = builder.Finish(ctx)
	require.NoError(b, err)
	m.end()
	if *buildCurve != "" {
		require.NoError(b, os.WriteFile(*buildCurve, []byte(m.curve.String()), 0o644))
	}
	b.ReportMetric(cpuSeconds(b)-cpu, "cpu-s")
	b.ReportMetric(trained-cpu, "cpu-s-train")
	b.ReportMetric(cpuSeconds(b)-added, "cpu-s-finish")
	b.ReportMetric(float64(m.peak)/1e6, "MB-over-base")
	b.ReportMetric(float64(atTraining)/1e6, "MB-train")
	b.ReportMetric(float64(m.files), "files")
}

// eachBatch reads the first column of a file.
func eachBatch(b *testing.B, r *lance.Reader, fn func(first int, rows []float32)) {
	sc := r.Scan([]int{0}, 0, r.Rows(), 8192)
	defer sc.Close()
	first := 0
	for {
		rec, err := sc.Next(b.Context())
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(b, err)
		lists := rec.Column(0).(*array.FixedSizeList)
		n, from := int(lists.DataType().(interface{ Len() int32 }).Len()), lists.Data().Offset()
		fn(first, lists.ListValues().(*array.Float32).Float32Values()[from*n:(from+lists.Len())*n])
		first += lists.Len()
		rec.Release()
	}
}

// memoryWatch samples the memory of the process.
type memoryWatch struct {
	mu         sync.Mutex
	base, peak int64
	files      int
	curve      strings.Builder
	stop, done chan struct{}
}

func watchMemory(b *testing.B) *memoryWatch {
	w := &memoryWatch{base: anonymousBytes(b), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		began := time.Now()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			over := anonymousBytes(b) - w.base
			open, _ := os.ReadDir("/proc/self/fd")
			fmt.Fprintf(&w.curve, "%.3f,%d\n", time.Since(began).Seconds(), over)
			w.mu.Lock()
			w.peak, w.files = max(w.peak, over), max(w.files, len(open))
			w.mu.Unlock()
		}
	}()
	return w
}

func (w *memoryWatch) highest() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak
}

func (w *memoryWatch) end() {
	close(w.stop)
	<-w.done
}
