package lance

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// TestFewRowsOfOnePage reads few rows of files of version 2.0 that have one page in each column and no checksums, and then
// all of them, in pieces, as a scan of a bucket does.
func TestFewRowsOfOnePage(t *testing.T) {
	const rows = 60_000
	types := append(storable[:len(storable):len(storable)], nested...)
	types = append(types, arrow.FixedSizeListOf(700, arrow.PrimitiveTypes.Float32))
	for i, dt := range types {
		for _, nulls := range []float64{0, 0.2} {
			t.Run(fmt.Sprintf("%s, nulls %.1f", dt, nulls), func(t *testing.T) {
				n := rows
				if bitWidth(dt) > 1000 || len(childrenOf(dt)) > 0 {
					n /= 10
				}
				a := newGenerator(uint64(i), nulls).array(dt, n)
				rec := oneColumn(a)
				plain := object.NewMem()
				writeFile(t, plain, "f", rec.Schema(), WriterOptions{PageBytes: 1 << 30}, rec)
				b, err := plain.Get(t.Context(), "f")
				require.NoError(t, err)
				mem := object.NewMem()
				require.NoError(t, mem.Put(t.Context(), "f", withoutChecksums(t, b)))
				m := &meter{Store: mem}
				r := openFile(t, m, "f")
				want := rec.Columns()
				requireTake(t, r, want, []int{0}, []int64{0}) // which reads the metadata
				m.reads, m.bytes, m.largest = 0, 0, 0
				picks := []int64{int64(n) - 1, 7, int64(n) / 2, 8, int64(n)/2 + 1, 7, int64(n) / 3, 1, int64(n)/2 + 2, 2}
				requireTake(t, r, want, []int{0}, picks)
				require.Less(t, m.bytes, 5*gapBytes+16*len(picks)*int(itemBits(&r.Schema().Fields[0])/8), "what lies between rows that are close is read with them")
				m.largest = 0
				requireScan(t, r, want, []int{0}, 0, int64(n), 0)
				requireScan(t, r, want, []int{0}, 3, int64(n)-5, 1000)
				require.LessOrEqual(t, m.largest, windowBytes+gapBytes)
			})
		}
	}
}

// TestFewRowsOfAHugePage: a page of many megabytes costs what the rows take that are asked for.
func TestFewRowsOfAHugePage(t *testing.T) {
	const rows = 40_000
	vectors := newGenerator(1, 0.1).whole(arrow.FixedSizeListOf(128, arrow.PrimitiveTypes.Float32), rows)
	texts := array.NewLargeStringBuilder(memory.DefaultAllocator)
	lists := array.NewListBuilder(memory.DefaultAllocator, arrow.PrimitiveTypes.Int64)
	for i := range rows {
		texts.Append(strings.Repeat(string(rune('a'+i%26)), 400+i%100))
		lists.Append(true)
		for k := range 60 {
			lists.ValueBuilder().(*array.Int64Builder).Append(int64(i + k))
		}
	}
	for _, a := range []arrow.Array{vectors, texts.NewArray(), lists.NewArray()} {
		t.Run(a.DataType().String(), func(t *testing.T) {
			rec := oneColumn(a)
			mem := object.NewMem()
			info := writeFile(t, mem, "f", rec.Schema(), WriterOptions{PageBytes: 1 << 30}, rec)
			require.Greater(t, info.Bytes, int64(16<<20))
			b, err := mem.Get(t.Context(), "f")
			require.NoError(t, err)
			require.NoError(t, mem.Put(t.Context(), "f", withoutChecksums(t, b)))
			m := &meter{Store: mem}
			r := openFile(t, m, "f")
			picks := []int64{39_999, 1, 9000, 18_000, 22_000, 27_000, 30_000, 33_000, 36_000, 13_000}
			requireTake(t, r, rec.Columns(), []int{0}, picks)
			limit := 16 << 10 // the tail of the file included
			if a.DataType().ID() == arrow.LIST {
				limit += rows * 8 // the offsets, all of which lie close together
			}
			require.Less(t, m.bytes, limit)
			require.LessOrEqual(t, m.reads, 3*len(picks)+10)
		})
	}
}

// TestPartsOfDictionariesAndForms reads what others write in forms of their own from a store that cannot map, and without
// checksums: rows, runs of them and all.
func TestPartsOfDictionariesAndForms(t *testing.T) {
	local := object.NewLocal(fixtures)
	names := formFiles(t)
	for i, name := range names {
		names[i] = "forms/" + filepath.Base(name)
	}
	for _, name := range append(names, "dictionary.lance", "types.lance") {
		t.Run(name, func(t *testing.T) {
			mapped := openFile(t, local, name)
			parts := openFile(t, &meter{Store: local}, name)
			require.False(t, parts.mapped())
			require.True(t, mapped.mapped())
			n := mapped.Rows()
			for c := range mapped.Schema().Fields {
				for _, rows := range [][]int64{{n - 1, 0, n / 2, 0}, {n / 3}} {
					want, err := mapped.Take(t.Context(), []int{c}, rows)
					require.NoError(t, err)
					got, err := parts.Take(t.Context(), []int{c}, rows)
					require.NoError(t, err)
					requireSameRows(t, want.Column(0), got.Column(0), 0)
					want.Release()
					got.Release()
				}
				a, b := mapped.Scan([]int{c}, n/4, n, 7), parts.Scan([]int{c}, n/4, n, 7)
				for at := n / 4; at < n; {
					want, err := a.Next(t.Context())
					require.NoError(t, err)
					got, err := b.Next(t.Context())
					require.NoError(t, err)
					require.Equal(t, want.NumRows(), got.NumRows())
					requireSameRows(t, want.Column(0), got.Column(0), 0)
					at += want.NumRows()
					want.Release()
					got.Release()
				}
				a.Close()
				b.Close()
			}
		})
	}
}
