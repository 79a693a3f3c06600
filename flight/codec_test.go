package flight

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/offheap"
)

// frames cuts b into buffers of at most size bytes, as HTTP/2 does.
func frames(b []byte, size int) mem.BufferSlice {
	var out mem.BufferSlice
	for len(b) > size {
		out = append(out, mem.SliceBuffer(b[:size]))
		b = b[size:]
	}
	return append(out, mem.SliceBuffer(b))
}

func TestFlightDataIsJoinedFromFrames(t *testing.T) {
	before := offheap.Default.InUse()
	want := &flight.FlightData{
		FlightDescriptor: &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{"main", "docs"}},
		DataHeader:       []byte("header"), AppMetadata: []byte("metadata"), DataBody: bytes.Repeat([]byte("body"), 1000),
	}
	b, err := proto.Marshal(want)
	require.NoError(t, err)
	c := newCodec(1 << 20)
	for _, size := range []int{1, 2, 7, 100, 1 << 20} {
		var m message
		require.NoError(t, c.Unmarshal(frames(b, size), &m))
		require.NoError(t, m.err)
		require.True(t, proto.Equal(want.FlightDescriptor, m.descriptor))
		require.Equal(t, want.DataHeader, m.header)
		require.Equal(t, want.DataBody, m.body.Bytes())
		m.release()
	}
	require.Equal(t, before, offheap.Default.InUse())
}

func TestOutgoingDataIsFlightData(t *testing.T) {
	c := newCodec(1 << 20)
	for _, size := range []int{0, 1, 1000, chunkBytes, chunkBytes + 1, 3*chunkBytes + 77} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(rand.IntN(256))
		}
		var body bodyWriter
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(400_000))
			_, err := body.Write(rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		parts, err := c.Marshal(newOutgoing([]byte("header"), &body))
		require.NoError(t, err)
		var got flight.FlightData
		require.NoError(t, proto.Unmarshal(parts.Materialize(), &got))
		parts.Free()
		require.Equal(t, []byte("header"), got.DataHeader)
		require.True(t, bytes.Equal(want, got.DataBody))
	}
}

func TestMessagesThatAreTooLargeSayWhatToDo(t *testing.T) {
	var m message
	require.NoError(t, newCodec(100).Unmarshal(frames(make([]byte, 101), 50), &m))
	require.ErrorIs(t, m.err, errTooLarge)
	require.ErrorContains(t, m.err, "the message has 101 bytes, at most 100 are taken; send fewer rows in a batch")
}

// FuzzMessage reads any bytes as a FlightData and holds the outcome against protobuf's own.
func FuzzMessage(f *testing.F) {
	b, err := proto.Marshal(&flight.FlightData{
		FlightDescriptor: &flight.FlightDescriptor{Path: []string{"t"}}, DataHeader: []byte("h"), DataBody: []byte("body"),
	})
	require.NoError(f, err)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(append(bytes.Clone(b), b...))
	f.Add([]byte{0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Add([]byte{0xC2, 0x3E, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Add([]byte{0x0B, 0x0C, 0x15, 1, 2, 3, 4, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x20, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := offheap.Default.InUse()
		var m message
		require.NoError(t, newCodec(1<<20).Unmarshal(frames(b, 3), &m))
		var want flight.FlightData
		if m.err == nil && proto.Unmarshal(b, &want) == nil {
			require.Equal(t, string(want.DataHeader), string(m.header))
			if m.body != nil {
				require.Equal(t, string(want.DataBody), string(m.body.Bytes()))
			}
		}
		m.release()
		require.Equal(t, before, offheap.Default.InUse())
	})
}
