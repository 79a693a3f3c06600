package lsm

import (
	"fmt"
	"iter"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
)

// A column that is widened gets a new field id, as Lance does it, because files know their columns' types by the id.
// Rows that were written with an older id are read by it and cast; the compactor writes the base's values anew, in one
// more file for each fragment (align.go). Nothing is lost on the way, as every value fits.

// lives returns the field ids under which rows may have a column, the newest first.
func (s *tableSchema) lives(column int) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		id, ok := s.lance.Fields[column].ID, true
		for ok && yield(id) {
			id, ok = s.was[id]
		}
	}
}

// widened returns a column as the schema has it, which rows may have as a narrower one. The caller releases it.
func (s *tableSchema) widened(col arrow.Array, column int) (arrow.Array, error) {
	want := s.lance.Fields[column].Type
	if !widens(col.DataType(), want) {
		col.Retain()
		return col, nil
	}
	if want.ID() == arrow.DECIMAL128 { // more digits in the same bits
		d := array.NewData(want, col.Len(), col.Data().Buffers(), nil, col.NullN(), col.Data().Offset())
		defer d.Release()
		return array.MakeFromData(d), nil
	}
	out, err := s.castIn(offheap.Default, col, want)
	if err != nil {
		return nil, fmt.Errorf("column %q: %w", s.lance.Fields[column].Name, err)
	}
	return out, nil
}

// widens reports whether another type has all values of a type, and more.
func widens(from, to arrow.DataType) bool {
	width := func(t arrow.DataType) int { return t.(arrow.FixedWidthDataType).BitWidth() }
	switch {
	case arrow.IsInteger(from.ID()) && arrow.IsInteger(to.ID()):
		return width(from) < width(to) && (arrow.IsUnsignedInteger(from.ID()) || arrow.IsSignedInteger(to.ID()))
	case arrow.IsFloating(from.ID()) && arrow.IsFloating(to.ID()):
		return width(from) < width(to)
	case from.ID() == arrow.DECIMAL128 && to.ID() == arrow.DECIMAL128:
		a, b := from.(*arrow.Decimal128Type), to.(*arrow.Decimal128Type)
		return a.Scale == b.Scale && a.Precision < b.Precision
	}
	return from.ID() == arrow.STRING && to.ID() == arrow.LARGE_STRING || from.ID() == arrow.BINARY && to.ID() == arrow.LARGE_BINARY
}
