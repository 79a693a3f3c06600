package lance

import (
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
)

// A packed struct has one column for all its fields: values of one width one behind the other, or, in 2.2, records in which
// those that vary have their length, of 32 or 64 bits, in front of them. Structs can be null there, their fields cannot.

// variablePackedField is the number of the encoding of records.
const variablePackedField = 13

// recordDecoder is values that are records of several fields.
type recordDecoder struct{ fields []recordField }

// recordField is a field of records: of so many bytes, or behind a length of so many.
type recordField struct{ bytes, lengthBytes int }

func (recordDecoder) buffers() int       { return 1 }
func (d recordDecoder) describe() string { return fmt.Sprintf("records of %d fields", len(d.fields)) }

func (recordDecoder) decode([][]byte, int, *scratch) (block, error) {
	return block{}, fmt.Errorf("records in chunks: %w", ErrUnsupported)
}

// packedCodec is a page of packed structs in 2.0, which has no nulls.
type packedCodec struct {
	buffer uint32
	field  *Field
}

func parsePackedPage(e *lancepb.ArrayEncoding, f *Field) (codec, error) {
	p := e.GetPackedStruct()
	if p == nil {
		return nil, fmt.Errorf("encoding %T of packed structs: %w", e.GetArrayEncoding(), ErrUnsupported)
	}
	if p.GetBuffer().GetBufferType() != lancepb.BufferKind_PAGE || len(p.GetInner()) != len(f.Children) {
		return nil, fmt.Errorf("packed structs of %d fields, want %d, or in a buffer outside the page: %w", len(p.GetInner()), len(f.Children), ErrUnsupported)
	}
	_, _, err := packedFields(f)
	return packedCodec{p.GetBuffer().GetBufferIndex(), f}, err
}

func (c packedCodec) check(rows int64, bufs []extent) error {
	_, bytes, err := packedFields(c.field)
	if err != nil {
		return err
	}
	return checkBuffer(bufs, c.buffer, rows, int64(bytes)*8, "packed structs")
}

func (packedCodec) describe() string { return "packed structs" }

func (c packedCodec) slice(v *pageView, _ arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	fields, bytes, err := packedFields(c.field)
	if err != nil {
		return nil, err
	}
	to = min(to, from+max(1, batchBytes/bytes))
	none := array.NewData(arrow.PrimitiveTypes.Uint8, to-from, []*memory.Buffer{nil, nil}, nil, 0, 0)
	defer none.Release()
	values := v.bytes(c.buffer)
	return unpackStructs(c.field, fields, none, func(i int) []byte { return values[(from+i)*bytes:][:bytes] }, alloc)
}

// parseRecords looks for the encoding of records in what the messages of this package do not have.
func parseRecords(b []byte) (blockDecoder, error) {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeField(b)
		if n < 0 {
			return nil, errors.New("an encoding that is cut off")
		}
		if number == variablePackedField && kind == protowire.BytesType {
			_, _, head := protowire.ConsumeTag(b)
			message, _ := protowire.ConsumeBytes(b[head:])
			return parseRecordFields(message)
		}
		b = b[n:]
	}
	return nil, errors.New("an empty encoding")
}

// parseRecordFields reads the fields of records, each a message of its encoding and its width, or that of its length.
func parseRecordFields(b []byte) (blockDecoder, error) {
	var d recordDecoder
	for len(b) > 0 {
		_, kind, head := protowire.ConsumeTag(b)
		if head < 0 || kind != protowire.BytesType {
			return nil, errors.New("records whose fields are no messages")
		}
		message, n := protowire.ConsumeBytes(b[head:])
		if n < 0 {
			return nil, errors.New("records that are cut off")
		}
		f, err := parseRecordField(message)
		if err != nil {
			return nil, err
		}
		d.fields, b = append(d.fields, f), b[head+n:]
	}
	return d, nil
}

func parseRecordField(b []byte) (recordField, error) {
	var f recordField
	for len(b) > 0 {
		number, kind, head := protowire.ConsumeTag(b)
		if head < 0 {
			return f, errors.New("a record's field that is cut off")
		}
		n := protowire.ConsumeFieldValue(number, kind, b[head:])
		if n < 0 {
			return f, errors.New("a record's field that is cut off")
		}
		switch value := b[head : head+n]; {
		case number == 1 && kind == protowire.BytesType:
			message, _ := protowire.ConsumeBytes(value)
			var e lancepb.CompressiveEncoding
			if err := proto.Unmarshal(message, &e); err != nil {
				return f, err
			}
			if e.GetFlat() == nil && e.GetVariable() == nil {
				return f, fmt.Errorf("records of %T: %w", e.GetCompression(), ErrUnsupported)
			}
		case kind == protowire.VarintType:
			width, _ := protowire.ConsumeVarint(value)
			if width == 0 || width%8 != 0 || width > maxRowBits || number == 3 && width != 32 && width != 64 {
				return f, fmt.Errorf("a record's field of %d bits: %w", width, ErrUnsupported)
			}
			if number == 2 {
				f.bytes = int(width / 8)
			} else {
				f.lengthBytes = int(width / 8)
			}
		}
		b = b[head+n:]
	}
	if (f.bytes > 0) == (f.lengthBytes > 0) {
		return f, errors.New("a record's field without a width")
	}
	return f, nil
}

// next returns the bytes of a field at the begin of a record, and what is behind it.
func (f recordField) next(b []byte) (value, rest []byte, err error) {
	n := uint64(f.bytes)
	if f.lengthBytes > 0 {
		if len(b) < f.lengthBytes {
			return nil, nil, errors.New("a record that is cut off")
		}
		if n = uint64(le.Uint32(b)); f.lengthBytes == 8 {
			n = le.Uint64(b)
		}
		b = b[f.lengthBytes:]
	}
	if n > uint64(len(b)) {
		return nil, nil, errors.New("a record that is cut off")
	}
	return b[:n], b[n:], nil
}

// packedFields returns the fields of records of a packed struct whose fields all have one width.
func packedFields(f *Field) ([]recordField, int, error) {
	fields, total := make([]recordField, len(f.Children)), 0
	for i := range f.Children {
		bits := bitWidth(f.Children[i].Type)
		if bits == 0 || bits%8 != 0 || len(f.Children[i].Children) > 0 {
			return nil, 0, fmt.Errorf("packed structs with a field of %s: %w", f.Children[i].Type, ErrUnsupported)
		}
		fields[i].bytes = int(bits / 8)
		total += int(bits / 8)
	}
	return fields, total, nil
}

// unpackStructs returns structs of what records hold, whose bytes come from a function.
func unpackStructs(f *Field, fields []recordField, d arrow.ArrayData, record func(i int) []byte, alloc memory.Allocator) (arrow.ArrayData, error) {
	n := d.Len()
	values := make([]*leafValues, len(f.Children))
	defer func() {
		for _, v := range values {
			if v != nil {
				v.release()
			}
		}
	}()
	if len(fields) != len(values) {
		return nil, fmt.Errorf("records of %d fields for structs of %d", len(fields), len(values))
	}
	for i := range values {
		if len(f.Children[i].Children) > 0 || f.Children[i].form != plainForm {
			return nil, fmt.Errorf("packed structs with a field of %s: %w", f.Children[i].Type, ErrUnsupported)
		}
		values[i] = newLeafValues(f.Children[i].Type, n, alloc)
	}
	validity, nulls := copiedValidity(d, alloc)
	defer releaseBuffer(validity)
	c := chunk{data: d, n: n}
	for row := range n {
		b, gone := []byte(nil), c.isNull(row)
		if !gone {
			b = record(row)
		}
		for i, field := range fields {
			if gone {
				if err := values[i].addNulls(1); err != nil {
					return nil, err
				}
				continue
			}
			value, rest, err := field.next(b)
			if err == nil {
				err = values[i].addOne(value)
			}
			if err != nil {
				return nil, fmt.Errorf("field %q: %w", f.Children[i].Name, err)
			}
			b = rest
		}
	}
	children := make([]arrow.ArrayData, len(values))
	for i, v := range values {
		children[i] = v.array(nil, 0)
		defer children[i].Release()
	}
	return array.NewData(f.Type, n, []*memory.Buffer{validity}, children, nulls, 0), nil
}

// isNull reports whether a row is null.
func (c chunk) isNull(row int) bool {
	v := c.validity()
	return v != nil && v[(c.offset()+row)/8]>>((c.offset()+row)%8)&1 == 0
}

// addOne appends a value, given by its bytes.
func (v *leafValues) addOne(b []byte) error {
	if v.offsets != nil {
		return v.add(&block{n: 1, data: b, ends: []uint64{0, uint64(len(b))}}, 0, 1)
	}
	if len(b)*8 != v.bits {
		return fmt.Errorf("%d bytes of a %s", len(b), v.dt)
	}
	return v.add(&block{n: 1, bits: v.bits, data: b}, 0, 1)
}
