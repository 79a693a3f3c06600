package lsm

import (
	"context"
	"fmt"
)

// supersedeBatch is how many keys are looked for in older layers at a time.
const supersedeBatch = 1 << 16

// supersede calls mark for each row whose key a newer generation has: layer counts through older and then gens, both
// oldest first. What older layers replaced among themselves is known already. At least batch keys at a time are looked
// for in the older layers.
//
// All keys of the generations are merged once, so the cost is that of the merge and of one search for each distinct
// key in each older layer whose range it lies in. (To search each generation's keys in every layer below it would
// be quadratic: a load of 10 GB has 300 generations.)
func supersede(ctx context.Context, codec *keyCodec, older []layer, gens []*generation, batch int, mark func(layer int, fragment uint64, row uint32)) error {
	if codec == nil || len(gens) == 0 {
		return nil
	}
	var sources []*keySource
	defer func() {
		for _, s := range sources {
			s.close()
		}
	}()
	for _, g := range gens {
		sources = append(sources, newKeySource(ctx, codec, g.keys))
	}
	m := &supersedeMerge{older: older, batch: batch, mark: mark, keys: keyBuffer{codec: codec}}
	err := mergeKeys(sources, func(s *keySource, from, to int) error { return m.add(ctx, s, from, to) })
	if err == nil {
		err = m.flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("find the rows that generations from %d on replaced: %w", gens[0].number, err)
	}
	return nil
}

// supersedeMerge is the state of supersede.
type supersedeMerge struct {
	older []layer
	batch int // how many keys are looked for at a time
	mark  func(layer int, fragment uint64, row uint32)
	// keys are the distinct keys that are not yet looked for in the older layers.
	keys keyBuffer
	// layer and row are of the newest row, so far, of the last key in keys.
	layer int
	row   uint32
}

// add takes entries in key order. Those of a generation have distinct keys, so only the first can equal the last
// key before.
func (m *supersedeMerge) add(ctx context.Context, s *keySource, from, to int) error {
	if m.keys.len() >= m.batch && !m.repeats(s, from) {
		if err := m.flush(ctx); err != nil {
			return err
		}
	}
	for i := from; i < to; i++ {
		if i == from && m.repeats(s, i) {
			m.mark(m.layer, 0, m.row)
		} else {
			m.keys.add(s.keys, i)
		}
	}
	m.layer, m.row = len(m.older)+s.rank, uint32(s.ids[to-1])
	return nil
}

// repeats reports whether an entry has the key that came last.
func (m *supersedeMerge) repeats(s *keySource, i int) bool {
	n := m.keys.len()
	return n > 0 && s.keys.compare(i, m.keys.run().column(), n-1) == 0
}

// flush looks for the keys in the older layers.
func (m *supersedeMerge) flush(ctx context.Context) error {
	run := m.keys.run()
	for i, l := range m.older {
		if run.Len() == 0 {
			break
		}
		if err := l.resolve(ctx, run, func(fragment uint64, row uint32) { m.mark(i, fragment, row) }); err != nil {
			return err
		}
	}
	m.keys.clear()
	return nil
}

// superseded returns the masks of older layers, and of generations on top of them, as of upTo: those that the older
// ones have, extended by what the generations replaced.
func superseded(ctx context.Context, codec *keyCodec, older []layer, masks []*rowMask, gens []*generation, upTo LSN) ([]*rowMask, error) {
	builders := make([]maskBuilder, len(older)+len(gens))
	for i, m := range masks {
		builders[i].base = m
	}
	err := supersede(ctx, codec, older, gens, supersedeBatch, func(layer int, fragment uint64, row uint32) { builders[layer].add(fragment, row) })
	if err != nil {
		return nil, err
	}
	out := make([]*rowMask, len(builders))
	for i := range builders {
		at := upTo
		if i < len(masks) {
			at = masks[i].upTo
		}
		out[i] = builders[i].finish(at)
	}
	return out, nil
}

// stack returns the generations of a chain with others on top of them, and the mask of the base, extended by what these
// replaced.
func (t *Table) stack(ctx context.Context, b *base, c *chain, gens []*generation) (layers []layerRef, replaced *maskCell, err error) {
	older, masks := []layer{b}, []*rowMask{c.replaced.flushed}
	for _, l := range c.generations() {
		older, masks = append(older, l.layer), append(masks, l.mask.flushed)
	}
	masks, err = superseded(ctx, t.now().codec, older, masks, gens, c.flushed)
	if err != nil {
		return nil, nil, err
	}
	for i, l := range older[1:] {
		layers = append(layers, layerRef{layer: l, mask: newMaskCell(masks[1+i])})
	}
	for i, g := range gens {
		layers = append(layers, layerRef{layer: g, mask: newMaskCell(masks[len(older)+i])})
	}
	return layers, newMaskCell(masks[0]), nil
}
