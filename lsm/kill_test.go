package lsm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// killFolder names the environment variable that makes the test binary the victim of TestKill.
const killFolder = "FLIGHTD_TEST_KILL_FOLDER"

const (
	killKeys      = 700 // different keys of the table
	killBatchRows = 60
)

// killBatch returns the keys that batch seq upserts or deletes, derived from seq alone so that parent and child agree.
func killBatch(seq int64) (keys []int64, deleted []bool) {
	r := rand.New(rand.NewPCG(uint64(seq), 7))
	for range killBatchRows {
		keys = append(keys, r.Int64N(killKeys))
		deleted = append(deleted, r.IntN(5) == 0)
	}
	// The first key of a batch is its own, and lives: so the highest seq in the table tells how far the log came.
	return append(keys, killKeys+seq), append(deleted, false)
}

// TestKill kills a process that writes, flushes and optimizes, at random moments, and opens its folder again: every
// batch that it had acknowledged is there, beyond them only whole batches, in order, and each key has its last write.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killFolder); dir != "" {
		killVictim(dir)
		return
	}
	rounds := 8
	if n, err := strconv.Atoi(os.Getenv("FLIGHTD_KILL_ROUNDS")); err == nil {
		rounds = n
	}
	for _, shards := range []int{1, 5} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) { killRounds(t, rounds/2+1, shards) })
	}
}

// killRounds kills a victim that writes a table with some shards, time after time.
func killRounds(t *testing.T, rounds, shards int) {
	dir := diskDir(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	db := openTest(t, dir)
	createShards(t, db, "k", writesSchema, shards)
	require.NoError(t, db.Close())
	for round := range rounds {
		acked := killOnce(t, dir, time.Duration(r.IntN(400))*time.Millisecond)
		db := openTest(t, dir)
		got := readWrites(t, db, "k")
		last := killModel(t, got)
		require.GreaterOrEqual(t, last, acked, "round %d: an acknowledged batch is lost", round)
		require.NoError(t, db.Close())
	}
}

// killModel compares a table with what its first batches make, as many as it seems to have, and returns how many.
func killModel(t *testing.T, got map[int64][2]int64) (last int64) {
	t.Helper()
	for _, w := range got {
		last = max(last, w[1])
	}
	want := map[int64][2]int64{}
	for seq := int64(1); seq <= last; seq++ {
		keys, deleted := killBatch(seq)
		for i, k := range keys {
			delete(want, k)
			if !deleted[i] {
				want[k] = [2]int64{0, seq}
			}
		}
	}
	require.Equal(t, want, got, "after %d batches", last)
	return last
}

// killOnce runs a victim, kills it some time after its first acknowledgement and returns its last one.
func killOnce(t *testing.T, dir string, after time.Duration) (acked int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killFolder+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		n, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			continue
		}
		if acked == 0 {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		acked = n
	}
	_ = cmd.Wait() // it was killed
	return acked
}

// killVictim writes until it is killed, and prints the number of each batch that is acknowledged.
func killVictim(dir string) {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(3)
		}
	}
	db, err := Open(ctx, Options{Dir: dir, wrap: faulty, Memory: minMemory, MemtableBytes: 256 << 10, SegmentBytes: 1 << 20})
	fail(err)
	name := TableName{Name: "k"}
	table, err := db.Table(name)
	fail(err)
	go func() {
		for {
			fail(db.Optimize(ctx, name))
			time.Sleep(20 * time.Millisecond)
		}
	}()
	seq, err := killNext(ctx, db, name)
	fail(err)
	type pending struct {
		seq int64
		lsn LSN
	}
	acks := make(chan pending, 100)
	go func() {
		for p := range acks {
			fail(db.Wait(ctx, p.lsn))
			fmt.Println(p.seq)
		}
	}()
	for ; ; seq++ {
		keys, deleted := killBatch(seq)
		rec := writesBatch(table.Schema(), 0, seq, keys)
		tombs := array.NewBooleanBuilder(memory.DefaultAllocator)
		tombs.AppendValues(deleted, nil)
		cols := append(rec.Columns(), tombs.NewArray())
		lsn, err := table.Put(ctx, Batch{Record: array.NewRecordBatch(table.now().withTombstones(true), cols, rec.NumRows())})
		fail(err)
		acks <- pending{seq, lsn}
		time.Sleep(time.Millisecond) // or the folder grows faster than the parent can check it
	}
}

// killNext returns the number of the next batch.
func killNext(ctx context.Context, db *DB, name TableName) (int64, error) {
	snap, err := db.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	defer snap.Release()
	v, err := snap.Table(name)
	if err != nil {
		return 0, err
	}
	sc, err := v.Scan(ctx, ScanOptions{Columns: []int{2}})
	if err != nil {
		return 0, err
	}
	last := int64(0)
	for {
		m, err := sc.Next(ctx)
		if err == io.EOF {
			return last + 1, nil
		}
		if err != nil {
			return 0, err
		}
		for _, v := range m.Record.Column(0).(*array.Int64).Int64Values() {
			last = max(last, v)
		}
		m.Release()
	}
}
