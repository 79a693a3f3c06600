package lsm

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// keyDomain is an array of random values of a type that keys may have, and how two of them compare.
type keyDomain struct {
	array   arrow.Array
	compare func(i, j int) int
}

// wholeNumbers returns n random integers of a type, its ends among them.
func wholeNumbers[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64](r *rand.Rand, n int, low, high T) []T {
	out := []T{low, high, 0, low + 1, high - 1}
	for len(out) < n {
		if r.IntN(2) == 0 {
			out = append(out, T(r.Uint64()))
		} else {
			out = append(out, T(r.IntN(5)))
		}
	}
	return out
}

// domainOf returns values as an array that append makes of them.
func domainOf[T, B any](n int, values []T, b array.Builder, append func(B, T), compare func(a, b T) int) keyDomain {
	for _, v := range values[:n] {
		append(b.(B), v)
	}
	return keyDomain{b.NewArray(), func(i, j int) int { return compare(values[i], values[j]) }}
}

// keyDomains returns n values of every type that a key may have.
func keyDomains(r *rand.Rand, n int) map[string]keyDomain {
	mem := memory.DefaultAllocator
	out := map[string]keyDomain{
		"int8":   domainOf(n, wholeNumbers[int8](r, n, math.MinInt8, math.MaxInt8), array.NewInt8Builder(mem), (*array.Int8Builder).Append, cmp.Compare),
		"int16":  domainOf(n, wholeNumbers[int16](r, n, math.MinInt16, math.MaxInt16), array.NewInt16Builder(mem), (*array.Int16Builder).Append, cmp.Compare),
		"int32":  domainOf(n, wholeNumbers[int32](r, n, math.MinInt32, math.MaxInt32), array.NewInt32Builder(mem), (*array.Int32Builder).Append, cmp.Compare),
		"int64":  domainOf(n, wholeNumbers[int64](r, n, math.MinInt64, math.MaxInt64), array.NewInt64Builder(mem), (*array.Int64Builder).Append, cmp.Compare),
		"uint8":  domainOf(n, wholeNumbers[uint8](r, n, 0, math.MaxUint8), array.NewUint8Builder(mem), (*array.Uint8Builder).Append, cmp.Compare),
		"uint16": domainOf(n, wholeNumbers[uint16](r, n, 0, math.MaxUint16), array.NewUint16Builder(mem), (*array.Uint16Builder).Append, cmp.Compare),
		"uint32": domainOf(n, wholeNumbers[uint32](r, n, 0, math.MaxUint32), array.NewUint32Builder(mem), (*array.Uint32Builder).Append, cmp.Compare),
		"uint64": domainOf(n, wholeNumbers[uint64](r, n, 0, math.MaxUint64), array.NewUint64Builder(mem), (*array.Uint64Builder).Append, cmp.Compare),
		"date32": domainOf(n, wholeNumbers[int32](r, n, math.MinInt32, math.MaxInt32), array.NewDate32Builder(mem),
			func(b *array.Date32Builder, v int32) { b.Append(arrow.Date32(v)) }, cmp.Compare),
		"date64": domainOf(n, wholeNumbers[int64](r, n, math.MinInt64, math.MaxInt64), array.NewDate64Builder(mem),
			func(b *array.Date64Builder, v int64) { b.Append(arrow.Date64(v)) }, cmp.Compare),
		"timestamp": domainOf(n, wholeNumbers[int64](r, n, math.MinInt64, math.MaxInt64), array.NewTimestampBuilder(mem, &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}),
			func(b *array.TimestampBuilder, v int64) { b.Append(arrow.Timestamp(v)) }, cmp.Compare),
		"bool": domainOf(n, wholeNumbers[uint8](r, n, 0, math.MaxUint8), array.NewBooleanBuilder(mem),
			func(b *array.BooleanBuilder, v uint8) { b.Append(v%2 == 1) }, func(a, b uint8) int { return cmp.Compare(a%2, b%2) }),
	}
	texts := make([]string, n)
	for i := range texts {
		for range r.IntN(5) {
			texts[i] += string([]byte{[]byte{0, 1, 'a', 0x7f, 0xff}[r.IntN(5)]})
		}
	}
	out["utf8"] = domainOf(n, texts, array.NewStringBuilder(mem), (*array.StringBuilder).Append, cmp.Compare)
	out["large_utf8"] = domainOf(n, texts, array.NewLargeStringBuilder(mem), (*array.LargeStringBuilder).Append, cmp.Compare)
	out["binary"] = domainOf(n, texts, array.NewBinaryBuilder(mem, arrow.BinaryTypes.Binary), (*array.BinaryBuilder).AppendString, cmp.Compare)
	out["large_binary"] = domainOf(n, texts, array.NewBinaryBuilder(mem, arrow.BinaryTypes.LargeBinary), (*array.BinaryBuilder).AppendString, cmp.Compare)
	uuids := make([][16]byte, n)
	for i := range uuids {
		uuids[i][r.IntN(16)], uuids[i][15] = byte(r.IntN(256)), byte(r.IntN(3))
	}
	out["uuid"] = domainOf(n, uuids, array.NewFixedSizeBinaryBuilder(mem, &arrow.FixedSizeBinaryType{ByteWidth: 16}),
		func(b *array.FixedSizeBinaryBuilder, v [16]byte) { b.Append(v[:]) }, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	decimals := make([]decimal128.Num, n)
	for i := range decimals {
		decimals[i] = decimal128.New(int64(r.Uint64())>>(1+r.IntN(63)), r.Uint64()>>r.IntN(64))
	}
	out["decimal"] = domainOf(n, decimals, array.NewDecimal128Builder(mem, &arrow.Decimal128Type{Precision: 38, Scale: 3}),
		(*array.Decimal128Builder).Append, decimal128.Num.Cmp)
	return out
}

// TestKeysKeepTheirOrder normalises random values of every type of key, alone and as part of a tuple in front of another
// and behind it, and compares how the keys compare with how the values do. Tuples are undone, too.
func TestKeysKeepTheirOrder(t *testing.T) {
	const n = 60
	r := rand.New(rand.NewPCG(5, 17))
	domains := keyDomains(r, n)
	for name, d := range domains {
		f := arrow.Field{Name: "k", Type: d.array.DataType()}
		one, err := newKeyCodec(arrow.NewSchema([]arrow.Field{f}, nil), []string{"k"})
		require.NoError(t, err, name)
		keys := one.normaliseArray(d.array, nil)
		for i := range n {
			for j := range n {
				got := 0
				if one.wide {
					a := bytes.Clone(keys.wide(i))
					got = bytes.Compare(a, keys.wide(j))
				} else {
					got = cmp.Compare(keys.ints[i], keys.ints[j])
				}
				if want := d.compare(i, j); got != want {
					t.Fatalf("%s: %s, %s: %d, not %d", name, d.array.ValueStr(i), d.array.ValueStr(j), got, want)
				}
			}
		}
		for other, e := range domains {
			cols := []arrow.Array{d.array, e.array}
			for range 200 {
				i, j := r.IntN(n), r.IntN(n)
				a, b := appendTuple(nil, cols, i), appendTuple(nil, cols, j)
				require.Equal(t, cmp.Or(d.compare(i, j), e.compare(i, j)), bytes.Compare(a, b), "%s and %s: rows %d, %d", name, other, i, j)
				first, second := array.NewBuilder(memory.DefaultAllocator, d.array.DataType()), array.NewBuilder(memory.DefaultAllocator, e.array.DataType())
				require.Empty(t, cutTuple(second, cutTuple(first, a)))
				x, y := first.NewArray(), second.NewArray()
				require.True(t, array.SliceEqual(x, 0, 1, d.array, int64(i), int64(i)+1), name)
				require.True(t, array.SliceEqual(y, 0, 1, e.array, int64(i), int64(i)+1), other)
			}
		}
	}
}

// TestTuplesAreThoseOfLance holds tuples against what pylance 14 wrote into the _pk_index of a generation of its own.
func TestTuplesAreThoseOfLance(t *testing.T) {
	for _, c := range []struct {
		types []arrow.DataType
		row   []any
		want  string
	}{
		{[]arrow.DataType{arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String}, []any{int64(-2), ""}, "017ffffffffffffffe010000"},
		{[]arrow.DataType{arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String}, []any{int64(300), "a\x00b"}, "01800000000000012c016100ff620000"},
		{[]arrow.DataType{arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int32}, []any{"yy", int32(-2)}, "0179790000017ffffffffffffffe"},
		{[]arrow.DataType{arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Uint64}, []any{int16(-2), uint64(1 << 63)}, "017ffffffffffffffe018000000000000000"},
		{[]arrow.DataType{arrow.PrimitiveTypes.Uint8, arrow.FixedWidthTypes.Boolean}, []any{uint8(2), false}, "0100000000000000020100"},
		{[]arrow.DataType{arrow.PrimitiveTypes.Uint8, arrow.FixedWidthTypes.Boolean}, []any{uint8(3), true}, "0100000000000000030101"},
		{[]arrow.DataType{arrow.BinaryTypes.Binary, arrow.PrimitiveTypes.Int8}, []any{[]byte{0, 0xFF}, int8(1)}, "0100ffff0000018000000000000001"},
		{[]arrow.DataType{arrow.BinaryTypes.LargeString, arrow.PrimitiveTypes.Uint32}, []any{"q", uint32(1)}, "01710000010000000000000001"},
	} {
		cols := make([]arrow.Array, len(c.row))
		for i, v := range c.row {
			b := array.NewBuilder(memory.DefaultAllocator, c.types[i])
			switch v := v.(type) {
			case []byte:
				b.(*array.BinaryBuilder).Append(v)
			default:
				require.NoError(t, b.AppendValueFromString(fmt.Sprint(v)))
			}
			cols[i] = b.NewArray()
			b.Release()
		}
		tuple := appendTuple(nil, cols, 0)
		require.Equal(t, c.want, hex.EncodeToString(tuple), "%v", c.row)
		rest := tuple
		for i, col := range cols {
			b := array.NewBuilder(memory.DefaultAllocator, c.types[i])
			rest = cutTuple(b, rest)
			back := b.NewArray()
			require.True(t, array.Equal(col, back), "%v: value %d", c.row, i)
			back.Release()
			b.Release()
			col.Release()
		}
		require.Empty(t, rest)
	}
}
