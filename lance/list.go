package lance

import (
	"errors"
	"fmt"
	"math"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// structCodec is the header of structs. It has no bytes.
type structCodec struct{}

func (structCodec) check(int64, []extent) error { return nil }
func (structCodec) describe() string            { return "structs" }

// listCodec is a page of lists: the end offset of each row among the items of the page, raised by adjustment if the row
// is null. The items are in the column below.
type listCodec struct {
	strings binaryCodec // whose offsets are the same
	items   int64
}

func parseList(e *lancepb.ArrayEncoding) (codec, error) {
	l := e.GetList()
	if l == nil {
		return nil, fmt.Errorf("encoding %T of lists: %w", e.GetArrayEncoding(), ErrUnsupported)
	}
	offsets, validity, all, err := unwrapNullable(l.GetOffsets())
	if err == nil && (all || validity != noBuffer) {
		err = errors.New("offsets with nulls")
	}
	c := listCodec{strings: binaryCodec{adjustment: l.GetNullOffsetAdjustment()}}
	if err == nil {
		c.strings.indices, err = flatBuffer(offsets, 64)
	}
	if err != nil {
		return nil, fmt.Errorf("offsets: %w", err)
	}
	if c.strings.adjustment == 0 {
		c.strings.adjustment = maxEnd
	}
	if c.strings.adjustment > maxEnd || l.GetNumItems() > maxEnd {
		return nil, fmt.Errorf("%d items, null adjustment %d", l.GetNumItems(), c.strings.adjustment)
	}
	c.items = int64(l.GetNumItems())
	return c, nil
}

func (c listCodec) check(rows int64, bufs []extent) error {
	return checkBuffer(bufs, c.strings.indices, rows, 64, "offsets")
}

func (c listCodec) describe() string { return fmt.Sprintf("lists of %d items", c.items) }

// span returns where the items of rows [from, to) of a page lie among those of the page.
func (c listCodec) span(ends []uint64, from, to int) (start, end uint64, err error) {
	start, end = c.strings.endOf(ends, from-1), c.strings.endOf(ends, to-1)
	if start > end || end > uint64(c.items) {
		return 0, 0, fmt.Errorf("the items of rows %d to %d of the page are %d to %d of %d", from, to, start, end, c.items)
	}
	return start, end, nil
}

// decode returns the rows [from, to) of a column with what is nested in them, or as many of the first of them as one
// array should hold, at least one.
func (r *Reader) decode(col int, from, to int64) (arrow.ArrayData, error) {
	dt := r.columns[col].field.Type
	if !r.isHeader(col) && dt.ID() == arrow.STRUCT { // packed
		dt = nil
	}
	switch dt.(type) {
	case *arrow.StructType:
		return r.decodeStructs(col, from, to)
	case *arrow.ListType:
		return decodeLists[int32](r, col, from, to)
	case *arrow.LargeListType:
		return decodeLists[int64](r, col, from, to)
	}
	v, k, err := r.viewRows(col, from, to)
	if err != nil {
		return nil, err
	}
	defer v.release()
	p := v.page
	data, err := p.codec.(valueCodec).slice(v, r.columns[col].field.Type, int(from-p.first), int(min(p.end(), to)-p.first), r.alloc)
	if err != nil {
		return nil, r.pageError(col, k, r.columns[col].at.off, err)
	}
	return data, nil
}

// viewRows opens the page that holds a row of a column, and returns its number as well. Of a page that is not at hand as a
// whole, the view may have but some of the rows up to another one.
func (r *Reader) viewRows(col int, from, to int64) (*pageView, int, error) {
	pages, err := r.column(col)
	if err != nil {
		return nil, 0, err
	}
	k := pageAt(pages, from)
	v, err := r.view(col, pages, k)
	if err != nil || !v.inParts {
		return v, k, err
	}
	defer v.release()
	first := int(from - v.page.first)
	some, err := v.narrow(first, min(int(min(v.page.end(), to)-v.page.first), first+partRows(v.page)))
	if err != nil {
		return nil, 0, r.pageError(col, k, r.columns[col].at.off, err)
	}
	return some, k, nil
}

// decodeStructs decodes as many rows as all fields have in one array.
func (r *Reader) decodeStructs(col int, from, to int64) (arrow.ArrayData, error) {
	// Pages end where they want: what is behind the first end would be decoded in vain.
	to, err := r.runEnd(col, from, to)
	if err != nil {
		return nil, err
	}
	c := &r.columns[col]
	children := make([]arrow.ArrayData, 0, len(c.children))
	defer func() {
		for _, child := range children {
			child.Release()
		}
	}()
	for _, below := range c.children {
		child, err := r.decode(below, from, to)
		if err != nil {
			return nil, err
		}
		children = append(children, child)
		to = from + int64(child.Len())
	}
	for i, child := range children {
		if int64(child.Len()) > to-from {
			children[i] = sliceData(child, 0, to-from)
			child.Release()
		}
	}
	return array.NewData(c.field.Type, int(to-from), []*memory.Buffer{nil}, children, 0, 0), nil
}

// runEnd returns the row, at most to, with which a page of the column or of a field of its structs ends, or what is read of it
// at once.
func (r *Reader) runEnd(col int, from, to int64) (int64, error) {
	if !r.isHeader(col) {
		pages, err := r.column(col)
		if err != nil {
			return 0, err
		}
		p := pages[pageAt(pages, from)]
		if c, ok := p.codec.(partCodec); ok && c.inParts() && !r.mapped() { // which are read in part
			to = min(to, from+int64(partRows(p)))
		}
		return min(to, p.end()), nil
	}
	for _, child := range r.columns[col].children {
		var err error
		if to, err = r.runEnd(child, from, to); err != nil {
			return 0, err
		}
	}
	return to, nil
}

// decodeLists decodes the rows whose items come in one array, which then shares the bytes of their page, or one row whose
// items do not.
func decodeLists[O int32 | int64](r *Reader, col int, from, to int64) (arrow.ArrayData, error) {
	v, k, err := r.viewRows(col, from, to)
	if err != nil {
		return nil, err
	}
	defer v.release()
	p, c := v.page, v.page.codec.(listCodec)
	first, last := int(from-p.first), int(min(p.end(), to)-p.first)
	ends := c.strings.ends(v)
	items, rows, err := r.decodeItems(col, k, v, first, last)
	if err != nil {
		return nil, err
	}
	defer items.Release()
	start := c.strings.endOf(ends, first-1)
	o := arrowOffsets[O](ends[first:first+rows], start, c.strings.adjustment, r.alloc)
	defer o.release()
	if !o.sound || o.end-start != uint64(items.Len()) {
		return nil, r.pageError(col, k, r.columns[col].at.off, fmt.Errorf("the offsets of rows %d to %d fall", first, first+rows))
	}
	return array.NewData(r.columns[col].field.Type, rows, []*memory.Buffer{o.validity, o.offsets}, []arrow.ArrayData{items}, o.nulls, 0), nil
}

// decodeItems decodes the items of rows [from, to) of page k of lists, or of the first of them, and says of how many.
func (r *Reader) decodeItems(col, k int, v *pageView, from, to int) (items arrow.ArrayData, rows int, err error) {
	c, below := v.page.codec.(listCodec), r.columns[col].children[0]
	ends := c.strings.ends(v)
	start, end, err := c.span(ends, from, to)
	if err != nil {
		return nil, 0, r.pageError(col, k, r.columns[col].at.off, err)
	}
	if start == end {
		return emptyArray(r.columns[below].field.Type, r.alloc), to - from, nil
	}
	first, most := v.page.items+int64(start), uint64(math.MaxInt64)
	if r.columns[col].field.Type.ID() == arrow.LIST {
		most = math.MaxInt32
	}
	run, err := r.decode(below, first, first+int64(min(end-start, most)))
	if err != nil {
		return nil, 0, err
	}
	defer run.Release()
	have := uint64(run.Len())
	rows = sort.Search(to-from, func(i int) bool { return c.strings.endOf(ends, from+i)-start > have })
	if _, end, err = c.span(ends, from, from+max(rows, 1)); err == nil && rows > 0 && end-start > have {
		err = fmt.Errorf("the offsets of rows %d to %d fall", from, from+rows)
	}
	if err != nil {
		return nil, 0, r.pageError(col, k, r.columns[col].at.off, err)
	}
	if rows == 0 {
		joined, err := r.joinItems(below, run, first, first+int64(end-start), most)
		return joined, 1, err
	}
	return sliceData(run, 0, int64(end-start)), rows, nil
}

// joinItems returns the items [from, to) of one row, which do not come in one array; have are the first of them, and
// most is how many one array of lists can have.
func (r *Reader) joinItems(col int, have arrow.ArrayData, from, to int64, most uint64) (arrow.ArrayData, error) {
	if uint64(to-from) > most {
		return nil, fmt.Errorf("read %s: column %q: a list of %d items: %w", r.name, r.columns[col].path, to-from, ErrUnsupported)
	}
	if err := r.checkItems(col, uint64(to-from), 1); err != nil {
		return nil, fmt.Errorf("read %s: column %q: %w", r.name, r.columns[col].path, err)
	}
	var parts []arrow.Array
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	parts = append(parts, array.MakeFromData(have))
	for at := from + int64(have.Len()); at < to; {
		d, err := r.decode(col, at, to)
		if err != nil {
			return nil, err
		}
		parts = append(parts, array.MakeFromData(d))
		at += int64(d.Len())
		d.Release()
	}
	joined, err := array.Concatenate(parts, r.alloc)
	if err != nil {
		return nil, fmt.Errorf("read %s: column %q: a list of %d items: %w: %w", r.name, r.columns[col].path, to-from, err, ErrUnsupported)
	}
	defer joined.Release()
	countAllNulls(joined.Data())
	joined.Data().Retain()
	return joined.Data(), nil
}

// nullItemBytes bounds the items that a row can have without bytes in the file.
const nullItemBytes = 64 << 20

// checkItems refuses items of so many rows that the file cannot have bytes for, as null items take none.
func (r *Reader) checkItems(col int, items uint64, rows int) error {
	bits := uint64(max(64, itemBits(r.columns[col].field)))
	limit := (uint64(r.size)*uint64(min(rows, 1<<16)) + nullItemBytes) * 8
	if items > limit/bits {
		return fmt.Errorf("%d items in %d rows are more than a file of %d bytes should have: %w", items, rows, r.size, ErrUnsupported)
	}
	return nil
}

// itemBits is the width of what is of fixed width in an item.
func itemBits(f *Field) (bits int64) {
	if f.Type.ID() != arrow.STRUCT {
		return bitWidth(f.Type)
	}
	for i := range f.Children {
		bits += itemBits(&f.Children[i])
	}
	return bits
}

// emptyArray returns an array without rows.
func emptyArray(dt arrow.DataType, alloc memory.Allocator) arrow.ArrayData {
	b := array.NewBuilder(alloc, dt)
	defer b.Release()
	a := b.NewArray()
	defer a.Release()
	a.Data().Retain()
	return a.Data()
}

// countAllNulls makes the number of nulls known of an array and of what is nested in it. Nobody else may have it yet.
func countAllNulls(d arrow.ArrayData) {
	if d.NullN() < 0 {
		nulls := chunk{data: d, n: d.Len()}.nulls()
		d.(*array.Data).SetNullN(nulls)
	}
	for _, c := range d.Children() {
		countAllNulls(c)
	}
}
