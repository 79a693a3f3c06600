package query

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// errDictionaryFull is returned when there are more distinct values than an index can tell apart.
var errDictionaryFull = errors.New("more distinct values than the index of their dictionary can count")

// encodeDictionary makes a dictionary of the distinct values of an array, in the order in which they come, and replaces
// the rows by their places in it. The caller releases what it returns.
func encodeDictionary(arr arrow.Array, to *arrow.DictionaryType) (arrow.ArrayData, error) {
	data, err := retypeData(arr, to.ValueType)
	if err != nil {
		return nil, err
	}
	defer data.Release()
	values := array.MakeFromData(data)
	defer values.Release()
	value, err := rawValues(values)
	if err != nil {
		return nil, err
	}
	width := to.IndexType.(arrow.FixedWidthDataType).BitWidth() / 8
	limit := indexLimit(to.IndexType)
	indices := make([]byte, values.Len()*width)
	places := map[string]int{}
	var first []int // the row in which each distinct value came first
	var word [8]byte
	for row := range values.Len() {
		if values.IsNull(row) {
			continue
		}
		v := value(row)
		at, ok := places[string(v)]
		if !ok {
			if at = len(first); at >= limit {
				return nil, fmt.Errorf("%w: %s in one row; cast the column to its values", errDictionaryFull, to)
			}
			places[string(v)], first = at, append(first, row)
		}
		binary.LittleEndian.PutUint64(word[:], uint64(at))
		copy(indices[row*width:(row+1)*width], word[:])
	}
	items, err := rowsAt(values, first)
	if err != nil {
		return nil, err
	}
	defer items.Release()
	validity, drop := validityOf(values)
	defer drop()
	bufs := []*memory.Buffer{validity, memory.NewBufferBytes(indices)}
	return array.NewDataWithDictionary(to, values.Len(), bufs, values.NullN(), 0, items.Data().(*array.Data)), nil
}

// indexLimit is how many values an index can tell apart.
func indexLimit(index arrow.DataType) int {
	bits := index.(arrow.FixedWidthDataType).BitWidth()
	if arrow.IsSignedInteger(index.ID()) {
		bits--
	}
	return 1 << min(bits, 31)
}

// rawValues returns the accessor of the bytes of values.
func rawValues(values arrow.Array) (func(row int) []byte, error) {
	switch a := values.(type) {
	case *array.String:
		return func(row int) []byte { return []byte(a.Value(row)) }, nil
	case *array.LargeString:
		return func(row int) []byte { return []byte(a.Value(row)) }, nil
	case interface{ Value(int) []byte }:
		return a.Value, nil
	}
	t, ok := values.DataType().(arrow.FixedWidthDataType)
	if !ok || t.BitWidth()%8 != 0 {
		return nil, fmt.Errorf("there are no dictionaries of %s", values.DataType())
	}
	if values.Len() == 0 {
		return func(int) []byte { return nil }, nil
	}
	width := t.BitWidth() / 8
	raw := values.Data().Buffers()[1].Bytes()[values.Data().Offset()*width:]
	return func(row int) []byte { return raw[row*width : (row+1)*width] }, nil
}

// rowsAt gathers rows of values. There are few of them beside the rows.
func rowsAt(values arrow.Array, rows []int) (arrow.Array, error) {
	if len(rows) == 0 {
		return array.MakeArrayOfNull(memory.DefaultAllocator, values.DataType(), 0), nil
	}
	parts := make([]arrow.Array, len(rows))
	for i, row := range rows {
		parts[i] = array.NewSlice(values, int64(row), int64(row)+1)
		defer parts[i].Release()
	}
	return array.Concatenate(parts, memory.DefaultAllocator)
}
