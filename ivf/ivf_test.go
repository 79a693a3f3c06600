package ivf

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// clustered returns n vectors around some centres, which are the same for all seeds.
func clustered(seed uint64, n, dim, centres int) []float32 {
	c := rand.New(rand.NewPCG(99, uint64(dim)))
	middles := make([]float32, centres*dim)
	for i := range middles {
		middles[i] = float32(c.NormFloat64())
	}
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]float32, n*dim)
	for i := range n {
		m := r.IntN(centres)
		for j := range dim {
			out[i*dim+j] = middles[m*dim+j] + 0.3*float32(r.NormFloat64())
		}
	}
	return out
}

// train makes a model for a test, of a copy of the rows.
func train(t testing.TB, rows []float32, dim int, o TrainOptions) *vector.IVF {
	t.Helper()
	model, _, err := Train(context.Background(), slices.Clone(rows), dim, o)
	require.NoError(t, err)
	return model
}

// build makes an index of rows, whose ids are their numbers, and lists its files.
func build(t testing.TB, st object.Store, dir string, model *vector.IVF, rows []float32, o BuildOptions) []File {
	t.Helper()
	ctx := context.Background()
	b, err := NewBuilder(ctx, st, dir, model, o)
	require.NoError(t, err)
	defer b.Abort()
	dim, batch := model.Dim(), 700
	for at := 0; at < len(rows)/dim; at += batch {
		end := min(at+batch, len(rows)/dim)
		ids := make([]uint64, end-at)
		for i := range ids {
			ids[i] = uint64(at + i)
		}
		require.NoError(t, b.Add(ctx, ids, rows[at*dim:end*dim]))
	}
	files, err := b.Finish(ctx)
	require.NoError(t, err)
	return files
}

// open opens an index for a test.
func open(t testing.TB, st object.Store, dir string, o Options) *Index {
	t.Helper()
	x, err := Open(context.Background(), st, dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()) })
	return x
}

// stored is what an index has of a row.
type stored struct {
	part  int
	codes string
}

// contents is what an index has of all rows.
func contents(t testing.TB, x *Index) map[uint64]stored {
	t.Helper()
	out := map[uint64]stored{}
	require.NoError(t, x.Scan(context.Background(), func(part int, ids []uint64, codes []byte) error {
		require.Len(t, codes, len(ids)*x.RowBytes())
		for i, id := range ids {
			if _, twice := out[id]; twice {
				require.Fail(t, "a row is there twice", "row %d", id)
			}
			out[id] = stored{part, string(codes[i*x.RowBytes() : (i+1)*x.RowBytes()])}
		}
		return nil
	}))
	return out
}

func TestAnIndexHoldsWhatTheModelSays(t *testing.T) {
	const dim, n = 24, 4000
	rows := clustered(3, n, dim, 9)
	for _, o := range []TrainOptions{
		{Partitions: 10}, {Partitions: 10, Bits: 4, Metric: vector.Cosine}, {Partitions: 1, Metric: vector.Dot, SubVectors: 3},
		{Kind: Flat, Partitions: 7}, {Kind: Flat, Partitions: 7, Metric: vector.Cosine, Element: arrow.FixedWidthTypes.Float16}, {Partitions: 3, Element: arrow.PrimitiveTypes.Float64},
	} {
		for _, version := range []lance.Version{lance.Version20, lance.Version22} {
			model := train(t, rows, dim, o)
			st := object.NewMem()
			files := build(t, st, "x", model, rows, BuildOptions{WriterOptions: WriterOptions{Element: o.Element, Version: version}, Workers: 3})
			x := open(t, st, "x", Options{Files: files})
			require.True(t, SameModel(model, x.Model()))
			require.EqualValues(t, n, x.Rows())
			require.NoError(t, x.Verify(context.Background(), nil))
			require.NotNil(t, x.Trained())
			require.EqualValues(t, n, x.Trained().Rows)

			parts := make([]int32, n)
			model.Assign(rows, parts)
			codes := make([]byte, n*x.RowBytes())
			if model.PQ() != nil {
				model.Encode(rows, parts, codes)
			} else {
				scaled := make([]float32, len(rows))
				model.Prepare(scaled, rows)
				codes = codes[:0]
				for _, v := range scaled {
					codes = x.elem.append(codes, v)
				}
			}
			got := contents(t, x)
			require.Len(t, got, n)
			for i, p := range parts {
				if want := (stored{int(p), string(codes[i*x.RowBytes() : (i+1)*x.RowBytes()])}); want != got[uint64(i)] {
					require.Equal(t, want, got[uint64(i)], "row %d", i)
				}
			}
		}
	}
}
