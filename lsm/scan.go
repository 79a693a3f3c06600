package lsm

import (
	"cmp"
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
	// means that only the rows are counted. RowAddress and RowPlace may be among them.
	Columns []int
	// Keys, of the same view, are the keys whose rows are wanted; nil stands for all. It is a hint: rows with other
	// keys may come, too.
	Keys *KeySet
	// Where, of the same view, are the values of one column whose rows are wanted; nil stands for all. It is a hint as
	// Keys is: layers that have an index over the column find rows by it.
	Where *KeySet
	// Part and Parts cut the rows into Parts scans that together, on one view and with the same Keys, have each row
	// once; this one is number Part, from 0. Parts of 0 means that the scan has all rows.
	Part, Parts int
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

	plan ScanPlan // of the constructor
}

// projection is what a scan reads of each row.
type projection struct {
	view    *View
	columns []int
	schema  *arrow.Schema
	// numbers are those of the view's pieces, if RowPlace is among the columns.
	numbers map[any]int
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
	if o.Parts < 0 || o.Part < 0 || o.Part >= max(o.Parts, 1) {
		return nil, fmt.Errorf("%w scan of table %q: part %d of %d", ErrInvalid, v.table.name, o.Part, o.Parts)
	}
	sc, err := v.scan(ctx, o)
	if err == nil && o.Parts > 1 {
		sc.keepPart(o.Part, o.Parts)
	}
	return sc, err
}

// keepPart drops what other parts read. Which pieces of files a view's scan consists of, and in which order, depends on
// nothing but the view and the keys, so that the parts fit together. Of memtables that is not so: which batches are looked at
// depends on how far the indexes are, and on what was put in order meanwhile. So a batch belongs to a part by its number.
func (sc *Scan) keepPart(part, parts int) {
	n := 0 // pieces of files so far
	var units []unit
	for _, u := range sc.units {
		mem, ok := u.(*memUnit)
		if !ok {
			if n%parts == part {
				units = append(units, u)
			}
			n++
			continue
		}
		mem.rows = slices.DeleteFunc(slices.Clone(mem.rows), func(b memBatch) bool { return int(b.number)%parts != part })
		if len(mem.rows) > 0 {
			units = append(units, mem)
		}
	}
	sc.units = units
}

// scan begins a scan of all rows.
func (v *View) scan(ctx context.Context, o ScanOptions) (*Scan, error) {
	n := v.schema.arrow.NumFields()
	for _, c := range o.Columns {
		if c < RowPlace || c >= n {
			return nil, fmt.Errorf("%w scan of table %q: it has no column number %d", ErrInvalid, v.table.name, c)
		}
	}
	sc := &Scan{}
	if slices.Contains(o.Columns, RowAddress) && v.unmerged() {
		return nil, fmt.Errorf("scan table %q: rows that are not in the base have no address", v.table.name)
	}
	p := projection{view: v, columns: o.Columns, schema: projectSchema(v.schema.arrow, o.Columns)}
	if slices.Contains(o.Columns, RowPlace) {
		p.numbers = v.numberPieces()
	}
	k := v.chooseSet(o.Keys, o.Where)
	byColumn := k != nil && k == o.Where
	if k != nil {
		sc.plan = ScanPlan{Keyed: true, Points: k.points.Len(), Ranges: len(k.ranges)}
		if byColumn {
			sc.plan.Column = k.by.names[0]
		} else if len(k.ranges) == 0 && k.points.Len() <= maxPoints {
			return sc, v.scanPoints(ctx, sc, p, k.points)
		}
	}
	if err := v.scanLayers(ctx, sc, p, k, byColumn); err != nil {
		return nil, fmt.Errorf("scan table %q: %w", v.table.name, err)
	}
	return sc, nil
}

// scanLayers adds the rows of all layers, or those that may be in a set, which may be nil: by their keys, or by the
// values of a column.
func (v *View) scanLayers(ctx context.Context, sc *Scan, p projection, k *KeySet, byColumn bool) error {
	masks, err := v.baseMask(ctx)
	if err != nil {
		return err
	}
	switch {
	case byColumn:
		err = v.scanBaseColumn(ctx, sc, p, k, masks)
	case k != nil:
		err = v.scanBase(ctx, sc, p, k, masks)
	default:
		for _, f := range v.set.base.frags {
			sc.note("base", byFullScan, f.live)
			sc.addFile(f, p, fileRows{hidden: masks.fragment(f.id, f.hidden)})
		}
	}
	if err != nil {
		return err
	}
	for _, c := range v.set.chains {
		for i, l := range c.layers {
			mask, err := v.mask(ctx, c, i)
			switch {
			case err != nil:
			case byColumn:
				err = v.scanColumn(ctx, sc, p, k, l.layer, mask)
			case k != nil:
				err = v.scanRanges(ctx, sc, p, k, l.layer, mask)
			default:
				v.scanAll(sc, p, l.layer, mask)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// scanAll adds all rows of a layer in front of the base.
func (v *View) scanAll(sc *Scan, p projection, l layer, mask *rowMask) {
	switch x := l.(type) {
	case *generation:
		sc.note("generation", byFullScan, x.frag.live)
		sc.addFile(x.frag, p, fileRows{hidden: []*roaring.Bitmap{x.frag.hidden, mask.fragment(0)}})
	case *memtable:
		rows, dead := x.at(v.lsn)
		sc.addMem(x, rows, p, memPick{hidden: []*roaring.Bitmap{dead, mask.fragment(0)}})
	}
}

// projectSchema returns the schema of some columns.
func projectSchema(s *arrow.Schema, columns []int) *arrow.Schema {
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		switch c {
		case RowAddress:
			fields[i] = addressField
		case RowPlace:
			fields[i] = placeField
		default:
			fields[i] = s.Field(c)
		}
	}
	return arrow.NewSchema(fields, nil)
}

// unmerged reports whether the view has rows that are not in the base.
func (v *View) unmerged() bool {
	for _, c := range v.set.chains {
		for _, l := range c.layers {
			if m, ok := l.layer.(*memtable); !ok || len(m.rows.Load().upTo(v.lsn).batches) > 0 {
				return true
			}
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

// memPick says which rows of a memtable a scan has.
type memPick struct {
	hidden []*roaring.Bitmap
	// only are the only rows wanted, if picked is set.
	only   *roaring.Bitmap
	picked bool
	// by is what picked them; empty is the key index.
	by string
}

// addMem adds rows of a memtable.
func (sc *Scan) addMem(m *memtable, rows *memRows, p projection, pick memPick) {
	batches := rows.batches
	if pick.picked {
		n := int64(0)
		if pick.only != nil {
			n = int64(pick.only.GetCardinality())
		}
		if sc.note("memtable", cmp.Or(pick.by, byKeyIndex), n); n == 0 {
			return
		}
		batches = rows.batchesOf(pick.only)
	} else if len(batches) > 0 {
		sc.note("memtable", byFullScan, rows.rowCount())
	}
	if len(batches) > 0 {
		sc.units = append(sc.units, &memUnit{mem: m, rows: batches, projection: p, pick: pick})
	}
}

// memUnit reads the batches of a memtable.
type memUnit struct {
	projection
	mem  *memtable
	rows []memBatch
	pick memPick
}

// next implements unit.
func (u *memUnit) next(context.Context) (*Morsel, bool, error) {
	for len(u.rows) > 0 {
		b := u.rows[0]
		u.rows = u.rows[1:]
		n := uint32(b.rec.NumRows())
		var live []uint32
		if u.pick.picked {
			live = pickLive(b.first, n, u.pick.only, u.pick.hidden)
			live = slices.DeleteFunc(live, func(i uint32) bool { return b.tombs != nil && b.tombs.Value(int(i)) })
		} else {
			live = liveRows(b.first, n, u.pick.hidden, b.tombs)
		}
		if live != nil && len(live) == 0 {
			continue
		}
		cols := make([]arrow.Array, len(u.columns))
		for i, c := range u.columns {
			var err error
			if c == RowPlace {
				cols[i] = consecutive(uint64(placeAt(u.numbers[u.mem], b.first)), int64(n))
			} else if cols[i], err = u.view.schema.pick(b.schema, b.rec, c); err != nil {
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

// fileRows says which rows of a fragment a scan has: those in none of hidden, if only is set those in it, and if keys
// is set those whose keys it has, which the unit finds out when it comes to its rows.
type fileRows struct {
	hidden []*roaring.Bitmap
	only   *roaring.Bitmap
	keys   *KeySet
}

// addFile adds the rows of a fragment.
func (sc *Scan) addFile(f *fragment, p projection, from fileRows) {
	for first := int64(0); first < f.rows; first += morselRows {
		sc.units = append(sc.units, &fileUnit{projection: p, frag: f, first: first, rows: min(morselRows, f.rows-first), from: from})
	}
}

// fileUnit reads a range of a fragment's rows.
type fileUnit struct {
	projection
	frag    *fragment
	first   int64 // of what is left
	rows    int64
	from    fileRows
	scanner rowReader
}

// live returns which of the n rows from first on count, numbered from 0; nil means that all do.
func (u *fileUnit) live(n int64) []uint32 {
	if u.from.only != nil {
		return pickLive(uint32(u.first), uint32(n), u.from.only, u.from.hidden)
	}
	return liveRows(uint32(u.first), uint32(n), u.from.hidden, nil)
}

// begin finds out what of the unit is read, and opens it. Nothing is read where nothing lives.
func (u *fileUnit) begin(ctx context.Context) (some bool, err error) {
	if u.from.keys != nil {
		live, err := u.keyLive(ctx)
		if err != nil || len(live) == 0 {
			return false, err
		}
		u.from.only = roaring.New()
		for _, row := range live {
			u.from.only.Add(uint32(u.first) + row)
		}
		last := int64(live[len(live)-1])
		u.first, u.rows = u.first+int64(live[0]), last-int64(live[0])+1
	} else if live := u.live(u.rows); live != nil && len(live) == 0 {
		return false, nil
	}
	u.scanner = u.frag.scan(u.view.schema, stored(u.columns), u.first, u.rows, morselRows)
	return true, nil
}

// next implements unit.
func (u *fileUnit) next(ctx context.Context) (*Morsel, bool, error) {
	if u.scanner == nil {
		some, err := u.begin(ctx)
		if err != nil {
			return nil, false, fmt.Errorf("scan table %q: %w", u.view.table.name, err)
		}
		if !some {
			return nil, false, nil
		}
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
	live := u.live(n)
	u.first, u.rows = u.first+n, u.rows-n
	if live != nil && len(live) == 0 {
		rec.Release()
		return nil, u.rows > 0, nil
	}
	return &Morsel{Record: rec, Live: live}, u.rows > 0, nil
}

// stored returns the columns that are in files.
func stored(columns []int) []int {
	return slices.DeleteFunc(slices.Clone(columns), func(c int) bool { return c < 0 })
}

// consecutive returns n numbers from first on.
func consecutive(first uint64, n int64) arrow.Array {
	b := array.NewUint64Builder(offheap.Default)
	defer b.Release()
	b.Reserve(int(n))
	for i := range n {
		b.UnsafeAppend(first + uint64(i))
	}
	return b.NewArray()
}

// addAddresses puts the rows' addresses and places among the columns of the file. It consumes the batch.
func (u *fileUnit) addAddresses(rec arrow.RecordBatch) arrow.RecordBatch {
	if int(rec.NumCols()) == len(u.columns) {
		return rec
	}
	defer rec.Release()
	cols := make([]arrow.Array, 0, len(u.columns))
	fields := make([]arrow.Field, 0, len(u.columns))
	next := 0
	for _, c := range u.columns {
		if c < 0 {
			first := u.frag.id<<32 | uint64(u.first)
			if c == RowPlace {
				first = uint64(placeAt(u.numbers[u.frag], uint32(u.first)))
			}
			made := consecutive(first, rec.NumRows())
			defer made.Release()
			cols, fields = append(cols, made), append(fields, u.schema.Field(len(cols)))
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
