package btree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/float16"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

const dir = "t.lance/_indices/x"

// kind is a type of values and how the n-th value in its order is appended; n is in [0, 2000).
type kind struct {
	dt  arrow.DataType
	put func(b array.Builder, n int)
}

func text(n int) string {
	// Lengths differ, so that order by bytes is not order by length.
	return fmt.Sprintf("%04d%s", n, bytes.Repeat([]byte("é"), n%5))
}

func kinds() []kind {
	return []kind{
		{arrow.PrimitiveTypes.Int8, func(b array.Builder, n int) { b.(*array.Int8Builder).Append(int8(n/8 - 125)) }},
		{arrow.PrimitiveTypes.Int16, func(b array.Builder, n int) { b.(*array.Int16Builder).Append(int16(n - 1000)) }},
		{arrow.PrimitiveTypes.Int32, func(b array.Builder, n int) { b.(*array.Int32Builder).Append(int32(n-1000) << 20) }},
		{arrow.PrimitiveTypes.Int64, func(b array.Builder, n int) { b.(*array.Int64Builder).Append(int64(n-1000) << 50) }},
		{arrow.PrimitiveTypes.Uint8, func(b array.Builder, n int) { b.(*array.Uint8Builder).Append(uint8(n / 8)) }},
		{arrow.PrimitiveTypes.Uint16, func(b array.Builder, n int) { b.(*array.Uint16Builder).Append(uint16(n << 5)) }},
		{arrow.PrimitiveTypes.Uint32, func(b array.Builder, n int) { b.(*array.Uint32Builder).Append(uint32(n) << 21) }},
		{arrow.PrimitiveTypes.Uint64, func(b array.Builder, n int) { b.(*array.Uint64Builder).Append(uint64(n) << 53) }},
		{arrow.FixedWidthTypes.Boolean, func(b array.Builder, n int) { b.(*array.BooleanBuilder).Append(n >= 1000) }},
		{arrow.FixedWidthTypes.Date32, func(b array.Builder, n int) { b.(*array.Date32Builder).Append(arrow.Date32(n - 1000)) }},
		{arrow.FixedWidthTypes.Date64, func(b array.Builder, n int) { b.(*array.Date64Builder).Append(arrow.Date64(n-1000) * 86400000) }},
		{arrow.FixedWidthTypes.Time32ms, func(b array.Builder, n int) { b.(*array.Time32Builder).Append(arrow.Time32(n)) }},
		{arrow.FixedWidthTypes.Time64us, func(b array.Builder, n int) { b.(*array.Time64Builder).Append(arrow.Time64(n)) }},
		{arrow.FixedWidthTypes.Timestamp_us, func(b array.Builder, n int) { b.(*array.TimestampBuilder).Append(arrow.Timestamp(n - 1000)) }},
		{arrow.FixedWidthTypes.Duration_s, func(b array.Builder, n int) { b.(*array.DurationBuilder).Append(arrow.Duration(n - 1000)) }},
		// The least floats of 32 and 64 bits are NaNs with a sign.
		{arrow.FixedWidthTypes.Float16, func(b array.Builder, n int) {
			v := int16(n-1000) * 31
			b.(*array.Float16Builder).Append(float16.FromBits(uint16(v ^ int16(uint16(v>>15)>>1))))
		}},
		{arrow.PrimitiveTypes.Float32, func(b array.Builder, n int) {
			v := int32(n-1000) * 2_147_000
			b.(*array.Float32Builder).Append(math.Float32frombits(uint32(v ^ int32(uint32(v>>31)>>1))))
		}},
		{arrow.PrimitiveTypes.Float64, func(b array.Builder, n int) {
			v := int64(n-1000) * 9_223_000_000_000_000
			b.(*array.Float64Builder).Append(math.Float64frombits(uint64(v ^ int64(uint64(v>>63)>>1))))
		}},
		{&arrow.Decimal128Type{Precision: 20, Scale: 2}, func(b array.Builder, n int) {
			b.(*array.Decimal128Builder).Append(decimal128.FromI64(int64(n-1000) << 40))
		}},
		{&arrow.Decimal256Type{Precision: 50, Scale: 2}, func(b array.Builder, n int) {
			b.(*array.Decimal256Builder).Append(decimal256.FromI64(int64(n-1000) << 40))
		}},
		{arrow.BinaryTypes.String, func(b array.Builder, n int) { b.(*array.StringBuilder).Append(text(n)) }},
		{arrow.BinaryTypes.LargeString, func(b array.Builder, n int) { b.(*array.LargeStringBuilder).Append(text(n)) }},
		{arrow.BinaryTypes.Binary, func(b array.Builder, n int) { b.(*array.BinaryBuilder).Append([]byte(text(n))) }},
		{arrow.BinaryTypes.LargeBinary, func(b array.Builder, n int) { b.(*array.BinaryBuilder).Append([]byte(text(n))) }},
		{&arrow.FixedSizeBinaryType{ByteWidth: 3}, func(b array.Builder, n int) {
			b.(*array.FixedSizeBinaryBuilder).Append([]byte{byte(n >> 8), byte(n), 0xff})
		}},
	}
}

// build returns an array of values, given by their place in the order of the kind; a negative place is null.
func (k kind) build(places []int) arrow.Array {
	b := array.NewBuilder(memory.DefaultAllocator, k.dt)
	defer b.Release()
	for _, n := range places {
		if n < 0 {
			b.AppendNull()
		} else {
			k.put(b, n)
		}
	}
	return b.NewArray()
}

// write makes an index of values, added in pieces of random size; the id of row i is 7i+1.
func (k kind) write(t testing.TB, st object.Store, places []int, pageRows int, random *rand.Rand) []File {
	t.Helper()
	ctx := context.Background()
	w, err := Create(ctx, st, dir, k.dt, WriterOptions{PageRows: pageRows})
	require.NoError(t, err)
	defer w.Abort()
	for off := 0; off < len(places); {
		n := min(len(places)-off, 1+random.IntN(40))
		ids := make([]uint64, n)
		for i := range ids {
			ids[i] = uint64(7*(off+i) + 1)
		}
		values := k.build(places[off : off+n])
		require.NoError(t, w.Add(ctx, values, ids))
		values.Release()
		off += n
	}
	files, err := w.Finish(ctx)
	require.NoError(t, err)
	return files
}

// sorted returns n places in order, with runs of equal ones and, if asked for, nulls first.
func sorted(n, nulls int, random *rand.Rand) []int {
	places := make([]int, n)
	for i := range places {
		places[i] = random.IntN(2000)
		if i > nulls && random.IntN(3) == 0 {
			places[i] = places[i-1]
		}
		if i < nulls {
			places[i] = -1
		}
	}
	slices.Sort(places)
	return places
}

func openIndex(t testing.TB, st object.Store, files []File) *Index {
	t.Helper()
	x, err := Open(context.Background(), st, dir, Options{Files: files})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.Close()) })
	return x
}

// found collects what a search reports, as key and id.
type found struct {
	key string
	id  uint64
}

func lookup(t testing.TB, x *Index, keys arrow.Array) []found {
	t.Helper()
	var got []found
	require.NoError(t, x.Lookup(context.Background(), keys, func(i int, id uint64) error {
		got = append(got, found{keys.ValueStr(i), id})
		return nil
	}))
	return got
}

func TestEveryTypeIsFoundAsInASortedList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, k := range kinds() {
		t.Run(k.dt.String(), func(t *testing.T) {
			for _, pageRows := range []int{1, 7, 4096} {
				if pageRows == 1 && testing.Short() {
					continue // nothing in it is concurrent
				}
				st := object.NewMem()
				places := sorted(200, 20, random)
				x := openIndex(t, st, k.write(t, st, places, pageRows, random))
				require.EqualValues(t, len(places), x.Rows())
				require.NoError(t, x.Verify(context.Background()))

				all := k.build(places)
				defer all.Release()
				for _, n := range []int{1, 10, 150} {
					keys := k.build(sorted(n, n/10, random))
					defer keys.Release()
					var want []found
					for i := range keys.Len() {
						for j := range all.Len() {
							if keys.IsValid(i) && all.IsValid(j) && keys.ValueStr(i) == all.ValueStr(j) {
								want = append(want, found{keys.ValueStr(i), uint64(7*j + 1)})
							}
						}
					}
					require.Equal(t, want, lookup(t, x, keys))
				}
			}
		})
	}
}

func TestScanAndRangeComeInOrder(t *testing.T) {
	ctx, random := context.Background(), rand.New(rand.NewPCG(3, 4))
	for _, k := range kinds() {
		st := object.NewMem()
		places := sorted(300, 30, random)
		x := openIndex(t, st, k.write(t, st, places, 16, random))
		all := k.build(places)
		defer all.Release()
		collect := func(got *[]found) func(arrow.Array, []uint64) error {
			return func(values arrow.Array, ids []uint64) error {
				require.Equal(t, values.Len(), len(ids))
				for i, id := range ids {
					// A copy: the string lies in memory that ends with the call.
					*got = append(*got, found{strings.Clone(values.ValueStr(i)), id})
				}
				return nil
			}
		}
		var got []found
		require.NoError(t, x.Scan(ctx, collect(&got)))
		require.Len(t, got, all.Len())
		for i, f := range got {
			require.Equal(t, found{all.ValueStr(i), uint64(7*i + 1)}, f)
		}

		order, err := view(all)
		require.NoError(t, err)
		for range 50 {
			from, to := Bound{Exclusive: random.IntN(2) == 0}, Bound{Exclusive: random.IntN(2) == 0}
			if random.IntN(4) > 0 {
				from.Values, from.Row = all, 30+random.IntN(270)
			}
			if random.IntN(4) > 0 {
				to.Values, to.Row = all, 30+random.IntN(270)
			}
			var want []uint64
			for i := 30; i < all.Len(); i++ {
				if from.Values != nil {
					if c := order.compare(i, order, from.Row); c < 0 || c == 0 && from.Exclusive {
						continue
					}
				}
				if to.Values != nil {
					if c := order.compare(i, order, to.Row); c > 0 || c == 0 && to.Exclusive {
						continue
					}
				}
				want = append(want, uint64(7*i+1))
			}
			var got []uint64
			require.NoError(t, x.Range(ctx, from, to, func(ids []uint64) error { got = append(got, ids...); return nil }))
			require.Equal(t, want, got)
			_, most, err := x.CountRange(from, to)
			require.NoError(t, err)
			require.GreaterOrEqual(t, most, int64(len(want)))
		}
	}
}

func int64s() kind { return kinds()[3] }

func TestBoundsLeaveNullsOut(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for name, places := range map[string][]int{
		"empty": nil, "only nulls": {-1, -1, -1}, "nulls first": {-1, -1, -1, 4, 9}, "one": {4},
	} {
		st := object.NewMem()
		x := openIndex(t, st, int64s().write(t, st, places, 2, random))
		least, greatest := x.Bounds()
		keys := int64s().build([]int{0, 4, 4, 9, 20})
		defer keys.Release()
		got := lookup(t, x, keys)
		if len(places) == 0 || places[len(places)-1] < 0 {
			require.Nil(t, least, name)
			require.Empty(t, got, name)
		} else {
			require.Equal(t, fmt.Sprint(int64(4-1000)<<50), least.ValueStr(0), name)
			require.Equal(t, fmt.Sprint(int64(places[len(places)-1]-1000)<<50), greatest.ValueStr(0), name)
			require.NotEmpty(t, got, name)
			least.Release()
			greatest.Release()
		}
		require.NoError(t, x.Verify(context.Background()), name)
	}
}

func TestRunOfOneValueOverManyPagesIsReportedForEachKey(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	st := object.NewMem()
	places := slices.Concat([]int{1, 2}, slices.Repeat([]int{5}, 50), []int{6})
	x := openIndex(t, st, int64s().write(t, st, places, 4, random))
	keys := int64s().build([]int{0, 5, 5, 6})
	defer keys.Release()
	counts := make([]int, 4)
	require.NoError(t, x.Lookup(context.Background(), keys, func(i int, _ uint64) error { counts[i]++; return nil }))
	require.Equal(t, []int{0, 50, 50, 1}, counts)

	stop := errors.New("enough")
	err := x.Lookup(context.Background(), keys, func(int, uint64) error { return stop })
	require.ErrorIs(t, err, stop)
}

func TestWriterRefusesWhatWouldBreakTheOrder(t *testing.T) {
	ctx, k := context.Background(), int64s()
	for name, adds := range map[string][][]int{
		"inside": {{1, 3, 2}}, "between": {{1, 3}, {2}}, "null late": {{1, -1}}, "null after values": {{1}, {-1}},
	} {
		st := object.NewMem()
		w, err := Create(ctx, st, dir, k.dt, WriterOptions{})
		require.NoError(t, err)
		for _, places := range adds {
			values := k.build(places)
			err = w.Add(ctx, values, make([]uint64, len(places)))
			values.Release()
		}
		require.Error(t, err, name)
		w.Abort()
		files, err := st.List(ctx, dir)
		require.NoError(t, err)
		require.Empty(t, files, "an index that was aborted leaves nothing")
	}
	w, err := Create(ctx, object.NewMem(), dir, k.dt, WriterOptions{})
	require.NoError(t, err)
	defer w.Abort()
	values := kinds()[0].build([]int{1})
	defer values.Release()
	require.ErrorContains(t, w.Add(ctx, values, []uint64{1}), "values are int8, expected int64")
	require.Error(t, w.Add(ctx, values, nil))
	_, err = Create(ctx, object.NewMem(), dir, arrow.ListOf(arrow.PrimitiveTypes.Float32), WriterOptions{})
	require.ErrorIs(t, err, ErrUnsupported)
}

func TestKeysOutOfOrderOrOfAnotherTypeAreRefused(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	x := openIndex(t, st, int64s().write(t, st, []int{1, 2, 3}, 2, rand.New(rand.NewPCG(9, 9))))
	none := func(int, uint64) error { return nil }
	keys := int64s().build([]int{2, 1})
	defer keys.Release()
	require.ErrorContains(t, x.Lookup(ctx, keys, none), "key 1 is below the one before it")
	other := kinds()[0].build([]int{2})
	defer other.Release()
	require.ErrorContains(t, x.Lookup(ctx, other, none), "keys are int8, expected int64")
}

func TestManyReadersShareAnIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(10, 11))
	st := object.NewMem()
	places := sorted(2000, 0, random)
	x := openIndex(t, st, int64s().write(t, st, places, 32, random))
	keys := int64s().build(sorted(300, 0, random))
	defer keys.Release()
	want := lookup(t, x, keys)
	var wg sync.WaitGroup
	got := make([][]found, 8)
	for i := range got {
		wg.Go(func() { got[i] = lookup(t, x, keys) })
	}
	wg.Wait()
	for i := range got {
		require.Equal(t, want, got[i])
	}
}

func TestFlippedBytesAreErrorsNotAnswers(t *testing.T) {
	ctx, random := context.Background(), rand.New(rand.NewPCG(12, 13))
	st := object.NewMem()
	places := sorted(200, 10, random)
	files := int64s().write(t, st, places, 16, random)
	keys := int64s().build(sorted(50, 0, random))
	defer keys.Release()
	x := openIndex(t, st, files)
	want := lookup(t, x, keys)
	for _, f := range files {
		good, err := st.Get(ctx, dir+"/"+f.Path)
		require.NoError(t, err)
		for at := random.IntN(7); at < len(good); at += 1 + random.IntN(13) {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << (at % 8)
			require.NoError(t, st.Put(ctx, dir+"/"+f.Path, bad))
			x, err := Open(ctx, st, dir, Options{Files: files})
			if err != nil {
				continue
			}
			var got []found
			err = x.Lookup(ctx, keys, func(i int, id uint64) error {
				got = append(got, found{keys.ValueStr(i), id})
				return nil
			})
			if err == nil {
				require.Equal(t, want, got, "%s, byte %d", f.Path, at)
			}
			require.NoError(t, x.Close())
		}
		require.NoError(t, st.Put(ctx, dir+"/"+f.Path, good))
	}
}

func TestGallopFindsWhatALinearSearchFinds(t *testing.T) {
	for n := range 40 {
		for from := 0; from <= n; from++ {
			for end := 0; end <= n; end++ {
				require.Equal(t, max(from, end), gallop(from, n, func(i int) bool { return i < end }))
			}
		}
	}
}

func ints(v []int64) arrow.Array {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(v, nil)
	return b.NewArray()
}

func BenchmarkLookup(b *testing.B) {
	ctx, st, k := context.Background(), object.NewLocal(b.TempDir()), int64s()
	const rows = 1 << 20
	w, err := Create(ctx, st, dir, k.dt, WriterOptions{})
	require.NoError(b, err)
	values, ids := make([]int64, rows), make([]uint64, rows)
	for i := range values {
		values[i], ids[i] = int64(i*3), uint64(i)
	}
	require.NoError(b, w.Add(ctx, ints(values), ids))
	_, err = w.Finish(ctx)
	require.NoError(b, err)
	x, err := Open(ctx, st, dir, Options{})
	require.NoError(b, err)
	defer func() { require.NoError(b, x.Close()) }()
	for _, n := range []int{1, 1000, rows} {
		b.Run(fmt.Sprintf("%d of %d", n, rows), func(b *testing.B) {
			keys := make([]int64, n)
			for i := range keys {
				keys[i] = int64(i) * int64(rows/n) * 3
			}
			a := ints(keys)
			b.ReportAllocs()
			for b.Loop() {
				hits := 0
				require.NoError(b, x.Lookup(ctx, a, func(int, uint64) error { hits++; return nil }))
				require.Equal(b, n, hits)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "keys/s")
		})
	}
}
