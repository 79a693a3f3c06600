package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/object/objecttest"
)

// TestTwoDBsFightForAStore has two processes take one store from each other, over calls that are late, lost, doubled and told
// wrong. Each writes, flushes, merges, collects and rewrites while it has the store, and sends requests again that the other,
// or itself before, may have applied. No row that was acknowledged is lost, and none is there twice.
func TestTwoDBsFightForAStore(t *testing.T) {
	rounds := uint64(6)
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		t.Run(fmt.Sprintf("round=%d", round), func(t *testing.T) {
			t.Parallel()
			var st object.Store = object.NewMem()
			if round%2 == 1 {
				st = object.NewLocal(t.TempDir())
			}
			fightForStore(t, st, round, 25)
		})
	}
}

// storeFight is what the two have in common.
type storeFight struct {
	t  *testing.T
	st object.Store
	mu sync.Mutex
	// next is the next row, acked are the rows that were acknowledged, taken counts the takeovers. Guarded by mu.
	next  int64
	acked map[int64]bool
	taken int
	// open are requests under an idempotency key that nobody has answered yet, answered the others. Guarded by mu.
	open, answered []fightRequest
}

// fightRequest is a request that is sent again until it is answered.
type fightRequest struct {
	key, table string
	ids        []int64
}

func fightForStore(t *testing.T, st object.Store, seed uint64, takeovers int) {
	f := &storeFight{t: t, st: st, acked: map[int64]bool{}}
	db := openStore(t, st)
	createTest(t, db, "plain", "id int64, x int64")
	createTest(t, db, "keyed", "id int64 key, x int64")
	require.NoError(t, db.Close())
	var fighters sync.WaitGroup
	for i := range uint64(2) {
		fighters.Go(func() {
			flaky := objecttest.NewFlaky(st, 2*seed+i, 1, 100*time.Microsecond)
			defer flaky.Wait()
			r := rand.New(rand.NewPCG(seed, i))
			for tries := 0; !f.over(takeovers); tries++ {
				time.Sleep(time.Duration(r.Int64N(int64(time.Duration(1+tries) * 4 * time.Millisecond))))
				if f.round(flaky, r) {
					tries = 0
				}
			}
		})
	}
	fighters.Wait()
	db = openStore(t, st)
	for _, name := range []string{"plain", "keyed"} {
		found := map[int64]int{}
		for _, line := range tableLines(t, db, name) {
			var id, x int64
			_, err := fmt.Sscan(line, &id, &x)
			require.NoError(t, err)
			require.Equal(t, id, x)
			found[id]++
		}
		for id := range f.acked {
			require.Equal(t, 1, found[id], "row %d of table %s", id, name)
		}
		for _, q := range f.answered {
			for _, id := range q.ids {
				require.True(t, q.table != name || found[id] == 1, "row %d of request %s", id, q.key)
			}
		}
		for id, n := range found {
			require.Equal(t, 1, n, "row %d of table %s", id, name)
		}
		require.NoError(t, db.Optimize(context.Background(), TableName{Name: name}))
		require.Len(t, tableLines(t, db, name), len(found))
	}
	require.NoError(t, db.Close())
	_, err := CheckStore(context.Background(), "the store", st, func(x Fault) { t.Errorf("check: %s", x) })
	require.NoError(t, err)
	t.Logf("%d rows of %d were acknowledged in %d takeovers, and %d requests answered", len(f.acked), f.next, f.taken, len(f.answered))
	require.Greater(t, len(f.acked), takeovers/4, "they did little but fight")
}

func (f *storeFight) over(takeovers int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taken >= takeovers || f.t.Failed()
}

// round takes the store and works on it until that goes wrong or is enough. It tells whether it got so far.
func (f *storeFight) round(st object.Store, r *rand.Rand) bool {
	db, err := tryOpenStore(st, func(o *Options) { o.Retain, o.MemtableBytes, o.StageBytes = -1, 4<<10, 1 })
	if err != nil {
		f.expected("open", err)
		return false
	}
	defer func() {
		if err := db.Close(); err != nil {
			f.expected("close", err)
		}
	}()
	f.mu.Lock()
	f.taken++
	f.mu.Unlock()
	for range 1 + r.IntN(12) {
		if err := f.step(db, r); err != nil {
			f.expected("work", err)
			break
		}
	}
	return true
}

// expected fails the test for errors that neither the other nor the store explains.
func (f *storeFight) expected(what string, err error) {
	for _, known := range []error{ErrFenced, ErrPoisoned, ErrInUse, ErrKeyBusy, objecttest.ErrFlaky} {
		if errors.Is(err, known) {
			return
		}
	}
	f.t.Errorf("%s: %v", what, err)
}

// step does one thing.
func (f *storeFight) step(db *DB, r *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := TableName{Name: []string{"plain", "keyed"}[r.IntN(2)]}
	switch r.IntN(12) {
	case 4:
		return f.rewrite(ctx, db)
	case 5, 6, 7:
		return f.request(ctx, db, r)
	case 0:
		return db.Flush(ctx, name)
	case 1:
		return db.Optimize(ctx, name)
	case 2:
		_, err := db.Vacuum(ctx, name)
		return err
	case 3:
		return db.trimNow()
	}
	ids := f.fresh()
	for _, name := range []string{"plain", "keyed"} {
		if err := f.write(ctx, db, name, ids, r); err != nil {
			return err
		}
	}
	f.done(ids)
	return nil
}

// fresh returns rows that nobody has written.
func (f *storeFight) fresh() []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next += 3
	return []int64{f.next - 3, f.next - 2, f.next - 1}
}

// done notes rows that were acknowledged in both tables.
func (f *storeFight) done(ids []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		f.acked[id] = true
	}
}

// rewrite deletes the rows of the table without a key and adds the same.
func (f *storeFight) rewrite(ctx context.Context, db *DB) error {
	table, err := db.Table(TableName{Name: "plain"})
	if err != nil {
		return err
	}
	return table.Rewrite(ctx, func(ctx context.Context, snap *Snapshot, rw *Rewrite) error {
		v, err := snap.Table(table.Name())
		if err != nil {
			return err
		}
		sc, err := v.Scan(ctx, ScanOptions{Columns: []int{RowAddress, 0}})
		if err != nil {
			return err
		}
		defer sc.Close()
		for {
			m, err := sc.Next(ctx)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			err = rewriteRows(ctx, table, rw, m)
			m.Release()
			if err != nil {
				return err
			}
		}
	})
}

// request sends a request that was not answered again, or a new one.
func (f *storeFight) request(ctx context.Context, db *DB, r *rand.Rand) error {
	f.mu.Lock()
	var q fightRequest
	if len(f.open) > 0 && r.IntN(3) > 0 {
		q, f.open = f.open[0], f.open[1:]
	}
	f.mu.Unlock()
	if q.ids == nil {
		ids := f.fresh()
		q = fightRequest{key: fmt.Sprint("k", ids[0]), table: []string{"plain", "keyed"}[r.IntN(2)], ids: ids}
	}
	err := f.send(ctx, db, q)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.open = append(f.open, q)
		return err
	}
	f.answered = append(f.answered, q)
	return nil
}

// send applies a request unless it is.
func (f *storeFight) send(ctx context.Context, db *DB, q fightRequest) error {
	c, err := db.Claim(ctx, TableName{Name: q.table}, Request{Key: q.key})
	if err != nil {
		return err
	}
	defer c.Release()
	table, err := db.Table(TableName{Name: q.table})
	if err != nil {
		return err
	}
	a, err := c.Answer(ctx, table.Schema())
	if err != nil || a.Complete {
		return err
	}
	stage := table.Stage()
	defer stage.Abort()
	stage.Under(c, 1)
	rec, err := fightRecord(table, q.ids)
	if err != nil {
		return err
	}
	defer rec.Release()
	if err := stage.Put(ctx, Batch{Record: rec}); err != nil {
		return err
	}
	_, err = stage.Commit(ctx)
	return err
}

// fightRecord returns rows of a table.
func fightRecord(table *Table, ids []int64) (arrow.RecordBatch, error) {
	var lines []string
	for _, id := range ids {
		lines = append(lines, fmt.Sprint(id, " ", id))
	}
	return rows.Parse(table.Schema(), strings.Join(lines, "\n"))
}

// write puts rows into a table, as a batch or as a stage that spills.
func (f *storeFight) write(ctx context.Context, db *DB, name string, ids []int64, r *rand.Rand) error {
	table, err := db.Table(TableName{Name: name})
	if err != nil {
		return err
	}
	rec, err := fightRecord(table, ids)
	if err != nil {
		return err
	}
	defer rec.Release()
	if r.IntN(4) == 0 {
		stage := table.Stage()
		defer stage.Abort()
		if err := stage.Put(ctx, Batch{Record: rec}); err != nil {
			return err
		}
		_, err := stage.Commit(ctx)
		return err
	}
	lsn, err := table.Put(ctx, Batch{Record: rec})
	if err != nil {
		return err
	}
	return db.Wait(ctx, lsn)
}

// stepStore calls at before and after each call that changes something.
type stepStore struct {
	object.Store
	at func()
}

func (s *stepStore) call(do func() error) error {
	s.at()
	err := do()
	s.at()
	return err
}

// Put implements object.Store.
func (s *stepStore) Put(ctx context.Context, name string, data []byte) error {
	return s.call(func() error { return s.Store.Put(ctx, name, data) })
}

// PutIfAbsent implements object.Store.
func (s *stepStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return s.call(func() error { return s.Store.PutIfAbsent(ctx, name, data) })
}

// Delete implements object.Store.
func (s *stepStore) Delete(ctx context.Context, name string) error {
	return s.call(func() error { return s.Store.Delete(ctx, name) })
}

// DeleteAll implements object.Store.
func (s *stepStore) DeleteAll(ctx context.Context, dir string) error {
	return s.call(func() error { return s.Store.DeleteAll(ctx, dir) })
}

// TestAStoreAtEveryCall opens what is left of a store before and after each of its calls, while tables are made, written,
// flushed, merged, altered, replaced, dropped and opened again: what was acknowledged by then is there, once, and nothing
// that was not written.
func TestAStoreAtEveryCall(t *testing.T) {
	ctx := context.Background()
	mem := object.NewMem()
	random := rand.New(rand.NewPCG(5, 5))
	type moment struct {
		st    *object.Mem
		acked []int64
		all   []int64
	}
	var mu sync.Mutex
	var moments []moment
	var acked, all []int64
	st := &stepStore{Store: mem, at: func() {
		mu.Lock()
		defer mu.Unlock()
		moments = append(moments, moment{mem.CrashClone(random), slices.Clone(acked), slices.Clone(all)})
	}}
	open := func() *DB { return openStore(t, st, func(o *Options) { o.Retain, o.StageBytes = -1, 1 }) }
	db := open()
	next := int64(0)
	write := func(put func(table *Table, ids []int64)) {
		t.Helper()
		ids := []int64{next, next + 1}
		next += 2
		mu.Lock()
		all = append(all, ids...)
		mu.Unlock()
		table, err := db.Table(TableName{Name: "a"})
		require.NoError(t, err)
		put(table, ids)
		mu.Lock()
		acked = append(acked, ids...)
		mu.Unlock()
	}
	puts := func(table *Table, ids []int64) { putKeys(t, db, table, 1, ids...) }
	stages := func(table *Table, ids []int64) {
		stage := table.Stage()
		rec := writesBatch(table.Schema(), 0, 1, ids)
		require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
		rec.Release()
		_, err := stage.Commit(ctx)
		require.NoError(t, err)
	}
	createTest(t, db, "a", "key int64, writer int64, seq int64")
	a := TableName{Name: "a"}
	write(puts)
	write(stages)
	require.NoError(t, db.Flush(ctx, a))
	write(puts)
	require.NoError(t, db.Optimize(ctx, a))
	write(puts)
	require.NoError(t, db.Close())
	db = open()
	write(stages)
	require.NoError(t, db.trimNow())
	createTest(t, db, "b", writesSchema)
	stage := stageTest(t, db, "b", writesSchema)
	rec := writesBatch(stage.Table().Schema(), 0, 1, []int64{1, 2, 3})
	require.NoError(t, stage.Put(ctx, Batch{Record: rec}))
	rec.Release()
	_, err := stage.Commit(ctx)
	require.NoError(t, err)
	write(puts)
	require.NoError(t, db.DropTable(ctx, TableName{Name: "b"}))
	_, err = db.Vacuum(ctx, a)
	require.NoError(t, err)
	require.NoError(t, db.Optimize(ctx, a))
	write(puts)
	require.NoError(t, db.Close())
	t.Logf("%d moments", len(moments))
	for i, m := range moments {
		again, err := tryOpenStore(m.st)
		require.NoError(t, err, "moment %d", i)
		found := map[int64]int{}
		if _, err := again.Table(a); err == nil {
			for _, line := range tableLines(t, again, "a") {
				var id int64
				_, err := fmt.Sscan(line, &id)
				require.NoError(t, err)
				found[id]++
				require.Equal(t, 1, found[id], "row %d at moment %d", id, i)
				require.Contains(t, m.all, id, "moment %d", i)
			}
		}
		for _, id := range m.acked {
			require.Equal(t, 1, found[id], "row %d at moment %d", id, i)
		}
		require.NoError(t, again.Close())
		_, err = CheckStore(ctx, "the store", m.st, func(x Fault) { t.Errorf("check at moment %d: %s", i, x) })
		require.NoError(t, err)
	}
}

// rewriteRows deletes the rows that live in a morsel of addresses and ids, and adds rows with the same ids.
func rewriteRows(ctx context.Context, table *Table, rw *Rewrite, m *Morsel) error {
	var ids []int64
	for i := range int(m.Record.NumRows()) {
		if m.Live != nil && !slices.Contains(m.Live, uint32(i)) {
			continue
		}
		rw.Delete([]uint64{m.Record.Column(0).(*array.Uint64).Value(i)})
		ids = append(ids, m.Record.Column(1).(*array.Int64).Value(i))
	}
	if len(ids) == 0 {
		return nil
	}
	rec, err := fightRecord(table, ids)
	if err != nil {
		return err
	}
	defer rec.Release()
	return rw.Put(ctx, rec)
}
