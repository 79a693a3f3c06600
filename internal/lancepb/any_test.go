package lancepb

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestTypeURLsAreThoseOfLance(t *testing.T) {
	for want, m := range map[string]proto.Message{
		"/lance.encodings.ArrayEncoding":  &ArrayEncoding{},
		"/lance.encodings.ColumnEncoding": &ColumnEncoding{},
		"/lance.table.BTreeIndexDetails":  &BTreeIndexDetails{},
		"/lance.table.MemWalIndexDetails": &MemWalIndexDetails{},
	} {
		a, err := NewAny(m)
		require.NoError(t, err)
		require.Equal(t, want, a.TypeUrl)
	}
}

func TestUnwrapAcceptsEveryPrefixAndRefusesOtherMessages(t *testing.T) {
	want := &MemWalIndexDetails{NumShards: 3}
	a, err := NewAny(want)
	require.NoError(t, err)
	for _, prefix := range []string{"", "/", "type.googleapis.com/"} {
		a.TypeUrl = prefix + "lance.table.MemWalIndexDetails"
		var got MemWalIndexDetails
		require.NoError(t, Unwrap(a, &got))
		require.True(t, proto.Equal(want, &got))
	}
	require.Error(t, Unwrap(a, &BTreeIndexDetails{}))
	require.Error(t, Unwrap(nil, &BTreeIndexDetails{}))
	require.Error(t, Unwrap(&anypb.Any{TypeUrl: "/lance.table.MemWalIndexDetails", Value: []byte{0xff}}, want))
}

func TestFieldsThatWeDoNotNameSurvive(t *testing.T) {
	in, err := proto.Marshal(&Manifest{Version: 7})
	require.NoError(t, err)
	in = protowire.AppendTag(in, 22, protowire.BytesType)
	in = protowire.AppendBytes(in, []byte("a fragment tree"))
	var m Manifest
	require.NoError(t, proto.Unmarshal(in, &m))
	out, err := proto.Marshal(&m)
	require.NoError(t, err)
	require.Equal(t, in, out)
}
