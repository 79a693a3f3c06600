package lance

import (
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// leafValues gathers the values of a leaf, null ones included, into an array. It belongs to one goroutine.
type leafValues struct {
	dt    arrow.DataType
	alloc memory.Allocator
	n     int
	bits  int // of a value; 0 when they vary in length
	items int // of a fixed-size list, else 1
	wide  bool

	data    *memory.Buffer // nil until there is something
	used    int            // bytes of data, when values vary
	offsets *memory.Buffer // of the ends of values that vary
	valid   *memory.Buffer // of items, nil while all are valid
	// shared is set when data is the page's own.
	shared bool
}

// newLeafValues returns room for about n values.
func newLeafValues(dt arrow.DataType, n int, alloc memory.Allocator) *leafValues {
	v := &leafValues{dt: dt, alloc: alloc, bits: int(bitWidth(dt)), items: 1}
	if l, ok := dt.(*arrow.FixedSizeListType); ok {
		v.items = int(l.Len())
	}
	if b, ok := dt.(arrow.BinaryDataType); ok {
		v.wide = b.Layout().Buffers[1].ByteWidth == 8
		v.offsets = sizedBuffer(alloc, v.offsetBytes())
		v.offsets.Reserve((n + 1) * v.offsetBytes())
	}
	v.data = memory.NewResizableBuffer(alloc)
	if v.bits > 0 {
		v.data.Reserve(bitBytes(n * v.bits))
	}
	return v
}

func (v *leafValues) offsetBytes() int {
	if v.wide {
		return 8
	}
	return 4
}

// release drops what was gathered; an array that was made of it is not affected.
func (v *leafValues) release() {
	releaseBuffer(v.data)
	releaseBuffer(v.offsets)
	releaseBuffer(v.valid)
}

// share makes n values of one width that lie in a page the values. REQUIRES: there are none yet.
func (v *leafValues) share(b *memory.Buffer, n int) {
	v.data.Release()
	v.data, v.n, v.shared = b, n, true
}

// add appends the values [from, to) of a block.
func (v *leafValues) add(b *block, from, to int) error {
	if from >= to {
		return nil
	}
	switch {
	case v.dt.ID() == arrow.NULL:
		v.n += to - from
		return nil
	case v.offsets != nil && b.ends != nil:
		return v.addStrings(b, from, to)
	case b.nothing && v.items > 1:
		v.addNothing(b.items, from, to-from)
		return nil
	case v.offsets != nil || b.ends != nil || b.bits != v.bits:
		return fmt.Errorf("values of %d bits in a column of %s", b.bits, v.dt)
	}
	v.addBits(b.data, from, to-from)
	v.addItems(b.items, from, to-from)
	v.n += to - from
	return nil
}

// addBits appends values of one width.
func (v *leafValues) addBits(data []byte, from, n int) {
	resize(v.data, bitBytes((v.n+n)*v.bits))
	out := v.data.Bytes()
	if v.bits%8 != 0 {
		bitutil.CopyBitmap(data, from*v.bits, n*v.bits, out, v.n*v.bits)
		return
	}
	width := v.bits / 8
	copy(out[v.n*width:], data[from*width:(from+n)*width])
}

// addItems appends the validity of the items of n values; nil says that all are valid.
func (v *leafValues) addItems(valid []byte, from, n int) {
	switch {
	case valid == nil && v.valid == nil:
		return
	case v.valid == nil:
		v.valid = sizedBuffer(v.alloc, bitBytes(v.n*v.items))
		memory.Set(v.valid.Bytes(), 0xFF)
	}
	resize(v.valid, bitBytes((v.n+n)*v.items))
	if valid == nil {
		bitutil.SetBitsTo(v.valid.Bytes(), int64(v.n*v.items), int64(n*v.items), true)
		return
	}
	bitutil.CopyBitmap(valid, from*v.items, n*v.items, v.valid.Bytes(), v.n*v.items)
}

// errTooWide is for strings that one array cannot hold.
var errTooWide = errors.New("the strings of these rows are more than one array can hold: read fewer at once")

// looseBytes is how many bytes of coded strings get as much room as they could need.
const looseBytes = 64 << 10

// addStrings appends values that vary in length.
func (v *leafValues) addStrings(b *block, from, to int) error {
	size := int(b.ends[to] - b.ends[from])
	switch {
	case b.fsst != nil && size <= looseBytes:
		size *= 8 // what it can be at most: to make too much room costs less than to ask
	case b.fsst != nil:
		size = 0
		for i := from; i < to; i++ {
			n, err := b.fsst.size(b.value(i))
			if err != nil {
				return err
			}
			size += n
		}
	}
	if err := v.makeRoom(size, to-from); err != nil {
		return err
	}
	if b.fsst != nil {
		out := v.data.Bytes()
		for i := from; i < to; i++ {
			n, err := b.fsst.expand(out[v.used:], b.value(i))
			if err != nil {
				return err
			}
			v.used += n
			v.end()
		}
		return nil
	}
	copy(v.data.Bytes()[v.used:], b.data[b.ends[from]:b.ends[to]])
	base := v.used - int(b.ends[from])
	for i := from; i < to; i++ {
		v.used = base + int(b.ends[i+1])
		v.end()
	}
	return nil
}

// end notes that a value ends here. REQUIRES: there is room for its offset.
func (v *leafValues) end() {
	v.n++
	if v.wide {
		arrow.GetData[int64](v.offsets.Bytes())[v.n] = int64(v.used)
		return
	}
	arrow.GetData[int32](v.offsets.Bytes())[v.n] = int32(v.used)
}

// addNumbered appends the values of a dictionary whose numbers are the values [from, to) of a block. The common widths
// have loops of their own, which take a tenth of the time.
func (v *leafValues) addNumbered(numbers, items *block, from, to int) error {
	if from >= to {
		return nil
	}
	if numbers.bits == 32 && v.valid == nil && items.items == nil && !items.nothing && v.bits == items.bits {
		at := arrow.GetData[uint32](numbers.data)[from:to]
		for _, k := range at {
			if int(k) >= items.n {
				return fmt.Errorf("number %d of a dictionary of %d", k, items.n)
			}
		}
		switch {
		case v.bits == 32:
			addGathered[uint32](v, items, at)
			return nil
		case v.bits == 64:
			addGathered[uint64](v, items, at)
			return nil
		case v.offsets != nil && items.fsst == nil:
			return v.addGatheredStrings(items, at)
		}
	}
	for i := from; i < to; i++ {
		k := number(numbers, i)
		if k >= uint64(items.n) {
			return fmt.Errorf("number %d of a dictionary of %d", k, items.n)
		}
		if err := v.add(items, int(k), int(k)+1); err != nil {
			return err
		}
	}
	return nil
}

// addGathered appends values of one width by their numbers, which were checked.
func addGathered[T word](v *leafValues, items *block, at []uint32) {
	size := v.bits / 8
	resize(v.data, (v.n+len(at))*size)
	out, values := arrow.GetData[T](v.data.Bytes()[v.n*size:]), arrow.GetData[T](items.data[:items.n*size])
	for i, k := range at {
		out[i] = values[k]
	}
	v.n += len(at)
}

// addGatheredStrings appends strings by their numbers, which were checked.
func (v *leafValues) addGatheredStrings(items *block, at []uint32) error {
	size := 0
	for _, k := range at {
		size += int(items.ends[k+1] - items.ends[k])
	}
	if err := v.makeRoom(size, len(at)); err != nil {
		return err
	}
	out := v.data.Bytes()
	for _, k := range at {
		v.used += copy(out[v.used:], items.value(int(k)))
		v.end()
	}
	return nil
}

// makeRoom makes room for n strings of size bytes, and eight bytes more.
func (v *leafValues) makeRoom(size, n int) error {
	if !v.wide && v.used+size > math.MaxInt32 {
		return fmt.Errorf("%w: %w", errTooWide, ErrUnsupported)
	}
	resize(v.data, v.used+size+8)
	resize(v.offsets, (v.n+n+1)*v.offsetBytes())
	return nil
}

// number returns a value of a block as an unsigned number.
func number(b *block, i int) uint64 {
	switch b.bits {
	case 8:
		return uint64(b.data[i])
	case 16:
		return uint64(le.Uint16(b.data[2*i:]))
	case 32:
		return uint64(le.Uint32(b.data[4*i:]))
	case 64:
		return le.Uint64(b.data[8*i:])
	}
	return math.MaxUint64
}

// addConstant appends one value n times.
func (v *leafValues) addConstant(value []byte, n int) error {
	if v.offsets != nil {
		if err := v.makeRoom(n*len(value), n); err != nil {
			return err
		}
		out := v.data.Bytes()
		for range n {
			v.used += copy(out[v.used:], value)
			v.end()
		}
		return nil
	}
	if v.bits == 1 {
		resize(v.data, bitBytes(v.n+n))
		bitutil.SetBitsTo(v.data.Bytes(), int64(v.n), int64(n), len(value) > 0 && value[0]&1 != 0)
		v.n += n
		return nil
	}
	if v.bits%8 != 0 || len(value) != v.bits/8 {
		return fmt.Errorf("a value of %d bytes in a column of %s", len(value), v.dt)
	}
	resize(v.data, (v.n+n)*len(value))
	out := v.data.Bytes()[v.n*len(value):]
	for range n {
		out = out[copy(out, value):]
	}
	v.addItems(nil, 0, n)
	v.n += n
	return nil
}

// addNulls appends n values of which only the levels say that they are null.
func (v *leafValues) addNulls(n int) error {
	switch {
	case v.dt.ID() == arrow.NULL:
		v.n += n
		return nil
	case v.offsets != nil:
		return v.addConstant(nil, n)
	}
	v.addNothing(nil, 0, n)
	return nil
}

// addNothing appends n zeros; items is the validity of their items, nil if all are valid.
func (v *leafValues) addNothing(items []byte, first, n int) {
	from := v.data.Len()
	resize(v.data, bitBytes((v.n+n)*v.bits))
	clear(v.data.Bytes()[from:])
	v.addItems(items, first, n)
	v.n += n
}

// array returns the values as an array with the validity that the levels have; what was gathered belongs to it.
func (v *leafValues) array(validity *memory.Buffer, nulls int) arrow.ArrayData {
	switch t := v.dt.(type) {
	case *arrow.NullType:
		return array.NewData(t, v.n, []*memory.Buffer{nil}, nil, v.n, 0)
	case *arrow.FixedSizeListType:
		valid, itemNulls := v.valid, 0
		if valid != nil {
			valid, itemNulls = countNulls(valid, v.n*v.items)
		}
		child := array.NewData(t.Elem(), v.n*v.items, []*memory.Buffer{valid, v.data}, nil, itemNulls, 0)
		defer child.Release()
		return array.NewData(t, v.n, []*memory.Buffer{validity}, []arrow.ArrayData{child}, nulls, 0)
	case arrow.BinaryDataType:
		v.data.Resize(v.used)
		return array.NewData(t, v.n, []*memory.Buffer{validity, v.offsets, v.data}, nil, nulls, 0)
	}
	return array.NewData(v.dt, v.n, []*memory.Buffer{validity, v.data}, nil, nulls, 0)
}

// resize lengthens a buffer, doubling what it holds so that many small steps cost no more than one large. It does not give
// back what a step does not need, as Arrow's Resize does: the next step would take it again.
func resize(b *memory.Buffer, n int) {
	if n > b.Cap() {
		b.Reserve(max(n, 2*b.Cap()))
	}
	b.ResizeNoShrink(n)
}
