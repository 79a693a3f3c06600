package lsm

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
)

// nullStructHint tells what to do instead where files are of Lance 2.0. Whoever stored the fields of a null struct would
// give it back as a struct of nulls, which is another value.
const nullStructHint = "null structs cannot be stored in the table's files, which are of Lance 2.0; send a struct whose fields are null, " +
	"or copy the table with CREATE TABLE … AS, which makes one of Lance 2.2"

// nestedType reports whether a type has fields of its own.
func nestedType(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.STRUCT, arrow.LIST, arrow.LARGE_LIST, arrow.MAP:
		return true
	}
	return false
}

// nestedFields returns the fields of a struct, or the item of a list or of a map.
func nestedFields(t arrow.DataType) []arrow.Field {
	if n, ok := t.(arrow.NestedType); ok {
		return n.Fields()
	}
	return nil
}

// checkNested refuses nulls in nested fields that are declared without, null structs where files have none, and maps that
// have a key twice. dead tells the rows that are tombstones, which have no values.
func (s *tableSchema) checkNested(table string, f arrow.Field, col arrow.Array, dead func(row int) bool) error {
	if !nestedType(f.Type) {
		return nil
	}
	if path, hint := s.nestedFault(col, f, 0, col.Len(), dead); hint != "" {
		return &ColumnError{Table: table, Column: path, Want: f.Type.String(), Hint: hint}
	}
	return nil
}

// nestedFault returns the first field below a column that has a null where none may be, and what to do.
func (s *tableSchema) nestedFault(col arrow.Array, f arrow.Field, from, to int, dead func(row int) bool) (path, hint string) {
	if st, ok := col.(*array.Struct); ok {
		gone := dead
		switch {
		case !hasNull(col, from, to, dead):
		case !s.nullStructs():
			return f.Name, nullStructHint
		default: // what is in the fields of a null struct does not matter
			gone = func(row int) bool { return st.IsNull(row) || dead != nil && dead(row) }
		}
		for i, field := range nestedFields(f.Type) {
			if path, hint = s.childFault(st.Field(i), field, from, to, gone); hint != "" {
				return f.Name + "." + path, hint
			}
		}
		return "", ""
	}
	list, ok := col.(array.ListLike)
	if !ok || !canFail(f.Type) || f.Type.ID() == arrow.FIXED_SIZE_LIST {
		return "", ""
	}
	item := nestedFields(f.Type)[0]
	unique := newUniqueKeys(col)
	for row := from; row < to; row++ {
		first, last := list.ValueOffsets(row)
		if first == last || list.IsNull(row) || dead != nil && dead(row) {
			continue
		}
		if path, hint = s.childFault(list.ListValues(), item, int(first), int(last), nil); hint != "" {
			return f.Name + "." + path, hint
		}
		if twice, ok := unique.repeated(int(first), int(last)); ok {
			return f.Name, fmt.Sprintf("a map has each key once, and the one in row %d has the key %s twice", row, twice)
		}
	}
	return "", ""
}

// childFault is nestedFault for a field that may itself be declared without nulls.
func (s *tableSchema) childFault(col arrow.Array, f arrow.Field, from, to int, dead func(row int) bool) (path, hint string) {
	if !f.Nullable && hasNull(col, from, to, dead) {
		return f.Name, "it may not be null"
	}
	return s.nestedFault(col, f, from, to, dead)
}

// canFail reports whether nulls below a list can be wrong at all, so that most lists need not be looked at.
func canFail(t arrow.DataType) bool {
	if t.ID() == arrow.MAP {
		return true
	}
	for _, f := range nestedFields(t) {
		if !f.Nullable || f.Type.ID() == arrow.STRUCT || canFail(f.Type) {
			return true
		}
	}
	return false
}

// hasNull reports whether a row that is not dead is null.
func hasNull(col arrow.Array, from, to int, dead func(row int) bool) bool {
	if col.NullN() == 0 || col.DataType().ID() == arrow.NULL {
		return false
	}
	for row := from; row < to; row++ {
		if col.IsNull(row) && (dead == nil || !dead(row)) {
			return true
		}
	}
	return false
}

// withoutNullStructs returns a column with structs of nulls for null structs, which only tombstones have where files have
// no null structs. The caller releases it.
func withoutNullStructs(col arrow.Array) arrow.Array {
	if !hasNullStruct(col) {
		col.Retain()
		return col
	}
	d := pushNulls(col.Data(), nil)
	defer d.Release()
	return array.MakeFromData(d)
}

// hasNullStruct reports whether a struct, or one that is a field of it, is null.
func hasNullStruct(col arrow.Array) bool {
	s, ok := col.(*array.Struct)
	if !ok {
		return false
	}
	for i := range s.NumField() {
		if hasNullStruct(s.Field(i)) {
			return true
		}
	}
	return s.NullN() > 0
}

// pushNulls moves the nulls of structs, and those of the struct that has them as a field, to their fields.
func pushNulls(d arrow.ArrayData, above func(row int) bool) *array.Data {
	if d.DataType().ID() == arrow.NULL { // which may have no buffers
		return array.NewData(d.DataType(), d.Len(), []*memory.Buffer{nil}, nil, d.Len(), 0)
	}
	bits, offset := d.Buffers()[0], d.Offset()
	null := func(row int) bool {
		return above != nil && above(row) || bits != nil && d.NullN() != 0 && !bitutil.BitIsSet(bits.Bytes(), offset+row)
	}
	if d.DataType().ID() == arrow.STRUCT {
		children := make([]arrow.ArrayData, len(d.Children()))
		for i, c := range d.Children() {
			part := array.NewSliceData(c, int64(offset), int64(offset+d.Len()))
			children[i] = pushNulls(part, null)
			part.Release()
			defer children[i].Release()
		}
		return array.NewData(d.DataType(), d.Len(), []*memory.Buffer{nil}, children, 0, 0)
	}
	validity := memory.NewResizableBuffer(offheap.Default)
	defer validity.Release()
	validity.Resize((offset + d.Len() + 7) / 8)
	clear(validity.Bytes())
	nulls := 0
	for row := range d.Len() {
		if null(row) {
			nulls++
		} else {
			bitutil.SetBit(validity.Bytes(), offset+row)
		}
	}
	bufs := append([]*memory.Buffer{validity}, d.Buffers()[1:]...)
	if nulls == 0 {
		bufs[0] = nil
	}
	return array.NewData(d.DataType(), d.Len(), bufs, d.Children(), nulls, offset)
}

// relabelRecord returns a batch under a schema of the same layouts. It takes over the batch.
func relabelRecord(rec arrow.RecordBatch, s *arrow.Schema) arrow.RecordBatch {
	same := true
	for i, f := range s.Fields() {
		same = same && rec.ColumnName(i) == f.Name && arrow.TypeEqual(rec.Column(i).DataType(), f.Type)
	}
	if same {
		return rec
	}
	defer rec.Release()
	cols := make([]arrow.Array, s.NumFields())
	for i, f := range s.Fields() {
		cols[i] = relabel(rec.Column(i), f.Type)
		defer cols[i].Release()
	}
	return array.NewRecordBatch(s, cols, rec.NumRows())
}
