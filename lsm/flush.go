package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/flightd/flightd/manifest"
)

// A failed flush is tried again, first after minRetry and then after twice as long each time up to maxRetry: what
// fails is mostly a full or broken disk, which a person has to mend, and until then the log has everything.
const (
	minRetry = 500 * time.Millisecond
	maxRetry = time.Minute
)

// maxGenerations bounds the generations in front of a base: a flush looks its keys up in each of them, and a scan opens
// them all. A shard that has as many merges them by itself.
const maxGenerations = 16

// maxMergeTries bounds the races with other programs' commits that one merge may lose.
const maxMergeTries = 10

// flushLoop is the flusher: it turns frozen memtables into generations, oldest first, and does what it is ordered.
func (s *shard) flushLoop() {
	defer s.done.Done()
	retry := minRetry
	var again <-chan time.Time
	for {
		select {
		case <-s.stop.Done():
			return
		case <-s.work:
		case <-again:
		case o := <-s.orders:
			o.done <- o.do()
		}
		err := s.flushFrozen(s.stop, s.newestFrozen())
		s.alignWanted(s.stop)
		switch {
		case s.stop.Err() != nil:
			return
		case err == nil:
			retry, again = minRetry, nil
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
	frozen := s.set.Load().frozen()
	if len(frozen) == 0 {
		return 0
	}
	return frozen[len(frozen)-1].rows.Load().lastLSN()
}

// flushFrozen flushes the frozen memtables that have records at or below an LSN, and merges generations when there are
// too many. A stage that is pending goes first. (Without a bound it would not end while somebody writes faster than it
// flushes.)
func (s *shard) flushFrozen(ctx context.Context, upTo LSN) error {
	for {
		if err := s.settle(ctx); err != nil {
			return err
		}
		frozen := s.set.Load().frozen()
		if len(frozen) == 0 || frozen[0].rows.Load().firstLSN() > upTo {
			return nil
		}
		start := time.Now()
		number := s.man.CurrentGeneration
		rows := frozen[0].rows.Load().rowCount()
		err := s.flush(ctx, frozen[0])
		if f := s.db.opt.Events.Flush; f != nil {
			f(FlushEvent{Table: s.table.name, Generation: number, Rows: rows, Bytes: frozen[0].bytes.Load(), Duration: time.Since(start), Err: err})
		}
		if err != nil {
			s.db.counters.flushErrors.Add(1)
			return err
		}
		s.db.counters.flushes.Add(1)
		s.db.poke()
		if len(s.set.Load().generations()) < maxGenerations || time.Now().Before(s.mergeAfter) {
			continue
		}
		// A merge that fails must not hold up flushes, which give memory back to the writers of all tables.
		if err := s.mergeAll(ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.mergeAfter = time.Now().Add(maxRetry)
			s.warn("merge generations; a flush will try again", err)
		}
	}
}

// flush makes the oldest frozen memtable a generation. The order is what makes it safe: its records are durable
// and visible before a generation shows them; its files are synced before the manifest names them; the manifest is
// synced before readers see the generation, and the log is trimmed last.
func (s *shard) flush(ctx context.Context, m *memtable) error {
	last := m.rows.Load().lastLSN()
	if err := s.db.settled(ctx, last); err != nil {
		return fmt.Errorf("flush: wait for the log: %w", err)
	}
	s.db.space.need()
	number := s.man.CurrentGeneration
	meta, err := writeGeneration(ctx, s.db.st, s.table, m, number)
	meta.Number = number
	if err != nil {
		// The next attempt has a folder of its own, and a full disk has no room for the rest of this one.
		s.discard(ctx, path.Join(s.dir, meta.Path))
		return fmt.Errorf("flush generation %d: %w", number, err)
	}
	g, err := openGeneration(ctx, s.db.st, s.table, meta)
	if err != nil {
		s.discard(ctx, path.Join(s.dir, meta.Path))
		return fmt.Errorf("flush generation %d: %w", number, err)
	}
	defer g.unref()
	man, err := s.man.Commit(ctx, s.db.st, s.dir, func(n *manifest.Shard) {
		// What has this number or a higher one is from a commit that failed and stands all the same.
		n.Generations = append(below(n.Generations, number), meta)
		n.CurrentGeneration = number + 1
		n.ReplayAfter, n.LastSeen = uint64(last), uint64(last)
	})
	if err != nil {
		return fmt.Errorf("flush generation %d: %w", number, err)
	}
	s.man = man
	// The generation stands: a caller who went away must not have it made twice.
	return s.publishFlush(context.WithoutCancel(ctx), m, g, last)
}

// below returns the generations below a number.
func below(gens []manifest.Generation, number uint64) []manifest.Generation {
	return slices.DeleteFunc(gens, func(g manifest.Generation) bool { return g.Number >= number })
}

// discard removes a folder or file that a failed attempt left, or a generation that the base has. What stays is left to
// the collector.
func (s *shard) discard(ctx context.Context, name string) {
	if err := s.db.st.DeleteAll(context.WithoutCancel(ctx), name); err != nil {
		s.warn("remove what is no longer needed", err)
		s.leftMu.Lock()
		s.leftovers = append(s.leftovers, name)
		s.leftMu.Unlock()
	}
}

// publishFlush puts the generation in the memtable's place. Row numbers are the same in both, so the memtable's
// mask is the generation's; the masks of older layers take in its keys.
func (s *shard) publishFlush(ctx context.Context, m *memtable, g *generation, last LSN) error {
	var run *keyRun
	if m.codec != nil {
		run = keysAbove(m.codec, []*memRows{m.rows.Load()}, 0)
	}
	s.swap.Lock()
	defer s.swap.Unlock()
	layers := slices.Clone(s.set.Load().layers)
	for i, l := range layers {
		if l.layer == layer(m) {
			layers[i] = layerRef{layer: g, mask: l.mask}
			break
		}
		if run == nil {
			continue
		}
		cell, err := l.mask.afterFlush(ctx, last, l.layer, run)
		if err != nil {
			return err
		}
		layers[i].mask = cell
	}
	s.publish(layers)
	return nil
}

// flushAll flushes everything that was written before the call.
func (s *shard) flushAll(ctx context.Context) error {
	upTo := LSN(s.table.last.Load())
	if err := s.db.marks.wait(ctx, upTo); err != nil {
		return err
	}
	frozen := make(chan struct{})
	select {
	case s.freezes <- frozen:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-frozen:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.flushFrozen(ctx, upTo)
}

// Flush makes generations of everything that was written to a table before the call, so that the log no longer
// needs it.
func (db *DB) Flush(ctx context.Context, n TableName) error {
	return db.order(ctx, n, "flush", (*shard).flushAll)
}

// Optimize brings everything that was written to a table before the call into its base: memtables are flushed and
// generations become fragments, deletions and index segments in one commit, which other programs then see.
func (db *DB) Optimize(ctx context.Context, n TableName) error {
	return db.order(ctx, n, "optimize", (*shard).compact)
}

// order has a table's flusher do some work and waits for it.
func (db *DB) order(ctx context.Context, n TableName, act string, do func(*shard, context.Context) error) error {
	t, err := db.Table(n)
	if err != nil {
		return err
	}
	err = t.shard.order(ctx, func(ctx context.Context) error { return do(t.shard, ctx) })
	if err != nil {
		return fmt.Errorf("%s table %q: %w", act, n, err)
	}
	return nil
}

// order has the flusher do some work and waits for it.
func (s *shard) order(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.stop, func() { cancel(s.ended()) })()
	o := order{do: func() error { return do(ctx) }, done: make(chan error, 1)}
	select {
	case s.orders <- o:
		// The flusher answers each order that it took, soon after ctx ends.
		err := <-o.done
		if errors.Is(err, context.Canceled) && s.stop.Err() != nil {
			err = fmt.Errorf("%w: %w", s.ended(), err) // a store says only that it was cancelled
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ended returns why the shard's goroutines end.
func (s *shard) ended() error {
	s.table.place.Lock()
	defer s.table.place.Unlock()
	if s.table.left {
		return ErrTableNotFound
	}
	return ErrClosed
}

// compact flushes and merges, for Optimize.
func (s *shard) compact(ctx context.Context) error {
	if err := s.flushAll(ctx); err != nil {
		return err
	}
	return s.mergeAll(ctx)
}

// mergeAll merges all generations into the base.
func (s *shard) mergeAll(ctx context.Context) error {
	start := time.Now()
	s.db.space.need()
	e := OptimizeEvent{Table: s.table.name, Generations: len(s.set.Load().generations())}
	var err error
	e.Rows, err = s.merge(ctx)
	for try := 1; try < maxMergeTries && errors.Is(err, manifest.ErrConflict); try++ {
		// Another program changed the table meanwhile: everything is worked out again on what it left.
		e.Rows, err = s.merge(ctx)
	}
	e.Version, e.Duration, e.Err = s.set.Load().base().version.Number, time.Since(start), err
	if f := s.db.opt.Events.Optimize; f != nil {
		f(e)
	}
	if err == nil {
		s.db.counters.compactions.Add(1)
		s.db.litter()
	}
	return err
}
