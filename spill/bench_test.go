package spill

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/object"
)

// BenchmarkFinish appends 400,000 pieces of 110 bytes, about what is known of a page, to streams in turn, and reads all streams
// back, which jumps through the file from chunk to chunk: once as it lies in the page cache, once from the disk.
func BenchmarkFinish(b *testing.B) {
	const pieces = 400_000
	piece := make([]byte, 110)
	for _, streams := range []int{2, 200, 4096, 65_536} {
		b.Run(fmt.Sprint("streams=", streams), func(b *testing.B) {
			for b.Loop() {
				root := b.TempDir()
				f, err := NewFolder(object.NewScratch(root), nil).OpenFile(Options{Streams: streams})
				require.NoError(b, err)
				began := time.Now()
				for i := range pieces {
					require.NoError(b, f.Append(i%streams, piece))
				}
				written := time.Since(began)
				warm := readAllStreams(b, f)
				forget(b, filepath.Join(root, f.name))
				cold := readAllStreams(b, f)
				b.ReportMetric(float64(written.Nanoseconds())/pieces, "ns/append")
				b.ReportMetric(float64(f.Chunks()), "chunks")
				b.ReportMetric(float64(warm.Nanoseconds())/float64(f.Chunks()), "ns/chunk")
				b.ReportMetric(warm.Seconds()*1e3, "ms-read")
				b.ReportMetric(cold.Seconds()*1e3, "ms-read-cold")
				require.NoError(b, f.Close())
			}
		})
	}
}

func readAllStreams(b *testing.B, f *File) time.Duration {
	began := time.Now()
	for s := range f.streams {
		require.NoError(b, f.Read(s, func([]byte) error { return nil }))
	}
	return time.Since(began)
}

// forget has the system drop what it caches of a file.
func forget(b *testing.B, name string) {
	file, err := os.Open(name)
	require.NoError(b, err)
	require.NoError(b, file.Sync())
	require.NoError(b, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
	require.NoError(b, file.Close())
}
