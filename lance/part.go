package lance

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// partCodec is a codec that can do with parts of its buffers where a page is not at hand as a whole: those of 2.1 and later
// read by windows what they need, those of 2.0 make do with the bytes of some rows.
type partCodec interface {
	codec
	// inParts reports whether it can.
	inParts() bool
}

func (*miniBlocks) inParts() bool       { return true }
func (*fullZip) inParts() bool          { return true }
func (fixedCodec) inParts() bool        { return true }
func (nullItemsCodec) inParts() bool    { return true }
func (c binaryCodec) inParts() bool     { return !c.zstd }
func (c listCodec) inParts() bool       { return true }
func (c numbersCodec) inParts() bool    { return true }
func (packedCodec) inParts() bool       { return true }
func (blobCodec) inParts() bool         { return true }
func (c dictionaryCodec) inParts() bool { return c.items.inParts() }

func (c jsonCodec) inParts() bool {
	inner, ok := c.valueCodec.(partCodec)
	return ok && inner.inParts()
}

// rowsCodec is a codec of 2.0 that can do with the bytes of some rows.
type rowsCodec interface {
	partCodec
	// rows puts into p what the rows [from, to) need.
	rows(p *parts, from, to int) error
}

// parts is what was read of a page for some of its rows: a view whose first row is base.
type parts struct {
	v        *pageView // of the page, with nothing at hand but what was read as a whole
	bufs     []*memory.Buffer
	base, to int
}

// narrow returns a view of the rows [from, to) of a page that is not at hand, and perhaps of some in front of them, or of as
// many of the first as should be read at once, at least one. The caller releases it besides v.
func (v *pageView) narrow(from, to int) (*pageView, error) {
	c, ok := v.page.codec.(rowsCodec)
	if !ok {
		return nil, fmt.Errorf("parts of %s: %w", v.page.codec.describe(), ErrUnsupported)
	}
	p := &parts{v: v, bufs: make([]*memory.Buffer, len(v.bufs)), base: from, to: to}
	if err := c.rows(p, from, to); err != nil {
		for _, b := range p.bufs {
			releaseBuffer(b)
		}
		return nil, err
	}
	some := &page{first: v.page.first + int64(p.base), rows: int64(p.to - p.base), items: v.page.items, codec: c, bufs: v.page.bufs}
	return &pageView{page: some, bufs: p.bufs, read: v.read, limit: v.limit, items: v.items}, nil
}

// read reads some bits for each of the rows from base to p.to. REQUIRES: base is a multiple of 8, or the bits are bytes.
func (p *parts) read(buffer uint32, bits int) error {
	if buffer == noBuffer {
		return nil
	}
	if p.bufs[buffer] != nil { // what says so is no writer's
		return fmt.Errorf("buffer %d is more than one part of the page: %w", buffer, ErrUnsupported)
	}
	from := p.base * bits / 8
	var err error
	p.bufs[buffer], err = p.v.part(int(buffer), int64(from), int64(from+bitBytes((p.to-p.base)*bits)))
	return err
}

// whole reads a buffer that is not of rows, once for all parts of the page.
func (p *parts) whole(buffer uint32) error {
	if buffer == noBuffer {
		return nil
	}
	if p.bufs[buffer] != nil {
		return fmt.Errorf("buffer %d is more than one part of the page: %w", buffer, ErrUnsupported)
	}
	if _, err := p.v.whole(int(buffer)); err != nil {
		return err
	}
	p.bufs[buffer] = p.v.bufs[buffer]
	p.bufs[buffer].Retain()
	return nil
}

// readAll reads buffers of which each row has some bits, from a multiple of eight rows on.
func (p *parts) readAll(buffers []uint32, bits []int) error {
	p.base &^= 7
	for i, b := range buffers {
		if err := p.read(b, bits[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c fixedCodec) rows(p *parts, _, _ int) error {
	return p.readAll([]uint32{c.values, c.validity, c.itemValidity}, []int{int(c.bits), 1, c.items})
}

func (c nullItemsCodec) rows(p *parts, _, _ int) error {
	return p.readAll([]uint32{c.validity}, []int{1})
}

func (c packedCodec) rows(p *parts, _, _ int) error {
	_, bytes, err := packedFields(c.field)
	if err != nil {
		return err
	}
	return p.read(c.buffer, 8*bytes)
}

func (c blobCodec) rows(p *parts, _, _ int) error { return p.read(c.places, 8*placeBytes) }

// rows reads the end in front of the first row, too: it is where that begins.
func (c listCodec) rows(p *parts, from, _ int) error {
	p.base = max(from-1, 0)
	return p.read(c.strings.indices, 64)
}

func (c dictionaryCodec) rows(p *parts, _, _ int) error {
	err := p.readAll([]uint32{c.indices, c.validity}, []int{8 * c.width, 1})
	for _, b := range []uint32{c.items.indices, c.items.data} {
		if err == nil {
			err = p.whole(b)
		}
	}
	if err == nil {
		_, err = c.list(p.v) // once for all parts
	}
	return err
}

func (c numbersCodec) rows(p *parts, _, _ int) error {
	err := p.readAll([]uint32{c.indices.indices, c.indices.validity}, []int{8 * c.indices.width, 1})
	if err != nil || c.allItems {
		return err
	}
	if err = p.whole(c.items.values); err == nil {
		err = p.whole(c.items.validity)
	}
	return err
}

func (c jsonCodec) rows(p *parts, from, to int) error {
	return c.valueCodec.(rowsCodec).rows(p, from, to)
}

// rows reads the ends of the rows and then their bytes, of as many rows as have a fair number of these. The ends are what
// they would be if the page began with these bytes.
func (c binaryCodec) rows(p *parts, from, to int) error {
	p.base = max(from-1, 0)
	if err := p.read(c.indices, 64); err != nil {
		return err
	}
	ends := arrow.GetData[uint64](p.bufs[c.indices].Bytes())
	start := c.endOf(ends, from-1-p.base)
	last := start
	for p.to = from; p.to < to; p.to++ {
		end := c.endOf(ends, p.to-p.base)
		if p.to > from && end-start > batchBytes { // or it falls
			break
		}
		last = end
	}
	if size := uint64(p.v.page.bufs[c.data].size); start > last || last > size || c.data == c.indices {
		return fmt.Errorf("rows %d to %d of the page lie at %d to %d of %d bytes", from, p.to, start, last, size)
	}
	ends = ends[:p.to-p.base]
	for i := range ends {
		ends[i] -= start
	}
	var err error
	p.bufs[c.data], err = p.v.part(int(c.data), int64(start), int64(last))
	return err
}

// partRows is about how many rows of a page of 2.0 are read at once where it is not at hand.
func partRows(p *page) int {
	var stored int64
	for _, e := range p.bufs {
		stored += e.size
	}
	row := stored / max(p.rows, 1)
	switch c := p.codec.(type) { // whose arrays are larger than what they are made of
	case dictionaryCodec:
		row = max(row, p.bufs[c.items.data].size/int64(max(c.count, 1)))
	case numbersCodec:
		row = max(row, c.items.bits/8)
	case blobCodec:
		row = max(row, batchBytes/blobRows)
	}
	return int(max(1, batchBytes/max(1, row)))
}

// gather calls fn with the bytes of rows, which are ascending and of one page, for those that lie together at once. It
// returns the views, which the caller releases.
func (v *pageView) gather(rows []int64, at int, fn func(v *pageView, rows []int64, at int) error) (views []*pageView, err error) {
	most := int64(partRows(v.page))
	gap := max(1, most*gapBytes/batchBytes)
	for i := 0; i < len(rows); {
		j := i + 1
		for j < len(rows) && rows[j]-rows[j-1] <= gap && rows[j]-rows[i] < most {
			j++
		}
		some, err := v.narrow(int(rows[i]-v.page.first), int(rows[j-1]-v.page.first)+1)
		if err != nil {
			return views, err
		}
		views = append(views, some)
		n := rowsIn(some.page, rows[i:j])
		if err := fn(some, rows[i:i+n], at+i); err != nil {
			return views, err
		}
		i += n
	}
	return views, nil
}
