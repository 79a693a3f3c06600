package lsm

import "github.com/apache/arrow-go/v18/arrow"

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
	}
	return f
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
	}
	return f
}
