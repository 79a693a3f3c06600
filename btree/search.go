package btree

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// piece is a part of a page that the Lance reader gave in one batch, most often all of it.
type piece struct {
	rec    arrow.RecordBatch
	values arrow.Array
	order  column
	ids    []uint64
	// nulls is how many of the first values are null.
	nulls int
}

// page is a page in memory.
type page struct {
	number int
	pieces []piece
}

func (p *page) release() {
	for _, c := range p.pieces {
		c.rec.Release()
	}
	p.pieces, p.number = nil, -1
}

// load makes p the page with a number; it does nothing when it is that page already.
func (x *Index) load(ctx context.Context, p *page, number int) error {
	if p.number == number {
		return nil
	}
	p.release()
	off := int64(number) * x.pageRows
	n := min(x.pageRows, x.Rows()-off)
	err := scan(ctx, x.data, []int{0, 1}, off, n, func(rec arrow.RecordBatch) error {
		c, err := x.newPiece(rec)
		if err == nil {
			rec.Retain()
			p.pieces = append(p.pieces, c)
		}
		return err
	})
	if err != nil {
		p.release()
		return fmt.Errorf("page %d: %w", number, err)
	}
	p.number = number
	return nil
}

func (x *Index) newPiece(rec arrow.RecordBatch) (piece, error) {
	c := piece{rec: rec, values: rec.Column(0)}
	ids, ok := rec.Column(1).(*array.Uint64)
	if !ok || ids.NullN() > 0 {
		return c, x.corrupt(dataFile, "ids are %s with %d nulls", rec.Column(1).DataType(), rec.Column(1).NullN())
	}
	c.ids, c.nulls = ids.Uint64Values(), c.values.NullN()
	var err error
	c.order, err = view(c.values)
	return c, err
}

// Lookup calls fn for each row whose value equals a key, with the place of the key and the id of the row. Keys are in
// ascending order and of the type of the index; a key may occur several times, and null keys find nothing. Rows of one
// key come in the order of the index. Keys that are far apart are searched, those that are close are met on a walk.
func (x *Index) Lookup(ctx context.Context, keys arrow.Array, fn func(i int, id uint64) error) error {
	if keys.Len() == 0 || x.empty == x.max.Len() {
		return nil
	}
	if !arrow.TypeEqual(keys.DataType(), x.value) {
		return fmt.Errorf("look up in index %s: keys are %s, expected %s", x.dir, keys.DataType(), x.value)
	}
	order, err := view(keys)
	if err != nil {
		return fmt.Errorf("look up in index %s: %w", x.dir, err)
	}
	if err := x.find(ctx, keys, order, fn); err != nil {
		return fmt.Errorf("look up in index %s: %w", x.dir, err)
	}
	return nil
}

// find finds the rows of keys in the way that is the cheaper one.
func (x *Index) find(ctx context.Context, keys arrow.Array, order column, fn func(i int, id uint64) error) error {
	if n := keys.Len(); n > 1 && keys.NullN() == 0 {
		if at := order.disorder(0); at < n {
			return disorderError(at)
		}
		if first, ok := x.joins(order, n); ok {
			return x.join(ctx, order, n, first, fn)
		}
	}
	return x.search(ctx, keys, order, fn)
}

// disorderError is for keys that are not in order.
func disorderError(key int) error { return fmt.Errorf("key %d is below the one before it", key) }

// search searches each key.
func (x *Index) search(ctx context.Context, keys arrow.Array, order column, fn func(i int, id uint64) error) error {
	s := search{x: x, keys: order, page: x.empty, fn: fn, cur: page{number: -1}, run: page{number: -1}}
	defer s.cur.release()
	defer s.run.release()
	before := -1
	for k := range keys.Len() {
		if keys.IsNull(k) {
			continue
		}
		if before >= 0 && order.compare(k, order, before) < 0 {
			return disorderError(k)
		}
		before = k
		if more, err := s.find(ctx, k); err != nil || !more {
			return err
		}
	}
	return nil
}

// search is one Lookup. It remembers where the first row at or above the last key is, and the next key gallops on
// from there.
type search struct {
	x    *Index
	keys column
	fn   func(i int, id uint64) error

	page, piece, row int
	// cur is the page of that place; run is a later page into which a run of equal values goes on.
	cur, run page
}

// find reports the rows of key k. It returns false when all values are below the key.
func (s *search) find(ctx context.Context, k int) (bool, error) {
	at := s.x.maxOrder.seek(s.page, s.keys, k)
	if at == s.x.max.Len() {
		return false, nil
	}
	if at != s.page {
		s.page, s.piece, s.row = at, 0, 0
	}
	if s.x.startsAbove(at, s.keys, k) {
		return true, nil
	}
	if err := s.x.load(ctx, &s.cur, at); err != nil {
		return false, err
	}
	for ; s.piece < len(s.cur.pieces); s.piece, s.row = s.piece+1, 0 {
		c := &s.cur.pieces[s.piece]
		s.row = c.order.seek(max(s.row, c.nulls), s.keys, k)
		if s.row < len(c.ids) {
			break
		}
	}
	ended, err := s.report(&s.cur, s.piece, s.row, k)
	for next := at + 1; err == nil && !ended && next < s.x.min.Len() && s.x.minOrder.compare(next, s.keys, k) == 0; next++ {
		if err = s.x.load(ctx, &s.run, next); err == nil {
			ended, err = s.report(&s.run, 0, 0, k)
		}
	}
	return true, err
}

// report calls fn for the run of values equal to key k that begins at a place of p. It returns whether the run ended
// inside p.
func (s *search) report(p *page, piece, row, k int) (bool, error) {
	for ; piece < len(p.pieces); piece, row = piece+1, 0 {
		c := &p.pieces[piece]
		for row = max(row, c.nulls); row < len(c.ids); row++ {
			if c.order.compare(row, s.keys, k) != 0 {
				return true, nil
			}
			if err := s.fn(k, c.ids[row]); err != nil {
				return true, err
			}
		}
	}
	return false, nil
}
