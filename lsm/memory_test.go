package lsm

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// TestTheMemoryOfRowsGoesBack writes rows that lsm encodes itself, has them replayed, and looks for what is left of them
// outside the Go heap.
func TestTheMemoryOfRowsGoesBack(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	before := offheap.Default.InUse()
	db := openTest(t, dir)
	table := createTest(t, db, "w", writesSchema)
	for i := range int64(20) {
		putKeys(t, db, table, i, i, 100+i)
		rec := writesBatch(table.Schema(), 1, i, []int64{1000 + i})
		_, err := table.Insert(ctx, rec)
		require.NoError(t, err)
		rec.Release()
	}
	require.NoError(t, db.Close())
	require.Equal(t, before, offheap.Default.InUse())
	db = openTest(t, dir)
	require.Len(t, readWrites(t, db, "w"), 60)
	require.NoError(t, db.Close())
	require.Equal(t, before, offheap.Default.InUse())
}
