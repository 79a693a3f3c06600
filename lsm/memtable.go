package lsm

import (
	"context"
	"math"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/memindex"
)

// memBatch is one batch of a memtable.
type memBatch struct {
	lsn LSN
	// rec has the columns of schema; the memtable owns a reference.
	rec    arrow.RecordBatch
	schema *tableSchema
	// tombs marks the rows that delete their key, nil when none does.
	tombs *array.Boolean
	// first is the number of the batch's first row in the memtable, number that of the batch.
	first, number uint32
}

// memRows is what a memtable shows to readers: a prefix of lists that only grow, so a reader that loaded it
// needs no lock.
type memRows struct {
	batches []memBatch
	// dead lists the rows that later rows of this memtable replaced, in the order of the replacing rows: a prefix
	// of it is right for a prefix of the batches.
	dead []uint32
	// ends has, for each batch that is in the indexes, how many entries dead had once it was. The batches behind those are
	// the tail, which a table has whose indexes may follow.
	ends []int
}

// indexed returns the prefix of the batches that is in the indexes, and tail the others.
func (r *memRows) indexed() *memRows { return r.prefix(min(len(r.ends), len(r.batches))) }
func (r *memRows) tail() *memRows {
	return &memRows{batches: r.batches[min(len(r.ends), len(r.batches)):]}
}

// prefix returns the first n batches.
func (r *memRows) prefix(n int) *memRows {
	if n == len(r.batches) {
		return r
	}
	p := &memRows{batches: r.batches[:n], dead: r.dead, ends: r.ends}
	if n < len(r.ends) {
		p.ends, p.dead = r.ends[:n], nil
		if n > 0 {
			p.dead = r.dead[:r.ends[n-1]]
		}
	}
	return p
}

// memtable holds the newest rows of a shard as the batches they came in. The shard's goroutine writes it, anyone
// reads it. Its references are counted: when the last goes, the batches' memory goes back to the budget.
type memtable struct {
	// codec says how keys are compared, nil without a key. Where they lie, the schema of each batch says.
	codec *keyCodec
	// rows is what readers have: a prefix of next, which belongs to the writer.
	rows atomic.Pointer[memRows]
	next memRows
	// tailRows is how many rows of next are not in the indexes; it belongs to the writer.
	tailRows int64
	// bytes is the memory of batches and index.
	bytes atomic.Int64
	refs  atomic.Int64
	// budget gets the bytes back.
	budget *budget
	// retired is set once no new snapshot can see the memtable.
	retired atomic.Bool

	mu    sync.RWMutex   // guards the indexes against their only writer, below everything else in lock order
	ints  memindex.Ints  // the key index when keys are int64
	wides memindex.Bytes // the key index when keys are bytes

	// order is that of the keys, for ranges.
	order keyOrder

	// columns are the indexes over other columns, of those that the table had when the memtable was begun, which are
	// indexes. Both do not change; they need no lock.
	columns []*memColumn
	indexes *[]indexEntry
	// vectors are those over columns of vectors that had a model then.
	vectors []*memVector

	// born is how many bytes the DB had accepted when the first batch came. It is written before rows.
	born int64

	// scratch belongs to the writer.
	scratch []int64
}

// newMemtable returns an empty memtable with one reference.
func newMemtable(codec *keyCodec, budget *budget) *memtable {
	m := &memtable{codec: codec, budget: budget}
	m.rows.Store(&memRows{})
	m.refs.Store(1)
	return m
}

// expect tells an empty memtable how many keys the one before it had.
func (m *memtable) expect(before *memtable) {
	m.ints.Expect(&before.ints)
	m.wides.Expect(&before.wides)
}

// add appends a batch, which the memtable takes over. Its indexes do not have it before index, nor readers before publish.
func (m *memtable) add(lsn LSN, p *put) {
	b := memBatch{lsn: lsn, rec: p.rec, schema: p.schema, tombs: p.tombs, first: uint32(m.next.rowCount()), number: uint32(len(m.next.batches))}
	m.bytes.Add(p.bytes)
	m.next.batches = append(m.next.batches, b)
	m.tailRows += b.rec.NumRows()
}

// added returns the rows that went in, those that are not published included. It belongs to the writer.
func (m *memtable) added() int64 { return m.next.rowCount() }

// unindexed returns the number of batches that are not in the indexes. It belongs to the writer.
func (m *memtable) unindexed() int { return len(m.next.batches) - len(m.next.ends) }

// publish lets readers have what was added: once for many batches, as each time takes a little memory.
func (m *memtable) publish() {
	if now := m.rows.Load(); len(m.next.batches) == len(now.batches) && len(m.next.ends) == len(now.ends) {
		return
	}
	now := m.next
	m.rows.Store(&now)
}

// index puts the next n batches into the indexes, and returns the memory that these grew by. With show it publishes what it
// did: readers of a table whose indexes follow must not find more in them than is published, as they search the tail
// themselves.
func (m *memtable) index(n int, show bool) (grown int64) {
	first := len(m.next.ends)
	grown = m.addVectors(m.next.batches[first : first+n]) // it takes long, and readers of keys would wait
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.next.batches[first : first+n] {
		b := &m.next.batches[first+i]
		if m.codec != nil {
			grown += m.indexLocked(b)
		}
		grown += m.addColumns(*b)
		m.tailRows -= b.rec.NumRows()
		m.next.ends = append(m.next.ends, len(m.next.dead))
	}
	m.bytes.Add(grown)
	if show {
		m.publish()
	}
	return grown
}

// indexLocked puts the keys of a batch into the key index and the rows that they replace on the list. REQUIRES: m.mu is
// held.
func (m *memtable) indexLocked(b *memBatch) (grown int64) {
	keys := b.schema.codec.normalise(b.rec, m.scratch[:0])
	if m.codec.wide {
		before := m.wides.MemoryBytes()
		m.next.dead = m.wides.Add(int(b.rec.NumRows()), keys.wide, b.first, m.next.dead)
		grown = m.wides.MemoryBytes() - before
	} else {
		m.scratch = keys.ints
		before := m.ints.MemoryBytes()
		m.next.dead = m.ints.Add(keys.ints, b.first, m.next.dead)
		grown = m.ints.MemoryBytes() - before
	}
	return grown
}

// growth returns how many bytes a batch would add once everything is in the indexes, the copies of wide keys aside. It
// belongs to the writer.
func (m *memtable) growth(rows int, bytes int64) int64 {
	rows += int(m.tailRows)
	switch {
	case m.codec == nil:
	case m.codec.wide:
		bytes += m.wides.Growth(rows)
	default:
		bytes += m.ints.Growth(rows)
	}
	for _, c := range m.columns {
		bytes += c.index.Growth(rows)
	}
	for _, c := range m.vectors {
		bytes += c.index.Growth(rows)
	}
	return bytes
}

// rowCount returns the rows that went in, replaced ones and tombstones included.
func (r *memRows) rowCount() int64 {
	if len(r.batches) == 0 {
		return 0
	}
	last := r.batches[len(r.batches)-1]
	return int64(last.first) + last.rec.NumRows()
}

// upTo returns the prefix of the batches at or below an LSN.
func (r *memRows) upTo(lsn LSN) *memRows {
	if n := len(r.batches); n == 0 || r.batches[n-1].lsn <= lsn { // most snapshots are new
		return r
	}
	return r.prefix(sort.Search(len(r.batches), func(i int) bool { return r.batches[i].lsn > lsn }))
}

// above returns the batches above an LSN.
func (r *memRows) above(lsn LSN) []memBatch {
	n := sort.Search(len(r.batches), func(i int) bool { return r.batches[i].lsn > lsn })
	return r.batches[n:]
}

// firstLSN and lastLSN return the ends of the batches' LSNs, 0 when there are none.
func (r *memRows) firstLSN() LSN {
	if len(r.batches) == 0 {
		return 0
	}
	return r.batches[0].lsn
}

func (r *memRows) lastLSN() LSN {
	if len(r.batches) == 0 {
		return 0
	}
	return r.batches[len(r.batches)-1].lsn
}

// at returns the rows at or below an LSN, and those of them that later ones of them replaced, nil when there are none.
func (m *memtable) at(lsn LSN) (*memRows, *roaring.Bitmap) {
	rows := m.rows.Load().upTo(lsn)
	if m.codec == nil || len(rows.ends) >= len(rows.batches) {
		return rows, rows.deadBitmap()
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	// Loaded again: now the indexes have just what is published as being in them.
	rows = m.rows.Load().upTo(lsn)
	dead := rows.deadBitmap()
	tail := rows.tail()
	if len(tail.batches) == 0 {
		return rows, dead
	}
	if dead == nil {
		dead = roaring.New()
	}
	m.replacedByTail(tail, dead)
	return rows, dead
}

// replacedByTail adds the rows that rows of a tail replaced, in the tail and before it. REQUIRES: m.mu is held, and the
// indexes end where the tail begins.
func (m *memtable) replacedByTail(tail *memRows, dead *roaring.Bitmap) {
	t := &memtable{codec: m.codec} // the tail as a memtable of its own, whose rows are numbered from 0
	base := tail.batches[0].first
	for _, b := range tail.batches {
		b.first -= base
		t.next.batches = append(t.next.batches, b)
	}
	t.index(len(tail.batches), false)
	defer t.ints.Release()
	defer t.wides.Release()
	for _, row := range t.next.dead {
		dead.Add(base + row)
	}
	if m.codec.wide {
		t.wides.Each(func(key []byte, _ uint32) {
			if row, ok := m.wides.Row(key); ok {
				dead.Add(row)
			}
		})
		return
	}
	t.ints.Each(func(key int64, _ uint32) {
		if row, ok := m.ints.Row(key); ok {
			dead.Add(row)
		}
	})
}

// deadBitmap returns the rows of the batches that are in the indexes and that later ones of those replaced, nil when there
// are none.
func (r *memRows) deadBitmap() *roaring.Bitmap {
	if len(r.dead) == 0 {
		return nil
	}
	sorted := slices.Clone(r.dead)
	slices.Sort(sorted)
	return roaring.BitmapOf(sorted...)
}

// resolve implements layer. REQUIRES: nobody writes the memtable any more; else the newest row of a key may be one
// that the caller's snapshot does not have.
func (m *memtable) resolve(ctx context.Context, run *keyRun, mark func(fragment uint64, row uint32)) error {
	return m.lookup(ctx, run, math.MaxUint64, func(_ int, fragment uint64, row uint32) { mark(fragment, row) })
}

// lookup implements layer.
func (m *memtable) lookup(_ context.Context, run *keyRun, lsn LSN, fn func(key int, fragment uint64, row uint32)) error {
	m.find(run, lsn, func(key int, row uint32) { fn(key, 0, row) })
	return nil
}

// find calls fn for the newest row of each key of a run at or below an LSN. The index has the newest row of a key, which may be one above the LSN; the newest of those
// at or below it is then searched in the rows. That happens to keys that were written between the snapshot and now. What
// the index does not have yet is searched first.
func (m *memtable) find(run *keyRun, lsn LSN, fn func(key int, row uint32)) {
	m.mu.RLock()
	rows := m.rows.Load().upTo(lsn)
	n := rows.rowCount()
	settled := make([]bool, run.Len())
	if tail := rows.tail(); len(tail.batches) > 0 {
		tail.newest(run, func(key int, row uint32) {
			settled[key] = true
			fn(key, row)
		})
	}
	var places []int
	for i := range run.Len() {
		if settled[i] {
			continue
		}
		row, ok := m.newestRow(run, i)
		switch {
		case ok && int64(row) < n:
			fn(i, row)
		case ok:
			places = append(places, i)
		}
		settled[i] = !ok || int64(row) < n
	}
	m.mu.RUnlock()
	if len(places) > 0 {
		rows.newest(run.unsettled(settled), func(key int, row uint32) { fn(places[key], row) })
	}
}

// newestRow returns the newest row that the index has for a key of a run. REQUIRES: m.mu is held.
func (m *memtable) newestRow(run *keyRun, i int) (row uint32, ok bool) {
	if run.codec.wide {
		return m.wides.Row(run.wide[i])
	}
	return m.ints.Row(run.ints[i])
}

// tombstone reports whether a row deletes its key.
func (r *memRows) tombstone(row uint32) bool {
	b := r.batches[r.batchOf(row)]
	return b.tombs != nil && b.tombs.Value(int(row-b.first))
}

// retain adds a reference.
func (m *memtable) retain() { m.refs.Add(1) }

// unref drops a reference; the last frees the batches.
func (m *memtable) unref() {
	if m.refs.Add(-1) > 0 {
		return
	}
	m.ints.Release()
	m.wides.Release()
	for _, c := range m.columns {
		c.index.Release()
	}
	for _, c := range m.vectors {
		c.index.Release()
	}
	for _, b := range m.next.batches {
		b.rec.Release()
		if b.tombs != nil {
			b.tombs.Release()
		}
	}
	if m.retired.Load() {
		m.budget.keep(-m.bytes.Load())
	}
	m.budget.release(m.bytes.Load())
}

// retire says that no new snapshot will see the memtable. REQUIRES: it is called once, by a holder of a reference,
// after the last batch.
func (m *memtable) retire() {
	m.order.fix(func() { // what is kept here is what unref takes off
		m.retired.Store(true)
		m.budget.keep(m.bytes.Load())
	})
}

// keysAbove returns the keys of the batches of several memtables above an LSN and in the given prefixes, as a run.
func keysAbove(codec *keyCodec, prefixes []*memRows, lsn LSN) *keyRun {
	var ints []int64
	var wide [][]byte
	for _, p := range prefixes {
		for _, b := range p.above(lsn) {
			keys := b.schema.codec.normalise(b.rec, ints)
			if keys.wide == nil {
				ints = keys.ints
				continue
			}
			for i := range int(b.rec.NumRows()) {
				wide = append(wide, keys.wide(i))
			}
		}
	}
	return newKeyRun(codec, ints, wide)
}
