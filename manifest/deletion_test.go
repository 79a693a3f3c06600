package manifest

import (
	"bytes"
	"context"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/bitmaps"
	"github.com/flightd/flightd/object"
)

// deletionArray is the form of other writers for few rows.
func deletionArray(t testing.TB, column string, rows ...uint32) []byte {
	t.Helper()
	s := arrow.NewSchema([]arrow.Field{{Name: column, Type: arrow.PrimitiveTypes.Uint32}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	b.Field(0).(*array.Uint32Builder).AppendValues(rows, nil)
	rec := b.NewRecordBatch()
	defer rec.Release()
	var buf bytes.Buffer
	w, err := ipc.NewFileWriter(&buf, ipc.WithSchema(s), ipc.WithZstd())
	require.NoError(t, err)
	require.NoError(t, w.Write(rec))
	require.NoError(t, w.Close())
	return buf.Bytes()
}

func TestDeletionsOfBothKindsAreRead(t *testing.T) {
	rows := make([]uint32, 3000)
	for i := range rows {
		rows[i] = uint32(len(rows)-i) * 7
	}
	want := roaring.BitmapOf(rows...)
	got, err := parseOffsets(deletionArray(t, "row_id", rows...), int64(len(rows)))
	require.NoError(t, err)
	require.True(t, want.Equals(got))
	b, err := want.ToBytes()
	require.NoError(t, err)
	got, err = bitmaps.Parse(b)
	require.NoError(t, err)
	require.True(t, want.Equals(got))
	_, err = parseOffsets(deletionArray(t, "rowid", 1), 1)
	require.ErrorContains(t, err, "it has other columns")
}

func TestDeletionFilesAreHeldAgainstTheManifest(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	v := appendRows(t, st, root, createTable(t, st, root), "a.lance", 10)
	v, err := Commit(ctx, st, root, v, Change{Delete: map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(3, 5)}}, Options{})
	require.NoError(t, err)
	for name, rows := range map[string]*roaring.Bitmap{
		"too few": roaring.BitmapOf(3), "outside": roaring.BitmapOf(3, 10), "others": roaring.BitmapOf(3, 6),
	} {
		f := v.Fragments[0]
		if name != "others" { // as other writers leave it: nothing but the manifest's count to hold it against
			d := *f.Deletion
			d.Checksum, f.Deletion = 0, &d
		}
		b, err := rows.ToBytes()
		require.NoError(t, err)
		require.NoError(t, st.Put(ctx, root+"/"+f.Deletion.Path(f.ID), b))
		_, err = v.Deletions(ctx, st, root, &f)
		var corrupt *object.CorruptError
		require.ErrorAs(t, err, &corrupt, name)
		require.Equal(t, root+"/"+f.Deletion.Path(f.ID), corrupt.Name)
	}
}

func FuzzDeletions(f *testing.F) {
	b, err := roaring.BitmapOf(1, 2, 3, 70000, 1<<31).ToBytes()
	require.NoError(f, err)
	f.Add(b)
	runs := roaring.New()
	runs.AddRange(10, 100000)
	runs.RunOptimize()
	b, err = runs.ToBytes()
	require.NoError(f, err)
	f.Add(b)
	f.Add(deletionArray(f, "row_id", 1, 2, 3))
	f.Fuzz(func(_ *testing.T, b []byte) {
		// Only that both return: an error or a bitmap, never a panic and never more memory than the file justifies.
		if m, err := bitmaps.Parse(b); err == nil {
			m.GetCardinality()
		}
		if m, err := parseOffsets(b, 0); err == nil {
			m.GetCardinality()
		}
	})
}
