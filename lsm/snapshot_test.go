package lsm

import (
	"context"
	"maps"
	"slices"
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
		lsn, err := table.Put(ctx, Batch{Record: rec})
		rec.Release()
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn)) // its index counts, too
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

func TestThePartsOfAScanHaveEachRowOnce(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	write := func(seq int64, keys ...int64) {
		rec := writesBatch(table.Schema(), 1, seq, keys)
		defer rec.Release()
		_, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
	}
	span := func(first, n int64) (keys []int64) {
		for i := range n {
			keys = append(keys, first+i)
		}
		return keys
	}
	write(1, span(0, 3*morselRows)...) // the base, in several units
	require.NoError(t, db.Optimize(ctx, table.Name()))
	write(2, span(10, 1000)...) // a generation
	require.NoError(t, db.Flush(ctx, table.Name()))
	for i := range int64(20) { // a memtable of many batches
		write(3, span(i*50, 100)...)
	}
	snap, err := db.Snapshot(ctx)
	require.NoError(t, err)
	defer snap.Release()
	write(4, span(0, 10)...) // too late for the snapshot
	want := readWritesAt(t, snap, "t")
	for _, parts := range []int{1, 2, 3, 7, 100} {
		got := map[int64][2]int64{}
		for part := range parts {
			for key, row := range readPart(t, snap, "t", ScanOptions{Columns: []int{0, 1, 2}, Part: part, Parts: parts}) {
				if _, twice := got[key]; twice {
					t.Fatalf("key %d is in two of %d parts", key, parts)
				}
				got[key] = row
			}
		}
		require.True(t, maps.Equal(want, got), "%d parts", parts)
	}
	view, err := snap.Table(table.Name())
	require.NoError(t, err)
	_, err = view.Scan(ctx, ScanOptions{Part: 2, Parts: 2})
	require.ErrorIs(t, err, ErrInvalid)
}

// TestPartsFitTogetherWhateverTheIndexesKnow reads the parts of a range of keys of a memtable while what finds its rows
// changes from the first to the others: all rows are looked at, and then, as it was not the first time, put in order.
func TestPartsFitTogetherWhateverTheIndexesKnow(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, Memory: minMemory, SegmentBytes: 1 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	for i := range int64(2 * orderStep / 10) { // batches of ten rows; each key comes back again and again
		var keys []int64
		for k := range int64(10) {
			keys = append(keys, (i*7+k*k*31)%500)
		}
		slices.Sort(keys)
		putKeys(t, db, table, i, slices.Compact(keys)...)
	}
	snap, err := db.Snapshot(ctx)
	require.NoError(t, err)
	defer snap.Release()
	view, err := snap.Table(table.Name())
	require.NoError(t, err)
	set := view.NewKeySet()
	require.NoError(t, set.AddRange(nil, KeyBound{Value: int64s(100)}, KeyBound{Value: int64s(139)}))
	const parts = 4
	got := map[int64][2]int64{}
	for part := range parts {
		for key, row := range readPart(t, snap, "t", ScanOptions{Columns: []int{0, 1, 2}, Keys: set, Part: part, Parts: parts}) {
			require.NotContains(t, got, key)
			got[key] = row
		}
	}
	want := readWritesAt(t, snap, "t")
	maps.DeleteFunc(want, func(key int64, _ [2]int64) bool { return key < 100 || key > 139 })
	require.Equal(t, want, got)
}

func TestWritersAreHeldUpByWhatOldSnapshotsKeep(t *testing.T) {
	b := newBudget(1000, func() {}, &stallCounter{})
	m := newMemtable(nil, b)
	require.True(t, b.take(900))
	m.bytes.Store(900)
	m.retain() // a snapshot
	waited := make(chan error)
	go func() { waited <- b.wait(context.Background(), 200) }()
	require.Eventually(t, b.short, time.Minute, time.Millisecond)
	require.False(t, b.heldUp(), "the memtable waits for its flush, which will free it")
	m.retire()
	m.unref()
	require.True(t, b.heldUp())
	m.unref()
	require.NoError(t, <-waited)
	require.False(t, b.heldUp())
	require.Zero(t, b.kept.Load())
}
