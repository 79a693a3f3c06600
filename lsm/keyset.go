package lsm

import (
	"bytes"
	"fmt"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/btree"
)

// KeySet is a set of keys of one view, or of values of one column: points, and ranges in the order of the keys. A scan
// that is given one leaves out rows whose keys are not in it, as far as that helps. It is filled by one goroutine and
// then only read.
type KeySet struct {
	view *View
	// by says how the set's keys are compared, and where they lie.
	by     *keyCodec
	points *keyRun
	ranges []keyRange
	// ints and wide are points that are not in points yet.
	ints []int64
	wide [][]byte
	// items says that the set is of items of a column of lists.
	items bool
}

// KeyBound is one end of a range of values. The zero value is an open end.
type KeyBound struct {
	// Value has one row, of the column's type.
	Value arrow.Array
	// Exclusive leaves the value itself out.
	Exclusive bool
}

// keyRange is the keys between two bounds, as normalised keys. Those of int keys are closed. A nil wide bound is an
// open end.
type keyRange struct {
	lowInt, highInt   int64
	low, high         []byte
	lowOpen, highOpen bool // the bound itself is not in the range
}

// NewKeySet returns an empty set of keys of the view's table, nil if that has no key.
func (v *View) NewKeySet() *KeySet {
	if v.schema.codec == nil {
		return nil
	}
	return &KeySet{view: v, by: v.schema.codec, points: &keyRun{codec: v.schema.codec}}
}

// NewColumnSet returns an empty set of values of a column, by its number in the table's schema, for ScanOptions.Where.
// It is nil for a type that has no order. Nulls are in no set. Of floats -0 is 0, and NaN, whatever its bits, is equal
// to itself and above all others, as in DuckDB.
func (v *View) NewColumnSet(column int) *KeySet {
	if column < 0 || column >= v.schema.arrow.NumFields() {
		return nil
	}
	by := newColumnCodec(v.schema.arrow.Field(column), column)
	if by == nil {
		return nil
	}
	return &KeySet{view: v, by: by, points: &keyRun{codec: by}}
}

// NewItemSet returns an empty set of items of a column of lists, by its number in the table's schema, for
// ScanOptions.Where: it asks for the rows whose lists have any of the items. It is nil for other columns, and for lists
// of a type that has no order. Only LABEL_LIST indexes, which other programs make, find rows by items; of what these do
// not cover all rows are read.
func (v *View) NewItemSet(column int) *KeySet {
	if column < 0 || column >= v.schema.arrow.NumFields() {
		return nil
	}
	item, ok := itemOf(v.schema.arrow.Field(column))
	if !ok {
		return nil
	}
	by := newColumnCodec(item, column)
	if by == nil {
		return nil
	}
	return &KeySet{view: v, by: by, points: &keyRun{codec: by}, items: true}
}

// itemOf returns the field of the items of lists.
func itemOf(f arrow.Field) (arrow.Field, bool) {
	switch t := f.Type.(type) {
	case *arrow.ListType:
		return t.ElemField(), true
	case *arrow.LargeListType:
		return t.ElemField(), true
	}
	return arrow.Field{}, false
}

// Add adds the keys whose first columns have the values in any one row of the arrays, which are of the types of the
// key's first columns, in the key's order, and have no nulls.
func (k *KeySet) Add(values []arrow.Array) error {
	if err := k.check(values); err != nil {
		return err
	}
	c := k.by
	if isFloat(c.typ) {
		k.addFloats(values[0])
		return nil
	}
	for i := range values[0].Len() {
		switch {
		case len(c.cols) > len(values):
			p := appendTuple(nil, values, i)
			k.ranges = append(k.ranges, keyRange{low: p, high: afterPrefix(p), highOpen: true})
		case len(c.cols) > 1:
			k.wide = append(k.wide, appendTuple(nil, values, i))
		case c.wide:
			k.wide = append(k.wide, bytes.Clone(wideKeys(values[0])(i)))
		default:
			k.ints = appendInts(k.ints, values[0])
			return nil
		}
	}
	return nil
}

// AddRange adds the keys whose first columns have the values of prefix, of one row each, and whose next column lies
// between the bounds.
func (k *KeySet) AddRange(prefix []arrow.Array, from, to KeyBound) error {
	all := slices.Clone(prefix)
	for _, b := range []KeyBound{from, to} {
		if b.Value == nil {
			continue
		}
		if err := k.check(append(slices.Clone(prefix), b.Value)); err != nil {
			return err
		}
	}
	c := k.by
	switch {
	case isFloat(c.typ):
		k.ranges = append(k.ranges, floatRange(c.typ, from, to)...)
	case len(c.cols) > 1:
		k.ranges = append(k.ranges, tupleRange(appendTuple(nil, all, 0), from, to))
	case c.wide:
		r := keyRange{lowOpen: from.Exclusive, highOpen: to.Exclusive}
		if from.Value != nil {
			r.low = append([]byte{}, wideKeys(from.Value)(0)...)
		}
		if to.Value != nil {
			r.high = append([]byte{}, wideKeys(to.Value)(0)...)
		}
		k.ranges = append(k.ranges, r)
	default:
		if r, ok := intRange(from, to); ok {
			k.ranges = append(k.ranges, r)
		}
	}
	return nil
}

// check refuses values that are not of the key's first columns.
func (k *KeySet) check(values []arrow.Array) error {
	c := k.by
	if len(values) == 0 || len(values) > len(c.cols) {
		return fmt.Errorf("%w keys: %d columns, the key of table %q has %d", ErrInvalid, len(values), k.view.table.name, len(c.cols))
	}
	for i, a := range values {
		f := c.fields[i]
		if !arrow.TypeEqual(a.DataType(), f.Type) || a.NullN() > 0 || a.Len() != values[0].Len() {
			return fmt.Errorf("%w keys: column %q of table %q is %s, not %s with %d nulls", ErrInvalid, f.Name, k.view.table.name, f.Type, a.DataType(), a.NullN())
		}
	}
	return nil
}

// tupleRange is a range over the column behind a prefix of a key of several columns.
func tupleRange(prefix []byte, from, to KeyBound) keyRange {
	r := keyRange{low: prefix, high: afterPrefix(prefix), highOpen: true}
	if from.Value != nil {
		r.low = appendTuple(bytes.Clone(prefix), []arrow.Array{from.Value}, 0)
		if from.Exclusive {
			r.low = afterPrefix(r.low)
		}
	}
	if to.Value != nil {
		r.high = appendTuple(bytes.Clone(prefix), []arrow.Array{to.Value}, 0)
		if !to.Exclusive {
			r.high = afterPrefix(r.high)
		}
	}
	return r
}

// afterPrefix returns the least bytes above all that begin with a prefix, nil when there are none.
func afterPrefix(p []byte) []byte {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xFF {
			out := bytes.Clone(p[:i+1])
			out[i]++
			return out
		}
	}
	return nil
}

// intRange closes the bounds of a range of ints; there is none if nothing lies between them.
func intRange(from, to KeyBound) (keyRange, bool) {
	r := keyRange{lowInt: math.MinInt64, highInt: math.MaxInt64}
	if from.Value != nil {
		r.lowInt = appendInts(nil, from.Value)[0]
		if from.Exclusive {
			if r.lowInt == math.MaxInt64 {
				return r, false
			}
			r.lowInt++
		}
	}
	if to.Value != nil {
		r.highInt = appendInts(nil, to.Value)[0]
		if to.Exclusive {
			if r.highInt == math.MinInt64 {
				return r, false
			}
			r.highInt--
		}
	}
	return r, r.lowInt <= r.highInt
}

// seal sorts the points.
func (k *KeySet) seal() {
	if len(k.ints)+len(k.wide) == 0 {
		return
	}
	p := k.points
	k.points = newKeyRun(p.codec, append(k.ints, p.ints...), append(k.wide, p.wide...))
	k.ints, k.wide = nil, nil
}

// contains reports whether the i-th key of a column is in the set.
func (k *KeySet) contains(keys keyColumn, i int) bool {
	if k.points.Len() > 0 && k.points.contains(keys, i) {
		return true
	}
	for j := range k.ranges {
		if k.ranges[j].contains(keys, i) {
			return true
		}
	}
	return false
}

// contains reports whether the i-th key of a column is in the range.
func (r *keyRange) contains(keys keyColumn, i int) bool {
	if keys.wide == nil {
		return keys.ints[i] >= r.lowInt && keys.ints[i] <= r.highInt
	}
	key := keys.wide(i)
	if r.low != nil {
		if c := bytes.Compare(key, r.low); c < 0 || c == 0 && r.lowOpen {
			return false
		}
	}
	if r.high != nil {
		if c := bytes.Compare(key, r.high); c > 0 || c == 0 && r.highOpen {
			return false
		}
	}
	return true
}

// bounds returns the range as an index takes it, and the values in it, which the caller releases.
func (r *keyRange) bounds(codec *keyCodec) (from, to btree.Bound, values arrow.Array) {
	b := array.NewBuilder(memory.DefaultAllocator, codec.typ)
	defer b.Release()
	low, high := -1, -1
	if codec.wide {
		if r.low != nil {
			low = b.Len()
			appendWide(b, r.low)
		}
		if r.high != nil {
			high = b.Len()
			appendWide(b, r.high)
		}
	} else {
		least, greatest := intDomain(codec.typ)
		// A value beyond the type's own would come out as another; as a bound it is an open end, or bounds nothing.
		if r.lowInt > least {
			low = b.Len()
			appendInt(b, min(r.lowInt, greatest))
		}
		if r.highInt < greatest {
			high = b.Len()
			appendInt(b, max(r.highInt, least))
		}
	}
	values = b.NewArray()
	if low >= 0 {
		from = btree.Bound{Values: values, Row: low, Exclusive: r.lowOpen}
	}
	if high >= 0 {
		to = btree.Bound{Values: values, Row: high, Exclusive: r.highOpen}
	}
	return from, to, values
}

// intDomain returns the least and the greatest normalised value of a type for which isInt holds.
func intDomain(t arrow.DataType) (least, greatest int64) {
	switch t.ID() {
	case arrow.BOOL:
		return 0, 1
	case arrow.INT8:
		return math.MinInt8, math.MaxInt8
	case arrow.INT16, arrow.FLOAT16:
		return math.MinInt16, math.MaxInt16
	case arrow.INT32, arrow.DATE32, arrow.TIME32, arrow.FLOAT32:
		return math.MinInt32, math.MaxInt32
	case arrow.UINT8:
		return 0, math.MaxUint8
	case arrow.UINT16:
		return 0, math.MaxUint16
	case arrow.UINT32:
		return 0, math.MaxUint32
	}
	return math.MinInt64, math.MaxInt64
}
