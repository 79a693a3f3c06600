package lsm

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/object"
)

var errFault = errors.New("injected: no space left on device")

// faultStore is the store of a DB with faults: before runs ahead of a call and may fail it, after runs behind it and
// may make it fail though it happened. What they get is the call, "put", "putifabsent" or "delete", and the name.
type faultStore struct {
	object.Store
	mu            sync.Mutex
	before, after func(op, name string) error
}

// faulty is Options.wrap of tests.
func faulty(st object.Store) object.Store { return &faultStore{Store: st} }

// withFaults returns the faultStore under a DB that was opened with faulty.
func withFaults(db *DB) *faultStore { return db.st.(*faultStore) }

// openStale opens a folder whose checkpoint of the catalog cannot be written: its DDL is in the log alone, which is kept
// for it.
func openStale(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(context.Background(), Options{Dir: dir, SegmentBytes: 1 << 20, wrap: func(st object.Store) object.Store {
		f := &faultStore{Store: st}
		f.inject(times(math.MaxInt, isCatalog), nil)
		return f
	}})
	require.NoError(t, err)
	return db
}

// inject sets the faults; nil is none.
func (f *faultStore) inject(before, after func(op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

func (f *faultStore) fault(after bool, op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.before
	if after {
		h = f.after
	}
	if h == nil {
		return nil
	}
	return h(op, name)
}

// Sync is that of object.Local.
func (f *faultStore) Sync(ctx context.Context, name string) error {
	return f.Store.(*object.Local).Sync(ctx, name)
}

// Put implements object.Store.
func (f *faultStore) Put(ctx context.Context, name string, data []byte) error {
	if err := f.fault(false, "put", name); err != nil {
		return err
	}
	return errors.Join(f.Store.Put(ctx, name, data), f.fault(true, "put", name))
}

// PutIfAbsent implements object.Store.
func (f *faultStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if err := f.fault(false, "putifabsent", name); err != nil {
		return err
	}
	if err := f.Store.PutIfAbsent(ctx, name, data); err != nil {
		return err
	}
	return f.fault(true, "putifabsent", name)
}

// Delete implements object.Store.
func (f *faultStore) Delete(ctx context.Context, name string) error {
	if err := f.fault(false, "delete", name); err != nil {
		return err
	}
	return errors.Join(f.Store.Delete(ctx, name), f.fault(true, "delete", name))
}

// isShardManifest and isCatalog say which calls fail.
func isShardManifest(op, name string) bool {
	return op == "putifabsent" && strings.Contains(name, "/_mem_wal/") && strings.HasSuffix(name, ".binpb")
}

func isCatalog(op, name string) bool { return op == "put" && name == catalogFile }

// times fails the first n calls that match.
func times(n int, match func(op, name string) bool) func(op, name string) error {
	return func(op, name string) error {
		if n == 0 || !match(op, name) {
			return nil
		}
		n--
		return errFault
	}
}

// putKeys writes one row for each key and waits until they are visible.
func putKeys(t *testing.T, db *DB, table *Table, seq int64, keys ...int64) {
	t.Helper()
	rec := writesBatch(table.Schema(), 0, seq, keys)
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(context.Background(), lsn))
}

// countRows returns the number of rows of a table.
func countRows(t *testing.T, db *DB, name string) int {
	t.Helper()
	snap, err := db.Snapshot(context.Background())
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: name})
	require.NoError(t, err)
	lines, err := scanRows(context.Background(), v, []int{0})
	require.NoError(t, err)
	return len(lines)
}

// TestMergeThatCommittedIsNotRepeated has the base take generations over while the shard's manifest cannot be trimmed:
// the next merge must not append their rows again.
func TestMergeThatCommittedIsNotRepeated(t *testing.T) {
	for name, schema := range map[string]string{"keyless": "key int64, writer int64, seq int64", "keyed": writesSchema} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			db := openTest(t, dir)
			f := withFaults(db)
			table := createTest(t, db, "p", schema)
			putKeys(t, db, table, 1, 1, 2, 3)
			require.NoError(t, db.Flush(ctx, table.Name()))
			f.inject(times(1, isShardManifest), nil)
			require.ErrorIs(t, db.Optimize(ctx, table.Name()), errFault)
			putKeys(t, db, table, 1, 4)
			require.NoError(t, db.Optimize(ctx, table.Name()))
			require.Equal(t, 4, countRows(t, db, "p"))
			require.NoError(t, db.Close())
			db = openTest(t, dir)
			require.Equal(t, 4, countRows(t, db, "p"))
			require.NoError(t, db.Close())
		})
	}
}

// TestCatalogThatCannotBeWritten drops a table and makes another of the same name while only the log takes DDL: replay
// must not take the new table's folder for the old one's.
func TestCatalogThatCannotBeWritten(t *testing.T) {
	ctx := context.Background()
	for name, schema := range map[string]string{"same schema": writesSchema, "other schema": "x utf8 key, y double"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openTest(t, dir)
			f := withFaults(db)
			createTest(t, db, "a", writesSchema)
			f.inject(times(-1, isCatalog), nil)
			require.NoError(t, db.DropTable(ctx, TableName{Name: "a"}))
			stage := stageTest(t, db, "a", schema)
			want := 0
			if schema == writesSchema {
				rec := writesBatch(stage.Table().Schema(), 0, 1, []int64{1, 2, 3})
				require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
				rec.Release()
				want = 3
			}
			_, err := stage.Commit(ctx)
			require.NoError(t, err)
			require.NoError(t, db.Close())
			db = openTest(t, dir)
			require.Equal(t, want, countRows(t, db, "a"))
			require.NoError(t, db.Close())
		})
	}
}

// stageTest begins a stage that makes or replaces a table.
func stageTest(t *testing.T, db *DB, name, schema string) *Stage {
	t.Helper()
	return stageShards(t, db, name, schema, 0)
}

// stageShards is stageTest for a table with several shards.
func stageShards(t *testing.T, db *DB, name, schema string, shards int) *Stage {
	t.Helper()
	s, err := rows.Schema(schema)
	require.NoError(t, err)
	stage, err := db.StageTable(context.Background(), TableDef{Name: TableName{Name: name}, Schema: s, Shards: shards}, true)
	require.NoError(t, err)
	return stage
}

// TestReplayOfAReplaceTwice restores the catalog of before a replace: a crash between log and checkpoint, and one in
// the replay that followed, leave that.
func TestReplayOfAReplaceTwice(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir)
	createTest(t, db, "a", writesSchema)
	require.NoError(t, db.Close())
	db = openStale(t, dir)
	_, err := stageTest(t, db, "a", "x utf8 key, y double").Commit(context.Background())
	require.NoError(t, err)
	require.NoError(t, db.Close())
	for range 2 {
		db = openStale(t, dir)
		require.Equal(t, 0, countRows(t, db, "a"))
		require.NoError(t, db.Close())
	}
}

// TestShardCommitThatFailedAndStands makes the commit of a shard's manifest report a failure though it is on disk, as a
// failed sync of the folder does: flushes go on, and the folder opens again with what the manifest names.
func TestShardCommitThatFailedAndStands(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db, err := Open(ctx, Options{Dir: dir, wrap: faulty, StageBytes: 1000})
	require.NoError(t, err)
	f := withFaults(db)
	table := createTest(t, db, "a", writesSchema)
	putKeys(t, db, table, 1, 1)
	f.inject(nil, times(1, isShardManifest))
	require.ErrorIs(t, db.Flush(ctx, table.Name()), errFault)
	require.NoError(t, db.Flush(ctx, table.Name()))

	stage := table.Stage()
	for i := range int64(4) {
		rec := writesBatch(table.Schema(), 0, 1, []int64{10 + i, 100 + i})
		require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
		rec.Release()
	}
	f.inject(nil, times(1, isShardManifest))
	_, err = stage.Commit(ctx)
	require.NoError(t, err, "the log has it, and the manifest is tried again")
	require.Equal(t, 9, countRows(t, db, "a"))
	require.NoError(t, db.Close())
	db = openTest(t, dir)
	require.Equal(t, 9, countRows(t, db, "a"))
	require.NoError(t, db.Close())
}

// TestSpillAfterDrop spills a stage of a table that was dropped: its name is free all the same.
func TestSpillAfterDrop(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, StageBytes: 1000})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "a", writesSchema)
	stage := table.Stage()
	defer stage.Abort()
	require.NoError(t, db.DropTable(ctx, table.Name()))
	for i := int64(0); err == nil; i++ {
		rec := writesBatch(table.Schema(), 0, 1, []int64{i})
		err = stage.Put(ctx, Batch{Record: rec})
		rec.Release()
	}
	require.ErrorIs(t, err, ErrTableNotFound)
	createTest(t, db, "a", writesSchema)
}

// TestOverwriteDoesNotBringMergedRowsBack has the base take generations over while the shard's manifest cannot be
// trimmed, and then Lance overwrite the table, which drops what it knew of generations: they stay merged.
func TestOverwriteDoesNotBringMergedRowsBack(t *testing.T) {
	python.Need(t)
	for _, reopen := range []bool{false, true} {
		ctx := context.Background()
		dir := t.TempDir()
		db := openTest(t, dir)
		f := withFaults(db)
		table := createTest(t, db, "p", writesSchema)
		putKeys(t, db, table, 1, 1, 2, 3)
		require.NoError(t, db.Flush(ctx, table.Name()))
		f.inject(times(1, isShardManifest), nil)
		require.ErrorIs(t, db.Optimize(ctx, table.Name()), errFault)
		if reopen {
			require.NoError(t, db.Close())
		}
		script := `import lance, sys
d = lance.dataset(sys.argv[1])
lance.write_dataset(d.to_table().slice(0, 1), sys.argv[1], mode="overwrite")`
		python.Run(t, script, filepath.Join(dir, "p.lance"))
		if reopen {
			db = openTest(t, dir)
		} else {
			require.NoError(t, db.Optimize(ctx, table.Name()))
		}
		require.Equal(t, 1, countRows(t, db, "p"))
		require.NoError(t, db.Close())
	}
}

// TestStageOfAClosedDB writes nothing any more into a folder that may be another process's.
func TestStageOfAClosedDB(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db, err := Open(ctx, Options{Dir: dir, wrap: faulty, StageBytes: 100})
	require.NoError(t, err)
	table := createTest(t, db, "p", writesSchema)
	stage := table.Stage()
	rec := writesBatch(table.Schema(), 0, 1, []int64{1, 2, 3})
	defer rec.Release()
	require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
	require.NoError(t, db.Close())
	before := filesBelow(t, dir)
	require.ErrorIs(t, stage.Put(ctx, Batch{Record: rec}), ErrClosed)
	require.Equal(t, before, filesBelow(t, dir))
	stage.Abort()
}
