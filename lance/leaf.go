package lance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// tree is a field of a file of version 2.1 or later with what is nested in it. Only leaves have columns: what is around
// them, lists, structs and nulls, is in the levels of each.
type tree struct {
	field    *Field
	column   int // of a leaf, else -1
	children []*tree
}

// newTree numbers the leaves of a field from *next on.
func (r *Reader) newTree(f *Field, path string, next *int) (*tree, error) {
	t := &tree{field: f, column: -1}
	if f.leaf() {
		if *next >= len(r.columns) {
			return nil, fmt.Errorf("the schema has more columns than the file, which has %d", len(r.columns))
		}
		if f.Type.ID() == arrow.STRUCT && f.form == plainForm {
			return nil, fmt.Errorf("column %q: structs without fields: %w", path, ErrUnsupported)
		}
		c := &r.columns[*next]
		c.field, c.path, c.parent = f, path, -1
		t.column = *next
		*next++
		return t, nil
	}
	for i := range f.Children {
		child, err := r.newTree(&f.Children[i], path+"."+f.Children[i].Name, next)
		if err != nil {
			return nil, err
		}
		t.children = append(t.children, child)
	}
	return t, nil
}

// leaves calls fn for the columns of all leaves.
func (t *tree) leaves(fn func(column int) error) error {
	if t.column >= 0 {
		return fn(t.column)
	}
	for _, child := range t.children {
		if err := child.leaves(fn); err != nil {
			return err
		}
	}
	return nil
}

// batchBytes is about how much of a column is decoded at once.
const batchBytes = 4 << 20

// decodeTree returns the rows [from, to) of a field, or as many of the first of them as make an array of a fair size, at
// least one.
func (r *Reader) decodeTree(t *tree, from, to int64) (arrow.ArrayData, error) {
	to, err := r.treeEnd(t, from, to, true)
	if err != nil {
		return nil, err
	}
	data, _, err := r.readTree(t, []rowRange{{from, to}})
	return data, err
}

// treeEnd returns the row, at most to, with which a page of any leaf ends, or a batch if it is to be bounded.
func (r *Reader) treeEnd(t *tree, from, to int64, bounded bool) (int64, error) {
	err := t.leaves(func(col int) error {
		pages, err := r.column(col)
		if err != nil {
			return err
		}
		p := pages[pageAt(pages, from)]
		to = min(to, p.end())
		if bounded {
			to = min(to, from+batchRows(p, r.columns[col].field.Type, r.mapped()))
		}
		if f := r.columns[col].field; bounded && (f.form == blobForm || f.form == placedForm) {
			to, err = r.blobEnd(col, from, to)
		}
		return err
	})
	return to, err
}

// batchRows returns about how many rows of a page are decoded at once. What is as it is in a mapped file takes no memory.
func batchRows(p *page, dt arrow.DataType, mapped bool) int64 {
	if z, ok := p.codec.(*fullZip); ok && mapped && z.controlBytes() == 0 && z.varying == nil && !z.flat.nulls {
		return p.rows
	}
	var stored int64
	for _, e := range p.bufs {
		stored += e.size
	}
	// Strings are stored in a fourth of their bytes at best, mostly.
	row := max(1, bitWidth(dt)/8, 4*stored/max(p.rows, 1))
	switch l := p.codec.(type) {
	case *constant:
		row = max(row, int64(len(l.value)))
		if l.outside {
			row = max(row, p.bufs[0].size)
		}
	case *miniBlocks:
		if l.dictionary != nil {
			row = max(row, 4*p.bufs[2].size/int64(max(l.distinct, 1)))
		}
	}
	return max(1, batchBytes/row)
}

// readTree reads rows of a field, which are ascending and lie in one page of each leaf. It returns what is left of the
// levels of the first leaf, too.
func (r *Reader) readTree(t *tree, rows []rowRange) (arrow.ArrayData, *levels, error) {
	if t.column >= 0 {
		return r.readLeaf(t.column, rows)
	}
	switch t.field.Type.(type) {
	case *arrow.StructType:
		return r.readStructs(t, rows)
	case *arrow.ListType, *arrow.MapType:
		return readLists[int32](r, t, rows)
	case *arrow.LargeListType:
		return readLists[int64](r, t, rows)
	}
	return nil, nil, fmt.Errorf("read %s: column %q: fields below a %s: %w", r.name, t.field.Name, t.field.Type, ErrUnsupported)
}

// readLeaf reads rows of a leaf.
func (r *Reader) readLeaf(col int, rows []rowRange) (arrow.ArrayData, *levels, error) {
	stored, left, err := r.readStored(col, rows)
	if err != nil {
		return nil, nil, err
	}
	pages, err := r.column(col)
	if err != nil {
		stored.Release()
		return nil, nil, err
	}
	k := pageAt(pages, rows[0].from)
	data, err := r.formed(r.columns[col].field, pages[k].codec.(layout), stored)
	if err != nil {
		return nil, nil, r.pageError(col, k, r.columns[col].at.off, err)
	}
	return data, left, nil
}

// readStored reads rows of a leaf as they are stored.
func (r *Reader) readStored(col int, rows []rowRange) (arrow.ArrayData, *levels, error) {
	pages, err := r.column(col)
	if err != nil {
		return nil, nil, err
	}
	k := pageAt(pages, rows[0].from)
	v, err := r.view(col, pages, k)
	if err != nil {
		return nil, nil, err
	}
	defer v.release()
	p, n := v.page, int64(0)
	inPage := make([]rowRange, len(rows))
	for i, x := range rows {
		inPage[i] = rowRange{x.from - p.first, x.to - p.first}
		n += x.to - x.from
	}
	l := p.codec.(layout)
	dt, err := r.columns[col].field.storedType(l)
	if err != nil {
		return nil, nil, r.pageError(col, k, r.columns[col].at.off, err)
	}
	out := &leafRows{levels: levels{layering: l.layering()}, values: newLeafValues(dt, int(n), r.alloc)}
	data, err := out.read(l, v, inPage, n)
	if err != nil {
		out.values.release()
		return nil, nil, r.pageError(col, k, r.columns[col].at.off, err)
	}
	return data, &out.levels, nil
}

// read reads rows of a page into an array.
func (o *leafRows) read(l layout, v *pageView, rows []rowRange, n int64) (arrow.ArrayData, error) {
	if err := l.read(v, rows, o); err != nil {
		return nil, err
	}
	if o.levels.lists == 0 && int64(o.values.n) != n {
		return nil, fmt.Errorf("%d values of %d rows", o.values.n, n)
	}
	validity, nulls, err := o.levels.validity(o.values.n, o.values.alloc)
	if err != nil {
		return nil, err
	}
	defer releaseBuffer(validity)
	data := o.values.array(validity, nulls)
	o.values.release()
	return data, nil
}

// readStructs reads rows of all fields. Their levels agree in what is around the structs.
func (r *Reader) readStructs(t *tree, rows []rowRange) (arrow.ArrayData, *levels, error) {
	var children []arrow.ArrayData
	defer func() {
		for _, child := range children {
			child.Release()
		}
	}()
	var left *levels
	for _, below := range t.children {
		child, l, err := r.readTree(below, rows)
		if err != nil {
			return nil, nil, err
		}
		if children = append(children, child); left == nil {
			left = l
		}
		if child.Len() != children[0].Len() {
			return nil, nil, r.treeError(below, fmt.Errorf("%d structs, the other fields have %d", child.Len(), children[0].Len()))
		}
	}
	n := children[0].Len()
	validity, nulls, err := left.validity(n, r.alloc)
	if err != nil {
		return nil, nil, r.treeError(t, err)
	}
	defer releaseBuffer(validity)
	return array.NewData(t.field.Type, n, []*memory.Buffer{validity}, children, nulls, 0), left, nil
}

// readLists reads rows of lists or maps with their items.
func readLists[O int32 | int64](r *Reader, t *tree, rows []rowRange) (arrow.ArrayData, *levels, error) {
	items, left, err := r.readTree(t.children[0], rows)
	if err != nil {
		return nil, nil, err
	}
	defer items.Release()
	l, err := takeListLayer[O](left, items.Len(), r.alloc)
	if err != nil {
		return nil, nil, r.treeError(t, err)
	}
	defer l.release()
	if err := checkEntries(t, items); err != nil {
		return nil, nil, r.treeError(t, err)
	}
	return array.NewData(t.field.Type, l.n, []*memory.Buffer{l.validity, l.offsets}, []arrow.ArrayData{items}, l.nulls, 0), left, nil
}

// checkEntries refuses what a map cannot have, and Arrow's arrays panic over.
func checkEntries(t *tree, entries arrow.ArrayData) error {
	if t.field.Type.ID() != arrow.MAP {
		return nil
	}
	if n := entries.NullN(); n != 0 {
		return fmt.Errorf("a map with %d null entries", n)
	}
	if n := entries.Children()[0].NullN(); n != 0 {
		return fmt.Errorf("a map with %d null keys", n)
	}
	return nil
}

// treeError places an error that was found in the levels of a field.
func (r *Reader) treeError(t *tree, err error) error {
	at := int64(0)
	_ = t.leaves(func(col int) error { // it returns what fn returns
		at = r.columns[col].at.off
		return nil
	})
	if errors.Is(err, ErrUnsupported) {
		return fmt.Errorf("read %s: column %q: %w", r.name, t.field.Name, err)
	}
	return r.corrupt(at, "column %q: %w", t.field.Name, err)
}

// takeTree gathers rows of a field in the order in which they are asked for.
func (r *Reader) takeTree(ctx context.Context, t *tree, rows []int64) (arrow.ArrayData, error) {
	if len(rows) == 0 {
		return emptyArray(t.field.Type, r.alloc), nil
	}
	sorted := ascending(rows)
	data, err := r.takeAscending(ctx, t, sorted)
	if err != nil || &sorted[0] == &rows[0] {
		return data, err
	}
	defer data.Release()
	return r.reorder(data, sorted, rows)
}

// ascending returns rows in their order, each of them once: the same if they are.
func ascending(rows []int64) []int64 {
	if slices.IsSortedFunc(rows, func(a, b int64) int {
		if a < b {
			return -1
		}
		return 1 // a row that comes twice is no ascent
	}) {
		return rows
	}
	sorted := slices.Clone(rows)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

// takeAscending gathers rows of a field, page by page.
func (r *Reader) takeAscending(ctx context.Context, t *tree, rows []int64) (arrow.ArrayData, error) {
	var parts []arrow.ArrayData
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	for len(rows) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", r.name, err)
		}
		end, err := r.treeEnd(t, rows[0], r.rows, false)
		if err != nil {
			return nil, err
		}
		n := sort.Search(len(rows), func(i int) bool { return rows[i] >= end })
		data, _, err := r.readTree(t, ranges(rows[:n]))
		if err != nil {
			return nil, err
		}
		parts, rows = append(parts, data), rows[n:]
	}
	return r.concatenate(parts)
}

// ranges joins ascending rows that follow each other.
func ranges(rows []int64) []rowRange {
	var out []rowRange
	for _, row := range rows {
		if n := len(out); n > 0 && out[n-1].to == row {
			out[n-1].to++
			continue
		}
		out = append(out, rowRange{row, row + 1})
	}
	return out
}

// concatenate joins arrays. The caller keeps its references.
func (r *Reader) concatenate(parts []arrow.ArrayData) (arrow.ArrayData, error) {
	if len(parts) == 1 {
		parts[0].Retain()
		return parts[0], nil
	}
	arrays := make([]arrow.Array, len(parts))
	for i, p := range parts {
		arrays[i] = array.MakeFromData(p)
		defer arrays[i].Release()
	}
	joined, err := array.Concatenate(arrays, r.alloc)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", r.name, err)
	}
	defer joined.Release()
	countAll(joined.Data())
	joined.Data().Retain()
	return joined.Data(), nil
}

// countAll makes the number of nulls of an array and of what is nested in it known.
func countAll(d arrow.ArrayData) {
	if d.NullN() < 0 {
		d.(*array.Data).SetNullN(chunk{data: d, n: d.Len()}.nulls())
	}
	for _, child := range d.Children() {
		countAll(child)
	}
}

// reorder returns the rows of an array, which has those of sorted, in another order.
func (r *Reader) reorder(data arrow.ArrayData, sorted, rows []int64) (arrow.ArrayData, error) {
	var parts []arrow.ArrayData
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	for i := 0; i < len(rows); {
		at, _ := slices.BinarySearch(sorted, rows[i])
		n := 1
		for i+n < len(rows) && at+n < len(sorted) && rows[i+n] == sorted[at+n] {
			n++
		}
		parts = append(parts, array.NewSliceData(data, int64(at), int64(at+n)))
		i += n
	}
	return r.concatenate(parts)
}
