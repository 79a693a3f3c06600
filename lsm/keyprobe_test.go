package lsm

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm/keyfilter"
	"github.com/flightd/flightd/object"
)

// TestBetween cuts runs by bounds, against a search of each key.
func TestBetween(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var ints []int64
		var wide [][]byte
		for range random.IntN(20) {
			k := random.IntN(30)
			ints, wide = append(ints, int64(k)), append(wide, fmt.Appendf(nil, "%02d", k))
		}
		low := random.IntN(30)
		high := low + random.IntN(30-low)
		run := newKeyRun(&keyCodec{}, ints, nil)
		first, end := run.between(&keyRun{codec: run.codec, ints: []int64{int64(low), int64(high)}})
		want := slices.DeleteFunc(slices.Clone(run.ints), func(k int64) bool { return k < int64(low) || k > int64(high) })
		require.Equal(t, append([]int64{}, want...), append([]int64{}, run.ints[first:end]...))

		run = newKeyRun(&keyCodec{wide: true}, nil, wide)
		first, end = run.between(&keyRun{codec: run.codec, wide: [][]byte{fmt.Appendf(nil, "%02d", low), fmt.Appendf(nil, "%02d", high)}})
		require.Len(t, run.wide[first:end], len(want))
		for i, k := range want {
			require.True(t, bytes.Equal(fmt.Appendf(nil, "%02d", k), run.wide[first+i]))
		}
	}
}

// TestGenerationsWithAndWithoutFilters finds the same rows by key, in generations with filters, in those of before there
// were any, and in a mixture; more keys than are probed at a time are among them.
func TestGenerationsWithAndWithoutFilters(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	model := map[int64]int64{}
	const each = probeKeys + 1000
	for g := range int64(4) {
		keys := make([]int64, 0, each)
		for i := range int64(each) {
			k := i*7 + g*3
			keys = append(keys, k)
			model[k] = g
		}
		putKeys(t, db, table, g, keys...)
		require.NoError(t, db.Flush(ctx, table.Name()))
	}
	gens := table.set.Load().chains[0].generations()
	require.Len(t, gens, 4)
	for _, l := range gens {
		g := l.layer.(*generation)
		require.Equal(t, int64(each), g.filter.Keys())
		require.LessOrEqual(t, g.filter.BitsPerKey(), 10.01)
	}
	check := func() {
		t.Helper()
		got := readWrites(t, db, "p")
		require.Len(t, got, len(model))
		for k, g := range model {
			if got[k][1] != g { // require would take most of the test's time
				t.Fatalf("key %d is of generation %d, not %d", k, got[k][1], g)
			}
		}
	}
	check()
	for round := range 2 { // some without, then none with
		require.NoError(t, db.Close())
		files, err := filepath.Glob(filepath.Join(dir, "p.lance", "_mem_wal", "*", "*", keyFilterFile))
		require.NoError(t, err)
		require.Len(t, files, 4-2*round)
		for _, f := range files[:2] {
			require.NoError(t, os.Remove(f))
		}
		_, list := faults(t, dir)
		require.Empty(t, list)
		db = openRetain(t, dir)
		table, err = db.Table(table.Name())
		require.NoError(t, err)
		check()
	}
	require.NoError(t, db.Optimize(ctx, table.Name()))
	check()
	require.NoError(t, db.Close())
}

// TestCheckFindsAKeyThatItsFilterLacks exchanges a filter for a sound one of other keys.
func TestCheckFindsAKeyThatItsFilterLacks(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3, 4, 5)
	require.NoError(t, db.Flush(ctx, table.Name()))
	g := table.set.Load().chains[0].generations()[0].layer.(*generation)
	name := path.Join(g.dir, keyFilterFile)
	for _, keys := range [][]int64{{1, 2, 3, 70, 80}, {1, 2, 3, 4, 5, 6}} {
		if db != nil {
			require.NoError(t, db.Close())
			db = nil
		}
		require.NoError(t, os.Remove(filepath.Join(dir, name)))
		f := keyfilter.New(len(keys))
		for _, k := range keys {
			f.Add(keyfilter.Int(k))
		}
		st := object.NewLocal(dir)
		require.NoError(t, f.Write(ctx, st, name))
		_, list := faults(t, dir)
		require.Len(t, list, 1)
		require.Equal(t, name, list[0].File)
	}
	_, list := faults(t, dir)
	require.ErrorContains(t, list[0].Err, "it has 6 keys, the generation 5")
}

// BenchmarkPointsOverGenerations reads one row by its key out of ten generations whose keys lie between each other's.
func BenchmarkPointsOverGenerations(b *testing.B) {
	const n, gens = 20_000, 10
	for _, filtered := range []bool{true, false} {
		b.Run(fmt.Sprintf("filter=%t", filtered), func(b *testing.B) {
			ctx := context.Background()
			db, table := benchDB(b)
			for _, x := range benchBatches(b, gens, n, true) {
				if _, err := table.Put(ctx, x); err != nil {
					b.Fatal(err)
				}
				if err := db.Flush(ctx, table.Name()); err != nil {
					b.Fatal(err)
				}
			}
			for _, l := range table.set.Load().chains[0].generations() {
				if g := l.layer.(*generation); !filtered {
					g.filter = nil
				}
			}
			r := rand.New(rand.NewPCG(1, 2)) // the keys of benchBatches, in its order
			ids := make([]int64, n*gens)
			for i := range ids {
				ids[i] = r.Int64N(1 << 20)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if got := benchKeys(b, db, table, ids[i*7919%len(ids)], 1); got != 1 {
					b.Fatalf("%d rows, expected 1", got)
				}
			}
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkReplacedOverGenerations finds which rows of ten generations a flush of new keys replaces: none.
func BenchmarkReplacedOverGenerations(b *testing.B) {
	const n, gens = 100_000, 10
	for _, filtered := range []bool{true, false} {
		b.Run(fmt.Sprintf("filter=%t", filtered), func(b *testing.B) {
			ctx := context.Background()
			db, table := benchDB(b)
			for _, x := range benchBatches(b, gens, n, true) {
				if _, err := table.Put(ctx, x); err != nil {
					b.Fatal(err)
				}
				if err := db.Flush(ctx, table.Name()); err != nil {
					b.Fatal(err)
				}
			}
			ints := make([]int64, n)
			r := rand.New(rand.NewPCG(3, 4))
			for i := range ints {
				ints[i] = r.Int64N(1 << 20)
			}
			run := newKeyRun(table.now().codec, ints, nil)
			b.ResetTimer()
			for range b.N {
				for _, l := range table.set.Load().chains[0].generations() {
					g := l.layer.(*generation)
					if !filtered {
						g.filter = nil
					}
					if err := g.resolve(ctx, run, func(uint64, uint32) {}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(run.Len())/gens, "ns/key")
			b.StopTimer()
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
