package lsm

import (
	"slices"
)

// A table's layer set is replaced by the appliers of its shards (freeze), by their flushers (flush), by the compactor
// (all that changes the base) and by whoever publishes a stage. Each works out, without a lock, what its new layers are,
// which may take long, and then puts them in under Table.swap if those that they stand on are still there; else it
// works them out again. That ends: of each chain only its flusher and stages, of which there is one at a time, add
// generations; and only merges and other programs' commits change the base.

// holdSet returns the layers that readers see now, with a reference that the caller drops; nil when the table is closed.
func (t *Table) holdSet() *layerSet {
	t.db.moment.Lock()
	defer t.db.moment.Unlock()
	set := t.set.Load()
	if set != nil {
		set.retain()
	}
	return set
}

// holdStored is holdSet without the memtables. What takes long and needs none, a merge or an index build, holds this: else
// the memory of every memtable that is flushed meanwhile would come back only with its end, and writers wait for that.
func (t *Table) holdStored() *layerSet {
	set := t.holdSet()
	if set == nil {
		return nil
	}
	defer set.unref()
	chains := make([]*chain, len(set.chains))
	for i, c := range set.chains {
		chains[i] = newChain(c.generations(), c.replaced, c.flushed)
		defer chains[i].unref() // the set has its own reference
	}
	return newLayerSet(set.base, chains)
}

// publish makes a new set of layers what readers see from now on. REQUIRES: t.swap is held, or nobody else runs.
func (t *Table) publish(b *base, chains []*chain) { t.publishAs(b, chains, nil) }

// publishAs is publish at the moment at which the table gets another schema, unless that is nil.
func (t *Table) publishAs(b *base, chains []*chain, schema *tableSchema) {
	next := newLayerSet(b, chains)
	t.db.moment.Lock()
	if schema != nil {
		t.setSchemaLocked(schema)
	}
	old := t.set.Swap(next)
	if old != nil && old.base != b && !old.base.sameIndexes(b) {
		t.db.version.Add(1) // statements that were planned by others are planned anew
	}
	t.db.moment.Unlock()
	if old == nil {
		return
	}
	for i, c := range old.chains {
		if next.chains[i] == c {
			continue
		}
		now := next.chains[i].memtables()
		for _, m := range c.memtables() {
			if !slices.Contains(now, m) {
				m.retire()
			}
		}
	}
	old.unref()
}

// sameGenerations reports whether two chains have the same generations.
func sameGenerations(a, b *chain) bool {
	return slices.EqualFunc(a.generations(), b.generations(), func(x, y layerRef) bool { return x.layer == y.layer })
}

// grown returns the chain that follows another when its generations, and with them the mask of the base, have become
// others: the memtables from a place on stay.
func (c *chain) grown(gens []layerRef, from int, replaced *maskCell, flushed LSN) *chain {
	memtables := c.layers[len(c.generations())+from:]
	return newChain(slices.Concat(gens, memtables), replaced, flushed)
}

// unflushed returns the lowest LSN whose content only the log makes part of the table, and whether there is one.
func (t *Table) unflushed() (LSN, bool) {
	set := t.holdSet()
	if set == nil {
		return 0, false
	}
	defer set.unref()
	if staged := LSN(t.staged.Load()); staged > 0 { // all that came before it is flushed
		return staged, true
	}
	least := LSN(0)
	for _, c := range set.chains {
		for _, m := range c.memtables() {
			if lsn := m.rows.Load().firstLSN(); lsn > 0 {
				if least == 0 || lsn < least {
					least = lsn
				}
				break
			}
		}
	}
	return least, least > 0
}
