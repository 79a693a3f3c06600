package lance

import (
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
)

// chunk is a part of an array that waits for its page. It holds a reference to the array.
type chunk struct {
	data    arrow.ArrayData
	from, n int  // rows of data
	owned   bool // nobody else has the array
}

// offset is the first row of the chunk in the buffers of its array.
func (c chunk) offset() int { return c.data.Offset() + c.from }

// nulls counts the null rows. Arrow's own count is not used: it is computed on demand without a lock, and other
// goroutines may share the array.
func (c chunk) nulls() int {
	if c.data.DataType().ID() == arrow.NULL {
		return c.n
	}
	validity := c.validity()
	if validity == nil {
		return 0
	}
	return c.n - bitutil.CountSetBits(validity, c.offset(), c.n)
}

// nullsBut counts the null rows that are not gone; without gone these are all.
func (c chunk) nullsBut(gone func(row int) bool) int {
	if gone == nil {
		return c.nulls()
	}
	n := 0
	for i, validity := 0, c.validity(); i < c.n; i++ {
		if (validity == nil || !bitutil.BitIsSet(validity, c.offset()+i)) && !gone(i) {
			n++
		}
	}
	return n
}

// validity is the bitmap of the array, or nil when all rows are valid. Arrays of the null type may have no buffers.
func (c chunk) validity() []byte {
	if b := c.data.Buffers(); len(b) > 0 && b[0] != nil && b[0].Len() > 0 {
		return b[0].Bytes()
	}
	return nil
}

// encoder knows how one type is laid out in pages.
type encoder interface {
	// check refuses an array whose buffers do not hold its rows.
	check(d arrow.ArrayData) error
	// bytes is about what the rows take in a page.
	bytes(c chunk) int64
	// rowsWithin returns how many rows of the chunk take at most limit bytes.
	rowsWithin(c chunk, limit int64) int
	// encode writes the buffers of a page and says how they are laid out.
	encode(p *pageWriter, chunks []chunk, rows int) (*lancepb.ArrayEncoding, error)
}

// columnWriter gathers the rows of one column of the schema and cuts them into pages: of one column of the file, or of
// several, if the rows are nested.
type columnWriter struct {
	field     Field
	root      pages
	pageBytes int64
	// plain checks rows before they are laid out in other forms, if the column has any, and formed are those that were
	// checked last.
	plain  pages
	formed arrow.ArrayData

	pending      []chunk // rows behind the last page
	pendingRows  int
	pendingBytes int64

	first int64 // the row that the next page begins with
}

// pages writes the pages of a column of the schema, in one version of the format.
type pages interface {
	// check refuses an array that cannot be stored.
	check(d arrow.ArrayData) error
	// bytes is about what the rows take in the pages.
	bytes(c chunk) int64
	// rowsWithin returns how many rows of the chunk take at most limit bytes.
	rowsWithin(c chunk, limit int64) int
	// write writes rows as a page of each column of the file, or several.
	write(out *output, chunks []chunk, rows int) error
	// end writes down what is known when all rows are written.
	end() error
	// columns returns what is known of the pages of each column of the file, in order.
	columns() []*pageList
}

// newColumnWriter returns the writer of a field.
func newColumnWriter(f Field, o WriterOptions) *columnWriter {
	c := &columnWriter{field: f, pageBytes: o.PageBytes, root: newPages(f.formField(), o)}
	if f.hasForms() {
		c.plain = newPages(f.withoutForms(), o)
	}
	return c
}

// newPages returns what writes the pages of a field.
func newPages(f Field, o WriterOptions) pages {
	if o.Version != Version20 {
		return newStructuralColumn(&f, style{version: o.Version, compress: o.Compress})
	}
	return newNode(f, false)
}

// check refuses an array that is not a column of rows rows of this type.
func (c *columnWriter) check(d arrow.ArrayData, rows int64) error {
	if int64(d.Len()) != rows {
		return fmt.Errorf("it has %d rows, the batch %d", d.Len(), rows)
	}
	if !sameType(d.DataType(), c.field.Type) {
		return fmt.Errorf("it is %s, the file has %s", d.DataType(), c.field.Type)
	}
	if c.plain == nil {
		return c.root.check(d)
	}
	if err := c.plain.check(d); err != nil {
		return err
	}
	c.letGo()
	var err error
	if c.formed, err = c.field.toForm(d, nil); err != nil {
		return err
	}
	return c.root.check(c.formed)
}

// letGo drops the rows that were checked.
func (c *columnWriter) letGo() {
	if c.formed != nil {
		c.formed.Release()
		c.formed = nil
	}
}

// sameType reports whether two types are stored alike. What nested fields say of nulls is not asked, nor the names of
// the items of lists, because arrays are matched by their types alone.
func sameType(a, b arrow.DataType) bool {
	switch a := a.(type) {
	case *arrow.FixedSizeListType:
		b, ok := b.(*arrow.FixedSizeListType)
		return ok && a.Len() == b.Len() && sameType(a.Elem(), b.Elem())
	case *arrow.ListType:
		b, ok := b.(*arrow.ListType)
		return ok && sameType(a.Elem(), b.Elem())
	case *arrow.LargeListType:
		b, ok := b.(*arrow.LargeListType)
		return ok && sameType(a.Elem(), b.Elem())
	case *arrow.MapType:
		b, ok := b.(*arrow.MapType)
		return ok && sameType(a.Elem(), b.Elem())
	case *arrow.StructType:
		b, ok := b.(*arrow.StructType)
		return ok && slices.EqualFunc(a.Fields(), b.Fields(), func(x, y arrow.Field) bool {
			return x.Name == y.Name && sameType(x.Type, y.Type)
		})
	}
	return arrow.TypeEqual(a, b)
}

// add takes rows that check has passed and writes the pages that they complete. It returns the size of the rows.
func (c *columnWriter) add(out *output, d arrow.ArrayData) (int64, error) {
	if d.Len() == 0 {
		return 0, nil
	}
	if c.plain != nil {
		d, c.formed = c.formed, nil
	} else {
		d.Retain()
	}
	last := chunk{data: d, n: d.Len()}
	c.pending = append(c.pending, last)
	size := c.root.bytes(last)
	c.pendingRows += last.n
	c.pendingBytes += size
	for c.pendingBytes >= c.pageBytes && c.pendingRows > 0 {
		if err := c.cut(out, c.pageRows()); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// flush writes the rows that do not fill a page.
func (c *columnWriter) flush(out *output) error {
	if c.pendingRows == 0 {
		return nil
	}
	return c.cut(out, c.pendingRows)
}

// pageRows decides how many of the pending rows make the next page: as many as fit, at least one.
func (c *columnWriter) pageRows() int {
	rows, left := 0, c.pageBytes
	for _, ch := range c.pending {
		n := c.root.rowsWithin(ch, left)
		rows += n
		left -= c.root.bytes(ch)
		if n < ch.n {
			break
		}
	}
	return int(roundestEnd(c.first, c.first+int64(max(rows, 1))) - c.first)
}

// roundestEnd returns that number of the upper half of (first, limit] which ends in the most zero bits. Pages that end
// there mostly end together with those of other columns, however wide their rows are, so that a scan is not cut into
// slivers. The price is half a page at most.
func roundestEnd(first, limit int64) int64 {
	least := limit - (limit-first)/2
	for limit&(limit-1) >= least {
		limit &= limit - 1
	}
	return limit
}

// cut writes the next rows as a page, or one of each column, and releases them.
func (c *columnWriter) cut(out *output, rows int) error {
	taken, rest := split(c.pending, rows)
	defer func() {
		for _, ch := range taken {
			ch.data.Release()
		}
	}()
	c.pending, c.pendingRows, c.pendingBytes = rest, c.pendingRows-rows, 0
	for _, ch := range rest {
		c.pendingBytes += c.root.bytes(ch)
	}
	c.first += int64(rows)
	return c.root.write(out, taken, rows)
}

// split divides chunks behind the given number of rows. A chunk that is divided is retained once more.
func split(chunks []chunk, rows int) (taken, rest []chunk) {
	for i, ch := range chunks {
		if rows < ch.n {
			taken = append([]chunk{}, chunks[:i]...)
			rest = append([]chunk{}, chunks[i:]...)
			if rows > 0 {
				ch.data.Retain()
				taken = append(taken, chunk{ch.data, ch.from, rows, ch.owned})
				rest[0] = chunk{ch.data, ch.from + rows, ch.n - rows, ch.owned}
			}
			return taken, rest
		}
		rows -= ch.n
	}
	return chunks, nil
}

// own copies the pending rows that lie in the caller's arrays, if they are at most limit bytes. A batch from the wire is
// one piece of memory, and a narrow column that waits for its page would hold the wide ones with it.
func (c *columnWriter) own(limit int64) error {
	first := slices.IndexFunc(c.pending, func(ch chunk) bool { return !ch.owned })
	if first < 0 || c.field.Type.ID() == arrow.NULL {
		return nil
	}
	loose, size := c.pending[first:], int64(0)
	for _, ch := range loose {
		size += c.root.bytes(ch)
	}
	if size > limit {
		return nil
	}
	arrays := make([]arrow.Array, len(loose))
	for i, ch := range loose {
		data := array.NewSliceData(ch.data, int64(ch.from), int64(ch.from+ch.n))
		defer data.Release()
		arrays[i] = array.MakeFromData(data)
		defer arrays[i].Release()
	}
	joined, err := array.Concatenate(arrays, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	for _, ch := range loose {
		ch.data.Release()
	}
	// The array's reference becomes the chunk's.
	c.pending = append(c.pending[:first], chunk{data: joined.Data(), n: joined.Len(), owned: true})
	return nil
}

// release drops the pending rows.
func (c *columnWriter) release() {
	for _, ch := range c.pending {
		ch.data.Release()
	}
	c.pending = nil
	c.letGo()
}

// directEncoding wraps a description as pages and columns hold it.
func directEncoding(m proto.Message) (*lancepb.Encoding, error) {
	a, err := lancepb.NewAny(m)
	if err != nil {
		return nil, err
	}
	b, err := deterministic.Marshal(a)
	if err != nil {
		return nil, err
	}
	return &lancepb.Encoding{Location: &lancepb.Encoding_Direct{Direct: &lancepb.DirectEncoding{Encoding: b}}}, nil
}

// pageWriter writes the buffers of one page.
type pageWriter struct {
	out  *output
	page *lancepb.Page
	sums []uint32
}

// begin starts the next buffer and returns its number in the page.
func (p *pageWriter) begin() (uint32, error) {
	return uint32(len(p.sums)), p.out.begin()
}

// end completes the buffer.
func (p *pageWriter) end() {
	at, sum := p.out.end()
	p.page.BufferOffsets = append(p.page.BufferOffsets, uint64(at.off))
	p.page.BufferSizes = append(p.page.BufferSizes, uint64(at.size))
	p.sums = append(p.sums, sum)
}

// append writes a whole buffer and returns its number in the page.
func (p *pageWriter) append(b []byte) (uint32, error) {
	n, err := p.begin()
	if err != nil {
		return 0, err
	}
	if err := p.out.Write(b); err != nil {
		return 0, err
	}
	p.end()
	return n, nil
}
