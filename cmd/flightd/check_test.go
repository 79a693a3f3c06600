package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lsm"
)

// dataFolder makes a data folder with a table that has rows in the base, in a generation and in the log.
func dataFolder(t *testing.T) string {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	db, err := lsm.Open(ctx, lsm.Options{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	schema, err := rows.Schema("id int64 key, word utf8")
	require.NoError(t, err)
	name := lsm.TableName{Name: "words"}
	require.NoError(t, db.CreateTable(ctx, lsm.TableDef{Name: name, Schema: schema}))
	table, err := db.Table(name)
	require.NoError(t, err)
	put := func(text string) {
		rec, err := rows.Parse(table.Schema(), text)
		require.NoError(t, err)
		defer rec.Release()
		lsn, err := table.Put(ctx, lsm.Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
	}
	put("1 one\n2 two\n3 three")
	require.NoError(t, db.Optimize(ctx, name))
	put("2 zwei\n4 four")
	require.NoError(t, db.Flush(ctx, name))
	put("5 five")
	return dir
}

func TestCheckSaysWhatItReadAndWhatIsWrong(t *testing.T) {
	dir := dataFolder(t)
	code, stdout, stderr := call("check", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "1 table: 2 fragments, 0 deletion files, 2 indexes, 1 generation not merged yet\n")
	require.Contains(t, stdout, "rows: 5 in data files")
	require.Contains(t, stdout, "no faults, checked in")

	data, err := filepath.Glob(filepath.Join(dir, "words.lance", "data", "*.lance"))
	require.NoError(t, err)
	require.Len(t, data, 1)
	b, err := os.ReadFile(data[0])
	require.NoError(t, err)
	b[0] ^= 1
	require.NoError(t, os.WriteFile(data[0], b, 0o644))
	code, stdout, stderr = call("check", dir)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stdout, "fault: "+data[0]+": offset 0: ")
	require.Contains(t, stdout, "1 fault, checked in")
	require.Contains(t, stderr, "flightd: 1 fault in "+dir)
}

func TestCheckRefusesAFolderInUse(t *testing.T) {
	dir := t.TempDir()
	db, err := lsm.Open(context.Background(), lsm.Options{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	code, stdout, stderr := call("check", dir)
	require.Equal(t, exitFailed, code)
	require.Empty(t, stdout)
	require.Contains(t, stderr, "is in use by flightd, process")
}
