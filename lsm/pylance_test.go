package lsm

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
)

// lanceAnswer is what the script that drives Lance itself says of a table.
type lanceAnswer struct {
	Count     int64
	Fragments []struct {
		ID      uint64
		Rows    int64
		Deleted []uint32
	}
	Indexes []struct{ Name string }
	Rows    [][]any
	Plan    string
}

// runLance runs a command of that script on a folder.
func runLance(t *testing.T, command, root string, args ...string) (answer lanceAnswer) {
	t.Helper()
	out := python.RunFile(t, filepath.Join("..", "testdata", "manifest", "pylance.py"), append([]string{command, root}, args...)...)
	if string(out) != "null\n" {
		require.NoError(t, json.Unmarshal(out, &answer), "%s", out)
	}
	return answer
}

// putTexts writes rows of the columns id and v as Lance's script does: v is "v" and the id.
func putTexts(t *testing.T, db *DB, table *Table, ids ...int64) {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, table.Schema())
	defer b.Release()
	for _, id := range ids {
		b.Field(0).(*array.Int64Builder).Append(id)
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("v%d", id))
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	lsn, err := table.Put(t.Context(), Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(t.Context(), lsn))
}

// TestLanceReadsWhatCompactionMakes has Lance append, delete and index beside flightd: after compaction it reads the
// same rows, as many as it counts, and its queries by the key and by an index of its own find them.
func TestLanceReadsWhatCompactionMakes(t *testing.T) {
	python.Need(t)
	ctx := t.Context()
	dir := t.TempDir()
	db := openManual(t, dir)
	db.minReclaim = 1
	table := createTest(t, db, "p", "id int64 key, v utf8")
	root := filepath.Join(dir, "p.lance")
	for i := range int64(smallFan) {
		putTexts(t, db, table, i, 100+i, 200+i)
		require.NoError(t, table.optimize(ctx))
	}
	runLance(t, "index", root, "v")
	runLance(t, "append_one_by_one", root, "1000", "9")
	runLance(t, "delete", root, "id = 3 or id = 1001 or id >= 200 and id < 208")
	require.Len(t, runLance(t, "read", root).Fragments, smallFan+8)
	require.NoError(t, db.Optimize(ctx, table.Name()))

	got := runLance(t, "read", root)
	require.Len(t, got.Fragments, 2, "those that the indexes cover, and those that they do not")
	require.EqualValues(t, 2*smallFan-1+8, got.Count)
	require.Len(t, got.Rows, int(got.Count))
	for _, f := range got.Fragments {
		require.Empty(t, f.Deleted)
	}
	var names []string
	for _, x := range got.Indexes {
		names = append(names, x.Name)
	}
	require.ElementsMatch(t, []string{"id_idx", "v_idx"}, slices.Compact(slices.Sorted(slices.Values(names))))
	for _, x := range []struct {
		predicate string
		want      int
	}{
		{"id = 5", 1}, {"id = 3", 0}, {"id >= 100 and id < 104", 4}, {"v = 'v107'", 1}, {"v = 'v203'", 0}, {"id = 1002", 1}, {"v = 'v1003'", 1}, {"v = 'v1001'", 0},
	} {
		found := runLance(t, "find", root, x.predicate)
		require.Len(t, found.Rows, x.want, x.predicate)
		require.Contains(t, found.Plan, "ScalarIndexQuery", x.predicate)
	}
	sameRows := func() {
		theirs, ours := runLance(t, "read", root), 0
		snap, err := db.Snapshot(ctx)
		require.NoError(t, err)
		defer snap.Release()
		v, err := snap.Table(table.Name())
		require.NoError(t, err)
		ours = int(v.Rows())
		require.Len(t, theirs.Rows, ours)
	}
	sameRows()
	runLance(t, "merge", root, "0", "4") // Lance goes on where compaction ended
	runLance(t, "compact", root)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	sameRows()
	require.NoError(t, db.Close())
	_, list := faults(t, dir)
	require.Empty(t, list)
}

// TestLanceReadsGenerationsWithFilters: the filter of a generation's keys is no business of Lance's.
func TestLanceReadsGenerationsWithFilters(t *testing.T) {
	python.Need(t)
	ctx := t.Context()
	dir := t.TempDir()
	db := openManual(t, dir)
	table := createTest(t, db, "p", "id int64 key, v utf8")
	putTexts(t, db, table, 1, 2, 3)
	require.NoError(t, table.optimize(ctx))
	putTexts(t, db, table, 3, 4)
	require.NoError(t, db.Flush(ctx, table.Name()))
	g := table.set.Load().chains[0].generations()[0].layer.(*generation)
	require.NotNil(t, g.filter)
	got := runLance(t, "lsm", filepath.Join(dir, "p.lance"), table.shards[0].id.String(), fmt.Sprintf("%d=%s", g.number, filepath.Base(g.dir)))
	require.Equal(t, [][]any{{1.0, "v1"}, {2.0, "v2"}, {3.0, "v3"}, {4.0, "v4"}}, got.Rows)
	require.NoError(t, db.Close())
}
