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
	values valueWriter
	// repBits and defBits are the bits that levels are packed into, 16 when they are not.
	repBits, defBits int

	meta, data, rows []byte // the buffers
	level            int    // the next entry of the levels
	levels           []byte // of the chunk
}

// writeChunks writes small values in chunks.
func (s *shredded) writeChunks(p *pageWriter, f *Field, compress bool) (*lancepb.PageLayout, error) {
	c := &chunker{shredded: s, repBits: 16, defBits: 16}
	l := &lancepb.MiniBlockLayout{Layers: s.layers, NumItems: uint64(s.n), HasLargeChunk: true}
	if compress || s.entries() > chunkLevels { // a row of that many, whose levels have to fit into a chunk
		c.repBits, c.defBits = bits.Len16(s.lists), bits.Len(uint(s.definitions()-1))
	}
	if s.rep != nil {
		l.RepCompression, l.RepetitionIndexDepth = levelsEncoding(c.repBits), 1
	}
	if s.def != nil {
		l.DefCompression = levelsEncoding(c.defBits)
	}
	var distinct *dictionary
	c.values, distinct = s.valueWriter(f, compress)
	l.ValueCompression, l.NumBuffers = c.values.encoding(), uint64(c.values.count())
	if err := c.cut(c.values.perChunk()); err != nil {
		return nil, err
	}
	bufs := [][]byte{c.meta, c.data}
	if distinct != nil {
		l.Dictionary, l.NumDictionaryItems = distinct.encoding, uint64(distinct.items)
		bufs = append(bufs, distinct.bytes)
	}
	if s.rep != nil {
		bufs = append(bufs, c.rows)
	}
	for _, b := range bufs {
		if _, err := p.append(b); err != nil {
			return nil, err
		}
	}
	return &lancepb.PageLayout{Layout: &lancepb.PageLayout_MiniBlockLayout{MiniBlockLayout: l}}, nil
}

// levelsEncoding returns the encoding of levels of so many bits.
func levelsEncoding(bits int) *lancepb.CompressiveEncoding {
	if bits == 16 {
		return flatBlock(16)
	}
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_OutOfLineBitpacking{OutOfLineBitpacking: &lancepb.OutOfLineBitpacking{
		UncompressedBitsPerValue: 16, Values: flatBlock(int64(bits)),
	}}}
}

// appendLevels appends levels of so many bits.
func appendLevels(b []byte, bits int, levels []uint16) []byte {
	if bits == 16 {
		return append(b, arrow.Uint16Traits.CastToBytes(levels)...)
	}
	return appendPacked(b, bits, levels)
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
	start := len(c.data)
	levels := end - c.level
	if c.rep == nil && c.def == nil {
		levels = 0
	}
	c.data, c.levels = le.AppendUint16(c.data, uint16(levels)), c.levels[:0]
	for _, l := range []struct {
		levels []uint16
		bits   int
	}{{c.rep, c.repBits}, {c.def, c.defBits}} {
		if l.levels != nil {
			before := len(c.levels)
			c.levels = appendLevels(c.levels, l.bits, l.levels[c.level:end])
			c.data = le.AppendUint16(c.data, uint16(len(c.levels)-before))
			c.levels = pad8(c.levels)
		}
	}
	values := c.values.buffers(from, to)
	for _, b := range values {
		c.data = le.AppendUint32(c.data, uint32(len(b)))
	}
	c.data = append(pad8(c.data), c.levels...)
	for _, b := range values {
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

// appender returns what appends a number of 32 or 64 bits.
func appender(bits int) func([]byte, uint64) []byte {
	if bits == 64 {
		return le.AppendUint64
	}
	return func(b []byte, n uint64) []byte { return le.AppendUint32(b, uint32(n)) }
}

// pad8 lengthens b to a multiple of 8.
func pad8(b []byte) []byte { return append(b, padding[:-len(b)&7]...) }
