package lance

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
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
		for k, pageBytes := range []int64{0, 100, 0, 5000, 0, 5000} {
			version, compress := Version22, k%4 > 1
			if k > 3 {
				version, compress = Version21, k == 5
			}
			t.Run(fmt.Sprintf("%s/nulls=%v/page=%d/compress=%v", version, nulls, pageBytes, compress), func(t *testing.T) {
				st, g := object.NewMem(), newGenerator(uint64(pageBytes)+1, nulls)
				var batches []arrow.RecordBatch
				for _, n := range []int{1, 0, 37, 8, 64, 3, 100} {
					batches = append(batches, g.batch(schema, n))
				}
				writeFile(t, st, "f", schema, WriterOptions{PageBytes: pageBytes, Version: version, Compress: compress}, batches...)
				r := openFile(t, st, "f")
				require.Equal(t, version, r.Version())
				requireFile(t, r, schema, joined(t, schema, batches), g)
			})
		}
	}
}

// laterStyles are the ways to write later files.
var laterStyles = map[string]WriterOptions{
	"2.1": {Version: Version21}, "2.1 packed": {Version: Version21, Compress: true},
	"2.2": {Version: Version22}, "2.2 packed": {Version: Version22, Compress: true},
}

// TestManyEmptyListsInARow: levels without values belong to the chunk of the next value, whose number and size of levels
// have 16 bits. What does not fit is zipped.
func TestManyEmptyListsInARow(t *testing.T) {
	for _, empty := range []int{9_000, 70_000} {
		if empty < math.MaxUint16 && testing.Short() {
			continue // nothing in it is concurrent
		}
		for _, dt := range []arrow.DataType{arrow.PrimitiveTypes.Int32, arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String,
			arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int8), arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Float64, Nullable: true})} {
			rec := emptyLists(t, dt, empty)
			for name, o := range laterStyles {
				t.Run(fmt.Sprintf("%d/%s/%s", empty, dt, name), func(t *testing.T) {
					st := object.NewMem()
					writeFile(t, st, "f", rec.Schema(), o, rec)
					r := openFile(t, st, "f")
					requireScan(t, r, joined(t, rec.Schema(), []arrow.RecordBatch{rec}), []int{0}, 0, 4, 0)
					requireTake(t, r, joined(t, rec.Schema(), []arrow.RecordBatch{rec}), []int{0}, []int64{3, 1, 0})
				})
			}
		}
	}
}

// TestRowsThatNoPageHoldsAreFound: of what cannot be zipped, CheckRows finds the rows that a Writer refuses, and no others.
func TestRowsThatNoPageHoldsAreFound(t *testing.T) {
	for _, dt := range []arrow.DataType{arrow.BinaryTypes.String, arrow.FixedSizeListOf(2, arrow.FixedWidthTypes.Boolean)} {
		for _, empty := range []int{100, 31_900, 40_000, 65_520, 70_000} {
			rec := emptyLists(t, dt, empty)
			s, err := SchemaFromArrow(rec.Schema(), 0)
			require.NoError(t, err)
			require.NoError(t, s.Fields[0].CheckRows(Version20, rec.Column(0)))
			for _, v := range []Version{Version21, Version22} {
				ctx := context.Background()
				w, err := Create(ctx, object.NewMem(), "f", s, WriterOptions{Version: v})
				require.NoError(t, err)
				if err = w.Write(ctx, rec); err == nil {
					_, err = w.Finish(ctx)
				}
				w.Abort()
				found := s.Fields[0].CheckRows(v, rec.Column(0))
				require.Equal(t, err == nil, found == nil, "%s %d %s: %v, %v", dt, empty, v, err, found)
				if found != nil {
					require.ErrorIs(t, found, ErrUnsupported)
					require.ErrorContains(t, found, "row 1: ")
					require.Greater(t, empty, chunkLevels)
				} else {
					require.True(t, empty < 70_000 || dt.ID() == arrow.STRING)
				}
			}
		}
	}
}

// emptyLists returns rows of lists of lists, one of which has many empty ones between two values.
func emptyLists(t *testing.T, dt arrow.DataType, empty int) arrow.RecordBatch {
	t.Helper()
	item := map[arrow.Type]string{arrow.BOOL: "true", arrow.STRING: `"text"`, arrow.FIXED_SIZE_LIST: "[1, 2]", arrow.STRUCT: `{"x": 1}`}[dt.ID()]
	if list, ok := dt.(*arrow.FixedSizeListType); ok && list.Elem().ID() == arrow.BOOL {
		item = "[true, false]"
	}
	if item == "" {
		item = "7"
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "l", Type: arrow.ListOf(arrow.ListOf(dt)), Nullable: true}}, nil)
	row := `{"l": [[V], ` + strings.Repeat("[], ", empty) + `[V, null], null, [V, V], null]}`
	text := strings.ReplaceAll(`[{"l": [[V]]}, `+row+`, {"l": null}, {"l": [[V], []]}]`, "V", item)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(text))
	require.NoError(t, err)
	return rec
}

// TestLargeValuesAmongSmall: chunks of version 2.1 have 32 KiB at most, in which one large value or one with its neighbour
// has no room.
func TestLargeValuesAmongSmall(t *testing.T) {
	var texts []string
	for i := range 3000 {
		texts = append(texts, fmt.Sprintf(`"text %d"`, i*i))
	}
	for _, size := range []int{2_000, 16_380, 20_000, 70_000} {
		long := slices.Clone(texts)
		for i := 500; i < 3000; i += 900 {
			long[i] = `"` + strings.Repeat("long ", size/5) + `"`
		}
		long[17] = "null"
		for _, dt := range []arrow.DataType{arrow.BinaryTypes.String, arrow.ListOf(arrow.BinaryTypes.LargeString)} {
			rows := strings.Join(long, "}, {\"l\": ")
			if dt.ID() == arrow.LIST {
				rows = "[" + strings.Join(long, "]}, {\"l\": [") + ", null, \"x\"]"
			}
			schema := arrow.NewSchema([]arrow.Field{{Name: "l", Type: dt, Nullable: true}}, nil)
			rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(`[{"l": `+rows+`}]`))
			require.NoError(t, err)
			for name, o := range laterStyles {
				t.Run(fmt.Sprintf("%d/%s/%s", size, dt, name), func(t *testing.T) {
					st := object.NewMem()
					writeFile(t, st, "f", schema, o, rec)
					requireColumns(t, openFile(t, st, "f"), schema, joined(t, schema, []arrow.RecordBatch{rec}), newGenerator(3, 0))
				})
			}
		}
	}
}

// requirePylanceReads writes again what pylance wrote, and has pylance compare.
func requirePylanceReads(t *testing.T, theirs string) {
	ours := t.TempDir()
	files, err := filepath.Glob(filepath.Join(theirs, "*.arrow"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	st := object.NewLocal(ours)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".arrow")
		schema, batches := arrowFile(t, file)
		version := Version22
		if strings.Contains(name, "-2.1") {
			version = Version21
		}
		for size, o := range map[string]WriterOptions{
			"whole": {}, "cut": {PageBytes: 5000}, "packed": {Compress: true}, "cutpacked": {PageBytes: 5000, Compress: true},
		} {
			o.Version = version
			writeFile(t, st, name+size+".lance", schema, o, batches...)
			require.NoError(t, os.Link(file, filepath.Join(ours, name+size+".arrow")))
			t.Run(name+size, func(t *testing.T) {
				requireColumns(t, openFile(t, st, name+size+".lance"), schema, joined(t, schema, batches), newGenerator(1, 0))
			})
		}
	}
	python.RunFile(t, filepath.Join(fixtures, "check.py"), ours)
}

// TestTooManyEmptyListsAreRefusedWhole: a batch that could not be written is refused before any of it is taken, by a Writer
// and by who asks first.
func TestTooManyEmptyListsAreRefusedWhole(t *testing.T) {
	for _, dt := range []arrow.DataType{arrow.BinaryTypes.String, arrow.FixedSizeListOf(2, arrow.FixedWidthTypes.Boolean)} {
		item := arrow.Field{Name: "item", Type: dt, Nullable: true}
		if dt.ID() == arrow.STRING {
			item.Metadata = arrow.NewMetadata([]string{MetaDictionary}, []string{"int32"})
		}
		list := arrow.ListOf(arrow.ListOfField(item))
		schema := arrow.NewSchema([]arrow.Field{{Name: "l", Type: list, Nullable: true}}, nil)
		value := map[arrow.Type]string{arrow.STRING: `"x"`, arrow.FIXED_SIZE_LIST: `[true, null]`}[dt.ID()]
		rows := func(empty int) arrow.RecordBatch {
			text := strings.ReplaceAll(`[{"l": [[V]]}, {"l": [[V], `+strings.Repeat("[], ", empty)+`[V]]}]`, "V", value)
			rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(text))
			require.NoError(t, err)
			return rec
		}
		s, err := SchemaFromArrow(schema, 0)
		require.NoError(t, err)
		for _, v := range []Version{Version21, Version22} {
			few, many := rows(30_000), rows(70_000)
			require.NoError(t, s.Fields[0].CheckRows(v, few.Column(0)))
			require.ErrorContains(t, s.Fields[0].CheckRows(v, many.Column(0)), "row 1: one row has")
			st := object.NewMem()
			w, err := Create(t.Context(), st, "f", s, WriterOptions{Version: v})
			require.NoError(t, err)
			require.NoError(t, w.Write(t.Context(), few))
			require.ErrorContains(t, w.Write(t.Context(), many), `column "l": row 1: one row has`)
			require.NoError(t, w.Write(t.Context(), few))
			info, err := w.Finish(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 4, info.Rows)
			requireScan(t, openFile(t, st, "f"), joined(t, schema, []arrow.RecordBatch{few, few}), []int{0}, 0, 4, 0)
		}
	}
}
