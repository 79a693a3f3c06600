package lsm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// pairwise is the slow twin of superseded: it looks for the keys of each generation in each layer below it.
func pairwise(t *testing.T, codec *keyCodec, older []layer, masks []*rowMask, gens []*generation) []*rowMask {
	ctx := context.Background()
	layers, out := slices.Clone(older), slices.Clone(masks)
	for _, g := range gens {
		err := g.keys.Scan(ctx, func(values arrow.Array, _ []uint64) error {
			keys, buffer := codec.normaliseArray(values, nil), keyBuffer{codec: codec}
			for i := range values.Len() {
				buffer.add(keys, i)
			}
			for i, l := range layers {
				b := maskBuilder{base: out[i]}
				require.NoError(t, l.resolve(ctx, buffer.run(), b.add))
				out[i] = b.finish(out[i].upTo)
			}
			return nil
		})
		require.NoError(t, err)
		layers, out = append(layers, g), append(out, &rowMask{})
	}
	return out
}

// TestSupersede compares one merge of all generations with the search of each in each, over keys that repeat, that
// lie in ranges of their own, and that are in the base.
func TestSupersede(t *testing.T) {
	types := map[string]func(k int) string{
		"k int64 key, v int64":             func(k int) string { return fmt.Sprintf("%d", k) },
		"k uint64 key, v int64":            func(k int) string { return fmt.Sprintf("%d", uint64(k)<<54) },
		"k utf8 key, v int64":              func(k int) string { return fmt.Sprintf("key%d", k*k) },
		"a utf8 key, b int32 key, v int64": func(k int) string { return fmt.Sprintf("%c %d", 'a'+k%7, k) },
		"k binary key, v int64":            func(k int) string { return fmt.Sprintf("%03x", k) },
	}
	for schema, key := range types {
		t.Run(strings.ReplaceAll(schema, " ", "_"), func(t *testing.T) {
			ctx := context.Background()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, StageBytes: 1})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			table := createTest(t, db, "s", schema)
			batch := func(from, to, n int) Batch {
				var lines []string
				for range n {
					lines = append(lines, key(from+random.IntN(to-from))+" 1")
				}
				rec, err := rows.Parse(table.Schema(), strings.Join(lines, "\n"))
				require.NoError(t, err)
				t.Cleanup(rec.Release)
				return Batch{Record: rec}
			}
			for range 2 { // a base of two key segments
				lsn, err := table.Put(ctx, batch(0, 600, 200))
				require.NoError(t, err)
				require.NoError(t, db.Wait(ctx, lsn))
				require.NoError(t, db.Optimize(ctx, table.Name()))
			}
			stage := table.Stage()
			defer stage.Abort()
			for i := range 9 {
				from, to := 0, 600
				if i%2 == 1 {
					from, to = i*60, i*60+60
				}
				require.NoError(t, stage.Put(ctx, batch(from, to, 1+random.IntN(300))))
			}
			var gens []*generation
			for _, m := range stage.spilled {
				g, err := openGeneration(ctx, db.st, m.shard, m.Generation)
				require.NoError(t, err)
				defer g.unref()
				gens = append(gens, g)
			}
			older := []layer{table.set.Load().base, gens[0], gens[1]}
			masks := pairwise(t, table.now().codec, older[:1], []*rowMask{{}}, gens[:2])
			want := pairwise(t, table.now().codec, older, masks, gens[2:])
			got, err := superseded(ctx, table.now().codec, older, masks, gens[2:], 7)
			require.NoError(t, err)
			require.Len(t, got, len(want))
			for i := range want {
				require.Equal(t, want[i].count(), got[i].count(), "layer %d", i)
				for f, dead := range want[i].dead {
					require.True(t, dead.Equals(got[i].fragment(f)), "layer %d, fragment %d", i, f)
				}
			}
			few := make([]maskBuilder, len(want))
			err = supersede(ctx, table.now().codec, older, gens[2:], 1, func(layer int, fragment uint64, row uint32) { few[layer].add(fragment, row) })
			require.NoError(t, err)
			for i := len(older); i < len(few); i++ {
				require.Equal(t, want[i].count(), few[i].finish(0).count(), "layer %d, one key at a time", i)
			}
		})
	}
}

// TestMasksAreExtendedBesideEachOther has a query and a flush extend one mask: both copy its rows, and share them.
func TestMasksAreExtendedBesideEachOther(t *testing.T) {
	var first maskBuilder
	for row := range uint32(5) {
		first.add(7, row<<16)
	}
	old := first.finish(1)
	var wg sync.WaitGroup
	for i := range uint32(4) {
		wg.Go(func() {
			for j := range uint32(10) {
				b := maskBuilder{base: old}
				b.add(7, 100+10*i+j)
				next := b.finish(2)
				require.Equal(t, int64(6), next.count())
				require.True(t, next.fragment(7).Contains(100+10*i+j))
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(5), old.count())
}
