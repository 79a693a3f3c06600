package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInspectGuessesTheKind(t *testing.T) {
	dir := dataFolder(t)
	for _, c := range []struct{ pattern, text, key string }{
		{"", "words.lance: version 2, 3 rows in 1 fragment; in front of it 1 generation with 2 rows\n", "folder"},
		{"_flightd/wal", "end: last record ", "lsn"},
		{"_flightd/wal/*.wal", "end: last record ", "lsn"},
		{"words.lance", "field 0 \"id\" int64 key\n", "schema"},
		{"words.lance/_versions/*.manifest", "version 2 by flightd", "fragments"},
		{"words.lance/data/*.lance", "Lance 2.0", "checksums"},
		{"words.lance/_indices/*", "btree of int64, 3 rows in 1 pages", "least"},
		{"words.lance/_mem_wal/*", "generation 2 in ", "generations"},
		{"words.lance/_mem_wal/*/*_gen_2", "version 1 by flightd", "rows"},
		{"words.lance/_mem_wal/*/*_gen_2/_pk_index", "from 2 to 4\n", "greatest"},
		{"words.lance/_mem_wal/*/*_gen_2/key_filter.bin", "key filter of 2 keys in 1 blocks", "bits_per_key"},
	} {
		paths, err := filepath.Glob(filepath.Join(dir, c.pattern))
		require.NoError(t, err)
		require.NotEmpty(t, paths, c.pattern)
		code, stdout, stderr := call("inspect", paths[0])
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, c.text, c.pattern)

		code, stdout, stderr = call("inspect", paths[0], "--json")
		require.Zero(t, code, stderr)
		for line := range strings.Lines(stdout) {
			var object map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &object), c.pattern)
			require.Contains(t, object, c.key, c.pattern)
		}
	}
}

func TestInspectTakesTheKindThatItIsTold(t *testing.T) {
	dir := dataFolder(t)
	code, stdout, stderr := call("inspect", dir, "wal")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "batch, shard ")
	code, stdout, stderr = call("inspect", filepath.Join(dir, "words.lance"), "shard")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "current generation 3")

	code, _, stderr = call("inspect", filepath.Join(dir, "_flightd"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "say one of wal, shard, manifest, file, index, filter")
	code, _, _ = call("inspect", dir, "table")
	require.Equal(t, exitUsage, code)
	code, _, stderr = call("inspect", filepath.Join(dir, "_flightd", "catalog.json"), "file")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "this is no Lance file")
}
