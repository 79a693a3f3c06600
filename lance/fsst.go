package lance

import (
	"fmt"
)

// fsstEscape stands before a byte that is no symbol.
const fsstEscape = 255

// fsstTable is the symbols that stand for parts of strings: Boncz, Neumann, Leis: FSST, VLDB 2020.
//
//	u8 symbols | u8 terminator | u8 suffix limit | u8 1: strings are coded | "TSSF" | symbols x 8 bytes | symbols x u8 length
type fsstTable struct {
	symbols [fsstEscape][8]byte
	lengths [fsstEscape]uint8
	n       int
}

// parseFSST reads a symbol table. It returns nil when the strings are there as they are.
func parseFSST(b []byte) (*fsstTable, error) {
	if len(b) < 8 || string(b[4:8]) != "TSSF" {
		return nil, fmt.Errorf("a symbol table of %d bytes without its mark", len(b))
	}
	if b[3]&1 == 0 {
		return nil, nil
	}
	t := &fsstTable{n: int(b[0])}
	if t.n > fsstEscape || len(b) < 8+9*t.n {
		return nil, fmt.Errorf("a symbol table of %d bytes for %d symbols", len(b), t.n)
	}
	for i := range t.n {
		copy(t.symbols[i][:], b[8+8*i:])
		if t.lengths[i] = b[8+8*t.n+i]; t.lengths[i] == 0 || t.lengths[i] > 8 {
			return nil, fmt.Errorf("symbol %d has %d bytes", i, t.lengths[i])
		}
	}
	return t, nil
}

// size returns how many bytes a coded string stands for.
func (t *fsstTable) size(b []byte) (int, error) {
	n := 0
	for i := 0; i < len(b); i++ {
		if c := b[i]; c != fsstEscape {
			if int(c) >= t.n {
				return 0, fmt.Errorf("symbol %d of %d", c, t.n)
			}
			n += int(t.lengths[c])
			continue
		}
		if i++; i == len(b) {
			return 0, fmt.Errorf("a coded string ends in an escape")
		}
		n++
	}
	return n, nil
}

// expand writes what a coded string stands for to out and returns its size. REQUIRES: size has passed the string, and
// out has room for seven bytes more.
func (t *fsstTable) expand(out, b []byte) int {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == fsstEscape {
			i++
			out[n] = b[i]
			n++
			continue
		}
		*(*[8]byte)(out[n:]) = t.symbols[c]
		n += int(t.lengths[c])
	}
	return n
}
