package query

import (
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lsm"
)

// Keys of the metadata by which an Arrow field says that its type is an extension.
const (
	extensionName     = "ARROW:extension:name"
	extensionMetadata = "ARROW:extension:metadata"
)

// The extensions that are types of SQL, too. All others are what they are stored as.
const (
	extensionUUID = "arrow.uuid"
	extensionJSON = "arrow.json"
)

// uuidBytes is the width of the bytes that a UUID is stored as.
const uuidBytes = 16

// extensionOf returns which of SQL's extensions a field has, "" for none. A name that does not fit the type that it
// stands on means nothing.
func extensionOf(f arrow.Field) string {
	name, ok := f.Metadata.GetValue(extensionName)
	if !ok {
		return ""
	}
	switch t := f.Type.(type) {
	case *arrow.FixedSizeBinaryType:
		if name == extensionUUID && t.ByteWidth == uuidBytes {
			return name
		}
	case *arrow.StringType, *arrow.LargeStringType:
		if name == extensionJSON {
			return name
		}
	}
	return ""
}

// hasTypeMetadata reports whether there is more to a field's type than its Arrow type, which is that of its values.
func hasTypeMetadata(f arrow.Field) bool { return typeMetadata(f).Len() > 0 }

// extensionField returns the metadata of a field with an extension that has no parameters.
func extensionField(name string) arrow.Metadata {
	return arrow.NewMetadata([]string{extensionName, extensionMetadata}, []string{name, ""})
}

// typeMetadata returns what of a field's metadata belongs to its type.
func typeMetadata(f arrow.Field) arrow.Metadata {
	var keys, values []string
	for i, k := range f.Metadata.Keys() {
		if k == extensionName || k == extensionMetadata || k == lsm.MetaDictionary {
			keys, values = append(keys, k), append(values, f.Metadata.Values()[i])
		}
	}
	if keys == nil {
		return arrow.Metadata{}
	}
	return arrow.NewMetadata(keys, values)
}
