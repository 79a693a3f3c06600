package flight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/offheap"
)

// Field numbers of FlightData.
const (
	fieldDescriptor  = 1
	fieldHeader      = 2
	fieldAppMetadata = 3
	fieldBody        = 1000
)

// message is one FlightData as the server receives it.
type message struct {
	descriptor *flight.FlightDescriptor
	header     []byte
	// body lies outside the Go heap, because DuckDB keeps pointers into what becomes of it, and is joined from
	// gRPC's frames once; nil when the message has none. The message holds one reference.
	body *memory.Buffer
	// err is what is wrong with the message's bytes. It is no error of the codec's, because gRPC would then answer
	// the client itself, before the last ack.
	err error
}

// release gives up the body.
func (m *message) release() {
	if m.body != nil {
		m.body.Release()
		m.body = nil
	}
}

// outgoing is one FlightData on its way to a client, already in its parts.
type outgoing struct{ parts mem.BufferSlice }

// codec decodes message and encodes outgoing, and leaves all other types to protobuf. Protobuf would copy a body
// twice on its way in (joining frames, then Unmarshal) and twice on its way out.
type codec struct {
	encoding.CodecV2
	maxBytes int
}

func newCodec(maxBytes int) codec {
	return codec{CodecV2: encoding.GetCodecV2(proto.Name), maxBytes: maxBytes}
}

// Marshal implements encoding.CodecV2. It hands out references to what outgoing holds; gRPC frees them.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if out, ok := v.(*outgoing); ok {
		return out.parts, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if size := data.Len(); size > c.maxBytes {
		m.err = fmt.Errorf("%w: the message has %d bytes, at most %d are taken; send fewer rows in a batch", errTooLarge, size, c.maxBytes)
		return nil
	}
	r := data.Reader()
	defer r.Close()
	if err := m.read(r); err != nil {
		m.release()
		m.err = invalid("the message is not a FlightData: %w", err)
	}
	return nil
}

// read fills m from its protobuf form. Of a field that comes twice the last one counts, as protobuf has it.
func (m *message) read(r *mem.Reader) error {
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		if kind != protowire.BytesType {
			if err := skipScalar(r, kind); err != nil {
				return err
			}
			continue
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		if size > uint64(r.Remaining()) {
			return io.ErrUnexpectedEOF
		}
		if err := m.field(r, number, int(size)); err != nil {
			return err
		}
	}
	return nil
}

// field reads one length-delimited field.
func (m *message) field(r *mem.Reader, number protowire.Number, size int) error {
	switch number {
	case fieldBody:
		m.release()
		m.body = memory.NewBufferWithAllocator(offheap.Default.AllocateDirty(size), offheap.Default)
		_, err := io.ReadFull(r, m.body.Bytes())
		return err
	case fieldHeader:
		m.header = make([]byte, size)
		_, err := io.ReadFull(r, m.header)
		return err
	case fieldDescriptor:
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		m.descriptor = new(flight.FlightDescriptor)
		return protobuf.Unmarshal(b, m.descriptor)
	}
	_, err := r.Discard(size)
	return err
}

// skipScalar passes over a field that FlightData does not have.
func skipScalar(r *mem.Reader, kind protowire.Type) error {
	var err error
	switch kind {
	case protowire.VarintType:
		_, err = binary.ReadUvarint(r)
	case protowire.Fixed32Type:
		_, err = r.Discard(4)
	case protowire.Fixed64Type:
		_, err = r.Discard(8)
	default:
		err = errors.New("it has a field of an unknown wire type")
	}
	return err
}

// chunkBytes is the size of the blocks that bodies on their way out are copied into: one or two blocks for a batch
// of the size that results are cut to.
const chunkBytes = 1 << 20

// chunks recycles these blocks. A body is copied rather than sent from where it lies, because gRPC drops what is
// queued on a connection that breaks without freeing it: a snapshot that hung on it would stay forever. A block that
// is dropped is garbage, nothing more.
var chunks = &chunkPool{sync.Pool{New: func() any {
	b := make([]byte, chunkBytes)
	return &b
}}}

// chunkPool implements mem.BufferPool for blocks of one size. Unlike gRPC's own pools it does not clear them.
type chunkPool struct{ pool sync.Pool }

// Get implements mem.BufferPool; length is at most chunkBytes.
func (p *chunkPool) Get(length int) *[]byte {
	b := p.pool.Get().(*[]byte)
	*b = (*b)[:length]
	return b
}

// Put implements mem.BufferPool.
func (p *chunkPool) Put(b *[]byte) {
	*b = (*b)[:cap(*b)]
	p.pool.Put(b)
}

// bodyWriter gathers a body into chunks.
type bodyWriter struct {
	full  mem.BufferSlice
	chunk *[]byte // the one being filled, nil before the first byte
	used  int
	size  int
}

// Write implements io.Writer.
func (w *bodyWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if w.chunk == nil {
			w.chunk, w.used = chunks.Get(chunkBytes), 0
		}
		took := copy((*w.chunk)[w.used:], p)
		p = p[took:]
		if w.used += took; w.used == chunkBytes {
			w.flush()
		}
	}
	w.size += n
	return n, nil
}

// flush moves the chunk to the full ones.
func (w *bodyWriter) flush() {
	if w.chunk != nil {
		*w.chunk = (*w.chunk)[:w.used]
		w.full = append(w.full, mem.NewBuffer(w.chunk, chunks))
		w.chunk = nil
	}
}

// newOutgoing returns a FlightData of header and what body has gathered, which it takes over.
func newOutgoing(header []byte, body *bodyWriter) *outgoing {
	body.flush()
	head := make([]byte, 0, len(header)+3*binary.MaxVarintLen32)
	head = protowire.AppendTag(head, fieldHeader, protowire.BytesType)
	head = protowire.AppendBytes(head, header)
	if body.size > 0 {
		head = protowire.AppendTag(head, fieldBody, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(body.size))
	}
	return &outgoing{append(mem.BufferSlice{mem.SliceBuffer(head)}, body.full...)}
}
