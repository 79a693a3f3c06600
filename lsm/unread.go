package lsm

import (
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/manifest"
)

// unread returns the segments with the name of an index that are not open: they are damaged, or not of a form that is read here. No other
// segment may lie over their fragments, as Lance takes two over one for a fault; so merges leave these alone, and a segment that
// is built anew takes the place of such.
func (b *base) unread(x indexEntry) []manifest.Index {
	var out []manifest.Index
	for _, m := range b.version.Indexes {
		if m.Fragments != nil && strings.EqualFold(m.Name, x.Name) && slices.Equal(m.Fields, x.Fields) && !b.opened(m.UUID) {
			out = append(out, m)
		}
	}
	return out
}

// opened reports whether a segment is among those that are open.
func (b *base) opened(id uuid.UUID) bool {
	return slices.ContainsFunc(b.columns, func(s *columnSegment) bool { return s.meta.UUID == id }) ||
		slices.ContainsFunc(b.vectors, func(s *vectorSegment) bool { return s.meta.UUID == id })
}

// unreadFragments returns the fragments that lie under segments which are not open.
func (b *base) unreadFragments(x indexEntry) *roaring.Bitmap {
	out := roaring.New()
	for _, m := range b.unread(x) {
		out.Or(m.Fragments)
	}
	return out
}

// replaced returns the segments that are not open whose place a segment over some fragments takes: those that lie over one of
// them, or over none that is still there.
func (b *base) replaced(x indexEntry, by *roaring.Bitmap) []uuid.UUID {
	var out []uuid.UUID
	for _, m := range b.unread(x) {
		live := b.living(m.Fragments)
		if live.IsEmpty() || live.Intersects(by) {
			out = append(out, m.UUID)
		}
	}
	return out
}

// living returns those of some fragments that the version has.
func (b *base) living(of *roaring.Bitmap) *roaring.Bitmap {
	live := roaring.New()
	for _, f := range b.frags {
		if of.Contains(uint32(f.id)) {
			live.Add(uint32(f.id))
		}
	}
	return live
}
