package wal

import (
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"
)

// logLoop is the log goroutine.
func (b *Bucket) logLoop() {
	defer b.done.Done()
	defer close(b.full)
	for {
		queued, group, more := b.takeUp()
		switch {
		case group != nil:
			b.full <- group // there is room: the put goroutine has none
		case len(queued) > 0:
			b.appendCalls(queued)
		case !more:
			return
		}
	}
}

// takeUp waits for something to do: a group to hand over, or queued calls. It tells when nothing will come.
func (b *Bucket) takeUp() (queued []*call, group *bucketGroup, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.mu.err != nil {
			b.mu.open, b.mu.cut = nil, false
		}
		switch {
		case b.mu.open != nil && !b.mu.busy && b.dueLocked():
			group = b.mu.open
			b.mu.open, b.mu.cut, b.mu.busy, b.mu.lapsed = nil, false, true, false
			return nil, group, true
		case len(b.mu.pending) > 0 && !b.mu.cut:
			queued = b.mu.pending
			b.mu.pending = nil
			return queued, nil, true
		case b.mu.closed && len(b.mu.pending) == 0 && b.mu.open == nil:
			return nil, nil, false
		}
		b.logWork.Wait()
	}
}

// dueLocked tells whether the open group has to be stored. REQUIRES: b.mu is held.
func (b *Bucket) dueLocked() bool {
	return b.mu.open.strict || b.mu.cut || b.mu.closed || b.mu.lapsed || b.mu.wanted > b.DurableLSN()
}

// appendCalls adds calls to the open group, until one needs a group of its own; that one and those behind it wait.
func (b *Bucket) appendCalls(queued []*call) {
	for i, c := range queued {
		err := errors.Join(b.Err(), c.failed())
		if err == nil {
			var cut bool
			if cut, err = b.appendCall(c); cut {
				b.mu.Lock()
				b.mu.cut = true
				b.mu.pending = append(append([]*call(nil), queued[i:]...), b.mu.pending...)
				b.mu.Unlock()
				return
			}
		}
		c.answer(err)
	}
}

// appendCall adds a call to the open group, unless that is full, or has rows of another schema: then it tells so.
func (b *Bucket) appendCall(c *call) (cut bool, err error) {
	recs := c.recs
	if c.checkpoint {
		r := b.opts.Checkpoint()
		if r == nil {
			return false, nil
		}
		recs = []*Record{r}
		r.Shard = uuid.Nil
	}
	s, err := b.streamOf(recs)
	if err != nil {
		return false, err
	}
	if severalSchemas(recs) {
		return false, ErrSeveralSchemas
	}
	b.mu.Lock()
	g := b.mu.open
	b.mu.Unlock()
	if g != nil && (g.bytes >= b.opts.EntryBytes || g.bytes+c.bytes > maxGroupBytes) {
		return true, nil
	}
	if g == nil {
		g = &bucketGroup{entries: make(map[*Stream]*entry)}
	}
	e := g.entries[s]
	if e == nil {
		e = newEntry(s)
	}
	for _, r := range recs {
		if r.Kind == Batch && e.schema != nil && e.schemaID != r.Schema {
			return true, nil
		}
	}
	before := e.bytes()
	if err := b.encode(e, recs, c.checkpoint); err != nil {
		return false, err
	}
	c.last = b.next - 1
	g.entries[s], g.last = e, c.last
	g.bytes += e.bytes() - before
	if !c.checkpoint {
		b.opts.Appended(recs)
	}
	b.adopt(g, recs)
	return false, nil
}

// streamOf returns the stream of some records.
func (b *Bucket) streamOf(recs []*Record) (*Stream, error) {
	id := recs[0].Shard
	for _, r := range recs {
		if r.Kind == DDL {
			id = uuid.Nil
			break
		}
		if r.Shard != id {
			return nil, ErrSeveralShards
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.mu.streams[id]
	if s == nil {
		return nil, fmt.Errorf("append to the log: shard %s has no stream", id)
	}
	return s, nil
}

// severalSchemas tells whether the batches among some records have more than one schema.
func severalSchemas(recs []*Record) bool {
	first := (*Record)(nil)
	for _, r := range recs {
		if r.Kind != Batch {
			continue
		}
		if first == nil {
			first = r
		}
		if r.Schema != first.Schema {
			return true
		}
	}
	return false
}

// encode gives records their LSNs and adds them to an entry, all or none of them.
func (b *Bucket) encode(e *entry, recs []*Record, checkpoint bool) error {
	if b.next.N()+uint64(len(recs))-1 > maxCount {
		return fmt.Errorf("all LSNs of epoch %d are used up: open the log again", b.opts.Epoch)
	}
	mark, next := e.mark(), b.next
	for _, r := range recs {
		r.LSN = next
		next++
		var rows arrow.RecordBatch
		var err error
		if r.Kind == Batch {
			rows, err = b.opts.Rows(r)
		}
		if err == nil {
			err = e.add(r, rows, checkpoint)
		}
		if rows != nil {
			rows.Release()
		}
		if err != nil {
			e.takeBack(mark)
			return err
		}
	}
	b.next = next
	return nil
}

// adopt makes a group the open one, with records that were added to it.
func (b *Bucket) adopt(g *bucketGroup, recs []*Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.open = g
	b.appended.Store(uint64(g.last))
	for _, r := range recs {
		if !r.Buffered {
			g.strict = true
		}
	}
	if !g.strict && b.mu.disarm == nil {
		b.mu.disarm = time.AfterFunc(b.opts.Interval, b.passed).Stop
	}
}

// passed is called when the interval has passed.
func (b *Bucket) passed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.disarm = nil
	b.mu.lapsed = true
	b.logWork.Signal()
}

// putLoop is the put goroutine.
func (b *Bucket) putLoop() {
	defer b.done.Done()
	for g := range b.full {
		err := b.Err()
		if err == nil {
			err = b.putGroup(g)
		}
		if err != nil {
			b.Poison(err)
		}
		b.settle(g, err == nil)
	}
}

// settle lets the next group come, and makes one that is stored durable for all to know.
func (b *Bucket) settle(g *bucketGroup, stored bool) {
	b.mu.Lock()
	b.mu.busy = false
	var done []*waiter
	if stored {
		b.durable.Store(uint64(g.last))
		rest := b.mu.waiters[:0]
		for _, w := range b.mu.waiters {
			if w.lsn <= g.last {
				done = append(done, w)
			} else {
				rest = append(rest, w)
			}
		}
		clear(b.mu.waiters[len(rest):])
		b.mu.waiters = rest
	}
	b.logWork.Signal()
	b.mu.Unlock()
	answer(done, nil)
	if stored {
		b.opts.Durable(g.last)
	}
}

// putGroup stores the entries of a group: those of shards at the same time, and then that of the catalog. So no DDL is there
// without the rows before it, and no checkpoint of keys without those whose news it tells. (Rows that need the DDL come in a
// later group, as nobody has them before it is durable.)
func (b *Bucket) putGroup(g *bucketGroup) error {
	shards := 0
	errs := make(chan error, len(g.entries))
	for s, e := range g.entries {
		if s.ID != uuid.Nil {
			shards++
			go func() { errs <- b.putEntry(s, e) }()
		}
	}
	var err error
	for range shards {
		err = errors.Join(err, <-errs)
	}
	for s, e := range g.entries {
		if s.ID == uuid.Nil && err == nil {
			err = b.putEntry(s, e)
		}
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, e := range g.entries {
		s.note(e.stored)
		if e.checkpoint > 0 {
			s.checked = e.stored
		}
	}
	return nil
}
