package lsm

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/flightd/flightd/manifest"
)

// shard is the part of a table that has one writer. Two goroutines serve it: the applier puts batches from the log
// into the active memtable and freezes it, the flusher turns frozen memtables into generations and generations
// into base fragments. Both end when the shard is closed.
type shard struct {
	db    *DB
	table *Table
	id    uuid.UUID
	dir   string

	// set is what readers see, nil when the shard is closed. It is replaced under db.moment, by the applier (freeze)
	// and the flusher (the rest), each under swap. Both may load it without a lock: what each relies on, the active
	// memtable or the layers behind it, only it replaces. Others load it under db.moment and retain it there.
	set atomic.Pointer[layerSet]
	// swap keeps the two from losing each other's new set. It comes before db.moment.
	swap sync.Mutex

	// queue holds the batches on their way from the log to the memtable, guarded by queueMu, which comes after
	// every other lock.
	queueMu sync.Mutex
	queue   []queued
	kick    chan struct{} // tells the applier of work; holds one
	// freezes asks the applier to freeze what it was given so far; it closes the channel, if there is one, when
	// that is done.
	freezes chan chan struct{}

	// man is the shard's manifest; it belongs to the flusher, and to Open before that runs.
	man *manifest.Shard
	// pending is a stage that the log has committed and man does not name yet; it belongs to who owns man. staged is the
	// LSN of its commit, 0 when there is none: the log is needed from there on.
	pending *adoption
	staged  atomic.Uint64
	// mergeAfter is when a merge may be tried again after one failed; it belongs to the flusher.
	mergeAfter time.Time
	// unaligned is set when the base may lack the columns of an ALTER TABLE.
	unaligned atomic.Bool
	work      chan struct{} // tells the flusher of frozen memtables; holds one
	orders    chan order    // work asked for

	// leftovers are folders and files that could not be removed when they became useless, guarded by leftMu, below
	// which there is no other lock.
	leftMu    sync.Mutex
	leftovers []string

	stop   context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// queued is a batch that has an LSN.
type queued struct {
	lsn LSN
	put *put
}

// order is work that only the flusher may do.
type order struct {
	do   func() error
	done chan error
}

// newShard returns a shard that does not run yet.
func newShard(db *DB, t *Table) *shard {
	s := &shard{db: db, table: t, id: t.entry.Shard, dir: t.shardDir(),
		kick: make(chan struct{}, 1), freezes: make(chan chan struct{}, 1), work: make(chan struct{}, 1), orders: make(chan order)}
	s.stop, s.cancel = context.WithCancel(context.Background())
	return s
}

// start begins serving.
func (s *shard) start() {
	s.done.Add(2)
	go s.apply()
	go s.flushLoop()
	s.wantAlign()
}

// halt ends both goroutines and waits for them; readers still have the layers.
func (s *shard) halt() {
	s.cancel()
	s.done.Wait()
	for _, q := range s.take() {
		q.put.drop(s.table)
	}
}

// close halts the shard and lets the layers go. What is in memtables stays in the log.
func (s *shard) close() {
	s.halt()
	s.db.moment.Lock()
	set := s.set.Swap(nil)
	s.db.moment.Unlock()
	if set != nil {
		set.unref()
	}
}

// poke wakes the goroutine that reads a channel of capacity one.
func (s *shard) poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// enqueue hands a batch to the applier. It is called in LSN order.
func (s *shard) enqueue(lsn LSN, p *put) {
	s.queueMu.Lock()
	s.queue = append(s.queue, queued{lsn, p})
	s.queueMu.Unlock()
	s.poke(s.kick)
}

// take empties the queue.
func (s *shard) take() []queued {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	q := s.queue
	s.queue = nil
	return q
}

// apply is the applier.
func (s *shard) apply() {
	defer s.done.Done()
	for {
		select {
		case <-s.stop.Done():
			return
		case <-s.kick:
			s.addQueued()
		case done := <-s.freezes:
			s.addQueued()
			s.freezeActive()
			if done != nil {
				close(done)
			}
		}
	}
}

// addQueued puts what is queued into the memtable.
func (s *shard) addQueued() {
	q := s.take()
	for _, x := range q {
		s.add(x.lsn, x.put)
	}
	if len(q) == 0 {
		return
	}
	s.db.marks.indexed(s, len(q))
	if s.db.budget.short() {
		// When the writer began to wait, these batches were in no memtable yet, and there may have been none to freeze.
		s.db.relieve()
	}
}

// add puts a batch into the active memtable. When that would make it too large it is frozen before: its index grows
// in leaps, and the memory must not.
func (s *shard) add(lsn LSN, p *put) {
	m := s.set.Load().active()
	rows := m.rows.Load().rowCount()
	full := rows+p.rec.NumRows() > maxBatchRows || m.bytes.Load()+m.growth(int(p.rec.NumRows()), p.bytes) > s.db.opt.MemtableBytes
	if rows > 0 && full {
		s.freezeActive()
		m = s.set.Load().active()
	}
	if m.rows.Load().lastLSN() == 0 {
		m.born = s.db.counters.bytes.Load()
	}
	s.db.budget.add(m.add(lsn, p))
}

// freezeActive puts an empty memtable in front of the active one, if that has rows, and tells the flusher.
func (s *shard) freezeActive() {
	s.swap.Lock()
	defer s.swap.Unlock()
	old := s.set.Load()
	m := old.active()
	last := m.rows.Load().lastLSN()
	if last == 0 {
		return
	}
	layers := append([]layerRef(nil), old.layers...)
	// Nothing newer than the memtable's own rows has replaced any of them yet.
	layers[len(layers)-1].mask = newMaskCell(&rowMask{upTo: last})
	active := newMemtable(s.table.now().codec, s.db.budget)
	s.publish(append(layers, layerRef{layer: active}))
	active.unref() // the set has its own reference
	s.poke(s.work)
}

// publish makes a new set of layers what readers see from now on. REQUIRES: s.swap is held, or nobody else runs.
func (s *shard) publish(layers []layerRef) {
	next := newLayerSet(layers)
	s.db.moment.Lock()
	old := s.set.Swap(next)
	s.db.moment.Unlock()
	if old == nil {
		return
	}
	now := next.memtablesAfter(0)
	for _, m := range old.memtablesAfter(0) {
		if !slices.Contains(now, m) {
			m.retire()
		}
	}
	old.unref()
}

// unflushed returns the lowest LSN whose content only the log makes part of the shard, and whether there is one.
func (s *shard) unflushed() (LSN, bool) {
	s.db.moment.Lock()
	set := s.set.Load()
	if set == nil {
		s.db.moment.Unlock()
		return 0, false
	}
	set.retain()
	s.db.moment.Unlock()
	defer set.unref()
	if staged := LSN(s.staged.Load()); staged > 0 { // all that came before it is flushed
		return staged, true
	}
	for _, m := range set.memtablesAfter(0) {
		if lsn := m.rows.Load().firstLSN(); lsn > 0 {
			return lsn, true
		}
	}
	return 0, false
}
