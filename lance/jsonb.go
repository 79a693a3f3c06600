package lance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Lance's JSON is binary, all numbers big-endian:
//
//	container: u32 kind << 28 | n | entries | what they are
//	entry:     u32 kind << 28 | bytes
//
// A scalar has one entry, an array of n one for each item, an object those of its n keys, ascending, and then those of its n
// values; then the keys, and the values. An entry's bytes are a container, the bytes of a string or a number: a byte for
// its kind, and the value.
const (
	jsonScalar, jsonObject, jsonArray = 2, 4, 8

	jsonNull, jsonString, jsonNumber, jsonFalse, jsonTrue, jsonContainer = 0, 1, 2, 3, 4, 5

	jsonZero, jsonNaN, jsonInfinite, jsonNegativeInfinite, jsonInt, jsonUint, jsonFloat = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60

	// jsonSize is the part of an entry that is no kind.
	jsonSize = 1<<28 - 1
	// jsonDepth bounds how deep values are nested: they are read by recursion.
	jsonDepth = 1000
)

var errJSON = errors.New("the value of JSON is cut off")

// appendJSON appends the text of a value, as Lance's own reader writes it.
func appendJSON(out, b []byte, depth int) ([]byte, error) {
	if depth > jsonDepth {
		return nil, fmt.Errorf("JSON that is nested more than %d deep: %w", jsonDepth, ErrUnsupported)
	}
	if len(b) < 4 {
		return nil, errJSON
	}
	head := binary.BigEndian.Uint32(b)
	n, kind := int(head&jsonSize), head>>28
	entries := n
	switch kind {
	case jsonScalar:
		entries = 1
	case jsonObject:
		entries = 2 * n
	case jsonArray:
	default:
		return nil, fmt.Errorf("JSON of kind %d: %w", kind, ErrUnsupported)
	}
	if entries > (len(b)-4)/4 {
		return nil, errJSON
	}
	v := jsonEntries{heads: b[4 : 4+4*entries], rest: b[4+4*entries:], depth: depth}
	switch kind {
	case jsonScalar:
		return v.append(out)
	case jsonArray:
		return v.appendArray(out, n)
	}
	return v.appendObject(out, n)
}

// jsonEntries are the entries of a container that are not read yet.
type jsonEntries struct {
	heads, rest []byte
	depth       int
}

// next returns the kind and the bytes of the next entry.
func (v *jsonEntries) next() (kind uint32, b []byte, err error) {
	head := binary.BigEndian.Uint32(v.heads)
	v.heads = v.heads[4:]
	n := int(head & jsonSize)
	if n > len(v.rest) {
		return 0, nil, errJSON
	}
	b, v.rest = v.rest[:n], v.rest[n:]
	return head >> 28, b, nil
}

// append appends the next entry.
func (v *jsonEntries) append(out []byte) ([]byte, error) {
	kind, b, err := v.next()
	if err != nil {
		return nil, err
	}
	switch kind {
	case jsonNull:
		return append(out, "null"...), nil
	case jsonFalse:
		return append(out, "false"...), nil
	case jsonTrue:
		return append(out, "true"...), nil
	case jsonString:
		return appendJSONString(out, b)
	case jsonNumber:
		return appendJSONNumber(out, b)
	case jsonContainer:
		return appendJSON(out, b, v.depth+1)
	}
	return nil, fmt.Errorf("a JSON value of kind %d: %w", kind, ErrUnsupported)
}

func (v *jsonEntries) appendArray(out []byte, n int) ([]byte, error) {
	out = append(out, '[')
	var err error
	for i := range n {
		if i > 0 {
			out = append(out, ',')
		}
		if out, err = v.append(out); err != nil {
			return nil, err
		}
	}
	return append(out, ']'), nil
}

func (v *jsonEntries) appendObject(out []byte, n int) ([]byte, error) {
	keys := make([][]byte, n)
	for i := range keys {
		kind, key, err := v.next()
		if err != nil {
			return nil, err
		}
		if kind != jsonString {
			return nil, fmt.Errorf("a JSON key of kind %d", kind)
		}
		keys[i] = key
	}
	out = append(out, '{')
	for i, key := range keys {
		if i > 0 {
			out = append(out, ',')
		}
		var err error
		if out, err = appendJSONString(out, key); err == nil {
			out, err = v.append(append(out, ':'))
		}
		if err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

func appendJSONString(out, b []byte) ([]byte, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("a JSON string that is not UTF-8")
	}
	out = append(out, '"')
	for _, c := range b {
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c == '\b':
			out = append(out, `\b`...)
		case c == '\f':
			out = append(out, `\f`...)
		case c == '\n':
			out = append(out, `\n`...)
		case c == '\r':
			out = append(out, `\r`...)
		case c == '\t':
			out = append(out, `\t`...)
		case c < 0x20:
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			out = append(out, c)
		}
	}
	return append(out, '"'), nil
}

func appendJSONNumber(out, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errJSON
	}
	kind, size := b[0], len(b)-1
	if size > 8 {
		return nil, fmt.Errorf("a JSON number of kind %#x and %d bytes: %w", kind, size, ErrUnsupported)
	}
	var word [8]byte
	copy(word[8-size:], b[1:])
	n := binary.BigEndian.Uint64(word[:])
	switch kind {
	case jsonZero:
		return append(out, '0'), nil
	case jsonNaN, jsonInfinite, jsonNegativeInfinite: // which the text of JSON cannot say
		return append(out, "null"...), nil
	case jsonInt:
		if size == 0 {
			return append(out, '0'), nil
		}
		shift := 64 - 8*size
		return strconv.AppendInt(out, int64(n<<shift)>>shift, 10), nil
	case jsonUint:
		return strconv.AppendUint(out, n, 10), nil
	case jsonFloat:
		if size == 8 {
			return appendJSONFloat(out, math.Float64frombits(n)), nil
		}
	}
	return nil, fmt.Errorf("a JSON number of kind %#x and %d bytes: %w", kind, size, ErrUnsupported)
}

// appendJSONFloat appends a number that has a point or an exponent, as Lance's own reader does.
func appendJSONFloat(out []byte, f float64) []byte {
	switch abs := math.Abs(f); {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return append(out, "null"...)
	case f == 0 || abs >= 1e-5 && abs < 1e16:
		text := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return append(out, text...)
	}
	digits, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	return append(append(append(out, digits...), 'e', exponent[0]), strings.TrimLeft(exponent[1:], "0")...)
}

// jsonTexts returns the texts of an array of binary JSON, as an array of a type of strings.
func jsonTexts(d arrow.ArrayData, dt arrow.DataType, alloc memory.Allocator) (arrow.ArrayData, error) {
	values, n := textsOf(d), d.Len()
	var text []byte
	ends := make([]int32, 1, n+1)
	validity := chunk{data: d}.validity()
	for i := range n {
		if validity == nil || bitutil.BitIsSet(validity, d.Offset()+i) {
			var err error
			if text, err = appendJSON(text, values.at(d.Offset()+i), 0); err != nil {
				return nil, fmt.Errorf("row %d: %w", i, err)
			}
			if len(text) > math.MaxInt32 {
				return nil, errTooWide
			}
		}
		ends = append(ends, int32(len(text)))
	}
	offsets, data := sizedBuffer(alloc, 4*len(ends)), sizedBuffer(alloc, len(text))
	defer offsets.Release()
	defer data.Release()
	copy(offsets.Bytes(), arrow.Int32Traits.CastToBytes(ends))
	copy(data.Bytes(), text)
	bitmap, nulls := copiedValidity(d, alloc)
	defer releaseBuffer(bitmap)
	return array.NewData(dt, n, []*memory.Buffer{bitmap, offsets, data}, nil, nulls, 0), nil
}

// copiedValidity returns the validity of an array's rows as a bitmap of its own, nil when there are no nulls.
func copiedValidity(d arrow.ArrayData, alloc memory.Allocator) (*memory.Buffer, int) {
	c := chunk{data: d, n: d.Len()}
	nulls := c.nulls()
	if nulls == 0 {
		return nil, 0
	}
	b := sizedBuffer(alloc, bitBytes(c.n))
	bitutil.CopyBitmap(c.validity(), c.offset(), c.n, b.Bytes(), 0)
	return b, nulls
}
