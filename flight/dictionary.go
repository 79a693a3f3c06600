package flight

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// copyable says whether values of a type can be copied one by one, as decoding a dictionary does.
func copyable(t arrow.DataType) bool {
	switch t.(type) {
	case arrow.ExtensionType, arrow.NestedType, *arrow.BooleanType:
		return false
	case arrow.BinaryDataType, arrow.FixedWidthDataType:
		return true
	}
	return false
}

// dictionary decodes a dictionary batch and keeps it for the batches that follow.
func (d *decoder) dictionary(head header, body *memory.Buffer) error {
	id, err := head.fb.int64(0)
	if err != nil {
		return err
	}
	delta, err := head.fb.byte(2)
	if err != nil {
		return err
	}
	values, ok := d.dictionaryType(id)
	if !ok {
		return fmt.Errorf("dictionary %d belongs to no column of the stream", id)
	}
	batch, ok, err := head.fb.table(1)
	if err != nil {
		return err
	}
	if !ok {
		return errFlatbuffer
	}
	l, err := d.newLoader(batch, body)
	if err != nil {
		return fmt.Errorf("dictionary %d: %w", id, err)
	}
	next, err := l.column(values)
	if err != nil {
		return fmt.Errorf("dictionary %d: %w", id, err)
	}
	if err := l.finish(); err != nil {
		next.Release()
		return fmt.Errorf("dictionary %d: %w", id, err)
	}
	return d.keep(id, next, delta != 0)
}

// keep stores a dictionary, behind what it already has when it is a delta. It takes over the array.
func (d *decoder) keep(id int64, next arrow.Array, delta bool) error {
	old := d.dicts[id]
	if delta && old != nil {
		defer next.Release()
		if size := arrayBytes(old) + arrayBytes(next); size > d.limit {
			return fmt.Errorf("%w: dictionary %d grows beyond %d bytes", errTooLarge, id, d.limit)
		}
		joined, err := array.Concatenate([]arrow.Array{old, next}, d.alloc)
		if err != nil {
			return fmt.Errorf("dictionary %d: %w", id, err)
		}
		next = joined
	}
	if old != nil {
		old.Release()
	}
	d.dicts[id] = next
	return nil
}

// dictionaryType returns the value type of a dictionary.
func (d *decoder) dictionaryType(id int64) (arrow.DataType, bool) {
	for _, f := range d.stream.dictionaries {
		if f.id == id {
			return f.values, true
		}
	}
	return nil, false
}

// arrayBytes returns the bytes of an array's buffers.
func arrayBytes(a arrow.Array) int64 { return int64(a.Data().SizeInBytes()) }

// dictionaryColumn loads the indices of a field and looks them up.
func (l *loader) dictionaryColumn(t *arrow.DictionaryType) (arrow.ArrayData, error) {
	l.raw = false
	if l.ndict >= len(l.d.stream.dictionaries) {
		return nil, errFlatbuffer
	}
	id := l.d.stream.dictionaries[l.ndict].id
	l.ndict++
	indices, err := l.array(t.IndexType)
	if err != nil {
		return nil, err
	}
	defer indices.Release()
	dict := l.d.dicts[id]
	if dict == nil {
		if indices.NullN() < indices.Len() {
			return nil, fmt.Errorf("its dictionary %d did not come before it", id)
		}
		empty := array.NewBuilder(l.d.alloc, l.plainValue(t))
		defer empty.Release()
		dict = empty.NewArray()
		defer dict.Release()
	}
	positions, err := l.positions(indices, dict)
	if err != nil {
		return nil, err
	}
	return l.gather(dict, positions)
}

// plainValue returns the type of a decoded dictionary column.
func (l *loader) plainValue(t *arrow.DictionaryType) arrow.DataType {
	plain, err := plainType(t)
	if err != nil {
		return t.ValueType
	}
	return plain
}

// positions returns each row's place in the dictionary, -1 for null.
func (l *loader) positions(indices arrow.ArrayData, dict arrow.Array) ([]int32, error) {
	if err := l.take(4 * int64(indices.Len())); err != nil {
		return nil, err
	}
	width := indices.DataType().(arrow.FixedWidthDataType).BitWidth() / 8
	signed := arrow.IsSignedInteger(indices.DataType().ID())
	values := indices.Buffers()[1].Bytes()
	out := make([]int32, indices.Len())
	for i := range out {
		if b := indices.Buffers()[0]; b != nil && !bitutil.BitIsSet(b.Bytes(), i) {
			out[i] = -1
			continue
		}
		at := indexAt(values, i, width, signed)
		if at >= uint64(dict.Len()) {
			return nil, fmt.Errorf("row %d has index %d of a dictionary of %d values", i, at, dict.Len())
		}
		out[i] = int32(at)
		if dict.IsNull(int(at)) {
			out[i] = -1
		}
	}
	return out, nil
}

// indexAt reads a dictionary index; a negative one becomes too large for any dictionary.
func indexAt(b []byte, i, width int, signed bool) uint64 {
	switch {
	case width == 1 && signed:
		return uint64(int8(b[i]))
	case width == 1:
		return uint64(b[i])
	case width == 2 && signed:
		return uint64(int16(binary.LittleEndian.Uint16(b[2*i:])))
	case width == 2:
		return uint64(binary.LittleEndian.Uint16(b[2*i:]))
	case width == 4 && signed:
		return uint64(int32(binary.LittleEndian.Uint32(b[4*i:])))
	case width == 4:
		return uint64(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return binary.LittleEndian.Uint64(b[8*i:])
}

// gather copies the values at positions of an array whose type is copyable.
func (l *loader) gather(from arrow.Array, positions []int32) (arrow.ArrayData, error) {
	n := len(positions)
	validity, nulls := l.validity(n, func(i int) bool { return positions[i] >= 0 })
	defer func() {
		if validity != nil {
			validity.Release()
		}
	}()
	t := from.DataType()
	if _, ok := t.(arrow.BinaryDataType); ok {
		return l.gatherBytes(from, positions, validity, nulls)
	}
	width := t.(arrow.FixedWidthDataType).BitWidth() / 8
	size := int64(n) * int64(width)
	if err := l.take(size); err != nil {
		return nil, err
	}
	values := l.alloc(size)
	defer values.Release()
	source := from.Data().Buffers()[1].Bytes()
	start := from.Data().Offset()
	for i, at := range positions {
		if at >= 0 {
			copy(values.Bytes()[i*width:(i+1)*width], source[(start+int(at))*width:])
		}
	}
	return array.NewData(t, n, []*memory.Buffer{validity, values}, nil, nulls, 0), nil
}

// gatherBytes is gather for strings and bytes.
func (l *loader) gatherBytes(from arrow.Array, positions []int32, validity *memory.Buffer, nulls int) (arrow.ArrayData, error) {
	width := from.DataType().Layout().Buffers[1].ByteWidth
	value := valueAt(from, width)
	lengths := func(i int) int {
		if positions[i] < 0 {
			return 0
		}
		return len(value(int(positions[i])))
	}
	offsets, values, err := l.allocBytes(len(positions), width, lengths)
	if err != nil {
		return nil, err
	}
	defer offsets.Release()
	defer values.Release()
	for i, at := range positions {
		if at >= 0 {
			copy(values.Bytes()[offsetAt(offsets.Bytes(), i, width):], value(int(at)))
		}
	}
	return array.NewData(from.DataType(), len(positions), []*memory.Buffer{validity, offsets, values}, nil, nulls, 0), nil
}

// valueAt returns the accessor of an array of strings or bytes with offsets of width bytes.
func valueAt(a arrow.Array, width int) func(i int) []byte {
	offsets, values := a.Data().Buffers()[1].Bytes(), a.Data().Buffers()[2].Bytes()
	start := a.Data().Offset()
	return func(i int) []byte {
		return values[offsetAt(offsets, start+i, width):offsetAt(offsets, start+i+1, width)]
	}
}

// view loads a column of string or binary views as strings or bytes.
func (l *loader) view(t arrow.BinaryViewDataType) (arrow.ArrayData, error) {
	l.raw = false
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	defer n.release()
	heads, err := l.buffer(int64(n.rows) * 16)
	if err != nil {
		return nil, err
	}
	defer heads.Release()
	data, err := l.viewBuffers()
	defer func() {
		for _, b := range data {
			b.Release()
		}
	}()
	if err != nil {
		return nil, err
	}
	values := make([][]byte, n.rows)
	for i := range values {
		if n.validity != nil && !bitutil.BitIsSet(n.validity.Bytes(), i) {
			continue
		}
		if values[i], err = viewValue(heads.Bytes()[16*i:16*i+16], data); err != nil {
			return nil, fmt.Errorf("row %d: %w", i, err)
		}
		if t.ID() == arrow.STRING_VIEW && !utf8.Valid(values[i]) {
			return nil, fmt.Errorf("the string in row %d is not UTF-8; send bytes as a binary column", i)
		}
	}
	return l.plainViews(t, n, values)
}

// plainViews copies the values of views into a plain array.
func (l *loader) plainViews(t arrow.BinaryViewDataType, n node, values [][]byte) (arrow.ArrayData, error) {
	offsets, out, err := l.allocBytes(len(values), 4, func(i int) int { return len(values[i]) })
	if err != nil {
		return nil, err
	}
	defer offsets.Release()
	defer out.Release()
	for i, v := range values {
		copy(out.Bytes()[offsetAt(offsets.Bytes(), i, 4):], v)
	}
	plain := arrow.DataType(arrow.BinaryTypes.Binary)
	if t.ID() == arrow.STRING_VIEW {
		plain = arrow.BinaryTypes.String
	}
	return array.NewData(plain, n.rows, []*memory.Buffer{n.validity, offsets, out}, nil, n.nulls, 0), nil
}

// viewBuffers takes the data buffers of a view column.
func (l *loader) viewBuffers() ([]*memory.Buffer, error) {
	if len(l.views) < 8 {
		return nil, fmt.Errorf("the batch does not say how many buffers a column of views has")
	}
	count := binary.LittleEndian.Uint64(l.views)
	l.views = l.views[8:]
	if count > uint64(len(l.buffers)/16) {
		return nil, fmt.Errorf("a column of views has %d buffers, the batch only %d more", count, len(l.buffers)/16)
	}
	data := make([]*memory.Buffer, 0, count)
	for range count {
		b, err := l.buffer(0)
		if err != nil {
			return data, err
		}
		data = append(data, b)
	}
	return data, nil
}

// viewValue returns the bytes of one view: up to 12 stand in the view itself, more in a data buffer.
func viewValue(view []byte, data []*memory.Buffer) ([]byte, error) {
	length := int64(int32(binary.LittleEndian.Uint32(view)))
	if length < 0 {
		return nil, fmt.Errorf("a view of %d bytes cannot be", length)
	}
	if length <= 12 {
		return view[4 : 4+length], nil
	}
	buffer := binary.LittleEndian.Uint32(view[8:])
	offset := int64(int32(binary.LittleEndian.Uint32(view[12:])))
	if uint64(buffer) >= uint64(len(data)) {
		return nil, fmt.Errorf("a view points to buffer %d of %d", buffer, len(data))
	}
	if size := int64(data[buffer].Len()); offset < 0 || offset+length > size {
		return nil, fmt.Errorf("a view points to bytes %d to %d of %d", offset, offset+length, size)
	}
	return data[buffer].Bytes()[offset : offset+length], nil
}

// alloc returns a zeroed buffer of size bytes.
func (l *loader) alloc(size int64) *memory.Buffer {
	b := memory.NewResizableBuffer(l.d.alloc)
	b.Resize(int(size))
	clear(b.Bytes())
	return b
}

// validity returns the bitmap of n rows, nil when all are valid.
func (l *loader) validity(n int, valid func(i int) bool) (b *memory.Buffer, nulls int) {
	for i := range n {
		if !valid(i) {
			nulls++
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	b = l.alloc((int64(n) + 7) / 8)
	for i := range n {
		bitutil.SetBitTo(b.Bytes(), i, valid(i))
	}
	return b, nulls
}

// allocBytes returns the offsets of n values of the lengths, filled, and room for the values.
func (l *loader) allocBytes(n, width int, length func(i int) int) (offsets, values *memory.Buffer, err error) {
	total := int64(0)
	for i := range n {
		total += int64(length(i))
	}
	if width == 4 && total > math.MaxInt32 {
		return nil, nil, fmt.Errorf("%w: %d bytes of text are more than one array holds", errTooLarge, total)
	}
	size := int64(n+1) * int64(width)
	if err := l.take(size + total); err != nil {
		return nil, nil, err
	}
	offsets, values = l.alloc(size), l.alloc(total)
	at := uint64(0)
	for i := range n {
		at += uint64(length(i))
		if width == 4 {
			binary.LittleEndian.PutUint32(offsets.Bytes()[4*(i+1):], uint32(at))
		} else {
			binary.LittleEndian.PutUint64(offsets.Bytes()[8*(i+1):], at)
		}
	}
	return offsets, values, nil
}
