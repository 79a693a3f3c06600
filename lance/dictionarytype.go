package lance

import (
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// MetaDictionary is the metadata of a field that is a dictionary of its type: its value is the type of the indices,
// such as "int32", and ":ordered" behind it where the order of the values means something. In memory and in the log, the
// rows of such a column are plain values; in a file, they have a dictionary for each page.
const MetaDictionary = "flightd:dictionary"

// indexTypes are the types that indices of dictionaries can have.
var indexTypes = []arrow.DataType{
	arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
	arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64,
}

// DictionaryType returns the type of a dictionary of values, if metadata of their field say that it is one.
func DictionaryType(values arrow.DataType, md arrow.Metadata) (*arrow.DictionaryType, bool) {
	v, ok := md.GetValue(MetaDictionary)
	if !ok {
		return nil, false
	}
	name, order, _ := strings.Cut(v, ":")
	for _, t := range indexTypes {
		if t.Name() == name {
			return &arrow.DictionaryType{IndexType: t, ValueType: values, Ordered: order == "ordered"}, true
		}
	}
	return nil, false
}

// DictionaryMetadata is the inverse of DictionaryType: md and what says that the field is such a dictionary.
func DictionaryMetadata(t *arrow.DictionaryType, md arrow.Metadata) arrow.Metadata {
	v := t.IndexType.Name()
	if t.Ordered {
		v += ":ordered"
	}
	return arrow.NewMetadata(append([]string{MetaDictionary}, md.Keys()...), append([]string{v}, md.Values()...))
}

// dictionary reports whether the pages of a field have dictionaries: those of strings and bytes have, except in keys,
// which are looked up. Dictionaries of other values, which Lance can hold in part only, are stored as their values.
func (f *Field) dictionary() bool {
	_, ok := DictionaryType(f.Type, f.Metadata)
	_, text := f.Type.(arrow.BinaryDataType)
	return ok && text && f.Key == 0
}

// logicalName returns Lance's name of a field's type.
func (f *Field) logicalName() (string, error) {
	if f.form == jsonForm {
		return "json", nil
	}
	name, err := logicalType(f.Type)
	if err != nil || !f.dictionary() && f.form != numbersForm {
		return name, err
	}
	return fmt.Sprintf("dict:%s:%s:false", name, f.storedIndex().Name()), nil
}

// storedIndex is the type of the indices in a dictionary's pages: at least 32 bits, because other readers join the
// dictionaries of all pages of a column into one, and refuse to read what then has no index.
func (f *Field) storedIndex() arrow.DataType {
	t, _ := DictionaryType(f.Type, f.Metadata)
	if t.IndexType.(arrow.FixedWidthDataType).BitWidth() < 32 {
		return arrow.PrimitiveTypes.Int32
	}
	return t.IndexType
}

// Writable returns why a Writer cannot write further files of a table whose manifest has the schema: it knows no blobs, no
// packed structs with fields that vary in length, and pages of dictionaries must have indices of the type that the schema
// says, which its are not if they are narrow.
func (s *Schema) Writable() error {
	var err error
	s.walk(func(f *Field, path string) {
		switch {
		case err != nil:
		case f.writable() != nil:
			err = fmt.Errorf("column %q: %w", path, f.writable())
		case f.index != "" && f.dictionary() && f.index != f.storedIndex().Name():
			err = fmt.Errorf("column %q: dictionaries with indices of %s: %w", path, f.index, ErrUnsupported)
		}
	})
	return err
}

// numberBits is the width of the indices in a dictionary's pages.
func (f *Field) numberBits() int {
	return f.storedIndex().(arrow.FixedWidthDataType).BitWidth()
}

// parseDictionaryName returns the values of a dictionary by its Lance name, and the name of its indices.
func parseDictionaryName(name string) (values arrow.DataType, index string, err error) {
	parts := strings.Split(name, ":")
	if len(parts) != 4 {
		return nil, "", fmt.Errorf("type %q: want dict:VALUES:INDICES:ORDERED", name)
	}
	if values, err = parseLogicalType(parts[1]); err != nil {
		return nil, "", err
	}
	if _, ok := values.(arrow.BinaryDataType); !ok && (bitWidth(values) == 0 || values.ID() == arrow.FIXED_SIZE_LIST) {
		return nil, "", fmt.Errorf("type %q: dictionaries of %s: %w", name, values, ErrUnsupported)
	}
	for _, t := range indexTypes {
		if t.Name() == parts[2] {
			return values, parts[2], nil
		}
	}
	return nil, "", fmt.Errorf("type %q: indices of this type", name)
}
