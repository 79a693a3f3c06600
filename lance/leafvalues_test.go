package lance

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// movingAllocator counts how often a block was moved to a larger or smaller one.
type movingAllocator struct {
	memory.Allocator
	moved int
}

func (a *movingAllocator) Reallocate(size int, b []byte) []byte {
	if len(b) > 0 {
		a.moved++
	}
	return a.Allocator.Reallocate(size, b)
}

// TestStringsGrowBySteps reads long strings with nulls between them, whose sizes only they know. That they are moved for
// each null would show in time alone.
func TestStringsGrowBySteps(t *testing.T) {
	st, rec := object.NewMem(), shaped(5000, 0.2)
	writeFile(t, st, "f", rec.Schema(), WriterOptions{Version: Version22}, rec)
	a := &movingAllocator{Allocator: memory.NewGoAllocator()}
	r, err := Open(t.Context(), st, "f", 0, ReaderOptions{Alloc: a})
	require.NoError(t, err)
	defer r.Close()
	c := len(rec.Columns()) - 1
	require.Equal(t, "long text", rec.ColumnName(c))
	s := r.Scan([]int{c}, 0, r.Rows(), 0)
	defer s.Close()
	for row := int64(0); row < r.Rows(); {
		got, err := s.Next(t.Context())
		require.NoError(t, err)
		row += got.NumRows()
		got.Release()
	}
	require.Less(t, a.moved, 100)
}
