package query

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Partitions is a query that was cut into parts, which are read apart, each as often as one likes, and together are
// its result as of one moment. It holds the snapshot of that moment until Release. It is safe for concurrent use.
type Partitions struct {
	st    *Statement
	table tableInfo
	count int
	// keys are those of the rows that the query needs, nil for all: one set for all parts, as what a part has depends
	// on them, and a later look at the plan may find others.
	keys *scanFilter

	mu       sync.Mutex
	snap     snapshot
	users    int  // results that read from the snapshot
	released bool // no more of them; the last one releases the snapshot
}

// Partition cuts a query into parts that each read about the given number of rows of its table, at most so many parts.
// It returns nil when it reads fewer rows than two parts would, and when parts of the table would not give parts of the result: only
// filters and expressions over one table do, whose rows come in no order. Whoever gets Partitions releases them.
func (st *Statement) Partition(ctx context.Context, rows int64, most int) (*Partitions, error) {
	if st.parsed.kind != kindSelect || st.parsed.isTravelling() || st.dataset == nil || st.params.NumFields() > 0 {
		return nil, nil
	}
	l, err := st.e.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer l.release()
	snap, err := st.e.store.snapshot(ctx)
	if err != nil {
		return nil, engineError(err)
	}
	p, err := st.partition(ctx, l, snap, rows, most)
	if p == nil || err != nil {
		snap.release()
	}
	if errors.Is(err, errTableChanged) || errors.Is(err, errRestarted) {
		return nil, nil // the statement is then run as it is
	}
	return p, err
}

// partition is Partition over a snapshot, which the Partitions take over.
func (st *Statement) partition(ctx context.Context, l *lease, snap snapshot, rows int64, most int) (*Partitions, error) {
	if snap.catalogVersion() != l.version || !st.mentionsLarge(l, snap, 2*rows) {
		return nil, nil
	}
	plan, err := planOf(&l.shadow, st.parsed.sql)
	if err != nil || plan == nil {
		return nil, err
	}
	name, ok := plan.onlyTable()
	table, known := l.query.tables[name]
	if !ok || !known || isSystem(table.schema) {
		return nil, nil
	}
	reads, keys, err := st.reads(ctx, snap, table)
	if err != nil {
		return nil, err
	}
	count := min(reads/max(rows, 1), int64(most))
	if count < 2 {
		return nil, nil
	}
	snap.keep([]tableInfo{table})
	return &Partitions{st: st, table: table, count: int(count), keys: keys, snap: snap}, nil
}

// reads is an upper bound of the rows of the table that the query reads, and their keys.
func (st *Statement) reads(ctx context.Context, snap snapshot, table tableInfo) (int64, *scanFilter, error) {
	r := newResult(ctx, st)
	defer r.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(ctx, st, run{snap: snap}); err != nil {
		return 0, nil, engineError(err)
	}
	var keys *scanFilter
	if h := r.hintsOf(1, run{}); h != nil {
		for _, f := range h.filters(r.lease, nil) {
			keys = f // there is one scan
		}
	}
	src, err := snap.table(table.schema, table.name)
	if err != nil {
		return 0, nil, engineError(err)
	}
	n, err := src.reads(ctx, keys)
	return n, keys, engineError(err)
}

// mentionsLarge says whether the text has the name of a table of so many rows: asking for the plan takes longer.
func (st *Statement) mentionsLarge(l *lease, snap snapshot, rows int64) bool {
	for _, t := range mentioned(l.query.tables, st.parsed) {
		if isSystem(t.schema) {
			continue // few rows, and in no snapshot of the engine
		}
		if src, err := snap.table(t.schema, t.name); err == nil && src.rows() >= rows {
			return true
		}
	}
	return false
}

// onlyTable returns the folded name of the one table of a plan that has nothing but filters and expressions over it.
func (n *planNode) onlyTable() (string, bool) {
	switch n.Type {
	case "LOGICAL_GET":
		return fold(n.FunctionData.Schema, n.FunctionData.Table), n.FunctionData.Table != ""
	case "LOGICAL_PROJECTION", "LOGICAL_FILTER":
		if len(n.Children) == 1 {
			return n.Children[0].onlyTable()
		}
	}
	return "", false
}

// Count returns the number of parts.
func (p *Partitions) Count() int { return p.count }

// Query runs the query over one part, from 0. The result may outlive Release.
func (p *Partitions) Query(ctx context.Context, part int) (*Result, error) {
	if part < 0 || part >= p.count {
		return nil, errorf(InvalidArgument, "part %d of %d does not exist", part, p.count)
	}
	ctx, active := p.st.e.activity.begin(ctx, p.st, "query")
	for attempt := 0; ; attempt++ {
		snap, err := p.use()
		if err != nil {
			active.end()
			return nil, err
		}
		r, err := p.st.start(ctx, run{snap: partSnapshot{snap, p, part}, part: p, wire: true})
		if errors.Is(err, errRestarted) && attempt < 2 {
			continue
		}
		if err != nil {
			err = timedOut(ctx, err)
			active.end()
			return nil, err
		}
		r.activate(active)
		return r, nil
	}
}

// use returns the snapshot, which leave gives up.
func (p *Partitions) use() (snapshot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return nil, errorf(NotFound, "the parts of the query were released")
	}
	p.users++
	return p.snap, nil
}

// leave gives up what use counted.
func (p *Partitions) leave() {
	p.mu.Lock()
	p.users--
	last := p.released && p.users == 0
	p.mu.Unlock()
	if last {
		p.snap.release()
	}
}

// Release ends the parts. Results that are being read go on.
func (p *Partitions) Release() {
	p.mu.Lock()
	last := !p.released && p.users == 0
	p.released = true
	p.mu.Unlock()
	if last {
		p.snap.release()
	}
}

// check says whether the table still is what it was, as the catalogs have it that the parts run in.
func (p *Partitions) check(l *lease) error {
	now, ok := l.query.tables[fold(p.table.schema, p.table.name)]
	if !ok || now.incarnation != p.table.incarnation || !now.arrow.Equal(p.table.arrow) {
		return errorf(FailedPrecondition, "table %q was dropped, replaced or altered since the query was cut into parts; run it again", p.table.name)
	}
	return nil
}

// A partSnapshot is the snapshot of Partitions as one part sees it.
type partSnapshot struct {
	snapshot
	p    *Partitions
	part int
}

func (s partSnapshot) table(schema, name string) (tableSource, error) {
	src, err := s.snapshot.table(schema, name)
	if err != nil {
		return nil, fmt.Errorf("part %d: %w", s.part, err)
	}
	return src.piece(s.part, s.p.count, s.p.keys), nil
}

func (partSnapshot) keep([]tableInfo) {}

func (s partSnapshot) release() { s.p.leave() }
