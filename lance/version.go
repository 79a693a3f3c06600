package lance

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
)

// Version is a version of the file format.
type Version int

// The versions that a Reader reads and a Writer writes.
const (
	Version20 Version = iota
	Version21
	Version22
)

// String returns the version as the manifests of tables have it.
func (v Version) String() string { return fmt.Sprintf("2.%d", int(v)) }

// ParseVersion is the inverse of String.
func ParseVersion(s string) (Version, error) {
	for v := Version20; v <= Version22; v++ {
		if v.String() == s {
			return v, nil
		}
	}
	return 0, fmt.Errorf("files of version %q: %w", s, ErrUnsupported)
}

// Needs returns the oldest version that a Writer writes whose files hold whatever rows the schema allows: maps and null
// structs need 2.2.
func (s *Schema) Needs() Version {
	v := Version20
	s.walk(func(f *Field, _ string) {
		if id := f.Type.ID(); id == arrow.MAP || id == arrow.STRUCT && f.Nullable {
			v = Version22
		}
	})
	return v
}

// ColumnIDs returns the ids of the fields that have columns in files of a version, in the order of these: all, or those
// without others below them.
func (s *Schema) ColumnIDs(v Version) []int32 {
	var ids []int32
	for i := range s.Fields {
		ids = s.Fields[i].columnIDs(v, ids)
	}
	return ids
}

func (f *Field) columnIDs(v Version, ids []int32) []int32 {
	if f.leaf() {
		return append(ids, f.ID)
	}
	if v == Version20 {
		ids = append(ids, f.ID)
	}
	for i := range f.Children {
		ids = f.Children[i].columnIDs(v, ids)
	}
	return ids
}
