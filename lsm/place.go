package lsm

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
)

// A Place says where a view has a row: the number of the piece << 32 | the row's number in it. The pieces of a view are
// the fragments of its base and then, chain by chain, the layers in front of it. Places mean something in their own view
// only.
type Place uint64

// RowPlace is the number of a column that is in no schema: the row's Place in the view, as a uint64.
const RowPlace = -2

// placeField is the column of RowPlace.
var placeField = arrow.Field{Name: "_place", Type: arrow.PrimitiveTypes.Uint64}

// placeAt returns the place of a row of a piece.
func placeAt(piece int, row uint32) Place { return Place(uint64(piece)<<32 | uint64(row)) }

func (p Place) piece() int  { return int(p >> 32) }
func (p Place) row() uint32 { return uint32(p) }

// Places is a set of places of one view. It is filled by one goroutine and then only read.
type Places struct{ pieces map[int]*roaring.Bitmap }

// NewPlaces returns an empty set.
func NewPlaces() *Places { return &Places{pieces: make(map[int]*roaring.Bitmap)} }

// Add puts places in.
func (s *Places) Add(places []uint64) {
	for len(places) > 0 {
		piece := Place(places[0]).piece()
		n := 1
		for n < len(places) && Place(places[n]).piece() == piece {
			n++
		}
		rows := s.pieces[piece]
		if rows == nil {
			rows = roaring.New()
			s.pieces[piece] = rows
		}
		for _, p := range places[:n] {
			rows.Add(uint32(p))
		}
		places = places[n:]
	}
}

// Len returns how many places are in the set.
func (s *Places) Len() int64 {
	n := uint64(0)
	for _, rows := range s.pieces {
		n += rows.GetCardinality()
	}
	return int64(n)
}

// of returns the rows of a piece that are in the set, and whether the set says anything: nil stands for all places.
func (s *Places) of(piece int) (rows *roaring.Bitmap, picked bool) {
	if s == nil {
		return nil, false
	}
	return s.pieces[piece], true
}

// numberPieces returns the numbers of the fragments and memtables of a view.
func (v *View) numberPieces() map[any]int {
	numbers := make(map[any]int)
	for _, f := range v.set.base.frags {
		numbers[f] = len(numbers)
	}
	for _, c := range v.set.chains {
		for _, l := range c.layers {
			switch x := l.layer.(type) {
			case *generation:
				numbers[x.frag] = len(numbers)
			case *memtable:
				numbers[x] = len(numbers)
			}
		}
	}
	return numbers
}

// piece is what lies behind the number of a place: a fragment, or what a view has of a memtable.
type piece struct {
	number int
	layer  string // base, generation or memtable
	frag   *fragment
	rows   *memRows
	mem    *memtable
	// exactFrom is the first row that a search compares one by one, as an index has those before it.
	exactFrom int64
	// hidden are the rows that do not count, but for the tombstones of a memtable.
	hidden []*roaring.Bitmap
}

// pieces returns the pieces of a view by their numbers, with the rows that the view does not have.
func (v *View) pieces(ctx context.Context) ([]piece, error) {
	masks, err := v.baseMask(ctx)
	if err != nil {
		return nil, err
	}
	var out []piece
	for _, f := range v.set.base.frags {
		out = append(out, piece{number: len(out), layer: "base", frag: f, hidden: masks.fragment(f.id, f.hidden)})
	}
	for _, c := range v.set.chains {
		for i, l := range c.layers {
			mask, err := v.mask(ctx, c, i)
			if err != nil {
				return nil, err
			}
			p := piece{number: len(out)}
			switch x := l.layer.(type) {
			case *generation:
				p.layer, p.frag, p.hidden = "generation", x.frag, []*roaring.Bitmap{x.frag.hidden, mask.fragment(0)}
			case *memtable:
				rows, dead := x.at(v.lsn)
				p.layer, p.mem, p.rows, p.hidden = "memtable", x, rows, []*roaring.Bitmap{dead, mask.fragment(0)}
			}
			out = append(out, p)
		}
	}
	return out, nil
}

// rowCount returns the rows of a piece, whether they count or not.
func (p *piece) rowCount() int64 {
	if p.frag != nil {
		return p.frag.rows
	}
	return p.rows.rowCount()
}

// Take returns columns of the rows at some places, in their order; a place may come more than once. The rows lie outside
// the Go heap; the caller releases them.
func (v *View) Take(ctx context.Context, columns []int, places []uint64) (arrow.RecordBatch, error) {
	rec, err := v.take(ctx, columns, places)
	if err != nil {
		return nil, fmt.Errorf("take rows of table %q: %w", v.table.name, err)
	}
	return rec, nil
}

// take is Take.
func (v *View) take(ctx context.Context, columns []int, places []uint64) (arrow.RecordBatch, error) {
	for _, c := range columns {
		if c < 0 || c >= v.schema.arrow.NumFields() {
			return nil, fmt.Errorf("%w: there is no column number %d", ErrInvalid, c)
		}
	}
	schema := projectSchema(v.schema.arrow, columns)
	if len(columns) == 0 {
		return array.NewRecordBatch(schema, nil, int64(len(places))), nil
	}
	sorted := slices.Clone(places)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	parts, err := v.takeSorted(ctx, columns, sorted)
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	if err != nil {
		return nil, err
	}
	order := make([]int32, len(places))
	for i, p := range places {
		at, _ := slices.BinarySearch(sorted, p)
		order[i] = int32(at)
	}
	cols := make([]arrow.Array, len(columns))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range columns {
		if cols[i], err = joinTaken(parts, i, v.schema.arrow.Field(c).Type, order); err != nil {
			return nil, err
		}
	}
	return relabelRecord(array.NewRecordBatch(projectTaken(schema, cols), cols, int64(len(places))), schema), nil
}

// projectTaken is a schema with the types that columns came with: inner fields may have other names than the table's.
func projectTaken(s *arrow.Schema, cols []arrow.Array) *arrow.Schema {
	fields := slices.Clone(s.Fields())
	for i := range fields {
		fields[i].Type, fields[i].Nullable = cols[i].DataType(), true
	}
	return arrow.NewSchema(fields, nil)
}

// joinTaken returns a column of parts that were taken one after the other, in another order.
func joinTaken(parts []arrow.RecordBatch, column int, t arrow.DataType, order []int32) (arrow.Array, error) {
	if len(parts) == 0 {
		return array.MakeArrayOfNull(offheap.Default, t, 0), nil
	}
	whole := parts[0].Column(column)
	whole.Retain()
	if len(parts) > 1 {
		whole.Release()
		arrays := make([]arrow.Array, len(parts))
		for i, p := range parts {
			arrays[i] = relabel(p.Column(column), t)
			defer arrays[i].Release()
		}
		var err error
		if whole, err = array.Concatenate(arrays, offheap.Default); err != nil {
			return nil, err
		}
	}
	defer whole.Release()
	return takeRows(whole, order)
}

// takeSorted returns columns of the rows at places that ascend, in one part for each fragment, or batch of a memtable, that has
// some. What it returns with an error has to be released, too.
func (v *View) takeSorted(ctx context.Context, columns []int, places []uint64) (parts []arrow.RecordBatch, err error) {
	number := 0
	each := func(f *fragment, m *memtable) error {
		n := 0
		for n < len(places) && Place(places[n]).piece() == number {
			n++
		}
		mine := places[:n]
		places = places[n:]
		number++
		switch {
		case n == 0:
			return nil
		case f == nil:
			more, err := v.takeMemtable(m, columns, mine)
			parts = append(parts, more...)
			return err
		}
		rows := make([]int64, n)
		for i, p := range mine {
			rows[i] = int64(Place(p).row())
		}
		if last := rows[n-1]; last >= f.rows {
			return fmt.Errorf("%w: fragment %d has no row %d", ErrInvalid, f.id, last)
		}
		rec, err := f.take(ctx, v.schema, columns, rows)
		if err == nil {
			parts = append(parts, rec)
		}
		return err
	}
	for _, f := range v.set.base.frags {
		if err := each(f, nil); err != nil {
			return parts, err
		}
	}
	for _, c := range v.set.chains {
		for _, l := range c.layers {
			m, _ := l.layer.(*memtable)
			var f *fragment
			if g, ok := l.layer.(*generation); ok {
				f = g.frag
			}
			if err := each(f, m); err != nil {
				return parts, err
			}
		}
	}
	if len(places) > 0 {
		return parts, fmt.Errorf("%w: there is no piece number %d", ErrInvalid, Place(places[0]).piece())
	}
	return parts, nil
}

// takeMemtable is takeSorted for the rows of a memtable.
func (v *View) takeMemtable(m *memtable, columns []int, places []uint64) (parts []arrow.RecordBatch, err error) {
	all := m.rows.Load().upTo(v.lsn)
	if last := Place(places[len(places)-1]).row(); int64(last) >= all.rowCount() {
		return nil, fmt.Errorf("%w: a memtable has no row %d", ErrInvalid, last)
	}
	for len(places) > 0 {
		b := &all.batches[all.batchOf(Place(places[0]).row())]
		end := uint64(b.first) + uint64(b.rec.NumRows())
		var rows []int32
		for len(places) > 0 && uint64(Place(places[0]).row()) < end {
			rows = append(rows, int32(Place(places[0]).row()-b.first))
			places = places[1:]
		}
		part, err := v.takeBatch(b, columns, rows)
		if err != nil {
			return parts, err
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// takeBatch returns columns of some rows of a memtable's batch.
func (v *View) takeBatch(b *memBatch, columns []int, rows []int32) (arrow.RecordBatch, error) {
	cols := make([]arrow.Array, len(columns))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, c := range columns {
		whole, err := v.schema.pick(b.schema, b.rec, c)
		if err != nil {
			return nil, err
		}
		cols[i], err = takeRows(whole, rows)
		whole.Release()
		if err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(projectSchema(v.schema.arrow, columns), cols, int64(len(rows))), nil
}
