package btree

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// pageBuilder collects the table of pages: the first and the last value of each and its number of nulls.
type pageBuilder struct {
	value arrow.DataType
	// mins and maxs are arrays of one row each, nil for a null.
	mins, maxs []arrow.Array
	nulls      []uint32
}

// begin opens the next page.
func (b *pageBuilder) begin() {
	b.mins, b.maxs, b.nulls = append(b.mins, nil), append(b.maxs, nil), append(b.nulls, 0)
}

// extend adds rows [off, off+n) of values, which are in order and nulls first, to the open page.
func (b *pageBuilder) extend(values arrow.Array, off, n int) error {
	page, nulls := len(b.nulls)-1, 0
	for nulls < n && values.IsNull(off+nulls) {
		nulls++
	}
	b.nulls[page] += uint32(nulls)
	if nulls == n {
		return nil
	}
	// The minimum of a page is its first row, so a page with nulls has none.
	if b.mins[page] == nil && b.nulls[page] == 0 {
		least, err := copyRow(values, off+nulls)
		if err != nil {
			return err
		}
		b.mins[page] = least
	}
	greatest, err := copyRow(values, off+n-1)
	if err != nil {
		return err
	}
	if b.maxs[page] != nil {
		b.maxs[page].Release()
	}
	b.maxs[page] = greatest
	return nil
}

// record returns the table of pages; the caller releases it.
func (b *pageBuilder) record(s *arrow.Schema) (arrow.RecordBatch, error) {
	mins, err := join(b.mins, b.value)
	if err != nil {
		return nil, err
	}
	defer mins.Release()
	maxs, err := join(b.maxs, b.value)
	if err != nil {
		return nil, err
	}
	defer maxs.Release()
	numbers := array.NewUint32Builder(memory.DefaultAllocator)
	defer numbers.Release()
	numbers.AppendValues(b.nulls, nil)
	nulls := numbers.NewArray()
	defer nulls.Release()
	for i := range b.nulls {
		numbers.Append(uint32(i))
	}
	places := numbers.NewArray()
	defer places.Release()
	return array.NewRecordBatch(s, []arrow.Array{mins, maxs, nulls, places}, int64(len(b.nulls))), nil
}

// release lets go of the values.
func (b *pageBuilder) release() {
	for _, list := range [][]arrow.Array{b.mins, b.maxs} {
		for _, a := range list {
			if a != nil {
				a.Release()
			}
		}
	}
	b.mins, b.maxs, b.nulls = nil, nil, nil
}

// join makes one array of many, with a null for each that is nil.
func join(list []arrow.Array, value arrow.DataType) (arrow.Array, error) {
	none := array.MakeArrayOfNull(memory.DefaultAllocator, value, 1)
	defer none.Release()
	parts := make([]arrow.Array, 0, len(list)+1)
	for _, a := range list {
		if a == nil {
			a = none
		}
		parts = append(parts, a)
	}
	if len(parts) == 0 {
		return array.MakeArrayOfNull(memory.DefaultAllocator, value, 0), nil
	}
	all, err := array.Concatenate(parts, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("join the bounds of %d pages: %w", len(list), err)
	}
	return all, nil
}

// copyRow returns row i of a as an array of its own. A slice would keep all of a alive, whose memory others count.
func copyRow(a arrow.Array, i int) (arrow.Array, error) {
	row := array.NewSlice(a, int64(i), int64(i)+1)
	defer row.Release()
	own, err := array.Concatenate([]arrow.Array{row}, memory.DefaultAllocator)
	if err != nil {
		return nil, fmt.Errorf("copy a bound: %w", err)
	}
	return own, nil
}
