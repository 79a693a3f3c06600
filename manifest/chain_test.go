package manifest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

func TestVersionNamesAreThoseOfLance(t *testing.T) {
	require.Equal(t, "18446744073709551614.manifest", versionFile(1))
	require.Equal(t, "1"+strings.Repeat("0", 63)+".binpb", shardFile(1))
	require.Equal(t, "01"+strings.Repeat("0", 62)+".binpb", shardFile(2))
	for _, n := range []uint64{1, 2, 3, 1000, math.MaxUint64 >> 1, bits.Reverse64(3)} {
		got, err := parseVersionFile(versionFile(n))
		require.NoError(t, err)
		require.Equal(t, n, got)
		got, err = parseShardFile(shardFile(n))
		require.NoError(t, err)
		require.Equal(t, n, got)
	}
	for _, other := range []string{"latest_version_hint.json", "d12.manifest", "x"} {
		n, err := parseVersionFile(other)
		require.NoError(t, err)
		require.Zero(t, n)
	}
	_, err := parseVersionFile("12.manifest")
	require.ErrorContains(t, err, "migrate_manifest_paths_v2")
}

func TestNewestIsFoundWhateverTheHintSays(t *testing.T) {
	ctx := context.Background()
	for _, length := range []uint64{0, 1, 2, 3, 7, 20} {
		for _, batch := range []int{0, 1, 2, 5, 1000} {
			for _, hint := range []string{"", "{", `{"version":0}`, `{"version":1}`, `{"version":7}`, `{"version":99}`, `{"version":18446744073709551615}`} {
				t.Run(fmt.Sprintf("%d versions, batch %d, hint %s", length, batch, hint), func(t *testing.T) {
					st := object.NewMem()
					c := tableChain(st, "t.lance", Options{ScanBatch: batch})
					for n := uint64(1); n <= length; n++ {
						require.NoError(t, st.PutIfAbsent(ctx, c.path(n), []byte("x")))
					}
					if hint != "" {
						require.NoError(t, st.Put(ctx, c.dir+"/"+c.hint, []byte(hint)))
					}
					got, err := c.newest(ctx)
					require.NoError(t, err)
					require.Equal(t, length, got)
				})
			}
		}
	}
}

// failing is a store that fails on names with a suffix.
type failing struct {
	object.Store
	suffix string
}

var errDisk = errors.New("disk is on fire")

func (f *failing) Put(ctx context.Context, name string, data []byte) error {
	if strings.HasSuffix(name, f.suffix) {
		return errDisk
	}
	return f.Store.Put(ctx, name, data)
}

func (f *failing) Stat(ctx context.Context, name string) (object.Info, error) {
	if strings.HasSuffix(name, f.suffix) {
		return object.Info{}, errDisk
	}
	return f.Store.Stat(ctx, name)
}

func TestHintIsBestEffort(t *testing.T) {
	ctx := context.Background()
	st := &failing{Store: object.NewMem(), suffix: "hint.json"}
	var warnings []error
	o := Options{Warn: func(_ string, err error) { warnings = append(warnings, err) }}
	v, err := Create(ctx, st, "t.lance", testSchema(t), CreateOptions{Options: o})
	require.NoError(t, err)
	for range 3 {
		v, err = Commit(ctx, st, "t.lance", v, Change{Append: []Fragment{dataFile(t, st, "t.lance", fmt.Sprint(v.Number), 1)}}, o)
		require.NoError(t, err)
	}
	require.Len(t, warnings, 4)
	require.ErrorIs(t, warnings[0], errDisk)
	got, err := Latest(ctx, st, "t.lance", o)
	require.NoError(t, err)
	require.EqualValues(t, 4, got.Number)
}

func TestFailedLookAheadIsNoEnd(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	v := createTable(t, st, "t.lance")
	v = appendRows(t, st, "t.lance", v, "a", 1)
	_, err := Latest(ctx, &failing{Store: st, suffix: versionFile(v.Number + 1)}, "t.lance", Options{})
	require.ErrorIs(t, err, errDisk, "a version that could not be looked for may exist")
}
