package lsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/lsm/policy"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// keyKinds are schemas of tables whose fragments are put together, by the kind of their key.
var keyKinds = map[string]string{
	"one key column": writesSchema,
	"two":            "key int64 key, writer int64 key, seq int64",
	"none":           "key int64, writer int64, seq int64",
}

// openManual opens a DB in which nothing is compacted but by order.
func openManual(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(context.Background(), Options{Dir: dir, wrap: faulty, Retain: time.Hour, SegmentBytes: 1 << 20, manual: true})
	require.NoError(t, err)
	return db
}

// baseOf returns the fragments of a table's base and the segments of its indexes.
func baseOf(table *Table) (frags []*fragment, segments []manifest.Index) {
	b := table.set.Load().base
	return b.frags, b.version.Indexes
}

// TestSmallMergesStayFew merges one row at a time: fragments and index segments stay few, every row is found, and an
// old snapshot reads what it always did.
func TestSmallMergesStayFew(t *testing.T) {
	for name, schema := range keyKinds {
		if testing.Short() && schema != writesSchema {
			continue
		}
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			dir := t.TempDir()
			db := openManual(t, dir)
			table := createTest(t, db, "p", schema)
			var old *Snapshot
			for i := range int64(100) {
				putKeys(t, db, table, i, i)
				require.NoError(t, db.Optimize(ctx, table.Name()))
				frags, segments := baseOf(table)
				require.LessOrEqual(t, len(frags), 7*3, "after %d", i)
				require.LessOrEqual(t, len(segments), 3*4, "after %d", i)
				if i == 20 {
					var err error
					old, err = db.Snapshot(ctx)
					require.NoError(t, err)
				}
			}
			require.Len(t, readWritesAt(t, old, "p"), 21)
			old.Release()
			require.Len(t, readWrites(t, db, "p"), 100)
			if table.indexable() {
				require.Empty(t, table.set.Load().base.uncovered)
			}
			m := db.Metrics()
			require.Greater(t, m.CompactionJobs, int64(100))
			require.Less(t, m.CompactionJobs, int64(140), "most merges cost no other job")
			require.Greater(t, m.WriteAmplification(), 1.0)
			require.NoError(t, db.Close())
			_, list := faults(t, dir)
			require.Empty(t, list)
			db = openRetain(t, dir)
			require.Len(t, readWrites(t, db, "p"), 100)
			require.NoError(t, db.Close())
		})
	}
}

// foreignRows commits rows as another program would: a fragment that no index covers.
func foreignRows(t *testing.T, st object.Store, table *Table, seq int64, keys ...int64) {
	t.Helper()
	ctx := context.Background()
	rec := writesBatch(table.Schema(), 0, seq, keys)
	defer rec.Release()
	name := uuid.NewString() + ".lance"
	s := table.now().lance
	w, err := lance.Create(ctx, st, path.Join(table.root, "data", name), s, lance.WriterOptions{})
	require.NoError(t, err)
	require.NoError(t, w.Write(ctx, rec))
	info, err := w.Finish(ctx)
	require.NoError(t, err)
	v, err := manifest.Latest(ctx, st, table.root, manifest.Options{})
	require.NoError(t, err)
	_, err = manifest.Commit(ctx, st, table.root, v, manifest.Change{Append: []manifest.Fragment{writtenFragment(name, info, s)}}, manifest.Options{})
	require.NoError(t, err)
}

// foreignDelete deletes the first row of a fragment as another program would.
func foreignDelete(t *testing.T, st object.Store, table *Table, fragment int) {
	t.Helper()
	ctx := context.Background()
	v, err := manifest.Latest(ctx, st, table.root, manifest.Options{})
	require.NoError(t, err)
	_, err = manifest.Commit(ctx, st, table.root, v, manifest.Change{Delete: map[uint64]*roaring.Bitmap{v.Fragments[fragment].ID: roaring.BitmapOf(0)}}, manifest.Options{})
	require.NoError(t, err)
}

// TestForeignFragmentsArePutTogether with each other, apart from those that the key index covers, and with generations
// in front that replace some of their rows.
func TestForeignFragmentsArePutTogether(t *testing.T) {
	for name, schema := range keyKinds {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			dir := t.TempDir()
			db := openManual(t, dir)
			table := createTest(t, db, "p", schema)
			for i := range int64(9) { // keys 0 to 8
				putKeys(t, db, table, 1, i)
				require.NoError(t, table.optimize(ctx))
			}
			for i := range int64(9) { // keys 100 to 117
				foreignRows(t, db.st, table, 2, 100+2*i, 101+2*i)
			}
			foreignDelete(t, db.st, table, 9) // key 100
			require.NoError(t, table.compactor.order(ctx, table.compactor.refreshBase))
			want := 9 + 17
			require.Len(t, readWrites(t, db, "p"), want)
			if table.now().codec != nil { // these rows are replaced by a generation that is not merged
				putKeys(t, db, table, 3, 1, 103, 117)
				require.NoError(t, db.Flush(ctx, table.Name()))
			}
			for more := true; more; {
				require.NoError(t, table.compactor.order(ctx, func(ctx context.Context) error {
					var j policy.Job
					if j, more = table.compactor.next(ctx, nil); !more {
						return nil
					}
					return table.compactor.do(ctx, j)
				}))
				got := readWrites(t, db, "p")
				require.Len(t, got, want)
				if table.now().codec != nil {
					require.Equal(t, int64(3), got[103][1])
					require.Equal(t, int64(3), got[1][1])
				}
			}
			frags, _ := baseOf(table)
			if table.indexable() {
				require.Len(t, frags, 2, "one that the index covers, one that it does not")
				require.Len(t, table.set.Load().base.uncovered, 1)
			} else {
				require.LessOrEqual(t, len(frags), 2)
			}
			require.NoError(t, db.Optimize(ctx, table.Name()))
			require.Len(t, readWrites(t, db, "p"), want)
			require.NoError(t, db.Close())
			_, list := faults(t, dir)
			require.Empty(t, list)
		})
	}
}

// TestFragmentsOfOtherIndexesStay: what an index covers that compaction cannot move is left as it is, deletions and all.
func TestFragmentsOfOtherIndexesStay(t *testing.T) {
	ctx := t.Context()
	db := openManual(t, t.TempDir())
	db.minReclaim = 1
	table := createTest(t, db, "p", "key int64, writer int64, seq int64")
	for i := range int64(10) {
		foreignRows(t, db.st, table, 1, 2*i, 2*i+1)
	}
	foreignDelete(t, db.st, table, 3)
	v, err := manifest.Latest(ctx, db.st, table.root, manifest.Options{})
	require.NoError(t, err)
	x := manifest.Index{Name: "vector", UUID: uuid.New(), Fields: []int32{0}, Fragments: roaring.BitmapOf(0, 1, 2, 3), Files: []manifest.IndexFile{{Path: "index.idx", Bytes: 1}}}
	x.Details, err = lancepb.NewAny(&lancepb.MemWalIndexDetails{})
	require.NoError(t, err)
	require.NoError(t, db.st.Put(ctx, path.Join(table.root, x.Dir(), "index.idx"), []byte("x")))
	_, err = manifest.Commit(ctx, db.st, table.root, v, manifest.Change{Indexes: func(*manifest.Version, []uint64) ([]manifest.Index, error) { return []manifest.Index{x}, nil }}, manifest.Options{})
	require.NoError(t, err)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	frags, indexes := baseOf(table)
	var ids []uint64
	for _, f := range frags {
		ids = append(ids, f.id)
	}
	require.Equal(t, []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, ids, "six others are too few")
	require.Len(t, indexes, 1)
	for i := range int64(2) {
		foreignRows(t, db.st, table, 1, 100+i)
	}
	require.NoError(t, db.Optimize(ctx, table.Name()))
	frags, _ = baseOf(table)
	require.Len(t, frags, 4+1, "eight are enough")
	require.Len(t, readWrites(t, db, "p"), 21)
	require.NoError(t, db.Close())
}

// TestCompactionBesideOtherPrograms has another program commit just before a rewrite is published: an append stands
// beside it, a deletion from the same fragments is not lost.
func TestCompactionBesideOtherPrograms(t *testing.T) {
	for name, while := range map[string]func(t *testing.T, st object.Store, table *Table) int{
		"append": func(t *testing.T, st object.Store, table *Table) int { foreignRows(t, st, table, 7, 500); return 1 },
		"delete": func(t *testing.T, st object.Store, table *Table) int { foreignDelete(t, st, table, 2); return -1 },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			dir := t.TempDir()
			db := openManual(t, dir)
			table := createTest(t, db, "p", writesSchema)
			for i := range int64(smallFan) {
				putKeys(t, db, table, 1, i)
				require.NoError(t, table.optimize(ctx))
			}
			more, hit := 0, false
			withFaults(db).inject(func(op, name string) error {
				if op == "putifabsent" && strings.Contains(name, "p.lance/_versions/") && !hit {
					hit = true
					more = while(t, object.NewLocal(dir), table)
				}
				return nil
			}, nil)
			require.NoError(t, db.Optimize(ctx, table.Name()))
			require.True(t, hit)
			require.Len(t, readWrites(t, db, "p"), smallFan+more)
			require.NoError(t, db.Close())
			_, list := faults(t, dir)
			require.Empty(t, list)
		})
	}
}

// TestCompactionThatFailsChangesNothing fails the commit of a rewrite before and behind the moment that decides, and
// leaves no files that nobody names.
func TestCompactionThatFailsChangesNothing(t *testing.T) {
	match := func(op, name string) bool { return op == "putifabsent" && strings.Contains(name, "p.lance/_versions/") }
	for name, c := range map[string]struct {
		before, after func(op, name string) error
		frags         int
	}{
		"before": {before: times(1, match), frags: smallFan},
		"after":  {after: times(1, match), frags: 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			dir := t.TempDir()
			db := openManual(t, dir)
			table := createTest(t, db, "p", writesSchema)
			for i := range int64(smallFan) {
				putKeys(t, db, table, 1, i)
				require.NoError(t, table.optimize(ctx))
			}
			withFaults(db).inject(c.before, c.after)
			err := table.compactor.order(ctx, table.compactor.compactAll)
			withFaults(db).inject(nil, nil)
			require.Error(t, err)
			require.Len(t, readWrites(t, db, "p"), smallFan)
			require.NoError(t, db.Close())
			sum, list := faults(t, dir)
			require.Empty(t, list)
			require.Equal(t, c.frags, sum.Fragments)
			if c.before != nil {
				require.Zero(t, sum.Unnamed)
			}
			db = openRetain(t, dir)
			require.Len(t, readWrites(t, db, "p"), smallFan)
			require.NoError(t, db.Optimize(ctx, table.Name()))
			require.Len(t, readWrites(t, db, "p"), smallFan)
			require.NoError(t, db.Close())
		})
	}
}

// TestBackgroundCompaction lets several tables be written beside each other, with readers: nobody orders anything, and
// generations, fragments and segments stay few.
func TestBackgroundCompaction(t *testing.T) {
	ctx := t.Context()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	var jobs atomic.Int64
	db, err := Open(ctx, Options{Dir: dir, wrap: faulty, Retain: time.Hour, CompactionRate: 1 << 20,
		Events: Events{Compact: func(e CompactEvent) {
			if e.Err == nil {
				jobs.Add(1)
			} else if !errors.Is(e.Err, context.Canceled) {
				t.Errorf("%+v", e)
			}
		}}})
	require.NoError(t, err)
	db.minReclaim = 1
	var all sync.WaitGroup
	for i := range 3 {
		name := fmt.Sprintf("p%d", i)
		table := createTest(t, db, name, writesSchema)
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			model := map[int64]int64{}
			for round := range fewer[int64](300, 2) {
				var keys []int64
				for range 1 + random.IntN(20) {
					k := random.Int64N(200)
					if _, twice := model[k]; !twice || model[k] != round {
						keys = append(keys, k)
						model[k] = round
					}
				}
				putKeys(t, db, table, round, keys...)
				if err := db.Flush(ctx, table.Name()); err != nil {
					t.Error(err)
					return
				}
				if round%50 == 0 {
					got := readWrites(t, db, name)
					if len(got) != len(model) {
						t.Errorf("round %d: %d rows, want %d", round, len(got), len(model))
					}
				}
			}
			for k, round := range model {
				if got := readWrites(t, db, name)[k]; got[1] != round {
					t.Errorf("key %d: %d, want %d", k, got[1], round)
				}
				break
			}
		})
	}
	all.Wait()
	require.Positive(t, jobs.Load())
	for _, table := range db.Tables() {
		require.Eventually(t, func() bool {
			set := table.holdSet()
			defer set.unref()
			return !set.due(1)
		}, time.Minute, time.Millisecond)
	}
	require.NoError(t, db.Close())
	_, list := faults(t, dir)
	require.Empty(t, list)
}

// folderBytes returns the bytes of all files below a folder.
func folderBytes(t testing.TB, dir string) int64 {
	t.Helper()
	sum := int64(0)
	require.NoError(t, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		sum += info.Size()
		return err
	}))
	return sum
}

// TestDiskAfterOverwrites writes all rows of a table over and over, keeping nothing: what it takes when that is
// compacted and collected is at most twice what the rows take that were written once.
func TestDiskAfterOverwrites(t *testing.T) {
	rows, rounds := fewer[int64](20_000, 4), fewer[int64](100, 2)
	ctx := t.Context()
	dir := t.TempDir()
	db, err := Open(ctx, Options{Dir: dir, Retain: -1, SegmentBytes: 1 << 20})
	require.NoError(t, err)
	keys := make([]int64, rows)
	for i := range keys {
		keys[i] = int64(i)
	}
	sizes := map[string]int64{}
	for name, n := range map[string]int64{"once": 1, "over": rounds} {
		table := createTest(t, db, name, writesSchema)
		for round := range n {
			putKeys(t, db, table, round, keys...)
			require.NoError(t, db.Flush(ctx, table.Name()))
		}
		require.NoError(t, db.Optimize(ctx, table.Name()))
		_, err := db.Vacuum(ctx, table.Name())
		require.NoError(t, err)
		sizes[name] = folderBytes(t, filepath.Join(dir, name+".lance"))
		got := readWrites(t, db, name)
		require.Len(t, got, int(rows))
		require.Equal(t, n-1, got[77][1])
	}
	require.LessOrEqual(t, sizes["over"], 2*sizes["once"])
	require.NoError(t, db.Close())
}
