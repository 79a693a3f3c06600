package lance

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// dictionaryBytes bounds the strings that are written out for one array: few bytes of a dictionary page can stand for
// very many.
const dictionaryBytes = 16 << 20

// dictionaryCodec is a page of strings in which a writer found few distinct ones: a byte for each row, 0 for null, else
// one more than the place among the items. Only the writer's choice makes such pages, so the column stays one of
// strings and each row is written out.
type dictionaryCodec struct {
	indices uint32
	items   binaryCodec
	count   int
}

func (c dictionaryCodec) check(rows int64, bufs []extent) error {
	if err := checkBuffer(bufs, c.indices, rows, 8, "dictionary indices"); err != nil {
		return err
	}
	return c.items.check(int64(c.count), bufs)
}

// spans returns the places of the items, by index: the first is that of the null.
func (c dictionaryCodec) spans(v *pageView) ([]span, error) {
	if v.items != nil {
		return v.items, nil
	}
	items := make([]span, 1, c.count+1)
	for i := range c.count {
		s, _, err := c.items.row(v, i)
		if err != nil {
			return nil, fmt.Errorf("dictionary: %w", err)
		}
		items = append(items, s)
	}
	v.items = items
	return items, nil
}

func (c dictionaryCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	if c.items.large {
		return sliceDictionary[int64](c, v, dt, from, to, alloc)
	}
	return sliceDictionary[int32](c, v, dt, from, to, alloc)
}

func sliceDictionary[O int32 | int64](c dictionaryCodec, v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	items, err := c.spans(v)
	if err != nil {
		return nil, err
	}
	indices := v.bytes(c.indices)[from:to]
	rows, size := 0, uint64(0)
	for _, x := range indices {
		if int(x) >= len(items) {
			return nil, fmt.Errorf("row %d of the page is item %d of a dictionary of %d", from+rows, x, c.count)
		}
		if size += items[x].to - items[x].from; size > dictionaryBytes && rows > 0 {
			size -= items[x].to - items[x].from
			break
		}
		rows++
	}
	b := newBinaryBuilder[O](alloc, rows, size)
	defer b.release()
	data := v.bytes(c.items.data)
	for i, x := range indices[:rows] {
		b.put(i, items[x].of(data), x != 0)
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
