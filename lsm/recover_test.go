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
	_, err = Open(ctx, Options{Dir: dir, wrap: faulty})
	require.ErrorAs(t, err, new(*object.CorruptError))
}
