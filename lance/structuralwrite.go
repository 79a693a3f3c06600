package lance

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
)

const (
	// wideBytes is the size from which values are zipped with their levels instead of put into chunks.
	wideBytes = 256
	// chunkValues is how many values of one width a chunk has: a power of two, as all but the last must be.
	chunkValues = 4096
	// chunkBytes is about how large a chunk of strings is.
	chunkBytes = 32 << 10
	// smallChunk is how large a chunk of version 2.1 may be, whose size is said in 12 bits, in words of 8 bytes.
	smallChunk = 32 << 10
	// chunkLevels bounds the levels of a chunk, whose number and bytes are said in 16 bits.
	chunkLevels = 32_000
)

// style is how pages are written.
type style struct {
	version  Version
	compress bool
}

// structuralColumn writes a field of the schema in versions after 2.0. It has a page for each leaf, cut with the same rows.
type structuralColumn struct {
	*node // what the rows are and how large
	style style
	tree  *tree
	paths [][]*tree // to each leaf
	pages []pageList
	first int64
	// lists tells that a path has a list, whose pages are cut by their levels, too.
	lists bool
}

// newStructuralColumn returns the writer of a field.
func newStructuralColumn(f *Field, how style) *structuralColumn {
	c := &structuralColumn{node: newNode(*f, false), style: how}
	c.node.later()
	next := 0
	c.tree = leafTree(f, &next)
	c.addPaths(c.tree, nil)
	c.pages = make([]pageList, len(c.paths))
	return c
}

// leafTree numbers the leaves of a field.
func leafTree(f *Field, next *int) *tree {
	t := &tree{field: f, column: -1}
	if len(f.Children) == 0 {
		t.column = *next
		*next++
	}
	for i := range f.Children {
		t.children = append(t.children, leafTree(&f.Children[i], next))
	}
	return t
}

func (c *structuralColumn) addPaths(t *tree, above []*tree) {
	path := append(append([]*tree(nil), above...), t)
	c.lists = c.lists || isListType(t.field.Type)
	if t.column >= 0 {
		c.paths = append(c.paths, path)
		return
	}
	for _, child := range t.children {
		c.addPaths(child, path)
	}
}

// write writes rows as a page of each leaf; of lists, as many pages as their levels need.
func (c *structuralColumn) write(out *output, chunks []chunk, rows int) error {
	if rows == 0 {
		return nil
	}
	data, err := joinChunks(chunks)
	if err != nil {
		return err
	}
	defer data.Release()
	for from := 0; from < rows; {
		n := rows - from
		if c.lists {
			n = c.rowsOfLevels(data, from, n)
		}
		for i, path := range c.paths {
			if err := c.writeLeaf(out, i, path, data, from, n); err != nil {
				return fmt.Errorf("%q: %w", path[len(path)-1].field.Name, err)
			}
		}
		c.first += int64(n)
		from += n
	}
	return nil
}

// joinChunks returns the rows of all chunks as one array.
func joinChunks(chunks []chunk) (arrow.ArrayData, error) {
	if len(chunks) == 1 {
		return array.NewSliceData(chunks[0].data, int64(chunks[0].from), int64(chunks[0].from+chunks[0].n)), nil
	}
	arrays := make([]arrow.Array, len(chunks))
	rows := 0
	for i, ch := range chunks {
		data := array.NewSliceData(ch.data, int64(ch.from), int64(ch.from+ch.n))
		arrays[i] = array.MakeFromData(data)
		data.Release()
		defer arrays[i].Release()
		rows += ch.n
	}
	if chunks[0].data.DataType().ID() == arrow.NULL { // Concatenate knows none
		return array.NewData(arrow.Null, rows, []*memory.Buffer{nil}, nil, rows, 0), nil
	}
	joined, err := array.Concatenate(arrays, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	defer joined.Release()
	joined.Data().Retain()
	return joined.Data(), nil
}

// rowsOfLevels returns how many of n rows have few enough levels for one chunk, at least one.
func (c *structuralColumn) rowsOfLevels(d arrow.ArrayData, from, n int) int {
	rows, levels := 0, 0
	for rows < n {
		levels += entriesOf(d, d.Offset()+from+rows)
		if levels > chunkLevels && rows > 0 {
			break
		}
		rows++
	}
	return rows
}

// entriesOf returns how many entries of levels a row has at most, given its place in the buffers.
func entriesOf(d arrow.ArrayData, place int) int {
	switch d.DataType().(type) {
	case *arrow.StructType:
		n := 1
		for _, child := range d.Children() {
			n = max(n, entriesOf(child, child.Offset()+place))
		}
		return n
	case *arrow.ListType, *arrow.MapType:
		offsets := arrow.GetData[int32](d.Buffers()[1].Bytes())
		return entriesOfItems(d.Children()[0], int(offsets[place]), int(offsets[place+1]))
	case *arrow.LargeListType:
		offsets := arrow.GetData[int64](d.Buffers()[1].Bytes())
		return entriesOfItems(d.Children()[0], int(offsets[place]), int(offsets[place+1]))
	}
	return 1
}

func entriesOfItems(items arrow.ArrayData, from, to int) int {
	if !arrow.IsNested(items.DataType().ID()) || items.DataType().ID() == arrow.FIXED_SIZE_LIST {
		return max(1, to-from)
	}
	n := 0
	for i := from; i < to; i++ {
		n += entriesOf(items, items.Offset()+i)
	}
	return max(1, n)
}

// writeLeaf writes a page of a leaf.
func (c *structuralColumn) writeLeaf(out *output, i int, path []*tree, d arrow.ArrayData, from, n int) error {
	s, err := shred(d, from, n, path)
	if err != nil {
		return err
	}
	p := &pageWriter{out: out, page: &lancepb.Page{Length: uint64(n), Priority: uint64(c.first)}}
	layout, err := s.write(p, path[len(path)-1].field, n, c.style)
	if err != nil {
		return err
	}
	if p.page.Encoding, err = directEncoding(layout); err != nil {
		return err
	}
	return c.pages[i].add(p.page, p.sums)
}

// write writes a page of rows rows and says how. Items of lists are zipped only if they do not fit into chunks: Lance 6,
// which DuckDB's extension is made of, counts them wrongly where some pages have nulls and others have none.
func (s *shredded) write(p *pageWriter, f *Field, rows int, how style) (*lancepb.PageLayout, error) {
	if s.allNull() {
		return s.writeConstant(p)
	}
	if s.lists == 0 && s.wide(f) {
		return s.writeZipped(p, f.Type, rows, how.compress)
	}
	l, err := s.writeChunks(p, f, how)
	if errors.Is(err, errChunk) && f.zips() {
		return s.writeZipped(p, f.Type, rows, how.compress)
	}
	return l, err
}

// wide reports whether values are large.
func (s *shredded) wide(f *Field) bool {
	if _, ok := f.Type.(arrow.BinaryDataType); ok {
		return s.stringBytes()/s.n >= wideBytes && f.zips()
	}
	return bitWidth(f.Type) >= wideBytes*8 && f.zips()
}

// zips reports whether values of a field can be zipped: a page of those has no dictionary, and begins each at a byte, which
// booleans fill.
func (f *Field) zips() bool {
	return !f.dictionary() && f.form != numbersForm && f.form != packedForm && (bitWidth(f.Type)%8 == 0 || f.Type.ID() == arrow.BOOL)
}

// writeConstant writes a page in which all values are null, if there are any.
func (s *shredded) writeConstant(p *pageWriter) (*lancepb.PageLayout, error) {
	l := &lancepb.ConstantLayout{Layers: s.layers}
	if s.lists > 0 || len(s.layers) > 1 {
		for _, levels := range [][]uint16{s.rep, s.def} {
			if _, err := p.append(arrow.Uint16Traits.CastToBytes(levels)); err != nil {
				return nil, err
			}
		}
	}
	return &lancepb.PageLayout{Layout: &lancepb.PageLayout_ConstantLayout{ConstantLayout: l}}, nil
}

// writeZipped writes large values, and those between which there are many empty lists, each behind its levels.
func (s *shredded) writeZipped(p *pageWriter, dt arrow.DataType, rows int, compress bool) (*lancepb.PageLayout, error) {
	l := &lancepb.FullZipLayout{NumItems: uint32(s.entries()), NumVisibleItems: uint32(s.n), Layers: s.layers}
	l.BitsRep = uint32(bits.Len16(s.lists))
	if s.def != nil {
		l.BitsDef = uint32(bits.Len(uint(s.definitions() - 1)))
	}
	z := &zipper{shredded: s, page: p, l: l}
	_, z.strings = dt.(arrow.BinaryDataType)
	if z.strings {
		bits := dt.Layout().Buffers[1].ByteWidth * 8
		z.put, z.of = appender(bits), s.stringOf
		l.Details, l.ValueCompression = &lancepb.FullZipLayout_BitsPerOffset{BitsPerOffset: uint32(bits)}, variableBlock(int64(bits))
		if compress {
			if coded := s.codedTexts(dt); coded != nil {
				z.of, l.ValueCompression = coded.of, coded.encoding()
			}
		}
	} else {
		z.values = s.fixedValues()
		z.nullItems = s.nullItems(&z.values)
		width := uint32(z.values.bits)
		if z.nullItems {
			width += uint32(bitBytes(z.values.items)) * 8
		}
		l.ValueCompression = valueEncoding(dt, z.nullItems)
		if dt.ID() == arrow.BOOL {
			width, l.ValueCompression = 8, flatBlock(8)
		}
		l.Details = &lancepb.FullZipLayout_BitsPerValue{BitsPerValue: width}
	}
	if err := z.write(rows); err != nil {
		return nil, err
	}
	return &lancepb.PageLayout{Layout: &lancepb.PageLayout_FullZipLayout{FullZipLayout: l}}, nil
}

// zipper writes the buffers of a page of large values.
type zipper struct {
	*shredded
	page      *pageWriter
	l         *lancepb.FullZipLayout
	strings   bool
	put       func([]byte, uint64) []byte // appends the length of a string
	of        func(i int) []byte          // a string as it is stored
	nullItems bool
	values    fixedValues
}

func (z *zipper) write(rows int) error {
	if _, err := z.page.begin(); err != nil {
		return err
	}
	if !z.strings && z.rep == nil && z.def == nil && !z.nullItems && z.places == nil {
		at := z.values.bitsAt(z.first) / 8
		err := z.page.out.Write(z.values.data[at : at+z.n*z.values.bits/8])
		z.page.end()
		return err
	}
	starts, err := z.writeEntries(rows)
	if err != nil {
		return err
	}
	z.page.end()
	if !z.strings && z.rep == nil {
		return nil
	}
	_, err = z.page.append(packedNumbers(starts))
	return err
}

// writeEntries writes all entries, and returns where the rows begin among their bytes, and the end.
func (z *zipper) writeEntries(rows int) ([]uint64, error) {
	begin := z.page.out.pos
	starts := make([]uint64, 0, rows+1)
	var b []byte
	value := 0
	for i := range z.entries() {
		if z.rep == nil || z.rep[i] == z.lists {
			starts = append(starts, uint64(z.page.out.pos-begin)+uint64(len(b)))
		}
		def := uint16(0)
		if z.def != nil {
			def = z.def[i]
		}
		if b = z.appendControl(b, i, def); z.visible(def) {
			b = z.appendValue(b, value, def)
			value++
		}
		if len(b) >= outputBuffer/4 {
			if err := z.page.out.Write(b); err != nil {
				return nil, err
			}
			b = b[:0]
		}
	}
	if err := z.page.out.Write(b); err != nil {
		return nil, err
	}
	return append(starts, uint64(z.page.out.pos-begin)), nil
}

// appendControl appends the levels of an entry.
func (z *zipper) appendControl(b []byte, i int, def uint16) []byte {
	word := uint32(def)
	if z.rep != nil {
		word |= uint32(z.rep[i]) << z.l.BitsDef
	}
	switch size := z.l.BitsRep + z.l.BitsDef; {
	case size == 0:
		return b
	case size <= 8:
		return append(b, byte(word))
	case size <= 16:
		return le.AppendUint16(b, uint16(word))
	}
	return le.AppendUint32(b, word)
}

// appendValue appends a visible value.
func (z *zipper) appendValue(b []byte, i int, def uint16) []byte {
	if z.strings {
		if def > 0 {
			return b
		}
		v := z.of(i)
		return append(z.put(b, uint64(len(v))), v...)
	}
	if z.nullItems {
		b = z.appendItems(b, &z.values, i, i+1)
	}
	return z.appendFixed(b, &z.values, i, i+1)
}

// packedNumbers returns ascending numbers in 1, 2, 4 or 8 bytes each, as the last needs.
func packedNumbers(n []uint64) []byte {
	width := 8
	for _, w := range []int{4, 2, 1} {
		if n[len(n)-1] < 1<<(8*w) {
			width = w
		}
	}
	b := make([]byte, 0, len(n)*width)
	for _, x := range n {
		for k := range width {
			b = append(b, byte(x>>(8*k)))
		}
	}
	return b
}

// columns returns what is known of the pages of all leaves.
func (c *structuralColumn) columns() []*pageList {
	lists := make([]*pageList, len(c.pages))
	for i := range c.pages {
		lists[i] = &c.pages[i]
	}
	return lists
}

// end has nothing to add: structs have no columns.
func (c *structuralColumn) end() error { return nil }
