package lsm

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// pretend makes a DB believe that its disk has so many bytes free.
func pretend(db *DB, free int64) {
	db.space.mu.Lock()
	defer db.space.mu.Unlock()
	db.space.stat = func(string) (int64, int64, error) { return free, 64 << 20, nil }
	db.space.at = db.space.at.AddDate(-1, 0, 0)
	db.space.credit.Store(0)
}

// tryPut writes one row.
func tryPut(table *Table, key int64) error {
	rec := writesBatch(table.Schema(), 0, 1, []int64{key})
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	if err != nil {
		return err
	}
	return table.db.Wait(context.Background(), lsn)
}

// TestFullDisk refuses what takes room, lets pass what leads to room, and goes on when there is some again.
func TestFullDisk(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "p", writesSchema)
	createTest(t, db, "other", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	pretend(db, 1000)

	err := tryPut(table, 4)
	require.ErrorIs(t, err, ErrDiskFull)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "1000 bytes free")
	require.ErrorContains(t, err, "OPTIMIZE and VACUUM")
	rec := writesBatch(table.Schema(), 0, 1, []int64{4})
	defer rec.Release()
	_, err = table.Insert(ctx, rec)
	require.ErrorIs(t, err, ErrDiskFull)
	_, err = table.Put(ctx, Batch{Record: rec, Keep: []int{1}})
	require.ErrorIs(t, err, ErrDiskFull)
	stage := table.Stage()
	require.ErrorIs(t, stage.Put(ctx, Batch{Record: rec}), ErrDiskFull)
	stage.Abort()
	schema, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	require.ErrorIs(t, db.CreateTable(ctx, TableDef{Name: TableName{Name: "q"}, Schema: schema}), ErrDiskFull)
	_, err = db.StageTable(ctx, TableDef{Name: TableName{Name: "q"}, Schema: schema}, false)
	require.ErrorIs(t, err, ErrDiskFull)
	require.Equal(t, 3, countRows(t, db, "p"))

	// Deletes, in a stage or without, merges, collection and DROP go on.
	err = table.Modify(ctx, func(ctx context.Context, _ *Snapshot, stage *Stage) error {
		key := array.NewRecordBatch(arrow.NewSchema(table.Schema().Fields()[:1], nil), rec.Columns()[:1], 1)
		defer key.Release()
		return stage.Delete(ctx, key)
	})
	require.NoError(t, err)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	_, err = db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	require.NoError(t, db.DropTable(ctx, TableName{Name: "other"}))
	m := db.Metrics()
	require.GreaterOrEqual(t, m.DiskRefused, int64(5))
	require.Equal(t, int64(1000), m.DiskFree)

	pretend(db, 1<<40)
	require.NoError(t, tryPut(table, 4))
	require.Equal(t, 4, countRows(t, db, "p"))
	require.NoError(t, db.Close())
}

// TestFullDiskMakesRoomFirst has a writer find no room because so much waits to be merged: that is done, and the writer
// goes on without a word.
func TestFullDiskMakesRoomFirst(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	debt := int64(db.space.reserve)
	var large atomic.Pointer[Table]
	db.space.debt = func() int64 { // as if its generation were large; nobody reads this before there is a table
		if t := large.Load(); t != nil && len(t.set.Load().chains[0].generations()) > 0 {
			return debt
		}
		return 0
	}
	table := createTest(t, db, "p", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.Flush(ctx, table.Name()))
	large.Store(table)
	pretend(db, 2*db.space.reserve+debt/2)
	require.NoError(t, tryPut(table, 4))
	require.Equal(t, int64(1), db.Metrics().Compactions)
	require.Zero(t, db.Metrics().DiskRefused)
	require.NoError(t, db.Close())
}

// TestReserve is there while the disk fills up, and goes when what gives room back needs it.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir)
	name := filepath.Join(dir, reserveFile)
	reserve := db.space.reserve
	pretend(db, 100*reserve)
	require.NoError(t, db.space.restore())
	require.NoFileExists(t, name, "an empty disk needs none")
	db.space.mu.Lock()
	db.space.reserve = 3 << 20
	db.space.mu.Unlock()
	pretend(db, 10*db.space.reserve)
	require.NoError(t, db.space.restore())
	require.Equal(t, int64(3<<20), fileBytes(name))
	pretend(db, 10)
	table := createUnchecked(t, db)
	require.NoError(t, db.Optimize(context.Background(), table.Name()))
	require.NoFileExists(t, name)
	require.NoError(t, db.space.restore())
	require.NoFileExists(t, name, "there is no room for it")
	require.NoError(t, db.Close())
}

// createUnchecked makes a table on a disk that is full.
func createUnchecked(t *testing.T, db *DB) *Table {
	t.Helper()
	db.space.mu.Lock()
	full := db.space.stat
	db.space.mu.Unlock()
	pretend(db, 1<<40)
	table := createTest(t, db, "p", writesSchema)
	db.space.mu.Lock()
	db.space.stat = full
	db.space.mu.Unlock()
	return table
}

// TestStoreOutOfRoom has the store itself fail for want of room, at any call of a flush or a merge: nothing is lost,
// nothing is left behind, and the next attempt goes through.
func TestStoreOutOfRoom(t *testing.T) {
	ctx := context.Background()
	for n := range 8 {
		dir := t.TempDir()
		db := openRetain(t, dir)
		f := withFaults(db)
		table := createTest(t, db, "p", writesSchema)
		upsertRounds(t, db, table, 1)
		putKeys(t, db, table, 9, 1, 6)
		calls := 0
		f.inject(func(string, string) error {
			if calls++; calls > n {
				return &os.PathError{Op: "write", Path: dir, Err: syscall.ENOSPC}
			}
			return nil
		}, nil)
		err := db.Optimize(ctx, table.Name())
		if err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
		}
		require.Equal(t, 6, countRows(t, db, "p"))
		f.inject(nil, nil)
		require.NoError(t, db.Optimize(ctx, table.Name()))
		require.NoError(t, tryPut(table, 7))
		require.Equal(t, 7, countRows(t, db, "p"))
		require.NoError(t, db.Close())
		_, faults := faults(t, dir)
		require.Empty(t, faults)
	}
}
