package lance

import (
	"fmt"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/bitutil"

	"github.com/flightd/flightd/internal/lancepb"
)

// fixedEncoder lays out types whose rows all have one width, lists of them, and the null type.
type fixedEncoder struct {
	bits  int64 // of a row, 0 for the null type
	items int64 // of a row of a fixed-size list, else 0
	// dense writes long runs of nulls in full. Rows of nulls that take no room are made by the megabyte when they are
	// read, but the items of one list must be made at once, which a reader refuses if the file has no bytes for them.
	dense bool
}

// values returns the array that holds the values of rows of d, the first of them, and their number.
func (e fixedEncoder) values(d arrow.ArrayData, from, n int) (values arrow.ArrayData, first, count int) {
	first = d.Offset() + from
	if e.items == 0 {
		return d, first, n
	}
	child := d.Children()[0]
	return child, child.Offset() + first*int(e.items), n * int(e.items)
}

// valueBits is the width of one value: of a row, or of an item of a list.
func (e fixedEncoder) valueBits() int64 { return e.bits / max(e.items, 1) }

// check implements encoder.
func (e fixedEncoder) check(d arrow.ArrayData) error {
	if e.bits == 0 {
		return nil
	}
	if e.items > 0 && len(d.Children()) != 1 {
		return fmt.Errorf("a list array has %d children, want 1", len(d.Children()))
	}
	values, first, count := e.values(d, 0, d.Len())
	if e.items > 0 && first+count > values.Offset()+values.Len() {
		return fmt.Errorf("%d items are too few for %d lists of %d", values.Len(), d.Len(), e.items)
	}
	if len(values.Buffers()) < 2 || values.Buffers()[1] == nil {
		return fmt.Errorf("the array has no values")
	}
	if have, want := values.Buffers()[1].Len(), bitBytes((first+count)*int(e.valueBits())); have < want {
		return fmt.Errorf("the values have %d bytes, want %d", have, want)
	}
	if v := (chunk{data: values}).validity(); v != nil && len(v) < bitBytes(first+count) {
		return fmt.Errorf("the validity bitmap has %d bytes, too few for %d values", len(v), first+count)
	}
	return nil
}

// bytes implements encoder.
func (e fixedEncoder) bytes(c chunk) int64 { return (int64(c.n)*e.bits + 7) / 8 }

// rowsWithin implements encoder.
func (e fixedEncoder) rowsWithin(c chunk, limit int64) int {
	if e.bits == 0 {
		return c.n
	}
	return int(min(int64(c.n), limit*8/e.bits))
}

// encode implements encoder.
func (e fixedEncoder) encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	validity, nulls := joinValidity(chunks, rows)
	if nulls == rows && (!e.dense || int64(rows)*e.bits <= nullBytes*8) {
		return allNulls(), nil
	}
	validityAt, err := p.appendValidity(validity, nulls)
	if err != nil {
		return nil, err
	}
	if e.items == 0 {
		values, err := e.appendValues(p, chunks, rows)
		return nullable(validityAt, values), err
	}
	items := make([]chunk, len(chunks))
	for i, c := range chunks {
		values, first, count := e.values(c.data, c.from, c.n)
		items[i] = chunk{data: values, from: first - values.Offset(), n: count}
	}
	itemValidity, itemNulls := joinValidity(items, rows*int(e.items))
	if itemNulls > 0 && itemNulls == e.itemsUnderNulls(chunks) {
		itemNulls = 0 // What lies under a null list does not need to be said.
	}
	itemsAt, err := p.appendValidity(itemValidity, itemNulls)
	if err != nil {
		return nil, err
	}
	values, err := e.appendValues(p, chunks, rows)
	return nullable(validityAt, fixedSizeList(e.items, nullable(itemsAt, values))), err
}

// itemsUnderNulls counts the null items that belong to null lists.
func (e fixedEncoder) itemsUnderNulls(chunks []chunk) (nulls int) {
	for _, c := range chunks {
		validity := c.validity()
		if validity == nil {
			continue
		}
		for i := range c.n {
			if !bitutil.BitIsSet(validity, c.offset()+i) {
				values, first, count := e.values(c.data, c.from+i, 1)
				nulls += chunk{data: values, from: first - values.Offset(), n: count}.nulls()
			}
		}
	}
	return nulls
}

// appendValues writes the values of all rows. Whole bytes go from Arrow's buffers to the file as they are.
func (e fixedEncoder) appendValues(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	width := int(e.valueBits())
	if width%8 != 0 {
		joined := make([]byte, bitBytes(rows*int(e.bits)))
		at := 0
		for _, c := range chunks {
			values, first, count := e.values(c.data, c.from, c.n)
			bitutil.CopyBitmap(values.Buffers()[1].Bytes(), first, count, joined, at)
			at += count
		}
		n, err := p.append(joined)
		return flat(e.valueBits(), n), err
	}
	n, err := p.begin()
	if err != nil {
		return nil, err
	}
	for _, c := range chunks {
		values, first, count := e.values(c.data, c.from, c.n)
		if err := p.out.Write(values.Buffers()[1].Bytes()[first*width/8 : (first+count)*width/8]); err != nil {
			return nil, err
		}
	}
	p.end()
	return flat(e.valueBits(), n), nil
}

// binaryEncoder lays out strings and byte strings with offsets of type O.
type binaryEncoder[O int32 | int64] struct{}

// offsets returns the offsets of the rows of a chunk, one more than it has rows.
func (binaryEncoder[O]) offsets(c chunk) []O {
	return arrow.GetData[O](c.data.Buffers()[1].Bytes())[c.offset() : c.offset()+c.n+1]
}

// check implements encoder.
func (e binaryEncoder[O]) check(d arrow.ArrayData) error {
	var dataBytes int64
	if b := d.Buffers(); len(b) > 2 && b[2] != nil {
		dataBytes = int64(b[2].Len())
	}
	return e.checkOffsets(d, dataBytes, "bytes")
}

// checkOffsets refuses offsets that do not point in order at what there is.
func (e binaryEncoder[O]) checkOffsets(d arrow.ArrayData, limit int64, what string) error {
	b := d.Buffers()
	if len(b) < 2 || b[1] == nil {
		return fmt.Errorf("the array has no offsets")
	}
	if have, want := len(arrow.GetData[O](b[1].Bytes())), d.Offset()+d.Len()+1; have < want {
		return fmt.Errorf("the array has %d offsets, want %d", have, want)
	}
	offsets := e.offsets(chunk{data: d, n: d.Len()})
	// The sign of a difference survives the union of them all: one test at the end covers every row.
	last, falls := offsets[0], offsets[0]
	for _, o := range offsets {
		falls |= o | (o - last)
		last = o
	}
	if falls < 0 || int64(last) > limit {
		return fmt.Errorf("the offsets of the array fall, or point beyond its %d %s", limit, what)
	}
	return nil
}

// bytes implements encoder.
func (e binaryEncoder[O]) bytes(c chunk) int64 {
	offsets := e.offsets(c)
	return int64(c.n)*8 + int64(offsets[c.n]-offsets[0])
}

// rowsWithin implements encoder.
func (e binaryEncoder[O]) rowsWithin(c chunk, limit int64) int {
	offsets := e.offsets(c)
	return sort.Search(c.n, func(i int) bool { return int64(i+1)*8+int64(offsets[i+1]-offsets[0]) > limit })
}

// ends returns the end offsets of rows within a page, valid until the next call, and the last of them. A null row
// repeats the end before it, raised by the adjustment, which is more than any end can be.
func (e binaryEncoder[O]) ends(p *pageWriter, chunks []chunk, rows int) (ends []uint64, end, adjustment uint64) {
	adjustment = 1
	for _, c := range chunks {
		offsets := e.offsets(c)
		adjustment += uint64(offsets[c.n] - offsets[0])
	}
	ends = p.out.words(rows)
	rest := ends
	for _, c := range chunks {
		if c.nulls() == 0 {
			end = endsOf(rest, e.offsets(c), end)
		} else {
			end = endsWithNulls(rest, e.offsets(c), end, c, adjustment)
		}
		rest = rest[c.n:]
	}
	return ends, end, adjustment
}

// encode implements encoder: end offsets within the page, then the bytes.
func (e binaryEncoder[O]) encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	ends, end, adjustment := e.ends(p, chunks, rows)
	indices, err := p.append(arrow.Uint64Traits.CastToBytes(ends))
	if err != nil {
		return nil, err
	}
	bytes, err := p.begin()
	if err != nil {
		return nil, err
	}
	gaps := end != adjustment-1 // Something lies under nulls.
	for _, c := range chunks {
		if err := e.appendBytes(p, c, gaps); err != nil {
			return nil, err
		}
	}
	p.end()
	return binaryPage(indices, bytes, adjustment), nil
}

// endsOf fills ends for rows without nulls that begin at pos, and returns where they end.
func endsOf[O int32 | int64](ends []uint64, offsets []O, pos uint64) uint64 {
	shift := pos - uint64(offsets[0])
	ends = ends[:len(offsets)-1]
	for i, o := range offsets[1:] {
		ends[i] = uint64(o) + shift
	}
	return uint64(offsets[len(offsets)-1]) + shift
}

// endsWithNulls is endsOf for rows some of which are null. Bytes under a null are left out. The loop has no branch,
// because the pattern of the nulls would mislead the processor: that is 2 ns instead of 6 for a row.
func endsWithNulls[O int32 | int64](ends []uint64, offsets []O, pos uint64, c chunk, adjustment uint64) uint64 {
	validity, bit := c.validity(), c.offset()
	from := offsets[0]
	ends = ends[:len(offsets)-1]
	for i, o := range offsets[1:] {
		valid := uint64(validity[bit>>3]>>(bit&7)) & 1
		pos += uint64(o-from) & -valid
		ends[i] = pos + adjustment&(valid-1)
		from = o
		bit++
	}
	return pos
}

// appendBytes writes the bytes of the valid rows: in one piece, unless there are gaps under null rows.
func (e binaryEncoder[O]) appendBytes(p *pageWriter, c chunk, gaps bool) error {
	offsets := e.offsets(c)
	if offsets[0] == offsets[c.n] {
		return nil
	}
	data := c.data.Buffers()[2].Bytes()
	from := offsets[0]
	if gaps && c.nulls() > 0 {
		validity, first := c.validity(), c.offset()
		for i := range c.n {
			if offsets[i] == offsets[i+1] || bitutil.BitIsSet(validity, first+i) {
				continue
			}
			if err := p.out.Write(data[from:offsets[i]]); err != nil {
				return err
			}
			from = offsets[i+1]
		}
	}
	return p.out.Write(data[from:offsets[c.n]])
}

// joinValidity returns the validity of all chunks in one bitmap, and how many rows are null.
func joinValidity(chunks []chunk, rows int) (bitmap []byte, nulls int) {
	for _, c := range chunks {
		nulls += c.nulls()
	}
	if nulls == 0 {
		return nil, nulls
	}
	bitmap = make([]byte, bitBytes(rows))
	at := 0
	for _, c := range chunks {
		if v := c.validity(); v != nil {
			bitutil.CopyBitmap(v, c.offset(), c.n, bitmap, at)
		} else {
			bitutil.SetBitsTo(bitmap, int64(at), int64(c.n), true)
		}
		at += c.n
	}
	return bitmap, nulls
}

// bitBytes is the size in bytes of n bits.
func bitBytes(n int) int { return (n + 7) / 8 }
