package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"
	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/klauspost/compress/zstd"
)

// The few parts of Arrow's IPC file format that a deletion file uses, as places of fields in their tables.
const (
	arrowMagic = "ARROW1"

	footerSchema, footerBatches              = 1, 3
	schemaFields                             = 1
	fieldName, fieldTypeKind, fieldType      = 0, 2, 3
	messageKind, messageHeader               = 1, 2
	batchRows, batchBuffers, batchCompressed = 0, 2, 3
	compressionCodec                         = 0

	kindInt, kindRecordBatch = 2, 3
	codecZstd                = 1
	blockBytes, bufferBytes  = 24, 16
)

var errOffsets = errors.New("not a deletion file of one batch with one column row_id of uint32 without nulls")

// parseOffsets decodes the offsets of rows deleted from an Arrow IPC file, the form in which Lance writes few of them.
//
// The Arrow library is not used because it allocates what the metadata of a file asks for, and 300 bytes are enough
// to ask for more memory than there is. Here the number of rows is known and bounds everything. The flatbuffers
// library looks at fields in place; what points outside makes it panic, which ends here.
func parseOffsets(b []byte, rows int64) (m *roaring.Bitmap, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("%w: %v", errOffsets, r)
		}
	}()
	tail := len(arrowMagic) + 4
	if len(b) < 8+tail || string(b[:len(arrowMagic)]) != arrowMagic || string(b[len(b)-len(arrowMagic):]) != arrowMagic {
		return nil, fmt.Errorf("%w: no Arrow file in %d bytes", errOffsets, len(b))
	}
	size := int(binary.LittleEndian.Uint32(b[len(b)-tail:]))
	if size > len(b)-tail {
		return nil, fmt.Errorf("%w: a footer of %d bytes", errOffsets, size)
	}
	footer := rootTable(b[len(b)-tail-size : len(b)-tail])
	if !isOffsetSchema(table(footer, footerSchema)) {
		return nil, fmt.Errorf("%w: it has other columns", errOffsets)
	}
	block, n := vector(footer, footerBatches)
	if n != 1 {
		return nil, fmt.Errorf("%w: it has %d batches", errOffsets, n)
	}
	at := int(int64(binary.LittleEndian.Uint64(footer.Bytes[block:])))
	metadata := int(int32(binary.LittleEndian.Uint32(footer.Bytes[block+8:])))
	body := b[at+metadata : at+metadata+int(int64(binary.LittleEndian.Uint64(footer.Bytes[block+blockBytes-8:])))]
	// The metadata begins with the marker of a message and its length, four bytes each.
	values, err := offsetValues(rootTable(b[at+8:at+metadata]), body, rows)
	if err != nil {
		return nil, err
	}
	m = roaring.New()
	for i := 0; i < len(values); i += 4 {
		m.Add(binary.LittleEndian.Uint32(values[i:]))
	}
	return m, nil
}

func isOffsetSchema(schema *flatbuffers.Table) bool {
	list, n := vector(schema, schemaFields)
	if n != 1 {
		return false
	}
	field := &flatbuffers.Table{Bytes: schema.Bytes, Pos: schema.Indirect(list)}
	name := field.ByteVector(field.Pos + slot(field, fieldName))
	integer := table(field, fieldType)
	bits := integer.GetInt32Slot(4, 0)
	signed := integer.GetBoolSlot(6, false)
	return string(name) == "row_id" && field.GetByteSlot(4+2*fieldTypeKind, 0) == kindInt && bits == 32 && !signed
}

// offsetValues returns the bytes of the column in the one batch of the file.
func offsetValues(message *flatbuffers.Table, body []byte, rows int64) ([]byte, error) {
	if message.GetByteSlot(4+2*messageKind, 0) != kindRecordBatch {
		return nil, fmt.Errorf("%w: it has no batch", errOffsets)
	}
	batch := table(message, messageHeader)
	// The other writer counts deleted rows in the manifest, but a count of 0 means that it did not say.
	n := batch.GetInt64Slot(4+2*batchRows, 0)
	if n < 0 || rows > 0 && n != rows || n > int64(len(body))*maxRatio {
		return nil, fmt.Errorf("%w: %d rows, the manifest says %d", errOffsets, n, rows)
	}
	buffers, count := vector(batch, batchBuffers)
	if count != 2 {
		return nil, fmt.Errorf("%w: %d buffers", errOffsets, count)
	}
	second := buffers + bufferBytes
	from := int(int64(binary.LittleEndian.Uint64(batch.Bytes[second:])))
	values := body[from : from+int(int64(binary.LittleEndian.Uint64(batch.Bytes[second+8:])))]
	if batch.Offset(4+2*batchCompressed) != 0 && len(values) > 0 {
		codec := table(batch, batchCompressed).GetByteSlot(4+2*compressionCodec, 0)
		var err error
		if values, err = inflate(values, codec, 4*n); err != nil {
			return nil, err
		}
	}
	if int64(len(values)) < 4*n {
		return nil, fmt.Errorf("%w: %d bytes for %d rows", errOffsets, len(values), n)
	}
	return values[:4*n], nil
}

// maxRatio bounds how many rows a byte of a compressed file can stand for. Distinct offsets do not compress well;
// long runs of them could, and Lance writes a bitmap for those.
const maxRatio = 64

// inflate returns a compressed buffer of a batch: its length, -1 for one that was left as it is, and then the bytes.
func inflate(b []byte, codec byte, size int64) ([]byte, error) {
	length := int64(binary.LittleEndian.Uint64(b))
	if length == -1 {
		return b[8:], nil
	}
	if codec != codecZstd || length != size {
		return nil, fmt.Errorf("%w: %d bytes compressed with codec %d, expected %d", errOffsets, length, codec, size)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(size)+1<<10))
	if err != nil {
		return nil, fmt.Errorf("decompress offsets: %w", err)
	}
	defer d.Close()
	out, err := d.DecodeAll(b[8:], make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errOffsets, err)
	}
	return out, nil
}

func rootTable(b []byte) *flatbuffers.Table {
	return &flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}
}

// slot returns where a field of t stands in it. It panics when t does not have the field.
func slot(t *flatbuffers.Table, field int) flatbuffers.UOffsetT {
	at := t.Offset(flatbuffers.VOffsetT(4 + 2*field))
	if at == 0 {
		panic(fmt.Sprintf("field %d is missing", field))
	}
	return flatbuffers.UOffsetT(at)
}

// table returns the table that a field of t points at, whether or not the schema says its kind.
func table(t *flatbuffers.Table, field int) *flatbuffers.Table {
	at := t.Pos + slot(t, field)
	return &flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(at)}
}

// vector returns where the elements of a field of t begin and how many there are.
func vector(t *flatbuffers.Table, field int) (flatbuffers.UOffsetT, int) {
	at := slot(t, field)
	return t.Vector(at), t.VectorLen(at)
}
