package query

import (
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lsm"
)

// maxFilterRanges bounds the ranges of a filter; more are not worth the searches.
const maxFilterRanges = 1 << 10

// keySet fills an empty set with the keys and returns it, nil when they may be any.
func (f *keyFilter) keySet(k *lsm.KeySet) (*lsm.KeySet, error) {
	if f == nil || k == nil {
		return nil, nil
	}
	b := keyBuilder{columns: f.columns, set: k, points: make([][]array.Builder, len(f.columns)+1)}
	defer b.release()
	for _, x := range f.boxes {
		whole, err := b.add(x)
		if err != nil {
			return nil, err
		}
		if whole || b.ranges > maxFilterRanges {
			return nil, nil
		}
	}
	return k, b.flush()
}

// A keyBuilder turns boxes into points and ranges.
type keyBuilder struct {
	columns []keyColumn
	set     *lsm.KeySet
	// points collect values of the first n columns of the key.
	points [][]array.Builder
	ranges int
}

// add adds a box. It returns true when every key may be in it.
func (b *keyBuilder) add(x box) (whole bool, err error) {
	stored := make(box, len(x))
	for i, c := range b.columns {
		var ok bool
		if stored[i], ok = c.stored(x[i]); !ok || stored[i].empty() {
			return false, nil
		}
	}
	n := 0
	for n < len(stored) && stored[n].point() {
		n++
	}
	switch {
	case n < len(stored) && (stored[n].low.set || stored[n].high.set):
		b.ranges++
		return false, b.addRange(stored, n)
	case n == 0:
		return true, nil
	}
	if n < len(stored) {
		b.ranges++
	}
	if b.points[n] == nil {
		for _, c := range b.columns[:n] {
			b.points[n] = append(b.points[n], array.NewBuilder(memory.DefaultAllocator, c.arrow))
		}
	}
	for i, builder := range b.points[n] {
		appendScalar(builder, stored[i].low.value)
	}
	return false, nil
}

// addRange adds what has the values of the first n columns, and lies in the interval of the next.
func (b *keyBuilder) addRange(x box, n int) error {
	prefix := make([]arrow.Array, n)
	for i := range prefix {
		prefix[i] = oneScalar(b.columns[i].arrow, x[i].low.value)
		defer prefix[i].Release()
	}
	bounds := make([]lsm.KeyBound, 2)
	for i, l := range []limit{x[n].low, x[n].high} {
		if l.set {
			bounds[i] = lsm.KeyBound{Value: oneScalar(b.columns[n].arrow, l.value), Exclusive: l.open}
			defer bounds[i].Value.Release()
		}
	}
	return b.set.AddRange(prefix, bounds[0], bounds[1])
}

// flush hands the points over.
func (b *keyBuilder) flush() error {
	for _, builders := range b.points {
		values := make([]arrow.Array, len(builders))
		for i, x := range builders {
			values[i] = x.NewArray()
			defer values[i].Release()
		}
		if len(values) == 0 {
			continue
		}
		if err := b.set.Add(values); err != nil {
			return err
		}
	}
	return nil
}

func (b *keyBuilder) release() {
	for _, builders := range b.points {
		for _, x := range builders {
			x.Release()
		}
	}
}

// stored translates an interval of SQL's values to one of the column's; ok is false when none of these lies in it.
func (c keyColumn) stored(i interval) (_ interval, ok bool) {
	if t, fixed := c.arrow.(*arrow.FixedSizeBinaryType); fixed {
		return fixedInterval(i, t.ByteWidth)
	}
	if f := timestampFactor(c.arrow); f > 1 {
		i.low, i.high = coarse(i.low, f, true), coarse(i.high, f, false)
	}
	least, greatest, bounded := numberDomain(c.arrow)
	if !bounded {
		return i, true
	}
	if i.low.set && i.low.value.num.Less(least) {
		i.low = limit{}
	}
	if i.high.set && greatest.Less(i.high.value.num) {
		i.high = limit{}
	}
	ok = !(i.low.set && greatest.Less(i.low.value.num)) && !(i.high.set && i.high.value.num.Less(least))
	return i, ok
}

// coarse translates a limit to units that are factor times larger, such that no whole number of these is lost.
func coarse(l limit, factor int64, low bool) limit {
	if !l.set {
		return l
	}
	n := int64(l.value.num.LowBits()) // it is a timestamp: 64 bits with a sign
	q, rest := n/factor, n%factor
	if rest < 0 {
		q, rest = q-1, rest+factor
	}
	if rest > 0 {
		l.open = false
		if low {
			q++
		}
	}
	l.value = scalar{num: decimal128.FromI64(q)}
	return l
}

// fixedInterval translates limits to the width of a column of bytes of one width.
func fixedInterval(i interval, width int) (_ interval, ok bool) {
	if i.point() && len(i.low.value.text) != width {
		return i, false
	}
	for _, l := range []*limit{&i.low, &i.high} {
		switch n := len(l.value.text); {
		case !l.set || n == width:
		case n > width:
			*l = limit{}
		default:
			// No value of the column lies between the shorter text and the one with zeros behind it.
			l.value = scalar{text: l.value.text + string(make([]byte, width-n))}
			l.open = l == &i.high
		}
	}
	return i, true
}

// numberDomain returns the least and the greatest number of a column, if it has fewer than SQL may ask for.
func numberDomain(dt arrow.DataType) (least, greatest decimal128.Num, ok bool) {
	signed := func(low, high int64) (decimal128.Num, decimal128.Num, bool) {
		return decimal128.FromI64(low), decimal128.FromI64(high), true
	}
	switch dt.ID() {
	case arrow.BOOL:
		return signed(0, 1)
	case arrow.INT8:
		return signed(math.MinInt8, math.MaxInt8)
	case arrow.INT16:
		return signed(math.MinInt16, math.MaxInt16)
	case arrow.INT32, arrow.DATE32:
		return signed(math.MinInt32, math.MaxInt32)
	case arrow.INT64, arrow.DATE64, arrow.TIMESTAMP:
		return signed(math.MinInt64, math.MaxInt64)
	case arrow.UINT8:
		return signed(0, math.MaxUint8)
	case arrow.UINT16:
		return signed(0, math.MaxUint16)
	case arrow.UINT32:
		return signed(0, math.MaxUint32)
	case arrow.UINT64:
		return decimal128.FromI64(0), decimal128.FromU64(math.MaxUint64), true
	}
	return least, greatest, false
}

// oneScalar returns an array of one value.
func oneScalar(dt arrow.DataType, s scalar) arrow.Array {
	b := array.NewBuilder(memory.DefaultAllocator, dt)
	defer b.Release()
	appendScalar(b, s)
	return b.NewArray()
}

// appendScalar appends a value that is one of the column's.
func appendScalar(b array.Builder, s scalar) {
	n := int64(s.num.LowBits())
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(n != 0)
	case *array.Int8Builder:
		b.Append(int8(n))
	case *array.Int16Builder:
		b.Append(int16(n))
	case *array.Int32Builder:
		b.Append(int32(n))
	case *array.Int64Builder:
		b.Append(n)
	case *array.Uint8Builder:
		b.Append(uint8(n))
	case *array.Uint16Builder:
		b.Append(uint16(n))
	case *array.Uint32Builder:
		b.Append(uint32(n))
	case *array.Uint64Builder:
		b.Append(uint64(n))
	case *array.Date32Builder:
		b.Append(arrow.Date32(n))
	case *array.Date64Builder:
		b.Append(arrow.Date64(n))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(n))
	case *array.Decimal128Builder:
		b.Append(s.num)
	case *array.Float32Builder:
		b.Append(float32(s.real))
	case *array.Float64Builder:
		b.Append(s.real)
	case *array.StringBuilder:
		b.Append(s.text)
	case *array.LargeStringBuilder:
		b.Append(s.text)
	case *array.BinaryBuilder: // large binaries, too
		b.Append([]byte(s.text))
	case *array.FixedSizeBinaryBuilder:
		b.Append([]byte(s.text))
	}
}
