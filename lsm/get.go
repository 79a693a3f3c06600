package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Get returns the row with a key as of now, or nil when there is none. key has for each column of the key, in the key's
// order, an array with its value in row 0; columns are those wanted, by their numbers in the table's schema. The caller
// releases the row. It is a scan without what a scan of many rows takes: a key that is in a memtable costs a search in the
// key index and the slices of its columns.
func (t *Table) Get(ctx context.Context, key []arrow.Array, columns []int) (arrow.RecordBatch, error) {
	v, err := t.viewNow()
	if err != nil {
		return nil, err
	}
	defer v.set.unref()
	keys, err := v.point(key)
	if err != nil {
		return nil, err
	}
	for _, c := range columns {
		if c < 0 || c >= v.schema.arrow.NumFields() {
			return nil, fmt.Errorf("%w row of table %q: it has no column number %d", ErrInvalid, t.name, c)
		}
	}
	row, settled, err := v.getFresh(keys.points, columns)
	if err == nil && !settled {
		row, err = v.getStored(ctx, keys, columns)
	}
	if err != nil {
		return nil, fmt.Errorf("get a row of table %q: %w", t.name, err)
	}
	return row, nil
}

// viewNow returns the table as a new snapshot has it. The caller gives back its reference on the layers.
func (t *Table) viewNow() (*View, error) {
	t.db.moment.Lock()
	defer t.db.moment.Unlock()
	if t.db.closed {
		return nil, ErrClosed
	}
	if err := t.db.lost(); err != nil {
		return nil, err
	}
	set := t.set.Load()
	if set == nil || t.db.tables[t.name.fold()] != t {
		return nil, fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
	}
	set.retain()
	return &View{table: t, schema: t.now(), lsn: t.db.marks.visible(), set: set}, nil
}

// point returns the set of one key.
func (v *View) point(key []arrow.Array) (*KeySet, error) {
	k := v.NewKeySet()
	if k == nil {
		return nil, fmt.Errorf("%w: table %q has no key to get rows by", ErrInvalid, v.table.name)
	}
	if len(key) != len(k.by.cols) {
		return nil, fmt.Errorf("%w: the key of table %q has %d columns, %d values are given", ErrInvalid, v.table.name, len(k.by.cols), len(key))
	}
	for i, a := range key {
		if a.Len() != 1 || a.IsNull(0) {
			return nil, fmt.Errorf("%w: key column %q of table %q: one value that is not null is needed, %d are given", ErrInvalid, k.by.names[i], v.table.name, a.Len()-a.NullN())
		}
	}
	if err := k.Add(key); err != nil {
		return nil, err
	}
	k.seal()
	return k, nil
}

// getFresh looks for a key in memtables. settled says that one has it, if only to say that it is deleted.
func (v *View) getFresh(run *keyRun, columns []int) (row arrow.RecordBatch, settled bool, err error) {
	for i, part := range v.table.byShard(run) {
		if part.Len() == 0 {
			continue
		}
		layers := v.set.chains[i].layers
		for j := len(layers) - 1; j >= 0; j-- {
			m, ok := layers[j].layer.(*memtable)
			if !ok {
				break
			}
			if rows, at, ok := m.newest(part, v.lsn); ok {
				row, err := v.pickRow(rows, at, columns)
				return row, true, err
			}
		}
	}
	return nil, false, nil
}

// newest returns the newest row of the one key of a run, at or below an LSN.
func (m *memtable) newest(run *keyRun, lsn LSN) (rows *memRows, row uint32, ok bool) {
	m.mu.RLock()
	rows = m.rows.Load().upTo(lsn)
	known := len(rows.ends) >= len(rows.batches)
	row, ok = m.newestRow(run, 0)
	m.mu.RUnlock()
	if known && (!ok || int64(row) < rows.rowCount()) {
		return rows, row, ok
	}
	// The index is behind the snapshot, or ahead of it.
	ok = false
	m.find(run, lsn, func(_ int, r uint32) { row, ok = r, true })
	return m.rows.Load().upTo(lsn), row, ok
}

// pickRow returns columns of one row of a memtable, nil when it is a tombstone.
func (v *View) pickRow(rows *memRows, row uint32, columns []int) (arrow.RecordBatch, error) {
	b := &rows.batches[rows.batchOf(row)]
	at := int64(row - b.first)
	if b.tombs != nil && b.tombs.Value(int(at)) {
		return nil, nil
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
		col, err := v.schema.pick(b.schema, b.rec, c)
		if err != nil {
			return nil, err
		}
		cols[i] = array.NewSlice(col, at, at+1)
		col.Release()
	}
	return array.NewRecordBatch(v.schema.project(columns), cols, 1), nil
}

// getStored reads the row of a key with a scan.
func (v *View) getStored(ctx context.Context, keys *KeySet, columns []int) (arrow.RecordBatch, error) {
	sc, err := v.Scan(ctx, ScanOptions{Columns: columns, Keys: keys})
	if err != nil {
		return nil, err
	}
	defer sc.Close()
	m, err := sc.Next(ctx)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer m.Release()
	at := int64(0)
	if m.Live != nil {
		at = int64(m.Live[0])
	}
	return m.Record.NewSlice(at, at+1), nil
}

// schemaProjection is the schema of some columns.
type schemaProjection struct {
	columns []int
	schema  *arrow.Schema
}

// project returns the schema of some columns. Who asks for single rows asks for the same again and again: the last one is
// kept.
func (s *tableSchema) project(columns []int) *arrow.Schema {
	if last := s.projected.Load(); last != nil && slices.Equal(last.columns, columns) {
		return last.schema
	}
	out := &schemaProjection{columns: slices.Clone(columns), schema: projectSchema(s.arrow, columns)}
	s.projected.Store(out)
	return out.schema
}
