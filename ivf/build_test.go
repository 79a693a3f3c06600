package ivf

import (
	"context"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

func TestRowsThatNoIndexTakesAreLeftOut(t *testing.T) {
	const dim, n = 8, 1000
	rows := clustered(20, n, dim, 5)
	rows[3*dim] = float32(math.NaN())
	rows[4*dim+7] = float32(math.Inf(1))
	clear(rows[5*dim : 6*dim])
	for m, want := range map[vector.Metric]int{vector.L2: n - 2, vector.Cosine: n - 3, vector.Dot: n - 2} {
		for _, kind := range []Kind{PQ, Flat} {
			model := train(t, rows, dim, TrainOptions{Kind: kind, Metric: m, Partitions: 5, SubVectors: 4})
			st := object.NewMem()
			build(t, st, "x", model, rows, BuildOptions{Workers: 2})
			x := open(t, st, "x", Options{})
			require.EqualValues(t, want, x.Rows())
			require.NoError(t, x.Verify(context.Background(), nil))
			got := contents(t, x)
			require.NotContains(t, got, uint64(3))
			require.NotContains(t, got, uint64(4))
		}
	}
}

func TestAllVectorsEqual(t *testing.T) {
	const dim, n = 8, 2000
	rows := make([]float32, n*dim)
	for i := range rows {
		rows[i] = float32(i%dim) + 1
	}
	for _, o := range []TrainOptions{{}, {Bits: 4}, {Metric: vector.Cosine}, {Metric: vector.Dot}, {Kind: Flat}} {
		o.Partitions = 16
		model := train(t, rows, dim, o)
		st := object.NewMem()
		build(t, st, "x", model, rows, BuildOptions{})
		x := open(t, st, "x", Options{})
		require.EqualValues(t, n, x.Rows())
		got, err := x.Search(context.Background(), rows[:dim], SearchOptions{NProbes: 16, Limit: n})
		require.NoError(t, err)
		require.Len(t, got, n)
		require.False(t, x.Drifted(), "training again would not help")
	}
}

func TestFewRowsGiveFewPartitions(t *testing.T) {
	const dim = 8
	rows := clustered(21, 3, dim, 5)
	for _, o := range []TrainOptions{{}, {Bits: 4}, {Metric: vector.Cosine}, {Metric: vector.Dot}, {Kind: Flat}} {
		o.Partitions = 256
		model := train(t, rows, dim, o)
		require.Equal(t, 3, model.Partitions())
		st := object.NewMem()
		build(t, st, "x", model, rows, BuildOptions{})
		x := open(t, st, "x", Options{})
		for i := range 3 {
			got, err := x.Search(context.Background(), rows[i*dim:(i+1)*dim], SearchOptions{NProbes: 3, Limit: 3})
			require.NoError(t, err)
			require.Len(t, got, 3)
		}
	}
	_, _, err := Train(context.Background(), nil, dim, TrainOptions{})
	require.ErrorIs(t, err, ErrNoRows)
	_, _, err = Train(context.Background(), make([]float32, dim), dim, TrainOptions{Metric: vector.Cosine})
	require.ErrorIs(t, err, ErrNoRows)
}

func TestAnIndexWithoutRows(t *testing.T) {
	const dim = 8
	model := train(t, clustered(22, 300, dim, 5), dim, TrainOptions{Partitions: 4})
	st := object.NewMem()
	build(t, st, "x", model, nil, BuildOptions{})
	x := open(t, st, "x", Options{})
	require.Zero(t, x.Rows())
	require.NoError(t, x.Verify(context.Background(), nil))
	got, err := x.Search(context.Background(), make([]float32, dim), SearchOptions{Limit: 3})
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestOptionsThatMakeNoIndexAreRefused(t *testing.T) {
	for want, o := range map[string]TrainOptions{
		"no index of kind": {Kind: "IVF_HNSW"}, "no index under metric hamming": {Metric: vector.Hamming}, "65537 partitions": {Partitions: maxPartitions + 1},
		"-1 partitions": {Partitions: -1}, "5 sub-vectors of 8 dimensions": {SubVectors: 5}, "with 7 bits": {Bits: 7}, "vectors of int8": {Element: arrow.PrimitiveTypes.Int8},
		"a sample of -1 rows": {SampleRate: -1},
	} {
		require.ErrorContains(t, o.Check(8), want)
		_, err := o.SampleRows(8)
		require.ErrorContains(t, err, want)
		_, _, err = Train(context.Background(), make([]float32, 800), 8, o)
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, TrainOptions{}.Check(0), "vectors of 0 dimensions")
	require.ErrorContains(t, TrainOptions{Bits: 4}.Check(3), "0 sub-vectors")
}

func TestSamplesAreBounded(t *testing.T) {
	for _, c := range []struct {
		o         TrainOptions
		dim, want int
	}{
		{TrainOptions{Partitions: 256}, 128, 65536}, {TrainOptions{Partitions: 4096}, 128, 131072}, {TrainOptions{Partitions: 4}, 16, 65536},
		{TrainOptions{Partitions: 4, Kind: Flat}, 16, 1024}, {TrainOptions{Partitions: 64, Bits: 4}, 64, 16384}, {TrainOptions{Partitions: 65536}, 1536, 10922},
	} {
		got, err := c.o.SampleRows(c.dim)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
		require.LessOrEqual(t, got*c.dim*4, sampleBytes)
	}
}

func TestEachRowIsSampledAsOftenAsTheOthers(t *testing.T) {
	const n, want, rounds = 40, 10, 2000
	var drawn [n]int
	for seed := range uint64(rounds) {
		s := NewSampler(1, want, seed, "")
		for at := 0; at < n; at += 8 {
			rows := make([]float32, 8)
			for i := range rows {
				rows[i] = float32(at + i)
			}
			s.Add(rows)
		}
		rows := s.Rows()
		require.Len(t, rows, want)
		for _, v := range rows {
			drawn[int(v)]++
		}
		s.Close()
	}
	for i, times := range drawn {
		require.InDelta(t, rounds*want/n, times, 120, "row %d", i) // six standard deviations
	}
}

func TestALargeSampleIsTheSameInAFile(t *testing.T) {
	const dim, n = 128, 20_000
	rows := clustered(24, n, dim, 5)
	want := sampleInMemory/(4*dim) + 1
	draw := func(dir string) []float32 {
		s := NewSampler(dim, want, 3, dir)
		defer s.Close()
		for at := 0; at < len(rows); at += 1000 * dim {
			s.Add(rows[at : at+1000*dim])
		}
		return slices.Clone(s.Rows())
	}
	inMemory := draw("")
	require.Len(t, inMemory, want*dim)
	dir := t.TempDir()
	require.Equal(t, inMemory, draw(dir))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	require.Equal(t, inMemory, draw(filepath.Join(dir, "none")), "without room for the file it lies in memory")
	s := NewSampler(dim, want, 3, dir)
	s.Close()
	s.Close()
	require.Empty(t, s.Rows())
}

func TestIndexesOfOneModelAreMerged(t *testing.T) {
	const dim, n = 8, 1500
	rows := clustered(23, 3*n, dim, 6)
	for _, o := range []TrainOptions{{}, {Bits: 4, Metric: vector.Cosine}, {Kind: Flat, Element: arrow.FixedWidthTypes.Float16}} {
		o.Partitions = 6
		model := train(t, rows, dim, o)
		st, ctx := object.NewMem(), context.Background()
		w := BuildOptions{WriterOptions: WriterOptions{Element: o.Element}}
		build(t, st, "whole", model, rows, w)
		build(t, st, "a", model, rows[:n*dim], w)
		build(t, st, "b", model, rows[n*dim:2*n*dim], w)
		whole, a, b := open(t, st, "whole", Options{}), open(t, st, "a", Options{}), open(t, st, "b", Options{})

		m, err := NewBuilder(ctx, st, "merged", a.Model(), w)
		require.NoError(t, err)
		defer m.Abort()
		// Every third row of a is gone, and those of b have moved behind a's.
		require.NoError(t, m.AddIndex(a, func(id uint64) (uint64, bool) { return id, id%3 != 0 }))
		require.NoError(t, m.AddIndex(b, func(id uint64) (uint64, bool) { return id + n, true }))
		ids := make([]uint64, n)
		for i := range ids {
			ids[i] = uint64(2*n + i)
		}
		require.NoError(t, m.Add(ctx, ids, rows[2*n*dim:]))
		files, err := m.Finish(ctx)
		require.NoError(t, err)
		merged := open(t, st, "merged", Options{Files: files})
		require.NoError(t, merged.Verify(ctx, nil))
		require.Equal(t, a.Trained(), merged.Trained(), "the model is as old as it was")
		want := contents(t, whole)
		for id := range uint64(n) {
			if id%3 == 0 {
				delete(want, id)
			}
		}
		require.True(t, maps.Equal(want, contents(t, merged)))
	}
}

func TestIndexesOfOtherModelsAreNotMerged(t *testing.T) {
	const dim = 8
	rows := clustered(24, 900, dim, 6)
	st, ctx := object.NewMem(), context.Background()
	build(t, st, "a", train(t, rows, dim, TrainOptions{Partitions: 6}), rows, BuildOptions{})
	for _, o := range []TrainOptions{{Partitions: 7}, {Partitions: 6, Bits: 4}, {Partitions: 6, Kind: Flat}, {Partitions: 6, Seed: 1}, {Partitions: 6, Metric: vector.Cosine}} {
		m, err := NewBuilder(ctx, st, "m", train(t, rows, dim, o), BuildOptions{})
		require.NoError(t, err)
		require.ErrorContains(t, m.AddIndex(open(t, st, "a", Options{}), nil), "different models")
		m.Abort()
	}
	list, err := st.List(ctx, "m")
	require.NoError(t, err)
	require.Empty(t, list, "what was aborted leaves nothing")
}

func TestDriftIsWhatTrainingAgainWouldMend(t *testing.T) {
	require.InDelta(t, 1, Imbalance([]int64{5, 5, 5}), 1e-9)
	require.InDelta(t, 3, Imbalance([]int64{15, 0, 0}), 1e-9)
	require.InDelta(t, 1, Imbalance(nil), 1e-9)
	require.InDelta(t, 1, Imbalance([]int64{0, 0}), 1e-9)
	for _, c := range []struct {
		sizes []int64
		t     *Trained
		want  bool
	}{
		{[]int64{100, 100, 100, 100}, &Trained{200, 1}, false},
		{[]int64{1000, 10, 10, 10}, &Trained{200, 1}, true},
		{[]int64{1000, 10, 10, 10}, &Trained{1000, 1}, false},  // hardly more rows
		{[]int64{1000, 10, 10, 10}, &Trained{200, 3.5}, false}, // it was so already
		{[]int64{100, 1, 1, 1}, nil, false},
		{[]int64{1000, 1, 1, 1, 1, 1, 1, 1}, nil, true},
		{[]int64{3, 0, 0, 0}, nil, false}, // fewer rows than partitions
		{nil, nil, false},
	} {
		require.Equal(t, c.want, Drifted(c.sizes, c.t), "%v %v", c.sizes, c.t)
	}
}
