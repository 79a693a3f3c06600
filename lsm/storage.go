package lsm

import (
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
)

// Keys of the metadata by which an Arrow field says that its type is an extension.
const (
	extensionName     = "ARROW:extension:name"
	extensionMetadata = "ARROW:extension:metadata"
)

// StorageSchema returns a schema in which no type is an arrow.ExtensionType: a column has the type that it is stored as,
// and the field's metadata say what it stands for, as on the wire and in Lance. Whether arrow-go makes an ExtensionType
// of such metadata depends on what else is linked into the program, so all schemas that it read come through here.
func StorageSchema(s *arrow.Schema) *arrow.Schema {
	fields := s.Fields()
	changed := false
	for i, f := range fields {
		fields[i] = storageField(f)
		changed = changed || fields[i].Type != f.Type
	}
	if !changed {
		return s
	}
	md := s.Metadata()
	return arrow.NewSchema(fields, &md)
}

// storageField is StorageSchema for a field and what is nested in it.
func storageField(f arrow.Field) arrow.Field {
	switch t := f.Type.(type) {
	case arrow.ExtensionType:
		keys := append([]string{extensionName, extensionMetadata}, f.Metadata.Keys()...)
		values := append([]string{t.ExtensionName(), t.Serialize()}, f.Metadata.Values()...)
		f.Type, f.Metadata = t.StorageType(), arrow.NewMetadata(keys, values)
		return storageField(f)
	case *arrow.StructType:
		fields := t.Fields()
		for i, child := range fields {
			fields[i] = storageField(child)
		}
		f.Type = arrow.StructOf(fields...)
	case *arrow.ListType:
		f.Type = arrow.ListOfField(storageField(t.ElemField()))
	case *arrow.LargeListType:
		f.Type = arrow.LargeListOfField(storageField(t.ElemField()))
	case *arrow.FixedSizeListType:
		f.Type = arrow.FixedSizeListOfField(t.Len(), storageField(t.ElemField()))
	case *arrow.MapType:
		f.Type = mapOf(t, storageField)
	}
	return f
}

// mapOf returns a map of other keys and values.
func mapOf(t *arrow.MapType, change func(arrow.Field) arrow.Field) *arrow.MapType {
	out := arrow.MapOfFields(change(t.KeyField()), change(t.ItemField()))
	out.KeysSorted = t.KeysSorted
	return out
}

// BareSchema returns a schema without metadata, of which arrow-go makes nothing when it reads the schema back.
func BareSchema(s *arrow.Schema) *arrow.Schema {
	fields := s.Fields()
	for i, f := range fields {
		fields[i] = withoutMetadata(f)
	}
	return arrow.NewSchema(fields, nil)
}

// withoutMetadata returns a field, and what is nested in it, without metadata.
func withoutMetadata(f arrow.Field) arrow.Field {
	f.Metadata = arrow.Metadata{}
	switch t := f.Type.(type) {
	case *arrow.StructType:
		fields := t.Fields()
		for i, child := range fields {
			fields[i] = withoutMetadata(child)
		}
		f.Type = arrow.StructOf(fields...)
	case *arrow.ListType:
		f.Type = arrow.ListOfField(withoutMetadata(t.ElemField()))
	case *arrow.LargeListType:
		f.Type = arrow.LargeListOfField(withoutMetadata(t.ElemField()))
	case *arrow.FixedSizeListType:
		f.Type = arrow.FixedSizeListOfField(t.Len(), withoutMetadata(t.ElemField()))
	case *arrow.MapType:
		f.Type = mapOf(t, withoutMetadata)
	}
	return f
}

// MetaDictionary is the metadata of a field that is a dictionary of its type.
const MetaDictionary = lance.MetaDictionary

// DictionaryMetadata returns the metadata of a field whose rows are kept as plain values, but whose type is a dictionary.
func DictionaryMetadata(t *arrow.DictionaryType, md arrow.Metadata) arrow.Metadata {
	return lance.DictionaryMetadata(t, md)
}

// WireSchema returns the schema of a table, or of a part of it, as clients see it: with the dictionaries whose rows are
// kept as plain values.
func WireSchema(s *arrow.Schema) *arrow.Schema {
	fields := s.Fields()
	for i, f := range fields {
		fields[i] = wireField(f)
	}
	md := s.Metadata()
	return arrow.NewSchema(fields, &md)
}

// wireField is WireSchema for a field and what is nested in it.
func wireField(f arrow.Field) arrow.Field {
	switch t := f.Type.(type) {
	case *arrow.StructType:
		fields := t.Fields()
		for i, child := range fields {
			fields[i] = wireField(child)
		}
		f.Type = arrow.StructOf(fields...)
	case *arrow.ListType:
		f.Type = arrow.ListOfField(wireField(t.ElemField()))
	case *arrow.LargeListType:
		f.Type = arrow.LargeListOfField(wireField(t.ElemField()))
	case *arrow.FixedSizeListType:
		f.Type = arrow.FixedSizeListOfField(t.Len(), wireField(t.ElemField()))
	case *arrow.MapType:
		f.Type = mapOf(t, wireField)
	}
	dictionary, ok := lance.DictionaryType(f.Type, f.Metadata)
	if !ok {
		return f
	}
	var keys, values []string
	for i, k := range f.Metadata.Keys() {
		if k != lance.MetaDictionary {
			keys, values = append(keys, k), append(values, f.Metadata.Values()[i])
		}
	}
	f.Type, f.Metadata = dictionary, arrow.NewMetadata(keys, values)
	return f
}
