package lance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/flightd/flightd/internal/lancepb"
)

// block is some decoded values. What it shows belongs to a page or to a scratch, and is valid until that is used again.
type block struct {
	n int
	// bits is the width of a value, with all its items; 0 when values vary in length.
	bits int
	data []byte
	// items is the validity of the items of fixed-size lists, nil when all are valid.
	items []byte
	// nothing tells that there are no values: all items are null.
	nothing bool
	// ends are the offsets of values that vary in length: value i is data[ends[i]:ends[i+1]].
	ends []uint64
	// fsst, if it is there, says what the values stand for.
	fsst *fsstTable
}

// value returns a value that varies in length, as it is coded.
func (b *block) value(i int) []byte { return b.data[b.ends[i]:b.ends[i+1]] }

// scratch is memory that decoders use again and again. It belongs to one goroutine.
type scratch struct {
	words []uint64 // of decoded values of one width
	bytes []byte   // of what was compressed
	ends  []uint64
}

// sized returns room for n bytes, aligned for every type.
func (s *scratch) sized(n int) []byte {
	if need := (n + 7) / 8; cap(s.words) < need {
		s.words = make([]uint64, need)
	}
	return arrow.Uint64Traits.CastToBytes(s.words[:cap(s.words)])[:n]
}

// blockDecoder turns the buffers of a chunk into values. It is immutable.
type blockDecoder interface {
	// decode decodes n values.
	decode(bufs [][]byte, n int, s *scratch) (block, error)
	// buffers is how many it needs.
	buffers() int
	// describe names the encoding for people.
	describe() string
}

// parseBlock returns the decoder of an encoding.
func parseBlock(e *lancepb.CompressiveEncoding) (blockDecoder, error) {
	unknown := e.ProtoReflect().GetUnknown()
	switch e := e.GetCompression().(type) {
	case *lancepb.CompressiveEncoding_Flat:
		return parseFlat(e.Flat)
	case *lancepb.CompressiveEncoding_FixedSizeList:
		return parseFlatLists(e.FixedSizeList)
	case *lancepb.CompressiveEncoding_Variable:
		return parseVariable(e.Variable)
	case *lancepb.CompressiveEncoding_InlineBitpacking:
		if e.InlineBitpacking.GetValues() != nil {
			return nil, fmt.Errorf("compressed bit packing: %w", ErrUnsupported)
		}
		return newPacked(e.InlineBitpacking.GetUncompressedBitsPerValue(), inlineBits)
	case *lancepb.CompressiveEncoding_OutOfLineBitpacking:
		flat := e.OutOfLineBitpacking.GetValues().GetFlat()
		if flat == nil || flat.GetData() != nil || flat.GetBitsPerValue() > 64 {
			return nil, fmt.Errorf("bit packing of %T: %w", e.OutOfLineBitpacking.GetValues().GetCompression(), ErrUnsupported)
		}
		return newPacked(e.OutOfLineBitpacking.GetUncompressedBitsPerValue(), int(flat.GetBitsPerValue()))
	case *lancepb.CompressiveEncoding_Fsst:
		return parseFSSTBlock(e.Fsst)
	case *lancepb.CompressiveEncoding_Rle:
		return parseRuns(e.Rle)
	case *lancepb.CompressiveEncoding_ByteStreamSplit:
		bits := e.ByteStreamSplit.GetValues().GetFlat().GetBitsPerValue()
		if bits != 32 && bits != 64 {
			return nil, fmt.Errorf("byte streams of values of %d bits: %w", bits, ErrUnsupported)
		}
		return splitDecoder{int(bits)}, nil
	case *lancepb.CompressiveEncoding_General:
		return parseGeneral(e.General)
	case *lancepb.CompressiveEncoding_PackedStruct:
		return parseBlock(e.PackedStruct.GetValues()) // of values that are structs
	case nil:
		return parseRecords(unknown)
	default:
		return nil, fmt.Errorf("encoding %T: %w", e, ErrUnsupported)
	}
}

// flatDecoder is values of one width as Arrow has them. Lists of one length are values, too.
type flatDecoder struct {
	itemBits int
	items    int // of a value, 1 if it is no list
	// nulls tells that a bitmap of the validity of the items comes before them, nothing that only that is there.
	nulls, nothing bool
}

// parseFlat returns the decoder of plain values.
func parseFlat(f *lancepb.FlatBlock) (blockDecoder, error) {
	switch bits := f.GetBitsPerValue(); {
	case f.GetData() != nil:
		return nil, fmt.Errorf("compression of a flat buffer: %w", ErrUnsupported)
	case bits == 0 || bits > maxRowBits:
		return nil, fmt.Errorf("values of %d bits", bits)
	default:
		return flatDecoder{itemBits: int(bits), items: 1}, nil
	}
}

func parseFlatLists(l *lancepb.FixedSizeListBlock) (blockDecoder, error) {
	flat := l.GetValues().GetFlat()
	if c := l.GetValues().GetConstant(); c != nil && c.Value == nil && l.GetHasValidity() {
		return flatDecoder{items: int(min(l.GetItemsPerValue(), maxRowBits)), nulls: true, nothing: true}, nil
	}
	if flat == nil {
		return nil, fmt.Errorf("fixed-size lists of %T: %w", l.GetValues().GetCompression(), ErrUnsupported)
	}
	d, err := parseFlat(flat)
	if err != nil {
		return nil, err
	}
	f := d.(flatDecoder)
	if n := l.GetItemsPerValue(); n == 0 || n > maxRowBits/uint64(f.itemBits) {
		return nil, fmt.Errorf("lists of %d items", n)
	}
	f.items, f.nulls = int(l.GetItemsPerValue()), l.GetHasValidity()
	return f, nil
}

// bits is the width of a value without the validity of its items.
func (d flatDecoder) bits() int { return d.itemBits * d.items }

func (d flatDecoder) buffers() int {
	if d.nulls && !d.nothing {
		return 2
	}
	return 1
}

func (d flatDecoder) describe() string {
	switch {
	case d.nothing:
		return fmt.Sprintf("lists of %d nulls", d.items)
	case d.nulls:
		return fmt.Sprintf("lists of %d nullable items of %d bits", d.items, d.itemBits)
	case d.items > 1:
		return fmt.Sprintf("lists of %d items of %d bits", d.items, d.itemBits)
	}
	return fmt.Sprintf("flat %d bits", d.itemBits)
}

func (d flatDecoder) decode(bufs [][]byte, n int, _ *scratch) (block, error) {
	b := block{n: n, bits: d.bits(), nothing: d.nothing}
	if d.nulls {
		b.items = bufs[0]
		if len(b.items) < bitBytes(n*d.items) {
			return b, fmt.Errorf("%d bytes for the validity of %d items", len(b.items), n*d.items)
		}
	}
	if b.data = bufs[len(bufs)-1]; d.nothing {
		return b, nil
	}
	if len(b.data) < bitBytes(n*b.bits) {
		return b, fmt.Errorf("%d bytes for %d values of %d bits", len(b.data), n, b.bits)
	}
	return b, nil
}

// inlineBits says that each block of packed values has its own bits.
const inlineBits = -1

// packedDecoder is numbers of fewer bits than their type has.
type packedDecoder struct{ width, bits int }

// newPacked returns the decoder of packed numbers.
func newPacked(width uint64, bits int) (blockDecoder, error) {
	switch {
	case width != 8 && width != 16 && width != 32 && width != 64:
		return nil, fmt.Errorf("packed values of %d bits: %w", width, ErrUnsupported)
	case bits > int(width):
		return nil, fmt.Errorf("values of %d bits packed into %d", width, bits)
	}
	return packedDecoder{int(width), bits}, nil
}

func (packedDecoder) buffers() int { return 1 }

func (d packedDecoder) describe() string {
	if d.bits == inlineBits {
		return fmt.Sprintf("packed %d bits", d.width)
	}
	return fmt.Sprintf("%d bits packed into %d", d.width, d.bits)
}

func (d packedDecoder) decode(bufs [][]byte, n int, s *scratch) (block, error) {
	out := s.sized(n * d.width / 8)
	b := block{n: n, bits: d.width, data: out}
	var err error
	switch d.width {
	case 8:
		err = decodePacked[uint8](bufs[0], d.bits, n, out)
	case 16:
		err = decodePacked[uint16](bufs[0], d.bits, n, out)
	case 32:
		err = decodePacked[uint32](bufs[0], d.bits, n, out)
	default:
		err = decodePacked[uint64](bufs[0], d.bits, n, out)
	}
	return b, err
}

func decodePacked[T word](b []byte, bits, n int, out []byte) error {
	if bits == inlineBits {
		return unpackBlocks(b, n, arrow.GetData[T](out))
	}
	return unpackPlain(b, bits, n, arrow.GetData[T](out))
}

// variableDecoder is values that vary in length: offsets within the buffer, one more than there are values, then the
// bytes.
type variableDecoder struct{ wide bool }

func parseVariable(v *lancepb.VariableBlock) (blockDecoder, error) {
	flat := v.GetOffsets().GetFlat()
	if flat == nil || flat.GetData() != nil || v.GetValues() != nil {
		return nil, fmt.Errorf("compressed offsets or bytes of strings: %w", ErrUnsupported)
	}
	if bits := flat.GetBitsPerValue(); bits != 32 && bits != 64 {
		return nil, fmt.Errorf("offsets of %d bits", bits)
	}
	return variableDecoder{flat.GetBitsPerValue() == 64}, nil
}

func (variableDecoder) buffers() int { return 1 }

func (d variableDecoder) describe() string {
	if d.wide {
		return "strings, 64-bit offsets"
	}
	return "strings"
}

func (d variableDecoder) decode(bufs [][]byte, n int, s *scratch) (block, error) {
	return d.offsets(bufs[0], bufs[0], n, s)
}

// offsets reads n+1 offsets into data.
func (d variableDecoder) offsets(b, data []byte, n int, s *scratch) (block, error) {
	size := 4
	if d.wide {
		size = 8
	}
	if len(b)/size < n+1 {
		return block{}, fmt.Errorf("%d bytes for the offsets of %d strings", len(b), n)
	}
	if cap(s.ends) < n+1 {
		s.ends = make([]uint64, n+1)
	}
	ends := s.ends[:n+1]
	if d.wide {
		for i := range ends {
			ends[i] = le.Uint64(b[8*i:])
		}
	} else {
		for i := range ends {
			ends[i] = uint64(le.Uint32(b[4*i:]))
		}
	}
	last := uint64(0)
	for _, e := range ends {
		if e < last || e > uint64(len(data)) {
			return block{}, fmt.Errorf("a string ends at byte %d, behind one that ends at %d, of %d", e, last, len(data))
		}
		last = e
	}
	return block{n: n, data: data, ends: ends}, nil
}

// fsstDecoder is strings coded with symbols.
type fsstDecoder struct {
	inner blockDecoder
	table *fsstTable
}

func parseFSSTBlock(f *lancepb.FsstBlock) (blockDecoder, error) {
	inner, err := parseBlock(f.GetValues())
	if err != nil {
		return nil, err
	}
	if !varying(inner) {
		return nil, fmt.Errorf("FSST over %s: %w", inner.describe(), ErrUnsupported)
	}
	table, err := parseFSST(f.GetSymbolTable())
	return fsstDecoder{inner, table}, err
}

// varying reports whether the values of a decoder vary in length and are not coded yet.
func varying(d blockDecoder) bool {
	switch d := d.(type) {
	case variableDecoder, recordDecoder:
		return true
	case generalDecoder:
		return varying(d.inner)
	}
	return false
}

func (d fsstDecoder) buffers() int     { return d.inner.buffers() }
func (d fsstDecoder) describe() string { return "FSST, " + d.inner.describe() }

func (d fsstDecoder) decode(bufs [][]byte, n int, s *scratch) (block, error) {
	b, err := d.inner.decode(bufs, n, s)
	b.fsst = d.table
	return b, err
}

// runsDecoder is runs of the same value: the values, and how often each comes.
type runsDecoder struct{ bits, lengthBytes int }

func parseRuns(r *lancepb.RleBlock) (blockDecoder, error) {
	values, lengths := r.GetValues().GetFlat(), r.GetRunLengths().GetFlat()
	if values == nil || lengths == nil || values.GetData() != nil || lengths.GetData() != nil {
		return nil, fmt.Errorf("runs of %T with lengths %T: %w", r.GetValues().GetCompression(), r.GetRunLengths().GetCompression(), ErrUnsupported)
	}
	d := runsDecoder{int(values.GetBitsPerValue()), int(lengths.GetBitsPerValue() / 8)}
	if d.bits == 0 || d.bits%8 != 0 || d.bits > 256 || d.lengthBytes != 1 && d.lengthBytes != 2 && d.lengthBytes != 4 {
		return nil, fmt.Errorf("runs of %d bits with lengths of %d bytes", d.bits, d.lengthBytes)
	}
	return d, nil
}

func (runsDecoder) buffers() int       { return 2 }
func (d runsDecoder) describe() string { return fmt.Sprintf("runs of %d bits", d.bits) }

func (d runsDecoder) decode(bufs [][]byte, n int, s *scratch) (block, error) {
	width := d.bits / 8
	values, lengths := bufs[0], bufs[1]
	out := s.sized(n * width)
	b := block{n: n, bits: d.bits, data: out}
	at := 0
	for i := 0; i < len(lengths)/d.lengthBytes && at < n; i++ {
		if len(values) < (i+1)*width {
			return b, fmt.Errorf("%d bytes of values for %d runs", len(values), len(lengths)/d.lengthBytes)
		}
		run := int(lengths[i*d.lengthBytes])
		switch d.lengthBytes {
		case 2:
			run = int(le.Uint16(lengths[2*i:]))
		case 4:
			run = int(le.Uint32(lengths[4*i:]))
		}
		run = min(run, n-at)
		fillRun(out[at*width:(at+run)*width], values[i*width:][:width])
		at += run
	}
	if at < n {
		return b, fmt.Errorf("runs of %d values, want %d", at, n)
	}
	return b, nil
}

// fillRun fills out with a value, twice as much of it each time.
func fillRun(out, v []byte) {
	for n := copy(out, v); n < len(out); n *= 2 {
		copy(out[n:], out[:n])
	}
}

// splitDecoder is numbers of which all first bytes come first, then all second bytes and so on.
type splitDecoder struct{ bits int }

func (splitDecoder) buffers() int       { return 1 }
func (d splitDecoder) describe() string { return fmt.Sprintf("byte streams of %d bits", d.bits) }

func (d splitDecoder) decode(bufs [][]byte, n int, s *scratch) (block, error) {
	width := d.bits / 8
	in, out := bufs[0], s.sized(n*width)
	b := block{n: n, bits: d.bits, data: out}
	if len(in) < n*width {
		return b, fmt.Errorf("%d bytes for %d values of %d bits", len(in), n, d.bits)
	}
	for j := range width {
		for i, c := range in[j*n:][:n] {
			out[i*width+j] = c
		}
	}
	return b, nil
}

// generalDecoder is another encoding whose first buffer is compressed.
type generalDecoder struct {
	inner  blockDecoder
	scheme lancepb.CompressionScheme
}

func parseGeneral(g *lancepb.GeneralBlock) (blockDecoder, error) {
	inner, err := parseBlock(g.GetValues())
	if err != nil {
		return nil, err
	}
	if _, ok := inner.(generalDecoder); ok {
		return nil, fmt.Errorf("compression over compression: %w", ErrUnsupported)
	}
	d := generalDecoder{inner, g.GetCompression().GetScheme()}
	if d.scheme != lancepb.CompressionScheme_COMPRESSION_ALGORITHM_LZ4 && d.scheme != lancepb.CompressionScheme_COMPRESSION_ALGORITHM_ZSTD {
		return nil, fmt.Errorf("compression %s: %w", d.scheme, ErrUnsupported)
	}
	return d, nil
}

func (d generalDecoder) buffers() int { return d.inner.buffers() }

func (d generalDecoder) describe() string {
	if d.scheme == lancepb.CompressionScheme_COMPRESSION_ALGORITHM_LZ4 {
		return "LZ4, " + d.inner.describe()
	}
	return "ZSTD, " + d.inner.describe()
}

func (d generalDecoder) decode(bufs [][]byte, n int, s *scratch) (block, error) {
	plain, err := d.decompress(s.bytes[:0], bufs[0])
	if err != nil {
		return block{}, err
	}
	s.bytes = plain
	return d.inner.decode(append([][]byte{plain}, bufs[1:]...), n, s)
}

// maxPlain bounds what one compressed buffer may hold: what a file claims is not believed.
const maxPlain = 1 << 30

// pagePlain is the same for a buffer of a page of 2.0, of which writers make pages of 8 MiB, at most 32.
const pagePlain = 48 << 20

// zstdDecoder and pageZSTD are safe for concurrent use through DecodeAll.
var zstdDecoder, pageZSTD = newZSTD(maxPlain), newZSTD(pagePlain)

func newZSTD(most uint64) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(most))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}

// withoutSize returns a frame without the size of what it holds, which some writers put in front of it.
func withoutSize(b []byte) []byte {
	if len(b) >= 12 && binary.LittleEndian.Uint32(b[8:]) == zstdMagic {
		return b[8:]
	}
	return b
}

// decompress appends what a buffer holds to out.
func (d generalDecoder) decompress(out, b []byte) ([]byte, error) {
	if d.scheme == lancepb.CompressionScheme_COMPRESSION_ALGORITHM_ZSTD {
		return decompressZSTD(out, b)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("LZ4: %d bytes", len(b))
	}
	// A byte of LZ4 stands for 255 at most.
	size := int64(le.Uint32(b))
	if size > maxPlain || size > 255*int64(len(b)) {
		return nil, fmt.Errorf("LZ4: %d bytes are to hold %d", len(b), size)
	}
	if size == 0 { // the library would write to it
		return out, nil
	}
	from := len(out)
	out = grow(out, int(size))
	n, err := lz4.UncompressBlock(b[4:], out[from:])
	if err != nil || int64(n) != size {
		return nil, fmt.Errorf("LZ4: %d bytes instead of %d: %w", n, size, errors.Join(err))
	}
	return out, nil
}

// grow lengthens a slice by n bytes, whose values are undefined, aligned for every type if it makes a new one.
func grow(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b[:len(b)+n]
	}
	words := make([]uint64, (max(2*cap(b), len(b)+n)+7)/8)
	out := arrow.Uint64Traits.CastToBytes(words)[:len(b)+n]
	copy(out, b)
	return out
}

// zstdMagic begins a frame.
const zstdMagic = 0xFD2FB528

// decompressZSTD reads a frame, in front of which most writers put the size of what it holds in 8 bytes.
func decompressZSTD(out, b []byte) ([]byte, error) {
	if len(b) == 0 {
		return out, nil
	}
	if len(b) >= 12 && binary.LittleEndian.Uint32(b[8:]) == zstdMagic {
		size := le.Uint64(b)
		if size > maxPlain {
			return nil, fmt.Errorf("ZSTD: %d bytes are to hold %d", len(b), size)
		}
		b = withoutSize(b)
	}
	from := len(out)
	plain, err := zstdDecoder.DecodeAll(b, out)
	if err != nil {
		return nil, fmt.Errorf("ZSTD: %w", err)
	}
	if len(plain)-from > maxPlain {
		return nil, fmt.Errorf("ZSTD: %d bytes", len(plain)-from)
	}
	return plain, nil
}

// levelsBlock appends n repetition or definition levels of 16 bits, which lie in one buffer, to out.
func levelsBlock(out []uint16, d blockDecoder, b []byte, n int, s *scratch) ([]uint16, error) {
	v, err := whole(d, b, n, s)
	if err != nil {
		return nil, err
	}
	if v.bits != 16 {
		return nil, fmt.Errorf("levels of %d bits", v.bits)
	}
	return append(out, arrow.GetData[uint16](v.data[:2*n])...), nil
}

// whole decodes values that lie in one buffer, even if their encoding has several, or strings with their offsets.
func whole(d blockDecoder, b []byte, n int, s *scratch) (block, error) {
	switch d := d.(type) {
	case generalDecoder:
		plain, err := d.decompress(nil, b)
		if err != nil {
			return block{}, err
		}
		return whole(d.inner, plain, n, s)
	case fsstDecoder:
		v, err := whole(d.inner, b, n, s)
		v.fsst = d.table
		return v, err
	case runsDecoder:
		if len(b) < 8 || le.Uint64(b) > uint64(len(b)-8) {
			return block{}, fmt.Errorf("%d bytes of runs", len(b))
		}
		split := 8 + le.Uint64(b)
		return d.decode([][]byte{b[8:split], b[split:]}, n, s)
	case variableDecoder:
		return wholeStrings(b, n, s)
	}
	if d.buffers() != 1 {
		return block{}, fmt.Errorf("%s in one buffer: %w", d.describe(), ErrUnsupported)
	}
	return d.decode([][]byte{b}, n, s)
}

// wholeStrings reads strings that lie in one buffer:
//
//	u32 32 | u32 start of the bytes | (n+1) x u32 offset | bytes
//
// or the same with 64 bits.
func wholeStrings(b []byte, n int, s *scratch) (block, error) {
	if len(b) < 16 {
		return block{}, fmt.Errorf("%d bytes of strings", len(b))
	}
	bits, head, start := le.Uint32(b), 8, uint64(le.Uint32(b[4:]))
	if bits == 64 {
		head, start = 16, le.Uint64(b[8:])
	}
	if bits != 32 && bits != 64 {
		return block{}, fmt.Errorf("strings with offsets of %d bits", bits)
	}
	if start < uint64(head) || start > uint64(len(b)) {
		return block{}, fmt.Errorf("strings begin at byte %d of %d", start, len(b))
	}
	return variableDecoder{bits == 64}.offsets(b[head:start], b[start:], n, s)
}

// maxValues bounds the values of one chunk, as every reader does.
const maxValues = math.MaxInt16 + 1
