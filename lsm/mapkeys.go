package lsm

import (
	"encoding/binary"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// uniqueKeys looks for keys that a map has twice. Arrow lets whoever writes maps care about that; SQL refuses to read such
// a map, and everything else in the same rows with it, so a table takes none.
type uniqueKeys struct {
	keys arrow.Array
	text func(i int) string
	seen map[string]struct{} // of the row at hand
}

// newUniqueKeys returns nil for a column that has no maps.
func newUniqueKeys(col arrow.Array) *uniqueKeys {
	m, ok := col.(*array.Map)
	if !ok {
		return nil
	}
	return &uniqueKeys{keys: m.Keys(), text: keyText(m.Keys()), seen: make(map[string]struct{})}
}

// repeated returns a key that comes twice among the entries [from, to).
func (u *uniqueKeys) repeated(from, to int) (string, bool) {
	if u == nil || to-from < 2 {
		return "", false
	}
	clear(u.seen)
	for i := from; i < to; i++ {
		text := u.text(i)
		if _, ok := u.seen[text]; ok {
			return u.keys.ValueStr(i), true
		}
		u.seen[text] = struct{}{}
	}
	return "", false
}

// keyText returns a function that tells values apart as SQL does: 0 and -0 are one value, as all NaNs are.
func keyText(keys arrow.Array) func(i int) string {
	float := func(v float64) string {
		switch {
		case v == 0:
			v = 0
		case math.IsNaN(v):
			v = math.NaN()
		}
		return string(binary.NativeEndian.AppendUint64(nil, math.Float64bits(v)))
	}
	switch a := keys.(type) {
	case *array.Float16:
		return func(i int) string { return float(float64(a.Value(i).Float32())) }
	case *array.Float32:
		return func(i int) string { return float(float64(a.Value(i))) }
	case *array.Float64:
		return func(i int) string { return float(a.Value(i)) }
	case array.StringLike:
		return a.Value
	case interface{ Value(i int) []byte }:
		return func(i int) string { return string(a.Value(i)) }
	}
	if d := keys.Data(); fixedBytes(d) > 0 && keys.DataType().ID() != arrow.FIXED_SIZE_LIST {
		width, first := fixedBytes(d), d.Offset()
		return func(i int) string { return string(d.Buffers()[1].Bytes()[(first+i)*width : (first+i+1)*width]) }
	}
	return keys.ValueStr
}
