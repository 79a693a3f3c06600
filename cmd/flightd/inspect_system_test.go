package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/object"
)

// requireInspected inspects what patterns name and looks for a text in what people get and a key in what programs get.
func requireInspected(t *testing.T, dir string, cases [][3]string) {
	t.Helper()
	for _, c := range cases {
		paths, err := filepath.Glob(filepath.Join(dir, c[0]))
		require.NoError(t, err)
		require.NotEmpty(t, paths, c[0])
		for _, path := range paths {
			code, stdout, stderr := call("inspect", path)
			require.Zero(t, code, "%s: %s", path, stderr)
			require.Contains(t, stdout, c[1], path)
			code, stdout, stderr = call("inspect", path, "--json")
			require.Zero(t, code, "%s: %s", path, stderr)
			for line := range strings.Lines(stdout) {
				var object map[string]any
				require.NoError(t, json.Unmarshal([]byte(line), &object), path)
				require.Contains(t, object, c[2], path)
			}
		}
	}
}

// TestInspectShowsTheServersOwnFiles looks at a folder while it is open: nothing that is asked gets in the server's way.
func TestInspectShowsTheServersOwnFiles(t *testing.T) {
	ctx, dir := context.Background(), dataFolder(t)
	db, err := lsm.Open(ctx, lsm.Options{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, db.Optimize(ctx, lsm.TableName{Name: "words"}))
	for name, text := range map[string]string{"_flightd/wal/000000000099.spare": "old", "_flightd/wal/000000000100.tmp": "", "_flightd/reserve": "room",
		"_flightd/tmp/sort": "scratch", "_flightd/stage/9.lance/data/x.lance": "half"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	requireInspected(t, dir, [][3]string{
		{"_flightd", "format: flightd data folder, format 1\nowner: flightd, process ", "format"},
		{"_flightd", ", which has the folder open\nlog segments: ", "owner"},
		{"_flightd", "spare log segments: ", "spare_segments"},
		{"_flightd", "reserve: 4 bytes", "reserve_bytes"},
		{"_flightd", "scratch files: 1, 7 bytes", "scratch_files"},
		{"_flightd", "stage _flightd/stage/9.lance: 4 bytes", "stages"},
		{"_flightd/stage", "stage _flightd/stage/9.lance", "stages"},
		{"_flightd/LOCK", "owner: flightd, process ", "running"},
		{"_flightd/format", "format: ", "running"},
		{"_flightd/reserve", "reserve: 4 bytes", "running"},
		{"_flightd/wal/000000000099.spare", "000000000099.spare: 3 bytes, a segment of the log that was trimmed", "records"},
		{"_flightd/wal/000000000100.tmp", "being prepared", "records"},
		{"words.lance/_deletions", "deletions of fragment 0, made on version ", "offsets"},
		{"words.lance/_deletions/*.bin", ": 1 rows from 1 to 1; crc32c ", "crc32c"},
	})
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "_flightd", "stage")))
	require.NoError(t, db.Close())
	code, stdout, stderr := call("inspect", dir, "system")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "owner: none that has it open on this machine; the last one was flightd, process ")

	files, err := filepath.Glob(filepath.Join(dir, "words.lance", "_deletions", "*"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files[0], []byte("no bitmap"), 0o644))
	code, _, stderr = call("inspect", files[0])
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "is corrupt")
}

// TestInspectShowsTheFilesOfAStore looks at the form that the data have in a store of objects.
func TestInspectShowsTheFilesOfAStore(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db, err := lsm.Open(ctx, lsm.Options{Store: object.NewLocal(dir), Temp: t.TempDir()})
	require.NoError(t, err)
	schema, err := rows.Schema("id int64 key, word utf8")
	require.NoError(t, err)
	require.NoError(t, db.CreateTable(ctx, lsm.TableDef{Name: lsm.TableName{Name: "words"}, Schema: schema}))
	table, err := db.Table(lsm.TableName{Name: "words"})
	require.NoError(t, err)
	rec, err := rows.Parse(table.Schema(), "1 one\n2 two")
	require.NoError(t, err)
	defer rec.Release()
	lsn, err := table.Put(ctx, lsm.Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(ctx, lsn))
	requireInspected(t, dir, [][3]string{
		{"", "words", "folder"},
		{"_flightd", "lease of epoch 1, flightd, process ", "leases"},
		{"_flightd/lease/*.json", ": sign of life ", "epoch"},
		{"_flightd/catalog/*.json", "\"claim\": {", "claim"},
		{"_flightd/log", "sentinel of epoch 1\n", "sentinel"},
		{"_flightd/log/*.arrow", "entry ", "position"},
		{"words*.lance/_mem_wal/*/wal", " batch, shard ", "records"},
		{"words*.lance/_mem_wal/*/wal/*.arrow", "entry ", "epoch"},
	})
	require.NoError(t, db.Close())
	requireInspected(t, dir, [][3]string{{"_flightd/lease/*.json", "it ended in order", "released"}})
	entries, err := filepath.Glob(filepath.Join(dir, "words*.lance", "_mem_wal", "*", "wal", "*.arrow"))
	require.NoError(t, err)
	for _, name := range entries {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		b[len(b)-9] ^= 1 // of the last column's text, or of the schema
		require.NoError(t, os.WriteFile(name, b, 0o644))
		code, _, stderr := call("inspect", name)
		require.Equal(t, exitFailed, code)
		require.Contains(t, stderr, "is corrupt")
	}
}
