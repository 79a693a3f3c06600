package lance

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// dictionaryEncoder lays out strings, which Arrow has with offsets of type O, as numbers of the distinct ones of a page.
type dictionaryEncoder[O int32 | int64] struct {
	binaryEncoder[O]
	index arrow.DataType
}

// each calls fn with the rows in order, nil for null.
func (e dictionaryEncoder[O]) each(chunks []chunk, fn func(value []byte)) {
	for _, c := range chunks {
		offsets, validity, data := e.offsets(c), c.validity(), []byte{}
		if b := c.data.Buffers()[2]; b != nil {
			data = b.Bytes()
		}
		for i := range c.n {
			value := data[offsets[i]:offsets[i+1]:offsets[i+1]]
			if validity != nil && !bitutil.BitIsSet(validity, c.offset()+i) {
				value = nil
			} else if value == nil {
				value = []byte{}
			}
			fn(value)
		}
	}
}

// encode implements encoder: the index of each row, then the items as strings. A null row has the index of a null item:
// pylance 14 ends its task on a page whose indices have a validity bitmap.
func (e dictionaryEncoder[O]) encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	places := map[string]int{}
	var items [][]byte
	null := -1
	width := e.index.(arrow.FixedWidthDataType).BitWidth() / 8
	indices := make([]byte, rows*width)
	row := 0
	var word [8]byte
	e.each(chunks, func(value []byte) {
		at, ok := null, null >= 0
		if value != nil {
			at, ok = places[string(value)]
		}
		if !ok {
			at = len(items)
			if items = append(items, value); value == nil {
				null = at
			} else {
				places[string(value)] = at
			}
		}
		binary.LittleEndian.PutUint64(word[:], uint64(at))
		copy(indices[row*width:(row+1)*width], word[:])
		row++
	})
	n, err := p.append(indices)
	if err != nil {
		return nil, err
	}
	data := itemArray[O](items)
	defer data.Release()
	enc, err := e.binaryEncoder.encode(p, []chunk{{data: data, n: len(items)}}, len(items))
	return dictionaryPage(nullable(noBuffer, flat(int64(width)*8, n)), enc, len(items)), err
}

// itemArray returns items as Arrow has them.
func itemArray[O int32 | int64](items [][]byte) arrow.ArrayData {
	size := uint64(0)
	for _, v := range items {
		size += uint64(len(v))
	}
	b := newBinaryBuilder[O](memory.DefaultAllocator, len(items), size)
	defer b.release()
	for i, v := range items {
		b.put(i, v, v != nil)
	}
	return b.array(arrow.BinaryTypes.Binary)
}
