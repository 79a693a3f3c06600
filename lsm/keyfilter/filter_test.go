package keyfilter

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// hashesOf returns the hashes of n keys of a kind, those of different sets apart from each other.
func hashesOf(kind string, set, n int) []uint64 {
	out := make([]uint64, n)
	random := rand.New(rand.NewPCG(uint64(set), 1))
	for i := range out {
		k := set<<40 + i
		switch kind {
		case "ints in a row":
			out[i] = Int(int64(k))
		case "ints apart":
			out[i] = Int(int64(k) << 12)
		case "random ints":
			out[i] = Int(random.Int64())
		default:
			out[i] = Bytes(binary.BigEndian.AppendUint64([]byte("key-"), uint64(k)))
		}
	}
	return out
}

// TestFilter finds all keys that were added and few others, in the bits that a key may take.
func TestFilter(t *testing.T) {
	const n = 200_000
	for _, kind := range []string{"ints in a row", "ints apart", "random ints", "bytes"} {
		t.Run(kind, func(t *testing.T) {
			f := New(n)
			for _, h := range hashesOf(kind, 0, n) {
				f.Add(h)
			}
			for _, h := range hashesOf(kind, 0, n) {
				require.True(t, f.Has(h))
			}
			passed := 0
			for _, h := range hashesOf(kind, 1, n) {
				if f.Has(h) {
					passed++
				}
			}
			rate := float64(passed) / n
			require.Less(t, rate, 0.0105, "1 %% and its error") // the deviation is 0.02 %
			require.InDelta(t, rate, f.Rate(), 0.002)
			require.LessOrEqual(t, f.BitsPerKey(), 10.01)
			require.Equal(t, int64(n), f.Keys())
		})
	}
}

// TestSizes holds that a filter has at most 10 bits a key but for its last block.
func TestSizes(t *testing.T) {
	for _, n := range []uint64{0, 1, 51, 52, 511, 512, 513, 20_000, 1 << 30, 1 << 40} {
		blocks := blocksFor(n)
		require.GreaterOrEqual(t, blocks*512, n*10, n)
		require.Less(t, blocks*512, n*10+1+512, n)
	}
	empty := New(0)
	require.False(t, empty.Has(Int(0)))
	require.Zero(t, empty.BitsPerKey())
}

// TestFormat holds the hashes and the place of bits, which files depend on.
func TestFormat(t *testing.T) {
	require.Equal(t, uint64(0), Int(0))
	require.Equal(t, uint64(0x5692161d100b05e5), Int(1))
	require.Equal(t, uint64(0xef46db3751d8e999), Bytes(nil))
	f := New(100)
	f.Add(0x8000_0000_0080_0000) // the second of two blocks; the bits are multiples of the spread
	require.Equal(t, uint64(2), f.count)
	want := make([]byte, 128)
	for i, h := 0, uint32(0x0080_0000); i < 6; i, h = i+1, h*0x9E3779B9 {
		bit := h >> 23
		word := binary.LittleEndian.Uint64(want[64+bit/64*8:])
		binary.LittleEndian.PutUint64(want[64+bit/64*8:], word|1<<(bit%64))
	}
	require.Equal(t, want, f.blocks)
}

// TestFile writes and opens a filter in each kind of store, and finds every bit that is wrong.
func TestFile(t *testing.T) {
	ctx := context.Background()
	f := New(300)
	hashes := hashesOf("bytes", 0, 300)
	for _, h := range hashes {
		f.Add(h)
	}
	for name, st := range map[string]object.Store{"disk": object.NewLocal(t.TempDir()), "memory": object.NewMem()} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, f.Write(ctx, st, "g/key_filter.bin"))
			require.ErrorIs(t, f.Write(ctx, st, "g/key_filter.bin"), object.ErrExists)
			got, err := Open(ctx, st, "g/key_filter.bin")
			require.NoError(t, err)
			for _, h := range hashes {
				require.True(t, got.Has(h))
			}
			var a, b bytes.Buffer
			require.NoError(t, f.Describe(&a))
			require.NoError(t, got.Describe(&b))
			require.Equal(t, a.String(), b.String())
			require.Contains(t, a.String(), "300 keys in 6 blocks of 512 bits, 10.2 bits a key")
			require.NoError(t, got.Close())
			_, err = Open(ctx, st, "g/none.bin")
			require.ErrorIs(t, err, object.ErrNotExist)
		})
	}
	whole := append(f.header(), f.blocks...)
	for bit := range 8 * len(whole) {
		bad := bytes.Clone(whole)
		bad[bit/8] ^= 1 << (bit % 8)
		requireCorrupt(t, bad)
	}
	for _, n := range []int{0, 1, 63, 64, 65, len(whole) - 64, len(whole) - 1} {
		requireCorrupt(t, whole[:n])
	}
	requireCorrupt(t, append(bytes.Clone(whole), make([]byte, 64)...))
}

// requireCorrupt opens bytes that are no filter.
func requireCorrupt(t *testing.T, b []byte) {
	t.Helper()
	ctx, st := context.Background(), object.NewMem()
	require.NoError(t, st.Put(ctx, "f", b))
	_, err := Open(ctx, st, "f")
	var bad *object.CorruptError
	require.True(t, errors.As(err, &bad), "%v", err)
	require.Equal(t, "f", bad.Name)
}

// BenchmarkFilter builds filters of a million keys, and asks them for keys that they do not have.
func BenchmarkFilter(b *testing.B) {
	const n = 1 << 20
	hashes := hashesOf("random ints", 0, n)
	b.Run("add", func(b *testing.B) {
		for range b.N {
			f := New(n)
			for _, h := range hashes {
				f.Add(h)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/key")
	})
	b.Run("miss", func(b *testing.B) {
		f := New(n)
		for _, h := range hashes {
			f.Add(h)
		}
		others := hashesOf("random ints", 1, n)
		b.ResetTimer()
		passed := 0
		for i := range b.N {
			if f.Has(others[i%n]) {
				passed++
			}
		}
		b.ReportMetric(100*float64(passed)/float64(b.N), "%passed")
	})
}
