package lsm

import (
	"cmp"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// minReclaim is the dead bytes in a base below which nothing is written anew: small tables gain nothing from it.
const minReclaim = 1 << 20

// sparse is a fragment of the base of which little lives.
type sparse struct {
	frag *fragment
	live *roaring.Bitmap
	// bytes is the size of its files, liveBytes the part of them that lives.
	bytes, liveBytes int64
}

// sparseFragments returns the fragments of which half or less lives and that a merge should write anew, the emptiest
// first, so that dead rows do not fill the disk for ever: a row that is replaced only leaves its file when nothing else
// in it lives. They are worth it when their dead bytes come to half of what lives in the base, which bounds the base to
// two and a half times its live rows and the rows that are written for nothing to twice those that were replaced. They
// must fit into room. REQUIRES: covered fragments are found by key indexes; the others are left as they are.
func sparseFragments(all []sparse, least, room int64) []sparse {
	var out []sparse
	var live, dead int64
	for _, f := range all {
		live += f.liveBytes
		if f.liveBytes > 0 && f.liveBytes*2 <= f.bytes {
			out = append(out, f)
			dead += f.bytes - f.liveBytes
		}
	}
	if dead < least || dead < live/2 {
		return nil
	}
	slices.SortFunc(out, func(a, b sparse) int {
		return cmp.Compare(float64(a.liveBytes)/float64(a.bytes), float64(b.liveBytes)/float64(b.bytes))
	})
	for i, f := range out {
		if room -= f.liveBytes; room < 0 {
			return out[:i]
		}
	}
	return out
}

// sparseBase returns the fragments of the base that a merge of the set should write anew.
func (c *compactor) sparseBase(set *layerSet) []sparse {
	b := set.base
	uncovered := make(map[uint64]bool)
	if c.table.indexable() {
		for _, f := range b.uncovered {
			uncovered[f.id] = true
		}
	}
	var all []sparse
	for _, f := range b.frags {
		meta, ok := b.version.Fragment(f.id)
		if !ok || uncovered[f.id] {
			continue
		}
		x := sparse{frag: f, live: roaring.New()}
		x.live.AddRange(0, uint64(f.rows))
		if f.hidden != nil {
			x.live.AndNot(f.hidden)
		}
		for _, dead := range set.replaced(f.id) {
			x.live.AndNot(dead)
		}
		for _, file := range meta.Files {
			x.bytes += max(file.Bytes, 8*f.rows) // other writers may not say
		}
		x.liveBytes = int64(float64(x.bytes) * float64(x.live.GetCardinality()) / float64(f.rows))
		if !x.live.IsEmpty() {
			x.liveBytes = max(x.liveBytes, 1)
		}
		all = append(all, x)
	}
	return sparseFragments(all, c.db.minReclaim, c.db.space.spare())
}
