package lance

import "context"

// Verify compares every part of the file with its checksum, whether or not it was read before, and reads the metadata of
// all columns. Of a file without checksums it can only tell that the structure is sound.
func (r *Reader) Verify(ctx context.Context) error {
	if err := r.enter(ctx); err != nil {
		return err
	}
	defer r.leave()
	for i := 1; i <= r.userGlobals(); i++ {
		b, err := r.read(r.globals[i])
		if err != nil {
			return err
		}
		err = r.checkGlobal(i, b.Bytes())
		b.Release()
		if err != nil {
			return err
		}
	}
	for col := range r.columns {
		if err := r.verifyColumn(ctx, col); err != nil {
			return err
		}
	}
	return nil
}

// HasChecksums reports whether the file carries checksums, so that Verify can find any change to it.
func (r *Reader) HasChecksums() bool { return r.sums != nil }

// verifyColumn verifies all pages of a column. Opening a page verifies it only if nobody did so before.
func (r *Reader) verifyColumn(ctx context.Context, col int) error {
	pages, err := r.readColumn(col, r.columns[col].at)
	if err != nil {
		return err
	}
	for k := range pages {
		if err := ctx.Err(); err != nil {
			return err
		}
		v, err := r.view(col, pages, k)
		if err != nil {
			return err
		}
		v.release()
	}
	return nil
}
