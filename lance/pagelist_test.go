package lance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// spillVersions are those that are written.
var spillVersions = []Version{Version20, Version21, Version22}

// TestSpilledMetadataMakesTheSameFile writes columns of all types, and many of them, in many pages: what is known of the
// pages goes through memory or through a side file, and the files are equal to the byte and say what they should.
func TestSpilledMetadataMakesTheSameFile(t *testing.T) {
	many := make([]arrow.Field, 500)
	for i := range many {
		many[i] = arrow.Field{Name: fmt.Sprint("c", i), Type: []arrow.DataType{arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String}[i%2], Nullable: true}
	}
	shapes := map[string]struct {
		schema       *arrow.Schema
		batches, row int
		pageBytes    int64
	}{
		"all types":    {allTypes(), 12, 40, 200},
		"many columns": {arrow.NewSchema(many, nil), 10, 20, 60},
		"many pages":   {arrow.NewSchema(many[:2], nil), 40, 100, 16},
		"nothing":      {arrow.NewSchema(nil, nil), 0, 0, 0},
		"no rows":      {arrow.NewSchema(many[:3], nil), 0, 0, 0},
	}
	for name, shape := range shapes {
		for _, version := range spillVersions {
			t.Run(fmt.Sprint(name, " ", version), func(t *testing.T) {
				g := newGenerator(5, 0.1)
				var batches []arrow.RecordBatch
				for range shape.batches {
					batches = append(batches, g.batch(shape.schema, shape.row))
				}
				st, scratch := object.NewMem(), t.TempDir()
				folder := spill.NewFolder(object.NewLocal(scratch), nil)
				o := WriterOptions{PageBytes: shape.pageBytes, Version: version}
				writeFile(t, st, "memory", shape.schema, o, batches...)
				want, err := st.Get(t.Context(), "memory")
				require.NoError(t, err)
				for _, size := range []int64{1, 0, 1 << 30} {
					o.SpillPages, o.SpillBytes = folder, size
					name := fmt.Sprint("spilled ", size)
					writeFile(t, st, name, shape.schema, o, batches...)
					got, err := st.Get(t.Context(), name)
					require.NoError(t, err)
					require.True(t, bytes.Equal(want, got), "with %d bytes", size)
				}
				requireNoFiles(t, scratch)
				r := openFile(t, st, "spilled 1")
				require.NoError(t, r.Verify(t.Context()))
				if !bytes.Equal(readChecksumBuffer(t, r), r.sums.encode()) {
					t.Fatal("the checksums are not laid out as the twin has them")
				}
			})
		}
	}
}

// readChecksumBuffer returns the last global buffer.
func readChecksumBuffer(t *testing.T, r *Reader) []byte {
	b, err := r.read(r.globals[len(r.globals)-1])
	require.NoError(t, err)
	defer b.Release()
	return bytes.Clone(b.Bytes())
}

// requireNoFiles checks that no file is left in a folder or in those below it.
func requireNoFiles(t *testing.T, dir string) {
	t.Helper()
	require.Empty(t, filesBelow(t, dir))
}

func filesBelow(t *testing.T, dir string) (files []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	}))
	return files
}

// spilling returns a writer of many pages whose side file lies in a folder.
func spilling(t *testing.T, st object.Store, folder *spill.Folder) *Writer {
	schema, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil), 0)
	require.NoError(t, err)
	w, err := Create(t.Context(), st, "f", schema, WriterOptions{PageBytes: 8, SpillPages: folder, SpillBytes: 1})
	require.NoError(t, err)
	return w
}

func ids(n int) arrow.RecordBatch {
	values := newGenerator(1, 0).whole(arrow.PrimitiveTypes.Int64, n)
	return array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, nil), []arrow.Array{values}, int64(n))
}

// TestNoRoomToSpill: the batch is refused with the reason, and nothing is left of the file, nor of what was spilled.
func TestNoRoomToSpill(t *testing.T) {
	st, scratch := object.NewMem(), t.TempDir()
	w := spilling(t, st, spill.NewFolder(object.NewLocal(scratch), spill.NewQuota(5000)))
	err := w.Write(t.Context(), ids(100))
	require.ErrorIs(t, err, spill.ErrQuota)
	require.ErrorContains(t, err, `write f: column "id": spill the metadata of pages`)
	_, err = w.Finish(t.Context())
	require.ErrorIs(t, err, spill.ErrQuota)
	requireNoFiles(t, scratch)
	_, err = st.Stat(t.Context(), "f")
	require.ErrorIs(t, err, object.ErrNotExist)

	blocked := filepath.Join(scratch, "file")
	require.NoError(t, os.WriteFile(blocked, nil, 0o600))
	w = spilling(t, st, spill.NewFolder(object.NewLocal(blocked), nil))
	require.ErrorIs(t, w.Write(t.Context(), ids(100)), syscall.ENOTDIR)
	w.Abort()
}

// TestDamagedSideFile: metadata that comes back wrong ends the file and does not get into it.
func TestDamagedSideFile(t *testing.T) {
	for _, cut := range []bool{false, true} {
		st, scratch := object.NewMem(), t.TempDir()
		w := spilling(t, st, spill.NewFolder(object.NewLocal(scratch), nil))
		require.NoError(t, w.Write(t.Context(), ids(100)))
		files := filesBelow(t, scratch)
		require.Len(t, files, 1)
		b, err := os.ReadFile(files[0])
		require.NoError(t, err)
		b[len(b)/2] ^= 4
		if cut {
			b = b[:len(b)/2]
		}
		require.NoError(t, os.WriteFile(files[0], b, 0o600))
		_, err = w.Finish(t.Context())
		corrupt := &object.CorruptError{}
		require.ErrorAs(t, err, &corrupt)
		require.Contains(t, corrupt.Name, "side-1")
		_, err = st.Stat(t.Context(), "f")
		require.ErrorIs(t, err, object.ErrNotExist)
		requireNoFiles(t, scratch)
	}
}

// TestSpilledMetadataIsNotInMemory: what a writer holds after many pages grows with them in memory, and with a side file
// by 16 bytes for each chunk.
func TestSpilledMetadataIsNotInMemory(t *testing.T) {
	const rows = 50_000 // as many pages
	batch := ids(rows)
	held := func(folder *spill.Folder) int64 {
		schema, err := SchemaFromArrow(batch.Schema(), 0)
		require.NoError(t, err)
		w, err := Create(t.Context(), object.NewLocal(t.TempDir()), "f", schema, WriterOptions{PageBytes: 8, SpillPages: folder})
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		require.NoError(t, w.Write(t.Context(), batch))
		runtime.GC()
		runtime.ReadMemStats(&after)
		w.Abort()
		return int64(after.HeapAlloc) - int64(before.HeapAlloc)
	}
	memory := held(nil)
	spilled := held(spill.NewFolder(object.NewLocal(t.TempDir()), nil))
	require.Greater(t, memory, int64(50*rows))
	require.Less(t, spilled, memory/4)
}

// TestEndPages: what waits is written at once, as a page, and nothing is written twice or lost.
func TestEndPages(t *testing.T) {
	for _, version := range spillVersions {
		st := object.NewMem()
		schema, err := SchemaFromArrow(ids(1).Schema(), 0)
		require.NoError(t, err)
		w, err := Create(t.Context(), st, "f", schema, WriterOptions{Version: version})
		require.NoError(t, err)
		require.NoError(t, w.EndPages(t.Context()))
		for range 3 {
			require.NoError(t, w.Write(t.Context(), ids(5)))
			require.NoError(t, w.Write(t.Context(), ids(2)))
			require.NoError(t, w.EndPages(t.Context()))
			require.NoError(t, w.EndPages(t.Context()))
			require.Nil(t, w.columns[0].pending)
		}
		_, err = w.Finish(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, w.EndPages(t.Context()), errEnded)
		r := openFile(t, st, "f")
		require.EqualValues(t, 21, r.Rows())
		require.NoError(t, r.Verify(t.Context()))
		pages, err := r.column(0)
		require.NoError(t, err)
		require.Len(t, pages, 3)
	}
}
