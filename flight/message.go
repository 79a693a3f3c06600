package flight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/flightd/flightd/lsm"
)

// Numbers of Arrow's Message.fbs and Schema.fbs that the wire needs.
const (
	headerSchema     = 1
	headerDictionary = 2
	headerRecord     = 3

	metadataV4 = 3 // the oldest layout with the buffers that are read here

	typeTimestamp = 10
	typeUnion     = 14
)

// Bounds on a schema message. A schema that people use is far below them; above them a few bytes can ask for a
// recursion or an expansion that no stack and no memory can hold, because flatbuffers may point to one table often.
const (
	maxSchemaDepth  = 32
	maxSchemaFields = 1 << 16
)

// header is the outer table of an Arrow IPC message.
type header struct {
	kind byte
	body int64 // the length that the message says its body has
	fb   fbTable
}

// parseHeader reads the outer table of an IPC message.
func parseHeader(b []byte) (header, error) {
	root, err := fbRoot(b)
	if err != nil {
		return header{}, err
	}
	version, err := root.int16(0)
	if err != nil {
		return header{}, err
	}
	if version < metadataV4 {
		return header{}, fmt.Errorf("metadata version V%d of Arrow is too old; V4 and V5 are read", version+1)
	}
	kind, err := root.byte(1)
	if err != nil {
		return header{}, err
	}
	body, err := root.int64(3)
	if err != nil {
		return header{}, err
	}
	sub, ok, err := root.table(2)
	if err != nil {
		return header{}, err
	}
	if !ok {
		return header{}, errFlatbuffer
	}
	return header{kind: kind, body: body, fb: sub}, nil
}

// streamSchema is what the schema message of a stream says.
type streamSchema struct {
	// wire has the types that travel, plain the types that leave the decoder: dictionaries and views of strings are
	// plain values there, and metadata say of what type a dictionary was. Extension types are what they are stored as
	// in both, with metadata that name them.
	wire, plain *arrow.Schema
	// dictionaries are the dictionaries in the order in which their fields come, a nested one behind its parent.
	dictionaries []dictionaryField
}

// dictionaryField is a field that travels as indices of a dictionary.
type dictionaryField struct {
	id     int64
	values arrow.DataType // as they travel
}

// parseSchema reads a schema message. It walks the flatbuffer with its own bounds first, so that arrow-go's
// recursive reader, which then builds the types, cannot be led into a cycle or a bomb.
func parseSchema(b []byte) (*streamSchema, error) {
	head, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	if head.kind != headerSchema {
		return nil, fmt.Errorf("the stream starts with message type %d, not with a schema", head.kind)
	}
	if head.body != 0 {
		return nil, fmt.Errorf("the schema message says that %d bytes of body follow; it has none", head.body)
	}
	walk := schemaWalk{bytes: len(b)}
	if err := walk.schema(head.fb); err != nil {
		return nil, err
	}
	wire, err := readSchema(b)
	if err != nil {
		return nil, err
	}
	plain, err := plainSchema(wire)
	if err != nil {
		return nil, err
	}
	out := &streamSchema{wire: wire, plain: plain}
	for _, f := range wire.Fields() {
		out.addDictionaries(f.Type)
	}
	if len(out.dictionaries) != len(walk.dictionaries) {
		return nil, errFlatbuffer
	}
	for i, id := range walk.dictionaries {
		out.dictionaries[i].id = id
	}
	return out, nil
}

// addDictionaries finds the dictionaries in a type. Those of dictionaries have plain values.
func (s *streamSchema) addDictionaries(t arrow.DataType) {
	switch t := t.(type) {
	case *arrow.DictionaryType:
		s.dictionaries = append(s.dictionaries, dictionaryField{values: t.ValueType})
	case arrow.NestedType:
		for _, f := range t.Fields() {
			s.addDictionaries(f.Type)
		}
	}
}

// readSchema lets arrow-go build the types of a schema message that schemaWalk has checked.
func readSchema(b []byte) (*arrow.Schema, error) {
	framed := make([]byte, 8, 8+len(b))
	binary.LittleEndian.PutUint32(framed, 0xFFFFFFFF)
	binary.LittleEndian.PutUint32(framed[4:], uint32(len(b)))
	reader, err := ipc.NewReader(bytes.NewReader(append(framed, b...)))
	if err != nil {
		return nil, fmt.Errorf("read the schema: %w", err)
	}
	defer reader.Release()
	return lsm.StorageSchema(reader.Schema()), nil
}

// schemaWalk checks a schema's tables and collects what arrow-go keeps to itself.
type schemaWalk struct {
	bytes        int // what names, metadata and time zones may still take together
	fields       int
	dictionaries []int64 // their ids
}

// schema walks the Schema table.
func (w *schemaWalk) schema(t fbTable) error {
	endian, err := t.int16(0)
	if err != nil {
		return err
	}
	if endian != 0 {
		return fmt.Errorf("the stream is big-endian; only little-endian streams are read")
	}
	if err := w.metadata(t, 2); err != nil {
		return err
	}
	return t.tables(1, func(_ int, field fbTable) error {
		err := w.field(field, 1)
		if name, _, e := field.vector(0, 1); err != nil && e == nil {
			return fmt.Errorf("column %q: %w", name, err)
		}
		return err
	})
}

// field walks one Field table.
func (w *schemaWalk) field(t fbTable, depth int) error {
	if w.fields++; w.fields > maxSchemaFields || depth > maxSchemaDepth {
		return fmt.Errorf("the schema has more than %d fields or %d levels", maxSchemaFields, maxSchemaDepth)
	}
	if err := w.text(t, 0); err != nil {
		return err
	}
	if err := w.metadata(t, 6); err != nil {
		return err
	}
	if err := w.fieldType(t); err != nil {
		return err
	}
	encoding, ok, err := t.table(4)
	if err != nil {
		return err
	}
	if ok {
		id, err := encoding.int64(0)
		if err != nil {
			return err
		}
		if id < 0 {
			return fmt.Errorf("a dictionary has the id %d", id)
		}
		w.dictionaries = append(w.dictionaries, id)
	}
	return t.tables(5, func(_ int, child fbTable) error { return w.field(child, depth+1) })
}

// fieldType walks the type of a Field, as far as its size is the client's choice.
func (w *schemaWalk) fieldType(t fbTable) error {
	kind, err := t.byte(2)
	if err != nil {
		return err
	}
	sub, ok, err := t.table(3)
	switch {
	case err != nil:
		return err
	case !ok:
		return errFlatbuffer
	case kind == typeUnion:
		return errors.New("unions are not stored: Lance has none; send a struct with a field for each member")
	case kind == typeTimestamp:
		return w.text(sub, 1)
	}
	return nil
}

// metadata walks a vector of KeyValue tables.
func (w *schemaWalk) metadata(t fbTable, slot int) error {
	return t.tables(slot, func(_ int, pair fbTable) error {
		if err := w.text(pair, 0); err != nil {
			return err
		}
		return w.text(pair, 1)
	})
}

// text takes a string's bytes, and those of its table, from what is left.
func (w *schemaWalk) text(t fbTable, slot int) error {
	_, n, err := t.vector(slot, 1)
	if err != nil {
		return err
	}
	if w.bytes -= n; w.bytes < 0 {
		return fmt.Errorf("%w: its strings overlap", errFlatbuffer)
	}
	return nil
}

// plainSchema returns the schema of decoded batches, or which column cannot be decoded.
func plainSchema(wire *arrow.Schema) (*arrow.Schema, error) {
	fields := make([]arrow.Field, wire.NumFields())
	for i, field := range wire.Fields() {
		plain, err := plainField(field)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", field.Name, err)
		}
		fields[i] = plain
	}
	meta := wire.Metadata()
	return arrow.NewSchema(fields, &meta), nil
}

// plainField returns a field as it is after decoding.
func plainField(f arrow.Field) (arrow.Field, error) {
	if t, ok := f.Type.(*arrow.DictionaryType); ok {
		f.Metadata = lsm.DictionaryMetadata(t, f.Metadata)
	}
	var err error
	f.Type, err = plainType(f.Type)
	return f, err
}

// plainType returns the type that values of type t have after decoding.
func plainType(t arrow.DataType) (arrow.DataType, error) {
	switch t := t.(type) {
	case *arrow.DictionaryType:
		value, err := plainType(t.ValueType)
		if err != nil {
			return nil, err
		}
		if !copyable(value) {
			return nil, fmt.Errorf("a dictionary of %s is not read; send plain values", t.ValueType)
		}
		return value, nil
	case *arrow.StringViewType:
		return arrow.BinaryTypes.String, nil
	case *arrow.BinaryViewType:
		return arrow.BinaryTypes.Binary, nil
	case *arrow.StructType, *arrow.ListType, *arrow.LargeListType, *arrow.FixedSizeListType, *arrow.MapType:
		return plainNested(t.(arrow.NestedType))
	}
	return t, readable(t)
}

// plainNested is plainType for types with others in them.
func plainNested(t arrow.NestedType) (arrow.DataType, error) {
	fields := t.Fields()
	for i, f := range fields {
		plain, err := plainField(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		fields[i] = plain
	}
	switch t := t.(type) {
	case *arrow.ListType:
		return arrow.ListOfField(fields[0]), nil
	case *arrow.LargeListType:
		return arrow.LargeListOfField(fields[0]), nil
	case *arrow.FixedSizeListType:
		if t.Len() < 0 {
			return nil, fmt.Errorf("a list of %d elements cannot be", t.Len())
		}
		return arrow.FixedSizeListOfField(t.Len(), fields[0]), nil
	case *arrow.MapType:
		if t.KeysSorted {
			return nil, fmt.Errorf("type %s is not stored: Lance's maps do not say that their keys are sorted; send them without that flag", t)
		}
		entries := fields[0].Type.(*arrow.StructType)
		return arrow.MapOfFields(entries.Field(0), entries.Field(1)), nil
	}
	return arrow.StructOf(fields...), nil
}

// readable reports types whose layout the decoder does not know, or that no table can have.
func readable(t arrow.DataType) error {
	switch t := t.(type) {
	case *arrow.RunEndEncodedType:
		return fmt.Errorf("type %s is not stored: Lance has no run-end encoding; send %s", t, t.Encoded())
	case *arrow.ListViewType:
		return fmt.Errorf("type %s is not stored: Lance has no views of lists; send %s", t, arrow.ListOfField(t.ElemField()))
	case *arrow.LargeListViewType:
		return fmt.Errorf("type %s is not stored: Lance has no views of lists; send %s", t, arrow.LargeListOfField(t.ElemField()))
	case *arrow.MonthIntervalType, *arrow.DayTimeIntervalType, *arrow.MonthDayNanoIntervalType:
		return fmt.Errorf("type %s is not stored: Lance has no intervals; send a duration, or a struct of months, days and nanoseconds", t)
	case *arrow.Decimal32Type:
		return fmt.Errorf("type %s is not stored: Lance's decimals have 128 or 256 bits; send decimal128(%d, %d)", t, t.Precision, t.Scale)
	case *arrow.Decimal64Type:
		return fmt.Errorf("type %s is not stored: Lance's decimals have 128 or 256 bits; send decimal128(%d, %d)", t, t.Precision, t.Scale)
	case *arrow.FixedSizeBinaryType:
		if t.ByteWidth < 0 {
			return fmt.Errorf("a value of %d bytes cannot be", t.ByteWidth)
		}
	}
	return nil
}
