package btree

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/float16"
)

// ErrUnsupported is returned for a column type that has no order here.
var ErrUnsupported = errors.New("the column type cannot be indexed by a BTREE")

// column is an ordered view of an Arrow array. Both arguments of its methods have the same Arrow type.
type column interface {
	// compare orders row i against row j of other. Neither is null.
	compare(i int, other column, j int) int
	// seek returns the first row at or after from that is not below row k of keys, the length when there is none.
	// REQUIRES: the rows from from on are in order and not null.
	seek(from int, keys column, k int) int
	// meet returns the first row from row on and the first key from k on that are equal; one of them is at its end, the
	// number of rows or end, when there are none. near says that rows and keys are about as many. REQUIRES: both are in
	// order from there on, and not null.
	meet(row int, keys column, k, end int, near bool) (int, int)
	// disorder returns the first row after from that is below the one before it, the length when there is none.
	// REQUIRES: the rows from from on are not null.
	disorder(from int) int
}

// Order compares the values of arrays of one type in the order of an index.
type Order struct{ column }

// OrderOf returns the order of an array's values. It shares the array's memory and does not retain it. The error is
// ErrUnsupported for a type that has no order here.
func OrderOf(a arrow.Array) (Order, error) {
	c, err := view(a)
	return Order{c}, err
}

// Compare orders row i against row j of other. Neither is null.
func (o Order) Compare(i int, other Order, j int) int { return o.compare(i, other.column, j) }

// view returns the ordered view of an array. It shares the array's memory and does not retain it.
func view(a arrow.Array) (column, error) {
	switch a := a.(type) {
	case *array.Boolean:
		return ordered[bool]{a, compareBools}, nil
	case *array.String:
		return ordered[string]{a, strings.Compare}, nil
	case *array.LargeString:
		return ordered[string]{a, strings.Compare}, nil
	case *array.Binary:
		return ordered[[]byte]{a, bytes.Compare}, nil
	case *array.LargeBinary:
		return ordered[[]byte]{a, bytes.Compare}, nil
	case *array.FixedSizeBinary:
		return ordered[[]byte]{a, bytes.Compare}, nil
	case *array.Decimal128:
		return ordered[decimal128.Num]{a, decimal128.Num.Cmp}, nil
	case *array.Decimal256:
		return ordered[decimal256.Num]{a, decimal256.Num.Cmp}, nil
	default:
		return viewNumbers(a)
	}
}

// viewNumbers is view for the types that Go itself orders.
func viewNumbers(a arrow.Array) (column, error) {
	switch a := a.(type) {
	case *array.Int8:
		return numbers[int8](a.Int8Values()), nil
	case *array.Int16:
		return numbers[int16](a.Int16Values()), nil
	case *array.Int32:
		return numbers[int32](a.Int32Values()), nil
	case *array.Int64:
		return numbers[int64](a.Int64Values()), nil
	case *array.Uint8:
		return numbers[uint8](a.Uint8Values()), nil
	case *array.Uint16:
		return numbers[uint16](a.Uint16Values()), nil
	case *array.Uint32:
		return numbers[uint32](a.Uint32Values()), nil
	case *array.Uint64:
		return numbers[uint64](a.Uint64Values()), nil
	case *array.Date32:
		return numbers[arrow.Date32](a.Date32Values()), nil
	case *array.Date64:
		return numbers[arrow.Date64](a.Date64Values()), nil
	case *array.Time32:
		return numbers[arrow.Time32](a.Time32Values()), nil
	case *array.Time64:
		return numbers[arrow.Time64](a.Time64Values()), nil
	case *array.Timestamp:
		return numbers[arrow.Timestamp](a.TimestampValues()), nil
	case *array.Duration:
		return numbers[arrow.Duration](a.DurationValues()), nil
	case *array.Float16:
		return ordered[float16.Num]{a, compareFloat16s}, nil
	case *array.Float32:
		return ordered[float32]{a, compareFloat32s}, nil
	case *array.Float64:
		return ordered[float64]{a, compareFloat64s}, nil
	default:
		return nil, fmt.Errorf("%s: %w", a.DataType(), ErrUnsupported)
	}
}

// supported returns an error that is ErrUnsupported when values of the type have no order here.
func supported(dt arrow.DataType) error {
	switch dt.ID() {
	case arrow.BOOL, arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY,
		arrow.DECIMAL128, arrow.DECIMAL256, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64,
		arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64, arrow.DATE32, arrow.DATE64,
		arrow.TIME32, arrow.TIME64, arrow.TIMESTAMP, arrow.DURATION, arrow.FLOAT16, arrow.FLOAT32, arrow.FLOAT64:
		return nil
	default:
		return fmt.Errorf("%s: %w", dt, ErrUnsupported)
	}
}

// numbers are values of fixed width that Go orders. Floats are not among them, as NaN has no place in its order.
type numbers[T cmp.Ordered] []T

func (c numbers[T]) compare(i int, other column, j int) int {
	return cmp.Compare(c[i], other.(numbers[T])[j])
}

func (c numbers[T]) seek(from int, keys column, k int) int {
	key := keys.(numbers[T])[k]
	return gallop(from, len(c), func(i int) bool { return c[i] < key })
}

func (c numbers[T]) disorder(from int) int {
	for i := from + 1; i < len(c); i++ {
		if c[i] < c[i-1] {
			return i
		}
	}
	return len(c)
}

// ordered are values that an array hands out one by one.
type ordered[T any] struct {
	a interface {
		Value(i int) T
		Len() int
	}
	cmp func(a, b T) int
}

func (c ordered[T]) compare(i int, other column, j int) int {
	return c.cmp(c.a.Value(i), other.(ordered[T]).a.Value(j))
}

func (c ordered[T]) seek(from int, keys column, k int) int {
	key := keys.(ordered[T]).a.Value(k)
	return gallop(from, c.a.Len(), func(i int) bool { return c.cmp(c.a.Value(i), key) < 0 })
}

func (c ordered[T]) disorder(from int) int {
	for i := from + 1; i < c.a.Len(); i++ {
		if c.cmp(c.a.Value(i), c.a.Value(i-1)) < 0 {
			return i
		}
	}
	return c.a.Len()
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// Floats are in the total order of IEEE 754, as in Lance: NaNs with a sign, the numbers with -0 before +0, other NaNs.
// With all bits but the sign of negative ones flipped, that is the order of the bits as integers.

func compareFloat16s(a, b float16.Num) int {
	order := func(v float16.Num) int16 { i := int16(v.Uint16()); return i ^ int16(uint16(i>>15)>>1) }
	return cmp.Compare(order(a), order(b))
}

func compareFloat32s(a, b float32) int {
	order := func(v float32) int32 { i := int32(math.Float32bits(v)); return i ^ int32(uint32(i>>31)>>1) }
	return cmp.Compare(order(a), order(b))
}

func compareFloat64s(a, b float64) int {
	order := func(v float64) int64 { i := int64(math.Float64bits(v)); return i ^ int64(uint64(i>>63)>>1) }
	return cmp.Compare(order(a), order(b))
}

// gallop returns the first i in [from, n) that is not below, or n. It looks near from first, which makes a search
// whose keys come in order cost the logarithm of the distance, not of n.
// REQUIRES: below is true up to some i and false from there on.
func gallop(from, n int, below func(i int) bool) int {
	if from >= n || !below(from) {
		return from
	}
	low, step := from, 1
	for low+step < n && below(low+step) {
		low += step
		step *= 2
	}
	high := min(low+step, n)
	for low+1 < high {
		mid := int(uint(low+high) >> 1)
		if below(mid) {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
