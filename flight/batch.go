package flight

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// maxBatchRows bounds the rows of one batch: some types (null, lists of zero elements) take no bytes on the wire,
// so that nothing else bounds them.
const maxBatchRows = 1 << 26

// decoder turns the dictionary and record batch messages of one stream into batches. It believes no number in a
// message: each buffer is checked against the body, each length against its buffer, offsets for order and range,
// text for UTF-8, before anything reads through them. arrow-go's own reader does none of that (it panics, or reads
// beyond the buffer), and what passes here goes to C code.
//
// A decoder belongs to one goroutine.
type decoder struct {
	stream *streamSchema
	alloc  memory.Allocator
	// limit bounds the bytes that a batch may grow to by decompression and by decoding dictionaries and views.
	limit  int64
	dicts  map[int64]arrow.Array
	unpack decompressor
}

// newDecoder returns a decoder for a stream of the schema. Decoded buffers that are not slices of a message's
// body come from alloc.
func newDecoder(stream *streamSchema, alloc memory.Allocator, limit int64) *decoder {
	return &decoder{stream: stream, alloc: alloc, limit: limit, dicts: make(map[int64]arrow.Array)}
}

// Close releases the dictionaries.
func (d *decoder) Close() {
	for id, dict := range d.dicts {
		dict.Release()
		delete(d.dicts, id)
	}
	d.unpack.Close()
}

// decoded is one batch.
type decoded struct {
	// record has the plain schema; its owner releases it.
	record arrow.RecordBatch
	// raw says that the message itself, header and body, reads as record: nothing was decompressed, looked up or
	// corrected.
	raw bool
}

// Decode reads one message. ok is false for messages that carry no rows: dictionaries. body may be nil; its
// slices are retained by the batch.
func (d *decoder) Decode(meta []byte, body *memory.Buffer) (out decoded, ok bool, err error) {
	head, err := parseHeader(meta)
	if err != nil {
		return decoded{}, false, err
	}
	if body == nil {
		body = memory.NewBufferBytes(nil)
	}
	switch head.kind {
	case headerRecord:
		out, err = d.record(head, body)
		return out, err == nil, err
	case headerDictionary:
		return decoded{}, false, d.dictionary(head, body)
	case headerSchema:
		return decoded{}, false, errors.New("a second schema came in mid-stream; open a new stream for it")
	}
	return decoded{}, false, fmt.Errorf("message type %d is not a record batch", head.kind)
}

// record decodes a record batch.
func (d *decoder) record(head header, body *memory.Buffer) (decoded, error) {
	l, err := d.newLoader(head.fb, body)
	if err != nil {
		return decoded{}, err
	}
	fields := d.stream.wire.Fields()
	columns := make([]arrow.Array, 0, len(fields))
	defer func() {
		for _, column := range columns {
			column.Release()
		}
	}()
	for _, field := range fields {
		column, err := l.column(field.Type)
		if err != nil {
			return decoded{}, fmt.Errorf("column %q: %w", field.Name, err)
		}
		columns = append(columns, column)
		if column.Len() != l.rows {
			return decoded{}, fmt.Errorf("column %q has %d rows in a batch of %d", field.Name, column.Len(), l.rows)
		}
	}
	if err := l.finish(); err != nil {
		return decoded{}, err
	}
	return decoded{record: array.NewRecordBatch(d.stream.plain, columns, int64(l.rows)), raw: l.raw}, nil
}

// loader walks the nodes and buffers of one record batch in the order of its columns.
type loader struct {
	d       *decoder
	body    *memory.Buffer
	rows    int
	nodes   []byte // 16 bytes each: length, null count
	buffers []byte // 16 bytes each: offset, length
	views   []byte // 8 bytes each: data buffers of a view column
	codec   int    // noCodec, or Arrow's number of it
	raw     bool
	room    int64 // bytes that decoding may still take
	nbuf    int   // buffers taken so far, for messages
	ndict   int   // dictionaries taken so far
}

// newLoader checks the frame of a RecordBatch table against its body.
func (d *decoder) newLoader(t fbTable, body *memory.Buffer) (*loader, error) {
	l := &loader{d: d, body: body, codec: noCodec, raw: true, room: d.limit}
	rows, err := t.int64(0)
	if err != nil {
		return nil, err
	}
	if rows < 0 || rows > maxBatchRows {
		return nil, fmt.Errorf("the batch claims %d rows; at most %d are read", rows, maxBatchRows)
	}
	l.rows = int(rows)
	if l.nodes, _, err = t.vector(1, 16); err != nil {
		return nil, err
	}
	if l.buffers, _, err = t.vector(2, 16); err != nil {
		return nil, err
	}
	if l.views, _, err = t.vector(4, 8); err != nil {
		return nil, err
	}
	if err := l.compression(t); err != nil {
		return nil, err
	}
	return l, l.checkBuffers()
}

// compression reads the codec of the body.
func (l *loader) compression(t fbTable) error {
	sub, ok, err := t.table(3)
	if !ok {
		return err
	}
	codec, err := sub.byte(0)
	if err != nil {
		return err
	}
	if codec != codecLZ4 && codec != codecZSTD {
		return fmt.Errorf("body compression %d is not known; LZ4 frames and ZSTD are read", codec)
	}
	l.codec, l.raw = int(codec), false
	return nil
}

// checkBuffers holds every buffer against the body, used or not, and all together: buffers that share bytes would
// let a small message become many large columns.
func (l *loader) checkBuffers() error {
	size := int64(l.body.Len())
	total := int64(0)
	for i := 0; i < len(l.buffers); i += 16 {
		offset := int64(binary.LittleEndian.Uint64(l.buffers[i:]))
		length := int64(binary.LittleEndian.Uint64(l.buffers[i+8:]))
		if offset < 0 || length < 0 || offset > size || length > size-offset {
			return fmt.Errorf("buffer %d (offset %d, length %d) lies outside the body of %d bytes", i/16, offset, length, size)
		}
		if offset%8 != 0 && length > 0 {
			return fmt.Errorf("buffer %d starts at %d, which is no multiple of 8", i/16, offset)
		}
		if total += length; total > size {
			return fmt.Errorf("the buffers overlap: together they are longer than the body of %d bytes", size)
		}
	}
	if total == 0 { // nothing of the record would keep the body, should it have bytes
		l.raw = false
	}
	return nil
}

// finish reports nodes and buffers that no column asked for.
func (l *loader) finish() error {
	if len(l.nodes) > 0 || len(l.buffers) > 0 || len(l.views) > 0 {
		return fmt.Errorf("the batch has %d columns' nodes and %d buffers more than its schema", len(l.nodes)/16, len(l.buffers)/16)
	}
	return nil
}

// column loads a column and decodes it to its plain type.
func (l *loader) column(t arrow.DataType) (arrow.Array, error) {
	data, err := l.array(t)
	if err != nil {
		return nil, err
	}
	defer data.Release()
	return array.MakeFromData(data), nil
}

// node is what a batch says of one array.
type node struct {
	rows, nulls int
	validity    *memory.Buffer // nil when every row is valid
}

// release gives up the node's buffer.
func (n node) release() {
	if n.validity != nil {
		n.validity.Release()
	}
}

// node takes the next node and, unless the type has none, its validity buffer.
func (l *loader) node() (node, error) {
	rows, nulls, err := l.bareNode()
	if err != nil {
		return node{}, err
	}
	n := node{rows: rows}
	if nulls == 0 {
		return n, l.skip()
	}
	if n.validity, err = l.buffer((int64(rows) + 7) / 8); err != nil {
		return node{}, fmt.Errorf("validity: %w", err)
	}
	if n.nulls = rows - countBits(n.validity, rows); int64(n.nulls) != nulls {
		l.raw = false // the count is corrected here, and whoever reads the message again would believe it
	}
	if n.nulls == 0 {
		n.validity.Release()
		n.validity = nil
	}
	return n, nil
}

// bareNode takes the next node.
func (l *loader) bareNode() (rows int, nulls int64, err error) {
	if len(l.nodes) < 16 {
		return 0, 0, errors.New("the batch has fewer columns than its schema")
	}
	length := int64(binary.LittleEndian.Uint64(l.nodes))
	nulls = int64(binary.LittleEndian.Uint64(l.nodes[8:]))
	l.nodes = l.nodes[16:]
	if length < 0 || length > maxBatchRows*64 {
		return 0, 0, fmt.Errorf("an array of %d values cannot be", length)
	}
	return int(length), nulls, nil
}

// skip passes over a buffer that is not needed.
func (l *loader) skip() error {
	_, _, err := l.region()
	return err
}

// region takes the next buffer's place in the body, which checkBuffers found to be inside.
func (l *loader) region() (offset, length int64, err error) {
	if len(l.buffers) < 16 {
		return 0, 0, errors.New("the batch has fewer buffers than its schema")
	}
	offset = int64(binary.LittleEndian.Uint64(l.buffers))
	length = int64(binary.LittleEndian.Uint64(l.buffers[8:]))
	l.buffers = l.buffers[16:]
	l.nbuf++
	return offset, length, nil
}

// buffer takes the next buffer, decompressed, which must have at least want bytes. The caller releases it.
func (l *loader) buffer(want int64) (*memory.Buffer, error) {
	offset, length, err := l.region()
	if err != nil {
		return nil, err
	}
	number := l.nbuf - 1
	var b *memory.Buffer
	if l.codec == noCodec || length == 0 {
		b = memory.SliceBuffer(l.body, int(offset), int(length))
	} else if b, err = l.decompress(offset, length); err != nil {
		return nil, fmt.Errorf("buffer %d: %w", number, err)
	}
	if int64(b.Len()) < want {
		have := b.Len()
		b.Release()
		return nil, fmt.Errorf("buffer %d has %d bytes, the rows need %d", number, have, want)
	}
	return b, nil
}

// take counts bytes that decoding adds to what came.
func (l *loader) take(n int64) error {
	if n > l.room {
		return fmt.Errorf("%w: the batch grows beyond %d bytes when decoded; send fewer rows in a batch", errTooLarge, l.d.limit)
	}
	l.room -= n
	return nil
}
