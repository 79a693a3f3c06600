package lance

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// layering is what the levels of a page mean: its layers from the values outwards. Unlike those of Parquet, levels count
// from the inside. Definition level 0 is a value that is there; each layer that can have nulls or empty lists claims the
// next one, null before empty. A repetition level above 0 begins a list in that many layers of lists.
type layering struct {
	layers []lancepb.Layer
	// visibleAt is, for each definition level, the number of layers of lists from outside which an entry with it is to
	// be seen. What is above has no place among the values.
	visibleAt []uint16
	// lists is the number of layers of lists: the repetition level that begins a row.
	lists uint16
}

// newLayering reads the layers of a page.
func newLayering(layers []lancepb.Layer) (*layering, error) {
	l := &layering{layers: layers, visibleAt: []uint16{0}}
	if len(layers) == 0 || len(layers) > 2*maxDepth {
		return nil, fmt.Errorf("%d layers", len(layers))
	}
	for _, layer := range layers {
		if isListLayer(layer) {
			l.lists++
		}
		for range levelsOf(layer) {
			l.visibleAt = append(l.visibleAt, l.lists)
		}
		if layer < lancepb.Layer_ALL_VALID_ITEM || layer > lancepb.Layer_NULL_AND_EMPTY_LIST {
			return nil, fmt.Errorf("layer %d: %w", layer, ErrUnsupported)
		}
	}
	return l, nil
}

func isListLayer(l lancepb.Layer) bool {
	switch l {
	case lancepb.Layer_ALL_VALID_LIST, lancepb.Layer_NULLABLE_LIST, lancepb.Layer_EMPTYABLE_LIST, lancepb.Layer_NULL_AND_EMPTY_LIST:
		return true
	}
	return false
}

// levelsOf returns how many definition levels a layer claims.
func levelsOf(l lancepb.Layer) uint16 {
	switch l {
	case lancepb.Layer_NULLABLE_ITEM, lancepb.Layer_NULLABLE_LIST, lancepb.Layer_EMPTYABLE_LIST:
		return 1
	case lancepb.Layer_NULL_AND_EMPTY_LIST:
		return 2
	}
	return 0
}

// definitions is the number of definition levels.
func (l *layering) definitions() int { return len(l.visibleAt) }

// visible reports whether an entry with a definition level has a value.
func (l *layering) visible(def uint16) bool { return l.visibleAt[def] == 0 }

// check refuses levels that the layers do not have.
func (l *layering) check(rep, def []uint16) error {
	if d := highest(def, len(l.visibleAt)); d >= len(l.visibleAt) {
		return fmt.Errorf("definition level %d of %d", d, len(l.visibleAt))
	}
	if r := highest(rep, int(l.lists)+1); r > int(l.lists) {
		return fmt.Errorf("repetition level %d of %d", r, l.lists)
	}
	return nil
}

// highest returns the highest of some levels, or something that is not below it but below a limit. The union of all is
// enough, mostly, and found four levels at a time.
func highest(levels []uint16, limit int) (top int) {
	all, whole := uint64(0), len(levels)&^3
	for _, w := range arrow.GetData[uint64](arrow.GetBytes(levels[:whole])) {
		all |= w
	}
	for _, l := range levels[whole:] {
		all |= uint64(l)
	}
	if top = int(uint16(all | all>>16 | all>>32 | all>>48)); top < limit {
		return top
	}
	return int(slices.Max(levels))
}

// levels are the levels of some rows of a leaf on the way out: validity and offsets are taken from them layer by layer.
// They belong to one goroutine.
type levels struct {
	*layering
	rep, def []uint16 // nil when no layer needs them
	layer    int      // the next one
	passed   uint16   // definition levels of the layers before it
	opened   uint16   // layers of lists before it
}

// validity returns which of n entries of the next layer are valid, and how many are not; nil when all are.
func (l *levels) validity(n int, alloc memory.Allocator) (bitmap *memory.Buffer, nulls int, err error) {
	if l.layer >= len(l.layers) {
		return nil, 0, errors.New("there are fewer layers than the type has")
	}
	layer := l.layers[l.layer]
	l.layer++
	switch {
	case layer == lancepb.Layer_ALL_VALID_ITEM:
		return nil, 0, nil
	case layer != lancepb.Layer_NULLABLE_ITEM:
		return nil, 0, fmt.Errorf("layer %s, want items", layer)
	}
	valid := l.passed
	l.passed++
	if l.def == nil {
		return nil, 0, nil
	}
	bitmap = sizedBuffer(alloc, bitBytes(n))
	out, i := bitmap.Bytes(), 0
	if l.lists == 0 && len(l.def) == n {
		if nulls = n - setValid(out, l.def, valid); nulls == 0 {
			bitmap.Release()
			bitmap = nil
		}
		return bitmap, nulls, nil
	}
	for _, d := range l.def {
		if l.visibleAt[d] > l.opened {
			continue
		}
		if i == n {
			bitmap.Release()
			return nil, 0, fmt.Errorf("levels of more than %d entries", n)
		}
		if d <= valid {
			out[i>>3] |= 1 << (i & 7)
		} else {
			nulls++
		}
		i++
	}
	if i < n {
		bitmap.Release()
		return nil, 0, fmt.Errorf("levels of %d entries, want %d", i, n)
	}
	if nulls == 0 {
		bitmap.Release()
		bitmap = nil
	}
	return bitmap, nulls, nil
}

// setValid sets a bit for each level that is not above valid, and returns how many it set. It has no branches, as the
// pattern of nulls would mislead the processor.
func setValid(out []byte, def []uint16, valid uint16) (set int) {
	for i := 0; i < len(def); i += 8 {
		b := uint32(0)
		for k, d := range def[i:min(i+8, len(def))] {
			b |= (uint32(d) - uint32(valid) - 1) >> 31 << k
		}
		out[i/8] = byte(b)
		set += bits.OnesCount32(b)
	}
	return set
}

// lists are the rows of a layer of lists.
type lists struct {
	offsets  *memory.Buffer // of int32 or int64
	validity *memory.Buffer // nil when all are valid
	n, nulls int
}

func (l *lists) release() {
	l.offsets.Release()
	releaseBuffer(l.validity)
}

// takeLists returns the lists of the next layer over items entries of the layers before it, and leaves the levels of the
// lists.
func takeListLayer[O int32 | int64](l *levels, items int, alloc memory.Allocator) (*lists, error) {
	if l.layer >= len(l.layers) || !isListLayer(l.layers[l.layer]) {
		return nil, errors.New("the layers have no list where the type has one")
	}
	if l.rep == nil {
		return nil, errors.New("lists without repetition levels")
	}
	layer := l.layers[l.layer]
	l.layer++
	// A null list, an empty one, and above both the null structs around the list, which make it null, too.
	null, empty := uint16(math.MaxUint16), uint16(math.MaxUint16)
	switch layer {
	case lancepb.Layer_NULLABLE_LIST:
		null = l.passed + 1
	case lancepb.Layer_EMPTYABLE_LIST:
		empty = l.passed + 1
	case lancepb.Layer_NULL_AND_EMPTY_LIST:
		null, empty = l.passed+1, l.passed+2
	}
	l.passed += levelsOf(layer)
	l.opened++
	last := l.passed
	for _, next := range l.layers[l.layer:] {
		if isListLayer(next) {
			break
		}
		last += levelsOf(next)
	}
	n := 0
	for i, r := range l.rep {
		if r > 0 && (l.def == nil || l.def[i] <= last) {
			n++
		}
	}
	out := &lists{offsets: sizedBuffer(alloc, (n+1)*int(arrowSize(O(0)))), validity: sizedBuffer(alloc, bitBytes(n)), n: n}
	offsets, bits := arrow.GetData[O](out.offsets.Bytes()), out.validity.Bytes()
	list, at, kept := 0, 0, 0
	for i, r := range l.rep {
		if r == 0 {
			at++
			continue
		}
		d := uint16(0)
		if l.def != nil {
			d = l.def[i]
			l.def[kept] = d
		}
		l.rep[kept] = r - 1
		kept++
		if d > last { // a null or empty list further out
			continue
		}
		offsets[list] = O(at)
		if d == null || d > l.passed {
			out.nulls++
		} else {
			bitutil.SetBit(bits, list)
			if d != empty {
				at++ // its first item
			}
		}
		list++
	}
	offsets[n] = O(at)
	l.rep = l.rep[:kept]
	if l.def != nil {
		l.def = l.def[:kept]
	}
	if at != items || int(offsets[n]) != at {
		out.release()
		return nil, fmt.Errorf("lists of %d items, want %d", at, items)
	}
	if out.nulls == 0 {
		out.validity.Release()
		out.validity = nil
	}
	return out, nil
}
