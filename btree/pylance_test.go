package btree

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

func TestLanceReadsThroughOurIndex(t *testing.T) {
	python.Need(t)
	script := filepath.Join("..", "testdata", "manifest", "pylance.py")
	root := filepath.Join(t.TempDir(), "t.lance")
	run := func(args ...string) []byte {
		t.Helper()
		return python.RunFile(t, script, args...)
	}
	const rows = 10000
	run("create", root, "0", fmt.Sprint(rows))
	// The table's one fragment has number 0, so the address of row i is i.
	ctx, st, folder := context.Background(), object.NewLocal(filepath.Join(root, "_indices")), uuid.NewString()
	w, err := Create(ctx, st, folder, int64s().dt, WriterOptions{})
	require.NoError(t, err)
	defer w.Abort()
	for off := 0; off < rows; off += 1000 {
		values, ids := make([]int64, 1000), make([]uint64, 1000)
		for i := range values {
			values[i], ids[i] = int64(off+i), uint64(off+i)
		}
		a := ints(values)
		require.NoError(t, w.Add(ctx, a, ids))
		a.Release()
	}
	_, err = w.Finish(ctx)
	require.NoError(t, err)

	var got struct {
		Plan string
		Rows [][]any
	}
	require.NoError(t, json.Unmarshal(run("use_btree", root, folder, "id in (5, 4095, 4096, 9999, 20000)"), &got))
	require.Contains(t, got.Plan, "ScalarIndexQuery", "Lance answers from the index")
	require.Equal(t, [][]any{{5.0, "v5"}, {4095.0, "v4095"}, {4096.0, "v4096"}, {9999.0, "v9999"}}, got.Rows)

	run("index", root, "id")
	entries, err := st.List(ctx, ".")
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, entry := range entries {
		x, err := Open(ctx, st, entry.Name, Options{})
		require.NoError(t, err)
		require.EqualValues(t, rows, x.Rows())
		require.NoError(t, x.Verify(ctx))
		keys := ints([]int64{0, 4095, 4096, 9999, 10000})
		require.Equal(t, []found{{"0", 0}, {"4095", 4095}, {"4096", 4096}, {"9999", 9999}}, lookup(t, x, keys))
		keys.Release()
		require.NoError(t, x.Close())
	}
}
