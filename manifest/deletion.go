package manifest

import (
	"context"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"path"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/internal/bitmaps"
	"github.com/flightd/flightd/object"
)

// Deletions returns the offsets of the deleted rows of a fragment of v, nil when there are none. The bitmap belongs
// to the caller.
func (v *Version) Deletions(ctx context.Context, st object.Store, root string, f *Fragment) (*roaring.Bitmap, error) {
	if f.Deletion == nil {
		return nil, nil
	}
	name := path.Join(root, f.Deletion.Path(f.ID))
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read deletions of fragment %d: %w", f.ID, err)
	}
	if want := f.Deletion.Checksum; want != 0 {
		if got := crc32.Checksum(b, castagnoli); got != want {
			return nil, corrupt(name, 0, "checksum is %08x, expected %08x", got, want)
		}
	}
	var m *roaring.Bitmap
	if f.Deletion.Kind == Array {
		m, err = parseOffsets(b, f.Deletion.Rows)
	} else {
		m, err = bitmaps.Parse(b)
	}
	if err != nil {
		return nil, corrupt(name, 0, "%w", err)
	}
	if n := int64(m.GetCardinality()); f.Deletion.Rows > 0 && n != f.Deletion.Rows {
		return nil, corrupt(name, 0, "%d rows are deleted, the manifest says %d", n, f.Deletion.Rows)
	}
	if !m.IsEmpty() && int64(m.Maximum()) >= f.Rows {
		return nil, corrupt(name, 0, "row %d is deleted in a fragment of %d rows", m.Maximum(), f.Rows)
	}
	return m, nil
}

// writeDeletion writes all deleted offsets of f to a new file. A later attempt of the same commit uses the file again
// as long as f has not got other deletions.
func (b *build) writeDeletion(ctx context.Context, f *Fragment, all *roaring.Bitmap) (*Deletion, error) {
	if d, ok := b.deletions[f.ID]; ok {
		if sameDeletion(d.on, f.Deletion) {
			return d.file, nil
		}
		b.remove(ctx, d.file.Path(f.ID))
		delete(b.deletions, f.ID)
	}
	data, err := all.ToBytes()
	if err != nil {
		return nil, fmt.Errorf("write deletions of fragment %d: %w", f.ID, err)
	}
	d := &Deletion{Kind: Bitmap, ReadVersion: b.base.Number, ID: rand.Uint64(), Rows: int64(all.GetCardinality()),
		Checksum: crc32.Checksum(data, castagnoli)}
	name := d.Path(f.ID)
	w, err := b.st.Create(ctx, path.Join(b.root, name))
	if err != nil {
		return nil, fmt.Errorf("write deletions of fragment %d: %w", f.ID, err)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("write deletions of fragment %d: %w", f.ID, err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write deletions of fragment %d: %w", f.ID, err)
	}
	b.wrote(name)
	b.deletions[f.ID] = writtenDeletion{on: f.Deletion, file: d}
	return d, nil
}

func sameDeletion(a, b *Deletion) bool {
	return a == b || a != nil && b != nil && *a == *b
}
