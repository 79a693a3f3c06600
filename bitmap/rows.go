package bitmap

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/bitmaps"
)

// fragmentRows is the rows of one fragment that have a value; nil rows are all of them.
type fragmentRows struct {
	fragment uint32
	rows     *roaring.Bitmap
}

// bitmap reads the rows of the value in a row of the file.
func (x *Index) bitmap(ctx context.Context, row int32) ([]fragmentRows, error) {
	rec, err := x.r.Take(ctx, []int{1}, []int64{int64(row)})
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	a, ok := rec.Column(0).(*array.Binary)
	if !ok || a.IsNull(0) {
		return nil, x.corrupt("row %d has no bitmap", row)
	}
	rows, err := parseRows(a.Value(0))
	if err != nil {
		return nil, x.corrupt("the bitmap of row %d: %w", row, err)
	}
	return rows, nil
}

// parseRows decodes a set of row addresses. It shares no memory with b.
func parseRows(b []byte) ([]fragmentRows, error) {
	u32 := func(what string) (uint32, error) {
		if len(b) < 4 {
			return 0, fmt.Errorf("it ends before its %s", what)
		}
		v := binary.LittleEndian.Uint32(b)
		b = b[4:]
		return v, nil
	}
	n, err := u32("number of fragments")
	if err != nil {
		return nil, err
	}
	if uint64(n)*8 > uint64(len(b)) {
		return nil, fmt.Errorf("it names %d fragments in %d bytes", n, len(b))
	}
	out := make([]fragmentRows, 0, n)
	for range n {
		var f fragmentRows
		if f.fragment, err = u32("fragment"); err != nil {
			return nil, err
		}
		size, err := u32("size")
		if err != nil {
			return nil, err
		}
		if uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("fragment %d takes %d bytes of %d", f.fragment, size, len(b))
		}
		if size > 0 {
			if f.rows, err = bitmaps.Parse(b[:size]); err != nil {
				return nil, fmt.Errorf("fragment %d: %w", f.fragment, err)
			}
		}
		b = b[size:]
		out = append(out, f)
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("%d bytes are left over", len(b))
	}
	return out, nil
}

// each calls fn with the ids of rows.
func (x *Index) each(list []fragmentRows, fn func(id uint64) error) error {
	for _, f := range list {
		base := uint64(f.fragment) << 32
		if f.rows == nil {
			for row := range uint64(x.opt.FragmentRows(f.fragment)) {
				if err := fn(base | row); err != nil {
					return err
				}
			}
			continue
		}
		for it := f.rows.ManyIterator(); ; {
			var some [256]uint32
			n := it.NextMany(some[:])
			if n == 0 {
				break
			}
			for _, row := range some[:n] {
				if err := fn(base | uint64(row)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Verify reads all bitmaps, and checks the file's checksums where it has any. fn is called with each id.
func (x *Index) Verify(ctx context.Context, fn func(id uint64) error) error {
	if err := x.r.Verify(ctx); err != nil {
		return fmt.Errorf("verify %s: %w", x.name, err)
	}
	for row := range x.r.Rows() {
		rows, err := x.bitmap(ctx, int32(row))
		if err == nil {
			err = x.each(rows, fn)
		}
		if err != nil {
			return fmt.Errorf("verify %s: %w", x.name, err)
		}
	}
	return nil
}
