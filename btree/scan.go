package btree

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
)

// Bound is one end of a range. The zero value is an open end.
type Bound struct {
	// Values and Row give the value; Values is of the type of the index.
	Values arrow.Array
	Row    int
	// Exclusive leaves the value itself out.
	Exclusive bool
}

// Scan calls fn with all values in order, nulls first, and their ids. Both are valid during fn only; values may be
// retained.
func (x *Index) Scan(ctx context.Context, fn func(values arrow.Array, ids []uint64) error) error {
	err := scan(ctx, x.data, []int{0, 1}, 0, x.Rows(), func(rec arrow.RecordBatch) error {
		c, err := x.newPiece(rec)
		if err != nil {
			return err
		}
		return fn(c.values, c.ids)
	})
	if err != nil {
		return fmt.Errorf("scan index %s: %w", x.dir, err)
	}
	return nil
}

// Range calls fn with the ids of the values between two bounds, in the order of the values. They are valid during fn only.
func (x *Index) Range(ctx context.Context, from, to Bound, fn func(ids []uint64) error) error {
	if err := x.scanRange(ctx, from, to, fn); err != nil {
		return fmt.Errorf("scan a range of index %s: %w", x.dir, err)
	}
	return nil
}

func (x *Index) scanRange(ctx context.Context, from, to Bound, fn func(ids []uint64) error) error {
	low, err := x.bound(from)
	if err != nil {
		return err
	}
	high, err := x.bound(to)
	if err != nil {
		return err
	}
	first := x.empty
	if low != nil {
		first = x.maxOrder.seek(first, low, from.Row)
	}
	cur := page{number: -1}
	defer cur.release()
	for number := first; number < x.max.Len(); number++ {
		if high != nil && x.startsAbove(number, high, to.Row) {
			return nil
		}
		if err := x.load(ctx, &cur, number); err != nil {
			return err
		}
		for i := range cur.pieces {
			c := &cur.pieces[i]
			start, end := c.nulls, len(c.ids)
			if low != nil {
				start = c.bound(start, low, from.Row, from.Exclusive)
			}
			if high != nil {
				end = c.bound(start, high, to.Row, !to.Exclusive)
			}
			if start >= end {
				continue
			}
			if err := fn(c.ids[start:end]); err != nil {
				return err
			}
		}
	}
	return nil
}

// CountRange says between which numbers lies that of the values between two bounds, without reading any: at most all
// rows of the pages into which the range reaches, at least those of all but the first and the last page. (Where many
// rows have the value of a bound that is exclusive, there may be fewer.)
func (x *Index) CountRange(from, to Bound) (least, most int64, err error) {
	low, err := x.bound(from)
	if err != nil {
		return 0, 0, err
	}
	high, err := x.bound(to)
	if err != nil {
		return 0, 0, err
	}
	first, last := x.empty, x.max.Len()
	if low != nil {
		first = x.maxOrder.seek(first, low, from.Row)
	}
	if high != nil {
		last = gallop(first, last, func(page int) bool { return !x.startsAbove(page, high, to.Row) })
	}
	pages := int64(max(last-first, 0))
	return max(pages-2, 0) * x.pageRows, pages * x.pageRows, nil
}

// bound returns the ordered view of a bound, nil for an open end.
func (x *Index) bound(b Bound) (column, error) {
	if b.Values == nil {
		return nil, nil
	}
	if !arrow.TypeEqual(b.Values.DataType(), x.value) {
		return nil, fmt.Errorf("a bound is %s, expected %s", b.Values.DataType(), x.value)
	}
	if b.Row < 0 || b.Row >= b.Values.Len() || b.Values.IsNull(b.Row) {
		return nil, fmt.Errorf("row %d of %d is no bound", b.Row, b.Values.Len())
	}
	return view(b.Values)
}

// bound returns the first row from start on that is not below a value, or that is above it.
func (c *piece) bound(start int, value column, row int, above bool) int {
	if !above {
		return c.order.seek(start, value, row)
	}
	return gallop(start, len(c.ids), func(i int) bool { return c.order.compare(i, value, row) <= 0 })
}
