package lance

import (
	"fmt"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
)

// chunker writes the chunks of a page of small values.
type chunker struct {
	*shredded
	l       *lancepb.MiniBlockLayout
	strings bool
	// offsetBits is the width of the offsets of strings, as Arrow has them.
	offsetBits int
	// numbers are those of the distinct values, when the page has a dictionary.
	numbers   []uint32
	nullItems bool
	fixed     fixedValues

	meta, data, rows []byte // the buffers
	level            int    // the next entry of the levels
	values           []byte // of the chunk
	items            []byte
}

// writeChunks writes small values in chunks.
func (s *shredded) writeChunks(p *pageWriter, dt arrow.DataType, dictionary bool) (*lancepb.PageLayout, error) {
	c := &chunker{shredded: s, l: &lancepb.MiniBlockLayout{Layers: s.layers, NumBuffers: 1, NumItems: uint64(s.n), HasLargeChunk: true}}
	if s.rep != nil {
		c.l.RepCompression, c.l.RepetitionIndexDepth = flatBlock(16), 1
	}
	if s.def != nil {
		c.l.DefCompression = flatBlock(16)
	}
	var distinct []byte
	if _, c.strings = dt.(arrow.BinaryDataType); c.strings {
		c.offsetBits = dt.Layout().Buffers[1].ByteWidth * 8
	}
	switch {
	case dictionary:
		distinct = c.number()
		c.strings = false
		c.l.ValueCompression, c.l.Dictionary = flatBlock(32), variableBlock(int64(c.offsetBits))
	case c.strings:
		c.l.ValueCompression = variableBlock(int64(c.offsetBits))
	default:
		c.fixed = s.fixedValues()
		if c.nullItems = s.nullItems(&c.fixed); c.nullItems {
			c.l.NumBuffers = 2
		}
		c.l.ValueCompression = valueEncoding(dt, c.nullItems)
	}
	if err := c.cut(c.perChunk()); err != nil {
		return nil, err
	}
	bufs := [][]byte{c.meta, c.data}
	if dictionary {
		bufs = append(bufs, distinct)
	}
	if s.rep != nil {
		bufs = append(bufs, c.rows)
	}
	for _, b := range bufs {
		if _, err := p.append(b); err != nil {
			return nil, err
		}
	}
	return &lancepb.PageLayout{Layout: &lancepb.PageLayout_MiniBlockLayout{MiniBlockLayout: c.l}}, nil
}

// perChunk returns how many values a chunk has, a power of two.
func (c *chunker) perChunk() int {
	size := 4
	switch {
	case c.strings:
		size += c.stringBytes() / c.n
	case c.numbers == nil:
		size = max(1, c.fixed.bits/8)
	}
	n := max(1, chunkBytes/size)
	return min(chunkValues, max(2, 1<<(bits.Len(uint(n))-1)))
}

// number gives the distinct values numbers and returns them as the dictionary of the page.
func (c *chunker) number() []byte {
	places := map[string]uint32{}
	var items [][]byte
	c.numbers = make([]uint32, c.n)
	for i := range c.n {
		v := c.stringOf(i)
		at, ok := places[string(v)]
		if !ok {
			at = uint32(len(items))
			places[string(v)], items = at, append(items, v)
		}
		c.numbers[i] = at
	}
	c.l.NumDictionaryItems = uint64(len(items))
	put := appender(c.offsetBits)
	var b []byte
	for _, n := range []uint64{uint64(c.offsetBits), uint64(c.offsetBits / 8 * (2 + len(items) + 1)), 0} {
		b = put(b, n)
	}
	end := uint64(0)
	for _, v := range items {
		end += uint64(len(v))
		b = put(b, end)
	}
	for _, v := range items {
		b = append(b, v...)
	}
	return b
}

// cut writes all chunks.
func (c *chunker) cut(per int) error {
	for from := 0; from < c.n; {
		to := min(from+per, c.n)
		end := c.levelsUpTo(to)
		// A chunk with many empty lists in it has fewer values.
		for to < c.n && end-c.level > chunkLevels && to-from > 2 {
			to = from + 1<<(bits.Len(uint(to-from-1))-1)
			end = c.levelsUpTo(to)
		}
		if end-c.level > 2*chunkLevels {
			return fmt.Errorf("one row has %d empty or null lists in a row: %w", end-c.level, ErrUnsupported)
		}
		c.chunk(from, to, end)
		from = to
	}
	return nil
}

// levelsUpTo returns the entry behind those of the values up to one. What has no value goes with the value behind it, at
// the end with the last.
func (c *chunker) levelsUpTo(to int) int {
	if to == c.n {
		return c.entries()
	}
	if c.rep == nil || c.def == nil {
		return to
	}
	left, at := to, 0
	for ; left > 0; at++ {
		if c.visible(c.def[at]) {
			left--
		}
	}
	return at
}

// chunk writes the values [from, to) and the levels up to an entry.
func (c *chunker) chunk(from, to, end int) {
	var parts [][]byte
	start := len(c.data)
	levels := end - c.level
	if c.rep == nil && c.def == nil {
		levels = 0
	}
	c.data = le.AppendUint16(c.data, uint16(levels))
	for _, l := range [][]uint16{c.rep, c.def} {
		if l != nil {
			b := arrow.Uint16Traits.CastToBytes(l[c.level:end])
			c.data = le.AppendUint16(c.data, uint16(len(b)))
			parts = append(parts, b)
		}
	}
	c.values = c.appendValues(c.values[:0], from, to)
	if c.nullItems {
		c.items = c.appendItems(c.items[:0], &c.fixed, from, to)
		c.data = le.AppendUint32(c.data, uint32(len(c.items)))
		parts = append(parts, c.items)
	}
	c.data = le.AppendUint32(c.data, uint32(len(c.values)))
	c.data = pad8(c.data)
	for _, b := range append(parts, c.values) {
		c.data = pad8(append(c.data, b...))
	}
	word := uint32((len(c.data)-start)/8-1) << 4
	if to < c.n {
		word |= uint32(bits.TrailingZeros(uint(to - from)))
	}
	c.meta = le.AppendUint32(c.meta, word)
	if c.rep != nil {
		c.indexRows(c.level, end)
	}
	c.level = end
}

// indexRows appends the entry of the repetition index: rows that end in the chunk, and entries of one that does not.
func (c *chunker) indexRows(from, end int) {
	ends, open := uint64(0), uint64(0)
	for i := from; i < end; i++ {
		if c.rep[i] == c.lists && i > from {
			ends++
		}
	}
	if end == len(c.rep) || c.rep[end] == c.lists {
		ends++
	} else {
		for i := end - 1; i >= from; i-- {
			open++
			if c.rep[i] == c.lists {
				break
			}
		}
	}
	c.rows = le.AppendUint64(le.AppendUint64(c.rows, ends), open)
}

// appendValues appends the values [from, to) as they are in a chunk.
func (c *chunker) appendValues(b []byte, from, to int) []byte {
	switch {
	case c.numbers != nil:
		return append(b, arrow.Uint32Traits.CastToBytes(c.numbers[from:to])...)
	case !c.strings:
		return c.appendFixed(b, &c.fixed, from, to)
	}
	put := appender(c.offsetBits)
	end := uint64(c.offsetBits / 8 * (to - from + 1))
	b = put(b, end)
	for i := from; i < to; i++ {
		end += uint64(len(c.stringOf(i)))
		b = put(b, end)
	}
	for i := from; i < to; i++ {
		b = append(b, c.stringOf(i)...)
	}
	return pad8(b)
}

// appender returns what appends a number of 32 or 64 bits.
func appender(bits int) func([]byte, uint64) []byte {
	if bits == 64 {
		return le.AppendUint64
	}
	return func(b []byte, n uint64) []byte { return le.AppendUint32(b, uint32(n)) }
}

// pad8 lengthens b to a multiple of 8.
func pad8(b []byte) []byte { return append(b, padding[:-len(b)&7]...) }
