package query

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// ownRows is the id of the table that a running statement brings itself: a batch of rows that it changes. Tables of the
// catalog have ids from 1.
const ownRows = 0

// ownSource is that table.
type ownSource struct{ rec arrow.RecordBatch }

// rows implements source.
func (s ownSource) rows() int64 { return s.rec.NumRows() }

// scan implements source.
func (s ownSource) scan(_ context.Context, columns []int, _ *scanFilter) (morselReader, error) {
	fields, cols := make([]arrow.Field, len(columns)), make([]arrow.Array, len(columns))
	for i, c := range columns {
		fields[i], cols[i] = s.rec.Schema().Field(c), s.rec.Column(c)
	}
	return &ownMorsel{rec: array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, s.rec.NumRows())}, nil
}

// explain implements source.
func (s ownSource) explain(context.Context, *scanFilter) (string, error) { return "", nil }

// ownMorsel hands out one batch.
type ownMorsel struct {
	rec  arrow.RecordBatch
	done atomic.Bool
}

// next implements morselReader.
func (m *ownMorsel) next(context.Context) (morsel, error) {
	if m.done.Swap(true) {
		return morsel{}, io.EOF
	}
	m.rec.Retain()
	return morsel{record: m.rec, release: m.rec.Release}, nil
}

// close implements morselReader.
func (m *ownMorsel) close() { m.rec.Release() }
