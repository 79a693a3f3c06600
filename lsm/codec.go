package lsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// A batch is a log record whose body is
//
//	+-----------+-----------+---------------------+------------------+
//	| u32 flags | u32 M     | M bytes: IPC header | rest: IPC body   |
//	+-----------+-----------+---------------------+------------------+
//
// little-endian. The header is the flatbuffer of an Arrow IPC record batch message, the body its buffers, as Arrow
// Flight carries both; their schema is the table's under the record's schema id, followed by the boolean
// `_tombstone` when bit 0 of the flags is set.
const (
	batchPrefixBytes    = 8
	batchFlagTombstones = 1
)

// putBatchPrefix writes the first bytes of a batch's record into b.
func putBatchPrefix(b []byte, tombstones bool, metaBytes int) {
	flags := uint32(0)
	if tombstones {
		flags |= batchFlagTombstones
	}
	binary.LittleEndian.PutUint32(b, flags)
	binary.LittleEndian.PutUint32(b[4:], uint32(metaBytes))
}

// encodeBatch returns a batch as an IPC message whose body lies in memory of mem. The caller releases the body.
func encodeBatch(rec arrow.RecordBatch, mem memory.Allocator) (meta []byte, body *memory.Buffer, err error) {
	p, err := ipc.GetRecordBatchPayload(rec, ipc.WithAllocator(memory.DefaultAllocator))
	if err != nil {
		return nil, nil, fmt.Errorf("encode batch: %w", err)
	}
	defer p.Release()
	m := p.Meta()
	defer m.Release()
	size := countingWriter(0)
	if err := p.SerializeBody(&size); err != nil {
		return nil, nil, fmt.Errorf("encode batch: %w", err)
	}
	body = memory.NewResizableBuffer(mem)
	body.Resize(int(size))
	if err := p.SerializeBody(&sliceWriter{body.Bytes()}); err != nil {
		body.Release()
		return nil, nil, fmt.Errorf("encode batch: %w", err)
	}
	return bytes.Clone(m.Bytes()), body, nil
}

// countingWriter counts what is written to it.
type countingWriter int64

// Write implements io.Writer.
func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}

// sliceWriter fills a slice of fixed size.
type sliceWriter struct{ rest []byte }

// Write implements io.Writer.
func (w *sliceWriter) Write(p []byte) (int, error) {
	n := copy(w.rest, p)
	w.rest = w.rest[n:]
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// batchDecoder turns IPC messages of one schema into batches. It is for one goroutine.
type batchDecoder struct {
	feed   messageFeed
	reader *ipc.Reader
}

// messageFeed hands the reader one message at a time.
type messageFeed struct{ next *ipc.Message }

// Message implements ipc.MessageReader.
func (f *messageFeed) Message() (*ipc.Message, error) {
	m := f.next
	f.next = nil
	if m == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return m, nil
}

// Retain and Release implement ipc.MessageReader; the decoder owns the feed.
func (f *messageFeed) Retain() {}

// Release implements ipc.MessageReader.
func (f *messageFeed) Release() {}

// newBatchDecoder returns a decoder for batches of a schema. It tells arrow-go no metadata, of which it would make
// extension types.
func newBatchDecoder(s *arrow.Schema) (*batchDecoder, error) {
	d := &batchDecoder{}
	p := ipc.GetSchemaPayload(BareSchema(s), memory.DefaultAllocator)
	defer p.Release()
	meta := p.Meta()
	defer meta.Release()
	d.feed.next = ipc.NewMessage(meta, memory.NewBufferBytes(nil))
	reader, err := ipc.NewReaderFromMessageReader(&d.feed)
	if err != nil {
		return nil, fmt.Errorf("decode batches: %w", err)
	}
	d.reader = reader
	return d, nil
}

// decode returns the batch of a message. Its arrays lie in body, of which they keep references.
func (d *batchDecoder) decode(meta []byte, body *memory.Buffer) (arrow.RecordBatch, error) {
	m := ipc.NewMessage(memory.NewBufferBytes(meta), body)
	defer m.Release() // the reader leaves that to who feeds it
	d.feed.next = m
	rec, err := d.reader.Read()
	if err != nil {
		return nil, fmt.Errorf("decode batch: %w", err)
	}
	rec.Retain()
	return rec, nil
}

// close lets go of the last batch that was decoded. Those that decode returned stay valid.
func (d *batchDecoder) close() { d.reader.Release() }

// splitTombstones takes the `_tombstone` column, if there is one, off a batch of a table with a schema. Both
// results have references of their own; tombs is nil when no row is a tombstone.
func splitTombstones(rec arrow.RecordBatch, s *tableSchema) (arrow.RecordBatch, *array.Boolean) {
	columns := s.arrow.NumFields()
	cols := make([]arrow.Array, columns)
	for i := range cols {
		col := relabel(rec.Column(i), s.arrow.Field(i).Type)
		if cols[i] = col; !s.nullStructs() {
			cols[i] = withoutNullStructs(col)
			col.Release()
		}
		defer cols[i].Release()
	}
	rows := array.NewRecordBatch(s.arrow, cols, rec.NumRows())
	if int(rec.NumCols()) == columns {
		return rows, nil
	}
	tombs := rec.Column(columns).(*array.Boolean)
	for i := range tombs.Len() {
		if tombs.IsValid(i) && tombs.Value(i) {
			return rows, withoutNulls(tombs)
		}
	}
	return rows, nil
}

// withoutNulls returns flags with false for null, because generations store `_tombstone` without nulls.
func withoutNulls(flags *array.Boolean) *array.Boolean {
	if flags.NullN() == 0 {
		flags.Retain()
		return flags
	}
	b := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(flags.Len())
	for i := range flags.Len() {
		b.UnsafeAppend(flags.IsValid(i) && flags.Value(i))
	}
	return b.NewBooleanArray()
}

// recordBytes returns the memory of a batch's buffers.
func recordBytes(rec arrow.RecordBatch) int64 {
	n := int64(0)
	for _, c := range rec.Columns() {
		n += int64(c.Data().SizeInBytes())
	}
	return n
}
