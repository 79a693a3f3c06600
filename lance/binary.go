package lance

import (
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// maxEnd bounds end offsets. Below it sums and differences of two of them cannot overflow, which lets the loops over
// untrusted offsets do with one test at the end.
const maxEnd = 1 << 62

// binaryCodec is a page of strings: the end offset of each row, raised by adjustment if the row is null, and the bytes.
type binaryCodec struct {
	indices, data uint32
	adjustment    uint64 // at most maxEnd
	large         bool   // Arrow's offsets have 64 bits
	zstd          bool   // the bytes are compressed as a whole
}

// compressed implements compressedCodec.
func (c binaryCodec) compressed() (uint32, bool) { return c.data, c.zstd }

func (c binaryCodec) check(rows int64, bufs []extent) error {
	if err := checkBuffer(bufs, c.indices, rows, 64, "offsets"); err != nil {
		return err
	}
	return checkBuffer(bufs, c.data, 0, 8, "bytes")
}

// ends returns the stored offsets.
func (c binaryCodec) ends(v *pageView) []uint64 { return arrow.GetData[uint64](v.bytes(c.indices)) }

// endOf returns the end of a row without the mark of a null. It wraps nothing into range: callers check.
func (c binaryCodec) endOf(ends []uint64, row int) uint64 {
	if row < 0 {
		return 0
	}
	if e := ends[row]; e < c.adjustment {
		return e
	}
	return ends[row] - c.adjustment
}

func (c binaryCodec) slice(v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	if c.large {
		return sliceBinary[int64](c, v, dt, from, to, alloc)
	}
	// The bytes of a page can exceed what 32-bit offsets can say, if another writer made it of many large strings.
	ends := c.ends(v)
	start := c.endOf(ends, from-1)
	fit := sort.Search(to-from, func(i int) bool { return c.endOf(ends, from+i)-start > math.MaxInt32 })
	if fit == 0 {
		return nil, fmt.Errorf("row %d of the page has %d bytes, too many for %s", from, c.endOf(ends, from)-start, dt)
	}
	return sliceBinary[int32](c, v, dt, from, from+fit, alloc)
}

func sliceBinary[O int32 | int64](c binaryCodec, v *pageView, dt arrow.DataType, from, to int, alloc memory.Allocator) (arrow.ArrayData, error) {
	all := c.ends(v)
	start := c.endOf(all, from-1)
	o := arrowOffsets[O](all[from:to], start, c.adjustment, alloc)
	defer o.release()
	if size := uint64(v.bufs[c.data].Len()); !o.sound || o.end > size {
		return nil, fmt.Errorf("the offsets of rows %d to %d fall, or point beyond the %d bytes of the page", from, to, size)
	}
	data := memory.SliceBuffer(v.bufs[c.data], int(start), int(o.end-start))
	defer data.Release()
	return array.NewData(dt, to-from, []*memory.Buffer{o.validity, o.offsets, data}, nil, o.nulls, 0), nil
}

// rowOffsets are the offsets of rows as Arrow has them.
type rowOffsets struct {
	offsets, validity *memory.Buffer // validity is nil without nulls
	nulls             int
	end               uint64
	sound             bool // the offsets never fall
}

func (o *rowOffsets) release() {
	o.offsets.Release()
	releaseBuffer(o.validity)
}

// arrowOffsets makes Arrow's offsets of ends. The caller compares the last end with what there is.
func arrowOffsets[O int32 | int64](ends []uint64, start, adjustment uint64, alloc memory.Allocator) rowOffsets {
	n := len(ends)
	var zero O
	o := rowOffsets{offsets: sizedBuffer(alloc, (n+1)*int(arrowSize(zero)))}
	out := arrow.GetData[O](o.offsets.Bytes())
	plain := false
	if o.end, o.sound, plain = offsetsOf(out, ends, start, adjustment); !plain {
		o.validity = sizedBuffer(alloc, (n+63)/64*8)
		o.end, o.sound, o.nulls = offsetsAndNulls(out, arrow.GetData[uint64](o.validity.Bytes()), ends, start, adjustment)
		o.validity.ResizeNoShrink(bitBytes(n))
	}
	return o
}

// arrowSize is the size of an offset in bytes.
func arrowSize[O int32 | int64](O) uintptr {
	var o O
	if _, ok := any(o).(int32); ok {
		return 4
	}
	return 8
}

// offsetsOf turns ends into Arrow's offsets, relative to start. It gives up at the first null: plain is false then.
// The offsets are sound if they never fall; the caller compares the last end with the size of the bytes.
func offsetsOf[O int32 | int64](out []O, ends []uint64, start, adjustment uint64) (end uint64, sound, plain bool) {
	out = out[:len(ends)+1] // The first is zero.
	last, falls := start, uint64(0)
	for i, e := range ends {
		if e >= adjustment {
			return 0, false, false
		}
		out[i+1] = O(e - start)
		falls |= e - last
		last = e
	}
	return last, start < maxEnd && falls < 1<<63, true
}

// offsetsAndNulls is offsetsOf for rows some of which are null; it fills a validity bitmap by words of 64 rows. There is
// no branch in its inner loop, so that the pattern of the nulls does not matter.
func offsetsAndNulls[O int32 | int64](out []O, validity, ends []uint64, start, adjustment uint64) (end uint64, sound bool, nulls int) {
	out = out[:len(ends)+1] // The first is zero.
	last, falls := start, start|start<<1
	for w := range validity {
		part := ends[w*64 : min(w*64+64, len(ends))]
		target := out[w*64+1:][:len(part)]
		word := uint64(0)
		for i, e := range part {
			// The borrow of e - adjustment is 1 for a valid row.
			less, valid := bits.Sub64(e, adjustment, 0)
			e = less + adjustment&-valid
			word |= valid << i
			target[i] = O(e - start)
			falls |= e - last | e | e<<1
			last = e
		}
		validity[w] = word
		nulls += len(part) - bits.OnesCount64(word)
	}
	return last, falls < 1<<63, nulls
}

func (c binaryCodec) describe() string { return "strings" }

// span is the place of a string in the bytes of a page.
type span struct{ from, to uint64 }

// of returns the string, which is not nil.
func (s span) of(data []byte) []byte {
	if s.from == s.to {
		return []byte{}
	}
	return data[s.from:s.to]
}

// row returns where row i lies and whether it is valid.
func (c binaryCodec) row(v *pageView, i int) (s span, valid bool, err error) {
	ends := c.ends(v)
	s = span{c.endOf(ends, i-1), c.endOf(ends, i)}
	if size := uint64(v.bufs[c.data].Len()); s.from > s.to || s.to > size {
		return s, false, fmt.Errorf("row %d of the page lies at %d to %d of %d bytes", i, s.from, s.to, size)
	}
	return s, ends[i] < c.adjustment, nil
}
