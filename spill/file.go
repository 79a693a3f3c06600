package spill

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/flightd/flightd/object"
)

const (
	// defaultBufferBytes is what all streams of a file buffer together: a few thousand descriptions of pages.
	defaultBufferBytes = 256 << 10
	// minBufferBytes is what a stream buffers at least, so that a chunk is not smaller than what is kept of it in memory.
	minBufferBytes = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Options tune a File.
type Options struct {
	// Streams is how many streams the file has.
	Streams int
	// BufferBytes is divided evenly over the streams, of which each gets 64 bytes at least; 256 KiB when 0.
	BufferBytes int64
}

// File is streams of bytes in one side file. It belongs to one goroutine and ends with Close.
type File struct {
	folder  *Folder
	name    string
	limit   int // bytes that a stream buffers
	streams []stream
	chunks  int
	size    int64         // bytes written
	w       object.Writer // nil until the first chunk
	r       object.Reader // nil until the first chunk is read
	scratch []byte        // the chunk that is being read
	err     error         // the first failure, or that the file is closed
}

// stream is what is kept of a stream in memory.
type stream struct {
	buf    []byte
	chunks []chunk
}

// chunk says where a chunk lies. INVARIANT: it takes 16 bytes.
type chunk struct {
	position    uint64
	length, sum uint32
}

// OpenFile begins a side file. Nothing is on the disk before the first buffer is full.
func (d *Folder) OpenFile(o Options) (*File, error) {
	if o.Streams <= 0 || o.BufferBytes < 0 {
		return nil, fmt.Errorf("open a side file: spill.Options has %d streams and %d bytes for their buffers, want some of both", o.Streams, o.BufferBytes)
	}
	if o.BufferBytes == 0 {
		o.BufferBytes = defaultBufferBytes
	}
	limit := min(max(o.BufferBytes/int64(o.Streams), minBufferBytes), math.MaxUint32>>1)
	return &File{
		folder: d, name: d.Path(fmt.Sprintf("side-%d", d.files.Add(1))),
		limit: int(limit), streams: make([]stream, o.Streams),
	}, nil
}

// Append adds a piece to a stream. It keeps nothing of b. The disk is a local one, so neither it nor Read takes a context.
func (f *File) Append(stream int, b []byte) error {
	if f.err != nil {
		return f.err
	}
	s := &f.streams[stream]
	if len(s.buf)+len(b) > f.limit && len(s.buf) > 0 {
		if err := f.writeChunk(s, s.buf); err != nil {
			return err
		}
		s.buf = s.buf[:0]
	}
	if len(b) >= f.limit {
		return f.writeChunk(s, b)
	}
	s.reserve(len(b), f.limit)
	s.buf = append(s.buf, b...)
	return nil
}

// reserve makes room in the buffer for n bytes more; doubling it, but not beyond its limit.
func (s *stream) reserve(n, limit int) {
	if want := len(s.buf) + n; want > cap(s.buf) {
		grown := make([]byte, len(s.buf), min(max(2*cap(s.buf), want, minBufferBytes), limit))
		copy(grown, s.buf)
		s.buf = grown
	}
}

// writeChunk appends bytes of a stream to the file.
func (f *File) writeChunk(s *stream, b []byte) error {
	if err := f.write(b); err != nil {
		f.err = fmt.Errorf("write side file %s: %w", f.name, err)
		return f.err
	}
	s.chunks = append(s.chunks, chunk{uint64(f.size), uint32(len(b)), crc32.Checksum(b, castagnoli)})
	f.size += int64(len(b))
	f.chunks++
	return nil
}

func (f *File) write(b []byte) (err error) {
	if len(b) > math.MaxUint32 {
		return fmt.Errorf("a piece has %d bytes, more than a chunk can have", len(b))
	}
	if f.w == nil {
		if f.w, err = f.folder.Create(context.Background(), f.name); err != nil {
			return err
		}
	}
	n, err := f.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// Read calls fn with the bytes of a stream in the order in which they were appended, some at a time: whole pieces, valid
// until fn returns. A stream can be read again, and appended to afterwards.
func (f *File) Read(stream int, fn func(b []byte) error) error {
	if f.err != nil {
		return f.err
	}
	s := &f.streams[stream]
	for _, c := range s.chunks {
		b, err := f.readChunk(c)
		if err != nil {
			return err
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	if len(s.buf) == 0 {
		return nil
	}
	return fn(s.buf)
}

// readChunk returns the bytes of a chunk, valid until the next call.
func (f *File) readChunk(c chunk) ([]byte, error) {
	if err := f.openReader(int64(c.position) + int64(c.length)); err != nil {
		return nil, fmt.Errorf("read side file %s: %w", f.name, err)
	}
	if cap(f.scratch) < int(c.length) {
		f.scratch = make([]byte, c.length)
	}
	b := f.scratch[:c.length]
	n, err := f.r.ReadAt(b, int64(c.position))
	switch {
	case n == len(b): // io.EOF is allowed beside it.
	case err == nil || errors.Is(err, io.EOF):
		return nil, f.corrupt(c, fmt.Errorf("the chunk has %d bytes, %d of them are there", len(b), n))
	default:
		return nil, fmt.Errorf("read side file %s: %w", f.name, err)
	}
	if sum := crc32.Checksum(b, castagnoli); sum != c.sum {
		return nil, f.corrupt(c, fmt.Errorf("the checksum of the chunk is %08x, it was written with %08x", sum, c.sum))
	}
	return b, nil
}

func (f *File) corrupt(c chunk, err error) error {
	return &object.CorruptError{Name: f.name, Offset: int64(c.position), Err: err}
}

// openReader makes sure that the file can be read up to an offset. A Reader shows the file as it was when it was opened.
func (f *File) openReader(end int64) (err error) {
	if f.r != nil && f.r.Size() >= end {
		return nil
	}
	if f.r != nil {
		_ = f.r.Close() // Nothing was written through it.
	}
	f.r, err = f.folder.Open(context.Background(), f.name)
	return err
}

// Bytes returns the size of the file.
func (f *File) Bytes() int64 { return f.size }

// Chunks returns how many chunks the file has: reading all streams is so many reads.
func (f *File) Chunks() int { return f.chunks }

// Close removes the file. A second Close does nothing.
func (f *File) Close() error {
	if errors.Is(f.err, object.ErrClosed) {
		return nil
	}
	f.err = fmt.Errorf("side file %s: %w", f.name, object.ErrClosed)
	var err error
	if f.r != nil {
		err = f.r.Close()
	}
	if f.w != nil {
		f.w.Abort() // It was never closed, so this removes it.
	}
	f.streams, f.scratch = nil, nil
	return err
}
