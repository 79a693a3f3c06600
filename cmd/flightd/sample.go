package main

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/testdata"
)

// sample is the demo's data: the embedded readings, repeated without end. Row i of the repetition is row
// i % rows of the readings, under the key base + i + 1.
type sample struct {
	all arrow.RecordBatch
}

// newSample joins the embedded batches into one, so that any range of rows is a slice.
func newSample() (*sample, error) {
	batches, err := testdata.Readings()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, b := range batches {
			b.Release()
		}
	}()
	table := array.NewTableFromRecords(batches[0].Schema(), batches)
	defer table.Release()
	reader := array.NewTableReader(table, table.NumRows())
	defer reader.Release()
	columns := make([]arrow.Array, table.NumCols())
	for i := range columns {
		column, err := array.Concatenate(table.Column(i).Data().Chunks(), memory.DefaultAllocator)
		if err != nil {
			return nil, fmt.Errorf("join the sample: %w", err)
		}
		defer column.Release()
		columns[i] = column
	}
	return &sample{all: array.NewRecordBatch(table.Schema(), columns, table.NumRows())}, nil
}

func (s *sample) release()              { s.all.Release() }
func (s *sample) rows() int64           { return s.all.NumRows() }
func (s *sample) schema() *arrow.Schema { return s.all.Schema() }

// batch returns up to n rows from row off on, with keys above base. It ends early where the readings end, so
// that a batch is one slice. The caller releases it.
func (s *sample) batch(off, n, base int64) arrow.RecordBatch {
	at := off % s.rows()
	n = min(n, s.rows()-at)
	part := s.all.NewSlice(at, at+n)
	defer part.Release()
	ids := array.NewInt64Builder(memory.DefaultAllocator)
	defer ids.Release()
	for i := range n {
		ids.Append(base + off + i + 1)
	}
	keys := ids.NewArray()
	defer keys.Release()
	columns := append([]arrow.Array{keys}, part.Columns()[1:]...)
	return array.NewRecordBatch(s.schema(), columns, n)
}

// Rows of the sample that changes writes again and deletes: the first ones, then those after them.
const (
	changedRows = 400
	deletedRows = 100
)

// changes returns two batches with the column _tombstone. The first writes rows again with another note, the
// second deletes rows by nothing but their keys. The caller releases them.
func (s *sample) changes() []arrow.RecordBatch {
	fields := append(s.schema().Fields(), arrow.Field{Name: "_tombstone", Type: arrow.FixedWidthTypes.Boolean})
	schema := arrow.NewSchema(fields, nil)
	note, tombstone := len(fields)-2, len(fields)-1

	changed := s.columns(schema, 0, changedRows)
	corrected := array.NewStringBuilder(memory.DefaultAllocator)
	defer corrected.Release()
	for range changedRows {
		corrected.Append("corrected")
	}
	changed[note] = corrected.NewArray()
	changed[tombstone] = booleans(changedRows, false)

	deleted := s.columns(schema, changedRows, deletedRows)
	for i := 1; i <= note; i++ {
		deleted[i] = array.MakeArrayOfNull(memory.DefaultAllocator, fields[i].Type, deletedRows)
	}
	deleted[tombstone] = booleans(deletedRows, true)
	return []arrow.RecordBatch{
		array.NewRecordBatch(schema, changed, changedRows),
		array.NewRecordBatch(schema, deleted, deletedRows),
	}
}

// columns returns a column for each field of schema: those of the sample from row off on, nil for others. The
// memory is the Go heap's, so that columns which are replaced need no release.
func (s *sample) columns(schema *arrow.Schema, off, n int64) []arrow.Array {
	columns := make([]arrow.Array, schema.NumFields())
	for i, c := range s.all.Columns() {
		columns[i] = array.NewSlice(c, off, off+n)
	}
	return columns
}

// booleans returns a column of n times v.
func booleans(n int, v bool) arrow.Array {
	b := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer b.Release()
	for range n {
		b.Append(v)
	}
	return b.NewArray()
}

// compare reports the first difference between got and the rows of the repetition from row off on.
func (s *sample) compare(got arrow.RecordBatch, off, base int64) error {
	for done := int64(0); done < got.NumRows(); {
		want := s.batch(off+done, got.NumRows()-done, base)
		part := got.NewSlice(done, done+want.NumRows())
		same := true
		for i := range int(want.NumCols()) {
			same = same && array.Equal(part.Column(i), want.Column(i))
		}
		var err error
		if !same {
			err = fmt.Errorf("rows %d to %d differ from what was sent; there:\n%v\nsent:\n%v",
				off+done, off+done+want.NumRows(), part, want)
		}
		done += want.NumRows()
		part.Release()
		want.Release()
		if err != nil {
			return err
		}
	}
	return nil
}
