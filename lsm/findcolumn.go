package lsm

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// field returns the id of the column that the set is over.
func (k *KeySet) field() int32 { return k.view.schema.lance.Fields[k.by.cols[0]].ID }

// chooseSet returns the set by which a scan with two finds its rows, nil when neither helps: that of fewer rows, as far
// as indexes can tell without being read. Points of the key always win, as they need no masks.
func (v *View) chooseSet(keys, where *KeySet) *KeySet {
	if !keys.helps() {
		keys = nil
	} else if keys.seal(); len(keys.ranges) == 0 {
		return keys
	}
	if !where.helps() {
		return keys
	}
	where.seal()
	if keys == nil {
		return where
	}
	if v.estimate(where) < v.estimate(keys) {
		return where
	}
	return keys
}

// estimate returns about how many rows of files a set leaves to be looked at.
func (v *View) estimate(k *KeySet) int64 {
	keyed := k.by == v.schema.codec
	b := v.set.base
	n := int64(0)
	covered := roaring.New()
	if keyed {
		for _, s := range b.indexes {
			n += k.count(s.index)
			covered.Or(s.meta.Fragments)
		}
	} else {
		for _, s := range k.segments(b) {
			n += k.count(s.index)
			covered.Or(s.meta.Fragments)
		}
	}
	for _, f := range b.frags {
		if !covered.Contains(uint32(f.id)) {
			n += f.live
		}
	}
	for _, c := range v.set.chains {
		for _, l := range c.generations() {
			g := l.layer.(*generation)
			if keyed {
				n += k.count(g.keys)
			} else if s := g.columnOver(k.field()); s != nil && !k.items {
				n += k.count(s.index)
			} else {
				n += g.frag.live
			}
		}
	}
	return n
}

// segmentsOver returns the segments over the column with a field id that find rows by its values, or by the items of its lists.
func (b *base) segmentsOver(field int32, items bool) []*columnSegment {
	var out []*columnSegment
	for _, s := range b.columns {
		if s.field() == field && (s.kind == LabelListIndex) == items {
			out = append(out, s)
		}
	}
	return out
}

// columnsOver returns the segments over the values of the column with a field id.
func (b *base) columnsOver(field int32) []*columnSegment { return b.segmentsOver(field, false) }

// sameIndexes reports whether two bases have indexes of the same kinds over the same columns, by the same names.
func (b *base) sameIndexes(o *base) bool {
	covered := func(b, by *base) bool {
		for _, s := range b.columns {
			same := func(x *columnSegment) bool {
				return x.kind == s.kind && x.field() == s.field() && x.meta.Name == s.meta.Name
			}
			if !slices.ContainsFunc(by.columns, same) {
				return false
			}
		}
		for _, s := range b.vectors {
			same := func(x *vectorSegment) bool {
				return x.kind() == s.kind() && x.field() == s.field() && x.meta.Name == s.meta.Name && x.index.Model().Metric() == s.index.Model().Metric()
			}
			if !slices.ContainsFunc(by.vectors, same) {
				return false
			}
		}
		return true
	}
	return covered(b, o) && covered(o, b)
}

// segments returns the segments of a base that find the set's values, or items.
func (k *KeySet) segments(b *base) []*columnSegment { return b.segmentsOver(k.field(), k.items) }

// scanColumn adds the rows of a layer in front of the base whose values in a column may be in a set: those that an index finds, and of what
// no index covers those that a look at the column finds. The mask still decides which of them count: a row that the
// column's value picks may have been replaced by one that it does not.
func (v *View) scanColumn(ctx context.Context, sc *Scan, p projection, k *KeySet, l layer, mask *rowMask) error {
	if k.items {
		v.scanAll(sc, p, l, mask)
		return nil
	}
	switch x := l.(type) {
	case *generation:
		from := fileRows{hidden: []*roaring.Bitmap{x.frag.hidden, mask.fragment(0)}}
		s := x.columnOver(k.field())
		if s == nil {
			sc.note("generation", byColumn, x.frag.live)
			from.keys = k
			sc.addFile(x.frag, p, from)
			return nil
		}
		picked := selection{}
		dense, err := k.each(ctx, s.index, x.frag.rows, func(id uint64) { picked.add(0, uint32(id)) })
		if err != nil {
			return err
		}
		if dense {
			sc.note("generation", byFullScan, x.frag.live)
			sc.addFile(x.frag, p, from)
			return nil
		}
		sc.note("generation", byColumnIndex, picked.rows())
		sc.addRows(x.frag, p, picked[0], from.hidden)
	case *memtable:
		rows, dead := x.at(v.lsn)
		if c := x.columnOver(k.field()); c != nil && len(rows.batches) > 0 {
			known := rows.indexed().rowCount()
			if only, dense := c.search(k, uint32(known)); !dense {
				only.AddRange(uint64(known), uint64(rows.rowCount())) // the tail, whose rows the index does not know
				sc.addMem(x, rows, p, memPick{only: only, picked: true, by: byColumnIndex, hidden: []*roaring.Bitmap{dead, mask.fragment(0)}})
				return nil
			}
		}
		v.scanAll(sc, p, x, mask)
	}
	return nil
}

// scanBaseColumn is scanColumn for the base. A fragment is found by the first segment that covers it.
func (v *View) scanBaseColumn(ctx context.Context, sc *Scan, p projection, k *KeySet, masks rowMasks) error {
	b := v.set.base
	found, picked := roaring.New(), selection{}
	for _, s := range k.segments(b) {
		mine := b.covers(s)
		mine.AndNot(found)
		if mine.IsEmpty() {
			continue
		}
		part := selection{}
		dense, err := k.each(ctx, s.index, s.index.Rows(), func(id uint64) {
			if f := b.byID[id>>32]; f != nil && mine.Contains(uint32(f.id)) && !f.hides(uint32(id)) {
				part.add(f.id, uint32(id))
			}
		})
		if err != nil {
			return err
		}
		found.Or(mine)
		for _, f := range b.frags {
			switch {
			case !mine.Contains(uint32(f.id)):
			case dense:
				sc.note("base", byFullScan, f.live)
				sc.addFile(f, p, fileRows{hidden: masks.fragment(f.id, f.hidden)})
			case part[f.id] != nil:
				picked[f.id] = part[f.id]
			}
		}
	}
	for _, f := range b.frags {
		if found.Contains(uint32(f.id)) {
			continue
		}
		from, access := fileRows{hidden: masks.fragment(f.id, f.hidden), keys: k}, byColumn
		if k.items { // the lists' items are not looked at here
			from.keys, access = nil, byFullScan
		}
		sc.note("base", access, f.live)
		sc.addFile(f, p, from)
	}
	if len(b.frags) > 0 && !found.IsEmpty() {
		sc.note("base", byColumnIndex, picked.rows())
	}
	for _, f := range b.frags { // in an order of its own: the parts of a scan count what it consists of
		sc.addRows(f, p, picked[f.id], masks.fragment(f.id, f.hidden))
	}
	return nil
}

// covers returns the fragments of the version whose rows a segment has: its bitmap may have such that are gone.
func (b *base) covers(s *columnSegment) *roaring.Bitmap {
	live := roaring.New()
	for _, f := range b.frags {
		if s.meta.Fragments.Contains(uint32(f.id)) {
			live.Add(uint32(f.id))
		}
	}
	return live
}
