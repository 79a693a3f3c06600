package lsm

import (
	"maps"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// rowMask is the set of rows of one layer that newer layers have replaced, as of one LSN. It is a value: once
// made it does not change, so that any number of snapshots can share it. (The keys are the truth, a mask is a
// cache of what they say: it is never written to disk.)
type rowMask struct {
	// upTo is the LSN up to which replacements are in.
	upTo LSN
	// dead holds the replaced rows by fragment; a memtable and a generation have the one fragment 0.
	dead map[uint64]*sharedRows
}

// sharedRows is a set of rows that any number of masks share and nobody changes.
type sharedRows struct {
	*roaring.Bitmap
	// cloning is held while the set is copied, which notes in the original, too, that its containers have become common.
	cloning sync.Mutex
}

// clone returns a set that shares its containers with this one until it changes them.
func (s *sharedRows) clone() *roaring.Bitmap {
	s.cloning.Lock()
	defer s.cloning.Unlock()
	return s.Clone()
}

// fragment returns the replaced rows of a fragment, nil when there are none. The caller must not change it.
func (m *rowMask) fragment(id uint64) *roaring.Bitmap {
	if s := m.shared(id); s != nil {
		return s.Bitmap
	}
	return nil
}

// shared is fragment for who passes the set on.
func (m *rowMask) shared(id uint64) *sharedRows {
	if m == nil {
		return nil
	}
	return m.dead[id]
}

// rowMasks are masks of one layer by the keys of several chains.
type rowMasks []*rowMask

// fragment returns the replaced rows of a fragment, in addition to those that are hidden anyway.
func (m rowMasks) fragment(id uint64, hidden *roaring.Bitmap) []*roaring.Bitmap {
	out := []*roaring.Bitmap{hidden}
	for _, x := range m {
		if dead := x.fragment(id); dead != nil {
			out = append(out, dead)
		}
	}
	return out
}

// count returns the number of replaced rows.
func (m *rowMask) count() int64 {
	if m == nil {
		return 0
	}
	n := uint64(0)
	for _, b := range m.dead {
		n += b.GetCardinality()
	}
	return int64(n)
}

// maskBuilder extends a mask. Bitmaps are copied when first touched, and then share their unchanged containers
// with the mask they come from: the cost of an extension follows what it adds, not what is there.
type maskBuilder struct {
	base  *rowMask
	fresh map[uint64]*roaring.Bitmap
}

// add marks a row as replaced.
func (b *maskBuilder) add(fragment uint64, row uint32) {
	bm := b.fresh[fragment]
	if bm == nil {
		if old := b.base.shared(fragment); old != nil {
			bm = old.clone()
		} else {
			bm = roaring.New()
			bm.SetCopyOnWrite(true)
		}
		if b.fresh == nil {
			b.fresh = make(map[uint64]*roaring.Bitmap)
		}
		b.fresh[fragment] = bm
	}
	bm.Add(row)
}

// finish returns the extended mask, as of upTo.
func (b *maskBuilder) finish(upTo LSN) *rowMask {
	m := &rowMask{upTo: upTo}
	if b.base != nil {
		m.dead = b.base.dead
	}
	if len(b.fresh) > 0 {
		dead := make(map[uint64]*sharedRows, len(b.fresh))
		maps.Copy(dead, m.dead)
		for id, rows := range b.fresh {
			dead[id] = &sharedRows{Bitmap: rows}
		}
		m.dead = dead
	}
	return m
}

// liveRows returns which of the n rows from first on are in none of the bitmaps and are no tombstones, as numbers
// from 0; nil means that all are. tombs, which may be nil, has one value for each of the n rows.
func liveRows(first, n uint32, hidden []*roaring.Bitmap, tombs *array.Boolean) []uint32 {
	dead := deadRows(first, n, hidden)
	if tombs != nil {
		if dead == nil {
			dead = make([]uint64, (n+63)/64)
		}
		for i := range n {
			if tombs.IsValid(int(i)) && tombs.Value(int(i)) {
				dead[i/64] |= 1 << (i % 64)
			}
		}
	}
	if dead == nil {
		return nil
	}
	live := make([]uint32, 0, n)
	for i := range n {
		if dead[i/64]&(1<<(i%64)) == 0 {
			live = append(live, i)
		}
	}
	return live
}

// deadRows returns the union of the bitmaps over the n rows from first on as words, nil when it is empty.
func deadRows(first, n uint32, hidden []*roaring.Bitmap) []uint64 {
	var words []uint64
	end := uint64(first) + uint64(n)
	for _, b := range hidden {
		if b == nil || b.IsEmpty() {
			continue
		}
		it := b.Iterator()
		it.AdvanceIfNeeded(first)
		for it.HasNext() {
			row := it.Next()
			if uint64(row) >= end {
				break
			}
			if words == nil {
				words = make([]uint64, (n+63)/64)
			}
			i := row - first
			words[i/64] |= 1 << (i % 64)
		}
	}
	return words
}
