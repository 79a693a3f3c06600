package lsm

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// writesSchema is a table of writes: who wrote the key's row, and as which of its writes.
const writesSchema = "key int64 key, writer int64, seq int64"

// openTest opens a DB with small memtables, so that flushes happen in a short test.
func openTest(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(context.Background(), Options{Dir: dir, wrap: faulty, Memory: minMemory, MemtableBytes: 256 << 10, SegmentBytes: 1 << 20})
	require.NoError(t, err)
	return db
}

// createTest makes a table and returns it.
func createTest(t *testing.T, db *DB, name, schema string) *Table {
	t.Helper()
	return createShards(t, db, name, schema, 0)
}

// createShards makes a table with several shards and returns it.
func createShards(t *testing.T, db *DB, name, schema string, shards int) *Table {
	t.Helper()
	s, err := rows.Schema(schema)
	require.NoError(t, err)
	require.NoError(t, db.CreateTable(context.Background(), TableDef{Name: TableName{Name: name}, Schema: s, Shards: shards}))
	table, err := db.Table(TableName{Name: name})
	require.NoError(t, err)
	return table
}

// writesBatch returns rows of a table of writes.
func writesBatch(s *arrow.Schema, writer, seq int64, keys []int64) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	for _, k := range keys {
		b.Field(0).(*array.Int64Builder).Append(k)
		b.Field(1).(*array.Int64Builder).Append(writer)
		b.Field(2).(*array.Int64Builder).Append(seq)
	}
	return b.NewRecordBatch()
}

// readWrites returns the rows of a table of writes by key, and fails on a key that comes twice.
func readWrites(t *testing.T, db *DB, name string) map[int64][2]int64 {
	t.Helper()
	snap, err := db.Snapshot(context.Background())
	require.NoError(t, err)
	defer snap.Release()
	return readWritesAt(t, snap, name)
}

func readWritesAt(t *testing.T, snap *Snapshot, name string) map[int64][2]int64 {
	t.Helper()
	return readPart(t, snap, name, ScanOptions{Columns: []int{0, 1, 2}})
}

// readPart is readWritesAt for a part of the rows.
func readPart(t *testing.T, snap *Snapshot, name string, o ScanOptions) map[int64][2]int64 {
	t.Helper()
	ctx := context.Background()
	v, err := snap.Table(TableName{Name: name})
	require.NoError(t, err)
	sc, err := v.Scan(ctx, o)
	require.NoError(t, err)
	defer sc.Close()
	got := map[int64][2]int64{}
	for {
		m, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return got
		}
		require.NoError(t, err)
		live := m.Live
		if live == nil {
			for i := range uint32(m.Record.NumRows()) {
				live = append(live, i)
			}
		}
		for _, i := range live {
			key := m.Record.Column(0).(*array.Int64).Value(int(i))
			if _, twice := got[key]; twice { // require.NotContains looks at every key
				t.Fatalf("key %d comes twice", key)
			}
			got[key] = [2]int64{m.Record.Column(1).(*array.Int64).Value(int(i)), m.Record.Column(2).(*array.Int64).Value(int(i))}
		}
		m.Release()
	}
}

// TestConcurrentWritersAndReaders has several writers upsert their own and shared keys while others read, flush and
// optimize: a snapshot has each writer's acknowledged writes and each key once, and at the end each key has the last
// write to it of one of the writers.
func TestConcurrentWritersAndReaders(t *testing.T) {
	const writers, batches, keys = 4, 150, 500
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "w", writesSchema)
	var last [writers][keys]int64
	stop := make(chan struct{})
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			if err := writeRandomKeys(ctx, db, table, int64(w), batches, last[w][:]); err != nil {
				t.Error(err)
			}
		})
	}
	reading.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			readWrites(t, db, "w")
			if i%3 == 0 {
				if err := db.Optimize(ctx, TableName{Name: "w"}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	writing.Wait()
	close(stop)
	reading.Wait()
	require.NoError(t, db.Wait(ctx, LSN(table.last.Load())))
	check := func() {
		got := readWrites(t, db, "w")
		for k := range int64(keys) {
			w := got[k]
			require.Equal(t, last[w[0]][k], w[1], "key %d is not at the last write of writer %d", k, w[0])
		}
	}
	check()
	require.NoError(t, db.Optimize(ctx, TableName{Name: "w"}))
	check()
}

// writeRandomKeys puts batches of 100 rows under random keys, as one writer, and notes the last batch of each key.
func writeRandomKeys(ctx context.Context, db *DB, table *Table, writer, batches int64, last []int64) error {
	r := rand.New(rand.NewPCG(uint64(writer), 1))
	for seq := int64(1); seq <= batches; seq++ {
		var keys []int64
		for range 100 {
			k := r.Int64N(int64(len(last)))
			keys = append(keys, k)
			last[k] = seq
		}
		rec := writesBatch(table.Schema(), writer, seq, keys)
		lsn, err := table.Put(ctx, Batch{Record: rec})
		rec.Release()
		if err == nil && seq%10 == 0 {
			err = db.Wait(ctx, lsn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestSnapshotIsOneMoment writes the same number to two tables in turn: a snapshot never sees the second ahead of
// the first, nor more than one behind.
func TestSnapshotIsOneMoment(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	a, b := createTest(t, db, "a", writesSchema), createTest(t, db, "b", writesSchema)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for seq := range int64(500) {
			for _, table := range []*Table{a, b} {
				rec := writesBatch(table.Schema(), 0, seq, []int64{0})
				_, err := table.Put(ctx, Batch{Record: rec})
				rec.Release()
				if err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		snap, err := db.Snapshot(ctx)
		require.NoError(t, err)
		x, haveA := readWritesAt(t, snap, "a")[0]
		y, haveB := readWritesAt(t, snap, "b")[0]
		snap.Release()
		if haveB {
			require.True(t, haveA)
			require.LessOrEqual(t, y[1], x[1])
			require.LessOrEqual(t, x[1]-y[1], int64(1))
		}
	}
}

// TestWritersWaitForMemory writes far more than the memory for memtables holds: nobody fails, and the budget is
// never exceeded by more than one batch of each writer and the growth of indexes.
func TestWritersWaitForMemory(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, Memory: minMemory, MemtableBytes: 4 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	db.budget.limit = 8 << 20
	tables := []*Table{createTest(t, db, "a", writesSchema), createTest(t, db, "b", writesSchema)}
	const perBatch = 10_000
	var wg sync.WaitGroup
	for n, table := range tables {
		wg.Go(func() {
			for seq := range int64(100) {
				mine := make([]int64, perBatch)
				for i := range mine {
					mine[i] = seq*perBatch + int64(i)
				}
				rec := writesBatch(table.Schema(), int64(n), seq, mine)
				_, err := table.Put(ctx, Batch{Record: rec})
				rec.Release()
				if err != nil {
					t.Error(err)
					return
				}
				if used, _ := db.budget.state(); used > 16<<20 {
					t.Errorf("%d bytes are held", used)
				}
			}
		})
	}
	wg.Wait()
	for n, table := range tables {
		require.NoError(t, db.Wait(ctx, LSN(table.last.Load())))
		require.Len(t, readWrites(t, db, string(rune('a'+n))), 1_000_000)
	}
	_, stalls := db.budget.state()
	require.Positive(t, stalls, "the test wrote too little to fill the memory")
}

// TestLongStreamLeavesLittle writes a hundred times what the memtables hold, over the same keys: the log is trimmed,
// generations are merged, and merged generations are removed, all by themselves.
func TestLongStreamLeavesLittle(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openTest(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "w", writesSchema)
	keys := make([]int64, 2000)
	for i := range keys {
		keys[i] = int64(i)
	}
	for seq := range int64(400) {
		rec := writesBatch(table.Schema(), 0, seq, keys)
		_, err := table.Put(ctx, Batch{Record: rec})
		rec.Release()
		require.NoError(t, err)
	}
	require.NoError(t, db.Flush(ctx, table.Name()))
	require.Len(t, readWrites(t, db, "w"), len(keys))
	require.Less(t, db.Metrics().Generations, int64(maxGenerations))
	require.Positive(t, db.Metrics().Compactions)
	folders, err := filepath.Glob(filepath.Join(dir, table.shards[0].dir(), "*_gen_*"))
	require.NoError(t, err)
	require.Less(t, len(folders), maxGenerations)
	require.Eventually(t, func() bool { // the trimmer runs by itself
		segments, err := filepath.Glob(filepath.Join(dir, walFolder, "*"))
		return err == nil && len(segments) <= 8
	}, time.Minute, 10*time.Millisecond)
}

// TestStageIsSeenWhole commits stages of several batches, in memory and spilled, while others read: the rows of one
// stage are seen all or not at all.
func TestStageIsSeenWhole(t *testing.T) {
	for name, stageBytes := range map[string]int64{"memory": 1 << 20, "spilled": 4 << 10} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, StageBytes: stageBytes})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			table := createTest(t, db, "s", writesSchema)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for seq := range int64(30) {
					if err := commitStage(ctx, table, seq); err != nil {
						t.Error(err)
						return
					}
				}
			}()
			for running := true; running; {
				select {
				case <-done:
					running = false
				default:
				}
				seen := map[int64]bool{}
				for _, w := range readWrites(t, db, "s") {
					seen[w[1]] = true
				}
				require.LessOrEqual(t, len(seen), 1, "a part of a stage is visible")
			}
			require.Len(t, readWrites(t, db, "s"), 1000)
		})
	}
}

// commitStage writes the same 1,000 keys in ten batches of one stage.
func commitStage(ctx context.Context, table *Table, seq int64) error {
	stage := table.Stage()
	defer stage.Abort()
	for b := range int64(10) {
		keys := make([]int64, 100)
		for i := range keys {
			keys[i] = b*100 + int64(i)
		}
		rec := writesBatch(table.Schema(), 0, seq, keys)
		err := stage.Put(ctx, Batch{Record: rec})
		rec.Release()
		if err != nil {
			return err
		}
	}
	_, err := stage.Commit(ctx)
	return err
}

// TestModifyKeepsOthersOut has several goroutines increment the same counter by reading and writing it.
func TestModifyKeepsOthersOut(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "c", writesSchema)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				err := table.Modify(ctx, func(ctx context.Context, snap *Snapshot, stage *Stage) error {
					rec := writesBatch(table.Schema(), 0, readWritesAt(t, snap, "c")[1][1]+1, []int64{1})
					defer rec.Release()
					return stage.Put(ctx, Batch{Record: rec})
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, int64(100), readWrites(t, db, "c")[1][1])
}

// TestDropWhileWriting drops a table that others write and read: they end with ErrTableNotFound or a whole answer.
func TestDropWhileWriting(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Options{Dir: t.TempDir(), wrap: faulty, MemtableBytes: 4 << 20, Memory: minMemory})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for round := range 10 {
		table := createTest(t, db, "w", writesSchema)
		var wg sync.WaitGroup
		for w := range int64(3) {
			wg.Go(func() {
				for seq := int64(0); ; seq++ {
					rec := writesBatch(table.Schema(), w, seq, []int64{1, 2, 3})
					_, err := table.Put(ctx, Batch{Record: rec})
					rec.Release()
					if err != nil {
						if !errors.Is(err, ErrTableNotFound) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		if round%2 == 0 {
			require.NoError(t, db.Flush(ctx, TableName{Name: "w"}))
		}
		require.NoError(t, db.DropTable(ctx, TableName{Name: "w"}))
		wg.Wait()
	}
}

// TestFolderHasOneOwner opens a folder twice.
func TestFolderHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir)
	_, err := Open(context.Background(), Options{Dir: dir, wrap: faulty})
	require.ErrorContains(t, err, "is in use by flightd, process")
	require.NoError(t, db.Close())
	_, err = db.Snapshot(context.Background())
	require.ErrorIs(t, err, ErrClosed)
	db = openTest(t, dir)
	require.NoError(t, db.Close())
}
