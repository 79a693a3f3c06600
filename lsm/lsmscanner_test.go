package lsm

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/manifest"
)

// scanLsm prints the rows of a table as Lance reads them through the generations of a shard, which come as NUMBER=PATH,
// the number of the memtable first. The last argument is a filter, or empty.
const scanLsm = `
import sys, lance
root, shard, current = sys.argv[1:4]
snapshot = lance.ShardSnapshot(shard)
for g in sys.argv[4:-1]:
    number, path = g.split("=")
    snapshot = snapshot.with_sstable(int(number), path)
snapshot = snapshot.with_current_generation(int(current))
scanner = lance.LsmScanner.from_snapshots(lance.dataset(root), [snapshot]).project(["k", "n"])
if sys.argv[-1]:
    scanner = scanner.filter(sys.argv[-1])
for row in scanner.to_table().to_pylist():
    print(row["k"], row["n"])
`

// TestLanceScansGenerationsAsWeDo writes, deletes, flushes and merges at random and has Lance's LsmScanner read base and
// generations: its answers are ours.
func TestLanceScansGenerationsAsWeDo(t *testing.T) {
	python.Need(t)
	for name, schema := range map[string]string{"integers": "k int64 key, n int64", "strings": "k utf8 key, n int64"} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			db := openTest(t, dir)
			defer func() { require.NoError(t, db.Close()) }()
			table := createTest(t, db, "p", schema)
			random := rand.New(rand.NewPCG(5, uint64(len(name))))
			for step := range 9 {
				for range 1 + random.IntN(4) {
					putOrDelete(t, db, table, random)
				}
				require.NoError(t, db.Flush(ctx, table.Name()))
				if step == 4 {
					require.NoError(t, db.Optimize(ctx, table.Name()))
				}
				if step%4 == 3 {
					for _, filter := range []string{"", "n > 500"} {
						require.Equal(t, ourRows(t, db, filter), lanceRows(t, dir, table, filter), "step %d, filter %q", step, filter)
					}
				}
			}
		})
	}
}

// putOrDelete writes a batch of rows over a few keys, some of them tombstones, and waits until it is visible.
func putOrDelete(t *testing.T, db *DB, table *Table, random *rand.Rand) {
	t.Helper()
	s := arrow.NewSchema(append(table.Schema().Fields(), tombstoneField), nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for range 1 + random.IntN(60) {
		key := random.Int64N(150)
		switch keys := b.Field(0).(type) {
		case *array.Int64Builder:
			keys.Append(key)
		case *array.StringBuilder:
			keys.Append("key " + strconv.FormatInt(key, 10))
		}
		b.Field(1).(*array.Int64Builder).Append(random.Int64N(1000))
		b.Field(2).(*array.BooleanBuilder).Append(random.IntN(5) == 0)
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(context.Background(), lsn))
}

// ourRows returns the rows of table p, sorted, as we read them.
func ourRows(t *testing.T, db *DB, filter string) []string {
	t.Helper()
	snap, err := db.Snapshot(context.Background())
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "p"})
	require.NoError(t, err)
	lines, err := scanRows(context.Background(), v, []int{0, 1})
	require.NoError(t, err)
	require.NotEmpty(t, lines)
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(line, `"`, "") // strings with spaces are quoted
	}
	return slices.DeleteFunc(lines, func(line string) bool {
		n, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
		require.NoError(t, err)
		return filter != "" && n <= 500
	})
}

// lanceRows returns them as Lance reads them.
func lanceRows(t *testing.T, dir string, table *Table, filter string) []string {
	t.Helper()
	s := table.shards[0]
	man, err := manifest.LoadShard(context.Background(), table.db.st, s.dir(), manifest.Options{})
	require.NoError(t, err)
	args := []string{filepath.Join(dir, table.root), s.id.String(), strconv.FormatUint(man.CurrentGeneration, 10)}
	for _, g := range man.Generations {
		args = append(args, strconv.FormatUint(g.Number, 10)+"="+g.Path)
	}
	out := python.Run(t, scanLsm, append(args, filter)...)
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	slices.Sort(lines)
	return lines
}
