package ivf

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// peer is a table of pylance's for a test.
type peer struct {
	t    testing.TB
	root string
	dim  int
	rows []float32
}

// answers are what pylance or DuckDB found.
type answers struct {
	Plan      string
	IDs       [][]uint64
	Distances [][]float32
}

func (p *peer) run(args ...string) []byte {
	p.t.Helper()
	return python.RunFile(p.t, filepath.Join("..", "testdata", "ivf", "pylance.py"), args...)
}

// writeFloats writes vectors for the script to a file of the test's.
func writeFloats(t testing.TB, rows []float32) string {
	b := make([]byte, 0, len(rows)*4)
	for _, x := range rows {
		b = elements[0].append(b, x)
	}
	name := filepath.Join(t.TempDir(), "vectors")
	require.NoError(t, os.WriteFile(name, b, 0o600))
	return name
}

func newPeer(t testing.TB, rows []float32, dim int, element, version string) *peer {
	python.Need(t)
	p := &peer{t: t, root: filepath.Join(t.TempDir(), "t.lance"), dim: dim, rows: rows}
	p.run("create", p.root, writeFloats(t, rows), strconv.Itoa(dim), element, version)
	return p
}

// index has pylance build an index and opens it.
func (p *peer) index(kind Kind, m vector.Metric, partitions, subVectors, bits int) *Index {
	p.t.Helper()
	var got struct{ Folder string }
	out := p.run("index", p.root, string(kind), m.String(), strconv.Itoa(partitions), strconv.Itoa(subVectors), strconv.Itoa(bits))
	require.NoError(p.t, json.Unmarshal(out, &got))
	x, err := Open(context.Background(), p.store(), got.Folder, Options{})
	require.NoError(p.t, err)
	p.t.Cleanup(func() { require.NoError(p.t, x.Close()) })
	return x
}

func (p *peer) store() object.Store { return object.NewLocal(filepath.Join(p.root, "_indices")) }

func (p *peer) search(queries []float32, k, nprobes, refine int, m vector.Metric) answers {
	p.t.Helper()
	var out answers
	got := p.run("search", p.root, writeFloats(p.t, queries), strconv.Itoa(p.dim), strconv.Itoa(k), strconv.Itoa(nprobes), strconv.Itoa(refine), m.String())
	require.NoError(p.t, json.Unmarshal(got, &out))
	return out
}

func TestWhatPylanceBuiltIsSearchedAsPylanceDoes(t *testing.T) {
	const dim, n, k, partitions = 16, 3000, 20, 7
	rows := clustered(1, n, dim, 20)
	queries := clustered(2, 10, dim, 20)
	for _, c := range []struct {
		element, version string
		kind             Kind
		metric           vector.Metric
		bits             int
	}{
		{"float", "2.0", PQ, vector.L2, 8}, {"float", "2.1", PQ, vector.L2, 8}, {"float", "2.2", PQ, vector.L2, 8},
		{"float", "2.2", PQ, vector.Cosine, 8}, {"float", "2.2", PQ, vector.Dot, 8},
		{"float", "2.0", PQ, vector.L2, 4}, {"float", "2.2", PQ, vector.Cosine, 4}, {"float", "2.2", PQ, vector.Dot, 4},
		{"float", "2.0", Flat, vector.L2, 0}, {"float", "2.1", Flat, vector.L2, 0}, {"float", "2.2", Flat, vector.Cosine, 0}, {"float", "2.2", Flat, vector.Dot, 0},
		{"halffloat", "2.2", PQ, vector.L2, 8}, {"halffloat", "2.2", Flat, vector.Cosine, 0}, {"double", "2.2", PQ, vector.L2, 8}, {"double", "2.0", Flat, vector.Dot, 0},
	} {
		t.Run(fmt.Sprintf("%s %s %s %s %d", c.element, c.version, c.kind, c.metric, c.bits), func(t *testing.T) {
			p := newPeer(t, rows, dim, c.element, c.version)
			x := p.index(c.kind, c.metric, partitions, 4, max(c.bits, 4))
			require.Equal(t, c.kind, x.Kind())
			require.Equal(t, c.metric, x.Model().Metric())
			require.EqualValues(t, n, x.Rows())
			want := p.search(queries, k, partitions, 0, c.metric)
			require.Contains(t, want.Plan, "ANN")
			bound := 1e-4
			if c.bits == 4 || c.element == "halffloat" {
				// Lance rounds distances under 4 bits to steps, as we do, but to others; and computes in float16.
				bound = 5e-2
			}
			for i := range want.IDs {
				got, err := x.Search(context.Background(), queries[i*dim:(i+1)*dim], SearchOptions{NProbes: partitions, Limit: k})
				require.NoError(t, err)
				require.Len(t, got, k)
				scale := math.Abs(float64(want.Distances[i][k-1])) + 1
				both := 0
				for j, nb := range got {
					lance := want.Distances[i][j]
					if c.metric == vector.Cosine && c.kind == PQ {
						// Without refinement Lance shows the L2 distance of scaled vectors, which is twice that of cosine.
						lance /= 2
					}
					require.InDelta(t, lance, nb.Distance, bound*scale, "query %d, neighbour %d", i, j)
					if contains(want.IDs[i], nb.ID) {
						both++
					}
				}
				require.GreaterOrEqual(t, both, k*7/10, "query %d", i)
			}
		})
	}
}

func contains(ids []uint64, id uint64) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}
