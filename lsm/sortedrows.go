package lsm

import (
	"bytes"
	"slices"

	"github.com/flightd/flightd/internal/radix"
)

// sortedRows is the newest row of each key of a memtable, tombstones included, in key order.
type sortedRows struct {
	run *keyRun
	// rows has the row of each key of run.
	rows []uint32
}

// sortedRows returns the rows of a memtable that nobody writes any more, nil when it has no key. For keys of 64 bits the
// batches are read, not the index: they have the keys in the order of the rows, and that is mostly the order of the keys.
func (m *memtable) sortedRows() *sortedRows {
	if m.codec == nil {
		return nil
	}
	if m.codec.wide {
		return m.sortedWide()
	}
	all := m.rows.Load()
	n := int(all.rowCount()) - len(all.dead)
	keys, rows := make([]int64, 0, n), make([]uint32, 0, n)
	dead := all.deadWords()
	var scratch []int64
	for _, b := range all.batches {
		if dead == nil {
			keys = b.schema.codec.normalise(b.rec, keys).ints
			for row := range uint32(b.rec.NumRows()) {
				rows = append(rows, b.first+row)
			}
			continue
		}
		scratch = b.schema.codec.normalise(b.rec, scratch[:0]).ints
		for i, k := range scratch {
			if row := b.first + uint32(i); dead[row/64]&(1<<(row%64)) == 0 {
				keys, rows = append(keys, k), append(rows, row)
			}
		}
	}
	radix.Sort(keys, rows)
	return &sortedRows{run: &keyRun{codec: m.codec, ints: keys}, rows: rows}
}

// sortedWide is sortedRows for keys that are bytes. They are the index's own.
func (m *memtable) sortedWide() *sortedRows {
	m.mu.RLock()
	defer m.mu.RUnlock()
	type pair struct {
		key []byte
		row uint32
	}
	pairs := make([]pair, 0, m.wides.Len())
	m.wides.Each(func(k []byte, row uint32) { pairs = append(pairs, pair{k, row}) })
	slices.SortFunc(pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	s := &sortedRows{run: &keyRun{codec: m.codec, wide: make([][]byte, len(pairs))}, rows: make([]uint32, len(pairs))}
	for i, p := range pairs {
		s.run.wide[i], s.rows[i] = p.key, p.row
	}
	return s
}

// deadWords returns the rows that later rows of the prefix replaced as bits, nil when there are none.
func (r *memRows) deadWords() []uint64 {
	if len(r.dead) == 0 {
		return nil
	}
	words := make([]uint64, (r.rowCount()+63)/64)
	for _, row := range r.dead {
		words[row/64] |= 1 << (row % 64)
	}
	return words
}
