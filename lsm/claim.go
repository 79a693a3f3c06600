package lsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lsm/wal"
)

// Request names a request that its client may send several times and wants applied once.
type Request struct {
	// User is whose request it is, empty for one who did not say.
	User string
	// Key is the client's name for it: a key means something for one user and one incarnation of a table.
	Key string
	// Resume says that the request's batches are applied as they come, by one stream after the other, each of which
	// goes on where the one before ended. Else they are a stage.
	Resume bool
}

// claimName is what only one stream may work on at a time. It has the table's name and not its incarnation, since the
// request may be the one that makes the table.
type claimName struct {
	table, user, key string // the table's name is folded
}

// Claim is the right of one stream to apply a request. Everything that is applied under the key is applied under a
// claim, so nothing is applied twice. It is for one goroutine, but for Fenced.
type Claim struct {
	db      *DB
	name    claimName
	table   TableName
	request Request
	// schema is the fingerprint of the stream, once Answer was told its schema.
	schema uint64
	// fenced is closed when another stream wants the claim, released when it can have it; isFenced and isReleased say
	// that they are, and are guarded by ledger.mu.
	fenced, released     chan struct{}
	isFenced, isReleased bool
}

// Claim takes the right to apply a request to the table of a name, which need not exist yet. When another stream has
// it, that is ErrKeyBusy; but a stream that resumes takes the place of one that resumed before, of which the client
// may know better than we that it is gone: that one is fenced, and Claim waits until it has let go.
func (db *DB) Claim(ctx context.Context, table TableName, r Request) (*Claim, error) {
	if r.Key == "" || len(r.Key) > maxKeyText || len(r.User) > maxKeyText {
		return nil, fmt.Errorf("%w idempotency key: it has %d bytes, want 1 to %d", ErrInvalid, len(r.Key), maxKeyText)
	}
	c := &Claim{db: db, table: table, request: r, fenced: make(chan struct{}), released: make(chan struct{}),
		name: claimName{table: table.fold(), user: r.User, key: r.Key}}
	for {
		holder := db.ledger.claim(c)
		if holder == nil {
			return c, nil
		}
		if !r.Resume || !holder.request.Resume {
			return nil, fmt.Errorf("idempotency key %q of table %q: %w; send it again later", r.Key, table, ErrKeyBusy)
		}
		select {
		case <-holder.released:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// claim makes a claim the one of its name, or returns the one that is, which it fences if both resume.
func (l *ledger) claim(c *Claim) *Claim {
	l.mu.Lock()
	defer l.mu.Unlock()
	holder := l.claims[c.name]
	if holder == nil {
		l.claims[c.name] = c
		return nil
	}
	if c.request.Resume && holder.request.Resume && !holder.isFenced {
		holder.isFenced = true
		close(holder.fenced)
	}
	return holder
}

// Release gives the claim up. What was logged under it stays. A second call does nothing.
func (c *Claim) Release() {
	l := c.db.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.isReleased {
		c.isReleased = true
		delete(l.claims, c.name)
		close(c.released)
	}
}

// Fenced returns a channel that is closed when another stream wants to go on with the request: its holder should stop.
func (c *Claim) Fenced() <-chan struct{} { return c.fenced }

// Answer returns what came of the request so far, durable and visible; the zero Answer when nothing is known of it.
// schema is that of the stream; nil if it is not known yet, and then Answer must be called again with it. A request
// that came with another schema before is ErrInvalid, and so is one that was begun with Resume and goes on without.
func (c *Claim) Answer(ctx context.Context, schema *arrow.Schema) (Answer, error) {
	if schema != nil {
		c.schema = fingerprint(schema)
	}
	t, err := c.db.Table(c.table)
	if errors.Is(err, ErrTableNotFound) {
		return Answer{}, nil
	}
	if err != nil {
		return Answer{}, err
	}
	e, ok := c.db.ledger.find(c.scope(t))
	if !ok {
		return Answer{}, nil
	}
	switch {
	case schema != nil && c.schema != e.schema:
		return Answer{}, fmt.Errorf("%w idempotency key %q of table %q: it came with another schema before; "+
			"a request that is sent again must be the same, and another one needs a key of its own", ErrInvalid, c.request.Key, t.name)
	case !e.Complete && !c.request.Resume:
		return Answer{}, fmt.Errorf("%w idempotency key %q of table %q: streams with resume have stored %d rows under it and are not at the end; "+
			"go on with resume", ErrInvalid, c.request.Key, t.name, e.Rows)
	}
	// It is in the log; whether it is durable decides whether it is true.
	if err := c.db.Wait(ctx, e.Seq); err != nil {
		return Answer{}, err
	}
	if staged := LSN(t.staged.Load()); staged > 0 && staged <= e.Seq {
		return Answer{}, fmt.Errorf("idempotency key %q of table %q: %w; its rows are stored and not published yet, send it again later",
			c.request.Key, t.name, ErrKeyBusy)
	}
	return e.Answer, nil
}

// scope returns where the claim's key is remembered.
func (c *Claim) scope(t *Table) keyScope {
	return keyScope{incarnation: t.entry.Incarnation, user: c.request.User, key: c.request.Key}
}

// news returns the record that tells what the request has come to, to be logged in one group with what it speaks of.
func (c *Claim) news(t *Table, a Answer) *wal.Record {
	a.Seq = 0 // the record's own
	e := &keyEntry{keyScope: c.scope(t), Answer: a, schema: c.schema, at: c.db.ledger.now().UnixMilli()}
	return &wal.Record{Kind: wal.Idempotency, Shard: t.entry.Shard, Incarnation: t.entry.Incarnation,
		Body: [][]byte{encodeKeys(false, e)}, Value: e}
}

// Put is Table.Put of a batch of a request with Resume. so is what the request has come to with this batch; it is
// stored with it, in one.
func (c *Claim) Put(ctx context.Context, t *Table, b Batch, so Answer) (LSN, error) {
	if b.Record.NumRows() == 0 {
		return LSN(t.last.Load()), nil
	}
	return t.put(ctx, b, c.news(t, so))
}

// Finish says that a request with Resume is complete, and returns the LSN at which that is so.
func (c *Claim) Finish(ctx context.Context, t *Table, so Answer) (LSN, error) {
	so.Complete = true
	if err := t.writes.rlock(ctx); err != nil {
		return 0, fmt.Errorf("table %q: wait for a statement: %w", t.name, err)
	}
	defer t.writes.runlock()
	if t.dropped {
		return 0, fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	lsn, err := t.db.log.Append(ctx, c.news(t, so))
	if err != nil {
		return 0, fmt.Errorf("table %q: log the end of a stream: %w", t.name, logError(err))
	}
	return lsn, nil
}
