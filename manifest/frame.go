package manifest

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
)

const (
	headBytes   = 16
	footerBytes = 16
	wordBytes   = 4
	headMagic   = "FLIGHTD\x01"
	footMagic   = "LANC"
	// library marks the versions that we wrote. Readers take any name; Lance keeps checks for old versions of its own.
	library = "flightd"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeVersion lays out one version as a file, as the package comment draws it. It fills in the section offsets of m.
func encodeVersion(m *lancepb.Manifest, indexes *lancepb.IndexSection, tx *lancepb.Transaction) ([]byte, error) {
	b := make([]byte, headBytes, 4096)
	copy(b, headMagic)
	var err error
	section := func(msg proto.Message) *uint64 {
		at := uint64(len(b))
		if err == nil {
			b, err = appendSection(b, msg)
		}
		return &at
	}
	m.IndexSection = nil
	if len(indexes.GetIndices()) > 0 {
		m.IndexSection = section(indexes)
	}
	m.TransactionSection = section(tx)
	at := section(m)
	if err != nil {
		return nil, err
	}
	b = binary.LittleEndian.AppendUint64(b, *at)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = append(b, footMagic...)
	binary.LittleEndian.PutUint32(b[len(headMagic):], crc32.Checksum(b[headBytes:], castagnoli))
	return b, nil
}

func appendSection(b []byte, msg proto.Message) ([]byte, error) {
	at := len(b)
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(append(b, 0, 0, 0, 0), msg)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-wordBytes))
	return b, nil
}

// decodeFrame finds and parses the Manifest in the bytes of a version, and tells whether we wrote them.
func decodeFrame(name string, b []byte) (m *lancepb.Manifest, ours bool, err error) {
	if len(b) < wordBytes+footerBytes || string(b[len(b)-len(footMagic):]) != footMagic {
		return nil, false, corrupt(name, int64(len(b)), "no footer of a Lance manifest at the end of %d bytes", len(b))
	}
	ours = len(b) >= headBytes && string(b[:len(headMagic)]) == headMagic
	if ours {
		want := binary.LittleEndian.Uint32(b[len(headMagic):])
		if got := crc32.Checksum(b[headBytes:], castagnoli); got != want {
			return nil, false, corrupt(name, headBytes, "checksum is %08x, expected %08x", got, want)
		}
	}
	foot := len(b) - footerBytes
	at := binary.LittleEndian.Uint64(b[foot:])
	m = new(lancepb.Manifest)
	end, err := decodeSection(name, b, at, m)
	if err != nil {
		return nil, false, err
	}
	if end != foot {
		return nil, false, corrupt(name, int64(at), "manifest ends at %d, expected %d", end, foot)
	}
	return m, ours, nil
}

// copied reports whether a version is another program's copy of one that we may have written, with our name in it: a restore or
// a clone. Of these two the transaction is unknown here; those that we write ourselves are not.
func copied(m *lancepb.Manifest, tx *lancepb.Transaction) bool {
	if tx == nil {
		return m.GetTransactionFile() != ""
	}
	return tx.GetOperation() == nil
}

// decodeSection parses the message behind the length word at offset at, and returns where it ends.
func decodeSection(name string, b []byte, at uint64, msg proto.Message) (int, error) {
	limit := uint64(len(b) - footerBytes)
	if at > limit || limit-at < wordBytes {
		return 0, corrupt(name, int64(len(b)), "a section at offset %d lies outside the file", at)
	}
	length := uint64(binary.LittleEndian.Uint32(b[at:]))
	if length > limit-at-wordBytes || at > math.MaxInt {
		return 0, corrupt(name, int64(at), "a section of %d bytes does not fit the file of %d", length, len(b))
	}
	body := b[at+wordBytes : at+wordBytes+length]
	if err := proto.Unmarshal(body, msg); err != nil {
		return 0, corrupt(name, int64(at), "section: %w", err)
	}
	return int(at + wordBytes + length), nil
}
