package lsm

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

func TestTheIndexModeOfATable(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	s, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	db := openUnhurried(t, dir)
	for name, mode := range map[string]IndexMode{"s": Sync, "a": Async, "n": ""} {
		require.NoError(t, db.CreateTable(ctx, TableDef{Name: TableName{Name: name}, Schema: s, IndexMode: mode}))
	}
	modes := func() map[string][2]IndexMode { // what WITH said, and what holds
		got := map[string][2]IndexMode{}
		for _, table := range db.Tables() {
			d, _ := table.Definition()
			got[table.Name().Name] = [2]IndexMode{d.IndexMode, table.IndexMode()}
		}
		return got
	}
	want := map[string][2]IndexMode{"s": {Sync, Sync}, "a": {Async, Async}, "n": {"", Sync}}
	require.Equal(t, want, modes())
	require.NoError(t, db.Close())

	db = openUnhurried(t, dir)
	require.Equal(t, want, modes())
	err = db.CreateTable(ctx, TableDef{Name: TableName{Name: "x"}, Schema: s, IndexMode: "eager"})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, `index mode "eager"`)
	require.NoError(t, db.Close())
}

// TestIndexesFollow holds the indexes of a table back, writes and reads what they do not have, and lets them go.
func TestIndexesFollow(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	s, err := rows.Schema(writesSchema)
	require.NoError(t, err)
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: TableName{Name: "w"}, Schema: s, IndexMode: Async}))
	table, err := db.Table(TableName{Name: "w"})
	require.NoError(t, err)
	tail := func() int { return len(table.shards[0].chain().active().rows.Load().tail().batches) }
	want := map[int64][2]int64{}
	put := func(n int64) {
		for i := range n {
			putOne(t, table, i, false)
			want[i] = [2]int64{0, i}
		}
	}
	put(10)
	require.Eventually(t, func() bool { return tail() == 0 }, time.Minute, time.Millisecond)
	db.holdIndexes.Store(true)
	put(30)
	require.Equal(t, 30, tail())
	require.Equal(t, want, readWrites(t, db, "w"))
	rec := writesBatch(table.Schema(), 0, 1, []int64{29})
	_, err = table.Insert(ctx, rec)
	rec.Release()
	require.ErrorIs(t, err, ErrKeyExists)
	require.NoError(t, db.Flush(ctx, table.Name()), "a memtable that is frozen has its indexes")
	require.Equal(t, want, readWrites(t, db, "w"))
	put(20)
	require.Equal(t, 20, tail())
	db.holdIndexes.Store(false)
	put(1) // wakes the applier
	require.Eventually(t, func() bool { return tail() == 0 }, time.Minute, time.Millisecond)
	require.Equal(t, want, readWrites(t, db, "w"))
	db.holdIndexes.Store(true)
	put(5)
	require.NoError(t, db.Close())

	db = openTest(t, db.opt.Dir)
	table, err = db.Table(TableName{Name: "w"})
	require.NoError(t, err)
	require.Zero(t, tail(), "a replay leaves no tail")
	require.Equal(t, want, readWrites(t, db, "w"))
	require.NoError(t, db.Close())
}
