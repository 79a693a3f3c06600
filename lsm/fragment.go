package lsm

import (
	"context"
	"fmt"
	"path"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// fragment is an open data file of the base or of a generation. Its references are counted, because the fragments
// of one base version are mostly those of the next.
type fragment struct {
	id     uint64
	reader *lance.Reader
	// byField maps a column of the table to the column of the file.
	byField []int
	rows    int64
	// live is the number of rows that are not hidden.
	live int64
	// hidden are the rows that are deleted or tombstones, nil when there are none.
	hidden *roaring.Bitmap
	refs   atomic.Int64
}

// openFragment opens one fragment of a dataset.
func openFragment(ctx context.Context, st object.Store, root string, v *manifest.Version, f *manifest.Fragment, s *lance.Schema) (*fragment, error) {
	if len(f.Files) != 1 {
		return nil, fmt.Errorf("fragment %d of %s has %d data files; only one is supported yet, compact it with pylance", f.ID, root, len(f.Files))
	}
	file := f.Files[0]
	r, err := lance.Open(ctx, st, path.Join(root, "data", file.Path), file.Bytes, lance.ReaderOptions{})
	if err != nil {
		return nil, fmt.Errorf("open fragment %d: %w", f.ID, err)
	}
	x := &fragment{id: f.ID, reader: r, rows: r.Rows()}
	x.refs.Store(1)
	if err := x.bind(root, f, s); err != nil {
		x.unref()
		return nil, err
	}
	if x.hidden, err = v.Deletions(ctx, st, root, f); err != nil {
		x.unref()
		return nil, err
	}
	x.count()
	return x, nil
}

// bind finds the table's columns in the file.
func (f *fragment) bind(root string, m *manifest.Fragment, s *lance.Schema) error {
	if f.rows != m.Rows {
		return &object.CorruptError{Name: path.Join(root, "data", m.Files[0].Path),
			Err: fmt.Errorf("the file has %d rows, the manifest says %d", f.rows, m.Rows)}
	}
	columns := make(map[int32]int)
	for i, x := range f.reader.Schema().Fields {
		columns[x.ID] = i
	}
	for _, want := range s.Fields {
		i, ok := columns[want.ID]
		if !ok {
			return fmt.Errorf("fragment %d of %s lacks column %q (field %d); such fragments are not supported yet", f.id, root, want.Name, want.ID)
		}
		if got := f.reader.Schema().Fields[i].Type; !sameLayout(got, want.Type) {
			return &object.CorruptError{Name: path.Join(root, "data", m.Files[0].Path),
				Err: fmt.Errorf("column %q has type %s, the table says %s", want.Name, got, want.Type)}
		}
		f.byField = append(f.byField, i)
	}
	return nil
}

// count derives live from hidden.
func (f *fragment) count() {
	f.live = f.rows
	if f.hidden != nil {
		f.live -= int64(f.hidden.GetCardinality())
	}
}

// columns translates columns of the table to columns of the file.
func (f *fragment) columns(table []int) []int {
	out := make([]int, len(table))
	for i, c := range table {
		out[i] = f.byField[c]
	}
	return out
}

// hides reports whether a row is deleted or a tombstone.
func (f *fragment) hides(row uint32) bool { return f.hidden != nil && f.hidden.Contains(row) }

func (f *fragment) retain() { f.refs.Add(1) }

func (f *fragment) unref() {
	if f.refs.Add(-1) == 0 {
		// The file is mapped or open for reading only: nothing can be lost by closing it.
		_ = f.reader.Close()
	}
}

// newFileName returns a name for a data file as Lance makes them: 24 binary digits, so that the names spread over
// the partitions of a bucket, and the rest of a random UUID.
func newFileName() (string, error) {
	u, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("make file name: %w", err)
	}
	return fmt.Sprintf("%08b%08b%08b%x.lance", u[0], u[1], u[2], u[3:]), nil
}

// writtenFragment describes a finished data file to a manifest.
func writtenFragment(file string, info lance.FileInfo, s *lance.Schema) manifest.Fragment {
	d := manifest.DataFile{Path: file, Major: 2, Minor: 0, Bytes: info.Bytes, Fields: s.FieldIDs()}
	for i := range d.Fields {
		d.Columns = append(d.Columns, int32(i))
	}
	return manifest.Fragment{Files: []manifest.DataFile{d}, Rows: info.Rows}
}
