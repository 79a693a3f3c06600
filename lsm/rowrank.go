package lsm

import (
	"math/bits"

	"github.com/RoaringBitmap/roaring/v2"
)

// rowRank numbers the rows of a bitmap in their order. A roaring bitmap counts its containers and runs for each question,
// which took two thirds of a merge of random keys; this looks at two words.
type rowRank struct {
	words  []uint64
	before []uint32 // how many rows the words before one have
}

func newRowRank(rows *roaring.Bitmap) *rowRank {
	r := &rowRank{words: rows.ToDense()}
	r.before = make([]uint32, len(r.words))
	n := 0
	for i, w := range r.words {
		r.before[i] = uint32(n)
		n += bits.OnesCount64(w)
	}
	return r
}

// place returns how many rows of the bitmap come before one, and whether it is there itself.
func (r *rowRank) place(row uint32) (n int64, ok bool) {
	i, bit := int(row>>6), uint64(1)<<(row&63)
	if i >= len(r.words) || r.words[i]&bit == 0 {
		return 0, false
	}
	return int64(r.before[i]) + int64(bits.OnesCount64(r.words[i]&(bit-1))), true
}
