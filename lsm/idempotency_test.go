package lsm

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lsm/wal"
)

// keylessWrites is writesSchema without a key, so that what is applied twice is there twice.
const keylessWrites = "key int64, writer int64, seq int64"

// openSpilling opens a DB whose stages spill above so many bytes.
func openSpilling(t *testing.T, dir string, stageBytes int64) *DB {
	t.Helper()
	db, err := Open(context.Background(), Options{Dir: dir, wrap: faulty, Memory: minMemory, MemtableBytes: 256 << 10, SegmentBytes: 1 << 20, StageBytes: stageBytes})
	require.NoError(t, err)
	return db
}

// claimTest claims a request and returns what is known of it.
func claimTest(t *testing.T, db *DB, name, key string, resume bool) (*Claim, Answer) {
	t.Helper()
	ctx := context.Background()
	c, err := db.Claim(ctx, TableName{Name: name}, Request{Key: key, Resume: resume})
	require.NoError(t, err)
	s, err := rows.Schema(keylessWrites)
	require.NoError(t, err)
	a, err := c.Answer(ctx, s)
	require.NoError(t, err)
	return c, a
}

// stageKeys puts batches of keys into a stage.
func stageKeys(t *testing.T, s *Stage, batches ...[]int64) {
	t.Helper()
	for _, keys := range batches {
		rec := writesBatch(s.Table().Schema(), 0, 1, keys)
		require.NoError(t, s.Put(context.Background(), Batch{Record: rec}))
		rec.Release()
	}
}

// requireSound checks a folder that nobody has open.
func requireSound(t *testing.T, dir string) {
	t.Helper()
	_, err := Check(context.Background(), dir, func(f Fault) { t.Errorf("fault: %s", f) })
	require.NoError(t, err)
}

// TestARequestIsAppliedOnce sends requests again after crashes, and after the log that had them is gone.
func TestARequestIsAppliedOnce(t *testing.T) {
	for name, stageBytes := range map[string]int64{"in memory": 1 << 20, "spilled": 1000} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			db := openSpilling(t, dir, stageBytes)
			table := createTest(t, db, "t", keylessWrites)
			putKeys(t, db, table, 1, 1)
			c, a := claimTest(t, db, "t", "k", false)
			require.Zero(t, a)
			stage := table.Stage()
			stageKeys(t, stage, []int64{1, 2, 3}, []int64{4, 5, 6}, []int64{7, 8, 9})
			stage.Under(c, 3)
			lsn, err := stage.Commit(ctx)
			require.NoError(t, err)
			c.Release()
			want := Answer{Batches: 3, Rows: 9, Seq: lsn, Complete: true}
			again := func() {
				t.Helper()
				c, a := claimTest(t, db, "T", "k", false)
				defer c.Release()
				require.Equal(t, want, a)
				require.Equal(t, 10, countRows(t, db, "t"))
				require.EqualValues(t, 1, db.Metrics().IdempotencyKeys)
			}
			again()
			reopen := func(next string) {
				t.Helper()
				require.NoError(t, db.Close())
				requireSound(t, next)
				dir, db = next, openSpilling(t, next, stageBytes)
			}
			reopen(crashCopy(t, dir))
			again()
			// Other tables fill the log until the segments that had the request are gone, whose head is needed no more.
			other := createTest(t, db, "other", keylessWrites)
			first := segmentNames(t, dir)[0]
			for i := int64(0); segmentNames(t, dir)[0] <= first; i++ {
				putKeys(t, db, other, i, make([]int64, 10_000)...)
				require.NoError(t, db.Flush(ctx, other.Name()))
				require.NoError(t, db.Optimize(ctx, table.Name()))
			}
			for range 3 {
				reopen(crashCopy(t, dir))
				again()
			}
			require.NoError(t, db.DropTable(ctx, table.Name()))
			require.Zero(t, db.Metrics().IdempotencyKeys)
			createTest(t, db, "t", keylessWrites)
			_, a = claimTest(t, db, "t", "k", false)
			require.Zero(t, a, "a table that is made again is another one")
			require.NoError(t, db.Close())
		})
	}
}

// segmentNames returns the files of the log's segments, oldest first.
func segmentNames(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, walFolder, "*.wal"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for i, n := range names {
		names[i] = filepath.Base(n)
	}
	return names
}

// TestARequestThatMakesItsTableIsAppliedOnce sends requests that create or replace their table again.
func TestARequestThatMakesItsTableIsAppliedOnce(t *testing.T) {
	for _, replace := range []bool{false, true} {
		ctx := context.Background()
		dir := t.TempDir()
		db := openSpilling(t, dir, 1000)
		if replace {
			putKeys(t, db, createTest(t, db, "t", keylessWrites), 1, 1, 2, 3)
		}
		c, a := claimTest(t, db, "t", "k", false)
		require.Zero(t, a)
		s, err := rows.Schema(keylessWrites)
		require.NoError(t, err)
		stage, err := db.StageTable(ctx, TableDef{Name: TableName{Name: "t"}, Schema: s}, replace)
		require.NoError(t, err)
		stageKeys(t, stage, []int64{1, 2, 3}, []int64{4, 5, 6})
		stage.Under(c, 2)
		before := crashCopy(t, dir)
		lsn, err := stage.Commit(ctx)
		require.NoError(t, err)
		c.Release()
		_, a = claimTest(t, db, "t", "k", false)
		require.Equal(t, Answer{Batches: 2, Rows: 6, Seq: lsn, Complete: true}, a)
		after := crashCopy(t, dir)
		require.NoError(t, db.Close())
		for _, x := range []struct {
			dir  string
			want Answer
		}{{before, Answer{}}, {after, a}} {
			db = openSpilling(t, x.dir, 1000)
			_, a := claimTest(t, db, "t", "k", false)
			require.Equal(t, x.want, a)
			if x.want.Rows > 0 {
				require.Equal(t, 6, countRows(t, db, "t"))
			}
			require.NoError(t, db.Close())
			requireSound(t, x.dir)
		}
	}
}

// TestCrashesAroundTheCommitOfASpilledStage copies the folder before the log has the commit, before the manifest has
// it, and after; each copy has all of the stage and its key, or nothing of either, and no folder that nobody names.
func TestCrashesAroundTheCommitOfASpilledStage(t *testing.T) {
	for name, schema := range map[string]string{"keyed": writesSchema, "keyless": keylessWrites} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			dir := t.TempDir()
			db := openSpilling(t, dir, 1000)
			f := withFaults(db)
			table := createTest(t, db, "t", schema)
			putKeys(t, db, table, 7, 100, 200)
			require.NoError(t, db.Flush(ctx, table.Name()))
			putKeys(t, db, table, 7, 300)
			c, _ := claimTest(t, db, "t", "k", false)
			stage := table.Stage()
			stageKeys(t, stage, []int64{1, 2, 100}, []int64{4, 5, 300}, []int64{6})
			stage.Under(c, 3)
			copies := map[string]string{"before the record": crashCopy(t, dir)}
			f.inject(func(op, name string) error {
				if isShardManifest(op, name) { // of the flush that comes first, and of the stage
					copies["before the manifest"] = crashCopy(t, dir)
				}
				return nil
			}, nil)
			_, err := stage.Commit(ctx)
			require.NoError(t, err)
			c.Release()
			f.inject(nil, nil)
			copies["after the manifest"] = crashCopy(t, dir)
			whole := countRows(t, db, "t")
			require.NoError(t, db.Close())
			broken := crashCopy(t, copies["before the manifest"])
			staged, err := filepath.Glob(filepath.Join(broken, "t.lance/_mem_wal/*/*_gen_0"))
			require.NoError(t, err)
			require.Len(t, staged, 1)
			require.NoError(t, os.RemoveAll(staged[0]))
			_, list := faults(t, broken)
			require.NotEmpty(t, list, "check looks at what replay would publish")
			for when, copied := range copies {
				requireSound(t, copied)
				db := openSpilling(t, copied, 1000)
				_, a := claimTest(t, db, "t", "k", false)
				if when == "before the record" {
					require.Zero(t, a, when)
					require.Equal(t, 3, countRows(t, db, "t"), when)
				} else {
					require.EqualValues(t, 7, a.Rows, when)
					require.Equal(t, whole, countRows(t, db, "t"), when)
				}
				if schema == writesSchema && when != "before the record" {
					require.Equal(t, [2]int64{0, 1}, readWrites(t, db, "t")[300], when)
				}
				putKeys(t, db, mustTable(t, db, "t"), 9, 300)
				require.NoError(t, db.Optimize(ctx, TableName{Name: "t"}), when)
				require.NoError(t, db.Close())
				requireSound(t, copied)
				left, err := filepath.Glob(filepath.Join(copied, "t.lance/_mem_wal/*/*_gen_*"))
				require.NoError(t, err)
				require.Empty(t, left, when)
			}
		})
	}
}

func mustTable(t *testing.T, db *DB, name string) *Table {
	t.Helper()
	table, err := db.Table(TableName{Name: name})
	require.NoError(t, err)
	return table
}

// TestACommittedStageWaitsForItsManifest has the log take a stage and the manifest refuse it for good: rows that come
// later do not get in front of it, the log keeps it, and the next Open publishes it below them.
func TestACommittedStageWaitsForItsManifest(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openSpilling(t, dir, 1000)
	f := withFaults(db)
	table := createTest(t, db, "t", writesSchema)
	c, _ := claimTest(t, db, "t", "k", false)
	stage := table.Stage()
	stageKeys(t, stage, []int64{1, 2, 3}, []int64{4, 5, 6})
	stage.Under(c, 2)
	commit, cancel := context.WithCancel(ctx)
	fail := times(-1, func(op, name string) bool { return isShardManifest(op, name) && strings.HasPrefix(name, "t.lance/") })
	f.inject(func(op, name string) error {
		err := fail(op, name)
		if err != nil {
			cancel() // the client goes away
		}
		return err
	}, nil)
	_, err := stage.Commit(commit)
	require.ErrorIs(t, err, context.Canceled)
	c.Release()
	c, err = db.Claim(ctx, table.Name(), Request{Key: "k"})
	require.NoError(t, err)
	s, err := rows.Schema(keylessWrites)
	require.NoError(t, err)
	_, err = c.Answer(ctx, s)
	require.ErrorIs(t, err, ErrKeyBusy, "an answer that readers cannot see yet")
	other := createTest(t, db, "other", keylessWrites)
	for range 8 { // more than a segment, which nobody else needs
		putKeys(t, db, other, 1, make([]int64, 10_000)...)
		require.NoError(t, db.Flush(ctx, other.Name()))
	}
	putKeys(t, db, table, 2, 3, 4)
	require.Len(t, readWrites(t, db, "t"), 2)
	require.ErrorIs(t, db.Flush(ctx, table.Name()), errFault)
	copied := crashCopy(t, dir)
	require.NoError(t, db.Close())
	for _, dir := range []string{dir, copied} {
		requireSound(t, dir)
		db = openSpilling(t, dir, 1000)
		got := readWrites(t, db, "t")
		require.Len(t, got, 6)
		require.Equal(t, [2]int64{0, 2}, got[3], "what came later is newer")
		_, a := claimTest(t, db, "t", "k", false)
		require.EqualValues(t, 6, a.Rows)
		require.NoError(t, db.Optimize(ctx, TableName{Name: "t"}))
		require.Equal(t, got, readWrites(t, db, "t"))
		require.NoError(t, db.Close())
	}
}

// TestAResumedRequestIsToldWhatIsThere applies a request by several streams with crashes between them: each is told
// exactly the rows that are in the table.
func TestAResumedRequestIsToldWhatIsThere(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openSpilling(t, dir, 1000)
	createTest(t, db, "t", keylessWrites)
	var want Answer
	for round := range int64(4) {
		c, a := claimTest(t, db, "t", "k", true)
		want.Seq = a.Seq
		require.Equal(t, want, a)
		require.EqualValues(t, a.Rows, countRows(t, db, "t"))
		table := mustTable(t, db, "t")
		for i := range 5 + round {
			rec := writesBatch(table.Schema(), 0, round, []int64{i, i})
			want.Batches, want.Rows = want.Batches+1, want.Rows+2
			lsn, err := c.Put(ctx, table, Batch{Record: rec}, want)
			rec.Release()
			require.NoError(t, err)
			require.NoError(t, db.Wait(ctx, lsn))
		}
		if round == 1 {
			require.NoError(t, db.Optimize(ctx, table.Name()))
		}
		next := crashCopy(t, dir)
		require.NoError(t, db.Close())
		requireSound(t, next)
		dir, db = next, openSpilling(t, next, 1000)
	}
	c, _ := claimTest(t, db, "t", "k", true)
	lsn, err := c.Finish(ctx, mustTable(t, db, "t"), want)
	require.NoError(t, err)
	c.Release()
	want.Seq, want.Complete = lsn, true
	for _, resume := range []bool{true, false} {
		c, a := claimTest(t, db, "t", "k", resume)
		require.Equal(t, want, a)
		c.Release()
	}
	require.NoError(t, db.Close())
}

// TestOneStreamAtATimeWorksUnderAKey has streams meet under a key.
func TestOneStreamAtATimeWorksUnderAKey(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", keylessWrites)
	first, _ := claimTest(t, db, "t", "k", false)
	for _, resume := range []bool{false, true} {
		_, err := db.Claim(ctx, TableName{Name: "T"}, Request{Key: "k", Resume: resume})
		require.ErrorIs(t, err, ErrKeyBusy)
	}
	for _, r := range []Request{{Key: "other"}, {Key: "k", User: "u"}} {
		c, err := db.Claim(ctx, table.Name(), r)
		require.NoError(t, err)
		c.Release()
	}
	first.Release()
	first.Release()

	older, _ := claimTest(t, db, "t", "k", true)
	_, err := db.Claim(ctx, table.Name(), Request{Key: "k"})
	require.ErrorIs(t, err, ErrKeyBusy)
	newer := make(chan *Claim)
	go func() {
		c, err := db.Claim(ctx, table.Name(), Request{Key: "k", Resume: true})
		if err != nil {
			t.Error(err)
		}
		newer <- c
	}()
	<-older.Fenced()
	rec := writesBatch(table.Schema(), 0, 1, []int64{1})
	defer rec.Release()
	_, err = older.Put(ctx, table, Batch{Record: rec}, Answer{Batches: 1, Rows: 1})
	require.NoError(t, err, "what it is at it finishes, and the newer one waits")
	older.Release()
	c := <-newer
	a, err := c.Answer(ctx, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, a.Rows)
	c.Release()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	last, _ := claimTest(t, db, "t", "k", true)
	_, err = db.Claim(gone, table.Name(), Request{Key: "k", Resume: true})
	require.ErrorIs(t, err, context.Canceled)
	last.Release()
}

// TestKeysThatAreMisused has a key come with another schema, or without resume though streams with it are not done.
func TestKeysThatAreMisused(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", keylessWrites)
	c, _ := claimTest(t, db, "t", "k", true)
	rec := writesBatch(table.Schema(), 0, 1, []int64{1})
	defer rec.Release()
	_, err := c.Put(ctx, table, Batch{Record: rec}, Answer{Batches: 1, Rows: 1})
	require.NoError(t, err)
	other, err := rows.Schema("key int32, writer int64, seq int64")
	require.NoError(t, err)
	_, err = c.Answer(ctx, other)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "another schema")
	c.Release()
	c, err = db.Claim(ctx, table.Name(), Request{Key: "k"})
	require.NoError(t, err)
	_, err = c.Answer(ctx, nil)
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "go on with resume")
	for _, key := range []string{"", string(make([]byte, maxKeyText+1))} {
		_, err = db.Claim(ctx, table.Name(), Request{Key: key})
		require.ErrorIs(t, err, ErrInvalid)
	}
}

// TestTheLedgerForgets lets keys grow old and too many, in a checkpoint, in a look-up and in a replay.
func TestTheLedgerForgets(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	o := Options{IdempotencyWindow: time.Minute, IdempotencyKeys: 3, SegmentBytes: checkpointShare * 1000}
	l := newLedger(&o)
	l.now = func() time.Time { return now }
	put := func(key string) {
		l.put(keyEntry{keyScope: keyScope{1, "", key}, at: now.UnixMilli()})
		now = now.Add(time.Second)
	}
	known := func(want ...string) {
		t.Helper()
		var got []string
		for x := l.order.Front(); x != nil; x = x.Next() {
			got = append(got, x.Value.(*keyEntry).key)
		}
		require.Equal(t, want, got)
		require.Len(t, l.keys, len(want))
	}
	for _, key := range []string{"a", "b", "a", "c", "d"} {
		put(key)
	}
	known("a", "c", "d")
	long := string(make([]byte, 256))
	put(long)
	put(long[1:])
	put(long[2:]) // 3 x (56 + 254 to 256) bytes
	known(long, long[1:], long[2:])
	l.maxBytes = 600
	put("e")
	known(long[2:], "e")

	body := l.checkpoint().Body[0]
	copied := newLedger(&o)
	copied.now = l.now
	copied.put(keyEntry{keyScope: keyScope{2, "u", "gone"}, at: now.UnixMilli()})
	require.NoError(t, copied.replay(body, 7))
	require.EqualValues(t, 2, copied.count(), "a checkpoint replaces what was known")
	e, ok := copied.find(keyScope{1, "", "e"})
	require.True(t, ok)
	require.EqualValues(t, 7, e.Seq)
	now = now.Add(time.Minute - 2*time.Second)
	_, ok = l.find(keyScope{1, "", long[2:]})
	require.True(t, ok)
	now = now.Add(500 * time.Millisecond)
	_, ok = l.find(keyScope{1, "", long[2:]})
	require.False(t, ok)
	require.EqualValues(t, 1, l.count())
	now = now.Add(time.Minute)
	require.Nil(t, l.checkpoint())
}

// TestTheFormatOfKeys pins the bytes of an idempotency record, and what inspect says of the records of stages and keys. If
// the bytes change, the format does.
func TestTheFormatOfKeys(t *testing.T) {
	e := keyEntry{keyScope: keyScope{3, "me", "key"}, Answer: Answer{Batches: 4, Rows: 5, Complete: true}, schema: 6, at: 7000}
	body := encodeKeys(true, &e)
	require.Equal(t, "01000000"+"01000000"+ // a checkpoint of one key
		"0300000000000000"+"581b000000000000"+"0000000000000000"+"0400000000000000"+"0500000000000000"+"0600000000000000"+
		"01000000"+"0200"+"0300"+"6d65"+"6b6579", hex.EncodeToString(body))
	lsn := LSN(1<<40 | 9)
	require.Equal(t, "checkpoint of idempotency keys\n"+
		"key \"key\" of user \"me\", incarnation 3: 5 rows in 4 batches, complete, seq 1-9, schema 0000000000000006, 1970-01-01T00:00:07Z\n",
		Describe(&wal.Record{Kind: wal.Idempotency, LSN: lsn, Body: [][]byte{body}}))
	require.Equal(t, "generation 0a_gen_0, 7 rows\n",
		Describe(&wal.Record{Kind: wal.StageCommit, Body: [][]byte{[]byte(`{"generations":[{"path":"0a_gen_0","rows":7,"bytes":9}]}`)}}))
	for _, bad := range []string{`{"generations":[{"path":"../x","rows":7}]}`, `{`, `{"generations":[{"path":"x","rows":-1}]}`} {
		require.Contains(t, Describe(&wal.Record{Kind: wal.StageCommit, Body: [][]byte{[]byte(bad)}}), "damage: ")
	}
}

// FuzzDecodeKeys reads records that nobody wrote.
func FuzzDecodeKeys(f *testing.F) {
	e := keyEntry{keyScope: keyScope{3, "user", "key"}, Answer: Answer{Batches: 1, Rows: 2, Seq: 3, Complete: true}, schema: 9, at: 8}
	f.Add(encodeKeys(true, &e, &e))
	f.Add(encodeKeys(false, &e)[:20])
	f.Add([]byte("\x00\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		var entries []*keyEntry
		checkpoint, err := decodeKeys(body, 1<<40, func(e keyEntry) { entries = append(entries, &e) })
		_ = Describe(&wal.Record{Kind: wal.Idempotency, Body: [][]byte{body}})
		if err == nil && len(entries) > 0 {
			var again []*keyEntry
			_, err = decodeKeys(encodeKeys(checkpoint, entries...), 0, func(e keyEntry) { again = append(again, &e) })
			require.NoError(t, err)
			require.Equal(t, entries, again)
		}
	})
}

// BenchmarkCheckpoint encodes the checkpoint of as many keys as there can be.
func BenchmarkCheckpoint(b *testing.B) {
	o := Options{IdempotencyWindow: time.Hour, IdempotencyKeys: defaultIdempotencyKeys, SegmentBytes: defaultSegmentBytes}
	l := newLedger(&o)
	for i := range defaultIdempotencyKeys {
		l.put(keyEntry{keyScope: keyScope{1, "", fmt.Sprintf("%036d", i)}, at: l.now().UnixMilli()})
	}
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(l.checkpoint().Body[0])))
	}
}
