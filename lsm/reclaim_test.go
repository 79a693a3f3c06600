package lsm

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestChurnStaysBounded upserts and deletes few keys of many, over and over: what lies in the base stays within a
// multiple of what lives, rows are found by key and by scan, and the folder is sound.
func TestChurnStaysBounded(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for name, schema := range map[string]string{"one key column": writesSchema, "two": "key int64 key, writer int64 key, seq int64"} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			random := rand.New(rand.NewPCG(seed, 2))
			dir := t.TempDir()
			db := openRetain(t, dir)
			db.minReclaim = 1
			table := createTest(t, db, "p", schema)
			cold := make([]int64, 300)
			for i := range cold {
				cold[i] = int64(i)
			}
			putKeys(t, db, table, 0, cold...)
			model := map[int64]int64{}
			for _, k := range cold {
				model[k] = 0
			}
			for round := int64(1); round < 40; round++ {
				keys := map[int64]bool{}
				for range 100 {
					keys[int64(random.IntN(200))] = true
				}
				var list []int64
				for k := range keys {
					list = append(list, k)
					model[k] = round
				}
				putKeys(t, db, table, round, list...)
				require.NoError(t, db.Optimize(ctx, table.Name()))
				rows := int64(0)
				for _, f := range table.set.Load().base.frags {
					rows += f.rows
				}
				require.LessOrEqual(t, rows, int64(5*len(model)/2+1+200), "round %d", round)
				require.Len(t, readWrites(t, db, "p"), len(model))
			}
			require.NoError(t, db.Close())
			db = openRetain(t, dir)
			got := readWrites(t, db, "p")
			for k, seq := range model {
				require.Equal(t, [2]int64{0, seq}, got[k], "key %d", k)
			}
			require.NoError(t, db.Close())
			_, faults := faults(t, dir)
			require.Empty(t, faults)
		})
	}
}

// TestReclaimWithoutGenerations gives back what statements deleted in a table without a key.
func TestReclaimWithoutGenerations(t *testing.T) {
	ctx := context.Background()
	db := openRetain(t, t.TempDir())
	db.minReclaim = 1
	table := createTest(t, db, "p", "key int64, writer int64, seq int64")
	putKeys(t, db, table, 1, 1, 2, 3, 4, 5)
	require.NoError(t, table.Rewrite(ctx, func(_ context.Context, _ *Snapshot, rw *Rewrite) error {
		rw.Delete([]uint64{0, 1, 3})
		return nil
	}))
	require.Equal(t, int64(5), table.set.Load().base.frags[0].rows)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	require.Equal(t, int64(2), table.set.Load().base.frags[0].rows)
	require.Equal(t, 2, countRows(t, db, "p"))
	require.NoError(t, db.Close())
}
