package lance

import (
	"errors"
	"fmt"

	"github.com/flightd/flightd/internal/lancepb"
)

// constant is a page in which all values that are visible are the same one, or null:
//
//	[value] [repetition levels, definition levels]
//
// A value of up to 32 bytes is in the description. Either both buffers of levels are there, one of them empty perhaps, or
// none.
type constant struct {
	of       *layering
	nulls    bool // all values are null
	value    []byte
	outside  bool         // the value is in buffer 0
	levels   bool         // there are buffers of levels
	rep, def blockDecoder // nil when they are 16-bit numbers as they are
	reps     int          // levels, where they are compressed
	defs     int
	strings  bool
}

func parseConstant(l *lancepb.ConstantLayout, buffers int, f *Field) (layout, error) {
	of, err := newLayering(l.GetLayers())
	if err != nil {
		return nil, err
	}
	c := &constant{of: of, value: l.GetInlineValue(), strings: bitWidth(f.Type) == 0}
	if l.GetRepCompression() != nil {
		if c.rep, err = parseBlock(l.GetRepCompression()); err != nil {
			return nil, fmt.Errorf("repetition levels: %w", err)
		}
	}
	if l.GetDefCompression() != nil {
		if c.def, err = parseBlock(l.GetDefCompression()); err != nil {
			return nil, fmt.Errorf("definition levels: %w", err)
		}
	}
	const most = 1 << 31
	if l.GetNumRepValues() > most || l.GetNumDefValues() > most {
		return nil, fmt.Errorf("%d repetition and %d definition levels", l.GetNumRepValues(), l.GetNumDefValues())
	}
	c.reps, c.defs = int(l.GetNumRepValues()), int(l.GetNumDefValues())
	inline := l.InlineValue != nil
	switch buffers {
	case 0:
		c.nulls = !inline
	case 1:
		c.outside = true
	case 2:
		c.nulls, c.levels = !inline, true
	case 3:
		c.outside, c.levels = true, true
	default:
		return nil, fmt.Errorf("%d buffers", buffers)
	}
	if inline && c.outside || of.lists > 0 && !c.levels {
		return nil, fmt.Errorf("%d buffers, %d layers of lists", buffers, of.lists)
	}
	return c, nil
}

func (c *constant) layering() *layering { return c.of }

func (c *constant) describe() string {
	if c.nulls {
		return "all null"
	}
	return "one value"
}

func (*constant) check(int64, []extent) error { return nil }

// read implements layout.
func (c *constant) read(v *pageView, rows []rowRange, out *leafRows) error {
	value, rep, def, err := c.parts(v)
	if err != nil {
		return err
	}
	for _, r := range rows {
		from, to := int(r.from), int(r.to)
		if rep != nil {
			if from, to, err = c.levelsOf(rep, r); err != nil {
				return err
			}
			out.levels.rep = append(out.levels.rep, rep[from:to]...)
		}
		n := to - from
		if def != nil {
			if to > len(def) {
				return fmt.Errorf("%d definition levels, want %d", len(def), to)
			}
			out.levels.def = append(out.levels.def, def[from:to]...)
			n = 0
			for _, d := range def[from:to] {
				if c.of.visible(d) {
					n++
				}
			}
		}
		if c.nulls {
			if def == nil { // there is one layer, and no need to say that it is null
				for range n {
					out.levels.def = append(out.levels.def, 1)
				}
			}
			err = out.values.addNulls(n)
		} else {
			err = out.values.addConstant(value, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// levelsOf returns where the levels of rows lie.
func (c *constant) levelsOf(rep []uint16, r rowRange) (from, to int, err error) {
	row, from := int64(-1), -1
	for i, level := range rep {
		if level != c.of.lists {
			continue
		}
		if row++; row == r.from {
			from = i
		}
		if row == r.to {
			return from, i, nil
		}
	}
	if from < 0 || row+1 != r.to {
		return 0, 0, fmt.Errorf("levels of %d rows, want %d", row+1, r.to)
	}
	return from, len(rep), nil
}

// parts reads the buffers of a page.
func (c *constant) parts(v *pageView) (value []byte, rep, def []uint16, err error) {
	bufs, s := v.bufs, &scratch{}
	if value = c.value; c.outside {
		if value, err = scalarValue(bufs[0].Bytes(), c.strings); err != nil {
			return nil, nil, nil, err
		}
		bufs = bufs[1:]
	}
	if !c.levels {
		return value, nil, nil, nil
	}
	if rep, err = rawLevels(c.rep, bufs[0].Bytes(), c.reps, s); err != nil {
		return nil, nil, nil, fmt.Errorf("repetition levels: %w", err)
	}
	if def, err = rawLevels(c.def, bufs[1].Bytes(), c.defs, s); err != nil {
		return nil, nil, nil, fmt.Errorf("definition levels: %w", err)
	}
	return value, rep, def, c.of.check(rep, def)
}

// rawLevels reads levels that are 16-bit numbers as they are, or compressed. No bytes are no levels.
func rawLevels(d blockDecoder, b []byte, n int, s *scratch) ([]uint16, error) {
	switch {
	case len(b) == 0:
		return nil, nil
	case d != nil:
		return levelsBlock(nil, d, b, n, s)
	}
	return levelsBlock(nil, flatDecoder{itemBits: 16, items: 1}, b, len(b)/2, s)
}

// scalarValue reads a value that stands in a buffer of its own:
//
//	u32 buffers | u32 bytes of each | buffers
//
// The buffers are Arrow's of an array of one value, without its validity.
func scalarValue(b []byte, strings bool) ([]byte, error) {
	if len(b) < 4 {
		return nil, errors.New("the value is cut off")
	}
	n := int(le.Uint32(b))
	if n < 1 || n > 2 || len(b) < 4+4*n {
		return nil, fmt.Errorf("a value of %d buffers in %d bytes", n, len(b))
	}
	at := 4 + 4*n
	for i := range n {
		size := int(le.Uint32(b[4+4*i:]))
		if size > len(b)-at {
			return nil, fmt.Errorf("buffer %d of the value has %d bytes, %d are left", i, size, len(b)-at)
		}
		if i == n-1 && (n == 2) == strings {
			return b[at : at+size], nil
		}
		at += size
	}
	return nil, fmt.Errorf("a value of %d buffers", n)
}
