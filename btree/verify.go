package btree

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Verify reads both files in full and checks their checksums, the order of all values and the bounds of the pages.
func (x *Index) Verify(ctx context.Context) error {
	if err := errors.Join(x.data.Verify(ctx), x.lookup.Verify(ctx)); err != nil {
		return fmt.Errorf("verify index %s: %w", x.dir, err)
	}
	v := verifier{x: x}
	defer v.keep(nil)
	for number := range x.nulls {
		if err := v.page(ctx, number); err != nil {
			return fmt.Errorf("verify index %s: %w", x.dir, err)
		}
	}
	return nil
}

// verifier walks over the pages of an index.
type verifier struct {
	x *Index
	// last is the greatest value so far, one row, nil before the first.
	last arrow.Array
}

// keep makes a the greatest value.
func (v *verifier) keep(a arrow.Array) {
	if v.last != nil {
		v.last.Release()
	}
	v.last = a
}

func (v *verifier) page(ctx context.Context, number int) error {
	cur := page{number: -1}
	defer cur.release()
	if err := v.x.load(ctx, &cur, number); err != nil {
		return err
	}
	var nulls uint32
	for i := range cur.pieces {
		nulls += uint32(cur.pieces[i].nulls)
		if err := v.piece(number, &cur.pieces[i]); err != nil {
			return err
		}
	}
	if nulls != v.x.nulls[number] {
		return v.x.corrupt(lookupFile, "page %d has %d nulls, expected %d", number, nulls, v.x.nulls[number])
	}
	return nil
}

func (v *verifier) piece(number int, c *piece) error {
	for i := range c.nulls {
		if c.values.IsValid(i) || v.last != nil {
			return v.x.corrupt(dataFile, "page %d has a null after a value", number)
		}
	}
	if c.nulls == len(c.ids) {
		return nil
	}
	if at := c.order.disorder(c.nulls); at < len(c.ids) {
		return v.x.corrupt(dataFile, "page %d is out of order at row %d", number, at)
	}
	if v.last != nil {
		before, err := view(v.last)
		if err != nil {
			return err
		}
		if c.order.compare(c.nulls, before, 0) < 0 {
			return v.x.corrupt(dataFile, "page %d begins below the value before it", number)
		}
	}
	last := len(c.ids) - 1
	below := v.x.min.IsValid(number) && c.order.compare(c.nulls, v.x.minOrder, number) < 0
	if below || v.x.max.IsNull(number) || c.order.compare(last, v.x.maxOrder, number) > 0 {
		return v.x.corrupt(lookupFile, "page %d has values outside its bounds", number)
	}
	v.keep(array.NewSlice(c.values, int64(last), int64(last)+1))
	return nil
}
