package lance

import (
	"fmt"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
)

// packed is how many values are packed together.
const packed = 1024

// word is a type whose values can be packed.
type word interface {
	uint8 | uint16 | uint32 | uint64
}

// laneOrder is the order in which FastLanes puts groups of eight rows into a block (Afroozeh, Boncz: The FastLanes
// Compression Layout, VLDB 2023).
var laneOrder = [8]int{0, 4, 2, 6, 1, 5, 3, 7}

// unpack writes 1,024 values of so many bits each, as FastLanes packs them: the words of a lane lie 1024/T words apart,
// with T the bits of a word, and value k of lane l is the one at laneOrder[k/8]*16 + k%8*128 + l. in has exactly the
// words of the block, out 1,024 places.
func unpack[T word](bits int, in, out []T) {
	size := int(unsafe.Sizeof(out[0])) * 8
	lanes := packed / size
	if bits == 0 {
		clear(out[:packed])
		return
	}
	mask := ^T(0) >> (size - bits)
	for row := range size {
		first, shift := row*bits/size, row*bits%size
		at := laneOrder[row/8]*16 + row%8*128
		to, low := out[at:at+lanes], in[first*lanes:][:lanes]
		if shift+bits <= size {
			for l, w := range low {
				to[l] = w >> shift & mask
			}
			continue
		}
		high := in[(first+1)*lanes:][:lanes]
		for l, w := range low {
			to[l] = (w>>shift | high[l]<<(size-shift)) & mask
		}
	}
}

// pack is the reverse of unpack. REQUIRES: no value has more bits.
func pack[T word](bits int, in, out []T) {
	size := int(unsafe.Sizeof(out[0])) * 8
	lanes := packed / size
	if bits == 0 {
		return
	}
	for row := range size {
		first, shift := row*bits/size, row*bits%size
		at := laneOrder[row/8]*16 + row%8*128
		from, low := in[at:at+lanes], out[first*lanes:][:lanes]
		if shift == 0 { // the first values of these words
			copy(low, from)
		} else {
			for l, v := range from {
				low[l] |= v << shift
			}
		}
		if shift+bits > size {
			high := out[(first+1)*lanes:][:lanes]
			for l, v := range from {
				high[l] = v >> (size - shift)
			}
		}
	}
}

// appendPacked appends the values as blocks of so many bits. What is behind the last whole block is packed as well or
// appended as it is, whatever is shorter; unpackPlain tells by the length.
func appendPacked[T word](b []byte, bits int, values []T) []byte {
	for len(values) > 0 {
		size := int(unsafe.Sizeof(values[0]))
		if len(values) < packed && len(values)*size <= bits*packed/8 {
			return append(b, arrow.GetBytes(values)...)
		}
		b = appendBlock(b, bits, values[:min(packed, len(values))])
		values = values[min(packed, len(values)):]
	}
	return b
}

// appendBlock appends a block of at most 1,024 values.
func appendBlock[T word](b []byte, bits int, values []T) []byte {
	var in, out [packed]T
	whole := values
	if len(values) < packed {
		copy(in[:], values)
		whole = in[:]
	}
	size := bits * packed / 8
	pack(bits, whole, out[:])
	return append(b, arrow.GetBytes(out[:])[:size]...)
}

// unpackBlocks unpacks n values whose blocks come one behind the other. The bits of each block stand in a word in front
// of it.
func unpackBlocks[T word](b []byte, n int, out []T) error {
	size := int(unsafe.Sizeof(out[0]))
	for at := 0; at < n; at += packed {
		if len(b) < size {
			return fmt.Errorf("%d bytes of packed values are missing", size-len(b))
		}
		bits := uint64(arrow.GetData[T](b[:size])[0])
		if bits > uint64(size)*8 {
			return fmt.Errorf("packed values of %d bits, of a type that has %d", bits, size*8)
		}
		need := int(bits) * packed / 8
		if len(b)-size < need {
			return fmt.Errorf("%d bytes for %d values of %d bits", len(b)-size, packed, bits)
		}
		unpackBlock(int(bits), b[size:size+need], out[at:])
		b = b[size+need:]
	}
	return nil
}

// unpackPlain unpacks n values of so many bits whose blocks come one behind the other. The values behind the last whole
// block are packed, too, or lie there as they are: the length tells.
func unpackPlain[T word](b []byte, bits, n int, out []T) error {
	size := int(unsafe.Sizeof(out[0]))
	block := bits * packed / 8
	for at := 0; at < n; at += packed {
		if rest := n - at; rest < packed && len(b) == rest*size {
			copy(out[at:n], arrow.GetData[T](b))
			return nil
		}
		if len(b) < block {
			return fmt.Errorf("%d bytes for %d values of %d bits", len(b), packed, bits)
		}
		unpackBlock(bits, b[:block], out[at:])
		b = b[block:]
	}
	return nil
}

// unpackBlock unpacks one block into the front of out, which may have room for fewer values.
func unpackBlock[T word](bits int, b []byte, out []T) {
	if len(out) >= packed {
		unpack(bits, arrow.GetData[T](b), out[:packed])
		return
	}
	var whole [packed]T
	unpack(bits, arrow.GetData[T](b), whole[:])
	copy(out, whole[:])
}
