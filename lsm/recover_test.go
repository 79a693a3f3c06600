package lsm

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// TestLogThatLostItsHead removes the oldest segment of a log that is still needed: Open must not take the rest for
// everything.
func TestLogThatLostItsHead(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	for range 3 { // each Open begins a segment
		db := openTest(t, dir)
		if _, err := db.Table(TableName{Name: "w"}); err != nil {
			createTest(t, db, "w", writesSchema)
		}
		table, err := db.Table(TableName{Name: "w"})
		require.NoError(t, err)
		rec := writesBatch(table.Schema(), 0, 1, []int64{1, 2, 3})
		lsn, err := table.Put(ctx, Batch{Record: rec})
		rec.Release()
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
		require.NoError(t, db.Close())
	}
	segments, err := filepath.Glob(filepath.Join(dir, walFolder, "*.wal"))
	require.NoError(t, err)
	require.Greater(t, len(segments), 2)
	require.NoError(t, os.Remove(segments[0]))
	for _, checkpoint := range []bool{true, false} { // with the table in it, trimmed or not, and with none
		if !checkpoint {
			require.NoError(t, os.Remove(filepath.Join(dir, catalogFile)))
		}
		faults := 0
		_, err = Check(ctx, dir, func(Fault) { faults++ })
		require.NoError(t, err)
		require.Positive(t, faults)
		_, err = Open(ctx, Options{Dir: dir, wrap: faulty})
		require.ErrorAs(t, err, new(*object.CorruptError))
	}
}

// TestFilesOfAnotherLengthAreNotMapped cuts and lengthens the data files and the key's index of a base, and the data file of
// a generation: to touch what is missing of a mapped file would end the process. The table is set aside.
func TestFilesOfAnotherLengthAreNotMapped(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "t", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	putKeys(t, db, table, 1, 2, 3, 4)
	require.NoError(t, db.Flush(ctx, table.Name()))
	require.NoError(t, db.Close())
	for _, pattern := range []string{"t.lance/data/*.lance", "t.lance/_indices/*/page_data.lance", "t.lance/_mem_wal/*/*_gen_2/data/*.lance"} {
		for _, grow := range []int64{-1, -1000, 1} {
			damaged := crashCopy(t, dir)
			list, err := filepath.Glob(filepath.Join(damaged, pattern))
			require.NoError(t, err)
			require.Len(t, list, 1, pattern)
			info, err := os.Stat(list[0])
			require.NoError(t, err)
			require.NoError(t, os.Truncate(list[0], max(info.Size()+grow, 1)))
			db := openTest(t, damaged)
			_, err = db.Table(table.Name())
			require.NoError(t, db.Close())
			var corrupt *object.CorruptError
			require.ErrorAs(t, err, &corrupt, "%s by %d bytes", pattern, grow)
			require.Contains(t, corrupt.Name, filepath.Base(list[0]))
		}
	}
}
