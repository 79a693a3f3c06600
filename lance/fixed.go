package lance

import (
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// fixedCodec is a page of values of one width, or of fixed-size lists of them. Its buffers are Arrow's own.
type fixedCodec struct {
	bits         int64 // of a row
	items        int   // of a row of a list, else 0
	values       uint32
	validity     uint32 // or noBuffer
	itemValidity uint32 // or noBuffer
}

func (c fixedCodec) check(rows int64, bufs []extent) error {
	if err := checkBuffer(bufs, c.values, rows, c.bits, "values"); err != nil {
		return err
	}
	if c.validity != noBuffer {
		if err := checkBuffer(bufs, c.validity, rows, 1, "validity"); err != nil {
			return err
		}
	}
	if c.itemValidity != noBuffer {
		return checkBuffer(bufs, c.itemValidity, rows, int64(c.items), "item validity")
	}
	return nil
}

// slice cuts all buffers at the same multiple of eight rows, which is a whole byte in each of them, and leaves the
// rest to Arrow's offset.
func (c fixedCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	base := from &^ 7
	rows, lead := to-base, from-base
	validity, nulls := bitmap(v, c.validity, base, lead, rows, 1)
	defer releaseBuffer(validity)
	values := memory.SliceBuffer(v.bufs[c.values], base/8*int(c.bits), bitBytes(rows*int(c.bits)))
	values = aligned(values, c.valueBytes(), alloc)
	defer values.Release()
	if c.items == 0 {
		return array.NewData(dt, to-from, []*memory.Buffer{validity, values}, nil, nulls, lead), nil
	}
	itemValidity, itemNulls := bitmap(v, c.itemValidity, base, 0, rows, c.items)
	defer releaseBuffer(itemValidity)
	elem := dt.(*arrow.FixedSizeListType).Elem()
	child := array.NewData(elem, rows*c.items, []*memory.Buffer{itemValidity, values}, nil, itemNulls, 0)
	defer child.Release()
	return array.NewData(dt, to-from, []*memory.Buffer{validity}, []arrow.ArrayData{child}, nulls, lead), nil
}

// bitmap returns the part of a validity bitmap that begins at row base, and the nulls in it without those of the lead.
// The nulls are counted here because Arrow would count them on demand and without a lock.
func bitmap(v *pageView, buffer uint32, base, lead, rows, perRow int) (*memory.Buffer, int) {
	if buffer == noBuffer {
		return nil, 0
	}
	b := memory.SliceBuffer(v.bufs[buffer], base/8*perRow, bitBytes(rows*perRow))
	n := (rows - lead) * perRow
	return b, n - bitutil.CountSetBits(b.Bytes(), lead*perRow, n)
}

// valueBytes is the size of one value, 1 for bits.
func (c fixedCodec) valueBytes() int { return max(1, int(c.bits)/max(c.items, 1)/8) }

func (c fixedCodec) describe() string {
	s := fmt.Sprintf("flat %d", c.bits)
	if c.items > 0 {
		s = fmt.Sprintf("lists of %d, flat %d", c.items, int(c.bits)/c.items)
	}
	if c.validity != noBuffer {
		s += ", nulls"
	}
	if c.itemValidity != noBuffer {
		s += ", null items"
	}
	return s
}

// nullItemsCodec is a page of fixed-size lists in which every item is null. It has no values.
type nullItemsCodec struct {
	bits     int64 // of a row
	items    int   // of a row
	validity uint32
}

func (c nullItemsCodec) check(rows int64, bufs []extent) error {
	if c.validity == noBuffer {
		return nil
	}
	return checkBuffer(bufs, c.validity, rows, 1, "validity")
}

func (c nullItemsCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	to = from + boundNulls(to-from, c.bits)
	base := from &^ 7
	validity, nulls := bitmap(v, c.validity, base, from-base, to-base, 1)
	defer releaseBuffer(validity)
	items := array.MakeArrayOfNull(alloc, dt.(*arrow.FixedSizeListType).Elem(), (to-base)*c.items)
	defer items.Release()
	return array.NewData(dt, to-from, []*memory.Buffer{validity}, []arrow.ArrayData{items.Data()}, nulls, from-base), nil
}

func (c nullItemsCodec) describe() string {
	s := fmt.Sprintf("lists of %d null items", c.items)
	if c.validity != noBuffer {
		s += ", nulls"
	}
	return s
}

func releaseBuffer(b *memory.Buffer) {
	if b != nil {
		b.Release()
	}
}

// aligned returns b, or a copy of it if the address does not suit values of the given size: others may write files
// without our alignment, and compiled code that gets the pointer may rely on it. It takes over the reference to b.
func aligned(b *memory.Buffer, valueBytes int, alloc memory.Allocator) *memory.Buffer {
	// The largest power of two in the size, up to that of the widest machine word that compilers load at once.
	unit := min(valueBytes&-valueBytes, 16)
	// An address is needed as a number here; it is not turned back into a pointer.
	if b.Len() == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes())))%uintptr(unit) == 0 {
		return b
	}
	defer b.Release()
	moved := memory.NewResizableBuffer(alloc)
	moved.Resize(b.Len())
	copy(moved.Bytes(), b.Bytes())
	return moved
}
