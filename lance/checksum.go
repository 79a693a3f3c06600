package lance

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// metaChecksums is the key in the file's schema metadata whose value is the place of the global buffer that holds the
// checksums. The buffer begins with checksumMagic: neither may be there without the other, so that one flipped bit
// cannot pass a file off as one without checksums.
const metaChecksums = "flightd:checksums"

// checksumPlace is the value of metaChecksums: the number of the global buffer and its offset in the file. The offset tells a
// file of ours from one that another program wrote with the metadata of ours.
func checksumPlace(global int, off int64) string { return fmt.Sprintf("%d@%d", global, off) }

// checksumOffset returns the offset in the value of metaChecksums.
func checksumOffset(place string) (int64, bool) {
	_, text, ok := strings.Cut(place, "@")
	off, err := strconv.ParseInt(text, 10, 64)
	return off, ok && err == nil && off >= 0
}

// checksumMagic begins the buffer; the last byte is the version of its layout.
var checksumMagic = [8]byte{'f', 'd', '-', 'c', 'r', 'c', '3', 1}

// castagnoli is the polynomial for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksums are the CRC32C of all parts of a file. The package comment has the layout.
type checksums struct {
	schema  uint32
	globals []uint32 // of the user global buffers before this one
	columns []columnSums
}

// columnSums are the checksums of one column.
type columnSums struct {
	metadata uint32
	buffers  []uint32 // of all page buffers, page by page
}

// hasChecksums reports whether b is a buffer of checksums, sound or not.
func hasChecksums(b []byte) bool {
	return len(b) >= len(checksumMagic) && [8]byte(b[:8]) == checksumMagic
}

// parseChecksums is the reverse of encode. It keeps nothing of b.
func parseChecksums(b []byte) (*checksums, error) {
	if !hasChecksums(b) || len(b) < len(checksumMagic)+4 {
		return nil, errors.New("the checksums do not begin as they should")
	}
	body, stored := b[:len(b)-4], le.Uint32(b[len(b)-4:])
	if sum := crc32.Checksum(body, castagnoli); sum != stored {
		return nil, fmt.Errorf("the checksum of the checksums is %08x, the file says %08x", sum, stored)
	}
	d := sumDecoder{rest: body[len(checksumMagic):]}
	c := &checksums{schema: d.uint32()}
	globals, columns := d.uint32(), d.uint32()
	c.globals = d.sums(globals)
	// A column takes at least 8 bytes, so a larger number is a lie that must not be allocated for.
	if int64(columns)*8 > int64(len(d.rest)) {
		return nil, fmt.Errorf("checksums of %d columns in %d bytes", columns, len(d.rest))
	}
	c.columns = make([]columnSums, columns)
	for i := range c.columns {
		c.columns[i].metadata = d.uint32()
		c.columns[i].buffers = d.sums(d.uint32())
	}
	if d.short || len(d.rest) > 0 {
		return nil, errors.New("the checksums do not fill their buffer")
	}
	return c, nil
}

// sumDecoder takes numbers from the front of a buffer and remembers if there were too few.
type sumDecoder struct {
	rest  []byte
	short bool
}

func (d *sumDecoder) uint32() uint32 {
	if len(d.rest) < 4 {
		d.short = true
		return 0
	}
	v := le.Uint32(d.rest)
	d.rest = d.rest[4:]
	return v
}

func (d *sumDecoder) sums(n uint32) []uint32 {
	if int64(n)*4 > int64(len(d.rest)) {
		d.short = true
		return nil
	}
	sums := make([]uint32, n)
	for i := range sums {
		sums[i] = d.uint32()
	}
	return sums
}
