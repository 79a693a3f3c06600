package lance

import (
	"errors"
	"fmt"
	"sort"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/flightd/flightd/internal/lancepb"
)

// column is one column of an open file.
type column struct {
	at extent // of its metadata
	// pages is nil until somebody needed them. Two may read them at once; the first to be done is believed, and an
	// error is not kept.
	pages atomic.Pointer[[]*page]
}

// page is a run of rows of a column.
type page struct {
	first, rows int64
	codec       codec
	bufs        []extent
	sums        []uint32    // of bufs; nil when the file has no checksums
	verified    atomic.Bool // bufs agree with sums
}

// end is the row behind the page.
func (p *page) end() int64 { return p.first + p.rows }

// codec reads the pages of one layout. It knows numbers of buffers, not where they are, and is immutable.
type codec interface {
	// check refuses a page whose buffers are too small for its rows, or missing.
	check(rows int64, bufs []extent) error
	// slice returns the rows [from, to) of a page, or as many of the first of them as one array should hold, at
	// least one. Where it can, the array shares the page's bytes.
	slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error)
	// describe names the layout for people.
	describe() string
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
	what := fmt.Sprintf("the metadata of column %q", r.schema.Fields[i].Name)
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
	pages := make([]*page, len(meta.GetPages()))
	row := int64(0)
	for k, m := range meta.GetPages() {
		p, err := r.readPage(m, row, r.schema.Fields[i].Type)
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
	if row != r.rows || len(sums) > 0 {
		return nil, r.corrupt(at.off, "%s: its pages have %d rows, the file %d, and %d checksums are left", what, row, r.rows, len(sums))
	}
	return pages, nil
}

// readPage reads the description of a page that begins at row first.
func (r *Reader) readPage(m *lancepb.Page, first int64, dt arrow.DataType) (*page, error) {
	if m.GetLength() > uint64(r.rows-first) {
		return nil, fmt.Errorf("%d rows from row %d are more than the %d of the file", m.GetLength(), first, r.rows)
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
	var wrapped anypb.Any
	if err := proto.Unmarshal(m.GetEncoding().GetDirect().GetEncoding(), &wrapped); err != nil {
		return nil, err
	}
	var enc lancepb.ArrayEncoding
	if err := lancepb.Unwrap(&wrapped, &enc); err != nil {
		return nil, err
	}
	var err error
	if p.codec, err = parseEncoding(&enc, dt); err != nil {
		return nil, err
	}
	return p, p.codec.check(p.rows, p.bufs)
}

// pageError places an error that was found in a page: what is unsupported is not corrupt.
func (r *Reader) pageError(col, page int, off int64, err error) error {
	err = fmt.Errorf("column %q, page %d: %w", r.schema.Fields[col].Name, page, err)
	if errors.Is(err, ErrUnsupported) {
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
	bufs []*memory.Buffer
	// items are the places of the distinct values of a dictionary page.
	items []span
}

// bytes returns a buffer of the page.
func (v *pageView) bytes(buffer uint32) []byte { return v.bufs[buffer].Bytes() }

// release drops the bytes. Arrays that share them keep them alive.
func (v *pageView) release() {
	for _, b := range v.bufs {
		b.Release()
	}
}

// view opens page k of a column. The first time, it verifies the checksums; a race to be first is harmless.
func (r *Reader) view(col int, pages []*page, k int) (*pageView, error) {
	p := pages[k]
	v := &pageView{page: p, bufs: make([]*memory.Buffer, 0, len(p.bufs))}
	for _, e := range p.bufs {
		b, err := r.read(e)
		if err != nil {
			v.release()
			return nil, err
		}
		v.bufs = append(v.bufs, b)
	}
	if p.sums != nil && !p.verified.Load() {
		if err := r.verifyView(col, k, v); err != nil {
			v.release()
			return nil, err
		}
		p.verified.Store(true)
	}
	return v, nil
}

// verifyView compares the buffers of page k with their checksums.
func (r *Reader) verifyView(col, k int, v *pageView) error {
	for i, sum := range v.page.sums {
		what := fmt.Sprintf("column %q, page %d, buffer %d", r.schema.Fields[col].Name, k, i)
		if err := r.checkSum(v.bytes(uint32(i)), v.page.bufs[i].off, sum, what); err != nil {
			return err
		}
	}
	return nil
}
