package lance

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"path"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

// A blob is a value that lies outside the pages. In 2.0 and 2.1 a row of its column is
//
//	u64 offset in the file | u64 bytes
//
// where an empty value has two zeros, and a null no bytes and as offset 1, or in 2.1 its definition level from bit 16 on. In 2.2 it is a
// record of
//
//	u8 kind | u64 offset | u64 bytes | u32 file | u32 bytes of the address | address
//
// whose kind says where the value is: in the same file, in a file beside it, which may have several, or anywhere else.
const (
	placeBytes  = 16
	recordBytes = 25

	blobInline, blobPacked, blobDedicated, blobExternal = 0, 1, 2, 3

	// blobBatch is about how many bytes of blobs are read at once.
	blobBatch = 16 << 20
)

// placeType is what places of blobs are read as.
var placeType = &arrow.FixedSizeBinaryType{ByteWidth: placeBytes}

// blobPlace is where a value lies.
type blobPlace struct {
	at   extent
	null bool
	def  uint16 // of a null, else 0
}

// parsePlace reads where a value lies.
func parsePlace(b []byte, limit int64) (blobPlace, error) {
	pos, size := le.Uint64(b), le.Uint64(b[8:])
	if size == 0 {
		return blobPlace{null: pos > 0, def: uint16(pos >> 16)}, nil
	}
	p := blobPlace{at: extent{int64(pos), int64(size)}}
	return p, checkExtent(p.at, limit)
}

// blobCodec is a page of places in 2.0.
type blobCodec struct{ places uint32 }

// parseBlobPage returns the codec of a page of 2.0, which holds structs of two numbers.
func parseBlobPage(e *lancepb.ArrayEncoding) (codec, error) {
	p := e.GetPackedStruct()
	if p == nil || len(p.GetInner()) != 2 {
		return nil, fmt.Errorf("encoding %T of blobs: %w", e.GetArrayEncoding(), ErrUnsupported)
	}
	if p.GetBuffer().GetBufferType() != lancepb.BufferKind_PAGE {
		return nil, fmt.Errorf("a buffer outside the page: %w", ErrUnsupported)
	}
	return blobCodec{p.GetBuffer().GetBufferIndex()}, nil
}

func (c blobCodec) check(rows int64, bufs []extent) error {
	return checkBuffer(bufs, c.places, rows, placeBytes*8, "places of blobs")
}

func (blobCodec) describe() string { return "blobs" }

func (c blobCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	b := newBlobArray(alloc)
	defer b.release()
	for i := from; i < to; i++ {
		p, err := parsePlace(v.bytes(c.places)[i*placeBytes:], v.limit)
		if err != nil {
			return nil, fmt.Errorf("blob %d: %w", i, err)
		}
		if i > from && b.values.used+int(p.at.size) > blobBatch {
			break
		}
		if err := b.put(v.read, p.at, !p.null); err != nil {
			return nil, err
		}
	}
	return b.array(dt), nil
}

// blobArray gathers blobs.
type blobArray struct {
	values *leafValues
	valid  []bool
	nulls  int
}

func newBlobArray(alloc memory.Allocator) *blobArray {
	return &blobArray{values: newLeafValues(arrow.BinaryTypes.LargeBinary, 0, alloc)}
}

// put appends a value.
func (b *blobArray) put(read func(extent) (*memory.Buffer, error), at extent, valid bool) error {
	if b.valid = append(b.valid, valid); !valid {
		b.nulls++
	}
	return b.values.addBlob(read, at)
}

// array returns what was put.
func (b *blobArray) array(dt arrow.DataType) arrow.ArrayData {
	var validity *memory.Buffer
	if b.nulls > 0 {
		validity = sizedBuffer(b.values.alloc, bitBytes(len(b.valid)))
		defer validity.Release()
		for i, valid := range b.valid {
			bitutil.SetBitTo(validity.Bytes(), i, valid)
		}
	}
	b.values.data.Resize(b.values.used)
	return array.NewData(dt, b.values.n, []*memory.Buffer{validity, b.values.offsets, b.values.data}, nil, b.nulls, 0)
}

func (b *blobArray) release() { b.values.release() }

// addBlob appends the bytes of an extent, which lies in the file.
func (v *leafValues) addBlob(read func(extent) (*memory.Buffer, error), at extent) error {
	if err := v.makeRoom(int(at.size), 1); err != nil {
		return err
	}
	if at.size > 0 {
		b, err := read(at)
		if err != nil {
			return &sourceError{err}
		}
		v.used += copy(v.data.Bytes()[v.used:], b.Bytes())
		b.Release()
	}
	v.end()
	return nil
}

// blobs is a page of blobs in 2.1: another layout of their places, and what their levels mean.
type blobs struct {
	of    *layering
	inner layout
}

func parseBlobs(l *lancepb.BlobLayout, buffers int, rows int64) (layout, error) {
	of, err := newLayering(l.GetLayers())
	if err != nil {
		return nil, err
	}
	if of.lists > 0 {
		return nil, fmt.Errorf("lists of blobs: %w", ErrUnsupported)
	}
	if l.GetInnerLayout().GetBlobLayout() != nil {
		return nil, errors.New("blobs of blobs")
	}
	inner, err := parsePageLayout(l.GetInnerLayout(), buffers, rows, &Field{Type: placeType})
	if err == nil && (inner.layering().lists > 0 || inner.layering().definitions() > 1) {
		err = errors.New("places of blobs with nulls")
	}
	return &blobs{of, inner}, err
}

func (b *blobs) layering() *layering                   { return b.of }
func (b *blobs) check(rows int64, bufs []extent) error { return b.inner.check(rows, bufs) }
func (b *blobs) describe() string                      { return "blobs, " + b.inner.describe() }

// read implements layout.
func (b *blobs) read(v *pageView, rows []rowRange, out *leafRows) error {
	places, err := b.places(v, rows, out.values.alloc)
	if err != nil {
		return err
	}
	for _, p := range places {
		if int(p.def) >= b.of.definitions() || p.null != (p.def > 0) {
			return fmt.Errorf("definition level %d of %d", p.def, b.of.definitions())
		}
		if b.of.definitions() > 1 {
			out.levels.def = append(out.levels.def, p.def)
		}
		if err := out.values.addBlob(v.read, p.at); err != nil {
			return err
		}
	}
	return nil
}

// places reads where the values of rows lie.
func (b *blobs) places(v *pageView, rows []rowRange, alloc memory.Allocator) ([]blobPlace, error) {
	n := int64(0)
	for _, r := range rows {
		n += r.to - r.from
	}
	l := &leafRows{levels: levels{layering: b.inner.layering()}, values: newLeafValues(placeType, int(n), alloc)}
	defer l.values.release()
	if err := b.inner.read(v, rows, l); err != nil {
		return nil, err
	}
	if int64(l.values.n) != n {
		return nil, fmt.Errorf("%d places of %d rows", l.values.n, n)
	}
	out, data := make([]blobPlace, n), l.values.data.Bytes()
	for i := range out {
		var err error
		if out[i], err = parsePlace(data[i*placeBytes:], v.limit); err != nil {
			return nil, fmt.Errorf("blob %d: %w", i, err)
		}
	}
	return out, nil
}

// blobEnd returns the row, at most to, up to which blobs are read at once, at least one. They lie in one page.
func (r *Reader) blobEnd(col int, from, to int64) (int64, error) {
	to = min(to, from+blobRows)
	sizes, err := r.blobSizes(col, rowRange{from, to})
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for i, size := range sizes {
		if total += size; total > blobBatch && i > 0 {
			return from + int64(i), nil
		}
	}
	return to, nil
}

// blobSizes returns the sizes of blobs of a page.
func (r *Reader) blobSizes(col int, rows rowRange) ([]int64, error) {
	pages, err := r.column(col)
	if err != nil {
		return nil, err
	}
	k := pageAt(pages, rows.from)
	p := pages[k]
	b, ok := p.codec.(*blobs)
	if !ok {
		return r.recordSizes(col, rows)
	}
	v, err := r.view(col, pages, k)
	if err != nil {
		return nil, err
	}
	defer v.release()
	places, err := b.places(v, []rowRange{{rows.from - p.first, rows.to - p.first}}, r.alloc)
	if err != nil {
		return nil, r.pageError(col, k, r.columns[col].at.off, err)
	}
	sizes := make([]int64, len(places))
	for i, place := range places {
		sizes[i] = place.at.size
	}
	return sizes, nil
}

// recordSizes returns the sizes that the records of blobs say. What they say wrongly is found when the blobs are read.
func (r *Reader) recordSizes(col int, rows rowRange) ([]int64, error) {
	records, _, err := r.readStored(col, []rowRange{rows})
	if err != nil {
		return nil, err
	}
	defer records.Release()
	texts, c := textsOf(records), chunk{data: records, n: records.Len()}
	sizes := make([]int64, records.Len())
	for i := range sizes {
		if record := texts.at(records.Offset() + i); !c.isNull(i) && len(record) >= recordBytes {
			sizes[i] = int64(min(le.Uint64(record[9:]), blobBatch))
		}
	}
	return sizes, nil
}

// blobRows is how many blobs are read at once at most.
const blobRows = 4096

// sideName returns the name of a file of blobs: its number in binary, the last bit first, in a folder that is named as the
// data file.
func sideName(file string, number uint32) string {
	return path.Join(strings.TrimSuffix(file, ".lance"), fmt.Sprintf("%032b.blob", bits.Reverse32(number)))
}

// placedBlobs returns the bytes that records of 2.2 name.
func (r *Reader) placedBlobs(f *Field, records arrow.ArrayData) (arrow.ArrayData, error) {
	b := newBlobArray(r.alloc)
	defer b.release()
	texts, validity := textsOf(records), chunk{data: records}.validity()
	for i := range records.Len() {
		if validity != nil && !bitutil.BitIsSet(validity, records.Offset()+i) {
			if err := b.put(nil, extent{}, false); err != nil {
				return nil, err
			}
			continue
		}
		if err := r.putPlaced(b, texts.at(records.Offset()+i)); err != nil {
			return nil, err
		}
	}
	return b.array(f.Type), nil
}

// putPlaced appends the value that a record names.
func (r *Reader) putPlaced(b *blobArray, record []byte) error {
	if len(record) < recordBytes {
		return fmt.Errorf("a blob's record of %d bytes", len(record))
	}
	at := extent{int64(le.Uint64(record[1:])), int64(le.Uint64(record[9:]))}
	number := le.Uint32(record[17:])
	switch kind := record[0]; kind {
	case blobInline:
		if at.size > 0 {
			if err := checkExtent(at, r.size-footerBytes); err != nil {
				return err
			}
		}
		return b.put(r.read, at, true)
	case blobPacked, blobDedicated:
		return r.putBeside(b, at, sideName(r.name, number))
	case blobExternal:
		return fmt.Errorf("a blob that lies outside the dataset: %w", ErrUnsupported)
	default:
		return fmt.Errorf("a blob of kind %d: %w", kind, ErrUnsupported)
	}
}

// putBeside appends a value that lies in another file.
func (r *Reader) putBeside(b *blobArray, at extent, name string) error {
	f, err := r.st.Open(context.Background(), name)
	if err != nil {
		return &sourceError{err}
	}
	defer f.Close() // Nothing was written to it.
	if err := checkExtent(at, f.Size()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return b.put(copiedSource{f, r.alloc}.read, at, true)
}
