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
	id uint64
	// files each have some of the columns.
	files []*lance.Reader
	// at says, by field id, where a column lies.
	at map[int32]place
	// known are the field ids of the dataset's schema: a column that is not among them is younger than the fragment.
	known map[int32]bool
	// tops gives the column of each field of that schema, nested ones included.
	tops map[int32]int32
	rows int64
	// live is the number of rows that are not hidden.
	live int64
	// hidden are the rows that are deleted or tombstones, nil when there are none.
	hidden *roaring.Bitmap
	refs   atomic.Int64
}

// place is a column of one of a fragment's files.
type place struct{ file, column int }

// openFragment opens one fragment of a dataset of a table with schema s.
func openFragment(ctx context.Context, st object.Store, root string, v *manifest.Version, f *manifest.Fragment, s *tableSchema) (*fragment, error) {
	if len(f.Files) == 0 {
		return nil, &object.CorruptError{Name: root, Err: fmt.Errorf("fragment %d of version %d has no data files", f.ID, v.Number)}
	}
	x := &fragment{id: f.ID, rows: f.Rows, at: make(map[int32]place), known: make(map[int32]bool), tops: make(map[int32]int32)}
	x.refs.Store(1)
	for i, field := range v.Schema.Fields {
		x.known[field.ID] = field.Name != TombstoneColumn
		for _, id := range (&lance.Schema{Fields: v.Schema.Fields[i : i+1]}).FieldIDs() {
			x.tops[id] = field.ID
		}
	}
	for i := range f.Files {
		if err := x.open(ctx, st, root, &f.Files[i], s); err != nil {
			x.unref()
			return nil, fmt.Errorf("open fragment %d: %w", f.ID, err)
		}
	}
	var err error
	if x.hidden, err = v.Deletions(ctx, st, root, f); err != nil {
		x.unref()
		return nil, err
	}
	x.count()
	return x, nil
}

// open opens one of the fragment's files and notes what columns of the table it has.
func (f *fragment) open(ctx context.Context, st object.Store, root string, m *manifest.DataFile, s *tableSchema) error {
	name := path.Join(root, "data", m.Path)
	r, err := lance.Open(ctx, st, name, m.Bytes, lance.ReaderOptions{})
	if err != nil {
		return err
	}
	f.files = append(f.files, r)
	if r.Rows() != f.rows {
		return &object.CorruptError{Name: name, Err: fmt.Errorf("the file has %d rows, the manifest says %d", r.Rows(), f.rows)}
	}
	ids := make(map[int32]int32, len(m.Columns)) // the field of each of the file's columns
	for i, c := range m.Columns {
		ids[c] = m.Fields[i]
	}
	column := int32(0)
	for i, field := range r.Schema().Fields {
		nested, ok := ids[column]
		column += int32(len((&lance.Schema{Fields: r.Schema().Fields[i : i+1]}).ColumnIDs(r.Version())))
		id, counts := f.tops[nested]
		if !ok || !counts || !f.known[id] {
			continue // it counts no longer
		}
		if c := s.column(id); c >= 0 && !sameLayout(field.Type, s.lance.Fields[c].Type) {
			return &object.CorruptError{Name: name, Err: fmt.Errorf("column %q has type %s, the table says %s", field.Name, field.Type, s.lance.Fields[c].Type)}
		}
		f.at[id] = place{len(f.files) - 1, i}
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

// hides reports whether a row is deleted or a tombstone.
func (f *fragment) hides(row uint32) bool { return f.hidden != nil && f.hidden.Contains(row) }

func (f *fragment) retain() { f.refs.Add(1) }

func (f *fragment) unref() {
	if f.refs.Add(-1) == 0 {
		for _, r := range f.files {
			_ = r.Close() // It is mapped or open for reading only: nothing can be lost.
		}
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
	d := manifest.DataFile{Path: file, Major: 2, Minor: uint32(info.Version), Bytes: info.Bytes, Fields: s.ColumnIDs(info.Version)}
	for i := range d.Fields {
		d.Columns = append(d.Columns, int32(i))
	}
	return manifest.Fragment{Files: []manifest.DataFile{d}, Rows: info.Rows}
}

// fileVersion is the version of the files that the table gets: all files of a Lance table have the same.
func (t *Table) fileVersion() lance.Version {
	if set := t.set.Load(); set != nil {
		if v, err := lance.ParseVersion(set.base.version.Format); err == nil {
			return v
		}
	}
	return t.now().files // a stage makes the table
}
