package lsm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
)

// interplaySeeds is how many seeds TestInterplay runs, from interplayFirst on; more are for an evening.
var (
	interplaySeeds = flag.Uint64("interplay-seeds", 3, "how many seeds TestInterplay runs of each kind")
	interplayFirst = flag.Uint64("interplay-first", 0, "the first seed of TestInterplay")
)

// TestInterplay does everything that changes a table, in random order and on the same rows: puts, deletes, partial
// upserts, stages that stay open over other changes, streams that resume, ALTER, rewrites, replacements, and commits of
// another program, while flushes, merges and collections run beside them; restarts and crashes come between. After each
// step the table is compared with a model, by a full scan, by its parts and by keys; snapshots that were taken on the way
// keep their rows.
func TestInterplay(t *testing.T) {
	for _, keyed := range []bool{true, false} {
		for seed := *interplayFirst; seed < *interplayFirst+*interplaySeeds; seed++ {
			t.Run(fmt.Sprintf("keyed=%v seed=%d", keyed, seed), func(t *testing.T) {
				x := newInterplay(t, keyed, seed)
				defer x.end()
				for range 60 {
					x.step()
				}
			})
		}
	}
}

// interplay is one run.
type interplay struct {
	t     *testing.T
	ctx   context.Context
	r     *rand.Rand
	keyed bool
	s     *scenario
	m     *alterModel
	key   string // the name of the column
	log   []string
	// fresh is a key that no row had yet.
	fresh int64
	// stale is set when the table may not show yet what another program has committed.
	stale bool
	held  []heldRows
	stage *Stage
	// staged is what the stage's commit does to the model; sent are the columns that its batches have, nil for all.
	staged []func()
	sent   map[int]bool
	// batches were stored under the idempotency key of this number.
	request, batches int64
	// others runs beside everything else; gate keeps it from collecting what another program commits on.
	gate  sync.Mutex
	stop  chan struct{}
	other sync.WaitGroup
}

// heldRows is a snapshot and what it showed when it was taken.
type heldRows struct {
	snap  *Snapshot
	lines []string
}

func newInterplay(t *testing.T, keyed bool, seed uint64) *interplay {
	x := &interplay{t: t, ctx: context.Background(), r: rand.New(rand.NewPCG(seed, 9)), keyed: keyed, key: "key",
		s: &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}}
	x.open()
	require.NoError(t, x.s.create(x.ctx, "t", x.schema()))
	x.reset()
	return x
}

// schema is that of the table when it is new.
func (x *interplay) schema() string {
	if x.keyed {
		return "key int64 key, a int64, b utf8"
	}
	return "key int64, a int64, b utf8"
}

// reset makes the model that of a new table.
func (x *interplay) reset() {
	next := 2
	if x.m != nil {
		next = x.m.next + 2
	}
	x.key, x.batches, x.stale = "key", 0, false
	x.m = &alterModel{columns: []modelColumn{{next - 2, "a", "int64", "null"}, {next - 1, "b", "utf8", "null"}}, rows: map[int64]map[int]string{}, next: next}
}

// open opens the folder and starts what runs beside the steps.
func (x *interplay) open() {
	db, err := Open(x.ctx, Options{Dir: x.s.dir, wrap: faulty, Memory: minMemory, MemtableBytes: 16 << 10, SegmentBytes: 64 << 10, StageBytes: 3000, Retain: -1})
	x.ok(err)
	x.s.db = db
	x.stop = make(chan struct{})
	seed := x.r.Uint64()
	x.other.Go(func() { x.beside(rand.New(rand.NewPCG(seed, 10)), db, x.stop) })
}

// beside flushes, merges and collects until it is told to stop.
func (x *interplay) beside(r *rand.Rand, db *DB, stop chan struct{}) {
	n := TableName{Name: "t"}
	for {
		select {
		case <-stop:
			return
		default:
		}
		x.gate.Lock()
		var err error
		switch r.IntN(4) {
		case 0:
			err = db.Flush(x.ctx, n)
		case 1:
			err = db.Optimize(x.ctx, n)
		case 2:
			_, err = db.Vacuum(x.ctx, n)
		case 3:
			for range 1000 {
				db.Visible()
			}
		}
		x.gate.Unlock()
		if err != nil && !errors.Is(err, ErrTableNotFound) && !errors.Is(err, ErrClosed) {
			x.t.Errorf("beside: %v", err)
			return
		}
	}
}

// pause ends what runs beside, and lets everything go that does not outlive the DB.
func (x *interplay) pause() {
	close(x.stop)
	x.other.Wait()
	for _, h := range x.held {
		x.compareHeld(h)
		h.snap.Release()
	}
	x.held = nil
	x.drop()
}

// drop gives up the stage.
func (x *interplay) drop() {
	if x.stage != nil {
		x.stage.Abort()
	}
	x.stage, x.staged, x.sent = nil, nil, nil
}

func (x *interplay) end() {
	if x.t.Failed() { // it may have no DB
		return
	}
	x.pause()
	x.ok(x.s.db.Optimize(x.ctx, TableName{Name: "t"}))
	x.stale = false
	x.coverAll()
	x.compare()
	used, _ := x.s.db.budget.state()
	empty := int64(0)
	for _, t := range x.s.db.list() {
		for _, c := range t.set.Load().chains {
			empty += c.active().bytes.Load()
		}
	}
	require.Equal(x.t, empty, used, "memory that nobody holds\n%s", x.story())
	x.ok(x.s.db.Close())
	_, err := Check(x.ctx, x.s.dir, func(f Fault) { x.t.Errorf("%s\n%s", f, x.story()) })
	x.ok(err)
	if lines := lanceLines(x.t, path.Join(x.s.dir, "t.lance")); lines != nil {
		require.Equal(x.t, x.m.lines(), lines, x.story())
	}
}

func (x *interplay) story() string { return strings.Join(x.log, "\n") }

func (x *interplay) note(format string, args ...any) {
	x.log = append(x.log, fmt.Sprintf(format, args...))
}

func (x *interplay) ok(err error) {
	x.t.Helper()
	require.NoError(x.t, err, x.story())
}

func (x *interplay) table() *Table { return mustTable(x.t, x.s.db, "t") }

// step does one thing.
func (x *interplay) step() {
	steps := []func(){x.put, x.put, x.delete, x.partial, x.stageStep, x.stageStep, x.stageStep, x.resume, x.resume, x.alter, x.alter, x.rewrite, x.rewrite,
		x.index, x.index, x.optimize, x.flush, x.vacuum, x.foreignAppend, x.foreignDelete, x.foreignCompact, x.hold, x.letGo}
	switch n := x.r.IntN(len(steps) + 2); {
	case n < len(steps):
		steps[n]()
	case n == len(steps):
		x.restart()
	case x.r.IntN(3) == 0:
		x.replace()
	}
	if x.stale && x.r.IntN(3) == 0 {
		x.optimize()
	}
	x.compare()
}

// compare compares the table with the model.
func (x *interplay) compare() {
	if x.stale {
		return
	}
	x.t.Helper()
	snap, err := x.s.db.Snapshot(x.ctx)
	x.ok(err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "t"})
	x.ok(err)
	lines, err := scanRows(x.ctx, v, allColumns(v.Schema()))
	x.ok(err)
	require.Equal(x.t, x.m.lines(), lines, x.story())
	x.compareParts(v, lines, nil, nil)
	for i := range x.m.columns {
		where, wanted := x.someValues(v, i, lines)
		want := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !wanted(strings.Fields(l)[i+1]) })
		var keys *KeySet
		if x.keyed && x.r.IntN(4) == 0 {
			var in map[string]bool
			keys, in = x.someKeys(v)
			want = slices.DeleteFunc(want, func(l string) bool { return !in[strings.Fields(l)[0]] })
		}
		x.compareParts(v, want, keys, where)
	}
	if !x.keyed {
		return
	}
	set, wanted := x.someKeys(v)
	x.compareParts(v, slices.DeleteFunc(lines, func(l string) bool { return !wanted[strings.Fields(l)[0]] }), set, nil)
}

// someKeys returns a set of keys of a view, as points or as a range, and the same as texts.
func (x *interplay) someKeys(v *View) (*KeySet, map[string]bool) {
	set, wanted := v.NewKeySet(), map[string]bool{}
	one := func(k int64) arrow.Array {
		b := array.NewInt64Builder(memory.DefaultAllocator)
		defer b.Release()
		b.Append(k)
		return b.NewArray()
	}
	if x.r.IntN(2) == 0 {
		from := x.r.Int64N(40)
		to := from + x.r.Int64N(8)
		x.ok(set.AddRange(nil, KeyBound{Value: one(from)}, KeyBound{Value: one(to)}))
		for k := from; k <= to; k++ {
			wanted[fmt.Sprint(k)] = true
		}
		return set, wanted
	}
	for range 1 + x.r.IntN(5) {
		k := x.r.Int64N(40)
		x.ok(set.Add([]arrow.Array{one(k)}))
		wanted[fmt.Sprint(k)] = true
	}
	return set, wanted
}

// compareParts reads the rows in parts; of a set, others may come, too.
func (x *interplay) compareParts(v *View, want []string, set, where *KeySet) {
	x.t.Helper()
	var lines []string
	parts := 1 + x.r.IntN(3)
	for i := range parts {
		sc, err := v.Scan(x.ctx, ScanOptions{Columns: allColumns(v.Schema()), Keys: set, Where: where, Part: i, Parts: parts})
		x.ok(err)
		for m, err := sc.Next(x.ctx); err == nil; m, err = sc.Next(x.ctx) {
			lines = append(lines, rows.Format(m.Record, m.Live)...)
			m.Release()
		}
		sc.Close()
	}
	slices.Sort(lines)
	require.Equal(x.t, len(lines), len(slices.Compact(slices.Clone(lines))), "a row comes twice\n%s", x.story())
	if set != nil || where != nil {
		lines = slices.DeleteFunc(lines, func(l string) bool { return !slices.Contains(want, l) })
	}
	require.Equal(x.t, len(want), len(lines), x.story())
	require.True(x.t, slices.Equal(want, lines), "%v, want %v\n%s", lines, want, x.story())
}

func (x *interplay) compareHeld(h heldRows) {
	v, err := h.snap.Table(TableName{Name: "t"})
	x.ok(err)
	lines, err := scanRows(x.ctx, v, allColumns(v.Schema()))
	x.ok(err)
	require.Equal(x.t, h.lines, lines, x.story())
}

func (x *interplay) hold() {
	if len(x.held) > 3 {
		return
	}
	x.note("hold")
	snap, err := x.s.db.Snapshot(x.ctx)
	x.ok(err)
	h := heldRows{snap: snap}
	v, err := snap.Table(TableName{Name: "t"})
	x.ok(err)
	h.lines, err = scanRows(x.ctx, v, allColumns(v.Schema()))
	x.ok(err)
	x.held = append(x.held, h)
}

func (x *interplay) letGo() {
	if len(x.held) > 0 {
		x.note("let go")
		x.compareHeld(x.held[0])
		x.held[0].snap.Release()
		x.held = x.held[1:]
	}
}

// newKey returns a key for a row: in a keyless table one that no row has, else mostly one of a few.
func (x *interplay) newKey() int64 {
	if x.keyed && x.r.IntN(4) > 0 {
		return x.r.Int64N(30)
	}
	x.fresh++
	return 1000 + x.fresh
}

// someRows makes rows with values in columns, and returns them as text and as what they do to the model.
func (x *interplay) someRows(n int) (text string, apply func()) {
	var lines []string
	made := map[int64]map[int]string{}
	for range 1 + x.r.IntN(n) {
		key, row := x.newKey(), map[int]string{}
		words := []string{fmt.Sprint(key)}
		for _, c := range x.m.columns {
			row[c.id] = x.m.value(x.r, c.typ)
			words = append(words, row[c.id])
		}
		made[key] = row
		lines = append(lines, strings.Join(words, " "))
	}
	return strings.Join(lines, "\n"), func() {
		for k, row := range made {
			x.m.rows[k] = row
		}
	}
}

func (x *interplay) put() {
	text, apply := x.someRows(6)
	x.note("put %s", strings.ReplaceAll(text, "\n", "; "))
	x.ok(x.s.put(x.ctx, "t", false, text))
	apply()
}

// someDeletes returns tombstones, as text and as what they do to the model.
func (x *interplay) someDeletes() (text string, apply func()) {
	var lines []string
	var keys []int64
	for range 1 + x.r.IntN(4) {
		k := x.r.Int64N(30)
		keys = append(keys, k)
		lines = append(lines, fmt.Sprint(k)+strings.Repeat(" null", len(x.m.columns))+" true")
	}
	return strings.Join(lines, "\n"), func() {
		for _, k := range keys {
			delete(x.m.rows, k)
		}
	}
}

func (x *interplay) delete() {
	if !x.keyed {
		return
	}
	text, apply := x.someDeletes()
	x.note("delete %s", strings.ReplaceAll(text, "\n", "; "))
	x.ok(x.s.put(x.ctx, "t", true, text))
	apply()
}

// partialRows makes a batch with some of the columns, that leaves the others as they are.
func (x *interplay) partialRows(sent map[int]bool) (Batch, func()) {
	columns := slices.Clone(x.m.columns)
	schema := []string{x.key + " int64"}
	for _, c := range columns {
		if sent[c.id] {
			schema = append(schema, c.name+" "+c.typ)
		}
	}
	var lines []string
	var changes []func()
	for range 1 + x.r.IntN(6) {
		key, row := x.newKey(), map[int]string{}
		words := []string{fmt.Sprint(key)}
		for _, c := range columns {
			if sent[c.id] {
				row[c.id] = x.m.value(x.r, c.typ)
				words = append(words, row[c.id])
			}
		}
		lines = append(lines, strings.Join(words, " "))
		changes = append(changes, func() { x.m.update(key, row, columns) })
	}
	x.note("  partial %s: %s", strings.Join(schema, ", "), strings.Join(lines, "; "))
	b := partial(x.t, x.table(), ConformOptions{Missing: MissingKeep}, strings.Join(schema, ", "), strings.Join(lines, "\n"))
	return b, func() {
		for _, c := range changes {
			c()
		}
	}
}

// update is a partial upsert of a row whose sender knew some columns.
func (m *alterModel) update(key int64, row map[int]string, known []modelColumn) {
	old, there := m.rows[key]
	next := map[int]string{}
	for _, c := range m.columns {
		v, came := row[c.id]
		had, stored := old[c.id]
		switch {
		case came:
			next[c.id] = v
		case there && stored:
			next[c.id] = had
		case !there && slices.ContainsFunc(known, func(k modelColumn) bool { return k.id == c.id }):
			next[c.id] = "null"
		default:
			next[c.id] = c.fill
		}
	}
	m.rows[key] = next
}

// someColumns returns some of the columns.
func (x *interplay) someColumns() map[int]bool {
	sent := map[int]bool{}
	for _, c := range x.m.columns {
		if x.r.IntN(2) == 0 {
			sent[c.id] = true
		}
	}
	return sent
}

// settled makes the table show what others have committed, if it must.
func (x *interplay) settled() {
	if x.stale {
		x.optimize()
	}
}

func (x *interplay) partial() {
	if !x.keyed {
		return
	}
	x.settled()
	b, apply := x.partialRows(x.someColumns())
	defer b.Record.Release()
	lsn, err := x.table().Put(x.ctx, b)
	x.ok(err)
	x.ok(x.s.db.Wait(x.ctx, lsn))
	apply()
}

// stageStep begins a stage, puts into it, commits it or gives it up.
func (x *interplay) stageStep() {
	switch n := x.r.IntN(6); {
	case x.stage == nil:
		x.stage = x.table().Stage()
		if x.keyed && x.r.IntN(3) == 0 {
			x.sent = x.someColumns()
		}
		x.note("stage %v", x.sent)
		x.stagePut()
	case n == 0:
		x.note("abort")
		x.drop()
	case n == 1:
		x.settled()
		x.note("commit %d", len(x.stage.spilled))
		_, err := x.stage.Commit(x.ctx)
		x.ok(err)
		for _, apply := range x.staged {
			apply()
		}
		x.drop()
	default:
		x.stagePut()
	}
}

func (x *interplay) stagePut() {
	if x.sent != nil {
		b, apply := x.partialRows(x.sent)
		defer b.Record.Release()
		x.ok(x.stage.Put(x.ctx, b))
		x.staged = append(x.staged, apply)
		return
	}
	text, apply := x.someRows(20)
	deletes := x.keyed && x.r.IntN(4) == 0
	if deletes {
		text, apply = x.someDeletes()
	}
	x.note("stage put %s", strings.ReplaceAll(text, "\n", "; "))
	x.s.stages["t"] = x.stage
	x.ok(x.s.stagePut(x.ctx, "t", deletes, text))
	x.staged = append(x.staged, apply)
}

// resume puts a batch under an idempotency key, after it has asked how many came before.
func (x *interplay) resume() {
	c, a := claimTest(x.t, x.s.db, "t", fmt.Sprint(x.request), true)
	defer c.Release()
	require.Equal(x.t, x.batches, a.Batches, x.story())
	text, apply := x.someRows(4)
	x.note("resume %d: %s", a.Batches, strings.ReplaceAll(text, "\n", "; "))
	rec, err := rows.Parse(x.table().Schema(), text)
	x.ok(err)
	defer rec.Release()
	lsn, err := c.Put(x.ctx, x.table(), Batch{Record: rec}, Answer{Batches: a.Batches + 1, Rows: a.Rows + rec.NumRows()})
	x.ok(err)
	x.ok(x.s.db.Wait(x.ctx, lsn))
	apply()
	x.batches++
}

func (x *interplay) alter() {
	if x.r.IntN(5) == 0 {
		x.m.next++
		next := fmt.Sprintf("k%d", x.m.next)
		x.note("rename %s %s", x.key, next)
		x.ok(x.s.alter(x.ctx, "t", "rename "+x.key+" "+next))
		x.key = next
		return
	}
	line := x.m.alter(x.r)
	x.note("alter %s", line)
	x.ok(x.s.alter(x.ctx, "t", line))
}

func (x *interplay) optimize() {
	x.note("optimize")
	x.ok(x.s.db.Optimize(x.ctx, TableName{Name: "t"}))
	x.stale = false
	x.coverAll()
}

func (x *interplay) flush() {
	x.note("flush")
	x.ok(x.s.db.Flush(x.ctx, TableName{Name: "t"}))
}

func (x *interplay) vacuum() {
	x.note("vacuum")
	_, err := x.s.db.Vacuum(x.ctx, TableName{Name: "t"})
	x.ok(err)
}
