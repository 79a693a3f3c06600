package keyfilter

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// FuzzOpen reads any bytes as a filter, as they are and with checksums that fit: a filter or damage, and no panic when
// it is asked.
func FuzzOpen(f *testing.F) {
	x := New(100)
	for i := range int64(100) {
		x.Add(Int(i))
	}
	b := append(x.header(), x.blocks...)
	f.Add(b, false)
	f.Add(b, true)
	f.Add(b[:headerBytes], true)
	f.Add(b[:10], false)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if mend && len(b) >= headerBytes {
			copy(b, magic)
			binary.LittleEndian.PutUint32(b[blockSumAt:], crc32.Checksum(b[headerBytes:], castagnoli))
			binary.LittleEndian.PutUint32(b[headerSumAt:], crc32.Checksum(b[:headerSumAt], castagnoli))
		}
		st := object.NewMem()
		require.NoError(t, st.Put(context.Background(), "x", b))
		got, err := Open(context.Background(), st, "x")
		var damage *object.CorruptError
		require.True(t, err == nil || errors.As(err, &damage), "%v", err)
		if err != nil {
			return
		}
		for i := range int64(200) {
			_ = got.Has(Int(i * 7919))
		}
		_, _ = got.Rate(), got.BitsPerKey()
		require.NoError(t, got.Close())
	})
}
