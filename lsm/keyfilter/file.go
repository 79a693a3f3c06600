package keyfilter

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/flightd/flightd/object"
)

// magic begins a file; its last byte is the version of the format.
const magic = "FLTKEYS1"

// headerBytes is the size of what precedes the blocks, so that these are aligned with cache lines.
const headerBytes = 64

// Offsets in the header.
const (
	keysAt       = 8
	countAt      = 16
	probesAt     = 24
	blockSumAt   = 28
	headerSumAt  = 60
	maxFileBytes = math.MaxInt64 / 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Write stores the filter as a new object. Its bytes are durable when Write returns, its name when its folder is synced.
func (f *Filter) Write(ctx context.Context, st object.Store, name string) error {
	w, err := st.Create(ctx, name)
	if err != nil {
		return fmt.Errorf("write key filter: %w", err)
	}
	_, err = w.Write(f.header())
	if err == nil {
		_, err = w.Write(f.blocks)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		w.Abort()
		return fmt.Errorf("write key filter: %w", err)
	}
	return nil
}

// header returns what precedes the blocks in a file.
func (f *Filter) header() []byte {
	h := make([]byte, headerBytes)
	copy(h, magic)
	binary.LittleEndian.PutUint64(h[keysAt:], f.keys)
	binary.LittleEndian.PutUint64(h[countAt:], f.count)
	binary.LittleEndian.PutUint32(h[probesAt:], probes)
	binary.LittleEndian.PutUint32(h[blockSumAt:], crc32.Checksum(f.blocks, castagnoli))
	binary.LittleEndian.PutUint32(h[headerSumAt:], crc32.Checksum(h[:headerSumAt], castagnoli))
	return h
}

// Open opens what Write stored and verifies its checksums. The caller closes it.
func Open(ctx context.Context, st object.Store, name string) (*Filter, error) {
	r, err := st.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open key filter: %w", err)
	}
	f, err := load(name, r)
	if err != nil {
		_ = r.Close() // open for reading only
		return nil, fmt.Errorf("open key filter: %w", err)
	}
	if f.reader == nil {
		_ = r.Close() // everything was read
	}
	return f, nil
}

// load maps or reads a whole file.
func load(name string, r object.Reader) (*Filter, error) {
	if r.Size() < headerBytes || r.Size() > maxFileBytes {
		return nil, &object.CorruptError{Name: name, Err: fmt.Errorf("a key filter of %d bytes, it has at least %d", r.Size(), headerBytes)}
	}
	if m, ok := r.(object.Mapper); ok {
		b, err := m.Map()
		if err != nil {
			return nil, err
		}
		f, err := decode(name, b)
		if err == nil {
			f.reader = r
		}
		return f, err
	}
	b := make([]byte, r.Size())
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return decode(name, b)
}

// decode checks a file and returns the filter over its bytes.
func decode(name string, b []byte) (*Filter, error) {
	corrupt := func(at int64, format string, args ...any) error {
		return &object.CorruptError{Name: name, Offset: at, Err: fmt.Errorf(format, args...)}
	}
	h := b[:headerBytes]
	if string(h[:len(magic)]) != magic {
		return nil, corrupt(0, "it begins with %q, not %q", h[:len(magic)], magic)
	}
	if got, want := crc32.Checksum(h[:headerSumAt], castagnoli), binary.LittleEndian.Uint32(h[headerSumAt:]); got != want {
		return nil, corrupt(0, "the header has checksum %08x, not %08x", got, want)
	}
	if n := binary.LittleEndian.Uint32(h[probesAt:]); n != probes {
		return nil, corrupt(probesAt, "%d bits for each key, want %d", n, probes)
	}
	f := &Filter{keys: binary.LittleEndian.Uint64(h[keysAt:]), count: binary.LittleEndian.Uint64(h[countAt:]), blocks: b[headerBytes:]}
	if uint64(len(f.blocks))%blockBytes != 0 || f.count != uint64(len(f.blocks))/blockBytes || f.count == 0 {
		return nil, corrupt(countAt, "%d blocks in %d bytes", f.count, len(f.blocks))
	}
	if got, want := crc32.Checksum(f.blocks, castagnoli), binary.LittleEndian.Uint32(h[blockSumAt:]); got != want {
		return nil, corrupt(headerBytes, "the blocks have checksum %08x, not %08x", got, want)
	}
	return f, nil
}

// Close ends the use of a filter that was opened.
func (f *Filter) Close() error {
	r := f.reader
	f.reader, f.blocks = nil, nil
	if r == nil {
		return nil
	}
	return r.Close()
}
