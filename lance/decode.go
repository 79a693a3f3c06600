package lance

import (
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// parseEncoding returns the codec of a page of a field.
func parseEncoding(e *lancepb.ArrayEncoding, f *Field) (codec, error) {
	switch f.form {
	case jsonForm:
		return parseJSONPage(e, f)
	case blobForm:
		return parseBlobPage(e)
	case packedForm:
		return parsePackedPage(e, f)
	case numbersForm:
		return parseNumbersPage(e, f)
	}
	dt := f.Type
	switch dt.ID() {
	case arrow.LIST, arrow.LARGE_LIST:
		return parseList(e)
	case arrow.STRUCT:
		if e.GetStruct() == nil {
			return nil, fmt.Errorf("encoding %T of structs: %w", e.GetArrayEncoding(), ErrUnsupported)
		}
		return structCodec{}, nil
	}
	values, validity, all, err := unwrapNullable(e)
	if err != nil {
		return nil, err
	}
	if all {
		return nullCodec{bits: bitWidth(dt)}, nil
	}
	switch t := dt.(type) {
	case *arrow.NullType:
		return nil, fmt.Errorf("%T in a null column", e.GetArrayEncoding())
	case *arrow.FixedSizeListType:
		return parseFixedSizeListEncoding(values, validity, t)
	case arrow.BinaryDataType:
		if validity != noBuffer {
			return nil, fmt.Errorf("strings with a validity bitmap: %w", ErrUnsupported)
		}
		return parseBinaryEncoding(values, f)
	}
	buffer, err := flatBuffer(values, bitWidth(dt))
	if err != nil {
		return nil, err
	}
	return fixedCodec{bits: bitWidth(dt), values: buffer, validity: validity, itemValidity: noBuffer}, nil
}

// unwrapNullable returns what a Nullable holds: the values, and the number of the validity bitmap or noBuffer, or that
// all rows are null. Anything else is returned as it is: a run of values without nulls.
func unwrapNullable(e *lancepb.ArrayEncoding) (values *lancepb.ArrayEncoding, validity uint32, all bool, err error) {
	n := e.GetNullable()
	if n == nil {
		return e, noBuffer, false, nil
	}
	switch n := n.GetNullability().(type) {
	case *lancepb.Nullable_NoNulls:
		return n.NoNulls.GetValues(), noBuffer, false, nil
	case *lancepb.Nullable_AllNulls:
		return nil, noBuffer, true, nil
	case *lancepb.Nullable_SomeNulls:
		bitmap, _, _, err := unwrapNullable(n.SomeNulls.GetValidity())
		if err == nil {
			validity, err = flatBuffer(bitmap, 1)
		}
		if err != nil {
			return nil, 0, false, fmt.Errorf("validity: %w", err)
		}
		return n.SomeNulls.GetValues(), validity, false, nil
	}
	return nil, 0, false, errors.New("an empty Nullable")
}

// flatBuffer returns the number of the buffer of plain values that are bits wide.
func flatBuffer(e *lancepb.ArrayEncoding, bits int64) (uint32, error) {
	f := e.GetFlat()
	switch {
	case e.GetArrayEncoding() == nil:
		return 0, errors.New("an empty encoding")
	case f == nil:
		return 0, fmt.Errorf("encoding %T: %w", e.GetArrayEncoding(), ErrUnsupported)
	case f.GetCompression().GetScheme() != "":
		return 0, fmt.Errorf("compression %q: %w", f.GetCompression().GetScheme(), ErrUnsupported)
	case f.GetBuffer().GetBufferType() != lancepb.BufferKind_PAGE:
		return 0, fmt.Errorf("a buffer outside the page: %w", ErrUnsupported)
	case f.GetBitsPerValue() != uint64(bits):
		return 0, fmt.Errorf("values of %d bits, want %d", f.GetBitsPerValue(), bits)
	}
	return f.GetBuffer().GetBufferIndex(), nil
}

func parseFixedSizeListEncoding(e *lancepb.ArrayEncoding, validity uint32, t *arrow.FixedSizeListType) (codec, error) {
	l := e.GetFixedSizeList()
	switch {
	case l == nil:
		return nil, fmt.Errorf("encoding %T: %w", e.GetArrayEncoding(), ErrUnsupported)
	case l.GetHasValidity():
		return nil, fmt.Errorf("a list with inline validity: %w", ErrUnsupported)
	case l.GetDimension() != uint32(t.Len()):
		return nil, fmt.Errorf("lists of %d items, want %d", l.GetDimension(), t.Len())
	}
	values, itemValidity, all, err := unwrapNullable(l.GetItems())
	if err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	if all {
		return nullItemsCodec{bits: bitWidth(t), items: int(t.Len()), validity: validity}, nil
	}
	buffer, err := flatBuffer(values, bitWidth(t.Elem()))
	if err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	return fixedCodec{bits: bitWidth(t), items: int(t.Len()), values: buffer, validity: validity, itemValidity: itemValidity}, nil
}

func parseBinaryEncoding(e *lancepb.ArrayEncoding, f *Field) (codec, error) {
	d := e.GetDictionary()
	if d == nil {
		return parseBinary(e, f.Type)
	}
	indices, validity, all, err := unwrapNullable(d.GetIndices())
	c := dictionaryCodec{width: 1, base: 1, validity: validity, count: int(d.GetNumDictionaryItems())}
	if f.dictionary() {
		c.width, c.base = int(indices.GetFlat().GetBitsPerValue()/8), 0
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("dictionary indices: %w", err)
	case all && f.dictionary():
		return nullCodec{}, nil
	case all || validity != noBuffer && !f.dictionary():
		return nil, fmt.Errorf("dictionary indices with nulls: %w", ErrUnsupported)
	case c.width != 1 && c.width != 2 && c.width != 4 && c.width != 8:
		return nil, fmt.Errorf("dictionary indices of %d bytes", c.width)
	}
	if c.indices, err = flatBuffer(indices, int64(c.width)*8); err != nil {
		return nil, fmt.Errorf("dictionary indices: %w", err)
	}
	if c.items, err = parseBinary(d.GetItems(), f.Type); err != nil {
		return nil, fmt.Errorf("dictionary items: %w", err)
	}
	return c, nil
}

func parseBinary(e *lancepb.ArrayEncoding, dt arrow.DataType) (binaryCodec, error) {
	none := binaryCodec{}
	b := e.GetBinary()
	if b == nil {
		return none, fmt.Errorf("encoding %T: %w", e.GetArrayEncoding(), ErrUnsupported)
	}
	indices, validity, all, err := unwrapNullable(b.GetIndices())
	if err == nil && (all || validity != noBuffer) {
		err = errors.New("offsets with nulls")
	}
	if err != nil {
		return none, fmt.Errorf("offsets: %w", err)
	}
	c := binaryCodec{large: dt.Layout().Buffers[1].ByteWidth == 8, adjustment: b.GetNullAdjustment()}
	if c.indices, err = flatBuffer(indices, 64); err != nil {
		return none, fmt.Errorf("offsets: %w", err)
	}
	bytes := b.GetBytes()
	if f := bytes.GetFlat(); f.GetCompression().GetScheme() == "zstd" {
		c.zstd = true
		bytes = flat(8, f.GetBuffer().GetBufferIndex())
		bytes.GetFlat().Buffer = f.GetBuffer()
	}
	if c.data, err = flatBuffer(bytes, 8); err != nil {
		return none, fmt.Errorf("bytes: %w", err)
	}
	if c.adjustment == 0 {
		c.adjustment = maxEnd // Without nulls an old writer has none.
	}
	if c.adjustment > maxEnd {
		return none, fmt.Errorf("null adjustment %d", c.adjustment)
	}
	return c, nil
}

// checkBuffer refuses a page without the given buffer or with less than bits bits for each row in it.
func checkBuffer(bufs []extent, buffer uint32, rows, bits int64, what string) error {
	if int64(buffer) >= int64(len(bufs)) {
		return fmt.Errorf("%s: the page has no buffer %d", what, buffer)
	}
	// Rows come from the file and can be anything: divide, do not multiply.
	if have := bufs[buffer].size; have < (1<<60) && rows > have*8/bits {
		return fmt.Errorf("%s: %d bytes are too few for %d rows of %d bits", what, have, rows, bits)
	}
	return nil
}

// nullBytes bounds the zeroes that are made for a run of null rows, which take no room in the file.
const nullBytes = 1 << 20

// nullCodec is a page in which every row is null. It has no buffers.
type nullCodec struct{ bits int64 }

func (nullCodec) check(int64, []extent) error { return nil }

func (c nullCodec) slice(_ *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	rows := to - from
	if dt.ID() != arrow.NULL {
		rows = boundNulls(rows, c.bits)
	}
	a := array.MakeArrayOfNull(alloc, dt, rows)
	defer a.Release()
	a.Data().Retain()
	return a.Data(), nil
}

// boundNulls returns how many of so many null rows are made at once. Strings have no bits, but an offset each.
func boundNulls(rows int, bits int64) int {
	return int(min(int64(rows), max(1, nullBytes*8/max(bits, 64))))
}

func (nullCodec) describe() string { return "all null" }
