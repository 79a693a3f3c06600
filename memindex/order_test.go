package memindex

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOrderAgainstList extends orders by a few and by many rows, keeps the old ones, and compares what they find in ranges
// with what a walk over the rows does.
func TestOrderAgainstList(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for _, wide := range []bool{false, true} {
		t.Run(fmt.Sprintf("wide=%v", wide), func(t *testing.T) {
			var ints Ints
			var wides Bytes
			defer ints.Release()
			defer wides.Release()
			var all []int64
			text := func(k int64) []byte { return fmt.Appendf(nil, "%06d", k) }
			var orders []*Order
			for range 60 {
				batch := make([]int64, 1+r.IntN(400))
				for i := range batch {
					batch[i] = r.Int64N(5000)
				}
				first := uint32(len(all))
				all = append(all, batch...)
				ints.Add(batch, first, nil)
				wides.Add(len(batch), func(i int) []byte { return text(batch[i]) }, first, nil)
				keys := ints.RowKeys()
				if wide {
					keys = wides.RowKeys()
				}
				last := &Order{}
				if len(orders) > 0 {
					last = orders[len(orders)-1]
				}
				n := last.Rows() + uint32(r.IntN(int(keys.Len()-last.Rows())+1))
				orders = append(orders, last.Extend(&keys, n))
				for i := 1; i < len(orders[len(orders)-1].runs); i++ {
					require.GreaterOrEqual(t, len(orders[len(orders)-1].runs[i-1]), 2*len(orders[len(orders)-1].runs[i]))
				}
				o := orders[r.IntN(len(orders))]
				low := r.Int64N(5000)
				high := low + r.Int64N(200)
				rg := Range{LowInt: low, HighInt: high, Low: text(low), High: text(high)}
				below := uint32(r.IntN(len(all) + 1))
				var more []uint32
				for row := o.Rows(); row < below; row++ {
					if keys.Within(row, rg) {
						more = append(more, row)
					}
				}
				newest, count := map[int64]uint32{}, 0
				for row, k := range all {
					if k < low || k > high {
						continue
					}
					if uint32(row) < below {
						newest[k] = uint32(row)
					}
					if uint32(row) < o.Rows() {
						count++
					}
				}
				var want []uint32
				for _, row := range newest {
					want = append(want, row)
				}
				require.Equal(t, count, o.Count(&keys, rg))
				got := o.Newest(&keys, rg, below, more, []uint32{7})
				require.Equal(t, uint32(7), got[0])
				require.ElementsMatch(t, want, got[1:])
			}
		})
	}
}

// TestRangesOfBytes has open ends, and ends that are not in the range.
func TestRangesOfBytes(t *testing.T) {
	var x Bytes
	defer x.Release()
	list := []string{"c", "", "a", "b", "bb"}
	x.Add(len(list), func(i int) []byte { return []byte(list[i]) }, 0, nil)
	keys := x.RowKeys()
	o := (&Order{}).Extend(&keys, keys.Len())
	f := func(r Range, want ...string) {
		t.Helper()
		var got []string
		for _, row := range o.Newest(&keys, r, keys.Len(), nil, nil) {
			got = append(got, list[row])
		}
		slices.SortFunc(got, func(a, b string) int { return bytes.Compare([]byte(a), []byte(b)) })
		require.Equal(t, want, got)
	}
	f(Range{}, "", "a", "b", "bb", "c")
	f(Range{Low: []byte("a"), LowOpen: true}, "b", "bb", "c")
	f(Range{High: []byte("b"), HighOpen: true}, "", "a")
	f(Range{Low: []byte{}, High: []byte{}}, "")
	f(Range{Low: []byte("b"), High: []byte("bb")}, "b", "bb")
	f(Range{Low: []byte("d")})
}
