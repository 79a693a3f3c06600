package lance

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/flightd/flightd/internal/lancepb"
)

// column is one column of an open file: values, the offsets of lists, or the header of structs.
type column struct {
	at       extent // of its metadata
	field    *Field
	path     string // its name and those of the fields it is nested in
	parent   int    // the column above, -1 at the top
	children []int  // the columns below
	// pages is nil until somebody needed them. Two may read them at once; the first to be done is believed, and an
	// error is not kept.
	pages atomic.Pointer[[]*page]
}

// page is a run of rows of a column.
type page struct {
	first, rows int64
	items       int64 // of a page of lists: where its items begin in the column below
	codec       codec
	bufs        []extent
	sums        []uint32    // of bufs; nil when the file has no checksums
	verified    atomic.Bool // bufs agree with sums
}

// end is the row behind the page.
func (p *page) end() int64 { return p.first + p.rows }

// codec knows one layout of pages. It knows numbers of buffers, not where they are, and is immutable.
type codec interface {
	// check refuses a page whose buffers are too small for its rows, or missing.
	check(rows int64, bufs []extent) error
	// describe names the layout for people.
	describe() string
}

// valueCodec is a codec of a column with nothing below it.
type valueCodec interface {
	codec
	// slice returns the rows [from, to) of a page, or as many of the first of them as one array should hold, at
	// least one. Where it can, the array shares the page's bytes.
	slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error)
}

// column returns the pages of column i.
func (r *Reader) column(i int) ([]*page, error) {
	c := &r.columns[i]
	if known := c.pages.Load(); known != nil {
		return *known, nil
	}
	pages, err := r.readColumn(i, c.at)
	if err != nil {
		return nil, err
	}
	c.pages.CompareAndSwap(nil, &pages)
	return *c.pages.Load(), nil
}

// readColumn reads the metadata of a column.
func (r *Reader) readColumn(i int, at extent) ([]*page, error) {
	b, err := r.read(at)
	if err != nil {
		return nil, err
	}
	defer b.Release()
	what := fmt.Sprintf("the metadata of column %q", r.columns[i].path)
	var sums []uint32
	if r.sums != nil {
		if err := r.checkSum(b.Bytes(), at.off, r.sums.columns[i].metadata, what); err != nil {
			return nil, err
		}
		sums = r.sums.columns[i].buffers
	}
	meta := &lancepb.ColumnMetadata{}
	if err := proto.Unmarshal(b.Bytes(), meta); err != nil {
		return nil, r.corrupt(at.off, "%s: %w", what, err)
	}
	rows, err := r.columnRows(i)
	if err != nil {
		return nil, err
	}
	pages := make([]*page, len(meta.GetPages()))
	row, items := int64(0), int64(0)
	for k, m := range meta.GetPages() {
		p, err := r.readPage(m, row, rows, r.columns[i].field)
		if err == nil {
			items, err = p.placeItems(items)
		}
		if err != nil {
			return nil, r.pageError(i, k, at.off, err)
		}
		if r.sums != nil {
			if len(p.bufs) > len(sums) {
				return nil, r.corrupt(at.off, "%s: page %d has no checksums", what, k)
			}
			p.sums, sums = sums[:len(p.bufs)], sums[len(p.bufs):]
		}
		pages[k], row = p, p.end()
	}
	if row != rows && !r.isHeader(i) || len(sums) > 0 {
		return nil, r.corrupt(at.off, "%s: its pages have %d rows, want %d, and %d checksums are left", what, row, rows, len(sums))
	}
	return pages, nil
}

// isHeader reports whether a column is the header of structs. It has one page without bytes, whose length is not the
// same with all writers when there is a list above; nobody needs it.
func (r *Reader) isHeader(col int) bool {
	f := r.columns[col].field
	return f.Type.ID() == arrow.STRUCT && f.form == plainForm
}

// columnRows returns how many rows a column has: those of the file, or those of the lists above.
func (r *Reader) columnRows(col int) (int64, error) {
	if r.isHeader(col) {
		return math.MaxInt64, nil
	}
	for up := r.columns[col].parent; up >= 0; up = r.columns[up].parent {
		if r.isHeader(up) {
			continue
		}
		pages, err := r.column(up)
		if err != nil || len(pages) == 0 {
			return 0, err
		}
		return pages[len(pages)-1].itemsEnd(), nil
	}
	return r.rows, nil
}

// placeItems notes where the items of a page of lists begin, and returns where they end.
func (p *page) placeItems(first int64) (end int64, err error) {
	p.items = first
	if c, ok := p.codec.(listCodec); ok && c.items > math.MaxInt64-first {
		return 0, fmt.Errorf("%d items behind %d others", c.items, first)
	}
	return p.itemsEnd(), nil
}

// itemsEnd is where the items of a page of lists end in the column below.
func (p *page) itemsEnd() int64 {
	if c, ok := p.codec.(listCodec); ok {
		return p.items + c.items
	}
	return 0
}

// readPage reads the description of a page that begins at row first of so many.
func (r *Reader) readPage(m *lancepb.Page, first, rows int64, f *Field) (*page, error) {
	if m.GetLength() > uint64(rows-first) {
		return nil, fmt.Errorf("%d rows from row %d are more than the %d of the column", m.GetLength(), first, rows)
	}
	p := &page{first: first, rows: int64(m.GetLength())}
	offsets, sizes := m.GetBufferOffsets(), m.GetBufferSizes()
	if len(offsets) != len(sizes) {
		return nil, fmt.Errorf("%d buffers with %d sizes", len(offsets), len(sizes))
	}
	for i := range offsets {
		e := extent{int64(offsets[i]), int64(sizes[i])}
		if err := checkExtent(e, r.size-footerBytes); err != nil {
			return nil, fmt.Errorf("buffer %d: %w", i, err)
		}
		p.bufs = append(p.bufs, e)
	}
	if r.footer.structural() {
		l, err := parseLayout(m, p.rows, f)
		if err != nil {
			return nil, err
		}
		p.codec = l
		return p, l.check(p.rows, p.bufs)
	}
	var wrapped anypb.Any
	if err := proto.Unmarshal(m.GetEncoding().GetDirect().GetEncoding(), &wrapped); err != nil {
		return nil, err
	}
	var enc lancepb.ArrayEncoding
	if err := lancepb.Unwrap(&wrapped, &enc); err != nil {
		return nil, err
	}
	var err error
	if p.codec, err = parseEncoding(&enc, f); err != nil {
		return nil, err
	}
	return p, p.codec.check(p.rows, p.bufs)
}

// pageError places an error that was found in a page: what is unsupported or could not be read is not corrupt.
func (r *Reader) pageError(col, page int, off int64, err error) error {
	err = fmt.Errorf("column %q, page %d: %w", r.columns[col].path, page, err)
	if failed := (*sourceError)(nil); errors.Is(err, ErrUnsupported) || errors.As(err, &failed) {
		return fmt.Errorf("read %s: %w", r.name, err)
	}
	return r.corrupt(off, "%w", err)
}

// pageAt returns the number of the page that holds a row, of pages that hold all rows.
func pageAt(pages []*page, row int64) int {
	return sort.Search(len(pages), func(i int) bool { return pages[i].end() > row })
}

// pageView is a page whose bytes are at hand and verified.
type pageView struct {
	page *page
	bufs []*memory.Buffer // nil where the codec reads parts, see window and narrow
	// inParts tells that they are.
	inParts bool
	read    func(extent) (*memory.Buffer, error)
	// limit is the end of what the file has in front of its footer.
	limit int64
	// items are the distinct values of a dictionary page.
	items []dictionaryItem
}

// bytes returns a buffer of the page.
func (v *pageView) bytes(buffer uint32) []byte { return v.bufs[buffer].Bytes() }

// release drops the bytes. Arrays that share them keep them alive.
func (v *pageView) release() {
	for _, b := range v.bufs {
		releaseBuffer(b)
	}
}

// view opens page k of a column. The first time, it verifies the checksums; a race to be first is harmless. Of a page that
// is not mapped and needs no verification, only what is asked for is read, where the codec can tell.
func (r *Reader) view(col int, pages []*page, k int) (*pageView, error) {
	p := pages[k]
	verify := p.sums != nil && !p.verified.Load()
	v := &pageView{page: p, bufs: make([]*memory.Buffer, 0, len(p.bufs)), read: r.read, limit: r.size - footerBytes}
	if c, ok := p.codec.(partCodec); ok && c.inParts() && !verify && !r.mapped() {
		v.bufs, v.inParts = v.bufs[:len(p.bufs)], true
		return v, nil
	}
	for _, e := range p.bufs {
		b, err := r.read(e)
		if err != nil {
			v.release()
			return nil, err
		}
		v.bufs = append(v.bufs, b)
	}
	if verify {
		if err := r.verifyView(col, k, v); err != nil {
			v.release()
			return nil, err
		}
		p.verified.Store(true)
	}
	if c, ok := p.codec.(compressedCodec); ok {
		if buffer, packed := c.compressed(); packed {
			if err := v.decompress(buffer, r.alloc); err != nil {
				v.release()
				return nil, r.pageError(col, k, p.bufs[buffer].off, err)
			}
		}
	}
	return v, nil
}

// compressedCodec is a codec of pages of 2.0 one of whose buffers may be compressed as a whole.
type compressedCodec interface {
	compressed() (buffer uint32, is bool)
}

// decompress replaces a buffer by what it holds.
func (v *pageView) decompress(buffer uint32, alloc memory.Allocator) error {
	plain, err := pageZSTD.DecodeAll(withoutSize(v.bytes(buffer)), nil)
	if err != nil {
		return fmt.Errorf("ZSTD: %w", err)
	}
	b := sizedBuffer(alloc, len(plain))
	copy(b.Bytes(), plain)
	v.bufs[buffer].Release()
	v.bufs[buffer] = b
	return nil
}

// verifyView compares the buffers of page k with their checksums.
func (r *Reader) verifyView(col, k int, v *pageView) error {
	for i, sum := range v.page.sums {
		what := fmt.Sprintf("column %q, page %d, buffer %d", r.columns[col].path, k, i)
		if err := r.checkSum(v.bytes(uint32(i)), v.page.bufs[i].off, sum, what); err != nil {
			return err
		}
	}
	return nil
}
