package lance

import (
	"fmt"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"

	"github.com/flightd/flightd/internal/lancepb"
)

// node writes one column of the file: values, the offsets of lists, or the header of structs. Nested rows are a tree of
// them, whose pages are cut together: the pages of items end with those of their offsets, because readers rely on it,
// and those of the fields of a struct do because that is simplest.
type node struct {
	field Field
	enc   encoder // nil for a struct, which has no bytes
	// nullStructs tells that structs can be null.
	nullStructs bool
	children    []*node

	first int64 // the row that the next page begins with
	pages pageList
}

// newNode returns the writers of a field and of what is below it; items tells that a list is above.
func newNode(f Field, items bool) *node {
	n := &node{field: f}
	fixed := fixedEncoder{bits: bitWidth(f.Type), dense: items}
	switch t := f.Type.(type) {
	case *arrow.StructType:
	case *arrow.ListType, *arrow.MapType:
		n.enc, items = listEncoder[int32]{}, true
	case *arrow.LargeListType:
		n.enc, items = listEncoder[int64]{}, true
	case *arrow.FixedSizeListType:
		n.enc = fixedEncoder{bits: bitWidth(t), items: int64(t.Len()), dense: items}
	case *arrow.StringType, *arrow.BinaryType:
		n.enc = stringEncoder[int32](f)
	case *arrow.LargeStringType, *arrow.LargeBinaryType:
		n.enc = stringEncoder[int64](f)
	default:
		n.enc = fixed
	}
	switch f.form {
	case packedForm:
		n.enc = packedEncoder{fixedEncoder: fixed, bits: f.packed}
	case numbersForm:
		n.enc = numbersEncoder{fixedEncoder: fixed, index: f.storedIndex()}
	}
	for _, child := range f.Children {
		n.children = append(n.children, newNode(child, items))
	}
	return n
}

// stringEncoder returns the encoder of a field of strings.
func stringEncoder[O int32 | int64](f Field) encoder {
	if f.dictionary() {
		return dictionaryEncoder[O]{index: f.storedIndex()}
	}
	return binaryEncoder[O]{}
}

// later lets structs be null, which versions after 2.0 can say.
func (n *node) later() {
	n.nullStructs = true
	for _, child := range n.children {
		child.later()
	}
}

// check refuses an array whose buffers do not hold its rows or whose nulls cannot be stored.
func (n *node) check(d arrow.ArrayData) error { return n.checkIn(d, nil) }

// checkIn is check for the field of structs some of which may be null; gone tells these, if there are any: what is in
// their fields does not matter.
func (n *node) checkIn(d arrow.ArrayData, gone func(row int) bool) error {
	if d.Len() == 0 {
		return nil
	}
	whole := chunk{data: d, n: d.Len()}
	if v := whole.validity(); v != nil && len(v) < bitBytes(whole.offset()+whole.n) {
		return fmt.Errorf("the validity bitmap has %d bytes, too few for %d rows", len(v), whole.n)
	}
	nulls := 0
	if d.DataType().ID() != arrow.NULL {
		nulls = whole.nulls()
	}
	switch {
	case nulls > 0 && !n.field.Nullable && whole.nullsBut(gone) > 0:
		return fmt.Errorf("the column is declared without nulls, but %d rows are null", whole.nullsBut(gone))
	case nulls > 0 && (n.enc == nil || n.field.form == packedForm) && !n.nullStructs:
		return fmt.Errorf("%d structs are null, which Lance 2.0 cannot store: make their fields null instead", nulls)
	case len(d.Children()) < len(n.children):
		return fmt.Errorf("the array has %d children, want %d", len(d.Children()), len(n.children))
	case n.enc != nil:
		if err := n.enc.check(d); err != nil {
			return err
		}
	}
	for i, child := range n.children {
		if rows := d.Children()[i].Len(); n.enc == nil && rows < d.Offset()+d.Len() {
			return fmt.Errorf("%q has %d rows, too few for %d structs", child.field.Name, rows, d.Len())
		}
		for _, c := range n.below(whole, i) {
			part := array.NewSliceData(c.data, int64(c.from), int64(c.from+c.n))
			err := child.checkIn(part, n.goneIn(whole, gone))
			part.Release()
			if err != nil {
				return fmt.Errorf("%q: %w", child.field.Name, err)
			}
		}
	}
	return nil
}

// goneIn returns what tells the rows of a struct that are null, or are in one that is; nil when there is none.
func (n *node) goneIn(c chunk, above func(row int) bool) func(row int) bool {
	switch validity, first := c.validity(), c.offset(); {
	case n.enc != nil: // the items of lists that are there
		return nil
	case validity == nil || c.nulls() == 0:
		return above
	default:
		return func(row int) bool { return above != nil && above(row) || !bitutil.BitIsSet(validity, first+row) }
	}
}

// below returns the rows of child i that belong to the rows of a chunk. They hold no reference of their own.
func (n *node) below(c chunk, i int) []chunk {
	child := c.data.Children()[i]
	switch enc := n.enc.(type) {
	case listEncoder[int32]:
		return enc.items(c, child)
	case listEncoder[int64]:
		return enc.items(c, child)
	}
	return []chunk{{data: child, from: c.offset(), n: c.n}}
}

// bytes is about what the rows take in the pages of all columns.
func (n *node) bytes(c chunk) (size int64) {
	if n.enc != nil {
		size = n.enc.bytes(c)
	}
	for i, child := range n.children {
		below := chunk{data: c.data.Children()[i], from: c.offset(), n: c.n}
		switch enc := n.enc.(type) {
		case listEncoder[int32]:
			below.from, below.n = enc.span(c)
		case listEncoder[int64]:
			below.from, below.n = enc.span(c)
		}
		if below.n > 0 {
			size += child.bytes(below)
		}
	}
	return size
}

// rowsWithin returns how many rows of the chunk take at most limit bytes.
func (n *node) rowsWithin(c chunk, limit int64) int {
	if len(n.children) == 0 && n.enc != nil {
		return n.enc.rowsWithin(c, limit)
	}
	return sort.Search(c.n, func(i int) bool { return n.bytes(chunk{data: c.data, from: c.from, n: i + 1}) > limit })
}

// write writes rows as a page of each column.
func (n *node) write(out *output, chunks []chunk, rows int) error {
	if rows == 0 {
		return nil
	}
	if n.enc != nil {
		p := &pageWriter{out: out, page: &lancepb.Page{Length: uint64(rows), Priority: uint64(n.first)}}
		enc, err := n.enc.encode(p, chunks, rows)
		if err != nil {
			return err
		}
		if p.page.Encoding, err = directEncoding(enc); err != nil {
			return err
		}
		if err := n.pages.add(p.page, p.sums); err != nil {
			return err
		}
	}
	n.first += int64(rows)
	for i, child := range n.children {
		var below []chunk
		rows := 0
		for _, c := range chunks {
			for _, b := range n.below(c, i) {
				below, rows = append(below, b), rows+b.n
			}
		}
		if err := child.write(out, below, rows); err != nil {
			return fmt.Errorf("%q: %w", child.field.Name, err)
		}
	}
	return nil
}

// columns returns what is known of the pages of each column.
func (n *node) columns() []*pageList {
	lists := []*pageList{&n.pages}
	for _, child := range n.children {
		lists = append(lists, child.columns()...)
	}
	return lists
}

// end adds the pages that are known only at the end: the header of structs is one page however many rows there are, because
// readers want it so.
func (n *node) end() error {
	if n.enc == nil {
		header, err := directEncoding(structPage())
		if err != nil {
			return err
		}
		if err := n.pages.add(&lancepb.Page{Length: uint64(n.first), Encoding: header}, nil); err != nil {
			return err
		}
	}
	for _, child := range n.children {
		if err := child.end(); err != nil {
			return err
		}
	}
	return nil
}

// listEncoder lays out the offsets of lists, which Arrow has with type O.
type listEncoder[O int32 | int64] struct{ strings binaryEncoder[O] }

// span returns where the items of a chunk lie in the child, those under null rows included.
func (e listEncoder[O]) span(c chunk) (from, n int) {
	offsets := e.strings.offsets(c)
	return int(offsets[0]), int(offsets[c.n] - offsets[0])
}

// items returns the items of the valid rows of a chunk.
func (e listEncoder[O]) items(c chunk, child arrow.ArrayData) (items []chunk) {
	offsets := e.strings.offsets(c)
	from := offsets[0]
	add := func(to O) {
		if to > from {
			items = append(items, chunk{data: child, from: int(from), n: int(to - from)})
		}
	}
	if c.nulls() > 0 {
		validity, first := c.validity(), c.offset()
		for i := range c.n {
			if offsets[i] < offsets[i+1] && !bitutil.BitIsSet(validity, first+i) {
				add(offsets[i])
				from = offsets[i+1]
			}
		}
	}
	add(offsets[c.n])
	return items
}

// check implements encoder.
func (e listEncoder[O]) check(d arrow.ArrayData) error {
	return e.strings.checkOffsets(d, int64(d.Children()[0].Len()), "items")
}

// bytes implements encoder. The items are counted by their own column.
func (listEncoder[O]) bytes(c chunk) int64 { return int64(c.n) * 8 }

// rowsWithin implements encoder.
func (listEncoder[O]) rowsWithin(c chunk, limit int64) int { return int(min(int64(c.n), limit/8)) }

// encode implements encoder: end offsets within the page's items, as those of strings.
func (e listEncoder[O]) encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error) {
	ends, items, adjustment := e.strings.ends(p, chunks, rows)
	n, err := p.append(arrow.Uint64Traits.CastToBytes(ends))
	return listPage(n, adjustment, items), err
}
