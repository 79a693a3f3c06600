package lsm

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// cast returns a column as the wanted type; the caller releases it. A value that would change by it is an
// error that names its row. The casts are our own because the kernels of arrow's compute package run on goroutines
// whose panics nobody can recover: a fault in one would end the process.
func (s *tableSchema) cast(col arrow.Array, want arrow.DataType) (arrow.Array, error) {
	return s.castIn(memory.DefaultAllocator, col, want)
}

// castIn is cast with the memory of an allocator.
func (s *tableSchema) castIn(mem memory.Allocator, col arrow.Array, want arrow.DataType) (arrow.Array, error) {
	if sameLayout(col.DataType(), want) {
		return relabel(col, want), nil
	}
	if col.DataType().ID() == arrow.NULL { // whose rows arrow-go calls valid
		return s.nulls(want, col.Len(), mem), nil
	}
	b := array.NewBuilder(mem, want)
	defer b.Release()
	b.Reserve(col.Len())
	put, err := caster(col, b)
	if err != nil {
		return nil, err
	}
	for row := range col.Len() {
		if col.IsNull(row) {
			b.AppendNull()
		} else if !put(row) {
			return nil, fmt.Errorf("the value %s in row %d does not fit", col.ValueStr(row), row)
		}
	}
	return b.NewArray(), nil
}

// castable reports whether values of one type can be cast to another without a change of meaning: within the
// integers, within the floats, within the strings and within the binaries. Whether each value fits is seen when
// it comes.
func castable(from, to arrow.DataType) bool {
	return arrow.IsInteger(from.ID()) && arrow.IsInteger(to.ID()) ||
		arrow.IsFloating(from.ID()) && arrow.IsFloating(to.ID()) ||
		isText(from) && isText(to) || isBytes(from) && isBytes(to) ||
		from.ID() == arrow.NULL
}

func isText(t arrow.DataType) bool {
	return t.ID() == arrow.STRING || t.ID() == arrow.LARGE_STRING || t.ID() == arrow.STRING_VIEW
}

func isBytes(t arrow.DataType) bool {
	return t.ID() == arrow.BINARY || t.ID() == arrow.LARGE_BINARY || t.ID() == arrow.BINARY_VIEW
}

// caster returns a function that appends the value of a row to b and reports whether it fits.
func caster(col arrow.Array, b array.Builder) (func(row int) bool, error) {
	to := b.Type()
	switch {
	case !castable(col.DataType(), to):
		return nil, fmt.Errorf("%s cannot become %s", col.DataType(), to)
	case arrow.IsInteger(to.ID()):
		return func(row int) bool { return putInt(b, col, row) }, nil
	case arrow.IsFloating(to.ID()):
		return func(row int) bool { return putFloat(b, floatAt(col, row)) }, nil
	}
	return func(row int) bool { return putBytes(b, bytesAt(col, row)) }, nil
}

// intAt returns an integer as its magnitude's two forms: v for what fits an int64, else u with big set.
func intAt(col arrow.Array, row int) (v int64, u uint64, big bool) {
	switch a := col.(type) {
	case *array.Int8:
		v = int64(a.Value(row))
	case *array.Int16:
		v = int64(a.Value(row))
	case *array.Int32:
		v = int64(a.Value(row))
	case *array.Int64:
		v = a.Value(row)
	case *array.Uint8:
		v = int64(a.Value(row))
	case *array.Uint16:
		v = int64(a.Value(row))
	case *array.Uint32:
		v = int64(a.Value(row))
	case *array.Uint64:
		u = a.Value(row)
		return int64(u), u, u > math.MaxInt64
	}
	return v, uint64(v), false
}

// putInt appends an integer, if it fits.
func putInt(b array.Builder, col arrow.Array, row int) bool {
	v, u, big := intAt(col, row)
	if x, ok := b.(*array.Uint64Builder); ok {
		if !big && v < 0 {
			return false
		}
		x.Append(u)
		return true
	}
	if big {
		return false
	}
	switch x := b.(type) {
	case *array.Int8Builder:
		return putIf(v == int64(int8(v)), x.Append, int8(v))
	case *array.Int16Builder:
		return putIf(v == int64(int16(v)), x.Append, int16(v))
	case *array.Int32Builder:
		return putIf(v == int64(int32(v)), x.Append, int32(v))
	case *array.Int64Builder:
		return putIf(true, x.Append, v)
	case *array.Uint8Builder:
		return putIf(v == int64(uint8(v)), x.Append, uint8(v))
	case *array.Uint16Builder:
		return putIf(v == int64(uint16(v)), x.Append, uint16(v))
	case *array.Uint32Builder:
		return putIf(v == int64(uint32(v)), x.Append, uint32(v))
	}
	return false
}

// putIf appends v when it fits.
func putIf[T any](fits bool, add func(T), v T) bool {
	if fits {
		add(v)
	}
	return fits
}

func floatAt(col arrow.Array, row int) float64 {
	switch a := col.(type) {
	case *array.Float16:
		return float64(a.Value(row).Float32())
	case *array.Float32:
		return float64(a.Value(row))
	case *array.Float64:
		return a.Value(row)
	}
	return math.NaN()
}

// putFloat appends a float, if it is the same in the narrower type. Any NaN is.
func putFloat(b array.Builder, v float64) bool {
	same := func(w float64) bool { return v == w || math.IsNaN(v) }
	switch x := b.(type) {
	case *array.Float16Builder:
		h := float16.New(float32(v))
		return putIf(same(float64(h.Float32())), x.Append, h)
	case *array.Float32Builder:
		return putIf(same(float64(float32(v))), x.Append, float32(v))
	case *array.Float64Builder:
		return putIf(true, x.Append, v)
	}
	return false
}

func bytesAt(col arrow.Array, row int) []byte {
	switch a := col.(type) {
	case *array.String:
		return []byte(a.Value(row))
	case *array.LargeString:
		return []byte(a.Value(row))
	case *array.StringView:
		return []byte(a.Value(row))
	case *array.Binary:
		return a.Value(row)
	case *array.LargeBinary:
		return a.Value(row)
	case *array.BinaryView:
		return a.Value(row)
	}
	return nil
}

// putBytes appends a string or binary, if the column's offsets reach that far.
func putBytes(b array.Builder, v []byte) bool {
	switch x := b.(type) {
	case *array.StringBuilder:
		return putIf(x.DataLen()+len(v) <= math.MaxInt32, x.BinaryBuilder.Append, v)
	case *array.LargeStringBuilder:
		x.BinaryBuilder.Append(v)
	case *array.StringViewBuilder:
		x.BinaryViewBuilder.Append(v)
	case *array.BinaryBuilder:
		return putIf(x.Type().ID() == arrow.LARGE_BINARY || x.DataLen()+len(v) <= math.MaxInt32, x.Append, v)
	case *array.BinaryViewBuilder:
		x.Append(v)
	default:
		return false
	}
	return true
}
