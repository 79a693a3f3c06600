package lsm

import (
	"context"
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
	// first is the number of the batch's first row in the memtable.
	first uint32
	// dead is how many entries the memtable's list of replaced rows had once this batch was in.
	dead int
}

// memRows is what a memtable shows to readers: a prefix of two lists that only grow, so a reader that loaded it
// needs no lock.
type memRows struct {
	batches []memBatch
	// dead lists the rows that later rows of this memtable replaced, in the order of the replacing rows: a prefix
	// of it is right for a prefix of the batches.
	dead []uint32
}

// memtable holds the newest rows of a shard as the batches they came in. The shard's goroutine writes it, anyone
// reads it. Its references are counted: when the last goes, the batches' memory goes back to the budget.
type memtable struct {
	// codec says how keys are compared, nil without a key. Where they lie, the schema of each batch says.
	codec *keyCodec
	// rows is what readers have: a prefix of next, which belongs to the writer.
	rows atomic.Pointer[memRows]
	next memRows
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

	// columns are the indexes over other columns. The list does not change; they need no lock.
	columns []*memColumn

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

// add appends a batch, which the memtable takes over, and returns the memory that the key index grew by. Readers do not
// have it before publish.
func (m *memtable) add(lsn LSN, p *put) (grown int64) {
	b := memBatch{lsn: lsn, rec: p.rec, schema: p.schema, tombs: p.tombs, first: uint32(m.next.rowCount())}
	if m.codec != nil {
		m.next.dead, grown = m.index(b, m.next.dead)
	}
	grown += m.addColumns(b)
	b.dead = len(m.next.dead)
	m.bytes.Add(p.bytes + grown)
	m.next.batches = append(m.next.batches, b)
	return grown
}

// added returns the rows that went in, those that are not published included. It belongs to the writer.
func (m *memtable) added() int64 { return m.next.rowCount() }

// publish lets readers have what was added: once for many batches, as each time takes a little memory.
func (m *memtable) publish() {
	if len(m.next.batches) == len(m.rows.Load().batches) {
		return
	}
	now := m.next
	m.rows.Store(&now)
}

// index puts the keys of a batch into the key index and appends the rows they replace to dead.
func (m *memtable) index(b memBatch, dead []uint32) (_ []uint32, grown int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := b.schema.codec.normalise(b.rec, m.scratch[:0])
	if m.codec.wide {
		before := m.wides.MemoryBytes()
		dead = m.wides.Add(int(b.rec.NumRows()), keys.wide, b.first, dead)
		return dead, m.wides.MemoryBytes() - before
	}
	m.scratch = keys.ints
	before := m.ints.MemoryBytes()
	dead = m.ints.Add(keys.ints, b.first, dead)
	return dead, m.ints.MemoryBytes() - before
}

// growth returns how many bytes a batch would add, the copies of wide keys aside. It belongs to the writer.
func (m *memtable) growth(rows int, bytes int64) int64 {
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
	n := sort.Search(len(r.batches), func(i int) bool { return r.batches[i].lsn > lsn })
	if n == len(r.batches) {
		return r
	}
	p := &memRows{batches: r.batches[:n]}
	if n > 0 {
		p.dead = r.dead[:r.batches[n-1].dead]
	}
	return p
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

// deadBitmap returns the rows that later rows of the prefix replaced, nil when there are none.
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
func (m *memtable) resolve(_ context.Context, run *keyRun, mark func(fragment uint64, row uint32)) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, k := range run.ints {
		if row, ok := m.ints.Row(k); ok {
			mark(0, row)
		}
	}
	for _, k := range run.wide {
		if row, ok := m.wides.Row(k); ok {
			mark(0, row)
		}
	}
	return nil
}

// lookup implements layer. The index has the newest row of a key, which may be one above the LSN; the newest of those
// at or below it is then searched in the rows. That happens to keys that were written between the snapshot and now.
func (m *memtable) lookup(_ context.Context, run *keyRun, lsn LSN, fn func(key int, fragment uint64, row uint32)) error {
	rows := m.rows.Load().upTo(lsn)
	n := rows.rowCount()
	settled := make([]bool, run.Len())
	var places []int
	m.mu.RLock()
	for i := range run.Len() {
		var row uint32
		var ok bool
		if run.codec.wide {
			row, ok = m.wides.Row(run.wide[i])
		} else {
			row, ok = m.ints.Row(run.ints[i])
		}
		switch {
		case ok && int64(row) < n:
			fn(i, 0, row)
		case ok:
			places = append(places, i)
		}
		settled[i] = !ok || int64(row) < n
	}
	m.mu.RUnlock()
	if len(places) > 0 {
		rows.newest(run.unsettled(settled), func(key int, row uint32) { fn(places[key], 0, row) })
	}
	return nil
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
	for _, c := range m.columns {
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
	m.retired.Store(true)
	m.budget.keep(m.bytes.Load())
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
