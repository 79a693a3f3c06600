package lance

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/bitutil"

	"github.com/flightd/flightd/internal/lancepb"
)

// shredded is the rows of a leaf as levels and places of values: the inverse of what levels does.
type shredded struct {
	*layering
	rep, def []uint16 // nil when no layer needs them
	// data is the leaf's array, and places are where the values of the visible entries lie in its buffers: from first on,
	// one behind the other, unless places is not nil.
	data   arrow.ArrayData
	first  int
	places []int32
	n      int    // visible entries
	texts  *texts // of data, once they were asked for
	valid  []bool // of the visible entries; nil when all are
}

// entry is a row of the layer that is being shredded.
type entry struct {
	place int32  // in the buffers of the layer
	rep   uint16 // its repetition level
	dead  int16  // what made it null or empty: twice the layer from outside, plus 1 if it is an empty list; -1 when alive
	gone  bool   // it has no value, as a list is null or empty
}

// shred takes rows of a field apart for one leaf, to which path leads from the field.
func shred(d arrow.ArrayData, from, n int, path []*tree) (*shredded, error) {
	first := d.Offset() + from
	if len(path) == 1 && path[0].column >= 0 {
		return shredFlat(d, first, n)
	}
	lists := uint16(0)
	for _, t := range path {
		if isListType(t.field.Type) {
			lists++
		}
	}
	entries := make([]entry, n)
	for i := range entries {
		entries[i] = entry{place: int32(first + i), rep: lists, dead: -1}
	}
	seen := make([][2]bool, len(path)) // nulls, empty lists
	left := lists
	for layer, t := range path {
		markNulls(d, entries, layer, &seen[layer][0])
		switch dt := t.field.Type.(type) {
		case *arrow.StructType:
			child := d.Children()[childOf(t, path[layer+1])]
			for i := range entries {
				entries[i].place += int32(child.Offset())
			}
			d = child
		case *arrow.ListType, *arrow.MapType:
			left--
			var err error
			if entries, err = openLists(entries, arrow.GetData[int32](d.Buffers()[1].Bytes()), d.Children()[0].Offset(), layer, left, &seen[layer][1]); err != nil {
				return nil, err
			}
			d = d.Children()[0]
		case *arrow.LargeListType:
			left--
			var err error
			if entries, err = openLists(entries, arrow.GetData[int64](d.Buffers()[1].Bytes()), d.Children()[0].Offset(), layer, left, &seen[layer][1]); err != nil {
				return nil, err
			}
			d = d.Children()[0]
		default:
			_ = dt
		}
	}
	return numbered(d, entries, path, seen)
}

// childOf returns which of a field's children another is.
func childOf(t, child *tree) int {
	for i, c := range t.children {
		if c == child {
			return i
		}
	}
	return -1
}

func isListType(dt arrow.DataType) bool {
	switch dt.ID() {
	case arrow.LIST, arrow.LARGE_LIST, arrow.MAP:
		return true
	}
	return false
}

// shredFlat is shred for a column with nothing around it.
func shredFlat(d arrow.ArrayData, first, n int) (*shredded, error) {
	s := &shredded{data: d, first: first, n: n}
	c := chunk{data: d, from: first - d.Offset(), n: n}
	layer := lancepb.Layer_ALL_VALID_ITEM
	if c.nulls() > 0 {
		layer = lancepb.Layer_NULLABLE_ITEM
		s.def, s.valid = make([]uint16, n), make([]bool, n)
		validity := c.validity()
		for i := range n {
			if s.valid[i] = validity != nil && bitutil.BitIsSet(validity, first+i); !s.valid[i] {
				s.def[i] = 1
			}
		}
	}
	var err error
	s.layering, err = newLayering([]lancepb.Layer{layer})
	return s, err
}

// markNulls notes which entries a layer makes null.
func markNulls(d arrow.ArrayData, entries []entry, layer int, seen *bool) {
	null := d.DataType().ID() == arrow.NULL
	validity := chunk{data: d}.validity()
	if validity == nil && !null {
		return
	}
	for i := range entries {
		e := &entries[i]
		if e.dead < 0 && (null || !bitutil.BitIsSet(validity, int(e.place))) {
			e.dead, *seen = int16(2*layer), true
		}
	}
}

// openLists puts the items of lists in their places, which begin behind an offset; rep is the level of all items but the
// first of a list.
func openLists[O int32 | int64](entries []entry, offsets []O, shift, layer int, rep uint16, empty *bool) ([]entry, error) {
	items := 0
	for _, e := range entries {
		if e.dead < 0 {
			items += max(1, int(offsets[e.place+1]-offsets[e.place]))
		} else {
			items++
		}
	}
	out := make([]entry, 0, items)
	for _, e := range entries {
		if e.dead >= 0 {
			e.gone = true
			out = append(out, e)
			continue
		}
		from, to := int(offsets[e.place])+shift, int(offsets[e.place+1])+shift
		switch {
		case from == to:
			e.dead, e.gone, *empty = int16(2*layer+1), true, true
			out = append(out, e)
		case to > math.MaxInt32:
			return nil, fmt.Errorf("lists of more than %d items in one array: %w", math.MaxInt32, ErrUnsupported)
		default:
			e.place = int32(from)
			out = append(out, e)
			for k := from + 1; k < to; k++ {
				out = append(out, entry{place: int32(k), rep: rep, dead: -1})
			}
		}
	}
	return out, nil
}

// numbered gives the nulls and empty lists of the layers their definition levels, from the inside.
func numbered(d arrow.ArrayData, entries []entry, path []*tree, seen [][2]bool) (*shredded, error) {
	levels := make([]uint16, 2*len(path))
	layers := make([]lancepb.Layer, 0, len(path))
	next := uint16(0)
	for layer := len(path) - 1; layer >= 0; layer-- {
		for k, is := range seen[layer] {
			if is {
				next++
				levels[2*layer+k] = next
			}
		}
		layers = append(layers, layerOf(isListType(path[layer].field.Type), seen[layer][0], seen[layer][1]))
	}
	s := &shredded{data: d}
	var err error
	if s.layering, err = newLayering(layers); err != nil {
		return nil, err
	}
	if s.lists > 0 {
		s.rep = make([]uint16, len(entries))
	}
	if next > 0 {
		s.def = make([]uint16, len(entries))
	}
	s.places, s.valid = make([]int32, 0, len(entries)), make([]bool, 0, len(entries))
	nulls := false
	for i, e := range entries {
		if s.rep != nil {
			s.rep[i] = e.rep
		}
		if e.dead >= 0 {
			s.def[i] = levels[e.dead]
		}
		if e.gone {
			continue
		}
		nulls = nulls || e.dead >= 0
		s.places, s.valid = append(s.places, e.place), append(s.valid, e.dead < 0)
	}
	if s.n = len(s.places); !nulls {
		s.valid = nil
	}
	return s, nil
}

// layerOf names a layer by what is in it.
func layerOf(list, nulls, empty bool) lancepb.Layer {
	switch {
	case list && nulls && empty:
		return lancepb.Layer_NULL_AND_EMPTY_LIST
	case list && nulls:
		return lancepb.Layer_NULLABLE_LIST
	case list && empty:
		return lancepb.Layer_EMPTYABLE_LIST
	case list:
		return lancepb.Layer_ALL_VALID_LIST
	case nulls:
		return lancepb.Layer_NULLABLE_ITEM
	}
	return lancepb.Layer_ALL_VALID_ITEM
}

// place returns where a visible value lies.
func (s *shredded) place(i int) int {
	if s.places != nil {
		return int(s.places[i])
	}
	return s.first + i
}

// isValid reports whether a visible value is not null.
func (s *shredded) isValid(i int) bool { return s.valid == nil || s.valid[i] }

// allNull reports whether no visible value is there.
func (s *shredded) allNull() bool {
	if s.valid == nil {
		return s.n == 0
	}
	for _, v := range s.valid {
		if v {
			return false
		}
	}
	return true
}

// entries is the number of entries of the levels.
func (s *shredded) entries() int { return max(len(s.rep), len(s.def), s.n) }
