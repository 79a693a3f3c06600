package lance

import (
	"math/bits"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/pierrec/lz4/v4"

	"github.com/flightd/flightd/internal/lancepb"
)

const (
	// worthwhile is the part of its plain size, in sixteenths, that a page may have at most for its values to be
	// compressed: what saves less does not pay for what it costs to read.
	worthwhile = 15
	// chunkHead is about what a chunk takes beside its values.
	chunkHead = 12
	// maxRun is how often a value comes at most in one run.
	maxRun = 255
	// distinctValues and distinctBytes bound the dictionary of a page, which readers decode whole and keep.
	distinctValues, distinctBytes = 1 << 16, 1 << 20
	// distinctGain is the size of values below which a dictionary would be in the way of readers for little.
	distinctGain = 8 << 10
	// textBytes is the size from which strings are coded: each page has a table of symbols.
	textBytes = 16 << 10
	// sampled is about how many values tell whether they repeat.
	sampled = 4096
	// lz4Bytes is the size from which a dictionary is compressed.
	lz4Bytes = 4 << 10
)

// valueWriter chooses how the values of a page of small values are written, by measuring them: the dictionary is nil if
// the page has none.
func (s *shredded) valueWriter(f *Field, how style) (valueWriter, *dictionary) {
	compress := how.compress
	_, strings := f.Type.(arrow.BinaryDataType)
	switch {
	case f.dictionary() || f.form == numbersForm:
		var numbers []uint32
		var d *dictionary
		if f.form == numbersForm {
			numbers, d = s.numberFixed(f.Type)
		} else {
			numbers, d = s.number(f.Type, s.n, 1<<62)
		}
		if f.numberBits() == 64 {
			wide := make([]uint64, len(numbers))
			for i, n := range numbers {
				wide[i] = uint64(n)
			}
			return numberWriter(wide, compress), d
		}
		return numberWriter(numbers, compress), d
	case strings && compress:
		return s.textWriter(f.Type, how)
	case strings:
		return s.plainTexts(f.Type), nil
	}
	plain := s.plainValues(f.Type)
	plain.packed = f.packed
	if !compress || f.form == packedForm || f.Type.ID() == arrow.FIXED_SIZE_LIST {
		return plain, nil
	}
	switch plain.fixed.bits {
	case 8:
		w, _ := smallest(gather[uint8](plain), plain)
		return w, nil
	case 16:
		w, _ := smallest(gather[uint16](plain), plain)
		return w, nil
	case 32:
		return fixedWriter(gather[uint32](plain), plain, how)
	case 64:
		return fixedWriter(gather[uint64](plain), plain, how)
	}
	return plain, nil
}

// numberWriter writes the numbers of a dictionary.
func numberWriter[T uint32 | uint64](numbers []T, compress bool) valueWriter {
	plain := &numberValues[T]{numbers: numbers}
	if !compress {
		return plain
	}
	w, _ := smallest(numbers, plain)
	return w
}

// fixedWriter chooses how values of one width are written: as numbers of the distinct ones if these are few, else as
// smallest says. Lance's own writer puts such dictionaries, and those that are compressed, into files of 2.2 only.
func fixedWriter[T word](values []T, plain valueWriter, how style) (valueWriter, *dictionary) {
	w, size := smallest(values, plain)
	if size < distinctGain || how.version < Version22 {
		return w, nil
	}
	numbers, distinct := numberValuesOf(values, min(distinctValues, len(values)/4))
	if numbers == nil {
		return w, nil
	}
	d := &dictionary{len(distinct), arrow.GetBytes(distinct), flatBlock(int64(unsafe.Sizeof(T(0))) * 8)}
	d.compress()
	numbered, asNumbers := smallest(numbers, &numberValues[uint32]{numbers: numbers})
	if asNumbers+len(d.bytes) > size*worthwhile/16 {
		return w, nil
	}
	return numbered, d
}

// numberValuesOf gives the distinct values numbers. If there are more than so many, or a sample says so, it returns
// nothing.
func numberValuesOf[T word](values []T, most int) ([]uint32, []T) {
	places, step := map[T]uint32{}, max(1, len(values)/sampled)
	for i := 0; i < len(values); i += step {
		places[values[i]] = 0
	}
	if len(places) > most || len(places) > len(values)/step*3/4 {
		return nil, nil
	}
	clear(places)
	numbers, distinct := make([]uint32, len(values)), []T(nil)
	for i, v := range values {
		at, ok := places[v]
		if !ok {
			at = uint32(len(distinct))
			if places[v], distinct = at, append(distinct, v); len(distinct) > most {
				return nil, nil
			}
		}
		numbers[i] = at
	}
	return numbers, distinct
}

// gather returns the values of a page, each null as the value before it: then it makes no run shorter and no value wider.
func gather[T word](w *plainValues) []T {
	size := int(unsafe.Sizeof(T(0)))
	if w.places == nil && w.valid == nil {
		at := w.fixed.bitsAt(w.first) / 8
		return arrow.GetData[T](w.fixed.data[at : at+w.n*size])
	}
	all, shift := arrow.GetData[T](w.fixed.data[w.fixed.shift/8:]), 0
	out := make([]T, w.n)
	last := T(0)
	for i := range out {
		if w.isValid(i) {
			last = all[shift+w.place(i)]
		}
		out[i] = last
	}
	return out
}

// smallest returns the writer that takes least room for the values, and how much: packed, as runs, or as they are, which
// plain does.
func smallest[T word](values []T, plain valueWriter) (valueWriter, int) {
	size := int(unsafe.Sizeof(values[0]))
	asPacked, runs := 0, 0
	for from := 0; from < len(values); from += packed {
		block := values[from:min(from+packed, len(values))]
		all, changes, last := T(0), 0, block[0]
		for _, v := range block {
			if all |= v; v != last {
				changes++
				last = v
			}
		}
		runs += max(changes+1, len(block)/maxRun)
		asPacked += chunkHead + size + bits.Len64(uint64(all))*packed/8
	}
	asRuns := runs * (size + 1)
	limit := len(values) * size * worthwhile / 16
	switch {
	case asRuns < asPacked && asRuns <= limit/2: // runs of two are slower to read than what they save
		return &runValues[T]{values: values}, asRuns
	case asPacked <= limit:
		return &packedValues[T]{values: values}, asPacked
	}
	return plain, len(values) * size
}

// packedValues writes numbers in as few bits as the widest of each 1,024 needs.
type packedValues[T word] struct {
	values []T
	buf    [1][]byte
}

func (w *packedValues[T]) encoding() *lancepb.CompressiveEncoding {
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_InlineBitpacking{InlineBitpacking: &lancepb.InlineBitpacking{
		UncompressedBitsPerValue: uint64(unsafe.Sizeof(T(0))) * 8,
	}}}
}

func (w *packedValues[T]) count() int { return 1 }

// perChunk implements valueWriter: other readers take a chunk for one block.
func (w *packedValues[T]) perChunk() int { return packed }

func (w *packedValues[T]) buffers(from, to int) [][]byte {
	all := T(0)
	for _, v := range w.values[from:to] {
		all |= v
	}
	width := bits.Len64(uint64(all))
	head := [1]T{T(width)}
	w.buf[0] = appendBlock(append(w.buf[0][:0], arrow.GetBytes(head[:])...), width, w.values[from:to])
	return w.buf[:]
}

// runValues writes each value once for a run of at most maxRun.
type runValues[T word] struct {
	values   []T
	distinct []T
	bufs     [2][]byte // values, lengths
}

func (w *runValues[T]) encoding() *lancepb.CompressiveEncoding {
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_Rle{Rle: &lancepb.RleBlock{
		Values: flatBlock(int64(unsafe.Sizeof(T(0))) * 8), RunLengths: flatBlock(8),
	}}}
}

func (w *runValues[T]) count() int    { return 2 }
func (w *runValues[T]) perChunk() int { return powerWithin(chunkBytes / int(unsafe.Sizeof(T(0))+1)) }

func (w *runValues[T]) buffers(from, to int) [][]byte {
	w.distinct, w.bufs[1] = w.distinct[:0], w.bufs[1][:0]
	run := 0
	for i := from; i < to; i++ {
		if run++; i+1 < to && w.values[i+1] == w.values[i] && run < maxRun {
			continue
		}
		w.distinct, w.bufs[1] = append(w.distinct, w.values[i]), append(w.bufs[1], byte(run))
		run = 0
	}
	w.bufs[0] = arrow.GetBytes(w.distinct)
	return w.bufs[:]
}

// numberValues writes the numbers of a dictionary as they are.
type numberValues[T uint32 | uint64] struct {
	numbers []T
	buf     [1][]byte
}

func (w *numberValues[T]) encoding() *lancepb.CompressiveEncoding {
	return flatBlock(int64(unsafe.Sizeof(T(0))) * 8)
}
func (w *numberValues[T]) count() int    { return 1 }
func (w *numberValues[T]) perChunk() int { return powerWithin(chunkBytes / int(unsafe.Sizeof(T(0)))) }

func (w *numberValues[T]) buffers(from, to int) [][]byte {
	w.buf[0] = arrow.GetBytes(w.numbers[from:to])
	return w.buf[:]
}

// dictionary is the distinct values of a page.
type dictionary struct {
	items    int
	bytes    []byte
	encoding *lancepb.CompressiveEncoding
}

// number gives the distinct strings numbers, a null that of the value before it. If there are more than so many, or of
// more bytes, it returns nothing.
func (s *shredded) number(dt arrow.DataType, most, mostBytes int) ([]uint32, *dictionary) {
	places := map[string]uint32{}
	var items [][]byte
	numbers := make([]uint32, s.n)
	size, last := 0, uint32(0)
	for i := range s.n {
		if s.isValid(i) {
			v := s.stringOf(i)
			at, ok := places[string(v)]
			if !ok {
				at = uint32(len(items))
				places[string(v)], items = at, append(items, v)
				if size += len(v); len(items) > most || size > mostBytes {
					return nil, nil
				}
			}
			last = at
		}
		numbers[i] = last
	}
	return numbers, newDictionary(items, dt.Layout().Buffers[1].ByteWidth*8)
}

// newDictionary lays out distinct strings, see wholeStrings.
func newDictionary(items [][]byte, offsetBits int) *dictionary {
	put := appender(offsetBits)
	var b []byte
	for _, n := range []int{offsetBits, offsetBits / 8 * (2 + len(items) + 1), 0} {
		b = put(b, uint64(n))
	}
	end := 0
	for _, v := range items {
		end += len(v)
		b = put(b, uint64(end))
	}
	for _, v := range items {
		b = append(b, v...)
	}
	return &dictionary{len(items), b, variableBlock(int64(offsetBits))}
}

// compress compresses a dictionary by LZ4, if that pays.
func (d *dictionary) compress() {
	if len(d.bytes) < lz4Bytes {
		return
	}
	out := le.AppendUint32(make([]byte, 0, 4+lz4.CompressBlockBound(len(d.bytes))), uint32(len(d.bytes)))
	var c lz4.Compressor
	n, err := c.CompressBlock(d.bytes, out[4:cap(out)])
	if err != nil || n == 0 || n > len(d.bytes)*worthwhile/16 { // there is room enough, and 0 means that it does not shrink
		return
	}
	d.bytes = out[:4+n]
	d.encoding = &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_General{General: &lancepb.GeneralBlock{
		Compression: &lancepb.BufferCompression{Scheme: lancepb.CompressionScheme_COMPRESSION_ALGORITHM_LZ4}, Values: d.encoding,
	}}}
}

// textWriter chooses how strings are written: as numbers of the distinct ones, coded, or as they are.
func (s *shredded) textWriter(dt arrow.DataType, how style) (valueWriter, *dictionary) {
	plain := s.plainTexts(dt)
	size := plain.mean*s.n + 4*s.n
	coded := s.codedTexts(dt)
	limit := size * worthwhile / 16
	if coded != nil {
		limit = min(limit, coded.size())
	}
	if s.repeats() {
		if numbers, d := s.number(dt, min(distinctValues, s.n/2), distinctBytes); d != nil {
			if how.version > Version21 {
				d.compress()
			}
			if len(d.bytes)+s.n*bits.Len(uint(d.items-1))/8+chunkHead*s.n/packed < limit {
				return numberWriter(numbers, true), d
			}
		}
	}
	if coded != nil {
		return coded, nil
	}
	return plain, nil
}

// repeats reports whether a fourth of a sample of the strings come twice in it: it saves large pages of distinct strings
// the dictionary.
func (s *shredded) repeats() bool {
	step := max(1, s.n/sampled)
	seen, asked := map[string]struct{}{}, 0
	for i := 0; i < s.n; i += step {
		seen[string(s.stringOf(i))] = struct{}{}
		asked++
	}
	return asked > 1 && len(seen) <= asked*3/4
}

// codedTexts are the strings of a page coded by FSST.
type codedTexts struct {
	plainTexts
	coder *fsstCoder
	data  []byte
	ends  []int // of each string, behind a 0
}

// codedTexts returns the coded strings of a page, or nil if that does not pay.
func (s *shredded) codedTexts(dt arrow.DataType) *codedTexts {
	total := s.stringBytes()
	if total < textBytes {
		return nil
	}
	sample, taken := s.sample(total)
	if taken == 0 {
		return nil
	}
	w := &codedTexts{plainTexts: *s.plainTexts(dt), coder: trainFSST(sample), ends: make([]int, 1, s.n+1)}
	var b []byte
	for _, piece := range sample {
		b = w.coder.append(b, piece)
	}
	if total*len(b)/taken+fsstTableBytes > total*worthwhile/16 {
		return nil
	}
	w.data = make([]byte, 0, total*len(b)/taken+total/8)
	for i := range s.n {
		w.data = w.coder.append(w.data, s.stringOf(i))
		w.ends = append(w.ends, len(w.data))
	}
	w.of = func(i int) []byte { return w.data[w.ends[i]:w.ends[i+1]] }
	w.mean = len(w.data) / s.n
	return w
}

// size is what the strings take, with their offsets and the table.
func (w *codedTexts) size() int { return len(w.data) + 4*(len(w.ends)-1) + fsstTableBytes }

func (w *codedTexts) encoding() *lancepb.CompressiveEncoding {
	return &lancepb.CompressiveEncoding{Compression: &lancepb.CompressiveEncoding_Fsst{Fsst: &lancepb.FsstBlock{
		SymbolTable: w.coder.table(), Values: w.plainTexts.encoding(),
	}}}
}

// sample returns pieces of the strings of a page, which have total bytes, from all over it, and the bytes of these.
func (s *shredded) sample(total int) (pieces [][]byte, size int) {
	step := max(1, min(total/fsstSample, s.n*fsstPiece/fsstSample))
	for i := 0; i < s.n && size < 2*fsstSample; i += step {
		piece := s.stringOf(i)
		// Of a long one not always the beginning.
		if over := len(piece) - fsstPiece; over > 0 {
			at := i * 7919 % (over + 1)
			piece = piece[at : at+fsstPiece]
		}
		pieces, size = append(pieces, piece), size+len(piece)
	}
	return pieces, size
}
