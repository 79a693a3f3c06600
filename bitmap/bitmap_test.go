package bitmap

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// rowSet is the rows of a value by fragment; nil is all of them.
type rowSet map[uint32][]uint32

func encode(t testing.TB, set rowSet) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(set)))
	ids := make([]uint32, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, id)
		var rows []byte
		if set[id] != nil {
			var err error
			rows, err = roaring.BitmapOf(set[id]...).ToBytes()
			require.NoError(t, err)
		}
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(rows))), rows...)
	}
	return b
}

// write writes an index of words; the empty word stands for null.
func write(t testing.TB, st object.Store, words []string, bitmaps [][]byte) {
	ctx := context.Background()
	schema := arrow.NewSchema([]arrow.Field{{Name: "keys", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "bitmaps", Type: arrow.BinaryTypes.Binary, Nullable: true}}, nil)
	s, err := lance.SchemaFromArrow(schema, 0)
	require.NoError(t, err)
	w, err := lance.Create(ctx, st, "x/"+File, s, lance.WriterOptions{})
	require.NoError(t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i, word := range words {
		if word == "" {
			b.Field(0).AppendNull()
		} else {
			b.Field(0).(*array.StringBuilder).Append(word)
		}
		b.Field(1).(*array.BinaryBuilder).Append(bitmaps[i])
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	require.NoError(t, w.Write(ctx, rec))
	_, err = w.Finish(ctx)
	require.NoError(t, err)
}

func texts(words ...string) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(words, nil)
	return b.NewArray()
}

var options = Options{Rows: 30, FragmentRows: func(id uint32) int64 { return map[uint32]int64{1: 3, 2: 10}[id] }}

func TestValuesInAnyOrderFindTheirRows(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	write(t, st, []string{"pear", "", "apple", "fig"}, [][]byte{
		encode(t, rowSet{2: {0, 9}}), encode(t, rowSet{2: {5}}), encode(t, rowSet{1: nil, 2: {7}}), encode(t, rowSet{})})
	x, err := Open(ctx, st, "x", options)
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	require.Equal(t, 3, x.Values())
	const one, two = 1 << 32, 2 << 32

	keys := texts("apple", "fig", "grape", "pear", "zebra")
	defer keys.Release()
	got := map[int][]uint64{}
	require.NoError(t, x.Lookup(ctx, keys, func(i int, id uint64) error { got[i] = append(got[i], id); return nil }))
	require.Equal(t, map[int][]uint64{0: {one, one + 1, one + 2, two + 7}, 3: {two, two + 9}}, got)

	for _, c := range []struct {
		from, to int // of keys, -1 for an open end
		open     bool
		want     []uint64
	}{
		{-1, -1, false, []uint64{one, one + 1, one + 2, two + 7, two, two + 9}},
		{0, 1, false, []uint64{one, one + 1, one + 2, two + 7}},
		{0, 3, true, nil},
		{1, -1, false, []uint64{two, two + 9}},
		{2, 4, true, []uint64{two, two + 9}},
		{3, 2, false, nil},
	} {
		var from, to btree.Bound
		if c.from >= 0 {
			from = btree.Bound{Values: keys, Row: c.from, Exclusive: c.open}
		}
		if c.to >= 0 {
			to = btree.Bound{Values: keys, Row: c.to, Exclusive: c.open}
		}
		var ids []uint64
		require.NoError(t, x.Range(ctx, from, to, func(some []uint64) error { ids = append(ids, some...); return nil }))
		require.Equal(t, c.want, ids, "%+v", c)
	}
	_, most, err := x.CountRange(btree.Bound{Values: keys, Row: 3}, btree.Bound{})
	require.NoError(t, err)
	require.EqualValues(t, 10, most)
	var text strings.Builder
	require.NoError(t, x.Describe(&text))
	require.Equal(t, "bitmap of utf8, 3 values, 4 entries, fragments [1 2], 1 times all rows of one\nfrom apple to pear\n", text.String())
	all := 0
	require.NoError(t, x.Verify(ctx, func(uint64) error { all++; return nil }))
	require.Equal(t, 7, all)
}

func TestDamageIsNamed(t *testing.T) {
	ctx, good := context.Background(), encode(t, rowSet{1: {1, 2}})
	for what, b := range map[string][]byte{
		"cut": good[:len(good)-1], "longer": append(slices.Clone(good), 0), "empty": {}, "many": {255, 255, 255, 255},
		"no bitmap": {1, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4},
	} {
		st := object.NewMem()
		write(t, st, []string{"a"}, [][]byte{b})
		x, err := Open(ctx, st, "x", options)
		require.NoError(t, err)
		keys := texts("a")
		err = x.Lookup(ctx, keys, func(int, uint64) error { return nil })
		keys.Release()
		var corrupt *object.CorruptError
		require.ErrorAs(t, err, &corrupt, what)
		require.ErrorContains(t, err, File, what)
		require.NoError(t, x.Close())
	}
	st := object.NewMem()
	write(t, st, []string{"a", "b", "a"}, [][]byte{good, good, good})
	_, err := Open(ctx, st, "x", options)
	require.ErrorContains(t, err, "same value")
}

func FuzzParseRows(f *testing.F) {
	f.Add(encode(f, rowSet{1: {1, 2}, 7: nil}))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := parseRows(b)
		if err == nil {
			x := &Index{opt: Options{FragmentRows: func(uint32) int64 { return 3 }}}
			n := 0
			_ = x.each(rows, func(uint64) error {
				if n++; n > 1000 {
					return context.Canceled
				}
				return nil
			})
		}
	})
}
