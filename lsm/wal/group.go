package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

const (
	groupHeaderBytes = 64
	groupAlign       = 64
)

// groupType says what a group is.
type groupType uint8

// The numbers are part of the format.
const (
	recordGroup groupType = 1
	syncMark    groupType = 2
	seal        groupType = 3
	epochMark   groupType = 4
)

var groupTypeNames = [...]string{recordGroup: "records", syncMark: "sync", seal: "seal", epochMark: "epoch"}

// valid reports whether this version knows the type.
func (t groupType) valid() bool { return t >= recordGroup && t <= epochMark }

// String returns the type's name.
func (t groupType) String() string {
	if t.valid() {
		return groupTypeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// groupHeader is the head of a group. doc.go has its bytes.
type groupHeader struct {
	bodySum uint32
	at      position
	length  int64
	lsn     LSN
	prev    LSN
	synced  position
	count   uint32
	typ     groupType
	kinds   uint32
}

// end returns the position behind the group.
func (h *groupHeader) end() position { return position{h.at.segment, h.at.offset + h.length} }

// last returns the LSN of the last record up to the end of the group.
func (h *groupHeader) last() LSN {
	if h.typ == recordGroup {
		return h.lsn + LSN(h.count) - 1
	}
	return h.prev
}

// encode writes the header into the first groupHeaderBytes of b. The checksum continues from that of the segment.
func (h *groupHeader) encode(b []byte, segmentSum uint32) {
	b = b[:groupHeaderBytes]
	binary.LittleEndian.PutUint32(b[4:], h.bodySum)
	binary.LittleEndian.PutUint64(b[8:], h.at.segment)
	binary.LittleEndian.PutUint32(b[16:], uint32(h.at.offset))
	binary.LittleEndian.PutUint32(b[20:], uint32(h.length))
	binary.LittleEndian.PutUint64(b[24:], uint64(h.lsn))
	binary.LittleEndian.PutUint64(b[32:], uint64(h.prev))
	binary.LittleEndian.PutUint64(b[40:], h.synced.segment)
	binary.LittleEndian.PutUint32(b[48:], uint32(h.synced.offset))
	binary.LittleEndian.PutUint32(b[52:], h.count)
	binary.LittleEndian.PutUint32(b[56:], uint32(h.typ))
	binary.LittleEndian.PutUint32(b[60:], h.kinds)
	binary.LittleEndian.PutUint32(b[0:], crc32.Update(segmentSum, castagnoli, b[4:]))
}

// decodeGroupHeader reads the header of a group that is at a position. Whether its length fits the file is for the
// caller to check.
func decodeGroupHeader(b []byte, segmentSum uint32, at position) (groupHeader, error) {
	if len(b) < groupHeaderBytes {
		return groupHeader{}, fmt.Errorf("group header needs %d bytes, the file has %d left", groupHeaderBytes, len(b))
	}
	b = b[:groupHeaderBytes]
	sum := binary.LittleEndian.Uint32(b[0:])
	if got := crc32.Update(segmentSum, castagnoli, b[4:]); got != sum {
		return groupHeader{}, fmt.Errorf("group header has checksum %#08x, its bytes give %#08x", sum, got)
	}
	h := groupHeader{
		bodySum: binary.LittleEndian.Uint32(b[4:]),
		at:      position{binary.LittleEndian.Uint64(b[8:]), int64(binary.LittleEndian.Uint32(b[16:]))},
		length:  int64(binary.LittleEndian.Uint32(b[20:])),
		lsn:     LSN(binary.LittleEndian.Uint64(b[24:])),
		prev:    LSN(binary.LittleEndian.Uint64(b[32:])),
		synced:  position{binary.LittleEndian.Uint64(b[40:]), int64(binary.LittleEndian.Uint32(b[48:]))},
		count:   binary.LittleEndian.Uint32(b[52:]),
		typ:     groupType(b[56]),
		kinds:   binary.LittleEndian.Uint32(b[60:]),
	}
	switch marks := h.count == 0 && h.kinds == 0 && h.length == groupHeaderBytes; {
	case h.at != at:
		return h, fmt.Errorf("group header says it is at %s, it is at %s", h.at, at)
	case !h.typ.valid() || !zero(b[57:60]):
		return h, fmt.Errorf("group of %s is not known to this version of flightd", h.typ)
	case h.length < groupHeaderBytes || h.length%groupAlign != 0 || h.length > maxGroupBytes+groupAlign:
		return h, fmt.Errorf("group length is %d", h.length)
	case h.typ != recordGroup && !marks:
		return h, fmt.Errorf("%s mark has a body", h.typ)
	case h.typ == recordGroup && (h.count == 0 || h.lsn.N() == 0 || h.lsn.N()+uint64(h.count)-1 > maxCount):
		return h, fmt.Errorf("group of %d records from LSN %s", h.count, h.lsn)
	case at.less(h.synced):
		return h, fmt.Errorf("group at %s says that the log was synced to %s before it was written", at, h.synced)
	}
	return h, nil
}

// checkBody compares the body of a group with its checksum.
func (h *groupHeader) checkBody(body []byte) error {
	if sum := crc32.Checksum(body, castagnoli); sum != h.bodySum {
		return fmt.Errorf("%s group of %d bytes has body checksum %#08x, its bytes give %#08x", h.typ, h.length, h.bodySum, sum)
	}
	return nil
}

// decodeRecords reads the records of a group into recs, whose memory it uses again. Their bodies are parts of body.
func (h *groupHeader) decodeRecords(body []byte, recs []Record) ([]Record, error) {
	if int64(h.count)*recordHeaderBytes > int64(len(body)) {
		return nil, fmt.Errorf("group of %d bytes cannot hold %d records", h.length, h.count)
	}
	recs = slices.Grow(recs[:0], int(h.count))[:h.count]
	kinds := uint32(0)
	for i := range recs {
		recs[i].LSN = h.lsn + LSN(i)
		var err error
		if body, err = decodeRecord(body, &recs[i]); err != nil {
			return nil, fmt.Errorf("record %d of the group: %w", i, err)
		}
		kinds |= 1 << recs[i].Kind
	}
	if len(body) >= groupAlign || !zero(body) || kinds != h.kinds {
		return nil, errors.New("group holds something else than its header says")
	}
	return recs, nil
}
