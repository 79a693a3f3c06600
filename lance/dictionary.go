package lance

import (
	"encoding/binary"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// dictionaryBytes bounds the strings that are written out for one array: few bytes of a dictionary page can stand for
// very many.
const dictionaryBytes = 16 << 20

// dictionaryCodec is a page of strings in which there are few distinct ones: a number for each row, which is a place
// among the items. In a column of dictionary type, whose rows are strings all the same once they are read, numbers begin
// with 0, and a null row is null by a bitmap, or has the number of a null item. In a column of strings, a writer may have
// chosen such pages by itself: then 0 is null, and numbers are one more than the place.
type dictionaryCodec struct {
	indices  uint32
	width    int    // of an index in bytes
	validity uint32 // of the indices, or noBuffer
	base     int    // the index of the first item
	items    binaryCodec
	count    int
}

// compressed implements compressedCodec.
func (c dictionaryCodec) compressed() (uint32, bool) { return c.items.compressed() }

func (c dictionaryCodec) check(rows int64, bufs []extent) error {
	if err := checkBuffer(bufs, c.indices, rows, int64(c.width)*8, "dictionary indices"); err != nil {
		return err
	}
	if c.validity != noBuffer {
		if err := checkBuffer(bufs, c.validity, rows, 1, "validity"); err != nil {
			return err
		}
	}
	return c.items.check(int64(c.count), bufs)
}

// dictionaryItem is the place of an item's bytes, if it is not null.
type dictionaryItem struct {
	span
	valid bool
}

// list returns the items, by index.
func (c dictionaryCodec) list(v *pageView) ([]dictionaryItem, error) {
	if v.items != nil {
		return v.items, nil
	}
	items := make([]dictionaryItem, c.base, c.count+c.base)
	for i := range c.count {
		s, valid, err := c.items.row(v, i)
		if err != nil {
			return nil, fmt.Errorf("dictionary: %w", err)
		}
		items = append(items, dictionaryItem{s, valid})
	}
	v.items = items
	return items, nil
}

// item returns the item of a row.
func (c dictionaryCodec) item(v *pageView, items []dictionaryItem, row int) (dictionaryItem, error) {
	if c.validity != noBuffer && !bitutil.BitIsSet(v.bytes(c.validity), row) {
		return dictionaryItem{}, nil
	}
	b, x := v.bytes(c.indices)[row*c.width:], uint64(0)
	switch c.width {
	case 1:
		x = uint64(b[0])
	case 2:
		x = uint64(binary.LittleEndian.Uint16(b))
	case 4:
		x = uint64(binary.LittleEndian.Uint32(b))
	case 8:
		x = binary.LittleEndian.Uint64(b)
	}
	if x >= uint64(len(items)) {
		return dictionaryItem{}, fmt.Errorf("row %d of the page is item %d of a dictionary of %d", row, x, c.count)
	}
	return items[x], nil
}

func (c dictionaryCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	if c.items.large {
		return sliceDictionary[int64](c, v, dt, from, to, alloc)
	}
	return sliceDictionary[int32](c, v, dt, from, to, alloc)
}

func sliceDictionary[O int32 | int64](c dictionaryCodec, v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	items, err := c.list(v)
	if err != nil {
		return nil, err
	}
	var rows []dictionaryItem
	size := uint64(0)
	for row := from; row < to; row++ {
		item, err := c.item(v, items, row)
		if err != nil {
			return nil, err
		}
		if size += item.to - item.from; size > dictionaryBytes && len(rows) > 0 {
			size -= item.to - item.from
			break
		}
		rows = append(rows, item)
	}
	b := newBinaryBuilder[O](alloc, len(rows), size)
	defer b.release()
	data := v.bytes(c.items.data)
	for i, item := range rows {
		b.put(i, item.of(data), item.valid)
	}
	return b.array(dt), nil
}

func (c dictionaryCodec) describe() string { return fmt.Sprintf("dictionary of %d strings", c.count) }

// binaryBuilder fills the buffers of an array of strings whose size is known.
type binaryBuilder[O int32 | int64] struct {
	validityBuf, offsetsBuf, dataBuf *memory.Buffer

	validity []byte
	offsets  []O
	data     []byte // what is left of dataBuf
	nulls    int
}

func newBinaryBuilder[O int32 | int64](alloc memory.Allocator, rows int, size uint64) *binaryBuilder[O] {
	var zero O
	b := &binaryBuilder[O]{
		validityBuf: sizedBuffer(alloc, bitBytes(rows)),
		offsetsBuf:  sizedBuffer(alloc, (rows+1)*int(arrowSize(zero))),
		dataBuf:     sizedBuffer(alloc, int(size)),
	}
	b.validity, b.offsets, b.data = b.validityBuf.Bytes(), arrow.GetData[O](b.offsetsBuf.Bytes()), b.dataBuf.Bytes()
	return b
}

// put sets row i. Rows come in order.
func (b *binaryBuilder[O]) put(i int, value []byte, valid bool) {
	if valid {
		bitutil.SetBit(b.validity, i)
	} else {
		b.nulls++
	}
	b.data = b.data[copy(b.data, value):]
	b.offsets[i+1] = b.offsets[i] + O(len(value))
}

// array returns what was put. The builder keeps its own reference until release.
func (b *binaryBuilder[O]) array(dt arrow.DataType) arrow.ArrayData {
	bufs := []*memory.Buffer{b.validityBuf, b.offsetsBuf, b.dataBuf}
	if b.nulls == 0 {
		bufs[0] = nil
	}
	return array.NewData(dt, len(b.offsets)-1, bufs, nil, b.nulls, 0)
}

func (b *binaryBuilder[O]) release() {
	b.validityBuf.Release()
	b.offsetsBuf.Release()
	b.dataBuf.Release()
}

// sizedBuffer returns a buffer of n bytes. They are zero: all allocators of Arrow do that, and Arrow relies on it.
func sizedBuffer(alloc memory.Allocator, n int) *memory.Buffer {
	b := memory.NewResizableBuffer(alloc)
	b.Resize(n)
	return b
}
