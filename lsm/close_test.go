package lsm

import (
	"context"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// waitQueued waits until somebody waits for a gate.
func waitQueued(t *testing.T, g *gate) {
	t.Helper()
	require.Eventually(t, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.queue) > 0
	}, time.Minute, time.Millisecond)
}

// TestDDLThatClosePassesBy has statements wait for a table while the DB is closed: they are told so, and change nothing.
func TestDDLThatClosePassesBy(t *testing.T) {
	ctx := context.Background()
	s, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	for name, do := range map[string]func(db *DB, table *Table) error{
		"alter": func(db *DB, table *Table) error {
			a := unchanged(table)
			require.NoError(t, alterLine(&a, "add c int64 = 5"))
			return db.AlterTable(ctx, table.Name(), a)
		},
		"drop": func(db *DB, table *Table) error { return db.DropTable(ctx, table.Name()) },
		"replace": func(db *DB, table *Table) error {
			stage, err := db.StageTable(ctx, TableDef{Name: table.Name(), Schema: s}, true)
			if err == nil {
				_, err = stage.Commit(ctx)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openTest(t, dir)
			table := createTest(t, db, "t", writesSchema)
			putKeys(t, db, table, 1, 1, 2, 3)
			require.NoError(t, table.writes.lock(ctx))
			result := make(chan error, 1)
			go func() { result <- do(db, table) }()
			waitQueued(t, &table.writes)
			require.NoError(t, db.Close())
			table.writes.unlock()
			require.ErrorIs(t, <-result, ErrClosed)
			db = openTest(t, dir)
			require.Equal(t, 3, countRows(t, db, "t"))
			require.NoError(t, db.Close())
		})
	}
}

// TestCloseAwaitsVacuum closes a DB while a statement removes files: nothing is removed any more when Close returns.
func TestCloseAwaitsVacuum(t *testing.T) {
	dir := t.TempDir()
	hook := &deleteStore{}
	db, err := Open(context.Background(), Options{Dir: dir, Retain: time.Hour, SegmentBytes: 1 << 20, wrap: func(st object.Store) object.Store {
		hook.Store = st
		return hook
	}})
	require.NoError(t, err)
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 4)
	closed := make(chan error, 1)
	var begun sync.Once
	var late atomic.Bool
	hook.arm(func() {
		begun.Do(func() { go func() { closed <- db.Close() }() })
		<-db.stop.Done()
	}, func() {
		if _, err := lockFolder(dir); err == nil {
			late.Store(true)
		}
	})
	if _, err = vacuumOld(t, db, dir, "p"); err != nil { // it may have been at its last file
		require.ErrorIs(t, err, ErrClosed)
	}
	require.NoError(t, <-closed)
	require.False(t, late.Load(), "the folder was somebody else's to take")
}

// deleteStore calls functions before and after each removal, under no lock.
type deleteStore struct {
	object.Store
	hooks atomic.Pointer[[2]func()]
}

func (d *deleteStore) arm(before, after func()) { d.hooks.Store(&[2]func(){before, after}) }

// Delete implements object.Store.
func (d *deleteStore) Delete(ctx context.Context, name string) error {
	h := d.hooks.Load()
	if h == nil {
		return d.Store.Delete(ctx, name)
	}
	h[0]()
	err := d.Store.Delete(ctx, name)
	h[1]()
	return err
}

// hookStore calls a function behind each publication, under no lock.
type hookStore struct {
	object.Store
	published func(name string)
}

// PutIfAbsent implements object.Store.
func (h *hookStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	err := h.Store.PutIfAbsent(ctx, name, data)
	h.published(name)
	return err
}

// TestOptimizeOfATableThatIsDropped drops a table while a memtable is flushed for a merge.
func TestOptimizeOfATableThatIsDropped(t *testing.T) {
	ctx := context.Background()
	var armed atomic.Pointer[Table]
	dropped := make(chan error, 1)
	hook := &hookStore{published: func(name string) {
		if table := armed.Load(); table != nil && strings.Contains(name, "_gen_") {
			armed.Store(nil)
			go func() { dropped <- table.db.DropTable(ctx, table.Name()) }()
			<-table.stop.Done()
		}
	}}
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: func(st object.Store) object.Store {
		hook.Store = st
		return hook
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "p", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	armed.Store(table)
	require.ErrorIs(t, db.Optimize(ctx, table.Name()), ErrTableNotFound)
	require.NoError(t, <-dropped)
}

// TestCollectionOfATableThatWasDropped ends in a folder that is another table's by now: it leaves that alone.
func TestCollectionOfATableThatWasDropped(t *testing.T) {
	ctx := context.Background()
	db := openRetain(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 4)
	hint := path.Join(table.root, "_versions", "latest_version_hint.json")
	require.NoError(t, db.st.Put(ctx, hint, []byte(`{"version":1}`))) // as another program leaves it
	h := manifest.TableHistory(db.st, table.root, manifest.Options{})
	chain, err := h.List(ctx)
	require.NoError(t, err)
	require.Greater(t, len(chain), 2)
	c := &collection{t: table, st: db.st}
	require.NoError(t, db.DropTable(ctx, table.Name()))
	require.ErrorIs(t, c.removeVersions(ctx, h, chain, chain[:1]), ErrTableNotFound)
	createTest(t, db, "p", writesSchema)
	require.ErrorIs(t, c.removeVersions(ctx, h, chain, chain[:1]), ErrTableNotFound)
	require.Equal(t, 0, countRows(t, db, "p"))
	v, err := manifest.Latest(ctx, db.st, table.root, manifest.Options{})
	require.NoError(t, err)
	require.EqualValues(t, 1, v.Number)
}

// TestTheEndOfATableEndsItsWriters drops a table, and closes the DB, while writers wait for memory that a snapshot keeps.
func TestTheEndOfATableEndsItsWriters(t *testing.T) {
	for want, end := range map[error]func(db *DB, table *Table) error{
		ErrClosed:        func(db *DB, _ *Table) error { return db.Close() },
		ErrTableNotFound: func(db *DB, table *Table) error { return db.DropTable(context.Background(), table.Name()) },
	} {
		t.Run(want.Error(), func(t *testing.T) {
			ctx := context.Background()
			db := openTest(t, t.TempDir())
			defer func() { require.NoError(t, db.Close()) }()
			table := createTest(t, db, "t", writesSchema)
			putKeys(t, db, table, 1, 1, 2, 3)
			snap, err := db.Snapshot(ctx)
			require.NoError(t, err)
			defer snap.Release()
			db.budget.limit = 1
			rec := writesBatch(table.Schema(), 0, 1, []int64{4})
			defer rec.Release()
			result := make(chan error, 3)
			go func() { result <- tryPut(table, 4) }()
			go func() {
				_, err := table.Put(ctx, Batch{Record: rec, Keep: []int{1}})
				result <- err
			}()
			go func() { result <- streamOne(t, table.Stream(nil), 4, 1) }()
			require.Eventually(t, func() bool { return db.budget.waiting.Load() == 3 }, time.Minute, time.Millisecond)
			require.NoError(t, end(db, table))
			for range cap(result) {
				select {
				case err := <-result:
					require.ErrorIs(t, err, want)
				case <-time.After(time.Minute):
					require.Fail(t, "a writer waits on")
				}
			}
		})
	}
}

// TestCloseRefusesToMakeRoom: a writer who finds the disk full while the DB closes does not begin to flush and merge in a
// folder that may be another's by then.
func TestCloseRefusesToMakeRoom(t *testing.T) {
	db := openTest(t, t.TempDir())
	began := 0
	db.space.relieve = func() { began++ }
	require.NoError(t, db.space.waitRelief(context.Background()))
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.space.waitRelief(context.Background()), ErrClosed)
	require.Equal(t, 1, began)
}

// TestAFolderIsFreeWhileAProcessIsForked: between fork and exec a child has all files of its parent, the lock among them.
func TestAFolderIsFreeWhileAProcessIsForked(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockFolder(dir)
	require.NoError(t, err)
	child, err := unix.Dup(int(lock.f.Fd()))
	require.NoError(t, err)
	defer unix.Close(child)
	_, err = lockFolder(dir)
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, lock.unlock())
	lock, err = lockFolder(dir)
	require.NoError(t, err)
	require.NoError(t, lock.unlock())
}
