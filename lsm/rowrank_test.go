package lsm

import (
	"math/rand/v2"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"
)

// TestRowRankIsThatOfTheBitmap compares places with the bitmap's own ranks, for rows in runs, alone and over several
// containers, and for none.
func TestRowRankIsThatOfTheBitmap(t *testing.T) {
	require.Empty(t, newRowRank(roaring.New()).words)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		rows := roaring.New()
		for range 1 + r.IntN(300) {
			from := r.Uint64N(1 << (10 + seed%9))
			rows.AddRange(from, from+1+r.Uint64N(200))
		}
		for range 1 + r.IntN(300) {
			rows.Remove(r.Uint32N(1 << 18))
		}
		rank := newRowRank(rows)
		for range 3000 {
			row := r.Uint32N(1<<18 + 1000)
			n, ok := rank.place(row)
			if ok != rows.Contains(row) || ok && n != int64(rows.Rank(row))-1 {
				t.Fatalf("seed %d, row %d: place %d, %v; the bitmap says %v, %d", seed, row, n, ok, rows.Contains(row), rows.Rank(row))
			}
		}
	}
}
