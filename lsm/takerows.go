package lsm

import (
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
)

// takeRows returns some rows of an array, ascending and in memory of their own outside the Go heap. The caller releases
// it.
func takeRows(a arrow.Array, rows []int32) (arrow.Array, error) {
	d, err := takeData(a, rows)
	if err != nil {
		return nil, err
	}
	defer d.Release()
	return array.MakeFromData(d), nil
}

// takeData is takeRows for the data of an array.
func takeData(a arrow.Array, rows []int32) (arrow.ArrayData, error) {
	d := a.Data()
	valid, nulls := takeValidity(a, rows)
	defer release(valid)
	switch t := a.DataType().(type) {
	case *arrow.BooleanType:
		values := takeBits(d.Buffers()[1].Bytes(), d.Offset(), rows)
		defer values.Release()
		return array.NewData(t, len(rows), []*memory.Buffer{valid, values}, nil, nulls, 0), nil
	case *arrow.BinaryType, *arrow.StringType:
		return takeBytes[int32](d, rows, valid, nulls), nil
	case *arrow.LargeBinaryType, *arrow.LargeStringType:
		return takeBytes[int64](d, rows, valid, nulls), nil
	case *arrow.StructType:
		s := a.(*array.Struct)
		var children []arrow.ArrayData
		defer func() { releaseAll(children) }()
		for i := range s.NumField() {
			child, err := takeData(s.Field(i), rows) // has the offset of the struct
			if err != nil {
				return nil, err
			}
			children = append(children, child)
		}
		return array.NewData(t, len(rows), []*memory.Buffer{valid}, children, nulls, 0), nil
	case *arrow.ListType, *arrow.LargeListType, *arrow.MapType:
		return takeLists(a.(array.ListLike), rows, valid, nulls)
	case *arrow.FixedSizeListType:
		return takeFixedLists(a.(*array.FixedSizeList), t, rows, valid, nulls)
	}
	if width := fixedBytes(d); width > 0 {
		values := takeFixed(d.Buffers()[1].Bytes(), d.Offset(), width, rows)
		defer values.Release()
		return array.NewData(a.DataType(), len(rows), []*memory.Buffer{valid, values}, nil, nulls, 0), nil
	}
	return takeRuns(a, rows)
}

// fixedBytes returns the size of each value of an array that has them in one buffer behind each other, 0 for others.
func fixedBytes(d arrow.ArrayData) int {
	t, ok := d.DataType().(arrow.FixedWidthDataType)
	if !ok || d.DataType().ID() == arrow.DICTIONARY || t.BitWidth()%8 > 0 || len(d.Buffers()) != 2 || d.Buffers()[1] == nil {
		return 0
	}
	return t.BitWidth() / 8
}

// takeRuns is takeData for types of any kind: dear where rows are single.
func takeRuns(a arrow.Array, rows []int32) (arrow.ArrayData, error) {
	var runs []arrow.Array
	defer func() {
		for _, r := range runs {
			r.Release()
		}
	}()
	for i := 0; i < len(rows); {
		n := 1
		for i+n < len(rows) && rows[i+n] == rows[i]+int32(n) {
			n++
		}
		runs = append(runs, array.NewSlice(a, int64(rows[i]), int64(rows[i])+int64(n)))
		i += n
	}
	if len(runs) == 0 {
		runs = append(runs, array.NewSlice(a, 0, 0))
	}
	out, err := array.Concatenate(runs, offheap.Default)
	if err != nil {
		return nil, err
	}
	defer out.Release()
	d := out.Data()
	d.Retain()
	return d, nil
}

// takeValidity returns which rows are valid, nil when all are, and how many are not.
func takeValidity(a arrow.Array, rows []int32) (*memory.Buffer, int) {
	if a.NullN() == 0 || a.NullBitmapBytes() == nil {
		return nil, 0
	}
	b := takeBits(a.NullBitmapBytes(), a.Data().Offset(), rows)
	nulls := len(rows) - bitutil.CountSetBits(b.Bytes(), 0, len(rows))
	if nulls == 0 {
		b.Release()
		return nil, 0
	}
	return b, nulls
}

// takeBits returns some bits.
func takeBits(from []byte, offset int, rows []int32) *memory.Buffer {
	b := newBuffer((len(rows) + 7) / 8)
	out := b.Bytes()
	clear(out)
	for i, r := range rows {
		if bitutil.BitIsSet(from, offset+int(r)) {
			bitutil.SetBit(out, i)
		}
	}
	return b
}

// takeFixed returns some values of a number of bytes each.
func takeFixed(from []byte, offset, width int, rows []int32) *memory.Buffer {
	b := newBuffer(len(rows) * width)
	out := b.Bytes()
	from = from[offset*width:]
	switch width {
	case 4:
		for i, r := range rows {
			binary.NativeEndian.PutUint32(out[4*i:], binary.NativeEndian.Uint32(from[4*int(r):]))
		}
	case 8:
		for i, r := range rows {
			binary.NativeEndian.PutUint64(out[8*i:], binary.NativeEndian.Uint64(from[8*int(r):]))
		}
	default:
		for i, r := range rows {
			copy(out[i*width:(i+1)*width], from[int(r)*width:])
		}
	}
	return b
}

// takeBytes returns some texts or binaries with offsets of type T.
func takeBytes[T int32 | int64](d arrow.ArrayData, rows []int32, valid *memory.Buffer, nulls int) arrow.ArrayData {
	var offsets []T
	var data []byte
	if d.Buffers()[1] != nil { // an empty array may have none
		offsets = arrow.GetData[T](d.Buffers()[1].Bytes())[d.Offset():]
	}
	if d.Buffers()[2] != nil {
		data = d.Buffers()[2].Bytes()
	}
	size := 0
	for _, r := range rows {
		size += int(offsets[r+1] - offsets[r])
	}
	ends, values := newBuffer((len(rows)+1)*binary.Size(T(0))), newBuffer(size)
	defer ends.Release()
	defer values.Release()
	out, text := arrow.GetData[T](ends.Bytes()), values.Bytes()
	at := 0
	out[0] = 0
	for i, r := range rows {
		at += copy(text[at:], data[offsets[r]:offsets[r+1]])
		out[i+1] = T(at)
	}
	return array.NewData(d.DataType(), len(rows), []*memory.Buffer{valid, ends, values}, nil, nulls, 0)
}

// takeLists returns some lists, with the items that they have.
func takeLists(a array.ListLike, rows []int32, valid *memory.Buffer, nulls int) (arrow.ArrayData, error) {
	var items []int32
	lengths := make([]int64, len(rows))
	for i, r := range rows {
		first, last := a.ValueOffsets(int(r))
		lengths[i] = last - first
		for j := first; j < last; j++ {
			items = append(items, int32(j))
		}
	}
	child, err := takeData(a.ListValues(), items)
	if err != nil {
		return nil, err
	}
	defer child.Release()
	var ends *memory.Buffer
	if a.DataType().ID() == arrow.LARGE_LIST {
		ends = sums[int64](lengths)
	} else {
		ends = sums[int32](lengths)
	}
	defer ends.Release()
	return array.NewData(a.DataType(), len(rows), []*memory.Buffer{valid, ends}, []arrow.ArrayData{child}, nulls, 0), nil
}

// sums returns the offsets of lists with these lengths.
func sums[T int32 | int64](lengths []int64) *memory.Buffer {
	b := newBuffer((len(lengths) + 1) * binary.Size(T(0)))
	out := arrow.GetData[T](b.Bytes())
	out[0] = 0
	for i, n := range lengths {
		out[i+1] = out[i] + T(n)
	}
	return b
}

// takeFixedLists returns some fixed-size lists. Vectors are taken as a whole.
func takeFixedLists(a *array.FixedSizeList, t *arrow.FixedSizeListType, rows []int32, valid *memory.Buffer, nulls int) (arrow.ArrayData, error) {
	n := int(t.Len())
	items := a.ListValues()
	var child arrow.ArrayData
	if d := items.Data(); items.NullN() == 0 && fixedBytes(d) > 0 {
		values := takeFixed(d.Buffers()[1].Bytes()[d.Offset()*fixedBytes(d):], a.Data().Offset(), n*fixedBytes(d), rows)
		defer values.Release()
		child = array.NewData(d.DataType(), n*len(rows), []*memory.Buffer{nil, values}, nil, 0, 0)
	} else {
		places := make([]int32, 0, n*len(rows))
		for _, r := range rows {
			first, last := a.ValueOffsets(int(r))
			for j := first; j < last; j++ {
				places = append(places, int32(j))
			}
		}
		var err error
		if child, err = takeData(items, places); err != nil {
			return nil, err
		}
	}
	defer child.Release()
	return array.NewData(t, len(rows), []*memory.Buffer{valid}, []arrow.ArrayData{child}, nulls, 0), nil
}

// newBuffer returns n bytes outside the Go heap.
func newBuffer(n int) *memory.Buffer {
	b := memory.NewResizableBuffer(offheap.Default)
	b.Resize(n)
	return b
}

// release lets a buffer go, which may be nil.
func release(b *memory.Buffer) {
	if b != nil {
		b.Release()
	}
}

// releaseAll lets the data of arrays go.
func releaseAll(list []arrow.ArrayData) {
	for _, d := range list {
		d.Release()
	}
}
