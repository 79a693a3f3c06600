package bitmaps

import (
	"bytes"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
)

// Parse decodes a bitmap that fills b. It shares no memory with b. The library trusts its input in places and reports
// damage by a panic there, which must not leave this package.
func Parse(b []byte) (m *roaring.Bitmap, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("roaring bitmap of %d bytes: %v", len(b), r)
		}
	}()
	m = roaring.New()
	n, err := m.ReadFrom(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("roaring bitmap of %d bytes: %w", len(b), err)
	}
	if n != int64(len(b)) {
		return nil, fmt.Errorf("roaring bitmap: %d of %d bytes are left over", int64(len(b))-n, len(b))
	}
	if err := m.Validate(); err != nil && !m.IsEmpty() {
		return nil, fmt.Errorf("roaring bitmap of %d bytes: %w", len(b), err)
	}
	return m, nil
}
