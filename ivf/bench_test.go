package ivf

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// dataset is rows and queries to measure recall with.
type dataset struct {
	metric        vector.Metric
	dim           int
	rows, queries []float32
}

// generated is a seeded set of 128 dimensions: clusters of which each lies along 16 directions of its own, and a little noise, which is how vectors
// of real things lie.
func generated(n int) dataset {
	const dim, centres, latent = 128, 400, 16
	c := rand.New(rand.NewPCG(40, 0))
	middles, directions := make([]float32, centres*dim), make([]float32, centres*latent*dim)
	for i := range middles {
		middles[i] = float32(c.NormFloat64())
	}
	for i := range directions {
		directions[i] = float32(c.NormFloat64()) / 4
	}
	draw := func(seed uint64, n int) []float32 {
		r, out := rand.New(rand.NewPCG(seed, 1)), make([]float32, n*dim)
		for i := range n {
			m, row := r.IntN(centres), out[i*dim:(i+1)*dim]
			for j := range row {
				row[j] = middles[m*dim+j] + 0.05*float32(r.NormFloat64())
			}
			for l := range latent {
				along, z := directions[(m*latent+l)*dim:], float32(r.NormFloat64())
				for j := range row {
					row[j] += z * along[j]
				}
			}
		}
		return out
	}
	return dataset{metric: vector.L2, dim: dim, rows: draw(41, n), queries: draw(42, 200)}
}

// shared reads a set of ../shared/data/vec, up to queries of its queries.
func shared(t testing.TB, name string, m vector.Metric, dim, queries int) dataset {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", "..", "shared", "data", "vec", name))
	require.NoError(t, err)
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("%s is not here, its recall is not measured", folder)
	}
	d := dataset{metric: m, dim: dim}
	for _, part := range []struct {
		file string
		to   *[]float32
	}{{"train", &d.rows}, {"queries", &d.queries}} {
		out := filepath.Join(t.TempDir(), part.file)
		python.Run(t, `
import sys, numpy as np, pyarrow.parquet as pq
column = pq.read_table(sys.argv[1])["v"].combine_chunks()
column.flatten().to_numpy().astype(np.float32).tofile(sys.argv[2])`, filepath.Join(folder, part.file+".parquet"), out)
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		for at := 0; at < len(b); at += 4 {
			*part.to = append(*part.to, math.Float32frombits(binary.LittleEndian.Uint32(b[at:])))
		}
	}
	d.queries = d.queries[:min(len(d.queries), queries*dim)]
	return d
}

// query is row i of the queries.
func (d dataset) query(i int) []float32 { return d.queries[i*d.dim : (i+1)*d.dim] }

// truth is the distance of the k-th nearest row of each query.
func (d dataset) truth(k int) []float32 {
	out, dist := make([]float32, len(d.queries)/d.dim), make([]float32, len(d.rows)/d.dim)
	for i := range out {
		vector.Distances(d.metric, d.query(i), d.rows, dist)
		top := vector.NewTopK(k)
		top.PushRange(0, dist)
		out[i] = top.Limit()
	}
	return out
}

// refined searches and computes the distances of what was found from the rows, as the engine does.
type refined struct {
	d    dataset
	x    *Index
	at   []uint32
	dist []float32
	hits []vector.Neighbor
	top  *vector.TopK
}

func (r *refined) search(t testing.TB, i, k, nprobes, refine int) []vector.Neighbor {
	limit := Candidates(k, refine)
	if refine == 0 {
		limit = k
	}
	s, err := r.x.Start(r.d.query(i), SearchOptions{Limit: limit})
	require.NoError(t, err)
	_, err = s.Probe(context.Background(), nprobes)
	require.NoError(t, err)
	r.hits = s.Neighbors(r.hits[:0])
	s.Close()
	if refine == 0 {
		return r.hits
	}
	r.at = r.at[:0]
	for _, h := range r.hits {
		r.at = append(r.at, uint32(h.ID))
	}
	r.dist = slices.Grow(r.dist[:0], len(r.at))[:len(r.at)]
	vector.DistancesAt(r.d.metric, r.d.query(i), r.d.rows, r.at, r.dist)
	if r.top == nil {
		r.top = vector.NewTopK(k)
	}
	r.top.Reset(k)
	for j, h := range r.hits {
		r.top.Push(h.ID, r.dist[j])
	}
	r.hits = r.top.AppendSorted(r.hits[:0])
	return r.hits
}

// recall is the share of the k nearest rows that are found, judged by distance: a set may have a row more than once.
func (r *refined) recall(t testing.TB, truth []float32, k, nprobes, refine int) float64 {
	found := 0
	for i, limit := range truth {
		for _, h := range r.search(t, i, k, nprobes, refine) {
			row := r.d.rows[int(h.ID)*r.d.dim : (int(h.ID)+1)*r.d.dim]
			if vector.Distance(r.d.metric, r.d.query(i), row) <= limit*(1+1e-6) {
				found++
			}
		}
	}
	return float64(found) / float64(k*len(truth))
}

// indexed builds an index of a set in a folder of the test's.
func indexed(t testing.TB, d dataset, o TrainOptions) *refined {
	o.Metric, o.Workers = d.metric, runtime.GOMAXPROCS(0)
	want, err := o.SampleRows(d.dim)
	require.NoError(t, err)
	s := NewSampler(d.dim, want, 1, t.TempDir())
	defer s.Close()
	s.Add(d.rows)
	model, _, err := Train(context.Background(), s.Rows(), d.dim, o)
	require.NoError(t, err)
	st := object.NewLocal(t.TempDir())
	build(t, st, "x", model, d.rows, BuildOptions{Workers: o.Workers})
	return &refined{d: d, x: open(t, st, "x", Options{})}
}

func TestRecall(t *testing.T) {
	for _, c := range []struct {
		name            string
		metric          vector.Metric
		dim, queries    int
		o               TrainOptions
		nprobes, refine int
		bar             float64
	}{
		{"lsa128", vector.Cosine, 128, 351, TrainOptions{Partitions: 64, SubVectors: 16}, 16, 4, .96},
		{"mnist784", vector.L2, 784, 100, TrainOptions{Partitions: 128, SubVectors: 98}, 8, 4, .985},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := indexed(t, shared(t, c.name, c.metric, c.dim, c.queries), c.o)
			got := r.recall(t, r.d.truth(10), 10, c.nprobes, c.refine)
			t.Logf("recall@10 %.4f at %d/%d", got, c.nprobes, c.refine)
			require.GreaterOrEqual(t, got, c.bar)
		})
	}
}

// cpu is the time that the process has computed for.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSearch reports CPU time for each query, refinement included, and recall on a generated set of 200,000 rows.
func BenchmarkSearch(b *testing.B) {
	d := generated(200_000)
	truth := d.truth(10)
	for _, c := range []struct {
		name string
		o    TrainOptions
	}{{"16x8", TrainOptions{Partitions: 256, SubVectors: 16}}, {"64x4", TrainOptions{Partitions: 256, SubVectors: 64, Bits: 4}}, {"flat", TrainOptions{Partitions: 256, Kind: Flat}}} {
		begin := cpu()
		r := indexed(b, d, c.o)
		b.Logf("%s: built in %v of CPU time, imbalance %.2f", c.name, cpu()-begin, Imbalance(r.x.Sizes()))
		for _, p := range []struct {
			name            string
			nprobes, refine int
		}{{"8,4", 8, 4}, {"16,4", 16, 4}, {"32,10", 32, 10}} {
			b.Run(c.name+"/"+p.name, func(b *testing.B) {
				got := r.recall(b, truth, 10, p.nprobes, p.refine)
				b.ReportAllocs()
				begin, i := cpu(), 0
				for b.Loop() {
					r.search(b, i%len(truth), 10, p.nprobes, p.refine)
					i++
				}
				b.ReportMetric(float64((cpu()-begin).Microseconds())/float64(i), "cpu-µs/query")
				b.ReportMetric(got, "recall@10")
			})
		}
	}
}
