package lsm

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWhatAMergeHoldsIsNotMemoryOfMemtables flushes while somebody holds the layers as a merge does: writers who wait for
// memory must not wait for its end.
func TestWhatAMergeHoldsIsNotMemoryOfMemtables(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, manual: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "m", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.Flush(ctx, table.Name()))
	putKeys(t, db, table, 2, 3, 4)
	stored, whole := table.holdStored(), table.holdSet()
	require.NoError(t, db.Flush(ctx, table.Name()))
	require.Positive(t, db.budget.stats().Used, "a snapshot keeps the memtable that it reads")
	whole.unref()
	require.Eventually(t, func() bool { return db.budget.stats().Used == 0 }, 30*time.Second, time.Millisecond) // the trimmer may look just now

	require.Len(t, stored.chains[0].generations(), 1, "as of when it was held")
	require.Equal(t, table.set.Load().base, stored.base)
	stored.unref()
	require.NoError(t, db.Optimize(ctx, table.Name()))
	require.Equal(t, map[int64][2]int64{1: {0, 1}, 2: {0, 1}, 3: {0, 2}, 4: {0, 2}}, readWrites(t, db, "m"))
}
