package wal

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"path"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/object"
)

// An entry is one object of the log's bucket form: an Arrow IPC stream, as Lance's MemWAL has it. docs/log-format.md has
// its bytes.

// Keys of the metadata of an entry's schema. The first three are Lance's.
const (
	metaEpoch      = "writer_epoch"
	metaGeneration = "generation"
	metaSentinel   = "fence_sentinel"
	metaEntry      = "flightd_entry"
	metaRecords    = "flightd_records"
)

const (
	entrySuffix = ".arrow"
	// markMagic begins the value of metaEntry: magic and version. A nonce, a colon and the checksum follow.
	markMagic = "flightd-entry:1:"
	// tableVersion is that of metaRecords.
	tableVersion = 1
	// tableHeadBytes and tableRecordBytes are the sizes of the head of metaRecords and of each record in it.
	tableHeadBytes   = 8
	tableRecordBytes = 48
	// tableCheckpoint is the flag of a record that Options.Checkpoint returned.
	tableCheckpoint = 1
	// sumDigits is the length of a CRC32C in hex, noSum what stands in its place while it is worked out.
	sumDigits = 8
	noSum     = "00000000"
	// streamEnd is the length of what ends an IPC stream.
	streamEnd = 8
)

// entryName returns the name of the entry at a position: reversed bits, so that successive names share no prefix.
func entryName(position uint64) string {
	return fmt.Sprintf("%064b%s", bits.Reverse64(position), entrySuffix)
}

// parseEntryName returns the position in a name, and false for an object that is no entry.
func parseEntryName(name string) (position uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, entrySuffix)
	if !ok || len(digits) != 64 {
		return 0, false
	}
	u, err := strconv.ParseUint(digits, 2, 64)
	return bits.Reverse64(u), err == nil && u > 0
}

// entry is records of one stream on their way into one object.
type entry struct {
	stream *Stream
	// schema and schemaID are those of its batches; nil and 0 while it has none.
	schema   *arrow.Schema
	schemaID uint32
	// table is what metaRecords will hold, messages are the record batches.
	table    []byte
	messages bytes.Buffer
	stored
}

// stored is what is kept in mind of an entry that is in the store.
type stored struct {
	position uint64
	// last is its last LSN, 0 in a sentinel; keys is that of its last news of idempotency keys, and checkpoint that of what
	// Options.Checkpoint returned, 0 without any.
	last, keys, checkpoint LSN
	sentinel               bool
}

func newEntry(s *Stream) *entry {
	return &entry{stream: s, table: make([]byte, tableHeadBytes, 4<<10)}
}

// add puts a record at the end. rows are the rows of a batch, with the column for tombstones; else nil.
// REQUIRES: rows have the schema of those before.
func (e *entry) add(r *Record, rows arrow.RecordBatch, checkpoint bool) error {
	body := r.Body
	if rows != nil {
		body = nil
		p, err := ipc.GetRecordBatchPayload(rows)
		if err != nil {
			return fmt.Errorf("encode batch: %w", err)
		}
		_, err = p.WritePayload(&e.messages)
		p.Release()
		if err != nil {
			return fmt.Errorf("encode batch: %w", err)
		}
		e.schema, e.schemaID = rows.Schema(), r.Schema
	}
	n := len(e.table)
	e.table = append(e.table, make([]byte, tableRecordBytes)...)
	h := e.table[n:]
	size := 0
	for _, piece := range body {
		size += len(piece)
		e.table = append(e.table, piece...)
	}
	binary.LittleEndian.PutUint64(h[0:], uint64(r.LSN))
	h[8] = byte(r.Kind)
	if checkpoint {
		h[9] = tableCheckpoint
		e.checkpoint = r.LSN
	}
	binary.LittleEndian.PutUint32(h[12:], r.Schema)
	binary.LittleEndian.PutUint32(h[16:], r.Rows)
	binary.LittleEndian.PutUint32(h[20:], uint32(size))
	binary.LittleEndian.PutUint64(h[24:], r.Incarnation)
	copy(h[32:tableRecordBytes], r.Shard[:])
	copy(e.table[n:], h[:tableRecordBytes]) // the table may have moved
	binary.LittleEndian.PutUint32(e.table[4:], binary.LittleEndian.Uint32(e.table[4:])+1)
	e.last = r.LSN
	if r.Kind == Idempotency {
		e.keys = r.LSN
	}
	return nil
}

// bytes returns the size of what was added.
func (e *entry) bytes() int64 { return int64(len(e.table) + e.messages.Len()) }

// entryMark is where an entry can be taken back to.
type entryMark struct {
	table, messages int
	count           uint32
	schema          *arrow.Schema
	schemaID        uint32
	stored
}

func (e *entry) mark() entryMark {
	return entryMark{len(e.table), e.messages.Len(), binary.LittleEndian.Uint32(e.table[4:]), e.schema, e.schemaID, e.stored}
}

// takeBack forgets what was added since a mark.
func (e *entry) takeBack(m entryMark) {
	e.table = e.table[:m.table]
	binary.LittleEndian.PutUint32(e.table[4:], m.count)
	e.messages.Truncate(m.messages)
	e.schema, e.schemaID, e.stored = m.schema, m.schemaID, m.stored
}

// seal returns the object. Its schema is that of the batches; without any it has no columns.
func (e *entry) seal(epoch, generation uint64) ([]byte, error) {
	e.table[0] = tableVersion
	return sealEntry(e.schema, e.messages.Bytes(), map[string]string{
		metaEpoch:      strconv.FormatUint(epoch, 10),
		metaGeneration: strconv.FormatUint(generation, 10),
		metaRecords:    base64.StdEncoding.EncodeToString(e.table),
	})
}

// sealSentinel returns the object of a sentinel.
func sealSentinel(epoch uint64) ([]byte, error) {
	return sealEntry(nil, nil, map[string]string{metaEpoch: strconv.FormatUint(epoch, 10), metaSentinel: "true"})
}

// sealEntry lays an object out and sums it. Each has a random nonce, so that a writer knows its own when it meets it.
func sealEntry(schema *arrow.Schema, messages []byte, meta map[string]string) ([]byte, error) {
	nonce := uuid.New()
	head := markMagic + hex.EncodeToString(nonce[:]) + ":"
	meta[metaEntry] = head + noSum
	var fields []arrow.Field
	if schema != nil {
		fields = schema.Fields()
	}
	md := arrow.MetadataFrom(meta)
	var b bytes.Buffer
	b.Grow(len(messages) + len(meta[metaRecords]) + 4<<10)
	if err := ipc.NewWriter(&b, ipc.WithSchema(arrow.NewSchema(fields, &md))).Close(); err != nil {
		return nil, fmt.Errorf("encode log entry: %w", err)
	}
	end := bytes.Clone(b.Bytes()[b.Len()-streamEnd:])
	b.Truncate(b.Len() - streamEnd)
	b.Write(messages)
	b.Write(end)
	out := b.Bytes()
	at := bytes.Index(out, []byte(head))
	if at < 0 {
		return nil, errors.New("encode log entry: its own metadata are not in it")
	}
	sum := crc32.Checksum(out, castagnoli)
	copy(out[at+len(head):], fmt.Sprintf("%0*x", sumDigits, sum))
	return out, nil
}

// readEntry is an entry that was read.
type readEntry struct {
	stored
	epoch uint64
	// own is true when flightd wrote it. Nothing is known of others.
	own     bool
	records []Record
}

// decodeEntry reads an object. Batches get the body {prefix(meta), meta, body}: the two parts of their IPC message behind
// what prefix makes of it.
func decodeEntry(name string, b []byte, prefix func(meta []byte) []byte) (e readEntry, err error) {
	defer func() {
		// Flatbuffers are read without looking whether they can be.
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
		if err != nil {
			err = &object.CorruptError{Name: name, Err: err}
		}
	}()
	if e.own, err = verifyEntry(b); err != nil || !e.own {
		return e, err
	}
	reader, err := ipc.NewReader(bytes.NewReader(b))
	if err != nil {
		return e, err
	}
	defer reader.Release()
	md := reader.Schema().Metadata()
	if text, ok := md.GetValue(metaEpoch); ok {
		if e.epoch, err = strconv.ParseUint(text, 10, 64); err != nil {
			return e, fmt.Errorf("%s: %w", metaEpoch, err)
		}
	}
	_, e.sentinel = md.GetValue(metaSentinel)
	if e.sentinel {
		return e, nil
	}
	text, _ := md.GetValue(metaRecords)
	table, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return e, fmt.Errorf("%s: %w", metaRecords, err)
	}
	return e, e.decodeTable(table, b, prefix)
}

// verifyEntry tells whether flightd wrote an object, and verifies its checksum if so. It looks at nothing before it knows
// that it is what was written: a damaged flatbuffer may ask for any amount of memory.
func verifyEntry(b []byte) (own bool, err error) {
	head := schemaOf(b)
	const length = len(markMagic) + 2*16 + 1 + sumDigits
	// A column may have the mark in its name. Then there are several, and one is right.
	for at := 0; ; at++ {
		n := bytes.Index(head[at:], []byte(markMagic))
		if n < 0 || at+n+length > len(head) {
			break
		}
		own, at = true, at+n
		digits := at + length - sumDigits
		sum := crc32.Checksum(b[:digits], castagnoli)
		sum = crc32.Update(sum, castagnoli, []byte(noSum))
		sum = crc32.Update(sum, castagnoli, b[digits+sumDigits:])
		if string(b[digits:digits+sumDigits]) == fmt.Sprintf("%0*x", sumDigits, sum) { // a number may be written in several ways
			return true, nil
		}
		err = fmt.Errorf("log entry has checksum %q, its bytes give %0*x", b[digits:digits+sumDigits], sumDigits, sum)
	}
	if own {
		return true, err
	}
	// A damaged mark must not make an entry of ours look like another program's: the names of its metadata are there as well.
	for _, key := range []string{metaEntry, metaRecords} {
		if at := bytes.Index(head, []byte(key)); at >= 0 {
			return true, fmt.Errorf("log entry has the key %s at byte %d and no mark of flightd: one of the two is damaged", key, at)
		}
	}
	return false, nil
}

// schemaOf returns the first message of an IPC stream, or everything when what says its length is damaged: then nothing follows it
// where another message should begin.
func schemaOf(b []byte) []byte {
	if len(b) < 8 {
		return b
	}
	end := 8 + int64(binary.LittleEndian.Uint32(b[4:]))
	if binary.LittleEndian.Uint32(b) != math.MaxUint32 || end+4 > int64(len(b)) || binary.LittleEndian.Uint32(b[end:]) != math.MaxUint32 {
		return b
	}
	return b[:end]
}

// decodeTable reads the records. The checksum is right, so what is wrong here was written so.
func (e *readEntry) decodeTable(table, b []byte, prefix func([]byte) []byte) error {
	if len(table) < tableHeadBytes || table[0] != tableVersion {
		return fmt.Errorf("%s has %d bytes and is not of version %d", metaRecords, len(table), tableVersion)
	}
	count := binary.LittleEndian.Uint32(table[4:])
	table = table[tableHeadBytes:]
	_, messages, _, err := nextMessage(b) // the schema
	if err != nil {
		return err
	}
	for range count {
		if len(table) < tableRecordBytes {
			return fmt.Errorf("%s ends within a record", metaRecords)
		}
		r := Record{
			LSN: LSN(binary.LittleEndian.Uint64(table[0:])), Kind: Kind(table[8]), Schema: binary.LittleEndian.Uint32(table[12:]),
			Rows: binary.LittleEndian.Uint32(table[16:]), Incarnation: binary.LittleEndian.Uint64(table[24:]),
		}
		copy(r.Shard[:], table[32:tableRecordBytes])
		size := int64(binary.LittleEndian.Uint32(table[20:]))
		if table[9]&tableCheckpoint != 0 {
			e.checkpoint = r.LSN
		}
		table = table[tableRecordBytes:]
		switch {
		case !r.Kind.valid():
			return fmt.Errorf("record kind %#x is not known to this version of flightd", uint8(r.Kind))
		case r.LSN <= e.last:
			return fmt.Errorf("record %s follows %s", r.LSN, e.last)
		case size > int64(len(table)):
			return fmt.Errorf("record of %d bytes, %d are left", size, len(table))
		case r.Kind == Batch:
			var m message
			if m, messages, _, err = nextMessage(messages); err != nil {
				return err
			}
			r.Body = [][]byte{prefix(m.meta), m.meta, m.body}
		default:
			r.Body = [][]byte{table[:size]}
		}
		table = table[size:]
		e.last = r.LSN
		if r.Kind == Idempotency {
			e.keys = r.LSN
		}
		e.records = append(e.records, r)
	}
	if _, _, end, err := nextMessage(messages); err != nil || !end || len(table) > 0 {
		return errors.Join(errors.New("log entry holds more than its records"), err)
	}
	return nil
}

// message is an IPC message, without its framing.
type message struct{ meta, body []byte }

// nextMessage cuts a message off a stream, and tells whether the stream ends instead.
func nextMessage(b []byte) (m message, rest []byte, end bool, err error) {
	const framing = 8
	if len(b) < framing || binary.LittleEndian.Uint32(b) != 0xffffffff {
		return m, nil, false, errors.New("message does not begin where it should")
	}
	size := int64(binary.LittleEndian.Uint32(b[4:]))
	b = b[framing:]
	if size == 0 {
		return m, b, true, nil
	}
	if size > int64(len(b)) {
		return m, nil, false, fmt.Errorf("message header of %d bytes, %d are left", size, len(b))
	}
	m.meta = b[:size]
	length := ipc.NewMessage(memory.NewBufferBytes(m.meta), memory.NewBufferBytes([]byte{})).BodyLen()
	if b = b[size:]; length < 0 || length > int64(len(b)) {
		return m, nil, false, fmt.Errorf("message body of %d bytes, %d are left", length, len(b))
	}
	m.body = b[:length]
	return m, b[length:], false, nil
}

// entryPath returns the name of a stream's entry in the store.
func (s *Stream) entryPath(position uint64) string { return path.Join(s.Dir, entryName(position)) }
