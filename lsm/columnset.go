package lsm

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"
)

// newColumnCodec says how the values of a column are compared and stored in an index over it, nil for a type that has
// no order.
func newColumnCodec(f arrow.Field, column int) *keyCodec {
	if !isInt(f.Type) && !isWide(f.Type) {
		return nil
	}
	return &keyCodec{cols: []int{column}, names: []string{f.Name}, fields: []arrow.Field{f}, typ: f.Type, wide: isWide(f.Type)}
}

// isFloat reports whether a type has NaNs and two zeros.
func isFloat(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64:
		return true
	}
	return false
}

// Floats are normalised in the total order of IEEE 754, which is that of Lance's indexes: NaNs with a sign, then the
// numbers, -0 before +0, and then the other NaNs. To flip all bits but the sign of negative ones is all that it takes,
// and undoes itself.

func orderFloat16(bits uint16) int64 { v := int16(bits); return int64(v ^ int16(uint16(v>>15)>>1)) }
func orderFloat32(bits uint32) int64 { v := int32(bits); return int64(v ^ int32(uint32(v>>31)>>1)) }
func orderFloat64(bits uint64) int64 { v := int64(bits); return v ^ int64(uint64(v>>63)>>1) }

// appendFloats is appendInts for floats.
func appendFloats(dst []int64, col arrow.Array) []int64 {
	switch a := col.(type) {
	case *array.Float16:
		for _, v := range a.Values() {
			dst = append(dst, orderFloat16(v.Uint16()))
		}
	case *array.Float32:
		for _, v := range a.Float32Values() {
			dst = append(dst, orderFloat32(math.Float32bits(v)))
		}
	case *array.Float64:
		for _, v := range a.Float64Values() {
			dst = append(dst, orderFloat64(math.Float64bits(v)))
		}
	}
	return dst
}

// appendFloat undoes appendFloats.
func appendFloat(b array.Builder, v int64) {
	switch b := b.(type) {
	case *array.Float16Builder:
		b.Append(float16.FromBits(uint16(orderFloat16(uint16(v)))))
	case *array.Float32Builder:
		b.Append(math.Float32frombits(uint32(orderFloat32(uint32(v)))))
	case *array.Float64Builder:
		b.Append(math.Float64frombits(uint64(orderFloat64(uint64(v)))))
	}
}

// infinity returns the normalised positive infinity of a type of floats. That of the negative one is its complement,
// and what lies beyond the two are NaNs. The zeros are -1 and 0 in all of them.
func infinity(t arrow.DataType) int64 {
	switch t.ID() {
	case arrow.FLOAT16:
		return 0x7C00
	case arrow.FLOAT32:
		return orderFloat32(math.Float32bits(float32(math.Inf(1))))
	}
	return orderFloat64(math.Float64bits(math.Inf(1)))
}

// addFloats adds points.
func (k *KeySet) addFloats(values arrow.Array) {
	inf := infinity(k.by.typ)
	for _, v := range appendFloats(nil, values) {
		switch {
		case v == -1 || v == 0:
			k.ints = append(k.ints, -1, 0)
		case v > inf || v < ^inf:
			k.ranges = append(k.ranges, nans(k.by.typ)...)
		default:
			k.ints = append(k.ints, v)
		}
	}
}

// nans are the ranges of all NaNs.
func nans(t arrow.DataType) []keyRange {
	least, greatest := intDomain(t)
	inf := infinity(t)
	return []keyRange{{lowInt: least, highInt: ^inf - 1}, {lowInt: inf + 1, highInt: greatest}}
}

// floatRange returns the ranges that hold the floats between two bounds in DuckDB's order, in which -0 is 0 and a NaN
// is above all numbers and equal to every other.
func floatRange(t arrow.DataType, from, to KeyBound) []keyRange {
	inf := infinity(t)
	r := keyRange{lowInt: ^inf, highInt: inf}
	above := true // whether NaNs are in it
	if from.Value != nil {
		v := appendFloats(nil, from.Value)[0]
		switch {
		case v > inf || v < ^inf:
			r.lowInt, above = math.MaxInt64, !from.Exclusive
		case from.Exclusive:
			if r.lowInt = v + 1; v == -1 {
				r.lowInt = 1
			}
		default:
			if r.lowInt = v; v == 0 {
				r.lowInt = -1
			}
		}
	}
	if to.Value != nil {
		v := appendFloats(nil, to.Value)[0]
		switch {
		case v > inf || v < ^inf:
			above = above && !to.Exclusive
		case to.Exclusive:
			above = false
			if r.highInt = v - 1; v == 0 {
				r.highInt = -2
			}
		default:
			above = false
			if r.highInt = v; v == -1 {
				r.highInt = 0
			}
		}
	}
	var out []keyRange
	if r.lowInt <= r.highInt {
		out = append(out, r)
	}
	if above {
		out = append(out, nans(t)...)
	}
	return out
}
