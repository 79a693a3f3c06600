package lsm

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// openStore opens a DB in a store, of which another process may seem to be the owner.
func openStore(t *testing.T, st object.Store, change ...func(*Options)) *DB {
	t.Helper()
	db, err := tryOpenStore(st, change...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func tryOpenStore(st object.Store, change ...func(*Options)) (*DB, error) {
	o := Options{Store: st, Takeover: true, SegmentBytes: 1 << 20, manual: true, lease: time.Minute}
	for _, f := range change {
		f(&o)
	}
	return Open(context.Background(), o)
}

// TestADBInAStoreComesBack writes, flushes, merges, drops and replaces tables, and opens the store again, after Close and
// without.
func TestADBInAStoreComesBack(t *testing.T) {
	ctx := context.Background()
	for _, closes := range []bool{true, false} {
		t.Run(fmt.Sprintf("closes=%t", closes), func(t *testing.T) {
			st := object.NewMem()
			db := openStore(t, st)
			reopen := func() {
				t.Helper()
				if closes {
					require.NoError(t, db.Close())
				}
				db = openStore(t, st)
			}
			a := createTest(t, db, "a", writesSchema)
			putKeys(t, db, a, 1, 1, 2, 3)
			reopen()
			require.Equal(t, 3, countRows(t, db, "a"))
			a, err := db.Table(TableName{Name: "a"})
			require.NoError(t, err)
			putKeys(t, db, a, 2, 3, 4)
			require.NoError(t, db.Flush(ctx, a.Name()))
			putKeys(t, db, a, 3, 4, 5)
			require.Equal(t, 5, countRows(t, db, "a"))
			reopen()
			require.Equal(t, 5, countRows(t, db, "a"))
			require.NoError(t, db.Optimize(ctx, TableName{Name: "a"}))
			require.Equal(t, 5, countRows(t, db, "a"))
			reopen()
			require.Equal(t, 5, countRows(t, db, "a"))
			require.NoError(t, db.DropTable(ctx, TableName{Name: "a"}))
			createTest(t, db, "b", writesSchema)
			reopen()
			_, err = db.Table(TableName{Name: "a"})
			require.ErrorIs(t, err, ErrTableNotFound)
			a = createTest(t, db, "a", writesSchema)
			putKeys(t, db, a, 4, 7)
			stage := stageTest(t, db, "b", writesSchema)
			rec := writesBatch(stage.Table().Schema(), 0, 1, []int64{1, 2, 3})
			require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
			rec.Release()
			_, err = stage.Commit(ctx)
			require.NoError(t, err)
			require.Equal(t, 3, countRows(t, db, "b"))
			reopen()
			require.Equal(t, 1, countRows(t, db, "a"))
			require.Equal(t, 3, countRows(t, db, "b"))
		})
	}
}

// epochOf returns the epoch of a table's shard, and how many versions its manifest has.
func epochOf(t *testing.T, db *DB, table *Table) (epoch, version uint64) {
	t.Helper()
	man, err := manifest.LoadShard(context.Background(), db.st, table.shards[0].dir(), manifest.Options{})
	require.NoError(t, err)
	return man.Epoch, man.Version
}

// TestAProcessClaimsAShardOnce looks at the epoch after all that opens a shard: the table is made, by a stage, too, its handle
// is asked for, its memtable is flushed and its generations are merged. Only another process raises it.
func TestAProcessClaimsAShardOnce(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	db := openStore(t, st)
	stage := stageTest(t, db, "a", writesSchema)
	rec := writesBatch(stage.Table().Schema(), 0, 1, []int64{1, 2, 3})
	require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
	rec.Release()
	_, err := stage.Commit(ctx)
	require.NoError(t, err)
	for range 3 {
		table, err := db.Table(TableName{Name: "a"})
		require.NoError(t, err)
		putKeys(t, db, table, 2, 4, 5)
		require.NoError(t, db.Flush(ctx, table.Name()))
		require.NoError(t, db.Optimize(ctx, table.Name()))
		epoch, version := epochOf(t, db, table)
		require.EqualValues(t, 1, epoch)
		man, err := db.home.claimShard(ctx, table.shards[0])
		require.NoError(t, err)
		require.Equal(t, version, man.Version, "a claim that the process has publishes nothing")
		putKeys(t, db, table, 3, 6)
	}
	require.NoError(t, db.Close())
	db = openStore(t, st)
	table, err := db.Table(TableName{Name: "a"})
	require.NoError(t, err)
	epoch, _ := epochOf(t, db, table)
	require.EqualValues(t, 2, epoch)
}

// TestAFencedProcessAcknowledgesNothing has a second process take the data over.
func TestAFencedProcessAcknowledgesNothing(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	old := openStore(t, st)
	table := createTest(t, old, "a", writesSchema)
	putKeys(t, old, table, 1, 1, 2)

	db := openStore(t, st)
	require.Equal(t, 2, countRows(t, db, "a"))
	rec := writesBatch(table.Schema(), 0, 2, []int64{3})
	defer rec.Release()
	lsn, err := table.Put(ctx, Batch{Record: rec})
	if err == nil {
		err = old.Wait(ctx, lsn)
	}
	require.ErrorIs(t, err, ErrFenced)
	require.NotErrorIs(t, err, ErrPoisoned, "no restart is wanted")
	require.ErrorIs(t, old.Err(), ErrFenced, "it is not ready")
	_, err = old.Snapshot(ctx)
	require.ErrorIs(t, err, ErrFenced)
	require.ErrorIs(t, old.Flush(ctx, table.Name()), ErrFenced)
	s, err := rows.Schema("id int64 key")
	require.NoError(t, err)
	require.ErrorIs(t, old.CreateTable(ctx, TableDef{Name: TableName{Name: "c"}, Schema: s}), ErrFenced)

	now, err := db.Table(table.Name())
	require.NoError(t, err)
	putKeys(t, db, now, 3, 3, 4)
	require.Equal(t, 4, countRows(t, db, "a"))
	require.NoError(t, db.Err())
}

// TestTheLogInAStoreIsRemoved flushes, and finds that nothing but sentinels and what is needed stays.
func TestTheLogInAStoreIsRemoved(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	db := openStore(t, st)
	table := createTest(t, db, "a", writesSchema)
	entries := func() int {
		list, err := st.List(ctx, path.Join(table.shards[0].dir(), "wal"))
		require.NoError(t, err)
		return len(list)
	}
	for i := range int64(20) {
		putKeys(t, db, table, i, i)
	}
	require.Equal(t, 21, entries())
	require.NoError(t, db.Flush(ctx, table.Name()))
	require.NoError(t, db.trimNow())
	require.Equal(t, 1, entries(), "the sentinel")
	putKeys(t, db, table, 99, 99)
	db = openStore(t, st)
	require.Equal(t, 21, countRows(t, db, "a"))
}

// trimNow does what the trimmer does.
func (db *DB) trimNow() error {
	db.ddl.Lock()
	defer db.ddl.Unlock()
	return db.trimLog()
}

// TestFoldersInAStoreAreUsedOnce drops, replaces and gives up tables of one name.
func TestFoldersInAStoreAreUsedOnce(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	db := openStore(t, st)
	used := map[string]bool{}
	n := TableName{Name: "a b"}
	note := func(table *Table) {
		t.Helper()
		require.False(t, used[table.root], table.root)
		used[table.root] = true
		require.True(t, len(used) == 1 == (table.root == "a%20b.lance"), table.root)
	}
	note(createTest(t, db, n.Name, writesSchema))
	for range 2 {
		require.NoError(t, db.DropTable(ctx, n))
		note(createTest(t, db, n.Name, writesSchema))
		stage := stageTest(t, db, n.Name, writesSchema)
		note(stage.Table())
		_, err := stage.Commit(ctx)
		require.NoError(t, err)
		stage = stageTest(t, db, n.Name, writesSchema)
		note(stage.Table())
		stage.Abort()
		_, err = st.Stat(ctx, stage.Table().root)
		require.ErrorIs(t, err, object.ErrNotExist)
		lost := stageTest(t, db, n.Name, writesSchema)
		note(lost.Table())
		db = openStore(t, st)
		_, err = st.Stat(ctx, lost.Table().root)
		require.ErrorIs(t, err, object.ErrNotExist, "the process ended before its stage")
	}
	list, err := st.List(ctx, ".")
	require.NoError(t, err)
	folders := 0
	for _, x := range list {
		if strings.HasSuffix(x.Name, folderSuffix) {
			folders++
		}
	}
	require.Equal(t, 1, folders, "of the table that is there")
}

// TestATableInAStoreHasOneShard refuses more, with the reason.
func TestATableInAStoreHasOneShard(t *testing.T) {
	db := openStore(t, object.NewMem())
	s, err := rows.Schema("id int64 key")
	require.NoError(t, err)
	err = db.CreateTable(context.Background(), TableDef{Name: TableName{Name: "a"}, Schema: s, Shards: 2})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "leave shards out")
}

// TestFoldersAndStoresAreNotMixedUp opens each as the other.
func TestFoldersAndStoresAreNotMixedUp(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir)
	require.NoError(t, db.Close())
	_, err := tryOpenStore(object.NewLocal(dir))
	require.ErrorContains(t, err, "format")
	dir = t.TempDir()
	require.NoError(t, openStore(t, object.NewLocal(dir)).Close())
	_, err = Open(context.Background(), Options{Dir: dir})
	require.ErrorContains(t, err, "format")
}

// TestCheckReadsAllVersionsOfTheCatalog damages versions of the catalog in a store that another has followed: each fault
// names its file.
func TestCheckReadsAllVersionsOfTheCatalog(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	for range 3 { // each claims the catalog anew
		db := openStore(t, st)
		if len(db.Tables()) == 0 {
			createTest(t, db, "a", writesSchema)
		}
		require.NoError(t, db.Close())
	}
	faultsOf := func() (files []string) {
		_, err := CheckStore(ctx, "the store", st, func(x Fault) { files = append(files, x.File) })
		require.NoError(t, err)
		return files
	}
	require.Empty(t, faultsOf())
	versions, err := catalogVersions(ctx, st)
	require.NoError(t, err)
	require.Greater(t, len(versions), 2)
	for _, v := range versions {
		name := catalogVersion(v.number)
		b, err := st.Get(ctx, name)
		require.NoError(t, err)
		damaged := bytes.Clone(b)
		damaged[len(damaged)/2] ^= 1
		require.NoError(t, st.Put(ctx, name, damaged))
		require.Contains(t, faultsOf(), name)
		require.NoError(t, st.Put(ctx, name, b))
	}
	// A claim with an epoch that its successors do not know of.
	name := catalogVersion(versions[0].number)
	b, err := st.Get(ctx, name)
	require.NoError(t, err)
	first, _, err := decodeCatalog(name, b)
	require.NoError(t, err)
	first.Claim.Epoch = 1 << 40
	text, err := first.encode()
	require.NoError(t, err)
	require.NoError(t, st.Put(ctx, name, text))
	require.Contains(t, faultsOf(), name)
}
