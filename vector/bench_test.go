package vector

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// bench reports processor time, which other work on the machine disturbs least, in nanoseconds for each row, and the bytes
// of rows for each nanosecond of it. From memory one core reads 128 float32 in 18 to 30 ns (17 to 28 GB/s) where the
// project's figures were taken.
func bench(b *testing.B, name string, rows, rowBytes int, fn func()) {
	b.Run(name, func(b *testing.B) {
		before := processorTime(b)
		for b.Loop() {
			fn()
		}
		took := float64(processorTime(b)-before) / float64(b.N) / float64(rows)
		b.ReportMetric(took, "cpu-ns/row")
		b.ReportMetric(float64(rowBytes)/took, "GB/cpu-s")
	})
}

// processorTime is what the process has taken so far, in nanoseconds.
func processorTime(b *testing.B) int64 {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return u.Utime.Nano() + u.Stime.Nano()
}

func benchPQ(b *testing.B, m, bits int) *PQ {
	p, err := NewPQ(128, m, bits, randomFloats(seeded(4), 128<<bits))
	require.NoError(b, err)
	return p
}

func BenchmarkDistances(b *testing.B) {
	for _, shape := range []struct{ dim, rows int }{{128, 100}, {784, 100}, {1536, 50}, {128, 200_000}} {
		q, rows := randomFloats(seeded(1), shape.dim), slices.Repeat(randomFloats(seeded(2), 50*shape.dim), shape.rows/50)
		out, halves := make([]float32, shape.rows), make([]uint16, len(rows))
		NarrowFloat16(halves, rows)
		of := fmt.Sprintf("%dx%d", shape.rows, shape.dim)
		for _, m := range []Metric{L2, Dot, Cosine} {
			bench(b, m.String()+"/"+of, shape.rows, 4*shape.dim, func() { Distances(m, q, rows, out) })
		}
		bench(b, "l2 of float16/"+of, shape.rows, 2*shape.dim, func() { DistancesFloat16(L2, q, halves, out) })
		bench(b, "l2 twin/"+of, shape.rows, 4*shape.dim, func() { l2RowsGo(q, rows, out) })
	}
}

func BenchmarkHamming(b *testing.B) {
	const n = 200
	for _, dim := range []int{16, 128} {
		q, rows, out := randomBytes(1, dim), randomBytes(2, n*dim), make([]float32, n)
		bench(b, fmt.Sprint(dim, " bytes"), n, dim, func() { HammingDistances(q, rows, out) })
		bench(b, fmt.Sprint(dim, " bytes, twin"), n, dim, func() { hammingRowsGo(q, rows, out) })
	}
}

// BenchmarkExactSearch is the search of a memtable that has no index.
func BenchmarkExactSearch(b *testing.B) {
	const dim, n = 128, 100_000
	q, rows, out := randomFloats(seeded(1), dim), randomFloats(seeded(2), n*dim), make([]float32, n)
	top := NewTopK(10)
	bench(b, "best 10 of 100000x128", n, 4*dim, func() {
		top.Reset(10)
		Distances(L2, q, rows, out)
		top.PushRange(0, out)
	})
}

// BenchmarkAssignOnWrite is what a batch of 100 rows costs when it is written: partitions, residuals and codes.
func BenchmarkAssignOnWrite(b *testing.B) {
	const dim, n = 128, 100
	rows, residuals := randomFloats(seeded(1), n*dim), make([]float32, n*dim)
	for _, shape := range []struct{ partitions, m, bits int }{{256, 16, 8}, {256, 64, 4}, {4096, 16, 8}} {
		c, err := NewCentroids(L2, dim, randomFloats(seeded(3), shape.partitions*dim))
		require.NoError(b, err)
		p := benchPQ(b, shape.m, shape.bits)
		parts, codes := make([]int32, n), make([]byte, n*p.CodeBytes())
		bench(b, fmt.Sprintf("%d partitions, %dx%d bits", shape.partitions, shape.m, shape.bits), n, 4*dim, func() {
			c.Assign(rows, parts, nil)
			c.Residuals(residuals, rows, parts)
			p.Encode(residuals, codes)
		})
	}
}

// BenchmarkPQTable is what each probed partition costs before its first code; a table counts as a row.
func BenchmarkPQTable(b *testing.B) {
	q := randomFloats(seeded(5), 128)
	var table Table
	var fast FastTable
	wide, narrow := benchPQ(b, 16, 8), benchPQ(b, 64, 4)
	bench(b, "16x8 bits", 1, len(wide.codebook)*4, func() { wide.Table(L2, q, &table) })
	bench(b, "64x4 bits, fast", 1, len(narrow.codebook)*4, func() {
		narrow.Table(L2, q, &table)
		table.Fast(&fast)
	})
}

func BenchmarkPQScan(b *testing.B) {
	const n = 4096
	out, sums, q := make([]float32, n), make([]uint16, n), randomFloats(seeded(5), 128)
	var table Table
	var fast FastTable
	for _, m := range []int{8, 16, 32} {
		codes := randomBytes(6, n*m)
		benchPQ(b, m, 8).Table(L2, q, &table)
		bench(b, fmt.Sprintf("%dx8 bits, rows", m), n, m, func() { table.Scan(codes, out) })
		bench(b, fmt.Sprintf("%dx8 bits, columns", m), n, m, func() { table.ScanColumns(codes, out) })
	}
	for _, m := range []int{16, 32, 64} {
		blocks, top := randomBytes(6, n*m/2), NewTopK(10)
		benchPQ(b, m, 4).Table(L2, q, &table)
		table.Fast(&fast)
		bench(b, fmt.Sprintf("%dx4 bits, fast", m), n, m/2, func() { fast.Scan(blocks, sums) })
		bench(b, fmt.Sprintf("%dx4 bits, fast, best 10", m), n, m/2, func() {
			top.Reset(10)
			fast.Search(blocks, n, 0, top)
		})
	}
}

// BenchmarkTrain is the training of an index of 256 partitions on the default sample.
func BenchmarkTrain(b *testing.B) {
	const dim, n = 128, 65536
	rows, _ := clustered(seeded(7), n, dim, 1000, 0.5)
	bench(b, "256 centroids", n, 4*dim, func() {
		_, err := KMeans(b.Context(), rows, dim, KMeansOptions{Clusters: 256})
		require.NoError(b, err)
	})
	for _, shape := range []struct{ m, bits int }{{16, 8}, {64, 4}} {
		bench(b, fmt.Sprintf("%dx%d bits", shape.m, shape.bits), n, 4*dim, func() {
			_, err := TrainPQ(b.Context(), rows, dim, PQOptions{SubVectors: shape.m, Bits: shape.bits})
			require.NoError(b, err)
		})
	}
}
