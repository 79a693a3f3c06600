package lance

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
)

// Metadata keys by which Arrow schemas declare a primary key. Lance keeps them beside its own two fields.
const (
	// MetaKey with the value "true" makes a column part of the primary key.
	MetaKey = "lance-schema:unenforced-primary-key"
	// MetaKeyPosition is the 1-based place in the key; columns without one follow by field id.
	MetaKeyPosition = "lance-schema:unenforced-primary-key:position"
)

// Field is a column of a schema.
type Field struct {
	// ID is the number by which data files and indexes refer to the column. It outlives renames.
	ID int32
	// Name is the column's name.
	Name string
	// Type is the Arrow type.
	Type arrow.DataType
	// Nullable tells whether rows may be null.
	Nullable bool
	// Metadata is the Arrow metadata of the field, primary-key entries included.
	Metadata arrow.Metadata
	// Key is the 1-based place in the primary key, 0 for other columns.
	Key int
	// index names the type of the indices of a dictionary as a file or manifest has it.
	index string
	// form is how the values are stored, formMetadata what a file or manifest says of it, and packed the bits of the fields
	// of packed structs, in a field that formField made.
	form         form
	formMetadata map[string]string
	packed       []uint64
	// Children are the fields of a struct, or the one item of a list. They say of their types what Type says, and
	// their ids beside.
	Children []Field
}

// Schema lists the columns of a file or table. It is immutable once it is in use.
type Schema struct {
	// Fields are the columns in order.
	Fields []Field
	// Metadata is the Arrow metadata of the schema.
	Metadata map[string]string
}

// SchemaFromArrow returns the schema of an Arrow schema. It gives the fields the ids from nextID on, nested fields
// behind their parent's, and takes the primary key from their metadata.
func SchemaFromArrow(s *arrow.Schema, nextID int32) (*Schema, error) {
	out := &Schema{Fields: make([]Field, 0, s.NumFields()), Metadata: s.Metadata().ToMap()}
	for _, f := range s.Fields() {
		field, err := fieldFromArrow(f, &nextID, 0)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		out.Fields = append(out.Fields, field)
	}
	return out, out.placeKeys(func(i int) (bool, uint32) { return declaredKey(out.Fields[i].Metadata) })
}

// Arrow returns the schema as Arrow has it. Key columns carry the metadata that declares them.
func (s *Schema) Arrow() *arrow.Schema {
	fields := make([]arrow.Field, len(s.Fields))
	for i, f := range s.Fields {
		fields[i] = arrow.Field{Name: f.Name, Type: f.Type, Nullable: f.Nullable, Metadata: s.fieldMetadata(i)}
	}
	md := arrow.MetadataFrom(s.Metadata)
	return arrow.NewSchema(fields, &md)
}

// Proto returns the fields as files and manifests store them: in one list, nested fields behind their parent.
func (s *Schema) Proto() []*lancepb.Field {
	var fields []*lancepb.Field
	for i, f := range s.Fields {
		f.Metadata = s.fieldMetadata(i)
		_, position := declaredKey(f.Metadata)
		from := len(fields)
		fields = appendProto(fields, f, -1)
		fields[from].UnenforcedPrimaryKey, fields[from].UnenforcedPrimaryKeyPosition = f.Key > 0, position
	}
	return fields
}

// SchemaFromProto returns the schema that a file or manifest stores.
func SchemaFromProto(fields []*lancepb.Field, meta map[string][]byte) (*Schema, error) {
	tree, err := newProtoTree(fields)
	if err != nil {
		return nil, err
	}
	s := &Schema{Fields: make([]Field, 0, len(tree.tops)), Metadata: stringMap(meta)}
	for _, i := range tree.tops {
		f, err := tree.field(i, 0)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", fields[i].GetName(), err)
		}
		s.Fields = append(s.Fields, f)
	}
	return s, s.placeKeys(func(i int) (bool, uint32) {
		f := fields[tree.tops[i]]
		return f.GetUnenforcedPrimaryKey(), f.GetUnenforcedPrimaryKeyPosition()
	})
}

// placeKeys numbers the key columns: those with a position by it, then the others by id.
func (s *Schema) placeKeys(declared func(i int) (key bool, position uint32)) error {
	type place struct {
		column   int
		position uint32
	}
	var keys []place
	for i := range s.Fields {
		if key, position := declared(i); key {
			keys = append(keys, place{i, position})
		}
	}
	slices.SortStableFunc(keys, func(a, b place) int {
		// Position 0 means none and comes last: as an unsigned number, 0-1 is the largest.
		if a.position != b.position {
			return cmp.Compare(a.position-1, b.position-1)
		}
		return cmp.Compare(s.Fields[a.column].ID, s.Fields[b.column].ID)
	})
	for n, k := range keys {
		if n > 0 && k.position > 0 && k.position == keys[n-1].position {
			return fmt.Errorf("columns %q and %q have the same place %d in the primary key",
				s.Fields[keys[n-1].column].Name, s.Fields[k.column].Name, k.position)
		}
		s.Fields[k.column].Key = n + 1
	}
	return nil
}

// fieldMetadata returns the metadata of column i with the entries that declare its place in the key. Positions are
// added only where there are none and the order of the ids would say something else, so that a schema that came from
// another writer stays as it was.
func (s *Schema) fieldMetadata(i int) arrow.Metadata {
	f := s.Fields[i]
	if f.Key == 0 {
		return f.Metadata
	}
	md := f.Metadata.ToMap()
	if md == nil {
		md = map[string]string{}
	}
	if key, _ := declaredKey(f.Metadata); !key {
		md[MetaKey] = "true"
	}
	if s.lacksPositions() {
		md[MetaKeyPosition] = strconv.Itoa(f.Key)
	}
	return arrow.MetadataFrom(md)
}

// lacksPositions reports whether the place of the key columns is said neither by metadata nor by their ids.
func (s *Schema) lacksPositions() bool {
	var keys []Field
	for _, f := range s.Fields {
		if f.Key == 0 {
			continue
		}
		if f.Metadata.FindKey(MetaKeyPosition) >= 0 {
			return false
		}
		keys = append(keys, f)
	}
	slices.SortFunc(keys, func(a, b Field) int { return cmp.Compare(a.Key, b.Key) })
	return !slices.IsSortedFunc(keys, func(a, b Field) int { return cmp.Compare(a.ID, b.ID) })
}

// declaredKey reads a declaration of a key from the metadata of a field, as liberally as Lance does.
func declaredKey(md arrow.Metadata) (key bool, position uint32) {
	if v, ok := md.GetValue(MetaKeyPosition); ok {
		if n, err := strconv.ParseUint(v, 10, 32); err == nil {
			return true, uint32(n)
		}
	}
	v, _ := md.GetValue(MetaKey)
	switch strings.ToLower(v) {
	case "true", "1", "yes":
		return true, 0
	}
	return false, 0
}

func bytesMap(m map[string]string) map[string][]byte {
	if len(m) == 0 {
		return nil
	}
	out := make(map[string][]byte, len(m))
	for k, v := range m {
		out[k] = []byte(v)
	}
	return out
}

func stringMap(m map[string][]byte) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = string(v)
	}
	return out
}
