package lsm

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// heldMerge is a DB in which a commit of a table's base can be held up.
type heldMerge struct {
	db *DB
	// armed makes the next commit wait: it closes began when the version is there, and goes on when resume is closed.
	armed         atomic.Bool
	began, resume chan struct{}
}

// openHeld opens a DB whose merges can be held up.
func openHeld(t *testing.T) *heldMerge {
	t.Helper()
	h := &heldMerge{began: make(chan struct{}), resume: make(chan struct{})}
	hook := &hookStore{published: func(name string) {
		if strings.Contains(name, ".lance/_versions/") && !strings.Contains(name, "_gen_") && h.armed.CompareAndSwap(true, false) {
			close(h.began)
			<-h.resume
		}
	}}
	var err error
	h.db, err = Open(context.Background(), Options{Dir: t.TempDir(), Memory: minMemory, MemtableBytes: 256 << 10, SegmentBytes: 1 << 20,
		wrap: func(st object.Store) object.Store {
			hook.Store = st
			return hook
		}})
	require.NoError(t, err)
	return h
}

// TestFlushesDoNotWaitForAMerge flushes, and reads, while a merge is between its commit and its publication: what is
// flushed meanwhile replaces rows that the merge brings into the base.
func TestFlushesDoNotWaitForAMerge(t *testing.T) {
	ctx := context.Background()
	h := openHeld(t)
	defer func() { require.NoError(t, h.db.Close()) }()
	table := createTest(t, h.db, "t", writesSchema)
	putKeys(t, h.db, table, 1, 1, 2, 3, 4, 5, 6)
	require.NoError(t, h.db.Optimize(ctx, table.Name()))
	putKeys(t, h.db, table, 2, 1, 2, 3)
	h.armed.Store(true)
	merged := make(chan error, 1)
	go func() { merged <- h.db.Optimize(ctx, table.Name()) }()
	<-h.began
	putKeys(t, h.db, table, 3, 2, 4)
	require.NoError(t, h.db.Flush(ctx, table.Name()))
	putKeys(t, h.db, table, 4, 1, 4, 7)
	require.NoError(t, h.db.Flush(ctx, table.Name()))
	putKeys(t, h.db, table, 5, 5)
	want := map[int64][2]int64{1: {0, 4}, 2: {0, 3}, 3: {0, 2}, 4: {0, 4}, 5: {0, 5}, 6: {0, 1}, 7: {0, 4}}
	require.Equal(t, want, readWrites(t, h.db, "t"))
	before, err := h.db.Snapshot(ctx)
	require.NoError(t, err)
	defer before.Release()
	close(h.resume)
	require.NoError(t, <-merged)
	require.Equal(t, want, readWrites(t, h.db, "t"))
	require.Equal(t, want, readWritesAt(t, before, "t"))
	require.Len(t, table.set.Load().chains[0].generations(), 2)
	require.NoError(t, h.db.Optimize(ctx, table.Name()))
	require.Equal(t, want, readWrites(t, h.db, "t"))
	require.EqualValues(t, 7, table.set.Load().base.rows)
}

// TestWritersWaitForAMerge flushes until there are so many generations that writers wait.
func TestWritersWaitForAMerge(t *testing.T) {
	ctx := context.Background()
	h := openHeld(t)
	defer func() { require.NoError(t, h.db.Close()) }()
	table := createTest(t, h.db, "t", writesSchema)
	h.armed.Store(true)
	most := 0
	for seq := int64(0); most < stallShare*maxGenerations; seq++ {
		putKeys(t, h.db, table, seq, seq)
		require.NoError(t, h.db.Flush(ctx, table.Name()), "flushes do not wait")
		_, most = table.set.Load().generations()
		if seq == maxGenerations { // the merge is under way and held
			<-h.began
		}
	}
	gone, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("gone"))
	rec := writesBatch(table.Schema(), 0, 1, []int64{1})
	defer rec.Release()
	_, err := table.Put(gone, Batch{Record: rec})
	require.ErrorContains(t, err, "gone")
	require.NoError(t, h.db.Flush(ctx, table.Name()), "nor do they now")
	close(h.resume)
	putKeys(t, h.db, table, 1000, 1)
	require.Len(t, readWrites(t, h.db, "t"), stallShare*maxGenerations)
}

// TestWritersDoNotWaitForAMergeThatFails has a merge fail for good.
func TestWritersDoNotWaitForAMergeThatFails(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	putKeys(t, db, table, 1, 1)
	withFaults(db).inject(func(op, name string) error {
		if op == "putifabsent" && strings.HasPrefix(name, "t.lance/_versions/") {
			return errFault
		}
		return nil
	}, nil)
	for seq := int64(0); ; seq++ {
		putKeys(t, db, table, seq, seq)
		require.NoError(t, db.Flush(ctx, table.Name()))
		if table.set.Load().due(stallShare) {
			break
		}
	}
	putKeys(t, db, table, 1000, 1)
	withFaults(db).inject(nil, nil)
	require.NoError(t, db.Optimize(ctx, table.Name()))
	require.Equal(t, [2]int64{0, 1000}, readWrites(t, db, "t")[1])
}

// TestMergesGoOnWhenARewriteFails has an order write fragments anew in vain. What becomes due after that is merged at once,
// and not when the rewrite may be tried again.
func TestMergesGoOnWhenARewriteFails(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	withFaults(db).inject(func(op, name string) error {
		if frags, _ := baseOf(table); op == "putifabsent" && len(frags) >= smallFan && strings.HasPrefix(name, "t.lance/_versions/") {
			return errFault // once as many are there as are put together, which is what is committed next
		}
		return nil
	}, nil)
	seq := int64(0)
	for err := error(nil); err == nil; seq++ {
		require.Less(t, seq, int64(100))
		putKeys(t, db, table, seq, seq)
		err = db.Optimize(ctx, table.Name())
	}
	again := time.Now().Add(maxRetry)
	withFaults(db).inject(nil, nil)
	for range maxGenerations {
		putKeys(t, db, table, seq, seq)
		require.NoError(t, db.Flush(ctx, table.Name()))
		seq++
	}
	require.Eventually(t, func() bool {
		set := table.holdSet()
		defer set.unref()
		all, _ := set.generations()
		return all == 0
	}, time.Until(again), 10*time.Millisecond)
	require.Len(t, readWrites(t, db, "t"), int(seq))
}
