package wal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"

	"github.com/flightd/flightd/object"
)

// ErrSeveralShards is returned by Bucket.Append for records of several shards: an entry is one shard's, and what is in
// two entries is not there together after a crash.
var ErrSeveralShards = errors.New("records of several shards cannot be logged together in a bucket")

// ErrSeveralSchemas is returned by Bucket.Append for batches of several schemas: an entry has the rows of one.
var ErrSeveralSchemas = errors.New("batches of several schemas cannot be logged together in a bucket")

const (
	// defaultEntryBytes is the size at which a group takes no more calls: large enough that the round trip of a bucket
	// counts for little, small enough to be read back as a whole.
	defaultEntryBytes = 16 << 20
	// defaultRetries and defaultRetryDelay are for calls that failed: the answers of a bucket that is busy. The delay
	// doubles each time.
	defaultRetries    = 5
	defaultRetryDelay = 50 * time.Millisecond
)

// BucketOptions configure a Bucket. The zero value of each field is its default, except for Store, Epoch and Rows.
type BucketOptions struct {
	// Store has the streams.
	Store object.Store
	// Epoch is that of the LSNs. No process before had it, nor a higher one.
	Epoch uint64
	// Rows returns the rows of a batch, with the column for tombstones last, which the log releases. It is called by the
	// log goroutine, before Append returns.
	Rows func(*Record) (arrow.RecordBatch, error)
	// EntryBytes is the size at which a group takes no more calls. Default 16 MiB.
	EntryBytes int64
	// Interval is how long buffered records may stay in memory when nobody waits. Default 100 ms.
	Interval time.Duration
	// Retries is how often a call that failed is tried again, RetryDelay how long after. Defaults 5 and 50 ms, which
	// doubles each time.
	Retries    int
	RetryDelay time.Duration
	// Appended, Durable, Poisoned and Logger are those of Options; Checkpoint is called by the log goroutine for
	// Position, when what it gives free has news of keys. None of them is called under a lock.
	Appended   func(recs []*Record)
	Durable    func(LSN)
	Checkpoint func() *Record
	Poisoned   func(error)
	Logger     *slog.Logger
}

// validate fills in defaults and refuses what cannot be.
func (o *BucketOptions) validate() error {
	if o.Store == nil || o.Rows == nil || o.Epoch == 0 || o.Epoch > maxEpoch {
		return fmt.Errorf("wal: BucketOptions need Store, Rows and an Epoch from 1 to %d", uint64(maxEpoch))
	}
	if o.EntryBytes <= 0 {
		o.EntryBytes = defaultEntryBytes
	}
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.Retries <= 0 {
		o.Retries = defaultRetries
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = defaultRetryDelay
	}
	if o.Appended == nil {
		o.Appended = func([]*Record) {}
	}
	if o.Durable == nil {
		o.Durable = func(LSN) {}
	}
	if o.Checkpoint == nil {
		o.Checkpoint = func() *Record { return nil }
	}
	if o.Poisoned == nil {
		o.Poisoned = func(error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Bucket is the log in a store: one object for each commit group and shard, in the layout of Lance's MemWAL.
//
// The log goroutine gives LSNs for all streams, encodes records into the open group and calls Options.Appended. The put
// goroutine takes a group, puts its entries, one for each stream, at the same time, the catalog's last, and when all are
// stored everything up to the group's end is durable: groups are stored one after the other, so the durable position is a prefix. While one
// is on its way, the next one grows.
//
// INVARIANT: the entry at a position is stored before the next one of its stream is begun. A stream has no gaps.
type Bucket struct {
	opts              BucketOptions
	appended, durable atomic.Uint64
	// next is the LSN that the next record gets. It belongs to the log goroutine.
	next LSN

	// logWork wakes the log goroutine. It is the only one that waits for it.
	logWork sync.Cond
	full    chan *bucketGroup
	done    sync.WaitGroup
	closing sync.Once
	// trimming is held by Trim.
	trimming sync.Mutex

	mu struct {
		sync.Mutex
		streams map[uuid.UUID]*Stream
		pending []*call
		waiters []*waiter
		// open is the group that grows, nil when nothing is in it. Only the log goroutine writes to it.
		open *bucketGroup
		// cut tells that open takes no more.
		cut bool
		// busy tells that the put goroutine has a group.
		busy bool
		// wanted is the LSN that somebody waits for, lapsed tells that the interval of open has passed.
		wanted LSN
		lapsed bool
		disarm func() bool
		err    error
		closed bool
	}
}

var _ Log = (*Bucket)(nil)

// bucketGroup is what is stored at once.
type bucketGroup struct {
	entries map[*Stream]*entry
	last    LSN
	bytes   int64
	// strict is true when a record is not buffered.
	strict bool
}

// OpenBucket begins a log. Its streams are added by Attach.
func OpenBucket(o BucketOptions) (*Bucket, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	b := &Bucket{opts: o, next: newLSN(o.Epoch, 1), full: make(chan *bucketGroup, 1)}
	b.appended.Store(uint64(newLSN(o.Epoch, 0))) // what has a lower epoch was replayed, so it is stored
	b.durable.Store(uint64(newLSN(o.Epoch, 0)))
	b.mu.streams = make(map[uuid.UUID]*Stream)
	b.logWork.L = &b.mu
	b.done.Add(2)
	go b.logLoop()
	go b.putLoop()
	return b, nil
}

// Attach adds a stream, which was fenced and replayed, and belongs to the log from now on.
func (b *Bucket) Attach(s *Stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.streams[s.ID] = s
}

// Detach takes a stream out. REQUIRES: nothing is appended to it any more, and what was appended is durable.
func (b *Bucket) Detach(id uuid.UUID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mu.streams, id)
}

// Position returns the position of the last entry of a stream of which nothing is needed when everything up to an LSN is
// not: what a manifest may tell readers to begin behind. What these entries say of idempotency keys is in the catalog's
// stream when it returns, as no replay reads it where it was from then on.
func (b *Bucket) Position(id uuid.UUID, lsn LSN) (uint64, error) {
	b.mu.Lock()
	s, catalog := b.mu.streams[id], b.mu.streams[uuid.Nil]
	if s == nil {
		b.mu.Unlock()
		return 0, fmt.Errorf("find a position in the log: shard %s has no stream", id)
	}
	position, keys := s.covered(min(lsn, b.DurableLSN()))
	known := catalog == nil || catalog.checked.checkpoint >= keys
	b.mu.Unlock()
	if !known {
		if err := b.checkpoint(); err != nil {
			return 0, fmt.Errorf("write the idempotency keys: %w", err)
		}
	}
	return position, nil
}

// Release says that a manifest that no rival can have missed tells readers to begin behind a position, which Position gave,
// so that Trim may remove what is at or below it. generation is the number of the memtable that is written now.
func (b *Bucket) Release(id uuid.UUID, position, generation uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.mu.streams[id]; s != nil {
		s.floor = max(s.floor, position)
		s.Generation.Store(generation)
	}
}

// Append implements Log. All records must be of one shard; those that come with DDL go to the catalog's stream.
func (b *Bucket) Append(ctx context.Context, recs ...*Record) (LSN, error) {
	c, err := newCall(recs)
	if err != nil {
		return 0, err
	}
	c.answers()
	if err := b.queue(c); err != nil {
		c.free()
		return 0, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if b.withdraw(c) {
			c.free()
			return 0, context.Cause(ctx)
		}
		<-c.done
	}
	last, err := c.last, c.err
	c.free()
	return last, err
}

// Send implements Log.
func (b *Bucket) Send(order *Order, receipt Receipt, recs ...*Record) error {
	c, err := newCall(recs)
	if err != nil {
		return err
	}
	c.receipt, c.order = receipt, order
	if err := b.queue(c); err != nil {
		c.free()
		return err
	}
	return nil
}

func (b *Bucket) queue(c *call) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.mu.err != nil:
		return b.mu.err
	case b.mu.closed:
		return ErrClosed
	}
	b.mu.pending = append(b.mu.pending, c)
	b.logWork.Signal()
	return nil
}

// withdraw takes a call back unless the log goroutine has it already.
func (b *Bucket) withdraw(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.mu.pending, c)
	if i < 0 {
		return false
	}
	b.mu.pending = slices.Delete(b.mu.pending, i, i+1)
	return true
}

// AppendedLSN implements Log.
func (b *Bucket) AppendedLSN() LSN { return LSN(b.appended.Load()) }

// DurableLSN implements Log.
func (b *Bucket) DurableLSN() LSN { return LSN(b.durable.Load()) }

// WaitDurable implements Log. LSNs of epochs before are durable: a replay gave them.
func (b *Bucket) WaitDurable(ctx context.Context, lsn LSN) error {
	if lsn.Epoch() < b.opts.Epoch || b.DurableLSN() >= lsn {
		return nil
	}
	w := waiters.Get().(*waiter)
	w.lsn, w.err = lsn, nil
	if wait, err := b.enlist(w); !wait {
		waiters.Put(w)
		return err
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		if b.delist(w) {
			waiters.Put(w)
			return context.Cause(ctx)
		}
		<-w.done
	}
	err := w.err
	waiters.Put(w)
	return err
}

func (b *Bucket) enlist(w *waiter) (wait bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.DurableLSN() >= w.lsn:
		return false, nil
	case b.mu.err != nil:
		return false, b.mu.err
	case b.mu.closed && b.AppendedLSN() < w.lsn:
		return false, ErrClosed
	}
	b.mu.waiters = append(b.mu.waiters, w)
	b.mu.wanted = max(b.mu.wanted, w.lsn)
	b.logWork.Signal()
	return true, nil
}

func (b *Bucket) delist(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.mu.waiters, w)
	if i < 0 {
		return false
	}
	b.mu.waiters = slices.Delete(b.mu.waiters, i, i+1)
	return true
}

// Err implements Log.
func (b *Bucket) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.err
}

// Poison ends all writing, once, as a failure of the log itself does: a manifest may be what tells that another process
// has taken a shard over.
func (b *Bucket) Poison(cause error) {
	b.mu.Lock()
	if b.mu.err != nil {
		b.mu.Unlock()
		return
	}
	err := fmt.Errorf("%w: %w", ErrPoisoned, cause)
	b.mu.err = err
	waiting := b.mu.waiters
	b.mu.waiters = nil
	b.logWork.Signal()
	b.mu.Unlock()
	answer(waiting, err)
	b.opts.Poisoned(err)
}

// Close implements Log. It stores what was appended.
func (b *Bucket) Close() error {
	b.closing.Do(func() {
		b.mu.Lock()
		b.mu.closed = true
		b.logWork.Signal()
		b.mu.Unlock()
		b.done.Wait()
		b.mu.Lock()
		waiting := b.mu.waiters
		b.mu.waiters = nil
		if b.mu.disarm != nil {
			b.mu.disarm()
		}
		b.mu.Unlock()
		answer(waiting, ErrClosed)
	})
	return b.Err()
}
