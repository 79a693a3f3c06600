package lsm

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASnapshotHoldsOnlyTheMemoryOfTheTablesItKeeps(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	for _, name := range []string{"read", "other"} {
		table := createTest(t, db, name, writesSchema)
		rec := writesBatch(table.Schema(), 1, 1, []int64{1, 2, 3})
		_, err := table.Put(ctx, Batch{Record: rec})
		rec.Release()
		require.NoError(t, err)
	}
	before := db.Metrics().MemtableBytes
	snap, err := db.Snapshot(ctx)
	require.NoError(t, err)
	defer snap.Release()
	snap.Keep(TableName{Name: "READ"}, TableName{Name: "unknown"})

	require.NoError(t, db.Optimize(ctx, TableName{Name: "other"}))
	held := func() int64 { return db.Metrics().MemtableBytes }
	require.Eventually(t, func() bool { return held() < before }, time.Minute, time.Millisecond)
	withBoth := held()
	require.NoError(t, db.Optimize(ctx, TableName{Name: "read"}))
	require.Equal(t, withBoth, held(), "the table that is kept holds its memtable")

	require.Len(t, readWritesAt(t, snap, "read"), 3)
	_, err = snap.Table(TableName{Name: "other"})
	require.ErrorIs(t, err, ErrTableNotFound)
	snap.Release()
	snap.Release()
	require.Less(t, held(), withBoth)
}
