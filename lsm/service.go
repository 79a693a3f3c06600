package lsm

import (
	"context"
	"fmt"

	"github.com/flightd/flightd/manifest"
)

// start begins serving the table: its shards and its compactor run.
func (t *Table) start() {
	for _, s := range t.shards {
		s.start()
	}
	t.compactor.start()
}

// halt ends the table's goroutines and waits for them; readers still have the layers.
func (t *Table) halt() {
	t.cancel()
	t.done.Wait()
	for _, s := range t.shards {
		s.dropQueued()
	}
}

// close halts the table and lets the layers go. What is in memtables stays in the log.
func (t *Table) close() {
	t.halt()
	t.db.moment.Lock()
	set := t.set.Swap(nil)
	t.db.moment.Unlock()
	if t.pending != nil { // the next Open publishes it
		t.pending.close()
		t.pending = nil
	}
	if set != nil {
		set.unref()
	}
}

// ended returns why the table's goroutines end.
func (t *Table) ended() error {
	t.place.Lock()
	defer t.place.Unlock()
	if t.left {
		return ErrTableNotFound
	}
	return ErrClosed
}

// warn logs what went wrong without harm.
func (t *Table) warn(msg string, err error) {
	t.db.logger.Warn(msg, "table", t.name.String(), "error", err)
}

// manifestOptions are those with which the manifests of the table and its shards are read and written.
func (t *Table) manifestOptions() manifest.Options {
	return manifest.Options{ScanBatch: t.db.opt.ManifestScanBatch, Warn: t.warn, Synced: &t.synced}
}

// discard removes a folder or file that a failed attempt left, or a generation that the base has. What stays is left to
// the collector.
func (t *Table) discard(ctx context.Context, name string) {
	if err := t.db.st.DeleteAll(context.WithoutCancel(ctx), name); err != nil {
		t.warn("remove what is no longer needed", err)
		t.leftMu.Lock()
		t.leftovers = append(t.leftovers, name)
		t.leftMu.Unlock()
	}
}

// optimize brings everything into the base that was written before the call.
func (t *Table) optimize(ctx context.Context) error {
	if err := t.flushAll(ctx); err != nil {
		return err
	}
	return t.compactor.order(ctx, t.compactor.mergeAll)
}

// Optimize brings everything that was written to a table before the call into its base: memtables are flushed and
// generations become fragments, deletions and index segments in one commit, which other programs then see. After that it
// compacts the base: what the background would do in its own time.
func (db *DB) Optimize(ctx context.Context, n TableName) error {
	t, err := db.Table(n)
	if err != nil {
		return err
	}
	if err := t.refuseWrite(); err != nil && t.divided.Load() == nil {
		return fmt.Errorf("optimize: %w", err)
	}
	err = t.flushAll(ctx)
	if err == nil && t.divided.Load() != nil {
		err = t.unite(ctx)
	}
	if err == nil {
		err = t.compactor.order(ctx, t.compactor.compactAll)
	}
	if err == nil {
		err = t.optimizeVectors(ctx)
	}
	if err != nil {
		return fmt.Errorf("optimize table %q: %w", n, db.diskError(err))
	}
	return nil
}

// awaitRoom blocks until there is room for a batch on the disk, in front of the base and in memory, of which it takes some
// bytes. REQUIRES: the caller holds nothing that others wait for.
func (t *Table) awaitRoom(ctx context.Context, s *tableSchema, b Batch, bytes int64) error {
	if err := t.db.roomFor(ctx, s, b, bytes); err != nil {
		return err
	}
	if err := t.awaitMerge(ctx); err != nil {
		return fmt.Errorf("wait for a merge: %w", err)
	}
	if t.db.budget.take(bytes) {
		return nil
	}
	// Old snapshots may hold the memory for as long as they like, also that of a table that is gone.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.stop, func() { cancel(t.ended()) })()
	defer context.AfterFunc(t.db.overtaken, func() { cancel(t.db.lost()) })()
	if err := t.db.budget.wait(ctx, bytes); err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	return nil
}

// awaitMerge blocks while the table has so many generations that its writers must wait for a merge. One that cannot be
// merged does not hold them up.
func (t *Table) awaitMerge(ctx context.Context) error {
	if !t.mustMerge() {
		return nil
	}
	defer t.db.stalls.generations.begin()()
	for {
		t.stallMu.Lock()
		merged := t.merged
		t.stallMu.Unlock()
		if !t.mustMerge() {
			return nil
		}
		select {
		case <-merged:
		case <-t.stop.Done():
			return t.ended()
		case <-t.db.overtaken.Done():
			return t.db.lost()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// mustMerge reports whether writers have to wait for a merge.
func (t *Table) mustMerge() bool {
	set := t.set.Load()
	return set != nil && set.due(stallShare) && !t.compactor.failed.Load()
}

// wakeStalled lets writers look again whether they must wait.
func (t *Table) wakeStalled() {
	t.stallMu.Lock()
	defer t.stallMu.Unlock()
	close(t.merged)
	t.merged = make(chan struct{})
}
