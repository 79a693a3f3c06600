package lsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/flightd/flightd/manifest"
)

// foreignIndex looks for an index of the base that has the name of a new one and is none of the catalog's: an error
// says that it is another than the new one.
func (t *Table) foreignIndex(x *indexEntry, known bool) (other bool, err error) {
	b, err := t.holdBase()
	if err != nil {
		return false, err
	}
	defer b.unref()
	for _, seg := range b.version.Indexes {
		if known || !strings.EqualFold(seg.Name, x.Name) {
			continue
		}
		if t.lacksField(seg.Fields) { // it went with its column, which the base has until the next merge
			other = true
			continue
		}
		if !b.isOf(&seg, x) || !slices.Equal(seg.Fields, x.Fields) {
			return true, fmt.Errorf("%w: another program made it over other columns, of another kind, or with other options", ErrIndexExists)
		}
		x.Name = seg.Name // as its segments have it, to the letter
	}
	return other, nil
}

// isOf reports whether a segment of the base is one that a new index may have.
func (b *base) isOf(seg *manifest.Index, x *indexEntry) bool {
	if !x.Kind.isVector() {
		return seg.BTree()
	}
	return slices.ContainsFunc(b.vectors, func(s *vectorSegment) bool { return s.meta.UUID == seg.UUID && s.fits(*x) })
}

// fieldsNamed returns what indexes with the name of a new one are over, be they in the base or the one of the catalog whose
// place it takes, which merges under way may bring there. Those over the new one's column are as good as its own.
func (t *Table) fieldsNamed(x *indexEntry, was indexEntry) ([][]int32, error) {
	b, err := t.holdBase()
	if err != nil {
		return nil, err
	}
	defer b.unref()
	var out [][]int32
	add := func(fields []int32) {
		if len(fields) > 0 && !slices.Equal(fields, x.Fields) && !slices.ContainsFunc(out, func(o []int32) bool { return slices.Equal(o, fields) }) {
			out = append(out, fields)
		}
	}
	add(was.Fields)
	for _, seg := range b.version.Indexes {
		if strings.EqualFold(seg.Name, x.Name) && !b.schema.isKey(seg.Fields) {
			add(seg.Fields)
			if seg.Vector() && x.Kind.isVector() { // it may have other options, and the new one is trained in any case
				x.Segments = append(x.Segments, seg.UUID)
			}
		}
	}
	return out, nil
}
