package memindex

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestIntsAgainstMap puts random keys in and compares each answer with a Go map's.
func TestIntsAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var x Ints
	twin := map[int64]uint32{}
	row := uint32(0)
	for range 200 {
		keys := make([]int64, r.IntN(300))
		var want []uint32
		for i := range keys {
			keys[i] = int64(r.IntN(20_000)) - 10_000
			if old, ok := twin[keys[i]]; ok {
				want = append(want, old)
			}
			twin[keys[i]] = row + uint32(i)
		}
		require.Equal(t, want, x.Add(keys, row, nil))
		row += uint32(len(keys))
	}
	require.Equal(t, len(twin), x.Len())
	for k, want := range twin {
		got, ok := x.Row(k)
		require.True(t, ok)
		require.Equal(t, want, got)
	}
	_, ok := x.Row(1 << 40)
	require.False(t, ok)
	n := 0
	x.Each(func(k int64, row uint32) { n++; require.Equal(t, twin[k], row) })
	require.Equal(t, len(twin), n)
}

// TestBytesAgainstMap does the same for byte keys, the empty one and one longer than a piece of the arena included.
func TestBytesAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var x Bytes
	twin := map[string]uint32{}
	row := uint32(0)
	long := make([]byte, chunkBytes+5)
	for round := range 100 {
		keys := [][]byte{nil, long}
		for range r.IntN(300) {
			keys = append(keys, fmt.Appendf(nil, "key %d", r.IntN(5_000)))
		}
		if round == 0 {
			keys = keys[1:]
		}
		var want []uint32
		for i, k := range keys {
			if old, ok := twin[string(k)]; ok {
				want = append(want, old)
			}
			twin[string(k)] = row + uint32(i)
		}
		require.Equal(t, want, x.Add(len(keys), func(i int) []byte { return keys[i] }, row, nil))
		row += uint32(len(keys))
	}
	require.Equal(t, len(twin), x.Len())
	x.Each(func(k []byte, row uint32) {
		require.Equal(t, twin[string(k)], row)
		got, ok := x.Row(k)
		require.True(t, ok)
		require.Equal(t, row, got)
	})
	_, ok := x.Row([]byte("absent"))
	require.False(t, ok)
}

func BenchmarkIntsAdd(b *testing.B) {
	for _, order := range []string{"sequential", "random"} {
		b.Run(order, func(b *testing.B) {
			r := rand.New(rand.NewPCG(5, 6))
			keys := make([]int64, 1<<20)
			for i := range keys {
				keys[i] = int64(i)
				if order == "random" {
					keys[i] = r.Int64N(1 << 20)
				}
			}
			b.ReportAllocs()
			rows, replaced := 0, make([]uint32, 0, len(keys))
			for b.Loop() {
				var x Ints
				replaced = replaced[:0]
				for i := 0; i < len(keys); i += 128 {
					replaced = x.Add(keys[i:i+128], uint32(i), replaced)
				}
				x.Release()
				rows += len(keys)
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds()/1e6, "Mkeys/s")
		})
	}
}
