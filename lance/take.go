package lance

import (
	"context"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Take returns the given rows of the given columns, in the order in which they are asked for; a row may be asked for more
// than once. The caller releases the batch.
func (r *Reader) Take(ctx context.Context, columns []int, rows []int64) (arrow.RecordBatch, error) {
	if err := r.enter(ctx); err != nil {
		return nil, err
	}
	defer r.leave()
	schema, err := r.project(columns)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row < 0 || row >= r.rows {
			return nil, fmt.Errorf("read %s: there is no row %d, the file has %d", r.name, row, r.rows)
		}
	}
	arrays := make([]arrow.Array, len(columns))
	defer func() {
		for _, a := range arrays {
			if a != nil {
				a.Release()
			}
		}
	}()
	for i, c := range columns {
		data, err := r.takeField(ctx, c, rows)
		if err != nil {
			return nil, err
		}
		arrays[i] = array.MakeFromData(data)
		data.Release()
	}
	return array.NewRecordBatch(schema, arrays, int64(len(rows))), nil
}

// takeField gathers rows of a column of the schema.
func (r *Reader) takeField(ctx context.Context, i int, rows []int64) (arrow.ArrayData, error) {
	if r.trees != nil {
		return r.takeTree(ctx, r.trees[i], rows)
	}
	if r.mapped() {
		return r.take(ctx, r.tops[i], rows)
	}
	sorted := ascending(rows) // so that what lies together is read together
	data, err := r.take(ctx, r.tops[i], sorted)
	if err != nil || len(rows) == 0 || &sorted[0] == &rows[0] {
		return data, err
	}
	defer data.Release()
	return r.reorder(data, sorted, rows)
}

// take gathers rows of one column with what is nested in them.
func (r *Reader) take(ctx context.Context, col int, rows []int64) (arrow.ArrayData, error) {
	dt := r.columns[col].field.Type
	if r.columns[col].field.form != plainForm {
		return r.takeRuns(ctx, col, rows)
	}
	switch t := dt.(type) {
	case *arrow.StructType:
		return r.takeStructs(ctx, col, rows)
	case *arrow.ListType:
		return takeLists[int32](ctx, r, col, rows)
	case *arrow.LargeListType:
		return takeLists[int64](ctx, r, col, rows)
	case *arrow.NullType:
		return array.NewData(dt, len(rows), []*memory.Buffer{nil}, nil, len(rows), 0), nil
	case arrow.BinaryDataType:
		return r.takeValues(ctx, col, rows, &binarySink{spans: make([][]byte, len(rows)), large: t.Layout().Buffers[1].ByteWidth == 8})
	}
	fixed, err := newFixedSink(r.alloc, dt, len(rows))
	if err != nil {
		return nil, err
	}
	return r.takeValues(ctx, col, rows, fixed)
}

// takeValues gathers rows of a column with nothing below it.
func (r *Reader) takeValues(ctx context.Context, col int, rows []int64, s sink) (arrow.ArrayData, error) {
	defer s.release()
	// The pages stay open until the end: a sink may hold slices of their bytes.
	open := &openPages{whole: map[int]*pageView{}}
	defer open.release()
	if err := r.eachRun(ctx, col, rows, open, s.gather); err != nil {
		return nil, err
	}
	data, err := s.finish(r.columns[col].field.Type, r.alloc)
	if err != nil {
		return nil, fmt.Errorf("read %s: column %q: %w", r.name, r.columns[col].path, err)
	}
	return data, nil
}

// takeStructs gathers rows of all fields.
func (r *Reader) takeStructs(ctx context.Context, col int, rows []int64) (arrow.ArrayData, error) {
	var children []arrow.ArrayData
	defer func() {
		for _, child := range children {
			child.Release()
		}
	}()
	for _, below := range r.columns[col].children {
		child, err := r.take(ctx, below, rows)
		if err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	return array.NewData(r.columns[col].field.Type, len(rows), []*memory.Buffer{nil}, children, 0, 0), nil
}

// takeLists gathers the offsets of rows, which say what rows of the items to gather.
func takeLists[O int32 | int64](ctx context.Context, r *Reader, col int, rows []int64) (arrow.ArrayData, error) {
	var zero O
	offsets := sizedBuffer(r.alloc, (len(rows)+1)*int(arrowSize(zero)))
	defer offsets.Release()
	bitmap := sizedBuffer(r.alloc, bitBytes(len(rows)))
	defer bitmap.Release()
	out := arrow.GetData[O](offsets.Bytes())
	below := r.columns[col].children[0]
	var items []int64
	open := &openPages{whole: map[int]*pageView{}}
	defer open.release()
	err := r.eachRun(ctx, col, rows, open, func(v *pageView, rows []int64, at int) error {
		c := v.page.codec.(listCodec)
		ends := c.strings.ends(v)
		for i, row := range rows {
			k := int(row - v.page.first)
			start, end, err := c.span(ends, k, k+1)
			if err != nil {
				return err
			}
			if err := r.checkItems(below, uint64(len(items))+end-start, at+len(rows)); err != nil {
				return err
			}
			for x := start; x < end; x++ {
				items = append(items, v.page.items+int64(x))
			}
			if ends[k] < c.strings.adjustment {
				bitutil.SetBit(bitmap.Bytes(), at+i)
			}
			if out[at+i+1] = O(len(items)); int(out[at+i+1]) != len(items) {
				return fmt.Errorf("%d rows have more items than one array of lists can have: take fewer at once: %w", len(rows), ErrUnsupported)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	child, err := r.take(ctx, below, items)
	if err != nil {
		return nil, err
	}
	defer child.Release()
	validity, nulls := countNulls(bitmap, len(rows))
	return array.NewData(r.columns[col].field.Type, len(rows), []*memory.Buffer{validity, offsets}, []arrow.ArrayData{child}, nulls, 0), nil
}

// openPages are pages of one column by their numbers, and parts of them.
type openPages struct {
	whole map[int]*pageView
	parts []*pageView
}

func (o *openPages) release() {
	for _, v := range o.whole {
		v.release()
	}
	for _, v := range o.parts {
		v.release()
	}
}

// eachRun calls fn for each run of rows that lie in one page, in order. It leaves the pages open.
func (r *Reader) eachRun(ctx context.Context, col int, rows []int64, open *openPages, fn func(v *pageView, rows []int64, at int) error) error {
	pages, err := r.column(col)
	if err != nil {
		return err
	}
	for at := 0; at < len(rows); {
		k := pageAt(pages, rows[at])
		v := open.whole[k]
		if v == nil {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("read %s: %w", r.name, err)
			}
			if v, err = r.view(col, pages, k); err != nil {
				return err
			}
			open.whole[k] = v
		}
		n := rowsIn(v.page, rows[at:])
		if v.inParts {
			var parts []*pageView
			parts, err = v.gather(rows[at:at+n], at, fn)
			open.parts = append(open.parts, parts...)
		} else {
			err = fn(v, rows[at:at+n], at)
		}
		if err != nil {
			return r.pageError(col, k, r.columns[col].at.off, err)
		}
		at += n
	}
	return nil
}

// rowsIn returns how many of the first rows lie in a page.
func rowsIn(p *page, rows []int64) int {
	for i, row := range rows {
		if row < p.first || row >= p.end() {
			return i
		}
	}
	return len(rows)
}

// sink gathers rows of a column from its pages.
type sink interface {
	// gather puts rows of a page, given by their numbers in the file, at the places from at on.
	gather(v *pageView, rows []int64, at int) error
	// finish returns the array.
	finish(dt arrow.DataType, alloc memory.Allocator) (arrow.ArrayData, error)
	// release drops what the sink holds; an array that was returned is not affected.
	release()
}

// fixedSink gathers values of one width. Null rows stay zero.
type fixedSink struct {
	bits, items            int
	rows                   int
	values                 *memory.Buffer
	validity, itemValidity *memory.Buffer
}

func newFixedSink(alloc memory.Allocator, dt arrow.DataType, rows int) (*fixedSink, error) {
	s := &fixedSink{bits: int(bitWidth(dt)), rows: rows}
	if t, ok := dt.(*arrow.FixedSizeListType); ok {
		s.items = int(t.Len())
	}
	if rows > math.MaxInt/s.bits {
		return nil, fmt.Errorf("take %d rows of %d bits at once: too many", rows, s.bits)
	}
	s.values = sizedBuffer(alloc, bitBytes(rows*s.bits))
	s.validity = sizedBuffer(alloc, bitBytes(rows))
	memory.Set(s.validity.Bytes(), 0xFF)
	if s.items > 0 {
		s.itemValidity = sizedBuffer(alloc, bitBytes(rows*s.items))
		memory.Set(s.itemValidity.Bytes(), 0xFF)
	}
	return s, nil
}

func (s *fixedSink) gather(v *pageView, rows []int64, at int) error {
	switch c := v.page.codec.(type) {
	case fixedCodec:
		s.gatherValues(v.bytes(c.values), v.page.first, rows, at)
		s.gatherValidity(v, c.validity, rows, at)
		if c.itemValidity != noBuffer {
			items := v.bytes(c.itemValidity)
			for i, row := range rows {
				bitutil.CopyBitmap(items, int(row-v.page.first)*s.items, s.items, s.itemValidity.Bytes(), (at+i)*s.items)
			}
		}
	case nullItemsCodec:
		s.gatherValidity(v, c.validity, rows, at)
		bitutil.SetBitsTo(s.itemValidity.Bytes(), int64(at*s.items), int64(len(rows)*s.items), false)
	case nullCodec:
		bitutil.SetBitsTo(s.validity.Bytes(), int64(at), int64(len(rows)), false)
	default:
		return fmt.Errorf("take from %s: %w", c.describe(), ErrUnsupported)
	}
	return nil
}

// gatherValidity clears the bits of null rows.
func (s *fixedSink) gatherValidity(v *pageView, buffer uint32, rows []int64, at int) {
	if buffer == noBuffer {
		return
	}
	validity := v.bytes(buffer)
	for i, row := range rows {
		if !bitutil.BitIsSet(validity, int(row-v.page.first)) {
			bitutil.ClearBit(s.validity.Bytes(), at+i)
		}
	}
}

// gatherValues copies the values of rows. The common widths have a loop of their own, which is the difference between
// one load and store and a call of memmove for each row.
func (s *fixedSink) gatherValues(from []byte, first int64, rows []int64, at int) {
	to := s.values.Bytes()
	switch s.bits {
	case 32:
		src, dst := arrow.GetData[uint32](from), arrow.GetData[uint32](to)[at:]
		for i, row := range rows {
			dst[i] = src[row-first]
		}
		return
	case 64:
		src, dst := arrow.GetData[uint64](from), arrow.GetData[uint64](to)[at:]
		for i, row := range rows {
			dst[i] = src[row-first]
		}
		return
	}
	if s.bits%8 != 0 {
		for i, row := range rows {
			bitutil.CopyBitmap(from, int(row-first)*s.bits, s.bits, to, (at+i)*s.bits)
		}
		return
	}
	width := s.bits / 8
	for i, row := range rows {
		copy(to[(at+i)*width:][:width], from[int(row-first)*width:])
	}
}

func (s *fixedSink) finish(dt arrow.DataType, _ memory.Allocator) (arrow.ArrayData, error) {
	validity, nulls := countNulls(s.validity, s.rows)
	if s.items == 0 {
		return array.NewData(dt, s.rows, []*memory.Buffer{validity, s.values}, nil, nulls, 0), nil
	}
	itemValidity, itemNulls := countNulls(s.itemValidity, s.rows*s.items)
	elem := dt.(*arrow.FixedSizeListType).Elem()
	child := array.NewData(elem, s.rows*s.items, []*memory.Buffer{itemValidity, s.values}, nil, itemNulls, 0)
	defer child.Release()
	return array.NewData(dt, s.rows, []*memory.Buffer{validity}, []arrow.ArrayData{child}, nulls, 0), nil
}

// countNulls returns the bitmap, or nil if it says nothing, and the nulls in it.
func countNulls(bitmap *memory.Buffer, rows int) (*memory.Buffer, int) {
	nulls := rows - bitutil.CountSetBits(bitmap.Bytes(), 0, rows)
	if nulls == 0 {
		return nil, 0
	}
	return bitmap, nulls
}

func (s *fixedSink) release() {
	s.values.Release()
	s.validity.Release()
	releaseBuffer(s.itemValidity)
}

// binarySink gathers strings: first where they are, then, when their size is known, the strings.
type binarySink struct {
	spans [][]byte // nil for a null row
	size  uint64
	large bool
}

func (s *binarySink) gather(v *pageView, rows []int64, at int) error {
	for i, row := range rows {
		b, err := stringAt(v, int(row-v.page.first))
		if err != nil {
			return err
		}
		s.spans[at+i] = b
		s.size += uint64(len(b))
	}
	return nil
}

// stringAt returns the bytes of a row of a page of strings, nil if and only if it is null.
func stringAt(v *pageView, row int) ([]byte, error) {
	switch c := v.page.codec.(type) {
	case binaryCodec:
		s, valid, err := c.row(v, row)
		if err != nil || !valid {
			return nil, err
		}
		return s.of(v.bytes(c.data)), nil
	case dictionaryCodec:
		items, err := c.list(v)
		if err != nil {
			return nil, err
		}
		item, err := c.item(v, items, row)
		if err != nil || !item.valid {
			return nil, err
		}
		return item.of(v.bytes(c.items.data)), nil
	}
	return nil, nil // A page of nulls.
}

func (s *binarySink) finish(dt arrow.DataType, alloc memory.Allocator) (arrow.ArrayData, error) {
	if s.large {
		return finishBinary[int64](s, dt, alloc), nil
	}
	if s.size > math.MaxInt32 {
		return nil, fmt.Errorf("%d rows have %d bytes, too many for one array of %s: take fewer at once", len(s.spans), s.size, dt)
	}
	return finishBinary[int32](s, dt, alloc), nil
}

func finishBinary[O int32 | int64](s *binarySink, dt arrow.DataType, alloc memory.Allocator) arrow.ArrayData {
	b := newBinaryBuilder[O](alloc, len(s.spans), s.size)
	defer b.release()
	for i, value := range s.spans {
		b.put(i, value, value != nil)
	}
	return b.array(dt)
}

func (s *binarySink) release() {}
