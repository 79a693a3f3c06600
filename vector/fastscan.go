package vector

import (
	"fmt"
	"math"
)

// Fast scan of 4-bit codes (André, Kermarrec, Le Scouarnec: Cache locality is not enough, 2015): the sixteen distances of a
// sub-vector, rounded to bytes, fit one register, where a shuffle looks up 32 codes at once.
//
// # Blocks
//
// Codes for a fast scan stand in blocks of 32 rows; in a block they stand in columns. Byte r of a column is the byte of row r's code, so it
// holds two sub-vectors, the even one in its low half:
//
//	block 0                                                    block 1
//	+-------------------------+-------------------------+-----+------
//	| byte 0 of rows 0 to 31  | byte 1 of rows 0 to 31  | ... | ...
//	+-------------------------+-------------------------+-----+------
//
// The last block is filled up with any codes; zeros by PackBlocks.

// BlockRows is the number of rows in a block.
const BlockRows = 32

// BlockBytes is the length of the blocks that hold n rows of 4-bit codes of codeBytes bytes each.
func BlockBytes(n, codeBytes int) int { return (n + BlockRows - 1) / BlockRows * BlockRows * codeBytes }

// PackBlocks puts the codes of n rows, which stand in rows, into blocks. Rows that follow rows already in blocks are added by PutBlockRow.
func PackBlocks(dst, codes []byte, n int) {
	if n == 0 && len(dst) == 0 && len(codes) == 0 {
		return
	}
	if n <= 0 || len(codes)%n != 0 || len(dst) != BlockBytes(n, len(codes)/n) {
		panic(fmt.Sprintf("vector: %d bytes of codes of %d rows packed into %d", len(codes), n, len(dst)))
	}
	width := len(codes) / n
	clear(dst)
	for i := range n {
		PutBlockRow(dst, i, codes[i*width:(i+1)*width])
	}
}

// PutBlockRow sets the code of row i in blocks.
func PutBlockRow(blocks []byte, i int, code []byte) {
	block := blocks[i/BlockRows*BlockRows*len(code):]
	for j, b := range code {
		block[j*BlockRows+i%BlockRows] = b
	}
}

// FastTable is a Table rounded for the fast scan: each sub-vector's distances less their least, in steps of one size, as bytes. A sum
// of them is a number of steps above a base. The zero value is ready for Table.Fast. Once filled it is safe for concurrent reads.
type FastTable struct {
	codeBytes int
	base      float32
	step      float32
	steps     []byte // 32 for each byte of a code: the sixteen of its low half, then those of its high half
}

// Fast fills f with t, whose codes have 4 bits. The step is the least with which every distance fits a byte and every sum 16 bits,
// so nothing ever saturates. A sum is off by at most half a step for each sub-vector.
func (t *Table) Fast(f *FastTable) {
	if t.bits != 4 {
		panic(fmt.Sprintf("vector: a fast scan of codes of %d bits", t.bits))
	}
	f.codeBytes, f.base = t.m/2, t.base
	f.steps = append(f.steps[:0], make([]byte, t.m*16)...)
	var widest, total float32
	for j := range t.m {
		least, most := bounds((*[16]float32)(t.dist[j*16:]))
		f.base += least
		total += most - least
		widest = max(widest, most-least)
	}
	f.step = max(widest/math.MaxUint8, total/float32(math.MaxUint16-t.m))
	switch {
	case f.step == 0:
		f.step = 1
		return
	case math.IsNaN(float64(f.step)) || math.IsInf(float64(f.step), 0) || math.IsNaN(float64(f.base)):
		// The query is not finite, or too large: no row is near it.
		f.base = float32(math.NaN())
		return
	}
	perStep := 1 / f.step
	for j := range t.m {
		dist := (*[16]float32)(t.dist[j*16:])
		steps := (*[16]byte)(f.steps[j*16:])
		least, _ := bounds(dist)
		for c, d := range dist {
			// Rounding may carry the widest of all just beyond a byte.
			steps[c] = byte(min(int32((d-least)*perStep+0.5), math.MaxUint8))
		}
	}
}

// bounds returns the least and the most of a sub-vector's distances. Where one is not finite, least, most or their
// difference is not: an element of the query that is NaN or infinite makes the first distance so.
func bounds(dist *[16]float32) (least, most float32) {
	least, most = dist[0], dist[0]
	for _, d := range dist {
		if d < least {
			least = d
		}
		if d > most {
			most = d
		}
	}
	return least, most
}

// Scan writes a sum for each row of blocks to sums: len(sums) is a multiple of BlockRows.
func (f *FastTable) Scan(blocks []byte, sums []uint16) {
	if len(sums)%BlockRows != 0 {
		panic(fmt.Sprintf("vector: %d sums are not whole blocks of %d", len(sums), BlockRows))
	}
	mustShape(f.codeBytes, len(blocks), len(sums))
	fastScan(f.steps, blocks, sums)
}

// Distance is the distance for which a sum stands.
func (f *FastTable) Distance(sum uint16) float32 { return f.base + float32(sum)*f.step }

// Search offers the n rows in blocks to top, as rows first, first+1, … with the distances of their sums.
func (f *FastTable) Search(blocks []byte, n int, first uint64, top *TopK) {
	if len(blocks) != BlockBytes(n, f.codeBytes) {
		panic(fmt.Sprintf("vector: %d bytes are not blocks of %d rows of %d", len(blocks), n, f.codeBytes))
	}
	var sums [8 * BlockRows]uint16
	for at := 0; at < n; at += len(sums) {
		rows := min(len(sums), n-at)
		whole := (rows + BlockRows - 1) / BlockRows * BlockRows
		f.Scan(blocks[at*f.codeBytes:(at+whole)*f.codeBytes], sums[:whole])
		limit := f.limit(top)
		for i, sum := range sums[:rows] {
			// Most rows fail this comparison of integers.
			if int(sum) <= limit {
				top.Push(first+uint64(at+i), f.Distance(sum))
				limit = f.limit(top)
			}
		}
	}
}

// limit is a sum above which no row can be taken by top, -1 if none can.
func (f *FastTable) limit(top *TopK) int {
	// Distances are rounded where the base is large beside the step; what rounding may have hidden is let through.
	slack := float32(math.Abs(float64(f.base))) * 0x1p-22
	sum := (top.Limit()-f.base+slack)/f.step + 1
	switch {
	case sum >= math.MaxUint16:
		return math.MaxUint16
	case sum >= 0:
		return int(sum)
	}
	return -1
}
