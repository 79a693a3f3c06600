package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/rows"
)

// metaOp is one operation of a metamorphic test. All that it does follows from its kind, its seed, and what the
// operations before it made of the model, so every part of a list of operations is a list that can be run.
type metaOp struct {
	kind string
	seed uint64
}

func (o metaOp) String() string { return fmt.Sprintf("%s %d", o.kind, o.seed) }

// metaKinds are the operations, each as often as it is drawn, and what they do.
var metaKinds = []struct {
	kind   string
	weight int
	do     func(*metaRun)
}{
	{"put", 8, (*metaRun).put},
	{"delete", 4, (*metaRun).delete},
	{"insert", 4, (*metaRun).insert},
	{"partial", 4, (*metaRun).partial},
	{"modify", 3, (*metaRun).modify},
	{"stage", 12, (*metaRun).stageStep},
	{"resume", 8, (*metaRun).resume},
	{"alter", 8, (*metaRun).alter},
	{"index", 8, (*metaRun).index},
	{"rewrite", 6, (*metaRun).rewrite},
	{"optimize", 4, (*metaRun).optimize},
	{"flush", 5, (*metaRun).flush},
	{"vacuum", 3, (*metaRun).vacuum},
	{"foreign-append", 4, (*metaRun).foreignAppend},
	{"foreign-delete", 4, (*metaRun).foreignDelete},
	{"foreign-compact", 4, (*metaRun).foreignCompact},
	{"hold", 4, (*metaRun).hold},
	{"let-go", 4, (*metaRun).letGo},
	{"reopen", 2, (*metaRun).reopen},
	{"crash", 3, (*metaRun).crash},
	{"replace", 1, (*metaRun).replace},
	{"recreate", 1, (*metaRun).recreate},
}

// metaDo returns what an operation does.
func metaDo(kind string) func(*metaRun) {
	for _, k := range metaKinds {
		if k.kind == kind {
			return k.do
		}
	}
	return nil
}

// metaRun runs a list of operations under some options and compares what it reads with a model.
type metaRun struct {
	t     *testing.T
	ctx   context.Context
	title string // of the table
	opt   metaOptions
	r     *rand.Rand // of the operation that runs
	s     *scenario
	m     *tableModel
	log   []string
	said  []string // the answers of all operations, which no option may change
	// fresh is a key that no row had yet.
	fresh int64
	held  []heldRows
	stage *Stage
	// staged is what the stage's commit does to the model; sent are the columns that its batches have, nil for all.
	staged []func()
	sent   map[int]bool
	// near are the rows that searches by few partitions found of those that are nearest, and nearest how many these are.
	near, nearest int
	// batches were stored under the idempotency key of the table's incarnation.
	batches int64
	// others runs beside everything else; gate keeps it from collecting what another program commits on.
	gate   sync.Mutex
	stop   chan struct{}
	other  sync.WaitGroup
	beyond error // what went wrong there, guarded by gate
	// mark is called when the model is what a table may be left as, with whether there is one; nil for nothing.
	mark func(m *tableModel, exists bool)
}

// heldRows is a snapshot and what it showed when it was taken.
type heldRows struct {
	snap  *Snapshot
	lines []string
}

// metaFailure is what a run panics with when an answer is wrong.
type metaFailure struct{ err error }

// runMeta runs operations under options. It returns their answers, the operations in words, and what was wrong.
func runMeta(t *testing.T, kind modelKind, o metaOptions, ops []metaOp) (said, story []string, err error) {
	x := &metaRun{t: t, ctx: context.Background(), title: "t", opt: o, r: rand.New(rand.NewPCG(0, 0)), m: newTableModel(kind, 0),
		s: &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}}
	err = x.caught(func() {
		x.open()
		x.ok(x.create())
		for _, op := range ops {
			x.note("%s", op)
			x.r = rand.New(rand.NewPCG(op.seed, 9))
			metaDo(op.kind)(x)
			x.compare()
			x.answer("%d rows", len(x.m.rows))
		}
		x.end()
	})
	if err != nil {
		x.giveUp()
	}
	return x.said, x.log, err
}

// caught runs something and returns what was wrong.
func (x *metaRun) caught(do func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(metaFailure)
			if !ok {
				panic(p)
			}
			err = f.err
		}
	}()
	do()
	return nil
}

// note says in words what is done.
func (x *metaRun) note(format string, args ...any) {
	x.log = append(x.log, fmt.Sprintf(format, args...))
}

// answer notes an answer that has to be the same in all runs.
func (x *metaRun) answer(format string, args ...any) {
	x.said = append(x.said, fmt.Sprintf(format, args...))
}

// ok fails the run when err is not nil.
func (x *metaRun) ok(err error) {
	if err != nil {
		panic(metaFailure{err})
	}
}

// want fails the run when a condition does not hold.
func (x *metaRun) want(ok bool, format string, args ...any) {
	if !ok {
		panic(metaFailure{fmt.Errorf(format, args...)})
	}
}

// wantLines fails the run when rows are not those that they should be.
func (x *metaRun) wantLines(what string, want, got []string) {
	if slices.Equal(want, got) {
		return
	}
	lacks := slices.DeleteFunc(slices.Clone(want), func(l string) bool { return slices.Contains(got, l) })
	more := slices.DeleteFunc(slices.Clone(got), func(l string) bool { return slices.Contains(want, l) })
	x.want(false, "%s: %d rows, want %d; it lacks %q and has %q", what, len(got), len(want), lacks, more)
}

// create makes the table.
func (x *metaRun) create() error {
	d, err := x.def()
	if err != nil {
		return err
	}
	return x.s.db.CreateTable(x.ctx, d)
}

// def is the definition of the table when it is new.
func (x *metaRun) def() (TableDef, error) {
	s, err := rows.Schema(newTableModel(x.m.kind, 0).schema())
	return x.opt.def(TableDef{Name: x.name(), Schema: s}), err
}

// name is that of the table.
func (x *metaRun) name() TableName { return TableName{Name: x.title} }

// marked says that the table is what a model says.
func (x *metaRun) marked(m *tableModel, exists bool) {
	if x.mark != nil {
		x.mark(m, exists)
	}
}

// table returns the table.
func (x *metaRun) table() *Table {
	t, err := x.s.db.Table(x.name())
	x.ok(err)
	return t
}

// open opens the folder and starts what runs beside the operations.
func (x *metaRun) open() {
	db, err := Open(x.ctx, x.opt.options(x.s.dir))
	x.ok(err)
	x.s.db = db
	x.stop = make(chan struct{})
	if x.opt.beside {
		dice, stop := rand.New(rand.NewPCG(uint64(len(x.log)), 10)), x.stop
		x.other.Go(func() { x.beside(dice, db, stop) })
	}
}

// beside flushes, merges and collects until it is told to stop.
func (x *metaRun) beside(r *rand.Rand, db *DB, stop chan struct{}) {
	n := x.name()
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
		if err != nil && !errors.Is(err, ErrTableNotFound) && !errors.Is(err, ErrClosed) {
			x.beyond = fmt.Errorf("beside: %w", err)
		}
		failed := x.beyond != nil
		x.gate.Unlock()
		if failed {
			return
		}
	}
}

// pause ends what runs beside, and lets everything go that does not outlive the DB.
func (x *metaRun) pause() {
	close(x.stop)
	x.other.Wait()
	x.ok(x.beyond)
	for _, h := range x.held {
		x.compareHeld(h)
		h.snap.Release()
	}
	x.held = nil
	x.drop()
}

// giveUp ends a run that has failed.
func (x *metaRun) giveUp() {
	select {
	case <-x.stop:
	default:
		close(x.stop)
	}
	x.other.Wait()
	for _, h := range x.held {
		h.snap.Release()
	}
	if x.s.db != nil {
		x.drop()
		_ = x.s.db.Close() // it has failed already
	}
}

// drop gives up the stage.
func (x *metaRun) drop() {
	if x.stage != nil {
		x.stage.Abort()
	}
	x.stage, x.staged, x.sent = nil, nil, nil
}

// end compares what is left when everything is merged, and who else reads it.
func (x *metaRun) end() {
	x.pause()
	x.optimize()
	x.compare()
	x.wantRecall()
	x.wantBudget()
	x.ok(x.s.db.Close())
	_, err := Check(x.ctx, x.s.dir, func(f Fault) { x.want(false, "check: %s", f) })
	x.ok(err)
	if !x.opt.lance {
		return
	}
	if lines := lanceLines(x.t, path.Join(x.s.dir, x.title+".lance")); lines != nil {
		x.wantLines("lance", x.m.lines(), lines)
	}
}

// wantBudget compares the memory that is accounted with that of the memtables. What works in the background may hold what
// readers have no more for a moment.
func (x *metaRun) wantBudget() {
	var used, empty int64
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		used, _ = x.s.db.budget.state()
		empty = 0
		for _, t := range x.s.db.list() {
			for _, c := range t.set.Load().chains {
				empty += c.active().bytes.Load()
			}
		}
		if empty == used {
			return
		}
	}
	x.want(false, "%d bytes of memory are in use, the memtables have %d", used, empty)
}

// compare compares the table with the model.
func (x *metaRun) compare() {
	x.gate.Lock()
	err := x.beyond
	x.gate.Unlock()
	x.ok(err)
	snap, err := x.s.db.Snapshot(x.ctx)
	x.ok(err)
	defer snap.Release()
	v, err := snap.Table(x.name())
	x.ok(err)
	lines, err := scanRows(x.ctx, v, allColumns(v.Schema()))
	x.ok(err)
	x.wantLines("scan", x.m.lines(), lines)
	x.compareParts(v, lines, nil, nil)
	for i, c := range x.m.columns {
		if c.isVector() {
			x.compareSearch(v, i)
		} else {
			x.compareColumn(v, i, lines)
		}
	}
	if x.m.keyed() {
		set, in := x.someKeys(v)
		lines = slices.DeleteFunc(lines, func(l string) bool { return !in(l) })
		x.compareParts(v, lines, set, nil)
		x.answer("%v", lines)
	}
}

// compareColumn compares what is found by values of a column, and sometimes by keys, too.
func (x *metaRun) compareColumn(v *View, column int, lines []string) {
	where, wanted := x.someValues(v, column, lines)
	want := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !wanted(wordOf(l, len(x.m.keys)+column)) })
	var keys *KeySet
	if x.m.keyed() && x.r.IntN(4) == 0 {
		var in func(line string) bool
		keys, in = x.someKeys(v)
		want = slices.DeleteFunc(want, func(l string) bool { return !in(l) })
	}
	x.compareParts(v, want, keys, where)
	x.answer("%v", want)
}

// someKeys returns a set of keys of a view, as points or as a range, and which lines of rows are in it.
func (x *metaRun) someKeys(v *View) (set *KeySet, in func(line string) bool) {
	set = v.NewKeySet()
	var wanted []string
	in = func(line string) bool {
		return slices.ContainsFunc(wanted, func(k string) bool { return strings.HasPrefix(line, k+" ") })
	}
	const most = 40
	if x.r.IntN(2) == 0 {
		for range 1 + x.r.IntN(5) {
			k := x.r.Int64N(most)
			x.ok(set.Add(x.m.keyArrays(k)))
			wanted = append(wanted, x.m.keyText(k))
		}
		return set, in
	}
	from := x.r.Int64N(most)
	to := from + x.r.Int64N(8)
	var prefix []arrow.Array
	low, high := x.m.keyArrays(from), x.m.keyArrays(to)
	within := func(k int64) bool { return from <= k && k <= to }
	switch x.m.kind {
	case textKey:
		within = func(k int64) bool { return x.m.keyText(from) <= x.m.keyText(k) && x.m.keyText(k) <= x.m.keyText(to) }
	case pairKey:
		if x.r.IntN(2) == 0 {
			within = func(k int64) bool { return from/pairs <= k/pairs && k/pairs <= to/pairs }
			break
		}
		to = min(to, from/pairs*pairs+pairs-1)
		prefix, low, high = low[:1], low[1:], x.m.keyArrays(to)[1:]
	}
	x.ok(set.AddRange(prefix, KeyBound{Value: low[0]}, KeyBound{Value: high[0]}))
	for k := range x.m.rows {
		if within(k) {
			wanted = append(wanted, x.m.keyText(k))
		}
	}
	return set, in
}

// compareParts reads the rows in parts; of a set, others may come, too.
func (x *metaRun) compareParts(v *View, want []string, set, where *KeySet) {
	var lines []string
	parts := 1 + x.r.IntN(3)
	for i := range parts {
		sc, err := v.Scan(x.ctx, ScanOptions{Columns: allColumns(v.Schema()), Keys: set, Where: where, Part: i, Parts: parts})
		x.ok(err)
		lines = append(lines, x.drain(sc)...)
	}
	slices.Sort(lines)
	x.want(len(lines) == len(slices.Compact(slices.Clone(lines))), "a row comes twice: %q", lines)
	what := "scan in parts"
	if set != nil || where != nil {
		what = "scan by keys or values"
		lines = slices.DeleteFunc(lines, func(l string) bool { return !slices.Contains(want, l) })
	}
	x.wantLines(what, want, lines)
}

// drain reads a scan to its end and closes it.
func (x *metaRun) drain(sc *Scan) (lines []string) {
	defer sc.Close()
	for {
		m, err := sc.Next(x.ctx)
		if errors.Is(err, io.EOF) {
			return lines
		}
		x.ok(err)
		lines = append(lines, rows.Format(m.Record, m.Live)...)
		m.Release()
	}
}

func (x *metaRun) compareHeld(h heldRows) {
	v, err := h.snap.Table(x.name())
	x.ok(err)
	lines, err := scanRows(x.ctx, v, allColumns(v.Schema()))
	x.ok(err)
	x.wantLines("snapshot that is held", h.lines, lines)
}
