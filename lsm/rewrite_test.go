package lsm

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/manifest"
)

const keylessSchema = "key int64, writer int64, seq int64"

// rewriteKeys deletes the rows whose key goes, and adds rows with these keys and another seq. It runs while in the
// middle of the statement, and returns how often that was.
func rewriteKeys(t *testing.T, table *Table, seq int64, goes func(key int64) bool, keys []int64, while func()) (runs int, err error) {
	ctx := context.Background()
	err = table.Rewrite(ctx, func(ctx context.Context, snap *Snapshot, rw *Rewrite) error {
		runs++
		v, err := snap.Table(table.Name())
		require.NoError(t, err)
		sc, err := v.Scan(ctx, ScanOptions{Columns: []int{RowAddress, 0}})
		require.NoError(t, err)
		defer sc.Close()
		for {
			m, err := sc.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			for i := range int(m.Record.NumRows()) {
				live := m.Live == nil || slices.Contains(m.Live, uint32(i))
				if live && goes(m.Record.Column(1).(*array.Int64).Value(i)) {
					rw.Delete([]uint64{m.Record.Column(0).(*array.Uint64).Value(i)})
				}
			}
			m.Release()
		}
		rec := writesBatch(table.Schema(), 0, seq, keys)
		defer rec.Release()
		if err := rw.Put(ctx, rec); err != nil {
			return err
		}
		if while != nil {
			while()
		}
		return nil
	})
	return runs, err
}

// keylessTable returns a table whose rows 0 to 29 lie in the base, in a generation and in a memtable.
func keylessTable(t *testing.T, dir string) (*DB, *Table) {
	db := openTest(t, dir)
	table := createTest(t, db, "t", keylessSchema)
	putKeys(t, db, table, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
	require.NoError(t, db.Optimize(t.Context(), table.Name()))
	putKeys(t, db, table, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
	require.NoError(t, db.Flush(t.Context(), table.Name()))
	putKeys(t, db, table, 1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29)
	return db, table
}

// TestRewriteIsOneCommit deletes rows of every layer and adds others, and finds the same after it was opened again.
func TestRewriteIsOneCommit(t *testing.T) {
	dir := t.TempDir()
	db, table := keylessTable(t, dir)
	before := readWrites(t, db, "t")
	old, err := db.Snapshot(t.Context())
	require.NoError(t, err)
	_, err = rewriteKeys(t, table, 2, func(key int64) bool { return key%2 == 0 }, []int64{100, 101}, nil)
	require.NoError(t, err)
	require.Equal(t, before, readWritesAt(t, old, "t"), "a snapshot taken before has what was there")
	old.Release()
	want := readWrites(t, db, "t")
	require.Len(t, want, 17)
	for k, v := range want {
		require.True(t, k%2 == 1 || k == 100)
		require.Equal(t, k >= 100, v[1] == 2)
	}
	_, err = rewriteKeys(t, table, 3, func(int64) bool { return true }, nil, nil)
	require.NoError(t, err)
	require.Empty(t, readWrites(t, db, "t"))
	putKeys(t, db, table, 4, 7)
	require.NoError(t, db.Close())
	_, found := faults(t, dir)
	require.Empty(t, found)
	db = openTest(t, dir)
	require.Equal(t, map[int64][2]int64{7: {0, 4}}, readWrites(t, db, "t"))
	require.NoError(t, db.Close())
}

// TestRewriteBesideOtherWriters has streams, flushes, merges and other programs write while a statement runs: nothing
// of theirs is lost, and the statement runs again only when somebody took rows away from the same fragment.
func TestRewriteBesideOtherWriters(t *testing.T) {
	ctx := t.Context()
	db, table := keylessTable(t, t.TempDir())
	foreign := func(change func(v *manifest.Version) manifest.Change) {
		v, err := manifest.Latest(ctx, db.st, table.root, manifest.Options{})
		require.NoError(t, err)
		_, err = manifest.Commit(ctx, db.st, table.root, v, change(v), manifest.Options{})
		require.NoError(t, err)
	}
	for name, c := range map[string]struct {
		while func()
		again bool
		more  int // rows beside the statement's own
	}{
		"stream":         {while: func() { putKeys(t, db, table, 9, 1001) }, more: 1},
		"stream, merged": {while: func() { putKeys(t, db, table, 9, 1002); require.NoError(t, db.Optimize(ctx, table.Name())) }, more: 1},
		"foreign deletion": {while: func() {
			foreign(func(v *manifest.Version) manifest.Change {
				return manifest.Change{Delete: map[uint64]*roaring.Bitmap{v.Fragments[len(v.Fragments)-1].ID: roaring.BitmapOf(0)}}
			})
		}, again: true, more: -1},
		"nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rewriteKeys(t, table, 1, func(int64) bool { return true }, []int64{0, 1, 2, 3, 4, 5}, nil)
			require.NoError(t, err)
			once := true
			runs, err := rewriteKeys(t, table, 2, func(key int64) bool { return key < 3 }, []int64{50}, func() {
				if once && c.while != nil {
					once = false
					c.while()
				}
			})
			require.NoError(t, err)
			require.Equal(t, c.again, runs == 2, "%d runs", runs)
			got := readWrites(t, db, "t")
			if c.again { // the row that the other program deleted was one that the statement deletes
				c.more = 0
			}
			require.Len(t, got, 4+c.more, "%v", got)
		})
	}
	require.NoError(t, db.Close())
}

// TestRewriteThatFailsChangesNothing fails a statement, and the commit before and behind the moment that decides.
func TestRewriteThatFailsChangesNothing(t *testing.T) {
	all := func(int64) bool { return true }
	isManifest := func(op, name string) bool {
		return op == "putifabsent" && strings.Contains(name, "t.lance/_versions/")
	}
	for name, c := range map[string]struct {
		before, after func(op, name string) error
		stands        bool
	}{
		"before": {before: times(1, isManifest)},
		"after":  {after: times(1, isManifest), stands: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db, table := keylessTable(t, dir)
			require.NoError(t, db.Optimize(t.Context(), table.Name()))
			f := withFaults(db)
			_, err := rewriteKeys(t, table, 2, all, []int64{7}, func() { f.inject(c.before, c.after) })
			require.ErrorIs(t, err, errFault)
			want := 30
			if c.stands {
				want = 1
			}
			require.Len(t, readWrites(t, db, "t"), want)
			crashed := t.TempDir()
			require.NoError(t, os.CopyFS(crashed, os.DirFS(dir)))
			require.NoError(t, db.Close())
			db = openTest(t, crashed)
			require.Len(t, readWrites(t, db, "t"), want)
			require.NoError(t, db.Close())
		})
	}
	dir := t.TempDir()
	db, table := keylessTable(t, dir)
	err := table.Rewrite(t.Context(), func(ctx context.Context, _ *Snapshot, rw *Rewrite) error {
		rw.Delete([]uint64{0, 1, 2})
		rec := writesBatch(table.Schema(), 0, 2, []int64{1, 2})
		defer rec.Release()
		require.NoError(t, rw.Put(ctx, rec))
		return errFault
	})
	require.ErrorIs(t, err, errFault)
	require.Len(t, readWrites(t, db, "t"), 30)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = rewriteKeys(t, table, 2, all, nil, func() {
		cancel()
		require.ErrorIs(t, table.Rewrite(ctx, nil), context.Canceled, "waiting for one's turn ends with the context")
		_, err := table.Put(t.Context(), Batch{Record: writesBatch(table.Schema(), 0, 3, []int64{30})})
		require.NoError(t, err, "a stream goes on while the statement runs")
	})
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// TestModifyWaitsAsLongAsItsContext has a second statement give up while the first one holds the table.
func TestModifyWaitsAsLongAsItsContext(t *testing.T) {
	db := openTest(t, t.TempDir())
	table := createTest(t, db, "t", writesSchema)
	err := table.Modify(t.Context(), func(context.Context, *Snapshot, *Stage) error {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, table.Modify(ctx, nil), context.Canceled)
		_, err := table.Put(ctx, Batch{Record: writesBatch(table.Schema(), 0, 1, []int64{1})})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, db.DropTable(ctx, table.Name()), context.Canceled)
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, db.Close())
}
