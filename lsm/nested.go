package lsm

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
)

// nullStructHint tells what to do instead. Whoever stored the fields of a null struct would give it back as a struct of
// nulls, which is another value.
const nullStructHint = "null structs cannot be stored; send a struct whose fields are null"

// nestedType reports whether a type has fields of its own.
func nestedType(t arrow.DataType) bool {
	return t.ID() == arrow.STRUCT || t.ID() == arrow.LIST || t.ID() == arrow.LARGE_LIST
}

// nestedFields returns the fields of a struct, or the item of a list.
func nestedFields(t arrow.DataType) []arrow.Field {
	if n, ok := t.(arrow.NestedType); ok {
		return n.Fields()
	}
	return nil
}

// checkNested refuses null structs and nulls in nested fields that are declared without. dead tells the rows that are
// tombstones, which have no values.
func checkNested(table string, f arrow.Field, col arrow.Array, dead func(row int) bool) error {
	if !nestedType(f.Type) {
		return nil
	}
	if path, hint := nestedFault(col, f, 0, col.Len(), dead); hint != "" {
		return &ColumnError{Table: table, Column: path, Came: "null", Want: f.Type.String(), Hint: hint}
	}
	return nil
}

// nestedFault returns the first field below a column that has a null where none may be, and what to do.
func nestedFault(col arrow.Array, f arrow.Field, from, to int, dead func(row int) bool) (path, hint string) {
	if s, ok := col.(*array.Struct); ok {
		if hasNull(col, from, to, dead) {
			return f.Name, nullStructHint
		}
		for i, field := range nestedFields(f.Type) {
			if path, hint = childFault(s.Field(i), field, from, to, dead); hint != "" {
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
	for row := from; row < to; row++ {
		first, last := list.ValueOffsets(row)
		if first == last || list.IsNull(row) {
			continue
		}
		if path, hint = childFault(list.ListValues(), item, int(first), int(last), nil); hint != "" {
			return f.Name + "." + path, hint
		}
	}
	return "", ""
}

// childFault is nestedFault for a field that may itself be declared without nulls.
func childFault(col arrow.Array, f arrow.Field, from, to int, dead func(row int) bool) (path, hint string) {
	if !f.Nullable && hasNull(col, from, to, dead) {
		return f.Name, "it may not be null"
	}
	return nestedFault(col, f, from, to, dead)
}

// canFail reports whether nulls below a list can be wrong at all, so that most lists need not be looked at.
func canFail(t arrow.DataType) bool {
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

// withoutNullStructs returns a column with structs of nulls for null structs, which only tombstones have, because files
// have no null structs. The caller releases it.
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
