package lsm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flightd/flightd/internal/rows"
)

func (x *metaRun) hold() {
	if len(x.held) > 3 {
		return
	}
	snap, err := x.s.db.Snapshot(x.ctx)
	x.ok(err)
	h := heldRows{snap: snap}
	x.held = append(x.held, h)
	v, err := snap.Table(x.name())
	x.ok(err)
	h.lines, err = scanRows(x.ctx, v, allColumns(v.Schema()))
	x.ok(err)
	x.held[len(x.held)-1] = h
}

func (x *metaRun) letGo() {
	if len(x.held) > 0 {
		x.compareHeld(x.held[0])
		x.held[0].snap.Release()
		x.held = x.held[1:]
	}
}

// newKey returns a key for a row: in a keyless table one that no row has, else mostly one of a few.
func (x *metaRun) newKey() int64 {
	if x.m.keyed() && x.r.IntN(4) > 0 {
		return x.r.Int64N(30)
	}
	return x.freshKey()
}

// freshKey returns a key that no row had yet.
func (x *metaRun) freshKey() int64 {
	x.fresh++
	return 1000 + x.fresh
}

// someRows makes up to n rows with values in all columns, and returns them as text and as what they do to the model.
func (x *metaRun) someRows(n int) (text string, apply func()) { return x.rowsWith(n, x.newKey) }

// rowsWith is someRows with keys from a function.
func (x *metaRun) rowsWith(n int, next func() int64) (text string, apply func()) {
	var lines []string
	made := map[int64]map[int]string{}
	for range 1 + x.r.IntN(n) {
		key := next()
		row, line := x.m.row(x.r, key, nil)
		made[key] = row
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n"), func() {
		for k, row := range made {
			x.m.rows[k] = row
		}
	}
}

// oneLine returns a text of rows as a line.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

func (x *metaRun) put() {
	text, apply := x.someRows(6)
	x.note("  %s", oneLine(text))
	x.ok(x.s.put(x.ctx, x.title, false, text))
	apply()
}

// insert writes rows whose keys must be new, which they are not always.
func (x *metaRun) insert() {
	before := x.m.clone()
	seen := map[int64]bool{}
	taken := false
	text, apply := x.rowsWith(3, func() int64 {
		k := x.newKey()
		_, there := before.rows[k]
		taken = taken || there || seen[k]
		seen[k] = true
		return k
	})
	x.note("  %s", oneLine(text))
	err := x.s.insert(x.ctx, x.title, text)
	if taken {
		x.want(errors.Is(err, ErrKeyExists), "insert of a key that is there: %v", err)
		return
	}
	x.ok(err)
	apply()
}

// someDeletes returns tombstones, as text and as what they do to the model.
func (x *metaRun) someDeletes() (text string, apply func()) {
	var lines []string
	var keys []int64
	for range 1 + x.r.IntN(4) {
		k := x.r.Int64N(30)
		keys = append(keys, k)
		lines = append(lines, x.m.keyText(k)+strings.Repeat(" null", len(x.m.columns))+" true")
	}
	return strings.Join(lines, "\n"), func() {
		for _, k := range keys {
			delete(x.m.rows, k)
		}
	}
}

func (x *metaRun) delete() {
	if !x.m.keyed() {
		return
	}
	text, apply := x.someDeletes()
	x.note("  %s", oneLine(text))
	x.ok(x.s.put(x.ctx, x.title, true, text))
	apply()
}

// partialRows makes a batch with some of the columns, that leaves the others as they are.
func (x *metaRun) partialRows(sent map[int]bool) (Batch, func()) {
	columns := slices.Clone(x.m.columns)
	schema := []string{x.m.keySchema("")}
	for _, c := range columns {
		if sent[c.id] {
			schema = append(schema, c.name+" "+c.typ)
		}
	}
	var lines []string
	var changes []func()
	for range 1 + x.r.IntN(6) {
		key := x.newKey()
		row, line := x.m.row(x.r, key, sent)
		lines = append(lines, line)
		changes = append(changes, func() { x.m.update(key, row, columns) })
	}
	x.note("  %s: %s", strings.Join(schema, ", "), strings.Join(lines, "; "))
	s, err := rows.Schema(strings.Join(schema, ", "))
	x.ok(err)
	rec, err := rows.Parse(s, strings.Join(lines, "\n"))
	x.ok(err)
	defer rec.Release()
	c, err := x.table().Conform(s, ConformOptions{Missing: MissingKeep})
	x.ok(err)
	out, err := c.Apply(x.ctx, rec)
	x.ok(err)
	return Batch{Record: out, Keep: c.Keep()}, func() {
		for _, c := range changes {
			c()
		}
	}
}

// someColumns returns some of the columns.
func (x *metaRun) someColumns() map[int]bool {
	sent := map[int]bool{}
	for _, c := range x.m.columns {
		if x.r.IntN(2) == 0 {
			sent[c.id] = true
		}
	}
	return sent
}

func (x *metaRun) partial() {
	if !x.m.keyed() {
		return
	}
	b, apply := x.partialRows(x.someColumns())
	defer b.Record.Release()
	lsn, err := x.table().Put(x.ctx, b)
	x.ok(err)
	x.ok(x.s.db.Wait(x.ctx, lsn))
	apply()
}

// modify moves rows to other keys, as an UPDATE of the key does.
func (x *metaRun) modify() {
	if !x.m.keyed() || len(x.m.rows) == 0 {
		return
	}
	apply := func() {}
	err := x.table().Modify(x.ctx, func(ctx context.Context, snap *Snapshot, stage *Stage) error {
		v, err := snap.Table(x.name())
		x.ok(err)
		lines, err := scanRows(ctx, v, allColumns(v.Schema()))
		x.ok(err)
		x.wantLines("scan of a statement", x.m.lines(), lines)
		var text []string
		after := x.m.clone()
		for range 1 + x.r.IntN(3) {
			from := x.someRow(x.m)
			to := x.newKey()
			row, line := x.m.row(x.r, to, nil)
			text = append(text, x.m.keyText(from)+strings.Repeat(" null", len(x.m.columns))+" true", line+" false")
			delete(after.rows, from)
			after.rows[to] = row
		}
		x.note("  %s", strings.Join(text, "; "))
		apply = func() { x.m.rows = after.rows }
		return x.stageText(ctx, stage, true, strings.Join(text, "\n"))
	})
	x.ok(err)
	apply()
}

// someRow returns the key of a row of a model that has one.
func (x *metaRun) someRow(m *tableModel) int64 {
	var keys []int64
	for k := range m.rows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[x.r.IntN(len(keys))]
}

// stageText puts rows into a stage.
func (x *metaRun) stageText(ctx context.Context, stage *Stage, tombstones bool, text string) error {
	rec, err := rows.Parse(stage.Table().now().withTombstones(tombstones), text)
	x.ok(err)
	defer rec.Release()
	return stage.Put(ctx, Batch{Record: rec})
}

// stageStep begins a stage, puts into it, commits it or gives it up.
func (x *metaRun) stageStep() {
	switch n := x.r.IntN(6); {
	case x.stage == nil:
		x.stage = x.table().Stage()
		if x.m.keyed() && x.r.IntN(3) == 0 {
			x.sent = x.someColumns()
		}
		x.note("  begin %v", x.sent)
		x.stagePut()
	case n == 0:
		x.note("  abort")
		x.drop()
	case n == 1:
		x.note("  commit %d", len(x.stage.spilled))
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

func (x *metaRun) stagePut() {
	if x.sent != nil {
		b, apply := x.partialRows(x.sent)
		defer b.Record.Release()
		x.ok(x.stage.Put(x.ctx, b))
		x.staged = append(x.staged, apply)
		return
	}
	text, apply := x.someRows(20)
	deletes := x.m.keyed() && x.r.IntN(4) == 0
	if deletes {
		text, apply = x.someDeletes()
	}
	x.note("  %s", oneLine(text))
	x.ok(x.stageText(x.ctx, x.stage, deletes, text))
	x.staged = append(x.staged, apply)
}

// resume puts a batch under an idempotency key, after it has asked how many came before.
func (x *metaRun) resume() {
	c, err := x.s.db.Claim(x.ctx, x.name(), Request{Key: "stream", Resume: true})
	x.ok(err)
	defer c.Release()
	s, err := rows.Schema(keylessWrites)
	x.ok(err)
	a, err := c.Answer(x.ctx, s)
	x.ok(err)
	x.want(a.Batches == x.batches, "%d batches are said to be stored under the key, want %d", a.Batches, x.batches)
	x.answer("%d batches, %d rows", a.Batches, a.Rows)
	text, apply := x.someRows(4)
	x.note("  %d: %s", a.Batches, oneLine(text))
	rec, err := rows.Parse(x.table().Schema(), text)
	x.ok(err)
	defer rec.Release()
	lsn, err := c.Put(x.ctx, x.table(), Batch{Record: rec}, Answer{Batches: a.Batches + 1, Rows: a.Rows + rec.NumRows()})
	x.ok(err)
	x.ok(x.s.db.Wait(x.ctx, lsn))
	apply()
	x.batches++
}

func (x *metaRun) alter() {
	line := x.m.alter(x.r)
	x.note("  %s", line)
	x.ok(x.s.alter(x.ctx, x.title, line))
}

func (x *metaRun) optimize() {
	x.ok(x.s.db.Optimize(x.ctx, x.name()))
	x.coverAll()
}

func (x *metaRun) flush() { x.ok(x.s.db.Flush(x.ctx, x.name())) }

func (x *metaRun) vacuum() {
	_, err := x.s.db.Vacuum(x.ctx, x.name())
	x.ok(err)
}

// replace makes the table anew by a stage.
func (x *metaRun) replace() {
	x.anew(func(d TableDef, text string) {
		stage, err := x.s.db.StageTable(x.ctx, d, true)
		x.ok(err)
		defer stage.Abort()
		x.ok(x.stageText(x.ctx, stage, false, text))
		_, err = stage.Commit(x.ctx)
		x.ok(err)
	})
}

// recreate makes the table anew by DROP and CREATE.
func (x *metaRun) recreate() {
	x.anew(func(d TableDef, text string) {
		x.ok(x.s.db.DropTable(x.ctx, x.name()))
		x.batches = 0
		x.marked(newTableModel(x.m.kind, x.m.next), false)
		x.ok(x.s.db.CreateTable(x.ctx, d))
		x.marked(newTableModel(x.m.kind, x.m.next), true)
		x.ok(x.s.put(x.ctx, x.title, false, text))
	})
}

// anew makes the table anew. What was staged for the old one cannot come in.
func (x *metaRun) anew(do func(d TableDef, text string)) {
	m := newTableModel(x.m.kind, x.m.next)
	var text []string
	for k := range int64(3) {
		row, line := m.row(x.r, k, nil)
		m.rows[k] = row
		text = append(text, line)
	}
	d, err := x.def()
	x.ok(err)
	do(d, strings.Join(text, "\n"))
	if x.stage != nil {
		_, err := x.stage.Commit(x.ctx)
		x.want(errors.Is(err, ErrTableNotFound), "commit of a stage for the table that was: %v", err)
	}
	x.drop()
	x.m, x.batches = m, 0
}

// reopen closes and opens the folder.
func (x *metaRun) reopen() {
	x.pause()
	x.ok(x.s.db.Close())
	x.open()
}

// crash goes on with what the end of the process would have left. What is acknowledged and buffered is waited for
// before: how much of it a crash leaves no list of operations tells.
func (x *metaRun) crash() {
	x.pause()
	x.ok(x.s.db.settled(x.ctx, x.s.db.Visible()))
	next := crashCopy(x.t, x.s.dir)
	x.ok(x.s.db.Close())
	x.s.dir = next
	x.open()
}

// rewrite updates and deletes rows of a keyless table by their addresses, while others write.
func (x *metaRun) rewrite() {
	if x.m.keyed() {
		return
	}
	mod := 2 + x.r.Int64N(5)
	text, apply := x.someRows(3)
	during, second := x.someRows(3)
	x.note("  without keys %% %d: %s; during it put %s", mod, oneLine(text), oneLine(during))
	rec, err := rows.Parse(x.table().Schema(), text)
	x.ok(err)
	defer rec.Release()
	before := x.m.clone()
	gone := map[int64]bool{}
	for k := range x.m.rows {
		gone[k] = k%mod == 0
	}
	once := true
	err = x.table().Rewrite(x.ctx, func(ctx context.Context, snap *Snapshot, rw *Rewrite) error {
		rw.Delete(x.addresses(snap, func(key int64) bool { return gone[key] }))
		if once {
			once = false
			x.ok(x.s.put(ctx, x.title, false, during))
			second()
			x.marked(x.m, true)
		}
		return rw.Put(ctx, rec)
	})
	x.ok(err)
	maps.DeleteFunc(before.rows, func(k int64, _ map[int]string) bool { return gone[k] })
	x.m = before
	apply()
	if x.opt.durability == Buffered { // it stands before what came during it, which a power cut may take alone
		x.marked(x.m, true)
	}
	second()
}

// addresses returns where the rows with some keys lie.
func (x *metaRun) addresses(snap *Snapshot, wanted func(key int64) bool) []uint64 {
	v, err := snap.Table(x.name())
	x.ok(err)
	texts := map[string]bool{}
	for k := range x.m.rows {
		if wanted(k) {
			texts[x.m.keyText(k)] = true
		}
	}
	columns := []int{RowAddress}
	for i := range x.m.keys {
		columns = append(columns, i)
	}
	sc, err := v.Scan(x.ctx, ScanOptions{Columns: columns})
	x.ok(err)
	var out []uint64
	for _, line := range x.drain(sc) {
		var at uint64
		text, key, _ := strings.Cut(line, " ")
		_, err := fmt.Sscan(text, &at)
		x.ok(err)
		if texts[key] {
			out = append(out, at)
		}
	}
	return out
}
