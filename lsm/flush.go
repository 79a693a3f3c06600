package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/flightd/flightd/manifest"
)

// A failed flush is tried again, first after minRetry and then after twice as long each time up to maxRetry: what
// fails is mostly a full or broken disk, which a person has to mend, and until then the log has everything.
const (
	minRetry = 500 * time.Millisecond
	maxRetry = time.Minute
)

// flushLoop is the flusher: it turns frozen memtables into generations, oldest first, and does what it is ordered.
func (s *shard) flushLoop() {
	defer s.table.done.Done()
	stop := s.table.stop
	retry := minRetry
	var again <-chan time.Time
	for {
		select {
		case <-stop.Done():
			return
		case <-s.work:
		case <-again:
		case o := <-s.orders:
			o.done <- o.do()
		}
		err := s.flushFrozen(stop, s.newestFrozen())
		switch {
		case stop.Err() != nil:
			return
		case err == nil:
			retry, again = minRetry, nil
		case errors.Is(err, ErrFenced):
			again = nil // another process flushes it
		default:
			s.db.logger.Error("flush; will try again", "table", s.table.name.String(), "shard", s.id, "after", retry, "error", err)
			again = time.After(retry)
			retry = min(2*retry, maxRetry)
		}
	}
}

// newestFrozen returns the last LSN that is frozen now, 0 when nothing is. What is frozen later tells the flusher so;
// until then orders have their turn.
func (s *shard) newestFrozen() LSN {
	frozen := s.chain().frozen()
	if len(frozen) == 0 {
		return 0
	}
	return frozen[len(frozen)-1].rows.Load().lastLSN()
}

// flushFrozen flushes the frozen memtables that have records at or below an LSN. A stage that is pending goes first.
// (Without a bound it would not end while somebody writes faster than it flushes.) REQUIRES: it is called by the
// flusher, which alone takes memtables off the chain, or by Open before that runs.
func (s *shard) flushFrozen(ctx context.Context, upTo LSN) error {
	for {
		if err := s.db.lost(); err != nil {
			return err
		}
		if err := s.table.publishPending(ctx); err != nil {
			return err
		}
		frozen := s.chain().frozen()
		if len(frozen) == 0 || frozen[0].rows.Load().firstLSN() > upTo {
			return nil
		}
		start := time.Now()
		number := s.manifest().CurrentGeneration
		rows := frozen[0].rows.Load().rowCount()
		err := s.flush(ctx, frozen[0], number)
		if f := s.db.opt.Events.Flush; f != nil {
			f(FlushEvent{Table: s.table.name, Generation: number, Rows: rows, Bytes: frozen[0].bytes.Load(), Duration: time.Since(start), Err: err})
		}
		if err != nil {
			s.db.counters.flushErrors.Add(1)
			return err
		}
		s.db.counters.flushes.Add(1)
		s.db.counters.flushed.Add(frozen[0].bytes.Load())
		s.db.poke()
		poke(s.table.compactor.work)
	}
}

// flush makes the oldest frozen memtable a generation. The order is what makes it safe: its records are durable
// and visible before a generation shows them; its files are synced before the manifest names them; the manifest is
// synced before readers see the generation, and the log is trimmed last.
func (s *shard) flush(ctx context.Context, m *memtable, number uint64) error {
	last := m.rows.Load().lastLSN()
	if err := s.db.settled(ctx, last); err != nil {
		return fmt.Errorf("flush: wait for the log: %w", err)
	}
	s.db.space.need()
	defer s.db.pace.flushing()()
	sorted := m.sortedRows()
	meta, err := writeGeneration(ctx, s.db.st, s, m, sorted, number)
	meta.Number = number
	if err != nil {
		// The next attempt has a folder of its own, and a full disk has no room for the rest of this one.
		s.table.discard(ctx, path.Join(s.dir(), meta.Path))
		return fmt.Errorf("flush generation %d: %w", number, err)
	}
	g, err := openGeneration(ctx, s.db.st, s, meta)
	if err != nil {
		s.table.discard(ctx, path.Join(s.dir(), meta.Path))
		return fmt.Errorf("flush generation %d: %w", number, err)
	}
	defer g.unref()
	err = s.editFlushed(ctx, last, func(n *manifest.Shard) {
		// What has this number or a higher one is from a commit that failed and stands all the same.
		n.Generations = append(below(n.Generations, number), meta)
		n.CurrentGeneration = number + 1
	})
	if err != nil {
		return fmt.Errorf("flush generation %d: %w", number, err)
	}
	// The generation stands: a caller who went away must not have it made twice.
	return s.publishFlush(context.WithoutCancel(ctx), m, sorted, g, last)
}

// below returns the generations below a number.
func below(gens []manifest.Generation, number uint64) []manifest.Generation {
	return slices.DeleteFunc(gens, func(g manifest.Generation) bool { return g.Number >= number })
}

// publishFlush puts the generation in the memtable's place. Row numbers are the same in both, so the memtable's
// mask is the generation's; the masks of older layers take in its keys.
func (s *shard) publishFlush(ctx context.Context, m *memtable, sorted *sortedRows, g *generation, last LSN) error {
	var run *keyRun
	if sorted != nil {
		run = sorted.run
	}
	for {
		done, err := s.tryPublishFlush(ctx, m, g, run, last)
		if done || err != nil {
			return err
		}
	}
}

// tryPublishFlush is publishFlush unless a merge changes the layers meanwhile.
func (s *shard) tryPublishFlush(ctx context.Context, m *memtable, g *generation, run *keyRun, last LSN) (done bool, err error) {
	t := s.table
	on := t.holdSet()
	defer on.unref()
	old := on.chains[s.index]
	replaced, gens := old.replaced, slices.Clone(old.generations())
	if run != nil {
		if replaced, err = old.replaced.afterFlush(ctx, last, on.base, run); err != nil {
			return false, err
		}
		for i, l := range gens {
			if gens[i].mask, err = l.mask.afterFlush(ctx, last, l.layer, run); err != nil {
				return false, err
			}
		}
	}
	gens = append(gens, layerRef{layer: g, mask: old.layers[len(gens)].mask})
	t.swap.Lock()
	defer t.swap.Unlock()
	set := t.set.Load()
	now := set.chains[s.index]
	if set.base != on.base || !sameGenerations(now, old) {
		return false, nil
	}
	next := now.grown(gens, 1, replaced, last)
	defer next.unref()
	t.publish(set.base, set.with(s.index, next))
	return true, nil
}

// flushAll flushes everything that was written before the call.
func (s *shard) flushAll(ctx context.Context) error {
	upTo := LSN(s.table.last.Load())
	if err := s.db.marks.wait(ctx, upTo); err != nil {
		return err
	}
	if err := s.freeze(ctx); err != nil {
		return err
	}
	return s.flushFrozen(ctx, upTo)
}

// flushAll flushes everything that was written before the call, all shards at a time.
func (t *Table) flushAll(ctx context.Context) error {
	errs := make([]error, len(t.shards))
	var all sync.WaitGroup
	for i, s := range t.shards[1:] {
		all.Go(func() { errs[i+1] = s.order(ctx, s.flushAll) })
	}
	errs[0] = t.shards[0].order(ctx, t.shards[0].flushAll)
	all.Wait()
	return errors.Join(errs...)
}

// Flush makes generations of everything that was written to a table before the call, so that the log no longer
// needs it.
func (db *DB) Flush(ctx context.Context, n TableName) error {
	t, err := db.Table(n)
	if err != nil {
		return err
	}
	if err := t.flushAll(ctx); err != nil {
		return fmt.Errorf("flush table %q: %w", n, err)
	}
	return nil
}
