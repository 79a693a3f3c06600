package flight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// array loads an array of a type that plainType accepted, and decodes it to that. The caller releases it.
func (l *loader) array(t arrow.DataType) (arrow.ArrayData, error) {
	switch t := t.(type) {
	case *arrow.NullType:
		return l.null(t)
	case *arrow.DictionaryType:
		return l.dictionaryColumn(t)
	case arrow.BinaryViewDataType:
		return l.view(t)
	case *arrow.FixedSizeListType:
		return l.fixedList(t)
	case *arrow.ListType, *arrow.MapType:
		return l.list(t.(arrow.ListLikeType), 4)
	case *arrow.LargeListType:
		return l.list(t, 8)
	case *arrow.StructType:
		return l.structure(t)
	case *arrow.StringType, *arrow.BinaryType:
		return l.binary(t, 4)
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		return l.binary(t, 8)
	case arrow.FixedWidthDataType:
		return l.fixed(t)
	}
	return nil, fmt.Errorf("type %s is not read", t)
}

// decodedType returns plainType of a type that it accepted before. A type without dictionaries and views in it stays
// itself.
func decodedType(t arrow.DataType) arrow.DataType {
	if !hasEncoded(t) {
		return t
	}
	plain, err := plainType(t)
	if err != nil {
		return t
	}
	return plain
}

// hasEncoded reports whether a type is, or has in it, one that decoding changes.
func hasEncoded(t arrow.DataType) bool {
	switch t := t.(type) {
	case *arrow.DictionaryType, arrow.BinaryViewDataType:
		return true
	case arrow.NestedType:
		return slices.ContainsFunc(t.Fields(), func(f arrow.Field) bool { return hasEncoded(f.Type) })
	}
	return false
}

// null loads an array without buffers.
func (l *loader) null(t arrow.DataType) (arrow.ArrayData, error) {
	rows, _, err := l.bareNode()
	if err != nil {
		return nil, err
	}
	return array.NewData(t, rows, []*memory.Buffer{nil}, nil, rows, 0), nil
}

// maxBits bounds a product of rows and width before it is formed.
const maxBits = 1 << 50

// fixed loads an array of values of one width, down to a bit.
func (l *loader) fixed(t arrow.FixedWidthDataType) (arrow.ArrayData, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	defer n.release()
	bits := int64(t.BitWidth())
	if bits > 0 && int64(n.rows) > maxBits/bits {
		return nil, fmt.Errorf("%d values of %d bits cannot be", n.rows, bits)
	}
	values, err := l.buffer((int64(n.rows)*bits + 7) / 8)
	if err != nil {
		return nil, err
	}
	defer values.Release()
	return array.NewData(t, n.rows, []*memory.Buffer{n.validity, values}, nil, n.nulls, 0), nil
}

// binary loads an array of strings or bytes with offsets of width bytes.
func (l *loader) binary(t arrow.DataType, width int) (arrow.ArrayData, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	defer n.release()
	offsets, err := l.offsets(n.rows, width)
	if err != nil {
		return nil, err
	}
	defer offsets.Release()
	values, err := l.buffer(0)
	if err != nil {
		return nil, err
	}
	defer values.Release()
	if err := checkOffsets(offsets.Bytes(), n.rows, width, int64(values.Len())); err != nil {
		return nil, err
	}
	if t.ID() == arrow.STRING || t.ID() == arrow.LARGE_STRING {
		if err := checkText(n, offsets.Bytes(), width, values.Bytes()); err != nil {
			return nil, err
		}
	}
	return array.NewData(t, n.rows, []*memory.Buffer{n.validity, offsets, values}, nil, n.nulls, 0), nil
}

// offsets takes an offsets buffer; of an array without rows it may be missing.
func (l *loader) offsets(rows, width int) (*memory.Buffer, error) {
	if rows == 0 {
		return l.buffer(0)
	}
	return l.buffer((int64(rows) + 1) * int64(width))
}

// list loads a list with offsets of width bytes.
func (l *loader) list(t arrow.ListLikeType, width int) (arrow.ArrayData, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	defer n.release()
	offsets, err := l.offsets(n.rows, width)
	if err != nil {
		return nil, err
	}
	defer offsets.Release()
	child, err := l.array(t.Elem())
	if err != nil {
		return nil, err
	}
	defer child.Release()
	if err := checkOffsets(offsets.Bytes(), n.rows, width, int64(child.Len())); err != nil {
		return nil, err
	}
	if err := checkEntries(t, child); err != nil {
		return nil, err
	}
	return array.NewData(decodedType(t), n.rows, []*memory.Buffer{n.validity, offsets}, []arrow.ArrayData{child}, n.nulls, 0), nil
}

// checkEntries reports maps with entries or keys that are null, which Arrow's arrays panic over.
func checkEntries(t arrow.DataType, entries arrow.ArrayData) error {
	if t.ID() == arrow.MAP && entries.NullN()+entries.Children()[0].NullN() > 0 {
		return errors.New("a map has a key that is null")
	}
	return nil
}

// fixedList loads a list of a set number of elements.
func (l *loader) fixedList(t *arrow.FixedSizeListType) (arrow.ArrayData, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	defer n.release()
	child, err := l.array(t.Elem())
	if err != nil {
		return nil, err
	}
	defer child.Release()
	if want := int64(n.rows) * int64(t.Len()); int64(child.Len()) != want {
		return nil, fmt.Errorf("%d lists of %d have %d elements, want %d", n.rows, t.Len(), child.Len(), want)
	}
	return array.NewData(decodedType(t), n.rows, []*memory.Buffer{n.validity}, []arrow.ArrayData{child}, n.nulls, 0), nil
}

// structure loads a struct and its fields.
func (l *loader) structure(t *arrow.StructType) (arrow.ArrayData, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	defer n.release()
	children := make([]arrow.ArrayData, 0, t.NumFields())
	defer func() {
		for _, child := range children {
			child.Release()
		}
	}()
	for _, field := range t.Fields() {
		child, err := l.array(field.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.Name, err)
		}
		children = append(children, child)
		if child.Len() != n.rows {
			return nil, fmt.Errorf("%s has %d values in a struct of %d", field.Name, child.Len(), n.rows)
		}
	}
	return array.NewData(decodedType(t), n.rows, []*memory.Buffer{n.validity}, children, n.nulls, 0), nil
}

// checkOffsets reports offsets that fall, or point outside [0, size].
func checkOffsets(b []byte, rows, width int, size int64) error {
	if rows == 0 {
		return nil
	}
	previous := int64(0)
	for i := 0; i <= rows; i++ {
		at := offsetAt(b, i, width)
		if at < previous {
			return fmt.Errorf("offset %d is %d, below the %d before it", i, at, previous)
		}
		previous = at
	}
	if previous > size {
		return fmt.Errorf("the last offset is %d, beyond the %d values", previous, size)
	}
	return nil
}

// offsetAt reads offset i.
func offsetAt(b []byte, i, width int) int64 {
	if width == 4 {
		return int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
	}
	return int64(binary.LittleEndian.Uint64(b[8*i:]))
}

// checkText reports strings that are not UTF-8, which DuckDB and every reader of a string column rely on. The
// whole of the column is looked at in one pass; only when that fails, or a value starts inside a character, are the
// values looked at one by one, because bytes under a null may be anything.
func checkText(n node, offsets []byte, width int, values []byte) error {
	if n.rows == 0 {
		return nil
	}
	first, last := offsetAt(offsets, 0, width), offsetAt(offsets, n.rows, width)
	whole := utf8.Valid(values[first:last])
	for i := 0; i < n.rows && whole; i++ {
		at := offsetAt(offsets, i, width)
		whole = at == last || utf8.RuneStart(values[at])
	}
	if whole {
		return nil
	}
	for i := range n.rows {
		if n.validity != nil && !bitutil.BitIsSet(n.validity.Bytes(), i) {
			continue
		}
		if !utf8.Valid(values[offsetAt(offsets, i, width):offsetAt(offsets, i+1, width)]) {
			return fmt.Errorf("the string in row %d is not UTF-8; send bytes as a binary column", i)
		}
	}
	return nil
}

// countBits returns how many of the first n bits are set.
func countBits(b *memory.Buffer, n int) int {
	return bitutil.CountSetBits(b.Bytes(), 0, n)
}
