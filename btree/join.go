package btree

import (
	"cmp"
	"context"
	"errors"

	"github.com/apache/arrow-go/v18/arrow"
)

const (
	// joinShare is how many rows between the least and the greatest of some keys may come on each key for all of them to be
	// read in one go. A search of its own costs a key about what forty rows cost that are only walked over.
	joinShare = 32
	// meetBlock is how many values are stepped over at a time, and meetShare how many times more there must be of one side
	// than of the other for that to be the rule: where values alternate, a step that takes no branch is the fastest.
	meetBlock = 8
	meetShare = 4
)

// joins reports whether a walk over all rows between the least and the greatest of n keys costs less than n searches, and
// returns the page where it begins.
func (x *Index) joins(keys column, n int) (first int, ok bool) {
	pages := x.max.Len()
	if first = x.maxOrder.seek(x.empty, keys, 0); first == pages {
		return first, true
	}
	last := x.maxOrder.seek(first, keys, n-1)
	rows := int64(last-first+1) * x.pageRows
	return first, rows <= joinShare*int64(n)
}

// join is Lookup for n keys that are in order and not null, by a walk over the rows from a page on.
func (x *Index) join(ctx context.Context, keys column, n, first int, fn func(i int, id uint64) error) error {
	off, k := int64(first)*x.pageRows, 0
	if first == x.max.Len() {
		return nil
	}
	err := scan(ctx, x.data, []int{0, 1}, off, x.Rows()-off, func(rec arrow.RecordBatch) error {
		c, err := x.newPiece(rec)
		if err != nil {
			return err
		}
		row := c.nulls
		// Not how many keys are left, but how many lie between these rows.
		near := row < len(c.ids) && alternate(len(c.ids)-row, keys.seek(k, c.order, len(c.ids)-1)-k)
		for ; ; row++ {
			if row, k = c.order.meet(row, keys, k, n, near); k == n {
				return errStopped
			}
			if row == len(c.ids) {
				return nil
			}
			// Keys that are equal all get the row; k stays with the first of them, since more rows may have their value.
			for same := k; same < n && keys.compare(same, keys, k) == 0; same++ {
				if err := fn(same, c.ids[row]); err != nil {
					return err
				}
			}
		}
	})
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// alternate reports whether so many values and so many others that are in one order mostly take turns in it.
func alternate(a, b int) bool { return a <= meetShare*b && b <= meetShare*a }

// meet implements column.
func (c numbers[T]) meet(row int, keys column, k, end int, near bool) (int, int) {
	other := keys.(numbers[T])[:end]
	if !near {
		return meetFar(c, row, other, k)
	}
	for row < len(c) && k < len(other) {
		a, b := c[row], other[k]
		if a == b {
			break
		}
		step := 0 // the compiler makes this a flag, not a branch, which would be guessed wrong every other time
		if a < b {
			step = 1
		}
		row += step
		k += 1 - step
	}
	return row, k
}

// meetFar is meet where one side has many values between two of the other.
func meetFar[T cmp.Ordered](rows []T, row int, keys []T, k int) (int, int) {
	for row < len(rows) && k < len(keys) {
		if row = step(rows, row, keys[k]); row == len(rows) {
			break
		}
		if k = step(keys, k, rows[row]); k < len(keys) && keys[k] == rows[row] {
			break
		}
	}
	return row, k
}

// step returns the first value from a place on that is not below another, the length when there is none.
func step[T cmp.Ordered](values []T, at int, than T) int {
	for at+meetBlock <= len(values) && values[at+meetBlock-1] < than {
		at += meetBlock
	}
	for at < len(values) && values[at] < than {
		at++
	}
	return at
}

// meet implements column.
func (c ordered[T]) meet(row int, keys column, k, end int, _ bool) (int, int) {
	n := c.a.Len()
	for row < n && k < end {
		if row = c.seek(row, keys, k); row == n {
			break
		}
		if k = keys.seek(k, c, row); k >= end || c.compare(row, keys, k) == 0 {
			break
		}
	}
	return row, min(k, end)
}
