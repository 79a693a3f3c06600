package lsm

import (
	"context"
	"path"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
)

// rewrite updates and deletes rows of a keyless table by their addresses, while others write.
func (x *interplay) rewrite() {
	if x.keyed {
		return
	}
	mod := 2 + x.r.Int64N(5)
	text, apply := x.someRows(3)
	during, second := x.someRows(3)
	x.note("rewrite without keys %% %d: %s; during it put %s", mod, text, during)
	rec, err := rows.Parse(x.table().Schema(), text)
	x.ok(err)
	defer rec.Release()
	once := true
	err = x.table().Rewrite(x.ctx, func(ctx context.Context, snap *Snapshot, rw *Rewrite) error {
		gone := x.addresses(snap, func(key int64) bool { return key%mod == 0 })
		rw.Delete(gone)
		if once {
			once = false
			x.ok(x.s.put(ctx, "t", false, during))
		}
		return rw.Put(ctx, rec)
	})
	x.ok(err)
	x.stale = false
	for k := range x.m.rows {
		if k%mod == 0 {
			delete(x.m.rows, k)
		}
	}
	apply()
	second()
}

// addresses returns where the rows with some keys lie.
func (x *interplay) addresses(snap *Snapshot, wanted func(key int64) bool) []uint64 {
	v, err := snap.Table(TableName{Name: "t"})
	x.ok(err)
	sc, err := v.Scan(x.ctx, ScanOptions{Columns: []int{RowAddress, 0}})
	x.ok(err)
	defer sc.Close()
	var out []uint64
	for m, err := sc.Next(x.ctx); err == nil; m, err = sc.Next(x.ctx) {
		for i := range int(m.Record.NumRows()) {
			if m.lives(i) && wanted(m.Record.Column(1).(*array.Int64).Value(i)) {
				out = append(out, m.Record.Column(0).(*array.Uint64).Value(i))
			}
		}
		m.Release()
	}
	return out
}

// foreign commits what change returns on the newest version, which has all rows and columns.
func (x *interplay) foreign(change func(v *manifest.Version) *manifest.Change) {
	x.optimize()
	x.gate.Lock()
	defer x.gate.Unlock()
	root := x.table().root
	v, err := manifest.Latest(x.ctx, x.s.db.st, root, manifest.Options{})
	x.ok(err)
	c := change(v)
	if c == nil {
		return
	}
	_, err = manifest.Commit(x.ctx, x.s.db.st, root, v, *c, manifest.Options{})
	x.ok(err)
	x.stale = true
}

// foreignFile writes rows as another program does.
func (x *interplay) foreignFile(v *manifest.Version, text string) manifest.Fragment {
	rec, err := rows.Parse(v.Schema.Arrow(), text)
	x.ok(err)
	defer rec.Release()
	name, err := newFileName()
	x.ok(err)
	w, err := lance.Create(x.ctx, x.s.db.st, path.Join(x.table().root, "data", name), v.Schema, lance.WriterOptions{})
	x.ok(err)
	x.ok(w.Write(x.ctx, rec))
	info, err := w.Finish(x.ctx)
	x.ok(err)
	return writtenFragment(name, info, v.Schema)
}

// foreignAppend adds rows with keys that are new: of others Lance would have two.
func (x *interplay) foreignAppend() {
	x.foreign(func(v *manifest.Version) *manifest.Change {
		keyed := x.keyed
		x.keyed = false
		text, apply := x.someRows(5)
		x.keyed = keyed
		x.note("another program appends %s", strings.ReplaceAll(text, "\n", "; "))
		apply()
		return &manifest.Change{Append: []manifest.Fragment{x.foreignFile(v, text)}}
	})
}

// foreignDelete deletes a row.
func (x *interplay) foreignDelete() {
	x.foreign(func(*manifest.Version) *manifest.Change {
		for key := range x.m.rows {
			snap, err := x.s.db.Snapshot(x.ctx)
			x.ok(err)
			defer snap.Release()
			at := x.addresses(snap, func(k int64) bool { return k == key })
			require.Len(x.t, at, 1, x.story())
			x.note("another program deletes %d", key)
			delete(x.m.rows, key)
			return &manifest.Change{Delete: map[uint64]*roaring.Bitmap{at[0] >> 32: roaring.BitmapOf(uint32(at[0]))}}
		}
		return nil
	})
}

// foreignCompact writes all rows anew.
func (x *interplay) foreignCompact() {
	x.foreign(func(v *manifest.Version) *manifest.Change {
		if len(x.m.rows) == 0 {
			return nil
		}
		x.note("another program compacts")
		c := &manifest.Change{Append: []manifest.Fragment{x.foreignFile(v, strings.Join(x.m.lines(), "\n"))}, Delete: map[uint64]*roaring.Bitmap{}}
		for _, f := range v.Fragments {
			c.Delete[f.ID] = roaring.New()
			c.Delete[f.ID].AddRange(0, uint64(f.Rows))
		}
		return c
	})
}

// restart closes and opens the folder, or goes on with what a crash would have left.
func (x *interplay) restart() {
	x.pause()
	if x.r.IntN(2) == 0 {
		x.note("reopen")
		x.ok(x.s.db.Close())
	} else {
		x.note("crash")
		next := x.copyFolder()
		x.ok(x.s.db.Close())
		x.s.dir = next
	}
	x.open()
	// What others had committed is what was opened, unless merges have to come first.
	if !x.stale {
		x.compare()
	}
}

// replace makes the table anew, by a stage or by DROP and CREATE. What was staged for the old one cannot come in.
func (x *interplay) replace() {
	text := "1 2 three\n4 5 six"
	if x.r.IntN(2) == 0 {
		x.note("drop and create")
		x.ok(x.s.db.DropTable(x.ctx, TableName{Name: "t"}))
		x.ok(x.s.create(x.ctx, "t", x.schema()))
		x.ok(x.s.put(x.ctx, "t", false, text))
	} else {
		x.note("replace")
		stage := stageTest(x.t, x.s.db, "t", x.schema())
		rec, err := rows.Parse(stage.Table().Schema(), text)
		x.ok(err)
		defer rec.Release()
		x.ok(stage.Put(x.ctx, Batch{Record: rec}))
		_, err = stage.Commit(x.ctx)
		x.ok(err)
	}
	if x.stage != nil {
		_, err := x.stage.Commit(x.ctx)
		require.ErrorIs(x.t, err, ErrTableNotFound, x.story())
	}
	x.drop()
	x.reset()
	for i, key := range []int64{1, 4} {
		a, b := x.m.columns[0].id, x.m.columns[1].id
		x.m.rows[key] = map[int]string{a: []string{"2", "5"}[i], b: []string{"three", "six"}[i]}
	}
}

// copyFolder copies the folder as of one moment: nobody flushes, collects or trims meanwhile.
func (x *interplay) copyFolder() (next string) {
	t := x.table()
	t.collecting <- struct{}{}
	x.s.db.ddl.Lock()
	copied := func(context.Context) error {
		next = crashCopy(x.t, x.s.dir)
		return nil
	}
	x.ok(t.compactor.order(x.ctx, t.stillShards(copied)))
	x.s.db.ddl.Unlock()
	<-t.collecting
	return next
}

// stillShards returns work that is done while no flusher of the table does any.
func (t *Table) stillShards(do func(context.Context) error) func(context.Context) error {
	for _, s := range t.shards {
		inner := do
		do = func(ctx context.Context) error { return s.order(ctx, inner) }
	}
	return do
}
