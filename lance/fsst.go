package lance

import (
	"errors"
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
			return 0, errors.New("a coded string ends in an escape")
		}
		n++
	}
	return n, nil
}

// expand writes what a coded string stands for to out and returns its size. REQUIRES: out has room for it and seven bytes
// more; eight times the string is enough.
func (t *fsstTable) expand(out, b []byte) (int, error) {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		if int(c) < t.n {
			*(*[8]byte)(out[n:]) = t.symbols[c]
			n += int(t.lengths[c])
			continue
		}
		if c != fsstEscape {
			return 0, fmt.Errorf("symbol %d of %d", c, t.n)
		}
		if i++; i == len(b) {
			return 0, errors.New("a coded string ends in an escape")
		}
		out[n] = b[i]
		n++
	}
	return n, nil
}
