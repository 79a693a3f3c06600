package lsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/btree"
)

// keyCodec says how the primary key of a table is hashed, compared and stored.
//
// A key is normalised to an int64 where it fits one, else to bytes, such that the order of the normalised keys is
// the order of the values: integers and dates as they are (unsigned 64-bit ones with the top bit flipped), strings
// and binaries as their bytes, decimals big-endian with the sign flipped, several columns as a tuple of all these
// (see appendTuple).
type keyCodec struct {
	// cols are the key's columns in the table's schema, in the order of the key.
	cols []int
	// names are their names.
	names []string
	// fields are the columns themselves.
	fields []arrow.Field
	// typ is the type of a key as the BTREE of a generation or of the base stores it.
	typ arrow.DataType
	// wide is true when keys are normalised to bytes, false when to int64.
	wide bool
}

// newKeyCodec returns the codec of a table's key, nil for a table without one.
func newKeyCodec(s *arrow.Schema, key []string) (*keyCodec, error) {
	if len(key) == 0 {
		return nil, nil
	}
	k := &keyCodec{names: key}
	for _, name := range key {
		i := columnIndex(s, name)
		if i < 0 {
			return nil, fmt.Errorf("%w key: there is no column %q", ErrInvalid, name)
		}
		f := s.Field(i)
		if !isWideKey(f.Type) && !isIntKey(f.Type) {
			return nil, fmt.Errorf("%w key: column %q has type %s; keys are integers, booleans, strings, binaries, dates, timestamps or decimals", ErrInvalid, name, f.Type)
		}
		k.cols, k.fields = append(k.cols, i), append(k.fields, f)
		k.typ, k.wide = f.Type, isWideKey(f.Type)
	}
	if len(k.cols) > 1 {
		k.typ, k.wide = arrow.BinaryTypes.Binary, true
	}
	return k, nil
}

// columnIndex returns the column of a schema whose name matches without case, -1 when there is none.
func columnIndex(s *arrow.Schema, name string) int {
	for i, f := range s.Fields() {
		if strings.EqualFold(f.Name, name) {
			return i
		}
	}
	return -1
}

// isIntKey reports whether a key of type t is normalised to an int64.
func isIntKey(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64,
		arrow.DATE32, arrow.DATE64, arrow.TIMESTAMP:
		return true
	}
	return false
}

// isWideKey reports whether a key of type t is normalised to bytes.
func isWideKey(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.STRING, arrow.LARGE_STRING, arrow.BINARY, arrow.LARGE_BINARY, arrow.FIXED_SIZE_BINARY, arrow.DECIMAL128:
		return true
	}
	return false
}

// isInt reports whether values of type t, of a key or of another column that has an index, are normalised to an int64.
func isInt(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.TIME32, arrow.TIME64, arrow.DURATION:
		return true
	}
	return isIntKey(t) || isFloat(t)
}

// isWide is isInt for bytes.
func isWide(t arrow.DataType) bool { return isWideKey(t) || t.ID() == arrow.DECIMAL256 }

// checkNulls reports the first row whose key is null.
func (k *keyCodec) checkNulls(table string, rec arrow.RecordBatch) error {
	for i, c := range k.cols {
		col := rec.Column(c)
		if col.NullN() == 0 {
			continue
		}
		for row := range col.Len() {
			if col.IsNull(row) {
				return &KeyError{Table: table, Column: k.names[i], Row: int64(row), Problem: "a key may not be null"}
			}
		}
	}
	return nil
}

// keyColumn is the normalised keys of one batch; exactly one of its fields is set.
type keyColumn struct {
	ints []int64
	wide func(i int) []byte
}

// normalise returns the keys of a batch whose columns are those of the table. Int keys are appended to scratch.
// Wide keys may alias the batch.
func (k *keyCodec) normalise(rec arrow.RecordBatch, scratch []int64) keyColumn {
	if len(k.cols) > 1 {
		cols := make([]arrow.Array, len(k.cols))
		for i, c := range k.cols {
			cols[i] = rec.Column(c)
		}
		return keyColumn{wide: func(i int) []byte { return appendTuple(nil, cols, i) }}
	}
	return k.normaliseArray(rec.Column(k.cols[0]), scratch)
}

// normaliseArray returns the keys of an array of type k.typ, as a BTREE stores them.
func (k *keyCodec) normaliseArray(col arrow.Array, scratch []int64) keyColumn {
	if k.wide {
		return keyColumn{wide: wideKeys(col)}
	}
	return keyColumn{ints: appendInts(scratch, col)}
}

// appendInts appends the normalised values of an array for which isInt holds. Where it has a null, what comes is any
// value.
func appendInts(dst []int64, col arrow.Array) []int64 {
	switch a := col.(type) {
	case *array.Int64:
		return append(dst, a.Values()...)
	case *array.Int32:
		return widen(dst, a.Values())
	case *array.Int16:
		return widen(dst, a.Values())
	case *array.Int8:
		return widen(dst, a.Values())
	case *array.Uint8:
		return widen(dst, a.Values())
	case *array.Uint16:
		return widen(dst, a.Values())
	case *array.Uint32:
		return widen(dst, a.Values())
	case *array.Uint64:
		for _, v := range a.Values() {
			dst = append(dst, int64(v^1<<63))
		}
		return dst
	case *array.Date32:
		return widen(dst, a.Values())
	case *array.Date64:
		return widen(dst, a.Values())
	case *array.Timestamp:
		return widen(dst, a.Values())
	case *array.Time32:
		return widen(dst, a.Time32Values())
	case *array.Time64:
		return widen(dst, a.Time64Values())
	case *array.Duration:
		return widen(dst, a.DurationValues())
	case *array.Float16, *array.Float32, *array.Float64:
		return appendFloats(dst, a)
	case *array.Boolean:
		for i := range a.Len() {
			v := int64(0)
			if a.Value(i) {
				v = 1
			}
			dst = append(dst, v)
		}
	}
	return dst
}

// widen appends integers of any width whose sign extension keeps their order.
func widen[T ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32](dst []int64, values []T) []int64 {
	dst = slices.Grow(dst, len(values))
	for _, v := range values {
		dst = append(dst, int64(v))
	}
	return dst
}

// wideKeys returns the accessor of the normalised values of an array for which isWide holds.
func wideKeys(col arrow.Array) func(i int) []byte {
	switch a := col.(type) {
	case *array.Binary:
		return a.Value
	case *array.LargeBinary:
		return a.Value
	case *array.FixedSizeBinary:
		return a.Value
	case *array.String:
		data, offsets := a.ValueBytes(), a.ValueOffsets()
		return func(i int) []byte { return data[offsets[i]-offsets[0] : offsets[i+1]-offsets[0]] }
	case *array.LargeString:
		data, offsets := a.ValueBytes(), a.ValueOffsets()
		return func(i int) []byte { return data[offsets[i]-offsets[0] : offsets[i+1]-offsets[0]] }
	case *array.Decimal128:
		return func(i int) []byte { return appendDecimal(nil, a.Value(i)) }
	case *array.Decimal256:
		return func(i int) []byte { return appendDecimal256(nil, a.Value(i)) }
	}
	return func(int) []byte { return nil }
}

// appendDecimal appends 16 bytes whose order is that of the decimal.
func appendDecimal(dst []byte, v decimal128.Num) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(v.HighBits())^1<<63)
	return binary.BigEndian.AppendUint64(dst, v.LowBits())
}

// appendDecimal256 appends 32 bytes whose order is that of the decimal.
func appendDecimal256(dst []byte, v decimal256.Num) []byte {
	words := v.Array() // the least first
	dst = binary.BigEndian.AppendUint64(dst, words[3]^1<<63)
	for _, w := range []uint64{words[2], words[1], words[0]} {
		dst = binary.BigEndian.AppendUint64(dst, w)
	}
	return dst
}

// tupleMark stands before each value of a tuple.
const tupleMark = 1

// appendTuple appends the key of row i over several columns, such that bytes.Compare orders tuples column by
// column, as Lance's MemWAL has it, so that its readers find keys in our generations: before each value a 1; an integer
// is 8 bytes big-endian, with the sign flipped if its type has one, a boolean one byte; bytes have each 0x00 followed by
// 0xFF and end with 0x00 0x00, so that a prefix sorts first and no value runs into the next (the FoundationDB tuple
// layer's encoding of byte strings).
func appendTuple(dst []byte, cols []arrow.Array, i int) []byte {
	for _, col := range cols {
		dst = append(dst, tupleMark)
		if isIntKey(col.DataType()) {
			one := array.NewSlice(col, int64(i), int64(i)+1)
			v := appendInts(nil, one)[0]
			one.Release()
			dst = appendTupleInt(dst, col.DataType(), v)
			continue
		}
		for _, c := range wideKeys(col)(i) {
			dst = append(dst, c)
			if c == 0 {
				dst = append(dst, 0xFF)
			}
		}
		dst = append(dst, 0, 0)
	}
	return dst
}

// appendTupleInt appends a normalised integer.
func appendTupleInt(dst []byte, t arrow.DataType, v int64) []byte {
	switch t.ID() {
	case arrow.BOOL:
		return append(dst, byte(v))
	case arrow.UINT8, arrow.UINT16, arrow.UINT32:
		return binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63) // normalised, a uint64 has its first bit flipped
}

// cutTupleInt undoes appendTupleInt and returns what follows.
func cutTupleInt(t arrow.DataType, tuple []byte) (v int64, rest []byte) {
	if t.ID() == arrow.BOOL {
		return int64(tuple[0]), tuple[1:]
	}
	u := binary.BigEndian.Uint64(tuple)
	switch t.ID() {
	case arrow.UINT8, arrow.UINT16, arrow.UINT32:
	default:
		u ^= 1 << 63
	}
	return int64(u), tuple[8:]
}

// cutTupleBytes returns the first value of a tuple, whose mark was cut off, and what follows it.
func cutTupleBytes(tuple []byte) (v, rest []byte) {
	v = make([]byte, 0, 64)
	for i := 0; ; i++ {
		if v = append(v, tuple[i]); tuple[i] != 0 {
			continue
		}
		if i++; tuple[i] == 0 {
			return v[:len(v)-1], tuple[i+1:]
		}
	}
}

// cutTuple undoes appendTuple for one column: it appends the value to b and returns what follows it.
func cutTuple(b array.Builder, tuple []byte) []byte {
	if isIntKey(b.Type()) {
		v, rest := cutTupleInt(b.Type(), tuple[1:])
		appendInt(b, v)
		return rest
	}
	v, rest := cutTupleBytes(tuple[1:])
	appendWide(b, v)
	return rest
}

// alone returns the codec for batches that have the key's columns and no others, in the order of the key.
func (k *keyCodec) alone() *keyCodec {
	c := *k
	c.cols = make([]int, len(k.cols))
	for i := range c.cols {
		c.cols[i] = i
	}
	return &c
}

// keyRun is a set of distinct keys in ascending order. It does not change once made.
type keyRun struct {
	codec *keyCodec
	ints  []int64
	wide  [][]byte
}

// newKeyRun sorts and deduplicates keys; it takes them over.
func newKeyRun(codec *keyCodec, ints []int64, wide [][]byte) *keyRun {
	slices.Sort(ints)
	slices.SortFunc(wide, bytes.Compare)
	return &keyRun{codec: codec, ints: slices.Compact(ints), wide: slices.CompactFunc(wide, bytes.Equal)}
}

// Len returns the number of keys.
func (r *keyRun) Len() int { return len(r.ints) + len(r.wide) }

// array returns the keys in the type that a BTREE stores, on the Go heap. It may share the run's memory, which does not
// change. The caller releases it.
func (r *keyRun) array() arrow.Array {
	switch r.codec.typ.ID() {
	case arrow.INT64, arrow.TIMESTAMP, arrow.DATE64: // they are as the BTREE has them
		data := array.NewData(r.codec.typ, len(r.ints), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(r.ints))}, nil, 0, 0)
		defer data.Release()
		return array.MakeFromData(data)
	}
	b := array.NewBuilder(memory.DefaultAllocator, r.codec.typ)
	defer b.Release()
	b.Reserve(r.Len())
	for _, v := range r.ints {
		appendInt(b, v)
	}
	for _, v := range r.wide {
		appendWide(b, v)
	}
	return b.NewArray()
}

// describe returns the i-th key as text, for messages.
func (r *keyRun) describe(i int) string {
	if len(r.codec.fields) == 1 {
		a := r.one(i).array()
		defer a.Release()
		return describeKeyValue(r.codec.fields[0], a)
	}
	var parts []string
	rest := r.wide[i]
	for _, f := range r.codec.fields {
		b := array.NewBuilder(memory.DefaultAllocator, f.Type)
		rest = cutTuple(b, rest)
		a := b.NewArray()
		parts = append(parts, describeKeyValue(f, a))
		a.Release()
		b.Release()
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// describeKeyValue returns the only value of an array as SQL shows it: bytes are in hex, because ValueStr's base64 is
// nothing that one could look for.
func describeKeyValue(f arrow.Field, a arrow.Array) string {
	var v []byte
	switch a := a.(type) {
	case *array.Binary:
		v = a.Value(0)
	case *array.LargeBinary:
		v = a.Value(0)
	case *array.FixedSizeBinary:
		v = a.Value(0)
		if name, _ := f.Metadata.GetValue(extensionName); name == "arrow.uuid" && len(v) == len(uuid.UUID{}) {
			return uuid.UUID(v).String()
		}
	default:
		return a.ValueStr(0)
	}
	return fmt.Sprintf("0x%x", v)
}

// appendInt undoes appendInts.
func appendInt(b array.Builder, v int64) {
	switch b := b.(type) {
	case *array.Int64Builder: // in tuples
		b.Append(v)
	case *array.Int32Builder:
		b.Append(int32(v))
	case *array.Int16Builder:
		b.Append(int16(v))
	case *array.Int8Builder:
		b.Append(int8(v))
	case *array.Uint8Builder:
		b.Append(uint8(v))
	case *array.Uint16Builder:
		b.Append(uint16(v))
	case *array.Uint32Builder:
		b.Append(uint32(v))
	case *array.Uint64Builder:
		b.Append(uint64(v) ^ 1<<63)
	case *array.Date32Builder:
		b.Append(arrow.Date32(v))
	case *array.Date64Builder:
		b.Append(arrow.Date64(v))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v))
	case *array.BooleanBuilder:
		b.Append(v != 0)
	case *array.Time32Builder:
		b.Append(arrow.Time32(v))
	case *array.Time64Builder:
		b.Append(arrow.Time64(v))
	case *array.DurationBuilder:
		b.Append(arrow.Duration(v))
	case *array.Float16Builder, *array.Float32Builder, *array.Float64Builder:
		appendFloat(b, v)
	}
}

// appendWide undoes wideKeys.
func appendWide(b array.Builder, v []byte) {
	switch b := b.(type) {
	case *array.BinaryBuilder: // large binaries, too
		b.Append(v)
	case *array.FixedSizeBinaryBuilder:
		b.Append(v)
	case *array.StringBuilder:
		b.Append(string(v))
	case *array.LargeStringBuilder:
		b.Append(string(v))
	case *array.Decimal128Builder:
		high := binary.BigEndian.Uint64(v) ^ 1<<63
		b.Append(decimal128.New(int64(high), binary.BigEndian.Uint64(v[8:])))
	case *array.Decimal256Builder:
		high := binary.BigEndian.Uint64(v) ^ 1<<63
		b.Append(decimal256.New(high, binary.BigEndian.Uint64(v[8:]), binary.BigEndian.Uint64(v[16:]), binary.BigEndian.Uint64(v[24:])))
	}
}

// one returns the i-th key as a run of its own.
func (r *keyRun) one(i int) *keyRun {
	if r.codec.wide {
		return &keyRun{codec: r.codec, wide: r.wide[i : i+1]}
	}
	return &keyRun{codec: r.codec, ints: r.ints[i : i+1]}
}

// find returns the place of the i-th key of a column in the run, and whether it is there.
func (r *keyRun) find(keys keyColumn, i int) (int, bool) {
	if keys.wide != nil {
		return slices.BinarySearchFunc(r.wide, keys.wide(i), bytes.Compare)
	}
	return slices.BinarySearch(r.ints, keys.ints[i])
}

// contains reports whether the i-th key of a column is in the run.
func (r *keyRun) contains(keys keyColumn, i int) bool {
	_, ok := r.find(keys, i)
	return ok
}

// unsettled returns the keys that are not marked.
func (r *keyRun) unsettled(marked []bool) *keyRun {
	out := &keyRun{codec: r.codec}
	for i, k := range r.ints {
		if !marked[i] {
			out.ints = append(out.ints, k)
		}
	}
	for i, k := range r.wide {
		if !marked[i] {
			out.wide = append(out.wide, k)
		}
	}
	return out
}

// keyBounds returns the least and the greatest key of a BTREE, nil when it is empty.
func keyBounds(codec *keyCodec, x *btree.Index) *keyRun {
	least, greatest := x.Bounds()
	if least == nil {
		return nil
	}
	defer least.Release()
	defer greatest.Release()
	bounds := keyBuffer{codec: codec}
	bounds.add(codec.normaliseArray(least, nil), 0)
	bounds.add(codec.normaliseArray(greatest, nil), 0)
	return bounds.run()
}

// overlaps reports whether a key of the run may lie between bounds.
func (r *keyRun) overlaps(bounds *keyRun) bool {
	if bounds == nil || r.Len() == 0 {
		return false
	}
	keys, ends := r.column(), bounds.column()
	return keys.compare(0, ends, 1) <= 0 && keys.compare(r.Len()-1, ends, 0) >= 0
}
