package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

func TestInspectGuessesTheKind(t *testing.T) {
	dir := dataFolder(t)
	for _, c := range []struct{ pattern, text, key string }{
		{"", "words.lance: version 2, 3 rows in 1 fragment; in front of it 1 generation with 2 rows\n", "folder"},
		{"_flightd/wal", "end: last record ", "lsn"},
		{"_flightd/wal/*.wal", "end: last record ", "lsn"},
		{"_flightd/catalog.json", "\"last_incarnation\": ", "tables"},
		{"words.lance", "field 0 \"id\" int64 key\n", "schema"},
		{"words.lance/_versions/*.manifest", "version 2 by flightd", "fragments"},
		{"words.lance/data/*.lance", "Lance 2.0", "checksums"},
		{"words.lance/_indices/*", "btree of int64, 3 rows in 1 pages", "least"},
		{"words.lance/_versions", "version 2 by flightd", "fragments"},
		{"words.lance/_mem_wal", "generation 2 in ", "generations"},
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

	code, _, stderr = call("inspect", filepath.Join(dir, "words.lance", "data"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "say one of wal, shard, manifest, file, index, filter, deletions, catalog, entry, system")
	code, _, _ = call("inspect", dir, "table")
	require.Equal(t, exitUsage, code)
	code, _, stderr = call("inspect", filepath.Join(dir, "_flightd", "catalog.json"), "file")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "this is no Lance file")
}

// TestInspectShowsOneFile has several segments of the log and manifests of a shard, and asks for one.
func TestInspectShowsOneFile(t *testing.T) {
	dir := dataFolder(t)
	segments, err := filepath.Glob(filepath.Join(dir, "_flightd", "wal", "*.wal"))
	require.NoError(t, err)
	require.Greater(t, len(segments), 1)
	for _, name := range segments {
		code, stdout, stderr := call("inspect", name)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, filepath.Base(name)+": ")
		for _, other := range segments {
			if other != name {
				require.NotContains(t, stdout, filepath.Base(other)+": ")
			}
		}
	}
	all, lines := 0, 0
	for _, args := range append([]string{filepath.Join(dir, "_flightd", "wal")}, segments...) {
		code, stdout, stderr := call("inspect", args, "--json")
		require.Zero(t, code, stderr)
		if all == 0 {
			all = strings.Count(stdout, "\n")
			continue
		}
		lines += strings.Count(stdout, "\n")
	}
	require.Equal(t, all, lines)

	manifests, err := filepath.Glob(filepath.Join(dir, "words.lance", "_mem_wal", "*", "manifest", "*.binpb"))
	require.NoError(t, err)
	require.Greater(t, len(manifests), 1)
	versions := map[any]bool{}
	for _, name := range manifests {
		code, stdout, stderr := call("inspect", name, "--json")
		require.Zero(t, code, stderr)
		var object map[string]any
		require.NoError(t, json.Unmarshal([]byte(stdout), &object))
		versions[object["version"]] = true
	}
	require.Len(t, versions, len(manifests))
}

// TestInspectDescribesLogEntriesOfOthers has a shard's log of which one entry is a sentinel, one is damaged and one missing.
func TestInspectDescribesLogEntriesOfOthers(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	st := object.NewLocal(dir)
	stream := &wal.Stream{ID: uuid.New(), Dir: "wal", Epoch: 3}
	require.NoError(t, stream.Fence(ctx, st))
	md := arrow.MetadataFrom(map[string]string{"writer_epoch": "2", "generation": "7"})
	schema, err := rows.Schema("id int64 key, word utf8")
	require.NoError(t, err)
	rec, err := rows.Parse(arrow.NewSchema(schema.Fields(), &md), "1 one\n2 two")
	require.NoError(t, err)
	defer rec.Release()
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(rec.Schema()))
	require.NoError(t, w.Write(rec))
	require.NoError(t, w.Close())
	require.NoError(t, st.Put(ctx, "wal/"+wal.EntryName(2), b.Bytes()))
	require.NoError(t, st.Put(ctx, "wal/"+wal.EntryName(5), b.Bytes()))

	folder := filepath.Join(dir, "wal")
	code, stdout, stderr := call("inspect", folder)
	require.Zero(t, code, stderr)
	require.Equal(t, "entry 1: sentinel of epoch 3\nentry 2: epoch 2, generation 7, 2 rows in 1 batch\nno entries 3 to 4\n"+
		"entry 5: epoch 2, generation 7, 2 rows in 1 batch\n", stdout)
	code, stdout, stderr = call("inspect", filepath.Join(folder, wal.EntryName(2)), "--json")
	require.Zero(t, code, stderr)
	require.JSONEq(t, `{"position": 2, "epoch": 2, "generation": 7, "sentinel": false, "batches": 1, "rows": 2, "columns": ["id", "word"]}`, stdout)

	require.NoError(t, st.Put(ctx, "wal/"+wal.EntryName(2), b.Bytes()[:b.Len()-9]))
	code, stdout, stderr = call("inspect", folder)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, wal.EntryName(2)+" is corrupt")
	require.Contains(t, stdout, "entry 5")
}

func TestInspectDescribesAnIndexOverVectors(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	sample, rows, ids := make([]float32, 4*64), make([]float32, 4*64), make([]uint64, 64)
	for i := range rows {
		sample[i], rows[i] = float32(i*i%97), float32(i*i%97)
	}
	model, _, err := ivf.Train(ctx, sample, 4, ivf.TrainOptions{Partitions: 2, SubVectors: 2, Metric: vector.Cosine})
	require.NoError(t, err)
	b, err := ivf.NewBuilder(ctx, object.NewLocal(dir), "x", model, ivf.BuildOptions{})
	require.NoError(t, err)
	defer b.Abort()
	for i := range ids {
		ids[i] = uint64(i)
	}
	require.NoError(t, b.Add(ctx, ids, rows))
	_, err = b.Finish(ctx)
	require.NoError(t, err)

	code, stdout, stderr := call("inspect", filepath.Join(dir, "x"))
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "IVF_PQ of float32[4] under cosine, 64 rows in 2 partitions of ")
	require.Contains(t, stdout, "2 sub-vectors of 8 bits, 2 bytes a row, in columns\n")
	code, stdout, stderr = call("inspect", filepath.Join(dir, "x"), "--json")
	require.Zero(t, code, stderr)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &got))
	require.Equal(t, "cosine", got["metric"])
	require.EqualValues(t, 64, got["rows"])
	require.Len(t, got["sizes"], 2)
}
