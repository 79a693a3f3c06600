package lance

import (
	"context"
	"errors"
)

// maxFaults bounds what Verify reports: a lost disk should not fill a screen.
const maxFaults = 100

// Verify compares every part of the file with its checksum, whether or not it was read before, and reads the metadata of
// all columns. It returns what is wrong with each part, joined, up to about 100 of them. Of a file without checksums it
// can only tell that the structure is sound.
func (r *Reader) Verify(ctx context.Context) error {
	if err := r.enter(ctx); err != nil {
		return err
	}
	defer r.leave()
	var faults []error
	for i := 1; i <= r.userGlobals(); i++ {
		if err := r.verifyGlobal(i); err != nil {
			faults = append(faults, err)
		}
	}
	for col := range r.columns {
		if err := ctx.Err(); err != nil {
			return err
		}
		if faults = append(faults, r.verifyColumn(ctx, col)...); len(faults) >= maxFaults {
			break
		}
	}
	return errors.Join(faults...)
}

// verifyGlobal verifies a user global buffer.
func (r *Reader) verifyGlobal(i int) error {
	b, err := r.read(r.globals[i])
	if err != nil {
		return err
	}
	defer b.Release()
	return r.checkGlobal(i, b.Bytes())
}

// HasChecksums reports whether the file carries checksums, so that Verify can find any change to it.
func (r *Reader) HasChecksums() bool { return r.sums != nil }

// verifyColumn verifies all pages of a column and returns what is wrong with each. Opening a page verifies it only if
// nobody did so before.
func (r *Reader) verifyColumn(ctx context.Context, col int) []error {
	pages, err := r.readColumn(col, r.columns[col].at)
	if err != nil {
		return []error{err}
	}
	var faults []error
	for k := range pages {
		if err := ctx.Err(); err != nil {
			return []error{err}
		}
		v, err := r.view(col, pages, k)
		if err == nil {
			v.release()
		} else if faults = append(faults, err); len(faults) >= maxFaults {
			break
		}
	}
	return faults
}
