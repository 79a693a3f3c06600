package lancepb

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// NewAny wraps m. The type URL is "/" and the full name, as Lance's own writer has it: some of its readers compare
// the whole URL, so the prefix that Go would choose is not safe.
func NewAny(m proto.Message) (*anypb.Any, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("wrap %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return &anypb.Any{TypeUrl: "/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}, nil
}

// Is reports whether a holds a message of the type of m, whatever prefix its type URL has. A nil a holds nothing.
func Is(a *anypb.Any, m proto.Message) bool {
	return a != nil && a.MessageName() == m.ProtoReflect().Descriptor().FullName()
}

// Unwrap decodes a into m. It fails when a holds a message of another type.
func Unwrap(a *anypb.Any, m proto.Message) error {
	want := m.ProtoReflect().Descriptor().FullName()
	if !Is(a, m) {
		return fmt.Errorf("unwrap %s: found %q", want, a.GetTypeUrl())
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return fmt.Errorf("unwrap %s: %w", want, err)
	}
	return nil
}
