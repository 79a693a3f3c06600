package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Kind says what a record's body is. The log carries bodies and does not look into them.
type Kind uint8

// The numbers are part of the format.
const (
	// Batch is rows of one table that take effect on their own.
	Batch Kind = 1
	// StageBatch is rows of a stage: they take effect with its StageCommit.
	StageBatch Kind = 2
	// StageCommit publishes a stage.
	StageCommit Kind = 3
	// StageAbort drops a stage.
	StageAbort Kind = 4
	// Transaction is the rows of several tables that take effect together.
	Transaction Kind = 5
	// DDL changes the catalog.
	DDL Kind = 6
	// Idempotency is a checkpoint of the live idempotency keys.
	Idempotency Kind = 7
)

var kindNames = [...]string{
	Batch: "batch", StageBatch: "stage batch", StageCommit: "stage commit", StageAbort: "stage abort",
	Transaction: "transaction", DDL: "ddl", Idempotency: "idempotency",
}

// valid reports whether this version knows the kind.
func (k Kind) valid() bool { return k >= Batch && k <= Idempotency }

// String returns the kind's name.
func (k Kind) String() string {
	if k.valid() {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Record is one entry of the log.
type Record struct {
	// LSN is given by Append, and by Replay.
	LSN LSN
	// Kind says what Body is.
	Kind Kind
	// Shard is where the rows belong.
	Shard uuid.UUID
	// Incarnation is that of the table, so that a replay does not bring back rows of a dropped one.
	Incarnation uint64
	// Schema is the id of the schema that the rows have.
	Schema uint32
	// Rows is the number of rows in Body.
	Rows uint32
	// Body is the content. Append writes the pieces one after the other and does not copy large ones: they belong to the
	// log until Append returns. Replay gives one piece that is valid only until its function returns.
	Body [][]byte
	// Buffered says that nobody waits until the record is durable: it is synced within Options.Interval, or with the next
	// record that is not buffered. It is not written.
	Buffered bool
	// Value is not written. It travels to Options.Appended with the record.
	Value any
}

const (
	// recordHeaderBytes is the size of a record without its body.
	recordHeaderBytes = 40
	recordAlign       = 8
)

// encodedBytes returns the size of the record in a group.
func (r *Record) encodedBytes() int64 {
	return recordHeaderBytes + align(r.bodyBytes(), recordAlign)
}

// bodyBytes returns the size of the body.
func (r *Record) bodyBytes() int64 {
	n := int64(0)
	for _, piece := range r.Body {
		n += int64(len(piece))
	}
	return n
}

// encodeHeader writes the record's header into the first recordHeaderBytes of b.
func (r *Record) encodeHeader(b []byte) {
	binary.LittleEndian.PutUint32(b[0:], uint32(r.bodyBytes()))
	binary.LittleEndian.PutUint32(b[4:], r.Schema)
	binary.LittleEndian.PutUint32(b[8:], r.Rows)
	binary.LittleEndian.PutUint32(b[12:], uint32(r.Kind))
	binary.LittleEndian.PutUint64(b[16:], r.Incarnation)
	copy(b[24:recordHeaderBytes], r.Shard[:])
}

// decodeRecord reads the record at the start of b into r and returns what follows it. The record's body is a part of b.
func decodeRecord(b []byte, r *Record) (rest []byte, err error) {
	if len(b) < recordHeaderBytes {
		return nil, fmt.Errorf("record header needs %d bytes, the group has %d left", recordHeaderBytes, len(b))
	}
	length := int64(binary.LittleEndian.Uint32(b[0:]))
	end := recordHeaderBytes + align(length, recordAlign)
	if end > int64(len(b)) {
		return nil, fmt.Errorf("record of %d bytes, the group has %d left", end, len(b))
	}
	kind := binary.LittleEndian.Uint32(b[12:])
	if r.Kind = Kind(kind); kind > 0xff || !r.Kind.valid() {
		return nil, fmt.Errorf("record kind %#x is not known to this version of flightd", kind)
	}
	r.Schema = binary.LittleEndian.Uint32(b[4:])
	r.Rows = binary.LittleEndian.Uint32(b[8:])
	r.Incarnation = binary.LittleEndian.Uint64(b[16:])
	copy(r.Shard[:], b[24:recordHeaderBytes])
	r.Body = append(r.Body[:0], b[recordHeaderBytes:recordHeaderBytes+length])
	if !zero(b[recordHeaderBytes+length : end]) {
		return nil, errors.New("padding of a record is not zero")
	}
	return b[end:], nil
}

// align rounds n up to a multiple of unit, a power of two.
func align(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// zero reports whether b is all zeros.
func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
