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
		"/lance.encodings.ArrayEncoding":     &ArrayEncoding{},
		"/lance.encodings.ColumnEncoding":    &ColumnEncoding{},
		"/lance.table.BTreeIndexDetails":     &BTreeIndexDetails{},
		"/lance.table.MemWalIndexDetails":    &MemWalIndexDetails{},
		"/lance.index.pb.VectorIndexDetails": &VectorIndexDetails{},
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

// The bytes are those of pylance 14.0.2, for an IVF_PQ under cosine with 8 bits and 4 sub-vectors, and an IVF_FLAT under L2.
func TestDetailsOfVectorIndexesAreThoseOfLance(t *testing.T) {
	var d VectorIndexDetails
	pq := "\x08\x01\"\x04\x08\x08\x10\x04J\x19\n\x13lance.ivf.max_iters\x12\x0250"
	require.NoError(t, proto.Unmarshal([]byte(pq), &d))
	want := &VectorIndexDetails{MetricType: VectorMetric_VECTOR_METRIC_COSINE, Pq: &VectorProduct{NumBits: 8, NumSubVectors: 4}, RuntimeHints: map[string]string{"lance.ivf.max_iters": "50"}}
	require.True(t, proto.Equal(want, &d))
	b, err := proto.Marshal(want)
	require.NoError(t, err)
	require.Equal(t, pq, string(b))
	require.NoError(t, proto.Unmarshal([]byte("B\x00"), &d))
	require.True(t, proto.Equal(&VectorIndexDetails{Flat: &VectorFlat{}}, &d))
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
