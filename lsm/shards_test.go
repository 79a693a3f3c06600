package lsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// flushShard flushes one shard of a table, so that it is ahead of the others.
func flushShard(t *testing.T, table *Table, shard int) {
	t.Helper()
	s := table.shards[shard]
	require.NoError(t, s.order(context.Background(), s.flushAll))
}

// TestShardsFlushApart writes batches over all shards and flushes them one by one, so that the log has some rows of a
// batch that another shard's generations have, too. Crashes and merges come between; all rows are there, once.
func TestShardsFlushApart(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			ctx, r := context.Background(), rand.New(rand.NewPCG(seed, 11))
			dir := t.TempDir()
			db := openTest(t, dir)
			shards := 2 + r.IntN(4)
			table := createShards(t, db, "t", writesSchema, shards)
			model := map[int64][2]int64{}
			for seq := int64(1); seq < 40; seq++ {
				keys := map[int64]bool{}
				for range 1 + r.IntN(20) {
					keys[r.Int64N(40)] = true
				}
				var list []int64
				for k := range keys {
					list = append(list, k)
					model[k] = [2]int64{0, seq}
				}
				putKeys(t, db, table, seq, list...)
				switch r.IntN(8) {
				case 0, 1, 2:
					flushShard(t, table, r.IntN(shards))
				case 3:
					require.NoError(t, db.Optimize(ctx, table.Name()))
				case 4:
					db.ddl.Lock()
					next := crashCopy(t, dir)
					db.ddl.Unlock()
					require.NoError(t, db.Close())
					db, dir = openTest(t, next), next
					table = mustTable(t, db, "t")
				}
				require.Equal(t, model, readWrites(t, db, "t"))
			}
			require.NoError(t, db.Close())
			_, found := faults(t, dir)
			require.Empty(t, found)
		})
	}
}

// TestBatchesOverShardsAreSeenWhole overwrites the same keys in all shards with each batch, by streams, stages in memory
// and spilled ones, while shards flush and merge at their own times: every reader finds all keys of one batch, in scans
// and by keys.
func TestBatchesOverShardsAreSeenWhole(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, Memory: minMemory, MemtableBytes: 64 << 10, SegmentBytes: 1 << 20, StageBytes: 20_000})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	const shards, batches = 3, 60
	table := createShards(t, db, "t", writesSchema, shards)
	keys := make([]int64, 50)
	for i := range keys {
		keys[i] = int64(i)
	}
	putKeys(t, db, table, 0, keys...)
	stop := make(chan struct{})
	var beside sync.WaitGroup
	beside.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if i%4 == 3 {
				if err := db.Optimize(ctx, table.Name()); err != nil {
					t.Errorf("optimize: %v", err)
				}
			} else {
				s := table.shards[i%shards]
				if err := s.order(ctx, s.flushAll); err != nil {
					t.Errorf("flush: %v", err)
				}
			}
		}
	})
	beside.Go(func() {
		for last := int64(-1); ; {
			select {
			case <-stop:
				return
			default:
			}
			snap, err := db.Snapshot(ctx)
			if err != nil {
				t.Errorf("snapshot: %v", err)
				return
			}
			got := readWritesAt(t, snap, "t")
			snap.Release()
			seq := got[0][1]
			if len(got) != len(keys) || seq < last {
				t.Errorf("%d keys of batch %d after batch %d", len(got), seq, last)
				return
			}
			for k, w := range got {
				if w[1] != seq {
					t.Errorf("key %d is of batch %d, key 0 of batch %d", k, w[1], seq)
					return
				}
			}
			last = seq
		}
	})
	for seq := int64(1); seq < batches && !t.Failed(); seq++ {
		if seq%5 > 0 {
			putKeys(t, db, table, seq, keys...)
			continue
		}
		stage := table.Stage()
		for range 1 + seq%4*4 { // the last of them counts
			rec := writesBatch(table.Schema(), 0, seq, keys)
			require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
			rec.Release()
		}
		_, err := stage.Commit(ctx)
		require.NoError(t, err)
	}
	close(stop)
	beside.Wait()
}

// TestStagesOverShardsAreWholeAfterACrash copies the folder before and after every call of the store while a stage that
// has spilled into all shards is committed and merged, and opens each copy: it has all of the stage or nothing.
func TestStagesOverShardsAreWholeAfterACrash(t *testing.T) {
	ctx := context.Background()
	s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}, def: TableDef{Shards: 3}}
	s.open()
	require.NoError(t, s.create(ctx, "t", "id int64 key, v utf8"))
	before := fillShards(t, s, "old", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	var copies []string
	take := func(string, string) error {
		next := filepath.Join(t.TempDir(), fmt.Sprint(len(copies)))
		err := fs.ErrNotExist
		for try := 0; errors.Is(err, fs.ErrNotExist) && try < 100; try++ {
			_ = os.RemoveAll(next)
			err = os.CopyFS(next, os.DirFS(s.dir))
		}
		copies = append(copies, next)
		return err
	}
	stage := mustTable(t, s.db, "t").Stage()
	s.stages["t"] = stage
	var after []string
	for id := 3; id < 40; id++ {
		line := fmt.Sprintf("%d %s", id, strings.Repeat("new", 40))
		require.NoError(t, s.stagePut(ctx, "t", false, line))
		after = append(after, line)
	}
	require.NotEmpty(t, stage.spilled)
	withFaults(s.db).inject(take, take)
	_, err := stage.Commit(ctx)
	require.NoError(t, err)
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	withFaults(s.db).inject(nil, nil)
	s.close()
	after = append(after, before[0], before[slices.Index(before, "2 old")])
	slices.Sort(after)
	whole := map[bool]int{}
	for _, dir := range copies {
		db := openTest(t, dir)
		lines := tableLines(t, db, "t")
		if len(lines) == len(before) {
			require.Equal(t, before, lines)
		} else {
			require.Equal(t, after, lines)
		}
		whole[len(lines) == len(after)]++
		require.NoError(t, db.Optimize(ctx, TableName{Name: "t"}))
		require.Equal(t, lines, tableLines(t, db, "t"))
		require.NoError(t, db.Close())
		_, err := Check(ctx, dir, func(f Fault) { t.Errorf("%s: %s", dir, f) })
		require.NoError(t, err)
	}
	require.Greater(t, whole[false], 2)
	require.Greater(t, whole[true], 10)
}

// fillShards puts rows with a text into the table t and returns them as lines.
func fillShards(t *testing.T, s *scenario, text string, ids ...int) []string {
	t.Helper()
	var lines []string
	for _, id := range ids {
		lines = append(lines, fmt.Sprintf("%d %s", id, text))
	}
	require.NoError(t, s.put(context.Background(), "t", false, strings.Join(lines, "\n")))
	slices.Sort(lines)
	return lines
}

// TestPointsOfShards looks keys up in a table whose key has two columns: a scan of points reads the shard of each alone.
func TestPointsOfShards(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	s, err := rows.Schema("x utf8, a utf8, b int64")
	require.NoError(t, err)
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: TableName{Name: "t"}, Schema: s, Key: []string{"a", "b"}, Shards: 4}))
	table := mustTable(t, db, "t")
	var text []string
	for i := range 200 {
		text = append(text, fmt.Sprintf("v%d k%d %d", i, i/2, i%2))
	}
	rec, err := rows.Parse(table.Schema(), strings.Join(text, "\n"))
	require.NoError(t, err)
	defer rec.Release()
	for round := range 3 {
		lsn, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
		snap, err := db.Snapshot(ctx)
		require.NoError(t, err)
		v, err := snap.Table(table.Name())
		require.NoError(t, err)
		for i := 0; i < 200; i += 17 {
			set := v.NewKeySet()
			one := rec.NewSlice(int64(i), int64(i)+1)
			require.NoError(t, set.Add(one.Columns()[1:]))
			one.Release()
			sc, err := v.Scan(ctx, ScanOptions{Columns: []int{0, 1, 2}, Keys: set})
			require.NoError(t, err)
			var got []string
			for m, err := sc.Next(ctx); err == nil; m, err = sc.Next(ctx) {
				got = append(got, rows.Format(m.Record, m.Live)...)
				m.Release()
			}
			require.Equal(t, text[i:i+1], got)
			require.LessOrEqual(t, len(sc.Plan().Layers), round+2, "only one chain and the base are looked at")
			sc.Close()
		}
		snap.Release()
		require.NoError(t, db.Flush(ctx, table.Name()))
	}
}
