package lance

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
)

const (
	// fsstSample is about how many bytes of a page's strings the symbols are chosen by, and fsstPiece how many of one.
	fsstSample, fsstPiece = 16 << 10, 256
	// fsstRounds is how often the symbols are chosen anew: each time they can become twice as long.
	fsstRounds = 5
	// fsstTableBytes is the size of a symbol table in a file. Other readers refuse every other size.
	fsstTableBytes = 8 + 256*8 + 256
	// fsstSlots is the number of places for symbols of three bytes and more.
	fsstSlots = 4096
	// fsstBytes is where the codes of bytes that are no symbols begin, while symbols are counted.
	fsstBytes = 256
	fsstCodes = 2 * fsstBytes
)

// fsstSymbol is one to eight bytes that a code stands for.
type fsstSymbol struct {
	value uint64 // the bytes, the first of them lowest
	size  uint8
}

// fsstSlot is a symbol of three bytes or more and its code; size is 0 when there is none.
type fsstSlot struct {
	fsstSymbol
	code uint8
}

// fsstCoder codes strings with the symbols of a table (see fsstTable): at each place the longest symbol, found without a
// search. Symbols of three bytes and more have one slot by a hash of their first three, and which of two is better gets
// it; those of two have a table of all pairs.
type fsstCoder struct {
	symbols []fsstSymbol
	slots   [fsstSlots]fsstSlot
	pairs   [1 << 16]uint16 // the code of two bytes plus 1
	bytes   [256]uint16     // the code of one byte plus 1
}

// newFSSTCoder returns a coder of symbols, the better ones first.
func newFSSTCoder(symbols []fsstSymbol) *fsstCoder {
	c := &fsstCoder{}
	for _, s := range symbols {
		code := uint16(len(c.symbols))
		switch s.size {
		case 1:
			c.bytes[s.value] = code + 1
		case 2:
			c.pairs[s.value] = code + 1
		default:
			slot := &c.slots[fsstHash(s.value)]
			if slot.size > 0 {
				continue
			}
			*slot = fsstSlot{s, uint8(code)}
		}
		if c.symbols = append(c.symbols, s); len(c.symbols) == fsstEscape {
			break
		}
	}
	return c
}

// fsstHash returns the slot of a symbol by its first three bytes.
func fsstHash(word uint64) uint64 { return word & 0xFFFFFF * 2971215073 >> 15 % fsstSlots }

// next returns the code at the front of a word of which left bytes count, and how many bytes it stands for. A byte
// without a symbol has the code fsstBytes and more.
func (c *fsstCoder) next(word uint64, left int) (code uint16, size int) {
	if s := &c.slots[fsstHash(word)]; s.size > 0 && int(s.size) <= left && (word^s.value)<<(64-8*s.size) == 0 {
		return uint16(s.code), int(s.size)
	}
	if code := c.pairs[uint16(word)]; code > 0 && left > 1 {
		return code - 1, 2
	}
	if code := c.bytes[uint8(word)]; code > 0 {
		return code - 1, 1
	}
	return fsstBytes + uint16(uint8(word)), 1
}

// append appends a coded string, which has at most twice its bytes.
func (c *fsstCoder) append(out, s []byte) []byte {
	for len(s) > 0 {
		code, size := c.next(fsstWord(s), len(s))
		if code < fsstBytes {
			out = append(out, byte(code))
		} else {
			out = append(out, fsstEscape, byte(code))
		}
		s = s[size:]
	}
	return out
}

// fsstWord returns the first eight bytes of a string, or as many as there are.
func fsstWord(s []byte) uint64 {
	if len(s) >= 8 {
		return le.Uint64(s)
	}
	var word [8]byte
	copy(word[:], s)
	return le.Uint64(word[:])
}

// table returns the symbols as a file has them.
func (c *fsstCoder) table() []byte {
	b := make([]byte, fsstTableBytes)
	b[0], b[3] = byte(len(c.symbols)), 1
	copy(b[4:], "TSSF")
	for i, s := range c.symbols {
		binary.LittleEndian.PutUint64(b[8+8*i:], s.value)
		b[8+8*len(c.symbols)+i] = s.size
	}
	return b
}

// trainFSST chooses the symbols for strings like those of a sample. Each round codes the sample with the symbols so far,
// and takes those and their concatenations that stand for most of its bytes.
func trainFSST(sample [][]byte) *fsstCoder {
	c, pairs := newFSSTCoder(nil), make([]uint16, fsstCodes*fsstCodes)
	for range fsstRounds {
		c = newFSSTCoder(c.better(sample, pairs))
	}
	return c
}

// better returns candidates for symbols, the better ones first. It counts in pairs which code comes behind which.
func (c *fsstCoder) better(sample [][]byte, pairs []uint16) []fsstSymbol {
	var single [fsstCodes]int
	clear(pairs)
	count := func(before int, code uint16) {
		if single[code]++; before >= 0 {
			pairs[before*fsstCodes+int(code)]++
		}
	}
	for _, s := range sample {
		before := -1
		for len(s) > 0 {
			code, size := c.next(fsstWord(s), len(s))
			count(before, code)
			if size > 1 { // or only its first byte, which a shorter symbol before it may go on with
				count(before, fsstBytes+uint16(s[0]))
			}
			before, s = int(code), s[size:]
		}
	}
	gains := map[fsstSymbol]int{}
	for code, n := range single {
		if n == 0 {
			continue
		}
		s := c.symbol(code)
		if s.size == 1 {
			n *= 8 // without them, bytes cost two
		}
		gains[s] += n * int(s.size)
		for next, n := range pairs[code*fsstCodes:][:fsstCodes] {
			if n > 1 && s.size < 8 {
				both := s.then(c.symbol(next))
				gains[both] += int(n) * int(both.size)
			}
		}
	}
	return best(gains)
}

// symbol returns what a code stands for.
func (c *fsstCoder) symbol(code int) fsstSymbol {
	if code >= fsstBytes {
		return fsstSymbol{uint64(code - fsstBytes), 1}
	}
	return c.symbols[code]
}

// then returns a symbol with another behind it, cut off at eight bytes.
func (s fsstSymbol) then(next fsstSymbol) fsstSymbol {
	size := min(8, s.size+next.size)
	return fsstSymbol{(s.value | next.value<<(8*s.size)) & (1<<(8*size-1)<<1 - 1), size}
}

// best returns symbols by what they gain, and equal ones in an order that does not change.
func best(gains map[fsstSymbol]int) []fsstSymbol {
	symbols := make([]fsstSymbol, 0, len(gains))
	for s := range gains {
		symbols = append(symbols, s)
	}
	slices.SortFunc(symbols, func(a, b fsstSymbol) int {
		return cmp.Or(cmp.Compare(gains[b], gains[a]), cmp.Compare(a.size, b.size), cmp.Compare(bits.ReverseBytes64(a.value), bits.ReverseBytes64(b.value)))
	})
	return symbols
}
