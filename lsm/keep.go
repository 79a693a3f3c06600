package lsm

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lsm/wal"
)

// A partial upsert is a batch with Keep: in these columns, a row whose key is stored keeps the stored value. What is
// stored is read when nobody else writes the table, and the batch is logged before anybody can: so no update is lost,
// and the log has whole rows. The price is that such a batch waits until all before it are visible.

// putKept is Put of a batch with Keep.
func (t *Table) putKept(ctx context.Context, b Batch, with ...*wal.Record) (LSN, error) {
	if err := t.refuseWrite(); err != nil {
		return 0, err
	}
	bytes := b.bytes()
	if err := t.awaitRoom(ctx, t.now(), b, bytes); err != nil {
		return 0, fmt.Errorf("table %q: %w", t.name, err)
	}
	defer t.db.budget.release(bytes)
	if err := t.writes.lock(ctx); err != nil {
		return 0, fmt.Errorf("table %q: wait for other writers: %w", t.name, err)
	}
	defer t.writes.unlock()
	if t.dropped {
		return 0, fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	k, err := t.newKeeper(ctx, b.Keep)
	if err != nil {
		return 0, err
	}
	defer k.release()
	rec, err := k.resolve(ctx, b.Record)
	if err != nil {
		return 0, err
	}
	defer rec.Release()
	if err := t.check(k.schema, rec); err != nil {
		return 0, err
	}
	whole := Batch{Record: rec}
	p, err := t.newPut(k.schema, whole, whole.bytes(), 0)
	if err != nil {
		return 0, err
	}
	t.db.budget.add(p.bytes)
	p.buffered = len(with) == 0 && t.buffers(b)
	return t.appendLocked(ctx, p, with...)
}

// keeper fills partial upserts with what is stored.
type keeper struct {
	table  *Table
	snap   *Snapshot
	view   *View
	schema *tableSchema
	keep   []int // columns, ascending
	// gone are the keys that earlier rows of the stream deleted: whatever is stored counts no longer. brought are rows of
	// earlier batches whose keys were not stored, or not any more: later ones of the key keep what they brought.
	gone    map[string]bool
	brought map[string]keptRow
	// held are the columns of brought, bytes what both take, which is accounted.
	held  []arrow.Array
	bytes int64
}

// release lets go of what the keeper holds.
func (k *keeper) release() {
	for _, c := range k.held {
		c.Release()
	}
	k.table.db.budget.release(k.bytes)
	k.snap.Release()
}

// newKeeper returns a keeper over everything that was written so far; its user releases it. REQUIRES:
// t.writes is held for writing as long as the keeper is used.
func (t *Table) newKeeper(ctx context.Context, keep []int) (*keeper, error) {
	if t.now().codec == nil {
		return nil, &NoKeyError{Table: t.name}
	}
	if err := t.db.Wait(ctx, LSN(t.last.Load())); err != nil {
		return nil, err
	}
	snap, err := t.db.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v, err := snap.Table(t.name)
	if err != nil {
		snap.Release()
		return nil, err
	}
	return &keeper{table: t, snap: snap, view: v, schema: v.schema, keep: keep, gone: make(map[string]bool), brought: make(map[string]keptRow)}, nil
}

// keptRow is where a row's values lie: in a batch with the kept columns.
type keptRow struct {
	columns []arrow.Array
	row     int
}

// resolve returns a batch with stored values in its kept columns. The caller releases it.
func (k *keeper) resolve(ctx context.Context, rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	if err := k.table.checkShape(k.schema, rec); err != nil {
		return nil, err
	}
	n := int(rec.NumRows())
	keys := keyTexts(k.schema.codec.normalise(rec, nil), n)
	found, done, err := k.locate(ctx, k.schema.codec.run(rec))
	if err != nil {
		return nil, err
	}
	defer done()
	own := make([]arrow.Array, len(k.keep))
	for i, c := range k.keep {
		own[i] = rec.Column(c)
	}
	for key := range k.gone {
		delete(found, key)
	}
	for _, key := range keys {
		if at, ok := k.brought[key]; ok {
			found[key] = at
		}
	}
	dead := deadIn(k.schema, rec)
	rows := make([]keptRow, n)
	fresh := make(map[string]int)
	for i, key := range keys {
		rows[i] = keptRow{own, i}
		if dead(i) {
			k.gone[key] = true
			delete(found, key)
			delete(k.brought, key)
			delete(fresh, key)
		} else if at, ok := found[key]; ok {
			rows[i] = at
		} else {
			found[key], fresh[key] = rows[i], i // a later row of the key keeps what this one brings
		}
	}
	if err := k.bring(own, fresh); err != nil {
		return nil, err
	}
	return k.fill(rec, rows)
}

// bring remembers what rows of a batch, by key, bring in the kept columns.
func (k *keeper) bring(own []arrow.Array, fresh map[string]int) error {
	if len(fresh) == 0 {
		return nil
	}
	rows := make([]keptRow, 0, len(fresh))
	cols := make([]arrow.Array, len(k.keep))
	bytes := int64(0)
	for _, key := range slices.Sorted(maps.Keys(fresh)) {
		k.brought[key] = keptRow{cols, len(rows)}
		rows = append(rows, keptRow{own, fresh[key]})
		bytes += broughtOverhead + int64(len(key))
	}
	for i := range cols {
		col, err := gather(rows, i)
		if err != nil {
			return fmt.Errorf("table %q, column %q: %w", k.table.name, k.schema.arrow.Field(k.keep[i]).Name, err)
		}
		cols[i], k.held = col, append(k.held, col)
		bytes += int64(col.Data().SizeInBytes())
	}
	k.bytes += bytes
	k.table.db.budget.add(bytes)
	return nil
}

// broughtOverhead is what a key takes in keeper.brought beside its bytes: its place in the map, and the text's head.
const broughtOverhead = 100

// fill returns a batch with the kept columns taken from where rows says.
func (k *keeper) fill(rec arrow.RecordBatch, rows []keptRow) (arrow.RecordBatch, error) {
	cols := slices.Clone(rec.Columns())
	for i, c := range k.keep {
		col, err := gather(rows, i)
		if err != nil {
			return nil, fmt.Errorf("table %q, column %q: %w", k.table.name, k.schema.arrow.Field(c).Name, err)
		}
		defer col.Release()
		cols[c] = col
	}
	return array.NewRecordBatch(rec.Schema(), cols, rec.NumRows()), nil
}

// gather returns one of the kept columns of rows. The caller releases it.
func gather(rows []keptRow, column int) (arrow.Array, error) {
	var parts []arrow.Array
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	for i := 0; i < len(rows); {
		n := 1
		for i+n < len(rows) && &rows[i+n].columns[0] == &rows[i].columns[0] && rows[i+n].row == rows[i].row+n {
			n++
		}
		from := int64(rows[i].row)
		parts = append(parts, array.NewSlice(rows[i].columns[column], from, from+int64(n)))
		i += n
	}
	return array.Concatenate(parts, memory.DefaultAllocator)
}

// keyTexts returns normalised keys as strings of bytes, by which they are compared.
func keyTexts(keys keyColumn, n int) []string {
	out := make([]string, n)
	for i := range out {
		if keys.wide != nil {
			out[i] = string(keys.wide(i))
		} else {
			out[i] = string(binary.LittleEndian.AppendUint64(nil, uint64(keys.ints[i])))
		}
	}
	return out
}

// locate finds the stored rows of keys, by key. What it found is valid until done is called.
func (k *keeper) locate(ctx context.Context, run *keyRun) (found map[string]keptRow, done func(), err error) {
	found = make(map[string]keptRow)
	settled := make(map[string]bool) // what a newer layer has said, which may be that the key is deleted
	var held []arrow.Array
	done = func() {
		for _, a := range held {
			a.Release()
		}
	}
	err = k.view.lookUp(run, func(l layer, run *keyRun) ([]bool, error) {
		hits := make(map[uint64][]uint32)
		if err := l.resolve(ctx, run, func(fragment uint64, row uint32) { hits[fragment] = append(hits[fragment], row) }); err != nil {
			return nil, err
		}
		for _, fragment := range slices.Sorted(maps.Keys(hits)) {
			rows := hits[fragment]
			slices.Sort(rows)
			parts, err := k.read(ctx, l, fragment, rows)
			if err != nil {
				return nil, err
			}
			for _, p := range parts {
				held = append(held, p.columns...)
				held = append(held, p.keyColumns...)
				for j, key := range p.keys {
					settled[key] = true
					if k.view.hidden(l, fragment, p.numbers[j]) {
						delete(found, key)
					} else {
						found[key] = keptRow{p.columns, p.at[j]}
					}
				}
			}
		}
		return run.marked(settled), nil
	})
	if err != nil {
		done()
		return nil, nil, err
	}
	return found, done, nil
}

// marked tells which keys of a run are settled.
func (r *keyRun) marked(settled map[string]bool) []bool {
	out := make([]bool, r.Len())
	for i, key := range keyTexts(r.column(), r.Len()) {
		out[i] = settled[key]
	}
	return out
}

// keptRows are some rows of a layer.
type keptRows struct {
	columns, keyColumns []arrow.Array
	keys                []string
	// at is where each row lies in columns, numbers are the rows' numbers in the layer.
	at      []int
	numbers []uint32
}

// read returns the kept columns of rows of a layer, with their keys.
func (k *keeper) read(ctx context.Context, l layer, id uint64, rows []uint32) ([]keptRows, error) {
	var frag *fragment
	switch x := l.(type) {
	case *memtable:
		return k.readMemtable(x, rows)
	case *generation:
		frag = x.frag
	case *base:
		frag = x.fragment(id)
	}
	at := make([]int64, len(rows))
	places := make([]int, len(rows))
	for i, r := range rows {
		at[i], places[i] = int64(r), i
	}
	rec, err := frag.take(ctx, k.schema, append(slices.Clone(k.schema.codec.cols), k.keep...), at)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	out := keptRows{at: places, numbers: rows}
	for i, c := range rec.Columns() {
		if i < len(k.schema.codec.cols) {
			c.Retain()
			out.keyColumns = append(out.keyColumns, c)
		} else {
			out.columns = append(out.columns, relabel(c, k.schema.arrow.Field(k.keep[i-len(k.schema.codec.cols)]).Type))
		}
	}
	whole := *k.schema.codec // the key's columns come first
	whole.cols = make([]int, len(whole.cols))
	for i := range whole.cols {
		whole.cols[i] = i
	}
	out.keys = keyTexts(whole.normalise(rec, nil), len(rows))
	return []keptRows{out}, nil
}

// readMemtable is read for a memtable: whole batches, of which some rows count.
func (k *keeper) readMemtable(m *memtable, rows []uint32) ([]keptRows, error) {
	batches := m.rows.Load().batches
	var out []keptRows
	for len(rows) > 0 {
		i := sort.Search(len(batches), func(i int) bool { return batches[i].first > rows[0] }) - 1
		b := batches[i]
		end := b.first + uint32(b.rec.NumRows())
		n := sort.Search(len(rows), func(i int) bool { return rows[i] >= end })
		var s keptRows
		for _, c := range k.keep {
			col, err := k.schema.pick(b.schema, b.rec, c)
			if err != nil {
				return nil, err
			}
			s.columns = append(s.columns, col)
		}
		keys := keyTexts(b.schema.codec.normalise(b.rec, nil), int(b.rec.NumRows()))
		for _, r := range rows[:n] {
			s.at, s.numbers = append(s.at, int(r-b.first)), append(s.numbers, r)
			s.keys = append(s.keys, keys[r-b.first])
		}
		out, rows = append(out, s), rows[n:]
	}
	return out, nil
}
