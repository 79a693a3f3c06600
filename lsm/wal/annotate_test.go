package wal

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// annotator writes bytes beside what they mean. It reads fields by their places in the format, not through the codec.
type annotator struct {
	out strings.Builder
	b   []byte
	off int
}

// annotate writes the bytes of a segment up to the end of its last group.
func annotate(t *testing.T, d *crashDisk, id uint64) string {
	t.Helper()
	a := &annotator{b: d.content(segmentName(id))}
	a.text(8, "magic and version")
	a.number(8, "segment id")
	a.hex(8, "salt")
	a.hex(36, "zero")
	a.hex(4, "checksum")
	a.skip(firstGroup, "not used")
	r, err := newReader(d)
	require.NoError(t, err)
	defer r.close()
	for {
		g, err := r.read()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		if g.at.segment == id {
			a.group()
		}
	}
	return a.out.String()
}

// group writes the group at the present place.
func (a *annotator) group() {
	start := a.off
	fmt.Fprintln(&a.out)
	a.hex(4, "group: header checksum")
	a.hex(4, "body checksum")
	a.number(8, "segment id")
	a.number(4, "offset")
	length := a.number(4, "length")
	a.lsn("LSN")
	a.lsn("previous LSN")
	a.number(8, "synced to: segment")
	a.number(4, "synced to: offset")
	count := a.number(4, "records")
	a.number(1, "type")
	a.hex(3, "zero")
	a.hex(4, "kinds")
	for range count {
		size := int(a.number(4, "record: body length"))
		a.number(4, "schema")
		a.number(4, "rows")
		a.number(1, "kind")
		a.hex(3, "zero")
		a.number(8, "incarnation")
		a.hex(16, "shard")
		a.text(size, "body")
		a.hex((8-size%8)%8, "zero")
	}
	a.hex(start+int(length)-a.off, "zero")
}

// line writes the next n bytes in hexadecimal with a meaning.
func (a *annotator) line(n int, meaning string, args ...any) {
	for n > 0 {
		k := min(n, 16)
		fmt.Fprintf(&a.out, "%5d: %-32x  # %s\n", a.off, a.b[a.off:a.off+k], fmt.Sprintf(meaning, args...))
		a.off, n = a.off+k, n-k
		meaning, args = "…", nil
	}
}

func (a *annotator) hex(n int, meaning string) { a.line(n, "%s", meaning) }

func (a *annotator) text(n int, meaning string) {
	a.line(n, "%s %.24q", meaning, a.b[a.off:a.off+n])
}

func (a *annotator) number(n int, meaning string) uint64 {
	var wide [8]byte
	copy(wide[:], a.b[a.off:a.off+n])
	v := binary.LittleEndian.Uint64(wide[:])
	a.line(n, "%s %d", meaning, v)
	return v
}

func (a *annotator) lsn(meaning string) {
	a.line(8, "%s %s", meaning, LSN(binary.LittleEndian.Uint64(a.b[a.off:])))
}

func (a *annotator) skip(to int, meaning string) {
	fmt.Fprintf(&a.out, "%5d: … %d bytes  # %s\n", a.off, to-a.off, meaning)
	a.off = to
}
