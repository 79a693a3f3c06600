package lsm

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
)

// bitmapRows makes rows, and bitmapDataset has pylance write a dataset with a BITMAP over a column of each type, rows in several fragments, some of
// them deleted after the indexes were made, and some appended. One fragment has one value in all its rows.
const bitmapRows = `
import datetime, lance, pyarrow as pa, sys
def rows(first, n):
    ids = range(first, first + n)
    pick = lambda f: [None if i % 97 == 3 else f(i) for i in ids]
    return pa.table({
        "id": pa.array(ids, pa.int64()),
        "s": pa.array(pick(lambda i: "v%d" % (i % 7))),
        "i": pa.array(pick(lambda i: i % 50 - 20), pa.int32()),
        "b": pa.array(pick(lambda i: i % 3 == 0)),
        "f": pa.array(pick(lambda i: [0.0, -0.0, 1.5, float("inf"), -2.25][i % 5])),
        "d": pa.array(pick(lambda i: datetime.date(2026, 1, 1 + i % 20))),
        "one": pa.array([first // 1000] * n, pa.int16()),
    })
`

const bitmapDataset = bitmapRows + `
ds = lance.write_dataset(pa.concat_tables([rows(0, 1000), rows(1000, 1000), rows(2000, 1000)]), sys.argv[1], max_rows_per_file=1000, data_storage_version=sys.argv[2])
for c in ["s", "i", "b", "f", "d", "one"]:
    ds.create_scalar_index(c, "BITMAP", name=c + "_bits")
ds.delete("id % 10 = 7")
`

// appendRows adds rows to it, and has the indexes follow when it is told to.
const appendRows = bitmapRows + `
ds = lance.dataset(sys.argv[1])
ds.insert(rows(3000, 500))
if sys.argv[3] == "index":
    ds.optimize.optimize_indices()
`

func TestBitmapsOfLanceFindRows(t *testing.T) {
	for _, version := range []string{"2.0", "2.2"} {
		ctx, dir := context.Background(), t.TempDir()
		root := filepath.Join(dir, "t.lance")
		python.Run(t, bitmapDataset, root, version)
		db := openTest(t, dir)
		defer func() { require.NoError(t, db.Close()) }()
		table, name := mustTable(t, db, "t"), TableName{Name: "t"}
		infos := table.Indexes()
		require.Len(t, infos, 6)
		for _, x := range infos {
			require.Equal(t, BitmapIndex, x.Kind)
			require.True(t, x.Foreign)
			require.Zero(t, x.Uncovered)
		}
		compareColumns(t, db, name, true)
		python.Run(t, appendRows, root, version, "")
		require.NoError(t, db.Optimize(ctx, name))
		require.EqualValues(t, 500, table.Indexes()[0].Uncovered)
		compareColumns(t, db, name, false)
		python.Run(t, appendRows, root, version, "index")
		require.NoError(t, db.Optimize(ctx, name))
		require.Zero(t, table.Indexes()[0].Uncovered)
		compareColumns(t, db, name, true)
		requireSound(t, crashCopy(t, dir))

		// A damaged one is no index: answers are as before.
		files, err := filepath.Glob(filepath.Join(root, "_indices", "*", "bitmap_page_lookup.lance"))
		require.NoError(t, err)
		for _, f := range files {
			require.NoError(t, os.Truncate(f, 100))
		}
		require.NoError(t, db.Close())
		db = openTest(t, dir)
		require.Empty(t, mustTable(t, db, "t").Indexes())
		compareColumns(t, db, name, false)
	}
}
