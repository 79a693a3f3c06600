package lsm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/manifest"
)

// TestADamagedTableIsSetAside damages the newest manifest of a table whose last rows are in the log alone, and removes a data file
// of another: the rest is served, the log keeps those rows while other tables are written and the log is trimmed, and the tables
// are whole again when their files are.
func TestADamagedTableIsSetAside(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	db := openTest(t, dir)
	bad, gone, good := createTest(t, db, "bad", writesSchema), createTest(t, db, "gone", writesSchema), createTest(t, db, "good", writesSchema)
	for _, x := range []*Table{bad, gone, good} {
		putKeys(t, db, x, 1, 1, 2, 3)
		require.NoError(t, db.Optimize(ctx, x.Name()))
		putKeys(t, db, x, 2, 3, 4)
	}
	newest := db.mustTable(t, "bad").set.Load().base.version.Number
	require.NoError(t, db.Close())
	manifests := filepath.Join(dir, manifest.VersionFileName("bad.lance", newest))
	whole, err := os.ReadFile(manifests)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(manifests, whole[:len(whole)-20], 0o644))
	data := filepath.Join(dir, "gone.lance", "data")
	require.NoError(t, os.Rename(data, data+".elsewhere"))

	for range 2 {
		db = openTest(t, dir)
		require.Len(t, db.Tables(), 1)
		var unserved *UnservedError
		var corrupt *CorruptError
		_, err = db.Table(bad.Name())
		require.ErrorAs(t, err, &unserved)
		require.ErrorAs(t, err, &corrupt)
		require.Equal(t, manifest.VersionFileName("bad.lance", newest), corrupt.Name)
		_, err = db.Table(gone.Name())
		require.ErrorAs(t, err, &unserved)
		require.ErrorContains(t, err, ".lance")
		table := db.mustTable(t, "good")
		for i := range int64(20) {
			putKeys(t, db, table, 10+i, 3, 100+i)
		}
		require.NoError(t, db.Optimize(ctx, table.Name()))
		first := LSN(1 << 62)
		for _, lsn := range db.aside {
			require.Positive(t, lsn)
			first = min(first, lsn)
		}
		require.Equal(t, first-1, db.trimmable(), "everything that the damaged tables do not need may go")
		require.NoError(t, db.trimNow())
		require.NoError(t, db.Close())
	}
	require.NoError(t, os.WriteFile(manifests, whole, 0o644))
	require.NoError(t, os.Rename(data+".elsewhere", data))
	db = openTest(t, dir)
	want := map[int64][2]int64{1: {0, 1}, 2: {0, 1}, 3: {0, 2}, 4: {0, 2}}
	require.Equal(t, want, readWrites(t, db, "bad"))
	require.Equal(t, want, readWrites(t, db, "gone"))
	require.Empty(t, db.aside)
	require.NoError(t, db.Close())
}

// TestATableThatWasSetAsideIsDropped drops it and makes another of its name.
func TestATableThatWasSetAsideIsDropped(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "t", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	putKeys(t, db, table, 2, 4)
	require.NoError(t, db.Close())
	data := filepath.Join(dir, "t.lance", "data")
	require.NoError(t, os.RemoveAll(data))

	db = openTest(t, dir)
	_, err := db.Table(table.Name())
	var unserved *UnservedError
	require.ErrorAs(t, err, &unserved)
	require.NoError(t, db.DropTable(ctx, table.Name()))
	require.NoDirExists(t, filepath.Join(dir, "t.lance"))
	require.Empty(t, db.aside)
	putKeys(t, db, createTest(t, db, "t", writesSchema), 3, 9)
	require.NoError(t, db.Close())
	db = openTest(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, map[int64][2]int64{9: {0, 3}}, readWrites(t, db, "t"))
}
