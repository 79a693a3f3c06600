package memindex

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/vector"
)

// VectorType returns the dimensions of a type whose values are vectors that indexes take: lists of a fixed number of floats.
func VectorType(t arrow.DataType) (dim int, ok bool) {
	list, ok := t.(*arrow.FixedSizeListType)
	if !ok || list.Len() < 1 {
		return 0, false
	}
	switch list.Elem().ID() {
	case arrow.FLOAT32, arrow.FLOAT16, arrow.FLOAT64:
		return int(list.Len()), true
	}
	return 0, false
}

// Vectors returns n rows of an array of a VectorType from row at on, one after the other. Where an element is null there is a NaN; what
// stands for a row that is null means nothing. It returns the array's own memory where it can, else scratch, which it
// enlarges as needed and returns in any case.
func Vectors(values arrow.Array, at, n int, scratch []float32) (rows, enlarged []float32) {
	list := values.(*array.FixedSizeList)
	dim := int(list.DataType().(*arrow.FixedSizeListType).Len())
	from := (list.Data().Offset() + at) * dim
	elements := list.ListValues()
	whole := elements.NullN() == 0
	if x, ok := elements.(*array.Float32); ok && whole {
		return x.Float32Values()[from : from+n*dim], scratch
	}
	if cap(scratch) < n*dim {
		scratch = make([]float32, n*dim)
	}
	rows = scratch[:n*dim]
	switch x := elements.(type) {
	case *array.Float32:
		copy(rows, x.Float32Values()[from:])
	case *array.Float16:
		d := x.Data()
		bits := arrow.Uint16Traits.CastFromBytes(d.Buffers()[1].Bytes())[d.Offset()+from:]
		vector.WidenFloat16(rows, bits[:n*dim])
	case *array.Float64:
		for i, v := range x.Float64Values()[from : from+n*dim] {
			rows[i] = float32(v)
		}
	}
	for i := range rows {
		if !whole && elements.IsNull(from+i) {
			rows[i] = float32(math.NaN())
		}
	}
	return rows, scratch[:cap(scratch)]
}
