package flight

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errFlatbuffer is what every malformed flatbuffer ends with.
var errFlatbuffer = errors.New("the message header is not a valid flatbuffer")

// fbTable is a flatbuffer table whose vtable and inline part were checked to lie inside buf, so that reading an
// inline field needs no further check than the field's own size. arrow-go's generated accessors panic on hostile
// offsets and follow cycles; these never do.
type fbTable struct {
	buf    []byte
	pos    int // of the table's inline part
	vtable int
	slots  int // bytes of the vtable, its two header words included
}

// fbRoot returns the root table of a flatbuffer.
func fbRoot(buf []byte) (fbTable, error) {
	if len(buf) < 4 {
		return fbTable{}, errFlatbuffer
	}
	return fbTableAt(buf, uint64(binary.LittleEndian.Uint32(buf)))
}

// fbTableAt checks the table at pos.
func fbTableAt(buf []byte, pos uint64) (fbTable, error) {
	if pos+4 > uint64(len(buf)) {
		return fbTable{}, errFlatbuffer
	}
	at := int(pos)
	vtable := at - int(int32(binary.LittleEndian.Uint32(buf[at:])))
	if vtable < 0 || vtable+4 > len(buf) {
		return fbTable{}, errFlatbuffer
	}
	slots := int(binary.LittleEndian.Uint16(buf[vtable:]))
	size := int(binary.LittleEndian.Uint16(buf[vtable+2:]))
	if slots < 4 || slots%2 != 0 || vtable+slots > len(buf) || size < 4 || at+size > len(buf) {
		return fbTable{}, errFlatbuffer
	}
	return fbTable{buf: buf, pos: at, vtable: vtable, slots: slots}, nil
}

// field returns the position of a field of width bytes, or 0 when the table does not have it.
func (t fbTable) field(slot, width int) (int, error) {
	entry := 4 + 2*slot
	if entry+2 > t.slots {
		return 0, nil
	}
	offset := int(binary.LittleEndian.Uint16(t.buf[t.vtable+entry:]))
	if offset == 0 {
		return 0, nil
	}
	// The size of the inline part is not to be trusted: Go's builder of flatbuffers lets tables share a vtable whose
	// fields lie at the same places, though the last field of one is wider.
	if offset < 4 || t.pos+offset+width > len(t.buf) {
		return 0, errFlatbuffer
	}
	return t.pos + offset, nil
}

// int64 returns a scalar of eight bytes, 0 when it is absent.
func (t fbTable) int64(slot int) (int64, error) {
	at, err := t.field(slot, 8)
	if at == 0 {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(t.buf[at:])), nil
}

// int16 returns a scalar of two bytes, 0 when it is absent.
func (t fbTable) int16(slot int) (int16, error) {
	at, err := t.field(slot, 2)
	if at == 0 {
		return 0, err
	}
	return int16(binary.LittleEndian.Uint16(t.buf[at:])), nil
}

// byte returns a scalar of one byte, 0 when it is absent.
func (t fbTable) byte(slot int) (byte, error) {
	at, err := t.field(slot, 1)
	if at == 0 {
		return 0, err
	}
	return t.buf[at], nil
}

// target follows the offset in a field. ok is false when the table does not have the field.
func (t fbTable) target(slot int) (at uint64, ok bool, err error) {
	field, err := t.field(slot, 4)
	if field == 0 {
		return 0, false, err
	}
	return uint64(field) + uint64(binary.LittleEndian.Uint32(t.buf[field:])), true, nil
}

// table returns a table that the field points to.
func (t fbTable) table(slot int) (sub fbTable, ok bool, err error) {
	at, ok, err := t.target(slot)
	if !ok {
		return fbTable{}, false, err
	}
	sub, err = fbTableAt(t.buf, at)
	return sub, err == nil, err
}

// vector returns the bytes of a vector of n elements of width bytes each; an absent vector is empty.
func (t fbTable) vector(slot, width int) (elements []byte, n int, err error) {
	at, ok, err := t.target(slot)
	if !ok {
		return nil, 0, err
	}
	if at+4 > uint64(len(t.buf)) {
		return nil, 0, errFlatbuffer
	}
	count := uint64(binary.LittleEndian.Uint32(t.buf[at:]))
	if end := at + 4 + count*uint64(width); end > uint64(len(t.buf)) {
		return nil, 0, fmt.Errorf("%w: a vector of %d elements passes its end", errFlatbuffer, count)
	}
	return t.buf[at+4 : at+4+count*uint64(width)], int(count), nil
}

// tables calls each with the elements of a vector of tables, in order.
func (t fbTable) tables(slot int, each func(i int, sub fbTable) error) error {
	at, ok, err := t.target(slot)
	if !ok {
		return err
	}
	_, n, err := t.vector(slot, 4)
	if err != nil {
		return err
	}
	for i := range n {
		element := at + 4 + 4*uint64(i)
		sub, err := fbTableAt(t.buf, element+uint64(binary.LittleEndian.Uint32(t.buf[element:])))
		if err != nil {
			return err
		}
		if err := each(i, sub); err != nil {
			return err
		}
	}
	return nil
}
