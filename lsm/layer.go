package lsm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// layer is one source of a shard's rows: the base table, a generation or a memtable.
type layer interface {
	// retain and unref count references; the last unref frees the layer.
	retain()
	unref()
	// resolve calls mark for each row, by fragment and row number, that holds one of the keys.
	resolve(ctx context.Context, run *keyRun, mark func(fragment uint64, row uint32)) error
	// lookup calls fn for each row that an index finds for a key of the run, with the key's place in it, as of an LSN.
	// Of a key, a memtable has one row, the newest; fragments of the base that no index covers are left out.
	lookup(ctx context.Context, run *keyRun, lsn LSN, fn func(key int, fragment uint64, row uint32)) error
}

// layerRef is a layer with the mask of its replaced rows.
type layerRef struct {
	layer
	mask *maskCell
}

// layerSet is the layers of a shard, oldest first: the base table, the generations, the frozen memtables, the
// active memtable. It is never changed; freezing, flushing and compacting put a new one in its place. A snapshot
// holds one, and thereby everything in it.
type layerSet struct {
	refs   atomic.Int64
	layers []layerRef
}

// newLayerSet returns a set with one reference. It takes a reference of its own on each layer.
func newLayerSet(layers []layerRef) *layerSet {
	s := &layerSet{layers: layers}
	s.refs.Store(1)
	for _, l := range layers {
		l.retain()
	}
	return s
}

func (s *layerSet) retain() { s.refs.Add(1) }

func (s *layerSet) unref() {
	if s.refs.Add(-1) > 0 {
		return
	}
	for _, l := range s.layers {
		l.unref()
	}
}

// active returns the memtable that is being written.
func (s *layerSet) active() *memtable { return s.layers[len(s.layers)-1].layer.(*memtable) }

// base returns the base table.
func (s *layerSet) base() *base { return s.layers[0].layer.(*base) }

// generations returns the generations, oldest first.
func (s *layerSet) generations() []layerRef {
	return s.layers[1 : len(s.layers)-len(s.memtablesAfter(0))]
}

// memtablesAfter returns the memtables behind layer i, oldest first.
func (s *layerSet) memtablesAfter(i int) []*memtable {
	var out []*memtable
	for _, l := range s.layers[i+1:] {
		if m, ok := l.layer.(*memtable); ok {
			out = append(out, m)
		}
	}
	return out
}

// frozen returns the memtables that wait for their flush, oldest first.
func (s *layerSet) frozen() []*memtable {
	m := s.memtablesAfter(0)
	return m[:len(m)-1]
}

// maskCell holds the mask of one layer in one or more layer sets.
type maskCell struct {
	// flushed is the mask as of the newest flush: every key of a newer generation is in it. It does not change.
	flushed *rowMask

	// mu guards newest, and is held while a mask is extended, so that two queries do not do the same work: it
	// comes after no other lock, and nothing but reads of key indexes happens under it.
	mu sync.Mutex
	// newest is the furthest extension so far.
	newest *rowMask
}

// newMaskCell returns a cell that starts with a mask.
func newMaskCell(m *rowMask) *maskCell { return &maskCell{flushed: m, newest: m} }

// at returns the mask as of an LSN. keys returns the keys that newer memtables took between two LSNs.
func (c *maskCell) at(ctx context.Context, lsn LSN, l layer, keys func(above LSN) *keyRun) (*rowMask, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := c.newest
	if start.upTo > lsn {
		start = c.flushed // an older snapshot; what newer ones found is too much for it
	}
	if start.upTo >= lsn {
		return start, nil
	}
	m, err := extendMask(ctx, start, lsn, l, keys(start.upTo))
	if err != nil {
		return nil, err
	}
	if m.upTo > c.newest.upTo {
		c.newest = m
	}
	return m, nil
}

// afterFlush returns the cell of the same layer in the set that follows a flush whose keys, up to an LSN, are run.
func (c *maskCell) afterFlush(ctx context.Context, lsn LSN, l layer, run *keyRun) (*maskCell, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := extendMask(ctx, c.flushed, lsn, l, run)
	if err != nil {
		return nil, err
	}
	next := newMaskCell(m)
	if c.newest.upTo > lsn {
		next.newest = c.newest
	}
	return next, nil
}

// extendMask returns a mask with the rows of a run's keys added, as of an LSN.
func extendMask(ctx context.Context, m *rowMask, lsn LSN, l layer, run *keyRun) (*rowMask, error) {
	b := maskBuilder{base: m}
	if run.Len() > 0 {
		if err := l.resolve(ctx, run, b.add); err != nil {
			return nil, fmt.Errorf("find replaced rows: %w", err)
		}
	}
	return b.finish(lsn), nil
}
