package query

import (
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/internal/offheap"
)

// scanArray returns the array whose buffers DuckDB reads for a column: the column itself, except for half floats,
// which DuckDB does not know and which a FLOAT holds exactly, for nulls without a type, which no column of DuckDB can
// be, and for structs that begin in the middle, whose offset is exported twice, with them and with their fields. The
// caller releases it.
func scanArray(arr arrow.Array) arrow.Array {
	if !isRebuilt(arr.DataType()) && !hasStructOffset(arr.Data()) {
		arr.Retain()
		return arr
	}
	switch a := arr.(type) {
	case *array.Float16:
		return widenHalf(a)
	case *array.Null:
		return typeNulls(a)
	case *array.Struct:
		return scanStruct(a)
	}
	// The offset of a list is that of its rows, not of the values: what is around them stays as it is.
	d := arr.Data()
	values := array.MakeFromData(d.Children()[0])
	defer values.Release()
	wide := scanArray(values)
	defer wide.Release()
	data := array.NewData(scanType(arr.DataType()), d.Len(), d.Buffers(), []arrow.ArrayData{wide.Data()}, arr.NullN(), d.Offset())
	defer data.Release()
	return array.MakeFromData(data)
}

// scanStruct is scanArray of a struct. Arrow's fields of a struct begin with its first row.
func scanStruct(a *array.Struct) arrow.Array {
	children := make([]arrow.ArrayData, a.NumField())
	for i := range children {
		child := scanArray(a.Field(i))
		defer child.Release()
		children[i] = child.Data()
	}
	validity, drop := validityOf(a)
	defer drop()
	data := array.NewData(scanType(a.DataType()), a.Len(), []*memory.Buffer{validity}, children, a.NullN(), 0)
	defer data.Release()
	return array.MakeFromData(data)
}

// hasStructOffset reports whether a struct in the array begins in the middle of its buffers.
func hasStructOffset(d arrow.ArrayData) bool {
	return d.DataType().ID() == arrow.STRUCT && d.Offset() != 0 || slices.ContainsFunc(d.Children(), hasStructOffset)
}

// isRebuilt reports whether there are half floats or nulls in a type, whose arrays are made anew for DuckDB.
func isRebuilt(dt arrow.DataType) bool {
	if t, ok := dt.(arrow.NestedType); ok {
		return slices.ContainsFunc(t.Fields(), func(f arrow.Field) bool { return isRebuilt(f.Type) })
	}
	return dt.ID() == arrow.FLOAT16 || dt.ID() == arrow.NULL
}

// typeNulls makes INTEGERs of nulls without a type, outside the Go heap.
func typeNulls(a *array.Null) arrow.Array {
	values, validity := memory.NewResizableBuffer(offheap.Default), memory.NewResizableBuffer(offheap.Default)
	values.Resize(a.Len() * arrow.Int32SizeBytes)
	validity.Resize((a.Len() + 7) / 8)
	defer values.Release()
	defer validity.Release()
	clear(values.Bytes())
	clear(validity.Bytes())
	data := array.NewData(arrow.PrimitiveTypes.Int32, a.Len(), []*memory.Buffer{validity, values}, nil, a.Len(), 0)
	defer data.Release()
	return array.NewInt32Data(data)
}

// widenHalf converts half floats to floats, bit patterns of NaN included, outside the Go heap.
func widenHalf(a *array.Float16) arrow.Array {
	n := a.Len()
	buf := memory.NewResizableBuffer(offheap.Default)
	buf.Resize(n * arrow.Float32SizeBytes)
	defer buf.Release()
	out := arrow.Float32Traits.CastFromBytes(buf.Bytes())
	for i, h := range a.Values() {
		out[i] = math.Float32frombits(widenBits(h.Uint16()))
	}
	validity, drop := validityOf(a)
	defer drop()
	data := array.NewData(arrow.PrimitiveTypes.Float32, n, []*memory.Buffer{validity, buf}, nil, a.NullN(), 0)
	defer data.Release()
	return array.NewFloat32Data(data)
}

// widenBits is float16.Num.Float32 for every pattern, also those of NaN, whose payload that function drops.
func widenBits(h uint16) uint32 {
	if h&0x7C00 == 0x7C00 {
		return uint32(h&0x8000)<<16 | 0x7F800000 | uint32(h&0x03FF)<<13
	}
	return math.Float32bits(float16.FromBits(h).Float32())
}

// narrowBits is the inverse of widenBits; ok is false for a float that is not a half float.
func narrowBits(f uint32) (h uint16, ok bool) {
	if f&0x7F800000 == 0x7F800000 {
		h = uint16(f>>16)&0x8000 | 0x7C00 | uint16(f>>13)&0x03FF
	} else {
		h = float16.New(math.Float32frombits(f)).Uint16()
	}
	return h, widenBits(h) == f
}

// validityOf returns the array's validity bitmap from bit 0, nil when nothing is null, and what releases it.
func validityOf(arr arrow.Array) (*memory.Buffer, func()) {
	if arr.NullN() == 0 {
		return nil, func() {}
	}
	src := arr.Data().Buffers()[0]
	if arr.Data().Offset() == 0 {
		return src, func() {}
	}
	buf := memory.NewResizableBuffer(offheap.Default)
	buf.Resize((arr.Len() + 7) / 8)
	clear(buf.Bytes())
	for i := range arr.Len() {
		if arr.IsValid(i) {
			buf.Bytes()[i/8] |= 1 << (i % 8)
		}
	}
	return buf, buf.Release
}

// retype turns an array that DuckDB returned into the Arrow type of the table's column that passed through
// unchanged. It takes over arr. Values that do not fit mean that the column did change on its way: an error.
func retype(arr arrow.Array, to arrow.DataType) (arrow.Array, error) {
	defer arr.Release()
	out, err := retypeData(arr, to)
	if err != nil {
		return nil, err
	}
	defer out.Release()
	return array.MakeFromData(out), nil
}

// retypeData does the work of retype; the caller releases what it returns.
func retypeData(arr arrow.Array, to arrow.DataType) (arrow.ArrayData, error) {
	from := arr.DataType()
	switch t := to.(type) {
	case *arrow.DictionaryType:
		return encodeDictionary(arr, t)
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		if a, ok := arr.(interface{ ValueOffsets() []int32 }); ok {
			return widenOffsets(arr, a.ValueOffsets(), to), nil
		}
	case *arrow.NullType:
		if arr.NullN() == arr.Len() {
			return array.NewData(t, arr.Len(), []*memory.Buffer{nil}, nil, arr.Len(), 0), nil
		}
		return nil, fmt.Errorf("a value came for a column that has only nulls")
	case *arrow.FixedSizeBinaryType:
		if a, ok := arr.(*array.String); ok && t.ByteWidth == uuidBytes {
			return parseUUIDs(a, t)
		}
		if a, ok := arr.(*array.Binary); ok {
			return fixBinary(a, t, t.ByteWidth)
		}
	case *arrow.Decimal128Type, *arrow.Decimal256Type:
		if a, ok := arr.(*array.Binary); ok && opaqueWidth(to) > 0 {
			return fixBinary(a, to, opaqueWidth(to))
		}
	case *arrow.Float16Type:
		if a, ok := arr.(*array.Float32); ok {
			return narrowHalf(a)
		}
	case *arrow.TimestampType:
		if f, ok := from.(*arrow.TimestampType); ok && f.Unit != t.Unit {
			return divide64(arr, to, int64(f.Unit.Multiplier()), int64(t.Unit.Multiplier()))
		}
	case *arrow.Time32Type:
		if f, ok := from.(*arrow.Time64Type); ok {
			return divide32(arr, to, int64(f.Unit.Multiplier()), int64(t.Unit.Multiplier()))
		}
	case *arrow.FixedSizeListType:
		if a, ok := arr.(*array.FixedSizeList); ok && a.DataType().(*arrow.FixedSizeListType).Len() == t.Len() {
			return retypeNested(arr, t)
		}
	case *arrow.LargeListType:
		if a, ok := arr.(*array.List); ok {
			return retypeLargeList(a, t)
		}
	case *arrow.ListType, *arrow.StructType, *arrow.MapType:
		if from.ID() == to.ID() {
			return retypeNested(arr, to.(arrow.NestedType))
		}
	}
	if layoutOf(from) != layoutOf(to) {
		return nil, fmt.Errorf("a column of %s came back as %s", to, from)
	}
	d := arr.Data()
	return array.NewData(to, d.Len(), d.Buffers(), d.Children(), d.NullN(), d.Offset()), nil
}

// layoutOf names the buffers of a type, so that equal layouts can be relabelled.
func layoutOf(dt arrow.DataType) string {
	switch t := dt.(type) {
	case *arrow.BooleanType:
		return "bits"
	case *arrow.StringType, *arrow.BinaryType:
		return "offsets32"
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		return "offsets64"
	case arrow.FixedWidthDataType:
		return fmt.Sprintf("fixed%d", t.BitWidth())
	}
	return dt.String()
}

// retypeNested converts the values of a list or the fields of a struct.
func retypeNested(arr arrow.Array, to arrow.NestedType) (arrow.ArrayData, error) {
	fields := to.Fields()
	if len(fields) != len(arr.Data().Children()) {
		return nil, fmt.Errorf("a column of %s came back as %s", to, arr.DataType())
	}
	d := trimmed(arr)
	defer d.Release()
	children := make([]arrow.ArrayData, len(fields))
	for i, f := range fields {
		child := array.MakeFromData(d.Children()[i])
		out, err := retypeData(child, f.Type)
		child.Release()
		if err != nil {
			return nil, err
		}
		defer out.Release()
		children[i] = out
	}
	return array.NewData(to, d.Len(), d.Buffers(), children, d.NullN(), d.Offset()), nil
}

// trimmed returns a nested array without the values before its first row and behind its last, which are those of other
// slices of the same values: a conversion should not look at them. The caller releases it.
func trimmed(arr arrow.Array) arrow.ArrayData {
	d := arr.Data()
	first, last := int64(d.Offset()), int64(d.Offset()+d.Len())
	var offsets *memory.Buffer
	switch t := d.DataType().(type) {
	case *arrow.FixedSizeListType:
		first, last = first*int64(t.Len()), last*int64(t.Len())
	case *arrow.ListType, *arrow.MapType:
		first, last, offsets = trimmedOffsets(d)
	}
	children := make([]arrow.ArrayData, len(d.Children()))
	for i, c := range d.Children() {
		children[i] = array.NewSliceData(c, first, last)
		defer children[i].Release()
	}
	validity, drop := validityOf(arr)
	defer drop()
	bufs := []*memory.Buffer{validity}
	if offsets != nil {
		bufs = append(bufs, offsets)
	}
	return array.NewData(d.DataType(), d.Len(), bufs, children, d.NullN(), 0)
}

// trimmedOffsets returns where the values of a list's rows lie, and the offsets of the rows within them.
func trimmedOffsets(d arrow.ArrayData) (first, last int64, offsets *memory.Buffer) {
	if d.Len() == 0 {
		return 0, 0, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes([]int32{0}))
	}
	all := arrow.Int32Traits.CastFromBytes(d.Buffers()[1].Bytes())[d.Offset() : d.Offset()+d.Len()+1]
	if all[0] == 0 && d.Offset() == 0 {
		return 0, int64(all[d.Len()]), d.Buffers()[1]
	}
	rebased := make([]int32, len(all))
	for i, o := range all {
		rebased[i] = o - all[0]
	}
	return int64(all[0]), int64(all[d.Len()]), memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(rebased))
}

// retypeLargeList gives lists 64-bit offsets, too.
func retypeLargeList(a *array.List, to *arrow.LargeListType) (arrow.ArrayData, error) {
	list, err := retypeNested(a, arrow.ListOfField(to.ElemField()))
	if err != nil {
		return nil, err
	}
	defer list.Release()
	offsets := wideOffsets(arrow.Int32Traits.CastFromBytes(list.Buffers()[1].Bytes()), a.Len())
	return array.NewData(to, a.Len(), []*memory.Buffer{list.Buffers()[0], offsets}, list.Children(), a.NullN(), 0), nil
}

// widenOffsets gives strings and binaries 64-bit offsets; the bytes stay where they are.
func widenOffsets(arr arrow.Array, offsets []int32, to arrow.DataType) arrow.ArrayData {
	d := arr.Data()
	// The new offsets begin with the first row, so the validity bitmap has to, too.
	validity, drop := validityOf(arr)
	defer drop()
	return array.NewData(to, d.Len(), []*memory.Buffer{validity, wideOffsets(offsets, d.Len()), d.Buffers()[2]}, nil, d.NullN(), 0)
}

// wideOffsets returns the offsets of n rows with 64 bits. An array without rows may have none.
func wideOffsets(offsets []int32, n int) *memory.Buffer {
	wide := make([]int64, n+1)
	for i := range wide {
		if i < len(offsets) {
			wide[i] = int64(offsets[i])
		}
	}
	return memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(wide))
}

// fixBinary lays binaries of one width side by side; null rows are zeros.
func fixBinary(a *array.Binary, to arrow.DataType, width int) (arrow.ArrayData, error) {
	out := make([]byte, a.Len()*width)
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		v := a.Value(i)
		if len(v) != width {
			return nil, fmt.Errorf("a value of %s came back with %d bytes", to, len(v))
		}
		copy(out[i*width:], v)
	}
	return fixedData(a, to, out), nil
}

// parseUUIDs turns the text of UUIDs, as DuckDB hands them out, into their bytes; null rows are zeros.
func parseUUIDs(a *array.String, to arrow.DataType) (arrow.ArrayData, error) {
	out := make([]byte, a.Len()*uuidBytes)
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		v, err := uuid.Parse(a.Value(i))
		if err != nil {
			return nil, err
		}
		copy(out[i*uuidBytes:], v[:])
	}
	return fixedData(a, to, out), nil
}

// narrowHalf converts floats that were half floats back.
func narrowHalf(a *array.Float32) (arrow.ArrayData, error) {
	out := make([]uint16, a.Len())
	for i, f := range a.Float32Values() {
		h, ok := narrowBits(math.Float32bits(f))
		if !ok && a.IsValid(i) {
			return nil, fmt.Errorf("the value %v of a half-float column is no half float", f)
		}
		out[i] = h
	}
	return fixedData(a, arrow.FixedWidthTypes.Float16, arrow.Uint16Traits.CastToBytes(out)), nil
}

// divide64 brings 64-bit values from a fine unit to a coarse one; both are given in nanoseconds.
func divide64(arr arrow.Array, to arrow.DataType, from, unit int64) (arrow.ArrayData, error) {
	out := make([]int64, arr.Len())
	for i, v := range fixed64(arr) {
		if arr.IsNull(i) {
			continue
		}
		if unit < from || v%(unit/from) != 0 {
			return nil, fmt.Errorf("the value %d came back from SQL finer than %s", v, to)
		}
		out[i] = v / (unit / from)
	}
	return fixedData(arr, to, arrow.Int64Traits.CastToBytes(out)), nil
}

// divide32 is divide64 for a target of 32 bits.
func divide32(arr arrow.Array, to arrow.DataType, from, unit int64) (arrow.ArrayData, error) {
	out := make([]int32, arr.Len())
	for i, v := range fixed64(arr) {
		if arr.IsNull(i) {
			continue
		}
		if unit < from || v%(unit/from) != 0 || v/(unit/from) != int64(int32(v/(unit/from))) {
			return nil, fmt.Errorf("the value %d came back from SQL finer than %s", v, to)
		}
		out[i] = int32(v / (unit / from))
	}
	return fixedData(arr, to, arrow.Int32Traits.CastToBytes(out)), nil
}

// fixed64 views the values of an array of 64-bit values.
func fixed64(arr arrow.Array) []int64 {
	if arr.Len() == 0 {
		return nil
	}
	d := arr.Data()
	return arrow.Int64Traits.CastFromBytes(d.Buffers()[1].Bytes())[d.Offset() : d.Offset()+d.Len()]
}

// fixedData makes array data of new fixed-width values with the nulls of arr.
func fixedData(arr arrow.Array, to arrow.DataType, values []byte) arrow.ArrayData {
	validity, drop := validityOf(arr)
	defer drop()
	return array.NewData(to, arr.Len(), []*memory.Buffer{validity, memory.NewBufferBytes(values)}, nil, arr.NullN(), 0)
}
