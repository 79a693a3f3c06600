package lance

import (
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/bitutil"

	"github.com/flightd/flightd/internal/lancepb"
)

// valueWriter writes the values of a page of small values as the buffers of its chunks.
type valueWriter interface {
	// encoding says how.
	encoding() *lancepb.CompressiveEncoding
	// count is the number of buffers of a chunk.
	count() int
	// perChunk is how many values a chunk has, a power of two.
	perChunk() int
	// buffers returns the buffers of the values [from, to), valid until the next call.
	buffers(from, to int) [][]byte
}

// powerWithin returns the power of two that is not above n, at least 2 and at most what one chunk has.
func powerWithin(n int) int { return min(chunkValues, max(2, 1<<(bits.Len(uint(n))-1))) }

// plainValues writes values of one width as they are, behind the validity of their items if there are null ones.
type plainValues struct {
	*shredded
	fixed     fixedValues
	dt        arrow.DataType
	nullItems bool
	packed    []uint64 // the bits of the fields of packed structs
	bufs      [2][]byte
}

func (s *shredded) plainValues(dt arrow.DataType) *plainValues {
	w := &plainValues{shredded: s, fixed: s.fixedValues(), dt: dt}
	w.nullItems = s.nullItems(&w.fixed)
	return w
}

func (w *plainValues) encoding() *lancepb.CompressiveEncoding {
	values := valueEncoding(w.dt, w.nullItems)
	if w.packed == nil {
		return values
	}
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_PackedStruct{
		PackedStruct: &lancepb.PackedStructBlock{BitsPerValue: w.packed, Values: values},
	}}
}

func (w *plainValues) count() int {
	if w.nullItems {
		return 2
	}
	return 1
}

func (w *plainValues) perChunk() int { return powerWithin(max(1, chunkBytes/max(1, w.fixed.bits/8))) }

func (w *plainValues) buffers(from, to int) [][]byte {
	w.bufs[1] = w.appendFixed(w.bufs[1][:0], &w.fixed, from, to)
	if !w.nullItems {
		return w.bufs[1:]
	}
	w.bufs[0] = w.appendItems(w.bufs[0][:0], &w.fixed, from, to)
	return w.bufs[:]
}

// plainTexts writes strings behind their offsets.
type plainTexts struct {
	of func(i int) []byte
	// offsetBits is the width of the offsets, as Arrow has them.
	offsetBits int
	mean       int // bytes of a string
	buf        [1][]byte
}

func (s *shredded) plainTexts(dt arrow.DataType) *plainTexts {
	return &plainTexts{of: s.stringOf, offsetBits: dt.Layout().Buffers[1].ByteWidth * 8, mean: s.stringBytes() / s.n}
}

func (w *plainTexts) encoding() *lancepb.CompressiveEncoding {
	return variableBlock(int64(w.offsetBits))
}
func (w *plainTexts) count() int    { return 1 }
func (w *plainTexts) perChunk() int { return powerWithin(max(1, chunkBytes/(4+w.mean))) }

func (w *plainTexts) buffers(from, to int) [][]byte {
	put := appender(w.offsetBits)
	end := uint64(w.offsetBits / 8 * (to - from + 1))
	b := put(w.buf[0][:0], end)
	for i := from; i < to; i++ {
		end += uint64(len(w.of(i)))
		b = put(b, end)
	}
	for i := from; i < to; i++ {
		b = append(b, w.of(i)...)
	}
	w.buf[0] = pad8(b)
	return w.buf[:]
}

// texts are the strings of an array.
type texts struct {
	short []int32
	long  []int64
	data  []byte
}

func textsOf(d arrow.ArrayData) *texts {
	b, t := d.Buffers(), &texts{}
	if d.DataType().Layout().Buffers[1].ByteWidth == 8 {
		t.long = arrow.GetData[int64](b[1].Bytes())
	} else {
		t.short = arrow.GetData[int32](b[1].Bytes())
	}
	if len(b) > 2 && b[2] != nil {
		t.data = b[2].Bytes()
	}
	return t
}

// at returns the string at a place in the buffers.
func (t *texts) at(place int) []byte {
	if t.long != nil {
		return t.data[t.long[place]:t.long[place+1]]
	}
	return t.data[t.short[place]:t.short[place+1]]
}

// stringOf returns a value that varies in length, nothing when it is null.
func (s *shredded) stringOf(i int) []byte {
	if !s.isValid(i) {
		return nil
	}
	if s.texts == nil {
		s.texts = textsOf(s.data)
	}
	return s.texts.at(s.place(i))
}

// stringBytes is the size of all values.
func (s *shredded) stringBytes() (size int) {
	for i := range s.n {
		size += len(s.stringOf(i))
	}
	return size
}

// flatBlock returns the encoding of plain values.
func flatBlock(bits int64) *lancepb.CompressiveEncoding {
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_Flat{Flat: &lancepb.FlatBlock{BitsPerValue: uint64(bits)}}}
}

// variableBlock returns the encoding of strings.
func variableBlock(bits int64) *lancepb.CompressiveEncoding {
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_Variable{Variable: &lancepb.VariableBlock{Offsets: flatBlock(bits)}}}
}

// valueEncoding returns the encoding of values of one width.
func valueEncoding(dt arrow.DataType, nullItems bool) *lancepb.CompressiveEncoding {
	l, ok := dt.(*arrow.FixedSizeListType)
	if !ok {
		return flatBlock(bitWidth(dt))
	}
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_FixedSizeList{FixedSizeList: &lancepb.FixedSizeListBlock{
		ItemsPerValue: uint64(l.Len()), Values: flatBlock(bitWidth(l.Elem())), HasValidity: nullItems,
	}}}
}

// fixedValues reads values of one width, or the items of lists of one length, from Arrow's buffers.
type fixedValues struct {
	data  []byte
	bits  int // of a value
	items int
	shift int    // values before the first in data
	valid []byte // of items; nil when all of them are valid
	start int    // items before the first in valid
}

func (s *shredded) fixedValues() fixedValues {
	d := s.data
	v := fixedValues{bits: int(bitWidth(d.DataType())), items: 1}
	if l, ok := d.DataType().(*arrow.FixedSizeListType); ok {
		d, v.items = d.Children()[0], int(l.Len())
		v.start = d.Offset()
		if c := (chunk{data: d, n: d.Len()}); c.nulls() > 0 {
			v.valid = c.validity()
		}
	}
	v.data = d.Buffers()[1].Bytes()
	v.shift = v.start * v.bits / v.items // in bits
	return v
}

// bitsAt returns where a value begins, in bits.
func (v *fixedValues) bitsAt(place int) int { return v.shift + place*v.bits }

// nullItems reports whether items of valid lists are null.
func (s *shredded) nullItems(v *fixedValues) bool {
	if v.valid == nil {
		return false
	}
	for i := range s.n {
		if s.isValid(i) && bitutil.CountSetBits(v.valid, v.start+s.place(i)*v.items, v.items) < v.items {
			return true
		}
	}
	return false
}

// appendFixed appends the values [from, to) to b.
func (s *shredded) appendFixed(b []byte, v *fixedValues, from, to int) []byte {
	if v.bits%8 == 0 {
		width := v.bits / 8
		if s.places == nil {
			at := v.bitsAt(s.place(from)) / 8
			return append(b, v.data[at:at+(to-from)*width]...)
		}
		for i := from; i < to; i++ {
			at := v.bitsAt(s.place(i)) / 8
			b = append(b, v.data[at:at+width]...)
		}
		return b
	}
	head := len(b)
	b = append(b, make([]byte, bitBytes((to-from)*v.bits))...)
	for i := from; i < to; i++ {
		bitutil.CopyBitmap(v.data, v.bitsAt(s.place(i)), v.bits, b[head:], (i-from)*v.bits)
	}
	return b
}

// appendItems appends the validity of the items of the values [from, to).
func (s *shredded) appendItems(b []byte, v *fixedValues, from, to int) []byte {
	head := len(b)
	b = append(b, make([]byte, bitBytes((to-from)*v.items))...)
	for i := from; i < to; i++ {
		bitutil.CopyBitmap(v.valid, v.start+s.place(i)*v.items, v.items, b[head:], (i-from)*v.items)
	}
	return b
}
