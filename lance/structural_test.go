package lance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

// TestLaterFilesOfPylance reads the files of later versions that pylance writes, and has it read ours. It needs a Python with
// pylance: FLIGHTD_PYTHON names it.
func TestLaterFilesOfPylance(t *testing.T) {
	python.Need(t)
	dir := t.TempDir()
	python.RunFile(t, filepath.Join(fixtures, "matrix.py"), dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.lance"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".lance")
		t.Run(name, func(t *testing.T) {
			schema, batches := arrowFile(t, filepath.Join(dir, name+".arrow"))
			r := openFile(t, object.NewLocal(dir), name+".lance")
			requireColumns(t, r, schema, joined(t, schema, batches), newGenerator(1, 0))
		})
	}
	t.Run("written again", func(t *testing.T) { requirePylanceReads(t, dir) })
}

// arrowFile reads an Arrow IPC file.
func arrowFile(t *testing.T, name string) (*arrow.Schema, []arrow.RecordBatch) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	r, err := ipc.NewFileReader(bytes.NewReader(b))
	require.NoError(t, err)
	var batches []arrow.RecordBatch
	for i := range r.NumRecords() {
		rec, err := r.RecordBatch(i)
		require.NoError(t, err)
		batches = append(batches, rec)
	}
	return r.Schema(), batches
}

// requireColumns reads each column of a file whole, in parts and by rows.
func requireColumns(t *testing.T, r *Reader, schema *arrow.Schema, want []arrow.Array, g *generator) {
	t.Helper()
	require.EqualValues(t, want[0].Len(), r.Rows())
	require.NoError(t, r.Verify(t.Context()))
	for c := range schema.NumFields() {
		t.Run(schema.Field(c).Name, func(t *testing.T) {
			require.True(t, arrow.TypeEqual(schema.Field(c).Type, r.Schema().Arrow().Field(c).Type), "%s", r.Schema().Arrow().Field(c).Type)
			requireScan(t, r, want, []int{c}, 0, r.Rows()+10, 0)
			for range 5 {
				off := g.Int64N(r.Rows())
				requireScan(t, r, want, []int{c}, off, g.Int64N(min(1000, r.Rows()-off)+1), 0)
			}
			requireScan(t, r, want, []int{c}, 0, r.Rows(), 97+g.Int64N(1000))
			for _, n := range []int{0, 1, 50} {
				rows := make([]int64, n)
				for i := range rows {
					rows[i] = g.Int64N(r.Rows())
				}
				requireTake(t, r, want, []int{c}, rows)
			}
		})
	}
}

func TestEveryTypeGoesThereAndBackInLaterFiles(t *testing.T) {
	schema := allTypes()
	for _, nulls := range []float64{0, 0.3, 1} {
		for k, pageBytes := range []int64{0, 100, 0, 5000} {
			compress := k > 1
			t.Run(fmt.Sprintf("nulls=%v/page=%d/compress=%v", nulls, pageBytes, compress), func(t *testing.T) {
				st, g := object.NewMem(), newGenerator(uint64(pageBytes)+1, nulls)
				var batches []arrow.RecordBatch
				for _, n := range []int{1, 0, 37, 8, 64, 3, 100} {
					batches = append(batches, g.batch(schema, n))
				}
				writeFile(t, st, "f", schema, WriterOptions{PageBytes: pageBytes, Version: Version22, Compress: compress}, batches...)
				requireFile(t, openFile(t, st, "f"), schema, joined(t, schema, batches), g)
			})
		}
	}
}

// TestManyEmptyListsInARow: levels without values belong to the chunk of the next value, whose size of levels has 16 bits.
func TestManyEmptyListsInARow(t *testing.T) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "l", Type: arrow.ListOf(arrow.ListOf(arrow.PrimitiveTypes.Int32)), Nullable: true}}, nil)
	row := `{"l": [[1], ` + strings.Repeat("[], ", 40_000) + `[2], [3, 4], null]}`
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(`[{"l": [[5]]}, `+row+`, {"l": null}, {"l": [[6], []]}]`))
	require.NoError(t, err)
	defer rec.Release()
	for _, compress := range []bool{false, true} {
		st := object.NewMem()
		writeFile(t, st, "f", schema, WriterOptions{Version: Version22, Compress: compress}, rec)
		r := openFile(t, st, "f")
		requireScan(t, r, joined(t, schema, []arrow.RecordBatch{rec}), []int{0}, 0, 4, 0)
	}
}

// requirePylanceReads writes again what pylance wrote, and has pylance compare.
func requirePylanceReads(t *testing.T, theirs string) {
	ours := t.TempDir()
	files, err := filepath.Glob(filepath.Join(theirs, "*-2.2*.arrow"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	st := object.NewLocal(ours)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".arrow")
		schema, batches := arrowFile(t, file)
		for size, o := range map[string]WriterOptions{
			"whole": {Version: Version22}, "cut": {Version: Version22, PageBytes: 5000},
			"packed": {Version: Version22, Compress: true}, "cutpacked": {Version: Version22, PageBytes: 5000, Compress: true},
		} {
			writeFile(t, st, name+size+".lance", schema, o, batches...)
			require.NoError(t, os.Link(file, filepath.Join(ours, name+size+".arrow")))
			t.Run(name+size, func(t *testing.T) {
				requireColumns(t, openFile(t, st, name+size+".lance"), schema, joined(t, schema, batches), newGenerator(1, 0))
			})
		}
	}
	python.RunFile(t, filepath.Join(fixtures, "check.py"), ours)
}
