package btree

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// entries returns what a way of finding keys reports, as place of the key and id of the row, in order.
func entries(t testing.TB, find func(fn func(i int, id uint64) error) error) (got [][2]uint64) {
	t.Helper()
	require.NoError(t, find(func(i int, id uint64) error {
		got = append(got, [2]uint64{uint64(i), id})
		return nil
	}))
	slices.SortFunc(got, func(a, b [2]uint64) int { return slices.Compare(a[:], b[:]) })
	return got
}

func TestAWalkMeetsTheRowsThatASearchFinds(t *testing.T) {
	ctx, random := context.Background(), rand.New(rand.NewPCG(5, 6))
	for _, k := range kinds() {
		for _, shape := range []struct{ rows, nulls, keys, page int }{
			{200, 20, 150, 7}, {200, 0, 200, 4096}, {2000, 5, 20, 16}, {20, 20, 10, 4}, {30, 3, 2000, 8}, {1000, 0, 1000, 64},
		} {
			t.Run(fmt.Sprintf("%s/%v", k.dt, shape), func(t *testing.T) {
				st := object.NewMem()
				x := openIndex(t, st, k.write(t, st, sorted(shape.rows, shape.nulls, random), shape.page, random))
				keys := k.build(sorted(shape.keys, 0, random))
				defer keys.Release()
				order, err := view(keys)
				require.NoError(t, err)
				want := entries(t, func(fn func(int, uint64) error) error {
					if x.empty == x.max.Len() {
						return nil // Lookup looks no further
					}
					return x.search(ctx, keys, order, fn)
				})
				if x.empty < x.max.Len() {
					first, _ := x.joins(order, keys.Len())
					require.Equal(t, want, entries(t, func(fn func(int, uint64) error) error { return x.join(ctx, order, keys.Len(), first, fn) }))
				}
				require.Equal(t, want, entries(t, func(fn func(int, uint64) error) error { return x.Lookup(ctx, keys, fn) }))
			})
		}
	}
}

func TestMeetsAreTheSameWhicheverSideHasMore(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, n := range [][2]int{{0, 5}, {5, 0}, {1, 1}, {100, 100}, {1000, 10}, {10, 1000}} {
		rows, keys := make(numbers[int64], n[0]), make(numbers[int64], n[1])
		for i := range rows {
			rows[i] = random.Int64N(600)
		}
		for i := range keys {
			keys[i] = random.Int64N(600)
		}
		slices.Sort(rows)
		slices.Sort(keys)
		var want [][2]int // for each row, the first key that is equal
		for i, v := range rows {
			if k, ok := slices.BinarySearch(keys, v); ok {
				want = append(want, [2]int{i, k})
			}
		}
		for _, near := range []bool{false, true} {
			var got [][2]int
			for row, k := 0, 0; ; row++ {
				if row, k = rows.meet(row, keys, k, len(keys), near); row == len(rows) || k == len(keys) {
					break
				}
				got = append(got, [2]int{row, k})
			}
			require.Equal(t, want, got, "%v near=%t", n, near)
		}
	}
}

func TestAWalkEndsWithTheErrorOfItsCaller(t *testing.T) {
	st, k := object.NewMem(), int64s()
	random := rand.New(rand.NewPCG(9, 10))
	x := openIndex(t, st, k.write(t, st, sorted(100, 0, random), 8, random))
	keys := k.build(sorted(100, 0, random))
	defer keys.Release()
	err := x.Lookup(context.Background(), keys, func(int, uint64) error { return context.Canceled })
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, strings.HasPrefix(err.Error(), "look up in index "), err)
	disordered := k.build([]int{3, 1, 2})
	defer disordered.Release()
	require.ErrorContains(t, x.Lookup(context.Background(), disordered, func(int, uint64) error { return nil }), "key 1 is below the one before it")
}
