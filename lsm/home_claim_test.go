package lsm

import (
	"context"
	"errors"
	"path"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// TestALeaseKeepsOthersOff opens a store that has an owner: one that lives, one that ended in order and one that was killed.
// (Nothing is written: the log's channels are used again, and those of the bubble are no good outside.)
func TestALeaseKeepsOthersOff(t *testing.T) {
	waits := func(o *Options) { o.Takeover, o.lease = false, 8*time.Second }
	synctest.Test(t, func(t *testing.T) {
		st := object.NewMem()
		began := time.Now()
		db := openStore(t, st, waits)
		require.Zero(t, time.Since(began), "nobody had it")
		_, err := tryOpenStore(st, waits)
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, "process")
		require.NoError(t, db.Err(), "the owner is left alone")
		require.NoError(t, db.Close())

		began = time.Now()
		db = openStore(t, st, waits)
		require.Zero(t, time.Since(began), "it was given up")

		// A process that is killed leaves all but the lease's renewals.
		image := st.CrashClone(nil)
		began = time.Now()
		next := openStore(t, image, waits)
		require.InDelta(t, 8, time.Since(began).Seconds(), 4)

		took := openStore(t, image)
		time.Sleep(8 * time.Second)
		require.ErrorIs(t, next.Err(), ErrFenced, "it learns that by its lease, without writing")
		require.NoError(t, took.Err())
		require.ErrorIs(t, next.Close(), ErrFenced)
		require.NoError(t, took.Close())
		require.NoError(t, db.Close())
	})
}

// TestAClaimOfWhichTheAnswerIsLostCounts loses answers to puts of versions of the catalog, of the claim and of checkpoints.
func TestAClaimOfWhichTheAnswerIsLostCounts(t *testing.T) {
	ctx := context.Background()
	mem := object.NewMem()
	lost := 0
	f := &faultStore{Store: mem}
	f.inject(nil, func(op, name string) error {
		if op == "putifabsent" && path.Dir(name) == catalogFolder && lost < 3 {
			lost++
			return object.ErrExists
		}
		return nil
	})
	db := openStore(t, f)
	createTest(t, db, "a", writesSchema)
	table := createTest(t, db, "b", writesSchema)
	putKeys(t, db, table, 1, 1, 2)
	require.Equal(t, 3, lost)
	require.NoError(t, db.home.owned(ctx))
	epoch, _ := epochOf(t, db, table)
	require.EqualValues(t, 1, epoch)
	require.NoError(t, db.Close())
	db = openStore(t, mem)
	require.Len(t, db.Tables(), 2)
}

// TestOneOfManyClaimsWins has many processes claim at once.
func TestOneOfManyClaimsWins(t *testing.T) {
	st := object.NewMem()
	dbs := make([]*DB, 8)
	var all sync.WaitGroup
	for i := range dbs {
		all.Go(func() {
			db, err := tryOpenStore(st)
			if err == nil {
				dbs[i] = db
			} else if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrInUse) {
				t.Errorf("open: %v", err)
			}
		})
	}
	all.Wait()
	owners := 0
	for _, db := range dbs {
		if db == nil {
			continue
		}
		if db.home.owned(context.Background()) == nil {
			owners++
		} else {
			require.ErrorIs(t, db.Err(), ErrFenced)
		}
		_ = db.Close() // those that were overtaken say so
	}
	require.LessOrEqual(t, owners, 1)
	require.NoError(t, openStore(t, st).Err())
}

// TestAnOwnerThatSleptCannotWrite has an owner sleep while others claim, write and collect all that they may.
func TestAnOwnerThatSleptCannotWrite(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	slept := openStore(t, st)
	table := createTest(t, slept, "a", writesSchema)
	putKeys(t, slept, table, 1, 1)
	old := table.shards[0].manifest()
	for i := range int64(3) {
		db := openStore(t, st, func(o *Options) { o.Retain = -1 })
		db.home.(*objectHome).after = 1 // nanosecond: what can go, goes
		now, err := db.Table(table.Name())
		require.NoError(t, err)
		for j := range int64(3) {
			putKeys(t, db, now, 2+i, 10*i+j)
			require.NoError(t, db.Flush(ctx, now.Name()))
			require.NoError(t, db.Optimize(ctx, now.Name()))
			_, err = db.Vacuum(ctx, now.Name())
			require.NoError(t, err)
			createTest(t, db, "x", writesSchema)
			require.NoError(t, db.DropTable(ctx, TableName{Name: "x"}))
		}
		require.NoError(t, db.Close())
	}
	versions, err := catalogVersions(ctx, st)
	require.NoError(t, err)
	require.Less(t, len(versions), 6, "old versions go")
	chain, err := manifest.ShardHistory(st, table.shards[0].dir(), manifest.Options{}).List(ctx)
	require.NoError(t, err)
	require.Less(t, len(chain), 10, "so do those of the shard, but for claims")
	_, err = old.Commit(ctx, st, table.shards[0].dir(), func(n *manifest.Shard) { n.LastSeen++ })
	require.ErrorIs(t, err, manifest.ErrFenced, "the claim that followed it is still there")
	rec := writesBatch(table.Schema(), 0, 2, []int64{99})
	defer rec.Release()
	lsn, err := table.Put(ctx, Batch{Record: rec})
	if err == nil {
		err = slept.Wait(ctx, lsn)
	}
	require.ErrorIs(t, err, ErrFenced)
	require.Equal(t, 9, countRows(t, openStore(t, st), "a"))
}

// TestAStageOverAnAlterInAStore commits batches of two schemas together.
func TestAStageOverAnAlterInAStore(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	db := openStore(t, st)
	table := createTest(t, db, "a", keylessWrites)
	stage := table.Stage()
	stageKeys(t, stage, []int64{1, 2})
	a := unchanged(table)
	require.NoError(t, alterLine(&a, "rename seq other"))
	require.NoError(t, db.AlterTable(ctx, table.Name(), a))
	rec := writesBatch(table.Schema(), 0, 1, []int64{3, 4, 5})
	require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
	rec.Release()
	_, err := stage.Commit(ctx)
	require.NoError(t, err)
	require.Equal(t, 5, countRows(t, db, "a"))
	db = openStore(t, st)
	require.Equal(t, 5, countRows(t, db, "a"))
}

// TestARequestIsAppliedOnceInAStore answers requests after the entries that told of them are gone, over several processes.
func TestARequestIsAppliedOnceInAStore(t *testing.T) {
	ctx := context.Background()
	st := object.NewMem()
	for i := range 4 {
		db := openStore(t, st)
		if i == 0 {
			createTest(t, db, "t", keylessWrites)
		}
		table, err := db.Table(TableName{Name: "t"})
		require.NoError(t, err)
		for j := range i + 1 {
			c, a := claimTest(t, db, "t", string(rune('a'+j)), false)
			require.Equal(t, j < i, a.Complete, "key %d in process %d", j, i)
			if !a.Complete {
				stage := table.Stage()
				stageKeys(t, stage, []int64{1, 2, 3})
				stage.Under(c, 1)
				_, err := stage.Commit(ctx)
				require.NoError(t, err)
			}
			c.Release()
		}
		putKeys(t, db, table, 1, 9)
		require.NoError(t, db.Flush(ctx, table.Name()))
		if i%2 == 0 { // else the process ends between the manifest and the removal
			require.NoError(t, db.trimNow())
		}
		require.Equal(t, 4*(i+1), countRows(t, db, "t"))
	}
}
