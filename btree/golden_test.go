package btree

import (
	"context"
	"encoding/json"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// onlyFolder returns the one folder in dir whose name ends with suffix.
func onlyFolder(t *testing.T, st object.Store, dir, suffix string) string {
	t.Helper()
	list, err := st.List(context.Background(), dir)
	require.NoError(t, err)
	var names []string
	for _, f := range list {
		if f.Dir && strings.HasSuffix(f.Name, suffix) {
			names = append(names, f.Name)
		}
	}
	require.Len(t, names, 1)
	return path.Join(dir, names[0])
}

// content returns the values of an index, as text, with their ids.
func content(t *testing.T, x *Index) []found {
	t.Helper()
	var got []found
	require.NoError(t, x.Scan(context.Background(), func(values arrow.Array, ids []uint64) error {
		for i, id := range ids {
			got = append(got, found{strings.Clone(values.ValueStr(i)), id})
		}
		return nil
	}))
	return got
}

func TestIndexOfPylanceHoldsWhatPylanceSays(t *testing.T) {
	ctx := context.Background()
	st := object.NewLocal(filepath.Join("..", "testdata", "manifest"))
	b, err := st.Get(ctx, "expected.json")
	require.NoError(t, err)
	var expected struct {
		Index [][2]any `json:"v_idx"`
	}
	decoder := json.NewDecoder(strings.NewReader(string(b)))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&expected))
	var want []found
	for _, p := range expected.Index {
		id, err := p[1].(json.Number).Int64()
		require.NoError(t, err)
		key := "(null)"
		if p[0] != nil {
			key = p[0].(string)
		}
		want = append(want, found{key, uint64(id)})
	}
	x, err := Open(ctx, st, onlyFolder(t, st, "golden.lance/_indices", ""), Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	require.ElementsMatch(t, want, content(t, x))
	require.NoError(t, x.Verify(ctx))
	least, greatest := x.Bounds()
	require.Equal(t, "v0", least.ValueStr(0))
	require.Equal(t, "v6", greatest.ValueStr(0))
	least.Release()
	greatest.Release()
}

func TestKeyIndexOfAGenerationOfPylanceIsSearched(t *testing.T) {
	ctx := context.Background()
	st := object.NewLocal(filepath.Join("..", "testdata", "manifest"))
	generation := onlyFolder(t, st, "golden.lance/_mem_wal/00000000-0000-0000-0000-000000000007", "_gen_1")
	x, err := Open(ctx, st, generation+"/_pk_index", Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	// The rows of the generation are 500, 501, 502, 498, 499, 500 in this order.
	require.ElementsMatch(t, []found{{"498", 3}, {"499", 4}, {"500", 0}, {"500", 5}, {"501", 1}, {"502", 2}}, content(t, x))
	keys := ints([]int64{1, 498, 500, 600})
	defer keys.Release()
	require.ElementsMatch(t, []found{{"498", 3}, {"500", 0}, {"500", 5}}, lookup(t, x, keys))
}
