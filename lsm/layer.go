package lsm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
)

// layer is one source of a table's rows: the base table, a generation or a memtable.
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

// layerSet is all layers of a table: the base, and for each shard the chain of layers in front of it. It is never
// changed; freezing, flushing and compacting put a new one in its place. A snapshot holds one, and thereby everything in
// it.
type layerSet struct {
	refs   atomic.Int64
	base   *base
	chains []*chain // by the number of the shard
}

// newLayerSet returns a set with one reference. It takes references of its own on the base and the chains.
func newLayerSet(b *base, chains []*chain) *layerSet {
	s := &layerSet{base: b, chains: chains}
	s.refs.Store(1)
	b.retain()
	for _, c := range chains {
		c.refs.Add(1)
	}
	return s
}

func (s *layerSet) retain() { s.refs.Add(1) }

func (s *layerSet) unref() {
	if s.refs.Add(-1) > 0 {
		return
	}
	s.base.unref()
	for _, c := range s.chains {
		c.unref()
	}
}

// replaced returns the rows of a fragment of the base that generations replaced.
func (s *layerSet) replaced(fragment uint64) []*roaring.Bitmap {
	var out []*roaring.Bitmap
	for _, c := range s.chains {
		if dead := c.replaced.flushed.fragment(fragment); dead != nil {
			out = append(out, dead)
		}
	}
	return out
}

// with returns the chains with another in the place of one.
func (s *layerSet) with(shard int, c *chain) []*chain {
	chains := slices.Clone(s.chains)
	chains[shard] = c
	return chains
}

// generations returns how many there are in all chains, and in the longest.
func (s *layerSet) generations() (all, most int) {
	for _, c := range s.chains {
		n := len(c.generations())
		all, most = all+n, max(most, n)
	}
	return all, most
}

// generationBytes returns about what the generations take on disk.
func (s *layerSet) generationBytes() (sum int64) {
	for _, c := range s.chains {
		for _, l := range c.generations() {
			sum += l.layer.(*generation).bytes
		}
	}
	return sum
}

// chain is the layers of a shard in front of the base, oldest first: the generations, the frozen memtables, the active
// memtable. It is never changed, and is part of every layer set until the shard has another one.
type chain struct {
	refs   atomic.Int64
	layers []layerRef
	// replaced is the mask of the base's rows whose keys are in the chain. The keys of no other chain are in it, so the
	// masks of the chains do not depend on each other, and each is as of its own last flush.
	replaced *maskCell
	// flushed is the LSN up to which generations and base have everything of the shard.
	flushed LSN
}

// newChain returns a chain with one reference. It takes a reference of its own on each layer.
func newChain(layers []layerRef, replaced *maskCell, flushed LSN) *chain {
	c := &chain{layers: layers, replaced: replaced, flushed: flushed}
	c.refs.Store(1)
	for _, l := range layers {
		l.retain()
	}
	return c
}

func (c *chain) unref() {
	if c.refs.Add(-1) > 0 {
		return
	}
	for _, l := range c.layers {
		l.unref()
	}
}

// active returns the memtable that is being written.
func (c *chain) active() *memtable { return c.layers[len(c.layers)-1].layer.(*memtable) }

// generations returns the generations, oldest first. Each batch that comes asks how many there are.
func (c *chain) generations() []layerRef {
	n := len(c.layers)
	for n > 0 {
		if _, ok := c.layers[n-1].layer.(*memtable); !ok {
			break
		}
		n--
	}
	return c.layers[:n]
}

// newest returns the number of the newest generation, 0 when there is none.
func (c *chain) newest() uint64 {
	gens := c.generations()
	if len(gens) == 0 {
		return 0
	}
	return gens[len(gens)-1].layer.(*generation).number
}

// memtables returns the memtables, oldest first.
func (c *chain) memtables() []*memtable { return c.memtablesAfter(-1) }

// memtablesAfter returns the memtables behind layer i, oldest first.
func (c *chain) memtablesAfter(i int) []*memtable {
	var out []*memtable
	for _, l := range c.layers[i+1:] {
		if m, ok := l.layer.(*memtable); ok {
			out = append(out, m)
		}
	}
	return out
}

// frozen returns the memtables that wait for their flush, oldest first.
func (c *chain) frozen() []*memtable {
	m := c.memtables()
	return m[:len(m)-1]
}

// maskCell holds the mask of one layer, in one or more layer sets, by the keys of one chain.
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
