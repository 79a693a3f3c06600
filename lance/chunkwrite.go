package lance

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
)

// chunker writes the chunks of a page of small values.
type chunker struct {
	*shredded
	values valueWriter
	// large tells that sizes have 32 bits, which those of version 2.1 do not.
	large bool
	// repBits and defBits are the bits that levels are packed into, 16 when they are not.
	repBits, defBits int

	meta, data, rows []byte // the buffers
	level            int    // the next entry of the levels
	counted          int    // values before the entry counted to
	countedTo        int
	levels           []byte // of the chunk
}

// errChunk is for values that do not fit into chunks with their levels.
var errChunk = fmt.Errorf("one row has values of more than %d bytes, or more than %d empty or null lists in a row, in a list of lists of a dictionary or of fixed-size lists of booleans: %w",
	smallChunk/2, math.MaxUint16, ErrUnsupported)

// newChunker returns what cuts values into chunks, and their dictionary, if they have one.
func (s *shredded) newChunker(f *Field, how style) (c *chunker, distinct *dictionary) {
	c = &chunker{shredded: s, large: how.version > Version21, repBits: 16, defBits: 16}
	if how.compress || !c.large || s.entries() > chunkLevels { // a row of that many, whose levels have to fit into a chunk
		c.repBits, c.defBits = bits.Len16(s.lists), bits.Len(uint(s.definitions()-1))
	}
	c.values, distinct = s.valueWriter(f, how)
	return c, distinct
}

// writeChunks writes small values in chunks. If they do not fit, it returns errChunk, and has written nothing.
func (s *shredded) writeChunks(p *pageWriter, f *Field, how style) (*lancepb.PageLayout, error) {
	c, distinct := s.newChunker(f, how)
	l := &lancepb.MiniBlockLayout{Layers: s.layers, NumItems: uint64(s.n), HasLargeChunk: c.large}
	if s.rep != nil {
		l.RepCompression, l.RepetitionIndexDepth = levelsEncoding(c.repBits), 1
	}
	if s.def != nil {
		l.DefCompression = levelsEncoding(c.defBits)
	}
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

// cut writes all chunks. One with many empty lists or long strings in it has fewer values.
func (c *chunker) cut(per int) error {
	for from := 0; from < c.n; {
		to := min(from+per, c.n)
		for !c.chunk(from, to) {
			if to-from <= 2 {
				return errChunk
			}
			to = from + 1<<(bits.Len(uint(to-from-1))-1)
			if from == 0 {
				per = to // those of one width will all be too large
			}
		}
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
	if c.counted > to {
		c.counted, c.countedTo = 0, 0
	}
	for ; c.counted < to; c.countedTo++ {
		if c.visible(c.def[c.countedTo]) {
			c.counted++
		}
	}
	return c.countedTo
}

// chunk writes the values [from, to) and their levels. It returns false if they are too many for a chunk.
func (c *chunker) chunk(from, to int) bool {
	start, end := len(c.data), c.levelsUpTo(to)
	levels := end - c.level
	switch {
	case c.rep == nil && c.def == nil:
		levels = 0
	case levels > math.MaxUint16 || levels > chunkLevels && to-from > 2:
		return false
	}
	c.data, c.levels = le.AppendUint16(c.data, uint16(levels)), c.levels[:0]
	for _, l := range []struct {
		levels []uint16
		bits   int
	}{{c.rep, c.repBits}, {c.def, c.defBits}} {
		if l.levels != nil {
			before := len(c.levels)
			c.levels = appendLevels(c.levels, l.bits, l.levels[c.level:end])
			size := len(c.levels) - before
			if size > math.MaxUint16 {
				c.data = c.data[:start]
				return false
			}
			c.data = le.AppendUint16(c.data, uint16(size))
			c.levels = pad8(c.levels)
		}
	}
	values := c.values.buffers(from, to)
	for _, b := range values {
		if c.large {
			c.data = le.AppendUint32(c.data, uint32(len(b)))
		} else {
			c.data = le.AppendUint16(c.data, uint16(len(b)))
		}
	}
	c.data = append(pad8(c.data), c.levels...)
	for _, b := range values {
		c.data = pad8(append(c.data, b...))
	}
	if !c.large && len(c.data)-start > smallChunk {
		c.data = c.data[:start]
		return false
	}
	c.index(from, to, start)
	if c.rep != nil {
		c.indexRows(c.level, end)
	}
	c.level = end
	return true
}

// index appends the entry of a chunk that begins at a byte.
func (c *chunker) index(from, to, start int) {
	word := uint32((len(c.data)-start)/8-1) << 4
	if to < c.n {
		word |= uint32(bits.TrailingZeros(uint(to - from)))
	}
	if c.large {
		c.meta = le.AppendUint32(c.meta, word)
	} else {
		c.meta = le.AppendUint16(c.meta, uint16(word))
	}
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
