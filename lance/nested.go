package lance

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
)

// maxDepth bounds how deep types are nested. Types are walked by recursion, and a file can claim any depth.
const maxDepth = 64

// FieldIDs returns the ids of all fields, those of nested fields behind their parent's. This is the order of the columns
// of a file: each field has one.
func (s *Schema) FieldIDs() []int32 {
	var ids []int32
	s.walk(func(f *Field, _ string) { ids = append(ids, f.ID) })
	return ids
}

// LastID returns the highest id of a field, or -1.
func (s *Schema) LastID() int32 {
	last := int32(-1)
	s.walk(func(f *Field, _ string) { last = max(last, f.ID) })
	return last
}

// Renumber gives the fields other ids, in the order of FieldIDs. REQUIRES: nobody else uses the schema yet.
func (s *Schema) Renumber(ids []int32) error {
	if n := len(s.FieldIDs()); n != len(ids) {
		return fmt.Errorf("%d ids for a schema of %d fields", len(ids), n)
	}
	i := 0
	s.walk(func(f *Field, _ string) {
		f.ID = ids[i]
		i++
	})
	return nil
}

// walk calls fn for all fields in the order of FieldIDs, with their names from the top.
func (s *Schema) walk(fn func(f *Field, path string)) {
	for i := range s.Fields {
		s.Fields[i].walk(s.Fields[i].Name, fn)
	}
}

func (f *Field) walk(path string, fn func(f *Field, path string)) {
	fn(f, path)
	for i := range f.Children {
		f.Children[i].walk(path+"."+f.Children[i].Name, fn)
	}
}

// childrenOf returns the fields of a struct or the item of a list, whose ids are those of fields of their own. The items
// of a fixed-size list are no field.
func childrenOf(dt arrow.DataType) []arrow.Field {
	switch t := dt.(type) {
	case *arrow.StructType:
		return t.Fields()
	case *arrow.ListType:
		return []arrow.Field{t.ElemField()}
	case *arrow.LargeListType:
		return []arrow.Field{t.ElemField()}
	case *arrow.MapType:
		return []arrow.Field{t.ElemField()}
	}
	return nil
}

// fieldFromArrow numbers a field and those below it from *next on.
func fieldFromArrow(f arrow.Field, next *int32, depth int) (Field, error) {
	if depth > maxDepth {
		return Field{}, fmt.Errorf("types are nested more than %d deep: %w", maxDepth, ErrUnsupported)
	}
	if _, err := logicalType(f.Type); err != nil {
		return Field{}, err
	}
	out := Field{ID: *next, Name: f.Name, Type: f.Type, Nullable: f.Nullable, Metadata: f.Metadata}
	*next++
	for _, child := range childrenOf(f.Type) {
		c, err := fieldFromArrow(child, next, depth+1)
		if err != nil {
			return Field{}, fmt.Errorf("%q: %w", child.Name, err)
		}
		out.Children = append(out.Children, c)
	}
	return out, nil
}

// WithNulls returns the field with nulls allowed in it and, as structs cannot be null, in the fields of its structs.
func (f Field) WithNulls() Field {
	f.Nullable = true
	s, ok := f.Type.(*arrow.StructType)
	if !ok {
		return f
	}
	fields := s.Fields()
	children := make([]Field, len(f.Children))
	for i, child := range f.Children {
		children[i] = child.WithNulls()
		fields[i].Type, fields[i].Nullable = children[i].Type, true
	}
	f.Children, f.Type = children, arrow.StructOf(fields...)
	return f
}

// check refuses a hand-made field whose type cannot be stored or has other children than the field.
func (f *Field) check() error {
	if _, err := logicalType(f.Type); err != nil {
		return err
	}
	want := childrenOf(f.Type)
	if len(want) != len(f.Children) {
		return fmt.Errorf("type %s has %d nested fields, the field %d", f.Type, len(want), len(f.Children))
	}
	for i := range f.Children {
		if err := f.Children[i].check(); err != nil {
			return fmt.Errorf("%q: %w", f.Children[i].Name, err)
		}
	}
	return nil
}

// appendProto adds a field and those below it.
func appendProto(fields []*lancepb.Field, f Field, parent int32) []*lancepb.Field {
	logical, err := f.logicalName()
	if err != nil {
		// All constructors have refused such a type; a hand-made schema that slips through is refused by every
		// reader, ours included.
		logical = f.Type.String()
	}
	kind := lancepb.FieldKind_LEAF
	switch f.Type.ID() {
	case arrow.STRUCT:
		kind = lancepb.FieldKind_PARENT
	case arrow.LIST, arrow.LARGE_LIST, arrow.MAP:
		kind = lancepb.FieldKind_REPEATED
	}
	fields = append(fields, &lancepb.Field{
		Type: kind, Name: f.Name, Id: f.ID, ParentId: parent, LogicalType: logical, Nullable: f.Nullable,
		Metadata: bytesMap(f.storedMetadata()),
	})
	if f.dictionary() || f.form == numbersForm {
		last := fields[len(fields)-1]
		last.Dictionary = &lancepb.FieldDictionary{}
	}
	for _, child := range f.Children {
		fields = appendProto(fields, child, f.ID)
	}
	return fields
}

// protoTree finds the children of stored fields.
type protoTree struct {
	fields   []*lancepb.Field
	tops     []int   // fields without a parent
	children [][]int // of each field
}

// newProtoTree arranges stored fields. A parent comes before its children, so there can be no circle.
func newProtoTree(fields []*lancepb.Field) (*protoTree, error) {
	t := &protoTree{fields: fields, children: make([][]int, len(fields))}
	byID := make(map[int32]int, len(fields))
	for i, f := range fields {
		if f.GetId() < 0 && i > 0 { // what is in the places of blobs, in a file
			continue
		}
		if f.GetParentId() < 0 {
			t.tops = append(t.tops, i)
		} else if parent, ok := byID[f.GetParentId()]; ok {
			t.children[parent] = append(t.children[parent], i)
		} else {
			return nil, fmt.Errorf("column %q: there is no field %d before it, which should be its parent", f.GetName(), f.GetParentId())
		}
		byID[f.GetId()] = i
	}
	return t, nil
}

// field returns stored field i with those below it.
func (t *protoTree) field(i, depth int) (Field, error) {
	if depth > maxDepth {
		return Field{}, fmt.Errorf("types are nested more than %d deep: %w", maxDepth, ErrUnsupported)
	}
	f := t.fields[i]
	out := Field{
		ID: f.GetId(), Name: f.GetName(), Nullable: f.GetNullable(),
	}
	out.form = formOf(f)
	// Arrow compares some types by reflection, to which empty metadata is not equal to none.
	all := stringMap(f.GetMetadata())
	md := withoutForm(showExtension(maps.Clone(all)))
	if out.form != plainForm {
		out.formMetadata = formOnly(all)
	}
	if out.form == jsonForm {
		md[extensionName] = jsonExtension
	}
	if len(md) > 0 {
		out.Metadata = arrow.MetadataFrom(md)
	}
	switch out.form {
	case jsonForm:
		out.Type = arrow.BinaryTypes.String
		return out, nil
	case placedForm: // what is below it in a manifest has no columns
		out.Type = arrow.BinaryTypes.LargeBinary
		return out, nil
	}
	below := make([]arrow.Field, 0, len(t.children[i]))
	for _, c := range t.children[i] {
		child, err := t.field(c, depth+1)
		if err != nil {
			return Field{}, fmt.Errorf("%q: %w", t.fields[c].GetName(), err)
		}
		out.Children = append(out.Children, child)
		below = append(below, arrow.Field{Name: child.Name, Type: child.Type, Nullable: child.Nullable, Metadata: child.Metadata})
	}
	var err error
	if strings.HasPrefix(f.GetLogicalType(), "dict:") {
		out.Type, out.index, err = parseDictionaryName(f.GetLogicalType())
		if _, text := out.Type.(arrow.BinaryDataType); !text {
			out.form = numbersForm
		}
		if _, known := out.Metadata.GetValue(MetaDictionary); !known && err == nil {
			md := out.Metadata
			out.Metadata = arrow.NewMetadata(append(slices.Clone(md.Keys()), MetaDictionary), append(slices.Clone(md.Values()), out.index))
		}
		return out, err
	}
	out.Type, err = parseFieldType(f.GetLogicalType(), below)
	return out, err
}

// parseFieldType returns the type of a stored field with the given children.
func parseFieldType(name string, children []arrow.Field) (arrow.DataType, error) {
	switch name {
	case "struct":
		return arrow.StructOf(children...), nil
	case "list", "list.struct", "large_list", "large_list.struct":
		if len(children) != 1 {
			return nil, fmt.Errorf("type %q: a list with %d children, want 1", name, len(children))
		}
		if name == "list" || name == "list.struct" {
			return arrow.ListOfField(children[0]), nil
		}
		return arrow.LargeListOfField(children[0]), nil
	}
	if name == "map" {
		return parseMap(children)
	}
	if len(children) > 0 {
		return nil, fmt.Errorf("type %q with nested fields: %w", name, ErrUnsupported)
	}
	return parseLogicalType(name)
}

// parseMap returns a map with the given entries.
func parseMap(children []arrow.Field) (arrow.DataType, error) {
	if len(children) != 1 {
		return nil, fmt.Errorf("a map with %d children, want its entries", len(children))
	}
	entries, ok := children[0].Type.(*arrow.StructType)
	if !ok || entries.NumFields() != 2 {
		return nil, fmt.Errorf("a map whose entries are %s, want a key and a value", children[0].Type)
	}
	if entries.Field(0).Nullable {
		return nil, errors.New("a map whose keys may be null")
	}
	return arrow.MapOfFields(entries.Field(0), entries.Field(1)), nil
}

// Check refuses a schema that files of a version cannot hold.
func (s *Schema) Check(v Version) error {
	var err error
	s.walk(func(f *Field, path string) {
		switch {
		case err != nil:
		case f.Type.ID() == arrow.MAP && v < Version22:
			err = fmt.Errorf("column %q: type %s: Lance %s has no maps; use a list of structs, or a table of Lance 2.2, which CREATE TABLE with such a column makes: %w",
				path, f.Type, v, ErrUnsupported)
		case v == Version21 && bitWidth(f.Type)%8 != 0 && bitWidth(f.Type) > smallChunk*8/4: // two of which must fit a chunk
			err = fmt.Errorf("column %q: type %s: Lance %s has no room for it; use a length that is a multiple of eight: %w", path, f.Type, v, ErrUnsupported)
		case f.Type.ID() == arrow.STRUCT && len(f.Children) == 0 && v > Version20:
			err = fmt.Errorf("column %q: structs without fields: Lance %s has none; use a boolean: %w", path, v, ErrUnsupported)
		}
	})
	return err
}
