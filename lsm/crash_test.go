package lsm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

var (
	crashSeeds = flag.Uint64("crash-seeds", 50, "how many seeds TestCrashes runs")
	crashFirst = flag.Uint64("crash-first", 0, "the first seed of TestCrashes")
)

// crashLives is how often the power is cut for one seed.
const crashLives = 3

// TestCrashes changes several tables at once and cuts the power inside a random call of the store, be it of a flush, a
// merge, DDL, a collection or of Open itself, or while nothing is called; the log loses what was not synced of it, in any
// order. What opens then is each table after one of its operations: the last that was acknowledged or the one that was
// under way; of a buffered table an earlier one may be, but none that was durable. flightd check has nothing to say of
// what the cut left, nor of what is there in the end.
func TestCrashes(t *testing.T) {
	for seed := *crashFirst; seed < *crashFirst+fewer(*crashSeeds, 3); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := newCrashWorld(t, seed)
			for range crashLives {
				w.live()
			}
			w.end()
		})
	}
}

// crashWorld is a folder over its crashes.
type crashWorld struct {
	t      *testing.T
	r      *rand.Rand
	opt    metaOptions
	dir    string
	tables []*crashTable
	// st is the store of the present life, and db its DB once it is open.
	st *crashStore
	db atomic.Pointer[DB]
	// cut is done once in a life, inside one of the calls of the store.
	calls atomic.Int64
	at    int64
	power sync.Once
	dark  atomic.Bool // it has been cut
	left  moment
	story []string
}

// crashTable is one table, with what it may be found as.
type crashTable struct {
	run *metaRun
	// states are what it was after each of its operations in this life, guarded by mu.
	mu     sync.Mutex
	states []crashState
	// from is the first of them that the cut may have left. known is set once it was found out in this life which of them
	// the cut before has left: until then nothing is promised of it but that.
	from  int
	known bool
	ops   []metaOp
}

// crashState is what a table is after an operation.
type crashState struct {
	m       *tableModel
	exists  bool
	batches int64
	// lsn is at or above all that led to it.
	lsn LSN
}

func newCrashWorld(t *testing.T, seed uint64) *crashWorld {
	r := rand.New(rand.NewPCG(seed, 77))
	w := &crashWorld{t: t, r: r, dir: filepath.Join(t.TempDir(), "0"), opt: newMetaOptions(seed, 2)}
	w.opt.beside = false
	w.ok(os.MkdirAll(w.dir, 0o755)) // a store makes nothing before its first object
	for i := range 1 + r.IntN(3) {
		c := &crashTable{}
		opt := w.opt
		opt.durability = []Durability{Durable, Buffered}[r.IntN(2)]
		c.run = &metaRun{t: t, ctx: context.Background(), title: fmt.Sprintf("t%d", i), opt: opt, r: r,
			m: newTableModel(modelKinds[r.IntN(len(modelKinds))], 0), mark: c.mark}
		c.states = []crashState{{m: c.run.m}}
		w.tables = append(w.tables, c)
	}
	return w
}

// mark notes what the table has become.
func (c *crashTable) mark(m *tableModel, exists bool) {
	s := crashState{m: m.clone(), exists: exists, batches: c.run.batches, lsn: c.run.s.db.Visible()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, s)
}

// crashOps are the operations of this test: those of TestMetamorphic but for restarts, and for other programs, whose
// power is not cut.
func crashOps(r *rand.Rand, seed uint64) []metaOp {
	l := newMetaList(seed, 20+r.IntN(30))
	return slices.DeleteFunc(l.ops, func(o metaOp) bool {
		return strings.HasPrefix(o.kind, "foreign") || o.kind == "crash" || o.kind == "reopen"
	})
}

// live opens the folder, works on it until the power is cut, and finds out what is left.
func (w *crashWorld) live() {
	w.calls.Store(0)
	w.dark.Store(false)
	w.power = sync.Once{}
	for _, c := range w.tables {
		c.known = false
	}
	w.at = 1 + w.r.Int64N([]int64{40, 400, 3000}[w.r.IntN(3)])
	losses := rand.New(rand.NewPCG(w.r.Uint64(), 1))
	w.db.Store(nil)
	o := w.opt.options(w.dir)
	o.wrap = func(st object.Store) object.Store {
		w.st = newCrashStore(st, w.dir, func() {
			if w.calls.Add(1) == w.at {
				w.cutPower(losses)
			}
		})
		return w.st
	}
	db, err := Open(context.Background(), o)
	w.ok(err)
	w.t.Cleanup(func() { _ = db.Close() }) // of a life that failed
	w.db.Store(db)
	if !w.dark.Load() {
		w.match(db)
		w.work(db)
	}
	w.cutPower(losses) // if nothing has
	for _, c := range w.tables {
		c.run.drop()
		for _, h := range c.run.held {
			h.snap.Release()
		}
		c.run.held = nil
	}
	w.ok(db.Close())
	w.dir = filepath.Join(filepath.Dir(w.dir), fmt.Sprint(len(w.story)+1))
	w.ok(w.left.write(w.dir))
	if _, old := w.left.files[systemFolder+"/format"]; old {
		w.check("after the cut")
	}
	w.story = append(w.story, fmt.Sprintf("power cut at call %d of %d", w.at, w.calls.Load()))
}

// cutPower takes what is left of the folder. What was promised is looked at before.
func (w *crashWorld) cutPower(losses *rand.Rand) {
	w.power.Do(func() {
		// Open syncs the log before it calls the store.
		open, durable := w.db.Load() != nil, ^LSN(0)
		if open {
			durable = w.db.Load().log.DurableLSN()
		}
		for _, c := range w.tables {
			c.mu.Lock()
			if open && c.known {
				c.from = len(c.states) - 1
				for c.run.opt.durability == Buffered && c.from > 0 && c.states[c.from].lsn > durable {
					c.from--
				}
			}
			c.mu.Unlock()
		}
		var err error
		if losses.IntN(4) == 0 { // only the process ends
			w.left, err = w.st.image(nil)
		} else if w.left, err = w.st.image(losses); err == nil && open {
			// What became durable since then may already stand in other files of the image.
			tearLog(w.left.files, w.db.Load().log.DurableLSN(), losses)
		}
		if err != nil {
			w.t.Errorf("cut the power: %v", err)
		}
		w.dark.Store(true)
	})
}

// work changes all tables at once until the power is cut.
func (w *crashWorld) work(db *DB) {
	var all sync.WaitGroup
	for i, c := range w.tables {
		c.ops = crashOps(w.r, w.r.Uint64())
		all.Go(func() {
			if err := c.run.caught(func() { c.work(&w.dark) }); err != nil {
				w.t.Errorf("table %d: %v\n%s", i, err, strings.Join(c.run.log, "\n"))
			}
		})
	}
	all.Wait()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// work does the table's operations until the power is cut.
func (c *crashTable) work(dark *atomic.Bool) {
	x := c.run
	if !c.states[len(c.states)-1].exists {
		x.note("create")
		x.ok(x.create())
		x.marked(x.m, true)
	}
	for _, op := range c.ops {
		if dark.Load() {
			return
		}
		x.note("%s", op)
		x.r = rand.New(rand.NewPCG(op.seed, 9))
		metaDo(op.kind)(x)
		x.marked(x.m, true)
		x.compare()
	}
}

// match finds out which of its states each table is in, and goes on from there.
func (w *crashWorld) match(db *DB) {
	for _, c := range w.tables {
		c.run.s = &scenario{t: w.t, dir: w.dir, db: db, snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
		c.mu.Lock() // the power may fail meanwhile
		states, from := c.states[c.from:], c.from
		c.mu.Unlock()
		found := slices.ContainsFunc(states, func(s crashState) bool {
			if w.differs(db, c, s) != "" {
				return false
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.run.m, c.run.batches = s.m.clone(), s.batches
			c.states, c.from, c.known = []crashState{s}, 0, true
			return true
		})
		if found {
			if s := c.states[0]; s.exists { // what its indexes find, too
				w.ok(c.run.caught(c.run.compare))
			}
			continue
		}
		var tried []string
		for i, s := range states {
			tried = append(tried, fmt.Sprintf("%d: %s", from+i, w.differs(db, c, s)))
		}
		w.t.Fatalf("%s table %s is in none of its states %d to %d\n%s\n%s\n%s", c.run.opt.durability, c.run.title, from, from+len(states)-1,
			strings.Join(tried, "\n"), strings.Join(w.story, "\n"), strings.Join(c.run.log, "\n"))
	}
}

// differs returns in what a table is not in a state, nothing if it is.
func (w *crashWorld) differs(db *DB, c *crashTable, s crashState) string {
	t, err := db.Table(c.run.name())
	if errors.Is(err, ErrTableNotFound) {
		if s.exists {
			return "it is not there"
		}
		return ""
	}
	w.ok(err)
	if !s.exists {
		return "it is there"
	}
	if got, want := columnList(t.Schema()), s.m.names(); got != want {
		return fmt.Sprintf("it has the columns %s, not %s", got, want)
	}
	want, got := s.m.lines(), tableLines(w.t, db, c.run.title)
	if !slices.Equal(want, got) {
		lacks := slices.DeleteFunc(slices.Clone(want), func(l string) bool { return slices.Contains(got, l) })
		more := slices.DeleteFunc(slices.Clone(got), func(l string) bool { return slices.Contains(want, l) })
		return fmt.Sprintf("of %d rows it lacks %q and has %q", len(want), lacks, more)
	}
	claim, a := claimTest(w.t, db, c.run.title, "stream", true)
	claim.Release()
	if a.Batches != s.batches {
		return fmt.Sprintf("%d batches are stored under the key, not %d", a.Batches, s.batches)
	}
	return ""
}

// names returns the names of all columns as columnList does.
func (m *tableModel) names() string {
	names := slices.Clone(m.keys)
	for _, c := range m.columns {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// end opens the folder for the last time, merges everything and compares again.
func (w *crashWorld) end() {
	db, err := Open(context.Background(), w.opt.options(w.dir))
	w.ok(err)
	w.match(db)
	for _, t := range db.Tables() {
		w.ok(db.Optimize(context.Background(), t.Name()))
		_, err := db.Vacuum(context.Background(), t.Name())
		w.ok(err)
	}
	w.match(db)
	for _, c := range w.tables {
		if c.states[0].exists {
			w.ok(c.run.caught(c.run.coverAll))
			w.ok(c.run.caught(c.run.compare))
		}
	}
	w.ok(db.Close())
	w.check("in the end")
}

// check has flightd check look at the folder.
func (w *crashWorld) check(when string) {
	_, err := Check(context.Background(), w.dir, func(f Fault) { w.t.Errorf("check %s: %s", when, f) })
	w.ok(err)
	if w.t.Failed() {
		w.t.Fatal(w.tale())
	}
}

func (w *crashWorld) ok(err error) {
	w.t.Helper()
	if err != nil {
		require.NoError(w.t, err, w.tale())
	}
}

// tale is what was done, for whoever looks for a fault.
func (w *crashWorld) tale() string {
	lines := []string{fmt.Sprintf("%+v", w.opt)}
	lines = append(lines, w.story...)
	for _, c := range w.tables {
		lines = append(lines, c.run.title)
		lines = append(lines, c.run.log...)
	}
	return strings.Join(lines, "\n")
}
