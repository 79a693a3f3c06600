package lsm

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/flightd/flightd/manifest"
)

const (
	// maxGenerations bounds the generations in front of a base that a merge leaves alone: a flush looks its keys up in each
	// of its shard, and a scan opens them all. A chain that has as many is merged, and so is a table that has as many and
	// generationsPerShard more for each of its shards.
	maxGenerations      = 16
	generationsPerShard = 2
	// stallShare is how many times as many generations make writers wait for the merge: flushes never do.
	stallShare = 4
)

// MaxShards bounds the shards of a table.
const MaxShards = 1024

// maxMergeTries bounds the races with other programs' commits that one merge may lose; what it is part of begins it anew for
// mergePatience, as who commits without a pause leaves a merge on a busy machine few moments in which to win.
const (
	maxMergeTries = 10
	mergePatience = 30 * time.Second
)

// compactor is the only one who writes the base of a table and publishes other versions of it: merges of generations,
// the columns of ALTER TABLE, and what it is ordered to do. Its goroutine ends when the table is closed.
type compactor struct {
	db *DB
	// work tells of generations that may be too many and of columns; it holds one.
	work chan struct{}
	// unaligned is set when the base may lack the columns of an ALTER TABLE.
	unaligned atomic.Bool
	// mergeAfter is when a merge may be tried again after one failed, and jobAfter when any other job may; both are zero when
	// none has. They belong to the goroutine.
	mergeAfter, jobAfter time.Time
	// failed is true from a merge that failed to the next one: writers do not wait for it.
	failed atomic.Bool
	// uniting is true while OPTIMIZE has asked for a merge of a divided table. It belongs to the goroutine.
	uniting bool
	// entries has what is known of segments of indexes; stale is how many jobs in a
	// row found another table than was planned for; paced is true while a job runs for which nobody waits. All belong to the
	// goroutine.
	entries map[uuid.UUID]segmentEntries
	stale   int
	paced   bool
	desk
}

// newCompactor returns the compactor of a table, which does not run yet.
func newCompactor(db *DB, t *Table) *compactor {
	return &compactor{db: db, work: make(chan struct{}, 1), entries: make(map[uuid.UUID]segmentEntries), desk: newDesk(t)}
}

// start begins serving.
func (c *compactor) start() {
	c.table.done.Add(1)
	c.wantAlign()
	poke(c.work)
	go c.run()
}

// run is the compactor's goroutine.
func (c *compactor) run() {
	stop := c.table.stop
	defer c.table.done.Done()
	var again <-chan time.Time
	for {
		select {
		case <-stop.Done():
			return
		case <-c.work:
		case <-again:
		case o := <-c.orders:
			o.done <- o.do()
		}
		if c.db.lost() != nil {
			again = nil // another process compacts
			continue
		}
		c.alignWanted(stop)
		if err := c.background(stop); err != nil && stop.Err() == nil {
			c.table.warn("compact; will try again", err)
		}
		again = c.wake() // also of what failed by order
	}
}

// due reports whether generations should be merged that are so many times those that may be left alone.
func (s *layerSet) due(times int) bool {
	all, most := s.generations()
	return most >= times*maxGenerations || all >= times*(maxGenerations+generationsPerShard*len(s.chains))
}

// mergeAll merges all generations into the base.
func (c *compactor) mergeAll(ctx context.Context) error {
	start := time.Now()
	c.db.space.need()
	t := c.table
	e := OptimizeEvent{Table: t.name}
	before := t.holdSet()
	if before == nil {
		return t.ended()
	}
	e.Generations, _ = before.generations()
	read := before.generationBytes()
	before.unref()
	var err error
	e.Rows, err = c.merge(ctx)
	for try := 1; errors.Is(err, manifest.ErrConflict) && (try < maxMergeTries || time.Since(start) < mergePatience); try++ {
		// Another program changed the table meanwhile: everything is worked out again on what it left.
		e.Rows, err = c.merge(ctx)
	}
	c.mergeAfter = time.Time{}
	if failed := err != nil && ctx.Err() == nil; failed {
		c.mergeAfter = time.Now().Add(maxRetry)
		c.failed.Store(true)
	} else if err == nil {
		c.failed.Store(false)
	}
	t.wakeStalled()
	e.Version, e.Duration, e.Err = t.set.Load().base.version.Number, time.Since(start), err
	if f := c.db.opt.Events.Optimize; f != nil {
		f(e)
	}
	if err == nil {
		c.db.counters.compactions.Add(1)
		if e.Generations > 0 {
			c.db.counters.compactJobs.Add(1)
			c.db.counters.compactRead.Add(read)
		}
		c.db.litter()
	}
	return err
}
