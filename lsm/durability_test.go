package lsm

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lsm/wal"
)

// openUnhurried opens a DB whose log is synced for somebody who waits, and not by a clock.
func openUnhurried(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(context.Background(), Options{Dir: dir, Memory: minMemory, MemtableBytes: 256 << 10, SegmentBytes: 1 << 20, LogInterval: time.Hour})
	require.NoError(t, err)
	return db
}

// createWrites makes a table of writes with a durability.
func createWrites(t *testing.T, db *DB, name string, d Durability) *Table {
	t.Helper()
	s, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	require.NoError(t, db.CreateTable(context.Background(), TableDef{Name: TableName{Name: name}, Schema: s, Durability: d}))
	table, err := db.Table(TableName{Name: name})
	require.NoError(t, err)
	return table
}

// putOne writes a row and returns its LSN once it is visible.
func putOne(t *testing.T, table *Table, key int64, durable bool) LSN {
	t.Helper()
	rec := writesBatch(table.Schema(), 0, key, []int64{key})
	defer rec.Release()
	lsn, err := table.Put(context.Background(), Batch{Record: rec, Durable: durable})
	require.NoError(t, err)
	require.NoError(t, table.db.Wait(context.Background(), lsn))
	return lsn
}

// writtenKeys returns the keys 1 to n as readWrites has them.
func writtenKeys(n int64) map[int64][2]int64 {
	want := map[int64][2]int64{}
	for k := int64(1); k <= n; k++ {
		want[k] = [2]int64{0, k}
	}
	return want
}

func TestABufferedRowIsVisibleBeforeItIsSynced(t *testing.T) {
	db := openUnhurried(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createWrites(t, db, "b", Buffered)
	for key := int64(1); key <= 3; key++ {
		lsn := putOne(t, table, key, false)
		require.Less(t, db.log.DurableLSN(), lsn)
		require.Equal(t, writtenKeys(key), readWrites(t, db, "b"))
	}
	// A stream that wants more than its table gets it, and takes along what came before.
	lsn := putOne(t, table, 4, true)
	require.GreaterOrEqual(t, db.log.DurableLSN(), lsn)
	putOne(t, table, 5, false)
	require.Equal(t, writtenKeys(5), readWrites(t, db, "b"))
}

func TestTheDurabilityOfATable(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	db := openUnhurried(t, dir)
	for name, d := range map[string]Durability{"d": Durable, "b": Buffered, "n": ""} {
		createWrites(t, db, name, d)
	}
	levels := func() map[string]Durability {
		got := map[string]Durability{}
		for _, table := range db.Tables() {
			got[table.Name().Name] = table.Durability()
		}
		return got
	}
	require.Equal(t, map[string]Durability{"d": Durable, "b": Buffered, "n": Durable}, levels())
	require.NoError(t, db.Close())

	db, err := Open(ctx, Options{Dir: dir, Durability: Buffered})
	require.NoError(t, err)
	require.Equal(t, map[string]Durability{"d": Durable, "b": Buffered, "n": Buffered}, levels())
	s, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	err = db.CreateTable(ctx, TableDef{Name: TableName{Name: "x"}, Schema: s, Durability: "eventual"})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "eventual")
	require.NoError(t, db.Close())
	_, err = Open(ctx, Options{Dir: dir, Durability: "eventual"})
	require.ErrorIs(t, err, ErrInvalid)
}

// TestWhatIsNotAStreamIsDurableInABufferedTable: there is one answer to each of these, and it is final.
func TestWhatIsNotAStreamIsDurableInABufferedTable(t *testing.T) {
	ctx := context.Background()
	db := openUnhurried(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createWrites(t, db, "b", Buffered)
	rec := func(key int64) Batch {
		r := writesBatch(table.Schema(), 0, key, []int64{key})
		t.Cleanup(r.Release)
		return Batch{Record: r}
	}
	requireDurable := func() {
		require.GreaterOrEqual(t, db.log.DurableLSN(), LSN(table.last.Load()))
	}
	putOne(t, table, 1, false)
	_, err := table.Insert(ctx, rec(2).Record)
	require.NoError(t, err)
	requireDurable()

	putOne(t, table, 3, false)
	stage := table.Stage()
	require.NoError(t, stage.Put(ctx, rec(4)))
	_, err = stage.Commit(ctx)
	require.NoError(t, err)
	requireDurable()

	claim, err := db.Claim(ctx, table.Name(), Request{Key: "k", Resume: true})
	require.NoError(t, err)
	lsn, err := claim.Put(ctx, table, rec(5), Answer{Batches: 1, Rows: 1})
	require.NoError(t, err)
	claim.Release()
	require.NoError(t, db.Wait(ctx, lsn))
	requireDurable()
	require.Equal(t, writtenKeys(5), readWrites(t, db, "b"))
}

// TestAFlushWaitsUntilItsRowsAreSynced: a generation outlives the log's tail, so it may hold nothing that the log can
// still lose.
func TestAFlushWaitsUntilItsRowsAreSynced(t *testing.T) {
	ctx := context.Background()
	db := openUnhurried(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createWrites(t, db, "b", Buffered)
	lsn := putOne(t, table, 1, false)
	require.Less(t, db.log.DurableLSN(), lsn)
	require.Less(t, db.trimmable(), lsn)
	require.NoError(t, db.Flush(ctx, table.Name()))
	require.GreaterOrEqual(t, db.log.DurableLSN(), lsn)
	putOne(t, table, 2, false)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	require.Equal(t, writtenKeys(2), readWrites(t, db, "b"))
}

// TestARewriteWaitsUntilWhatItReadIsSynced: what it commits does not go through the log, and may come from any table.
func TestARewriteWaitsUntilWhatItReadIsSynced(t *testing.T) {
	ctx := context.Background()
	db := openUnhurried(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "r", keylessWrites)
	source := createWrites(t, db, "b", Buffered)
	lsn := putOne(t, source, 1, false)
	require.NoError(t, table.Rewrite(ctx, func(ctx context.Context, snap *Snapshot, rw *Rewrite) error {
		require.GreaterOrEqual(t, snap.LSN(), lsn)
		require.Less(t, db.log.DurableLSN(), lsn)
		rec := writesBatch(table.Schema(), 0, 1, []int64{1})
		defer rec.Release()
		return rw.Put(ctx, rec)
	}))
	require.GreaterOrEqual(t, db.log.DurableLSN(), lsn)
}

// TestAPowerCutTakesASuffixOfBufferedRows goes on with the folder as it was at its last sync: what was durable then is
// there, what was acknowledged as buffered since is not, and its LSNs are not given again.
func TestAPowerCutTakesASuffixOfBufferedRows(t *testing.T) {
	dir := t.TempDir()
	db := openUnhurried(t, dir)
	b, d := createWrites(t, db, "b", Buffered), createWrites(t, db, "d", Durable)
	putOne(t, b, 1, false)
	putOne(t, d, 1, false)
	require.Equal(t, db.log.AppendedLSN(), db.log.DurableLSN())
	cut := crashCopy(t, dir)
	var last LSN
	for key := int64(2); key <= 9; key++ {
		last = putOne(t, b, key, false)
	}
	require.Less(t, db.log.DurableLSN(), last)
	killed := crashCopy(t, dir)
	require.NoError(t, db.Close())

	for folder, want := range map[string]int64{cut: 1, killed: 9, dir: 9} { // Close has synced the rest
		db := openUnhurried(t, folder)
		require.Equal(t, writtenKeys(want), readWrites(t, db, "b"))
		require.Equal(t, writtenKeys(1), readWrites(t, db, "d"))
		b, err := db.Table(TableName{Name: "b"})
		require.NoError(t, err)
		require.Greater(t, putOne(t, b, want+1, false), last)
		require.Equal(t, writtenKeys(want+1), readWrites(t, db, "b"))
		require.NoError(t, db.Close())
	}
}

// TestReadersOfADurableTableSeeOnlyWhatIsSynced has writers of both kinds in one log.
func TestReadersOfADurableTableSeeOnlyWhatIsSynced(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), LogInterval: time.Millisecond})
	require.NoError(t, err)
	tables := []*Table{createWrites(t, db, "b", Buffered), createWrites(t, db, "d", Durable)}
	var writing sync.WaitGroup
	for i, table := range tables {
		writing.Go(func() {
			for key := int64(1); key <= 300; key++ {
				rec := writesBatch(table.Schema(), 0, key, []int64{key})
				lsn, err := table.Put(ctx, Batch{Record: rec})
				rec.Release()
				if err == nil && key%int64(3+4*i) == 0 {
					err = db.Wait(ctx, lsn)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		writing.Wait()
		close(done)
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		snap, err := db.Snapshot(ctx)
		require.NoError(t, err)
		durable := db.log.DurableLSN()
		v, err := snap.Table(tables[1].Name())
		require.NoError(t, err)
		for _, m := range v.set.chains[0].memtables() {
			for _, b := range m.rows.Load().batches {
				if b.lsn <= snap.lsn {
					require.LessOrEqual(t, b.lsn, durable)
				}
			}
		}
		snap.Release()
	}
	require.NoError(t, db.Wait(ctx, LSN(max(tables[0].last.Load(), tables[1].last.Load()))))
	require.Equal(t, writtenKeys(300), readWrites(t, db, "b"))
	require.Equal(t, writtenKeys(300), readWrites(t, db, "d"))
	require.NoError(t, db.Close())
}

// TestVisibleIsAPrefixOfWhatReadersMaySee compares the marks with a list of records, in random orders of events.
func TestVisibleIsAPrefixOfWhatReadersMaySee(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		w := newWatermarks()
		s := &shard{}
		var recs []*wal.Record
		synced, indexed := 0, 0
		for range 60 {
			switch r.IntN(3) {
			case 0:
				var group []*wal.Record
				for range 1 + r.IntN(3) {
					lsn := LSN(len(recs) + 1)
					group = append(group, &wal.Record{LSN: lsn, Buffered: r.IntN(2) == 0})
					recs = append(recs, group[len(group)-1])
				}
				w.dispatch(s, group[0].LSN, group[len(group)-1].LSN)
				w.written(group)
			case 1:
				synced += r.IntN(len(recs) - synced + 1)
				w.sync(LSN(synced))
			case 2:
				indexed += r.IntN(len(recs) - indexed + 1)
				w.arrived(s, LSN(indexed))
			}
			want := 0
			for want < indexed && (recs[want].Buffered || want < synced) {
				want++
			}
			require.Equal(t, LSN(want), w.visible(), "seed %d", seed)
		}
	}
}
