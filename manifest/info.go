package manifest

import (
	"context"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/flightd/flightd/object"
)

// Time is when the version was committed, by the clock of who did it; zero when that is not said.
func (v *Version) Time() time.Time {
	if t := v.raw.GetTimestamp(); t != nil {
		return t.AsTime()
	}
	return time.Time{}
}

// Ours reports whether flightd committed the version. One that another program copied from it, by a restore or a clone, is not.
func (v *Version) Ours() bool { return v.ours }

// Writer names the program that committed the version, with its own version, "" when that is not said.
func (v *Version) Writer() string {
	w := v.raw.GetWriterVersion()
	return strings.TrimSpace(w.GetLibrary() + " " + w.GetVersion())
}

// Operation names what the commit of the version did as Lance calls it, such as Append or Rewrite, "" when that is not said.
func (v *Version) Operation(ctx context.Context, st object.Store, root string) (string, error) {
	tx, err := v.transaction(ctx, st, root)
	if err != nil {
		return "", err
	}
	m := tx.ProtoReflect()
	var set protoreflect.FieldDescriptor
	if of := m.Descriptor().Oneofs().ByName("operation"); of != nil {
		set = m.WhichOneof(of)
	}
	if set == nil {
		return unknownOperation(m.GetUnknown()), nil
	}
	var name strings.Builder
	for _, part := range strings.Split(string(set.Name()), "_") {
		name.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return name.String(), nil
}

// otherOperations are those of Lance that flightd only knows by name, by their field in a transaction.
var otherOperations = map[protowire.Number]string{106: "Restore", 111: "DataReplacement", 113: "Clone", 114: "UpdateBases"}

// unknownOperation names the operation among the fields of a transaction that its message here does not have.
func unknownOperation(b []byte) string {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return ""
		}
		if name, ok := otherOperations[field]; ok {
			return name
		}
		m := protowire.ConsumeFieldValue(field, kind, b[n:])
		if m < 0 {
			return ""
		}
		b = b[n+m:]
	}
	return ""
}
