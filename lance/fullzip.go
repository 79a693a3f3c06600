package lance

import (
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/lancepb"
)

// fullZip is a page of large values, one behind the other, each with its levels in front of it:
//
//	buffer 0    for each item: control word of 0, 1, 2 or 4 bytes | [u32 or u64 length] | value
//	[buffer 1]  repetition index: where each row begins in buffer 0, and the end; numbers of 1, 2, 4 or 8 bytes
//
// The control word is the repetition level above the definition level. What is not visible has a control word only, nor
// has a null of varying length more. Values of one width without levels are Arrow's own array.
type fullZip struct {
	of               *layering
	repBits, defBits int
	flat             flatDecoder // of values of one width
	// lengthBytes is the size of the length in front of values that vary, 0 when they do not.
	lengthBytes int
	varying     blockDecoder
}

func parseFullZip(l *lancepb.FullZipLayout) (layout, error) {
	of, err := newLayering(l.GetLayers())
	if err != nil {
		return nil, err
	}
	z := &fullZip{of: of, repBits: int(l.GetBitsRep()), defBits: int(l.GetBitsDef())}
	if z.repBits > 16 || z.defBits > 16 {
		return nil, fmt.Errorf("levels of %d and %d bits", z.repBits, z.defBits)
	}
	d, err := parseBlock(l.GetValueCompression())
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	switch details := l.GetDetails().(type) {
	case *lancepb.FullZipLayout_BitsPerValue:
		flat, ok := d.(flatDecoder)
		if !ok || flat.itemBits%8 != 0 {
			return nil, fmt.Errorf("large values as %s: %w", d.describe(), ErrUnsupported)
		}
		z.flat = flat
	case *lancepb.FullZipLayout_BitsPerOffset:
		if z.varying, z.lengthBytes = d, int(details.BitsPerOffset/8); z.lengthBytes != 4 && z.lengthBytes != 8 {
			return nil, fmt.Errorf("lengths of %d bits", details.BitsPerOffset)
		}
		if _, ok := d.(fsstDecoder); !ok && !varying(d) {
			return nil, fmt.Errorf("large values as %s: %w", d.describe(), ErrUnsupported)
		}
	default:
		return nil, errors.New("a full-zip layout without the width of its values")
	}
	if (of.lists > 0) != (z.repBits > 0) {
		return nil, fmt.Errorf("%d layers of lists, repetition levels of %d bits", of.lists, z.repBits)
	}
	return z, nil
}

func (z *fullZip) layering() *layering { return z.of }

func (z *fullZip) describe() string {
	if z.varying != nil {
		return "zipped, " + z.varying.describe()
	}
	return "zipped, " + z.flat.describe()
}

// controlBytes is the size of a control word.
func (z *fullZip) controlBytes() int {
	switch bits := z.repBits + z.defBits; {
	case bits == 0:
		return 0
	case bits <= 8:
		return 1
	case bits <= 16:
		return 2
	}
	return 4
}

// valueBytes is the size of a value of one width, with the validity of its items in front of it.
func (z *fullZip) valueBytes() int {
	n := z.flat.bits() / 8
	if z.flat.nulls {
		n += bitBytes(z.flat.items)
	}
	return n
}

// indexed reports whether rows have different sizes, so that a page needs its index.
func (z *fullZip) indexed() bool { return z.varying != nil || z.repBits > 0 }

func (z *fullZip) check(rows int64, bufs []extent) error {
	switch {
	case rows == 0:
		return nil
	case !z.indexed():
		return checkBuffer(bufs, 0, rows, int64(z.controlBytes()+z.valueBytes())*8, "values")
	case len(bufs) < 2:
		return fmt.Errorf("%d buffers, want values and where they are", len(bufs))
	}
	switch entry := bufs[1].size / (rows + 1); entry {
	case 1, 2, 4, 8:
		return nil
	default:
		return fmt.Errorf("a repetition index of %d bytes for %d rows", bufs[1].size, rows)
	}
}

// extent returns where rows lie in buffer 0.
func (z *fullZip) extent(index *window, r rowRange) (from, to int64, err error) {
	if !z.indexed() {
		width := int64(z.controlBytes() + z.valueBytes())
		return r.from * width, r.to * width, nil
	}
	v := index.v
	size := v.page.bufs[1].size / (v.page.rows + 1)
	entry := func(row int64) int64 {
		var b []byte
		if err == nil {
			b, err = index.bytes(row*size, (row+1)*size)
		}
		var word [8]byte
		copy(word[:], b)
		return int64(le.Uint64(word[:]))
	}
	from, to = entry(r.from), entry(r.to)
	if err != nil {
		return 0, 0, err
	}
	if from < 0 || from > to || to > v.page.bufs[0].size {
		return 0, 0, fmt.Errorf("rows %d to %d lie at bytes %d to %d of %d", r.from, r.to, from, to, v.page.bufs[0].size)
	}
	return from, to, nil
}

// read implements layout.
func (z *fullZip) read(v *pageView, rows []rowRange, out *leafRows) error {
	if len(rows) == 1 && z.controlBytes() == 0 && z.varying == nil && !z.flat.nulls && out.values.dt.ID() != arrow.BOOL {
		r, width := rows[0], int64(z.valueBytes())
		if out.values.bits != z.flat.bits() {
			return fmt.Errorf("values of %d bits in a column of %s", z.flat.bits(), out.values.dt)
		}
		shared, err := v.shared(0, r.from*width, r.to*width)
		if err != nil {
			return err
		}
		out.values.share(shared, int(r.to-r.from))
		return nil
	}
	plan, err := z.plan(v, rows)
	if err != nil {
		return err
	}
	w, s := &window{v: v, plan: plan}, &scratch{}
	defer w.release()
	for _, p := range plan {
		b, err := w.bytes(p.from, p.to)
		if err == nil {
			err = z.readRun(b, out, s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plan returns where rows lie in buffer 0.
func (z *fullZip) plan(v *pageView, rows []rowRange) ([]piece, error) {
	index := &window{v: v, buffer: 1}
	defer index.release()
	if z.indexed() {
		size := v.page.bufs[1].size / (v.page.rows + 1)
		for _, r := range rows {
			index.plan = append(index.plan, piece{r.from * size, (r.from + 1) * size}, piece{r.to * size, (r.to + 1) * size})
		}
	}
	plan := make([]piece, len(rows))
	for i, r := range rows {
		var err error
		if plan[i].from, plan[i].to, err = z.extent(index, r); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// readRun reads items that lie one behind the other.
func (z *fullZip) readRun(b []byte, out *leafRows, s *scratch) error {
	control, width := z.controlBytes(), z.valueBytes()
	defMask, repMask := uint32(1)<<z.defBits-1, uint32(1)<<z.repBits-1
	for len(b) > 0 {
		if len(b) < control {
			return errors.New("a control word is cut off")
		}
		word := uint32(0)
		switch control {
		case 1:
			word = uint32(b[0])
		case 2:
			word = uint32(le.Uint16(b))
		case 4:
			word = le.Uint32(b)
		}
		b = b[control:]
		def := uint16(word & defMask)
		if int(def) >= z.of.definitions() {
			return fmt.Errorf("definition level %d of %d", def, z.of.definitions())
		}
		if z.defBits > 0 {
			out.levels.def = append(out.levels.def, def)
		}
		if z.repBits > 0 {
			rep := uint16(word >> z.defBits & repMask)
			if rep > z.of.lists {
				return fmt.Errorf("repetition level %d of %d", rep, z.of.lists)
			}
			out.levels.rep = append(out.levels.rep, rep)
		}
		if !z.of.visible(def) {
			continue
		}
		var err error
		switch {
		case z.varying != nil && def > 0:
			err = out.values.addNulls(1)
		case z.varying != nil:
			b, err = z.readVarying(b, out, s)
		case len(b) < width:
			err = errors.New("a value is cut off")
		default:
			err = z.readFlat(b[:width], out)
			b = b[width:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readFlat reads a value of one width. Booleans fill a byte.
func (z *fullZip) readFlat(b []byte, out *leafRows) error {
	if out.values.dt.ID() == arrow.BOOL && z.flat == (flatDecoder{itemBits: 8, items: 1}) {
		return out.values.add(&block{n: 1, bits: 1, data: b}, 0, 1)
	}
	v := block{n: 1, bits: z.flat.bits(), nothing: z.flat.nothing}
	if z.flat.nulls {
		n := bitBytes(z.flat.items)
		v.items, b = b[:n], b[n:]
	}
	v.data = b
	return out.values.add(&v, 0, 1)
}

// readVarying reads a value with its length in front of it, and returns what is behind.
func (z *fullZip) readVarying(b []byte, out *leafRows, s *scratch) ([]byte, error) {
	if len(b) < z.lengthBytes {
		return nil, errors.New("a length is cut off")
	}
	n := uint64(le.Uint32(b))
	if z.lengthBytes == 8 {
		n = le.Uint64(b)
	}
	b = b[z.lengthBytes:]
	if n > uint64(len(b)) {
		return nil, fmt.Errorf("a value of %d bytes, %d are left", n, len(b))
	}
	v, err := oneValue(z.varying, b[:n], s)
	if err == nil {
		err = out.values.add(&v, 0, 1)
	}
	return b[n:], err
}

// oneValue decodes a value that was compressed on its own.
func oneValue(d blockDecoder, b []byte, s *scratch) (block, error) {
	switch d := d.(type) {
	case fsstDecoder:
		v, err := oneValue(d.inner, b, s)
		v.fsst = d.table
		return v, err
	case generalDecoder:
		plain, err := d.decompress(s.bytes[:0], b)
		if err != nil {
			return block{}, err
		}
		s.bytes = plain
		return oneValue(d.inner, plain, s)
	}
	s.ends = append(s.ends[:0], 0, uint64(len(b)))
	return block{n: 1, data: b, ends: s.ends}, nil
}
