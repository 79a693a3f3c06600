package lsm

import (
	"context"
	"errors"
	"path"
	"strconv"
	"sync"

	"github.com/google/uuid"

	"github.com/flightd/flightd/manifest"
)

// shard is the part of a table's rows that has one writer. Two goroutines serve it: the applier puts batches from the
// log into the active memtable and freezes it, the flusher turns frozen memtables into generations. Both end when the
// table is closed.
type shard struct {
	db    *DB
	table *Table
	id    uuid.UUID
	index int // of its chain in layer sets

	// queue holds the batches on their way from the log to the memtable, guarded by queueMu, which comes after
	// every other lock.
	queueMu sync.Mutex
	queue   []queued
	spare   []queued      // what queue was before, to be used again
	kick    chan struct{} // tells the applier of work; holds one
	// passing are batches of the group that the log has written; they belong to who writes it.
	passing []queued
	// onWay are ranges of LSNs that have all records on their way from the log to the memtable, in order, guarded by
	// watermarks.mu.
	onWay []lsnRange
	// freezes asks the applier to freeze what it was given so far; it closes the channel, if there is one, when
	// that is done.
	freezes chan chan struct{}

	// manMu guards man, the shard's manifest, and is held while the next version of it is written: by the flusher,
	// which adds generations, by the compactor, which takes those away that the base has, and by who publishes a
	// stage. Only Table.place may be taken below it.
	manMu sync.Mutex
	man   *manifest.Shard

	// epochs are those of versions of the manifest that claimed the shard, by number. It belongs to who holds Table.collecting.
	epochs map[uint64]uint64

	work chan struct{} // tells the flusher of frozen memtables; holds one
	desk               // of the flusher
}

// queued is a batch that has an LSN.
type queued struct {
	lsn LSN
	put *put
}

// newShards returns the shards of a table, which do not run yet.
func newShards(db *DB, t *Table, n int) []*shard {
	shards := make([]*shard, n)
	for i := range shards {
		shards[i] = &shard{db: db, table: t, index: i, id: shardID(t.entry.Shard, i), desk: newDesk(t),
			kick: make(chan struct{}, 1), freezes: make(chan chan struct{}, 1), work: make(chan struct{}, 1)}
	}
	return shards
}

// shardID returns the identity of the shard with a number, given that of the first.
func shardID(first uuid.UUID, number int) uuid.UUID {
	if number == 0 {
		return first
	}
	return uuid.NewSHA1(first, []byte(strconv.Itoa(number)))
}

// dir returns the shard's folder below the data folder.
func (s *shard) dir() string { return path.Join(s.table.root, "_mem_wal", s.id.String()) }

// claimOptions are those with which the shard is claimed.
func (s *shard) claimOptions() manifest.Options {
	o := s.table.manifestOptions()
	if len(s.table.shards) > 1 {
		o.Bucket = &s.index
	}
	return o
}

// start begins serving.
func (s *shard) start() {
	s.table.done.Add(2)
	go s.apply()
	go s.flushLoop()
}

// dropQueued lets go of batches that will not reach the memtable. REQUIRES: the applier has ended.
func (s *shard) dropQueued() {
	for _, q := range s.take() {
		q.put.drop(s.table)
		if stream := q.put.stream; stream != nil {
			stream.arrived() // the log has left it
		}
	}
}

// chain returns the shard's layers as they are now. The applier may rely on the active memtable, which only it replaces;
// others hold the set while they use them.
func (s *shard) chain() *chain { return s.table.set.Load().chains[s.index] }

// enqueue hands batches to the applier. It is called in LSN order.
func (s *shard) enqueue(list []queued) {
	s.queueMu.Lock()
	first := len(s.queue) == 0
	s.queue = append(s.queue, list...)
	s.queueMu.Unlock()
	if first { // else the applier was told and has not come yet
		poke(s.kick)
	}
}

// take empties the queue. The caller gives the list back with recycle.
func (s *shard) take() []queued {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	q := s.queue
	if len(q) > 0 {
		s.queue, s.spare = s.spare, nil
	}
	return q
}

// recycle takes a list back whose batches are in the memtable.
func (s *shard) recycle(q []queued) {
	clear(q)
	s.queueMu.Lock()
	s.spare = q[:0]
	s.queueMu.Unlock()
}

// apply is the applier.
func (s *shard) apply() {
	defer s.table.done.Done()
	for {
		select {
		case <-s.table.stop.Done():
			return
		case <-s.kick:
			s.addQueued()
			s.follow()
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
	if len(q) == 0 {
		return
	}
	for _, x := range q {
		s.add(x.lsn, x.put)
	}
	s.chain().active().publish()
	s.db.marks.arrived(s, q[len(q)-1].lsn)
	for _, x := range q {
		x.put.leave()
	}
	s.recycle(q)
	if s.db.budget.short() {
		// When the writer began to wait, these batches were in no memtable yet, and there may have been none to freeze.
		s.db.relieve()
	}
}

// add puts a batch into the active memtable, whose readers have it once it is published. When that would make it too large
// it is frozen before: its index grows in leaps, and the memory must not.
func (s *shard) add(lsn LSN, p *put) {
	m := s.chain().active()
	rows := p.rec.NumRows()
	if have := m.added(); have > 0 && (have+rows > maxBatchRows || m.bytes.Load()+m.growth(int(rows), p.bytes) > s.db.opt.MemtableBytes) {
		s.freezeActive()
		m = s.chain().active()
	}
	if m.added() == 0 {
		m.born = s.db.counters.bytes.Load()
	}
	m.add(lsn, p)
	if s.table.IndexMode() == Sync {
		s.indexInto(m, 1, false)
	}
}

// indexInto puts batches into the indexes of a memtable.
func (s *shard) indexInto(m *memtable, n int, show bool) {
	if grown := m.index(n, show); grown != 0 {
		s.db.budget.add(grown)
	}
}

const (
	// tailRows is how many rows of a table may be visible before its indexes have them, if they may follow: to search as
	// many one by one takes a tenth of a millisecond.
	tailRows = 1 << 16
	// tailStep is how many batches are put into the indexes at a time: readers of these wait for no more.
	tailStep = 8
)

// follow brings the indexes of a table in which they may follow up to its batches. It leaves off when more batches come,
// unless the tail is too long by then.
func (s *shard) follow() {
	m := s.chain().active()
	for m.unindexed() > 0 && s.table.stop.Err() == nil && !s.db.holdIndexes.Load() {
		if m.tailRows <= tailRows && s.waiting() {
			return
		}
		s.indexInto(m, min(m.unindexed(), tailStep), true)
	}
}

// waiting reports whether batches are queued.
func (s *shard) waiting() bool {
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	return len(s.queue) > 0
}

// freezeActive puts an empty memtable in front of the active one, if that has rows, and tells the flusher.
func (s *shard) freezeActive() {
	t := s.table
	t.swap.Lock()
	defer t.swap.Unlock()
	set := t.set.Load()
	old := set.chains[s.index]
	m := old.active()
	s.indexInto(m, m.unindexed(), true)
	last := m.rows.Load().lastLSN()
	if last == 0 && m.indexes == t.indexes.Load() && t.keepsVectors(m, set.base) {
		return
	}
	active := t.newMemtable(set.base)
	defer active.unref() // the chain has its own reference
	active.expect(m)
	layers := append([]layerRef(nil), old.layers...)
	if last == 0 { // it has no rows, but not the table's indexes either
		layers = layers[:len(layers)-1]
	} else {
		// Nothing newer than the memtable's own rows has replaced any of them yet.
		layers[len(layers)-1].mask = newMaskCell(&rowMask{upTo: last})
	}
	layers = append(layers, layerRef{layer: active})
	next := newChain(layers, old.replaced, old.flushed)
	defer next.unref()
	t.publish(set.base, set.with(s.index, next))
	poke(s.work)
}

// edit publishes the next version of the shard's manifest.
func (s *shard) edit(ctx context.Context, change func(*manifest.Shard)) error {
	s.manMu.Lock()
	defer s.manMu.Unlock()
	man, err := s.man.Commit(ctx, s.db.st, s.dir(), change)
	if errors.Is(err, manifest.ErrFenced) {
		err = s.db.home.fence(err)
	}
	if err != nil {
		return err
	}
	s.man = man
	return nil
}

// editFlushed is edit for a version that has everything up to an LSN in generations, so that the log is not needed so far.
func (s *shard) editFlushed(ctx context.Context, lsn LSN, change func(*manifest.Shard)) error {
	entry, err := s.db.home.position(s, lsn)
	if err != nil {
		return err
	}
	err = s.edit(ctx, func(n *manifest.Shard) {
		change(n)
		n.ReplayAfter, n.LastSeen = uint64(lsn), uint64(lsn)
		if entry > 0 {
			n.Entry = max(n.Entry, entry)
			n.LastSeen = n.Entry
		}
	})
	if err == nil {
		s.db.home.released(s.manifest())
	}
	return err
}

// manifest returns the newest version of the shard's manifest that was published or read.
func (s *shard) manifest() *manifest.Shard {
	s.manMu.Lock()
	defer s.manMu.Unlock()
	return s.man
}

// replayAfter returns the LSN up to which the shard needs nothing from the log.
func (s *shard) replayAfter() LSN { return LSN(s.manifest().ReplayAfter) }
