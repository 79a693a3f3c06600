package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/flightd/flightd/object"
)

const (
	segmentMagic = "FLTDWAL\x01"
	// segmentHeaderBytes is the part of the header that is written and read.
	segmentHeaderBytes = 64
	// firstGroup is where the groups begin: the header has a page of its own.
	firstGroup = 4096

	segmentSuffix = ".wal"
	spareSuffix   = ".spare"
	tempSuffix    = ".tmp"
	// nameDigits makes names sort like ids for as long as a log may live.
	nameDigits = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// position is a place in the log. The zero position is before all of it.
type position struct {
	segment uint64
	offset  int64
}

// less reports whether p is before q.
func (p position) less(q position) bool {
	return p.segment < q.segment || p.segment == q.segment && p.offset < q.offset
}

// String returns segment:offset.
func (p position) String() string { return fmt.Sprintf("%d:%d", p.segment, p.offset) }

// segmentHeader is the head of a segment.
type segmentHeader struct {
	id   uint64
	salt uint64
	// sum is the header's checksum, where the checksums of the group headers begin.
	sum uint32
}

// encode writes the header into the first segmentHeaderBytes of b and sets h.sum.
func (h *segmentHeader) encode(b []byte) {
	b = b[:segmentHeaderBytes]
	clear(b)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint64(b[8:], h.id)
	binary.LittleEndian.PutUint64(b[16:], h.salt)
	h.sum = crc32.Checksum(b[:60], castagnoli)
	binary.LittleEndian.PutUint32(b[60:], h.sum)
}

// decodeSegmentHeader reads the header of the segment with the id.
func decodeSegmentHeader(b []byte, id uint64) (segmentHeader, error) {
	if len(b) < segmentHeaderBytes {
		return segmentHeader{}, fmt.Errorf("segment header needs %d bytes, the file has %d", segmentHeaderBytes, len(b))
	}
	h := segmentHeader{
		id:   binary.LittleEndian.Uint64(b[8:]),
		salt: binary.LittleEndian.Uint64(b[16:]),
		sum:  binary.LittleEndian.Uint32(b[60:]),
	}
	const version = len(segmentMagic) - 1
	switch sum := crc32.Checksum(b[:60], castagnoli); {
	case string(b[:version]) != segmentMagic[:version]:
		return h, fmt.Errorf("segment begins with %q, not with %q: it is not a log of flightd", b[:version], segmentMagic[:version])
	case sum != h.sum:
		return h, fmt.Errorf("segment header has checksum %#08x, its bytes give %#08x", h.sum, sum)
	case b[version] != segmentMagic[version]:
		return h, fmt.Errorf("log format is version %d, this flightd reads version %d", b[version], segmentMagic[version])
	case h.id != id:
		return h, fmt.Errorf("segment header has id %d, the file name says %d", h.id, id)
	case !zero(b[24:60]):
		return h, errors.New("reserved bytes of the segment header are not zero")
	}
	return h, nil
}

// readSegmentHeader reads the header of a file that has the name of the segment with the id. Such a file has been synced
// with its header, so one that does not verify is damage.
func readSegmentHeader(f file, id uint64, path string) (segmentHeader, error) {
	var b [segmentHeaderBytes]byte
	n, err := f.ReadAt(b[:], 0)
	if err != nil && err != io.EOF {
		return segmentHeader{}, fmt.Errorf("read %s: %w", path, err)
	}
	h, err := decodeSegmentHeader(b[:n], id)
	if err != nil {
		return segmentHeader{}, &object.CorruptError{Name: path, Err: err}
	}
	return h, nil
}

// segmentName returns the file of a segment.
func segmentName(id uint64) string { return fmt.Sprintf("%0*d%s", nameDigits, id, segmentSuffix) }

// spareName returns the file of a segment that was trimmed.
func spareName(id uint64) string { return fmt.Sprintf("%0*d%s", nameDigits, id, spareSuffix) }

// tempName returns the file of a segment that is being made.
func tempName(id uint64) string { return fmt.Sprintf("%0*d%s", nameDigits, id, tempSuffix) }

// parseName returns the id in a file's name if it has the suffix.
func parseName(name, suffix string) (id uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) < nameDigits {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil && id > 0
}

// listSegments returns the ids of the segments in a folder, rising.
func listSegments(d disk) ([]uint64, error) {
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	var ids []uint64
	for _, name := range names {
		if id, ok := parseName(name, segmentSuffix); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}
