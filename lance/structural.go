package lance

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/flightd/flightd/internal/lancepb"
)

// rowRange is some consecutive rows of a page.
type rowRange struct{ from, to int64 }

// leafRows is what is read of a leaf: levels and values of some rows of one page.
type leafRows struct {
	levels levels
	values *leafValues
}

// layout knows one layout of pages of file version 2.1 or later. It is immutable, what it caches of a page aside.
type layout interface {
	codec
	// layering tells what the levels mean.
	layering() *layering
	// read appends the levels and values of rows, which are ascending, to out.
	read(v *pageView, rows []rowRange, out *leafRows) error
}

// parseLayout returns the layout of a page of a leaf.
func parseLayout(m *lancepb.Page, rows int64, f *Field) (layout, error) {
	var wrapped anypb.Any
	if err := proto.Unmarshal(m.GetEncoding().GetDirect().GetEncoding(), &wrapped); err != nil {
		return nil, err
	}
	var l lancepb.PageLayout
	if err := lancepb.Unwrap(&wrapped, &l); err != nil {
		return nil, err
	}
	return parsePageLayout(&l, len(m.GetBufferOffsets()), rows, f)
}

func parsePageLayout(l *lancepb.PageLayout, buffers int, rows int64, f *Field) (layout, error) {
	switch l := l.GetLayout().(type) {
	case *lancepb.PageLayout_BlobLayout:
		return parseBlobs(l.BlobLayout, buffers, rows)
	case *lancepb.PageLayout_MiniBlockLayout:
		return parseMiniBlocks(l.MiniBlockLayout, rows)
	case *lancepb.PageLayout_FullZipLayout:
		return parseFullZip(l.FullZipLayout)
	case *lancepb.PageLayout_ConstantLayout:
		return parseConstant(l.ConstantLayout, buffers, f)
	case nil:
		return nil, errors.New("a page without a layout")
	default:
		return nil, fmt.Errorf("layout %T: %w", l, ErrUnsupported)
	}
}

// miniBlocks is a page of small values in chunks of at most some thousand:
//
//	buffer 0     u16 or u32 for each chunk: (bytes/8 - 1) << 4 | log2 of its values; 0 values: the rest
//	buffer 1     the chunks
//	[buffer 2]   the distinct values, if the chunks have their numbers
//	[last]       repetition index: for each chunk, u64 x (depth+1): rows that end in it, items behind the last of them
//
// A chunk, every part of which begins at a multiple of 8:
//
//	u16 levels | [u16 bytes of repetition levels] | [u16 bytes of definition levels] | u16 or u32 bytes of each value buffer
//	[repetition levels] [definition levels] value buffers
type miniBlocks struct {
	of         *layering
	rep, def   blockDecoder // nil without such levels
	values     blockDecoder
	dictionary blockDecoder // nil without one
	distinct   int
	items      int64
	depth      int
	large      bool

	// index and numbered are made at first use; two may do so at once.
	index    atomic.Pointer[chunkIndex]
	numbered atomic.Pointer[block]
}

// chunkIndex says where the chunks of a page are.
type chunkIndex struct {
	offsets []int64 // of each chunk in buffer 1, and the end
	items   []int64 // before each chunk, and the end
	// rows are those that begin before each chunk, and the end. In a page without lists they are the items.
	rows []int64
}

func parseMiniBlocks(l *lancepb.MiniBlockLayout, rows int64) (layout, error) {
	of, err := newLayering(l.GetLayers())
	if err != nil {
		return nil, err
	}
	m := &miniBlocks{of: of, items: int64(l.GetNumItems()), depth: int(l.GetRepetitionIndexDepth()), large: l.GetHasLargeChunk()}
	if m.values, err = parseBlock(l.GetValueCompression()); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	if l.GetRepCompression() != nil {
		if m.rep, err = parseBlock(l.GetRepCompression()); err != nil {
			return nil, fmt.Errorf("repetition levels: %w", err)
		}
	}
	if l.GetDefCompression() != nil {
		if m.def, err = parseBlock(l.GetDefCompression()); err != nil {
			return nil, fmt.Errorf("definition levels: %w", err)
		}
	}
	if l.GetDictionary() != nil {
		if m.dictionary, err = parseBlock(l.GetDictionary()); err != nil {
			return nil, fmt.Errorf("dictionary: %w", err)
		}
		if l.GetNumDictionaryItems() > math.MaxInt32 {
			return nil, fmt.Errorf("a dictionary of %d items", l.GetNumDictionaryItems())
		}
		m.distinct = int(l.GetNumDictionaryItems())
	}
	switch {
	case m.items < 0 || of.lists == 0 && m.items != rows:
		return nil, fmt.Errorf("%d items for %d rows", m.items, rows)
	case l.GetNumBuffers() != uint64(m.values.buffers()):
		return nil, fmt.Errorf("%d buffers a chunk for %s", l.GetNumBuffers(), m.values.describe())
	case (of.lists > 0) != (m.rep != nil) || m.rep != nil && (m.depth < 1 || m.depth > maxDepth):
		return nil, fmt.Errorf("%d layers of lists, repetition index of depth %d", of.lists, m.depth)
	}
	return m, nil
}

func (m *miniBlocks) layering() *layering { return m.of }

func (m *miniBlocks) describe() string {
	s := "mini-blocks, " + m.values.describe()
	if m.dictionary != nil {
		s += fmt.Sprintf(", dictionary of %d (%s)", m.distinct, m.dictionary.describe())
	}
	return s
}

func (m *miniBlocks) check(rows int64, bufs []extent) error {
	want := 2
	if m.dictionary != nil {
		want++
	}
	if m.rep != nil {
		want++
	}
	if len(bufs) < want {
		return fmt.Errorf("%d buffers, want %d", len(bufs), want)
	}
	if chunks := bufs[0].size / m.wordBytes(); rows > 0 && m.items > chunks*maxValues {
		return fmt.Errorf("%d items in %d chunks", m.items, chunks)
	}
	return nil
}

func (m *miniBlocks) wordBytes() int64 {
	if m.large {
		return 4
	}
	return 2
}

// chunks returns the index of a page's chunks.
func (m *miniBlocks) chunks(v *pageView) (*chunkIndex, error) {
	if x := m.index.Load(); x != nil {
		return x, nil
	}
	words, err := v.whole(0)
	if err != nil {
		return nil, err
	}
	n := len(words) / int(m.wordBytes())
	x := &chunkIndex{offsets: make([]int64, n+1), items: make([]int64, n+1)}
	size := v.page.bufs[1].size
	for i := range n {
		w := uint32(0)
		if m.large {
			w = le.Uint32(words[4*i:])
		} else {
			w = uint32(le.Uint16(words[2*i:]))
		}
		count := int64(1) << (w & 15)
		if i == n-1 {
			count = m.items - x.items[i]
		}
		x.offsets[i+1], x.items[i+1] = x.offsets[i]+(int64(w>>4)+1)*8, x.items[i]+count
		if x.offsets[i+1] > size || x.items[i+1] > m.items || count < 0 || count > maxValues {
			return nil, fmt.Errorf("chunk %d: %d items up to byte %d, the page has %d items and %d bytes", i, x.items[i+1], x.offsets[i+1], m.items, size)
		}
	}
	if x.items[n] != m.items {
		return nil, fmt.Errorf("chunks of %d items, the page has %d", x.items[n], m.items)
	}
	if x.rows = x.items; m.rep != nil {
		if x.rows, err = m.rowsOfChunks(v, n); err != nil {
			return nil, err
		}
	}
	m.index.CompareAndSwap(nil, x)
	return m.index.Load(), nil
}

// rowsOfChunks reads the repetition index.
func (m *miniBlocks) rowsOfChunks(v *pageView, n int) ([]int64, error) {
	b, err := v.whole(len(v.bufs) - 1)
	if err != nil {
		return nil, err
	}
	stride := 8 * (m.depth + 1)
	if len(b)/stride < n {
		return nil, fmt.Errorf("a repetition index of %d bytes for %d chunks", len(b), n)
	}
	rows := make([]int64, n+1)
	begun := int64(0) // 1 when a row has begun and not ended
	for i := range n {
		ends, partial := int64(le.Uint64(b[i*stride:])), le.Uint64(b[i*stride+8:])
		trailer := int64(0)
		if partial > 0 {
			trailer = 1
		}
		rows[i+1] = rows[i] + ends + trailer - begun
		if rows[i+1] < rows[i] || rows[i+1] > v.page.rows {
			return nil, fmt.Errorf("repetition index: %d rows up to chunk %d, the page has %d", rows[i+1], i, v.page.rows)
		}
		begun = trailer
	}
	if rows[n] != v.page.rows {
		return nil, fmt.Errorf("repetition index: %d rows, the page has %d", rows[n], v.page.rows)
	}
	return rows, nil
}

// chunkRows is a decoded chunk.
type chunkRows struct {
	number   int // -1 when nothing is decoded
	rep, def []uint16
	values   block

	bufs  [4][]byte // of the chunk
	sizes [4]int
	// reps and defs are the room for levels.
	reps, defs []uint16
}

// read implements layout.
func (m *miniBlocks) read(v *pageView, rows []rowRange, out *leafRows) error {
	x, err := m.chunks(v)
	if err != nil {
		return err
	}
	items, err := m.distinctValues(v)
	if err != nil {
		return err
	}
	w := &window{v: v, buffer: 1, plan: m.plan(x, rows)}
	defer w.release()
	at, s := &chunkRows{number: -1}, &scratch{}
	for _, r := range rows {
		if m.rep != nil {
			err = m.readLists(w, x, r, items, at, s, out)
		} else {
			err = m.readFlat(w, x, r, items, at, s, out)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plan returns where the chunks of rows lie.
func (m *miniBlocks) plan(x *chunkIndex, rows []rowRange) []piece {
	plan := make([]piece, len(rows))
	for i, r := range rows {
		plan[i] = piece{x.offsets[chunkOf(x.rows, r.from)], x.offsets[min(chunkOf(x.rows, r.to-1)+1, len(x.rows)-1)]}
	}
	return plan
}

// distinctValues returns the dictionary, nil when there is none.
func (m *miniBlocks) distinctValues(v *pageView) (*block, error) {
	if m.dictionary == nil {
		return nil, nil
	}
	if b := m.numbered.Load(); b != nil {
		return b, nil
	}
	stored, err := v.whole(2)
	if err != nil {
		return nil, err
	}
	b, err := whole(m.dictionary, stored, m.distinct, &scratch{})
	if err != nil {
		return nil, fmt.Errorf("dictionary: %w", err)
	}
	b.data = slices.Clone(b.data) // it outlives the view that it was read through
	m.numbered.CompareAndSwap(nil, &b)
	return m.numbered.Load(), nil
}

// put appends values of a chunk.
func put(out *leafRows, values, items *block, from, to int) error {
	if items != nil {
		return out.values.addNumbered(values, items, from, to)
	}
	return out.values.add(values, from, to)
}

// readFlat reads rows of a page without lists, in which each row is a value.
func (m *miniBlocks) readFlat(w *window, x *chunkIndex, r rowRange, items *block, at *chunkRows, s *scratch, out *leafRows) error {
	for k := chunkOf(x.items, r.from); r.from < r.to; k++ {
		if err := m.load(w, x, k, at, s); err != nil {
			return err
		}
		from, to := int(r.from-x.items[k]), int(min(r.to, x.items[k+1])-x.items[k])
		if at.def != nil {
			out.levels.def = append(out.levels.def, at.def[from:to]...)
		}
		if err := put(out, &at.values, items, from, to); err != nil {
			return fmt.Errorf("chunk %d: %w", k, err)
		}
		r.from = x.items[k+1]
	}
	return nil
}

// chunkOf returns the chunk with a place among what firsts counts, empty chunks aside.
func chunkOf(firsts []int64, place int64) int {
	return sort.Search(len(firsts)-1, func(i int) bool { return firsts[i+1] > place })
}

// readLists reads rows of a page with lists: those begin where a repetition level is that of the outermost list, and
// may go on over several chunks.
func (m *miniBlocks) readLists(w *window, x *chunkIndex, r rowRange, items *block, at *chunkRows, s *scratch, out *leafRows) error {
	k := chunkOf(x.rows, r.from)
	skip, want := r.from-x.rows[k], r.to-r.from // rows to begin before, and to begin
	inside := false
	for ; k < len(x.items)-1; k++ {
		if err := m.load(w, x, k, at, s); err != nil {
			return err
		}
		first, last, value, end := -1, len(at.rep), 0, 0
		from := 0
		for i, rep := range at.rep {
			if rep == m.of.lists {
				switch {
				case skip > 0:
					skip--
				case want > 0:
					want--
					inside = true
				default:
					last = i
				}
			}
			if last == i {
				break
			}
			if inside && first < 0 {
				first, from = i, value
			}
			if at.def == nil || m.of.visible(at.def[i]) {
				value++
			}
		}
		if end = value; first >= 0 {
			out.levels.rep = append(out.levels.rep, at.rep[first:last]...)
			if at.def != nil {
				out.levels.def = append(out.levels.def, at.def[first:last]...)
			}
			if end > at.values.n {
				return fmt.Errorf("chunk %d: levels of %d values, it has %d", k, end, at.values.n)
			}
			if err := put(out, &at.values, items, from, end); err != nil {
				return fmt.Errorf("chunk %d: %w", k, err)
			}
		}
		if last < len(at.rep) {
			return nil
		}
	}
	if want > 0 {
		return fmt.Errorf("%d rows are missing behind the last chunk", want)
	}
	return nil
}

// load decodes a chunk, if at does not have it.
func (m *miniBlocks) load(w *window, x *chunkIndex, k int, at *chunkRows, s *scratch) error {
	if at.number == k {
		return nil
	}
	at.number = -1
	b, err := w.bytes(x.offsets[k], x.offsets[k+1])
	if err != nil {
		return err
	}
	if err := m.decode(b, int(x.items[k+1]-x.items[k]), at, s); err != nil {
		return fmt.Errorf("chunk %d: %w", k, err)
	}
	at.number = k
	return nil
}

// errShort is for chunks that are too small for what they say of themselves.
var errShort = errors.New("the chunk is too short")

// decode decodes a chunk of n values.
func (m *miniBlocks) decode(b []byte, n int, at *chunkRows, s *scratch) error {
	if len(b) < 8 {
		return errShort
	}
	count, head := int(le.Uint16(b)), 2
	sizes := at.sizes[:0]
	for _, d := range []blockDecoder{m.rep, m.def} {
		if d != nil {
			sizes, head = append(sizes, int(le.Uint16(b[head:]))), head+2
		}
	}
	for range m.values.buffers() {
		switch {
		case head+4 > len(b):
			return errShort
		case m.large:
			sizes, head = append(sizes, int(le.Uint32(b[head:]))), head+4
		default:
			sizes, head = append(sizes, int(le.Uint16(b[head:]))), head+2
		}
	}
	bufs := at.bufs[:len(sizes)]
	for i, size := range sizes {
		head = (head + 7) &^ 7
		if head > len(b) || size > len(b)-head {
			return errShort
		}
		bufs[i], head = b[head:head+size], head+size
	}
	at.rep, at.def = nil, nil
	var err error
	if m.rep != nil {
		if at.reps, err = levelsBlock(at.reps[:0], m.rep, bufs[0], count, s); err != nil {
			return fmt.Errorf("repetition levels: %w", err)
		}
		at.rep = at.reps
		bufs = bufs[1:]
	}
	if m.def != nil {
		if at.defs, err = levelsBlock(at.defs[:0], m.def, bufs[0], count, s); err != nil {
			return fmt.Errorf("definition levels: %w", err)
		}
		at.def = at.defs
		bufs = bufs[1:]
	}
	if err := m.of.check(at.rep, at.def); err != nil {
		return err
	}
	if m.rep == nil && m.def != nil && count != n {
		return fmt.Errorf("%d levels of %d values", count, n)
	}
	at.values, err = m.values.decode(bufs, n, s)
	return err
}
