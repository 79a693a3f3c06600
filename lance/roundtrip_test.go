package lance

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// stores are a store whose files are mapped and one whose files are copied.
func stores(t testing.TB) map[string]object.Store {
	return map[string]object.Store{"local": object.NewLocal(filepath.Join(t.TempDir(), "store")), "mem": object.NewMem()}
}

// requireScan compares a scan of rows [off, off+n) with what was written.
func requireScan(t *testing.T, r *Reader, want []arrow.Array, columns []int, off, n, maxRows int64) {
	t.Helper()
	s := r.Scan(columns, off, n, maxRows)
	pos, end := min(off, r.Rows()), min(off+n, r.Rows())
	for {
		rec, err := s.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		require.Positive(t, rec.NumRows())
		if maxRows > 0 {
			require.LessOrEqual(t, rec.NumRows(), maxRows)
		}
		require.EqualValues(t, len(columns), rec.NumCols())
		for i, c := range columns {
			a := rec.Column(i)
			requireSameRows(t, want[c], a, pos)
			requireExactNulls(t, a)
		}
		pos += rec.NumRows()
		rec.Release()
	}
	require.Equal(t, end, pos)
	_, err := s.Next(t.Context())
	require.ErrorIs(t, err, io.EOF)
}

// requireExactNulls: a count that is computed on demand would be a race between readers of the batch.
func requireExactNulls(t *testing.T, a arrow.Array) {
	t.Helper()
	require.GreaterOrEqual(t, a.Data().NullN(), 0)
	if a.DataType().ID() == arrow.NULL {
		return
	}
	nulls := 0
	for i := range a.Len() {
		if a.IsNull(i) {
			nulls++
		}
	}
	require.Equal(t, nulls, a.NullN())
	for _, c := range a.Data().Children() {
		require.GreaterOrEqual(t, c.NullN(), 0)
	}
}

func requireTake(t *testing.T, r *Reader, want []arrow.Array, columns []int, rows []int64) {
	t.Helper()
	rec, err := r.Take(t.Context(), columns, rows)
	require.NoError(t, err)
	defer rec.Release()
	require.EqualValues(t, len(rows), rec.NumRows())
	for i, c := range columns {
		requireExactNulls(t, rec.Column(i))
		for k, row := range rows {
			if !sameRows(t, want[c], row, rec.Column(i), int64(k), 1) {
				require.FailNow(t, "rows differ", "column %s, row %d", rec.ColumnName(i), row)
			}
		}
	}
}

func TestEveryTypeGoesThereAndBack(t *testing.T) {
	schema := allTypes()
	for storeName, st := range stores(t) {
		for _, nulls := range []float64{0, 0.3, 1} {
			for _, pageBytes := range []int64{0, 100, 1} {
				if pageBytes == 1 && testing.Short() {
					continue // nothing in it is concurrent
				}
				name := fmt.Sprintf("%s/nulls=%v/page=%d", storeName, nulls, pageBytes)
				t.Run(name, func(t *testing.T) {
					g := newGenerator(uint64(pageBytes)+1, nulls)
					var batches []arrow.RecordBatch
					for _, n := range []int{1, 0, 37, 8, 64, 3, 100} {
						if pageBytes == 1 {
							n /= 3 // A page for each row takes its time.
						}
						batches = append(batches, g.batch(schema, n))
					}
					writeFile(t, st, name, schema, WriterOptions{PageBytes: pageBytes}, batches...)
					requireFile(t, openFile(t, st, name), schema, joined(t, schema, batches), g)
				})
			}
		}
	}
}

// requireFile compares all ways of reading with what was written.
func requireFile(t *testing.T, r *Reader, schema *arrow.Schema, want []arrow.Array, g *generator) {
	t.Helper()
	require.True(t, schema.Equal(r.Schema().Arrow()))
	require.EqualValues(t, want[0].Len(), r.Rows())
	require.NoError(t, r.Verify(t.Context()))
	var all []int
	for c := range schema.NumFields() {
		all = append(all, c)
	}
	requireScan(t, r, want, all, 0, r.Rows(), 0)
	requireScan(t, r, want, all, 0, r.Rows(), 5)
	for c := range all {
		// Each column alone, so that its own pages decide the batches.
		off := g.Int64N(r.Rows())
		requireScan(t, r, want, []int{c}, 0, r.Rows()+10, 0)
		requireScan(t, r, want, []int{c}, off, g.Int64N(r.Rows()-off+1), 0)
		requireScan(t, r, want, []int{c}, off, r.Rows(), 1+g.Int64N(20))
	}
	for _, n := range []int{0, 1, 50} {
		rows := make([]int64, n)
		for i := range rows {
			rows[i] = g.Int64N(r.Rows())
		}
		requireTake(t, r, want, all, rows)
	}
	last := schema.NumFields() - 1
	requireTake(t, r, want, []int{last, 0, last}, []int64{0, 0, r.Rows() - 1, 0})
}

func TestScanWithoutColumnsCounts(t *testing.T) {
	st := object.NewMem()
	schema := allTypes()
	writeFile(t, st, "f", schema, WriterOptions{}, newGenerator(1, 0).batch(schema, 100))
	r := openFile(t, st, "f")
	s := r.Scan(nil, 10, 1000, 64)
	for _, want := range []int64{64, 26} {
		rec, err := s.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, rec.NumRows())
		require.Zero(t, rec.NumCols())
		rec.Release()
	}
	_, err := s.Next(t.Context())
	require.ErrorIs(t, err, io.EOF)
	rec, err := r.Take(t.Context(), nil, []int64{1, 2})
	require.NoError(t, err)
	require.EqualValues(t, 2, rec.NumRows())
}

func TestFilesWithoutRowsAndWithoutColumns(t *testing.T) {
	st := object.NewMem()
	schema := allTypes()
	info := writeFile(t, st, "rows", schema, WriterOptions{}, newGenerator(1, 0).batch(schema, 0))
	require.Zero(t, info.Rows)
	r := openFile(t, st, "rows")
	require.True(t, schema.Equal(r.Schema().Arrow()))
	requireScan(t, r, joined(t, schema, nil), []int{0, 1, 2}, 0, 10, 0)
	requireTake(t, r, joined(t, schema, nil), []int{0, 1, 13, 20}, nil)
	require.NoError(t, r.Verify(t.Context()))

	none := arrow.NewSchema(nil, nil)
	writeFile(t, st, "columns", none, WriterOptions{}, array.NewRecordBatch(none, nil, 7))
	require.EqualValues(t, 7, openFile(t, st, "columns").Rows())
}

func TestBatchesEndTogetherWhereRowsDiffer(t *testing.T) {
	st := object.NewMem()
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "vec", Type: arrow.FixedSizeListOf(23, arrow.PrimitiveTypes.Float32)},
		{Name: "s", Type: arrow.BinaryTypes.String},
	}, nil)
	g := newGenerator(5, 0)
	var batches []arrow.RecordBatch
	for range 100 {
		batches = append(batches, g.batch(schema, 100))
	}
	writeFile(t, st, "f", schema, WriterOptions{PageBytes: 8000}, batches...)
	r := openFile(t, st, "f")
	s := r.Scan([]int{0, 1, 2}, 0, r.Rows(), 0)
	slivers := 0
	for {
		rec, err := s.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if rec.NumRows() < 64 {
			slivers++
		}
		rec.Release()
	}
	require.LessOrEqual(t, slivers, 1)
}

// requireSameRows compares an array with rows of what was written.
func requireSameRows(t *testing.T, want, got arrow.Array, from int64) {
	t.Helper()
	if !sameRows(t, want, from, got, 0, int64(got.Len())) {
		require.FailNow(t, "rows differ", "of %d rows from row %d: %.500s", got.Len(), from, got)
	}
}

// sameRows compares n rows. What null structs have in their fields does not count.
func sameRows(t *testing.T, want arrow.Array, from int64, got arrow.Array, at, n int64) bool {
	t.Helper()
	if array.SliceEqual(want, from, from+n, got, at, at+n) {
		return true
	}
	if !arrow.IsNested(want.DataType().ID()) || !arrow.TypeEqual(want.DataType(), got.DataType()) {
		return false
	}
	a, b := array.NewSlice(want, from, from+n), array.NewSlice(got, at, at+n)
	defer a.Release()
	defer b.Release()
	x, err := a.MarshalJSON()
	require.NoError(t, err)
	y, err := b.MarshalJSON()
	require.NoError(t, err)
	return bytes.Equal(x, y)
}
