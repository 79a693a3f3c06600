package lance

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// numbersCodec is a page of a dictionary of values of one width in 2.0: a number for each row, and the values.
type numbersCodec struct {
	indices  dictionaryCodec // of which only what says the numbers
	items    fixedCodec
	allItems bool // are null
}

// parseNumbersPage returns the codec of a page of a dictionary of values of one width.
func parseNumbersPage(e *lancepb.ArrayEncoding, f *Field) (codec, error) {
	values, _, all, err := unwrapNullable(e)
	if err != nil {
		return nil, err
	}
	if all {
		return nullCodec{bits: bitWidth(f.Type)}, nil
	}
	d := values.GetDictionary()
	if d == nil {
		return nil, fmt.Errorf("encoding %T of a dictionary: %w", values.GetArrayEncoding(), ErrUnsupported)
	}
	indices, validity, all, err := unwrapNullable(d.GetIndices())
	if err != nil {
		return nil, fmt.Errorf("dictionary indices: %w", err)
	}
	if all {
		return nullCodec{bits: bitWidth(f.Type)}, nil
	}
	c := numbersCodec{indices: dictionaryCodec{width: int(indices.GetFlat().GetBitsPerValue() / 8), validity: validity, count: int(d.GetNumDictionaryItems())}}
	if w := c.indices.width; w != 1 && w != 2 && w != 4 && w != 8 {
		return nil, fmt.Errorf("dictionary indices of %d bytes", w)
	}
	if c.indices.indices, err = flatBuffer(indices, int64(c.indices.width)*8); err != nil {
		return nil, fmt.Errorf("dictionary indices: %w", err)
	}
	items, itemValidity, all, err := unwrapNullable(d.GetItems())
	if c.allItems = all; err != nil || all {
		return c, err
	}
	bits := bitWidth(f.Type)
	c.items = fixedCodec{bits: bits, validity: itemValidity, itemValidity: noBuffer}
	if c.items.values, err = flatBuffer(items, bits); err != nil {
		return nil, fmt.Errorf("dictionary items: %w", err)
	}
	return c, nil
}

func (c numbersCodec) check(rows int64, bufs []extent) error {
	if err := checkBuffer(bufs, c.indices.indices, rows, int64(c.indices.width)*8, "dictionary indices"); err != nil {
		return err
	}
	if c.indices.validity != noBuffer {
		if err := checkBuffer(bufs, c.indices.validity, rows, 1, "validity"); err != nil {
			return err
		}
	}
	if c.allItems {
		return nil
	}
	return c.items.check(int64(c.indices.count), bufs)
}

func (c numbersCodec) describe() string {
	return fmt.Sprintf("dictionary of %d values", c.indices.count)
}

func (c numbersCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	to = min(to, from+max(1, batchBytes*8/int(bitWidth(dt))))
	n := to - from
	values, validity := newLeafValues(dt, n, alloc), sizedBuffer(alloc, bitBytes(n))
	defer values.release()
	defer validity.Release()
	items := &block{n: c.indices.count, bits: values.bits}
	if !c.allItems {
		items.data = v.bytes(c.items.values)
	}
	nulls := 0
	for i := range n {
		at, valid, err := c.item(v, from+i)
		if err != nil {
			return nil, err
		}
		if !valid {
			nulls++
			err = values.addNulls(1)
		} else {
			bitutil.SetBit(validity.Bytes(), i)
			err = values.add(items, at, at+1)
		}
		if err != nil {
			return nil, err
		}
	}
	bitmap := validity
	if nulls == 0 {
		bitmap = nil
	}
	return array.NewData(dt, n, []*memory.Buffer{bitmap, values.data}, nil, nulls, 0), nil
}

// item returns the place of a row's value among the items, and whether it is not null.
func (c numbersCodec) item(v *pageView, row int) (int, bool, error) {
	if c.indices.validity != noBuffer && !bitutil.BitIsSet(v.bytes(c.indices.validity), row) {
		return 0, false, nil
	}
	at := number(&block{bits: c.indices.width * 8, data: v.bytes(c.indices.indices)}, row)
	if at >= uint64(c.indices.count) {
		return 0, false, fmt.Errorf("row %d of the page is item %d of a dictionary of %d", row, at, c.indices.count)
	}
	if c.allItems || c.items.validity != noBuffer && !bitutil.BitIsSet(v.bytes(c.items.validity), int(at)) {
		return 0, false, nil
	}
	return int(at), true, nil
}
