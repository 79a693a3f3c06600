package lsm

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
)

// morselRows bounds the rows of a morsel from a file: the unit in which the threads of a query share a scan. It is
// DuckDB's row group, large enough that handing one over costs nothing beside reading it.
const morselRows = 122_880

// ScanOptions says what a scan reads.
type ScanOptions struct {
	// Columns are the columns by their number in the table's schema, in the order in which they are wanted. None
	// means that only the rows are counted. RowAddress may be among them.
	Columns []int
}

// RowAddress is the number of a column that is in no schema: where in the base a row lies, as Lance has it, the
// fragment's id << 32 | the row's place in the fragment. Rows that are not in the base yet have none: a scan that meets
// some fails.
const RowAddress = -1

// addressField is the column of RowAddress.
var addressField = arrow.Field{Name: "_rowid", Type: arrow.PrimitiveTypes.Uint64}

// Morsel is a piece of a scan.
type Morsel struct {
	// Record has the wanted columns, in memory outside the Go heap.
	Record arrow.RecordBatch
	// Live lists the rows of Record that the view has, ascending; nil means all of them.
	Live []uint32
}

// Rows returns the number of rows that the view has in the morsel.
func (m *Morsel) Rows() int64 {
	if m.Live != nil {
		return int64(len(m.Live))
	}
	return m.Record.NumRows()
}

// Release lets the morsel go.
func (m *Morsel) Release() { m.Record.Release() }

// Scan hands out the rows of a view, each once, in no order. Next may be called by several goroutines at a time.
type Scan struct {
	mu    sync.Mutex
	units []unit // what is left, guarded by mu
}

// unit is a part of a scan that one goroutine reads at a time.
type unit interface {
	// next returns the next morsel, nil when the rest of the unit has no live rows, and whether more may follow.
	next(ctx context.Context) (m *Morsel, more bool, err error)
	// close ends a unit that may not be at its end.
	close()
}

// Scan begins a scan. The view must outlive it.
func (v *View) Scan(ctx context.Context, o ScanOptions) (*Scan, error) {
	n := v.schema.arrow.NumFields()
	for _, c := range o.Columns {
		if c < RowAddress || c >= n {
			return nil, fmt.Errorf("%w scan of table %q: it has no column number %d", ErrInvalid, v.table.name, c)
		}
	}
	sc := &Scan{}
	out := projectSchema(v.schema.arrow, o.Columns)
	addresses := slices.Contains(o.Columns, RowAddress)
	if addresses && v.unmerged() {
		return nil, fmt.Errorf("scan table %q: rows that are not in the base have no address", v.table.name)
	}
	for i, l := range v.set.layers {
		mask, err := v.mask(ctx, i)
		if err != nil {
			return nil, fmt.Errorf("scan table %q: %w", v.table.name, err)
		}
		switch x := l.layer.(type) {
		case *base:
			for _, f := range x.frags {
				sc.addFile(v, f, mask.fragment(f.id), o.Columns, out)
			}
		case *generation:
			sc.addFile(v, x.frag, mask.fragment(0), o.Columns, out)
		case *memtable:
			rows := x.rows.Load().upTo(v.lsn)
			if len(rows.batches) > 0 {
				sc.units = append(sc.units, &memUnit{view: v, rows: rows.batches, columns: o.Columns, schema: out,
					hidden: []*roaring.Bitmap{rows.deadBitmap(), mask.fragment(0)}})
			}
		}
	}
	return sc, nil
}

// projectSchema returns the schema of some columns.
func projectSchema(s *arrow.Schema, columns []int) *arrow.Schema {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = addressField
		if c != RowAddress {
			fields[i] = s.Field(c)
		}
	}
	return arrow.NewSchema(fields, nil)
}

// unmerged reports whether the view has rows that are not in the base.
func (v *View) unmerged() bool {
	for _, l := range v.set.layers[1:] {
		if m, ok := l.layer.(*memtable); !ok || len(m.rows.Load().upTo(v.lsn).batches) > 0 {
			return true
		}
	}
	return false
}

// Next returns the next morsel, which the caller releases, or io.EOF.
func (sc *Scan) Next(ctx context.Context) (*Morsel, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		u := sc.pop()
		if u == nil {
			return nil, io.EOF
		}
		m, more, err := u.next(ctx)
		if more && err == nil {
			sc.push(u)
		} else {
			u.close()
		}
		if err != nil {
			return nil, err
		}
		if m != nil {
			return m, nil
		}
	}
}

// pop takes a unit, so that nobody else reads it meanwhile.
func (sc *Scan) pop() unit {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	n := len(sc.units)
	if n == 0 {
		return nil
	}
	u := sc.units[n-1]
	sc.units = sc.units[:n-1]
	return u
}

// push puts a unit back.
func (sc *Scan) push(u unit) {
	sc.mu.Lock()
	sc.units = append(sc.units, u)
	sc.mu.Unlock()
}

// Close ends the scan; morsels that were handed out stay valid. REQUIRES: no call of Next runs.
func (sc *Scan) Close() {
	for u := sc.pop(); u != nil; u = sc.pop() {
		u.close()
	}
}

// memUnit reads the batches of a memtable.
type memUnit struct {
	view    *View
	rows    []memBatch
	columns []int
	schema  *arrow.Schema
	hidden  []*roaring.Bitmap
}

// next implements unit.
func (u *memUnit) next(context.Context) (*Morsel, bool, error) {
	for len(u.rows) > 0 {
		b := u.rows[0]
		u.rows = u.rows[1:]
		live := liveRows(b.first, uint32(b.rec.NumRows()), u.hidden, b.tombs)
		if live != nil && len(live) == 0 {
			continue
		}
		cols := make([]arrow.Array, len(u.columns))
		for i, c := range u.columns {
			var err error
			if cols[i], err = u.view.schema.pick(b.schema, b.rec, c); err != nil {
				return nil, false, fmt.Errorf("scan table %q: %w", u.view.table.name, err)
			}
			defer cols[i].Release()
		}
		return &Morsel{Record: array.NewRecordBatch(u.schema, cols, b.rec.NumRows()), Live: live}, len(u.rows) > 0, nil
	}
	return nil, false, nil
}

// close implements unit.
func (u *memUnit) close() {}

// addFile adds the rows of a fragment that are neither deleted nor replaced.
func (sc *Scan) addFile(v *View, f *fragment, replaced *roaring.Bitmap, columns []int, out *arrow.Schema) {
	for first := int64(0); first < f.rows; first += morselRows {
		sc.units = append(sc.units, &fileUnit{view: v, frag: f, first: first, rows: min(morselRows, f.rows-first),
			columns: columns, schema: out, hidden: []*roaring.Bitmap{f.hidden, replaced}})
	}
}

// fileUnit reads a range of a fragment's rows.
type fileUnit struct {
	view    *View
	frag    *fragment
	first   int64 // of what is left
	rows    int64
	columns []int
	schema  *arrow.Schema
	hidden  []*roaring.Bitmap
	scanner rowReader
}

// next implements unit.
func (u *fileUnit) next(ctx context.Context) (*Morsel, bool, error) {
	if u.scanner == nil {
		if live := liveRows(uint32(u.first), uint32(u.rows), u.hidden, nil); live != nil && len(live) == 0 {
			return nil, false, nil // nothing is read where nothing lives
		}
		u.scanner = u.frag.scan(u.view.schema, stored(u.columns), u.first, u.rows, morselRows)
	}
	rec, err := u.scanner.Next(ctx)
	if err == io.EOF {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("scan table %q: %w", u.view.table.name, err)
	}
	rec = relabelRecord(u.addAddresses(rec), u.schema)
	n := rec.NumRows()
	live := liveRows(uint32(u.first), uint32(n), u.hidden, nil)
	u.first, u.rows = u.first+n, u.rows-n
	if live != nil && len(live) == 0 {
		rec.Release()
		return nil, u.rows > 0, nil
	}
	return &Morsel{Record: rec, Live: live}, u.rows > 0, nil
}

// stored returns the columns that are in files.
func stored(columns []int) []int {
	return slices.DeleteFunc(slices.Clone(columns), func(c int) bool { return c == RowAddress })
}

// addAddresses puts the rows' addresses in their places among the columns of the file. It consumes the batch.
func (u *fileUnit) addAddresses(rec arrow.RecordBatch) arrow.RecordBatch {
	if int(rec.NumCols()) == len(u.columns) {
		return rec
	}
	defer rec.Release()
	b := array.NewUint64Builder(offheap.Default)
	defer b.Release()
	b.Reserve(int(rec.NumRows()))
	for i := range rec.NumRows() {
		b.UnsafeAppend(u.frag.id<<32 | uint64(u.first+i))
	}
	addresses := b.NewArray()
	defer addresses.Release()
	cols := make([]arrow.Array, 0, len(u.columns))
	fields := make([]arrow.Field, 0, len(u.columns))
	next := 0
	for _, c := range u.columns {
		if c == RowAddress {
			cols, fields = append(cols, addresses), append(fields, addressField)
			continue
		}
		cols, fields = append(cols, rec.Column(next)), append(fields, rec.Schema().Field(next))
		next++
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, rec.NumRows())
}

// close implements unit.
func (u *fileUnit) close() {
	if u.scanner != nil {
		u.scanner.Close()
	}
}
