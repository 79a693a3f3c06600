package manifest

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/internal/bitmaps"
	"github.com/flightd/flightd/object"
)

// DeletionFile is a deletion file as it says of itself, without the version that names it.
type DeletionFile struct {
	// Deletion has the parts of the name. Rows and Checksum are those of the bytes: what they should be the version says.
	Deletion
	Fragment uint64
	// Offsets are the deleted rows of the fragment.
	Offsets *roaring.Bitmap
}

// LoadDeletionFile reads a file of the folder _deletions.
func LoadDeletionFile(ctx context.Context, st object.Store, name string) (*DeletionFile, error) {
	d := &DeletionFile{}
	var ext string
	base := path.Base(name)
	if n, _ := fmt.Sscanf(base, "%d-%d-%d.%s", &d.Fragment, &d.ReadVersion, &d.ID, &ext); n != 4 {
		return nil, fmt.Errorf("%s is not named like a deletion file: FRAGMENT-VERSION-ID.bin or .arrow", name)
	}
	if ext == "arrow" {
		d.Kind = Array
	} else {
		d.Kind = Bitmap
	}
	if !strings.HasSuffix(d.Path(d.Fragment), "/"+base) {
		return nil, fmt.Errorf("%s is not named like a deletion file: FRAGMENT-VERSION-ID.bin or .arrow", name)
	}
	b, err := st.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read deletions of fragment %d: %w", d.Fragment, err)
	}
	if d.Kind == Array {
		d.Offsets, err = parseOffsets(b, 0)
	} else {
		d.Offsets, err = bitmaps.Parse(b)
	}
	if err != nil {
		return nil, corrupt(name, 0, "%w", err)
	}
	d.Rows, d.Checksum = int64(d.Offsets.GetCardinality()), crc32.Checksum(b, castagnoli)
	return d, nil
}

// Describe says what the file holds.
func (d *DeletionFile) Describe(w io.Writer) error {
	_, err := fmt.Fprintf(w, "deletions of fragment %d, made on version %d: %d rows", d.Fragment, d.ReadVersion, d.Rows)
	if err == nil && d.Rows > 0 {
		_, err = fmt.Fprintf(w, " from %d to %d", d.Offsets.Minimum(), d.Offsets.Maximum())
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "; crc32c %08x\n", d.Checksum)
	}
	return err
}
