package wal

import "hash/crc32"

const (
	// directBytes is the size from which a piece is written from where it is. At 16 KiB the copy into the buffer takes
	// 40 % less processor time than the two writes more that it saves; at 64 KiB they are even.
	directBytes = 64 << 10
	// bufferBytes is how much is gathered before it is written.
	bufferBytes = 256 << 10
)

// padding is what fills up records and groups.
var padding [groupAlign]byte

// groupWriter lays a group into a file: small pieces are gathered, large ones are written from where they are, and all
// bytes are summed once. A group that fits the buffer is one write. The header of any other is written last.
type groupWriter struct {
	file file
	// at is where the group begins, off where buf will be written.
	at, off int64
	// buf begins with room for the header as long as nothing was written.
	buf []byte
	sum uint32
}

// start begins a group at an offset of a file.
func (w *groupWriter) start(f file, at int64) {
	if w.buf == nil {
		w.buf = make([]byte, 0, bufferBytes)
	}
	w.file, w.at, w.off, w.sum = f, at, at, 0
	w.buf = w.buf[:groupHeaderBytes]
}

// record lays a record down.
func (w *groupWriter) record(r *Record) error {
	if err := w.reserve(recordHeaderBytes); err != nil {
		return err
	}
	n := len(w.buf)
	w.buf = w.buf[:n+recordHeaderBytes]
	clear(w.buf[n:])
	r.encodeHeader(w.buf[n:])
	for _, piece := range r.Body {
		if err := w.piece(piece); err != nil {
			return err
		}
	}
	return w.pad(r.bodyBytes(), recordAlign)
}

// piece lays bytes down.
func (w *groupWriter) piece(p []byte) error {
	if len(p) < directBytes {
		if err := w.reserve(len(p)); err != nil {
			return err
		}
		w.buf = append(w.buf, p...)
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.sum = crc32.Update(w.sum, castagnoli, p)
	if _, err := w.file.WriteAt(p, w.off); err != nil {
		return err
	}
	w.off += int64(len(p))
	return nil
}

// pad lays zeros down after size bytes, up to a multiple of unit.
func (w *groupWriter) pad(size, unit int64) error { return w.piece(padding[:align(size, unit)-size]) }

// reserve makes room for n more bytes in the buffer. REQUIRES: n < directBytes.
func (w *groupWriter) reserve(n int) error {
	if len(w.buf)+n <= cap(w.buf) {
		return nil
	}
	return w.flush()
}

// flush writes the buffer, but not the room for the header.
func (w *groupWriter) flush() error {
	b := w.buf
	if w.off == w.at {
		b = b[groupHeaderBytes:]
		w.off += groupHeaderBytes
	}
	w.sum = crc32.Update(w.sum, castagnoli, b)
	w.buf = w.buf[:0]
	if len(b) == 0 {
		return nil
	}
	if _, err := w.file.WriteAt(b, w.off); err != nil {
		return err
	}
	w.off += int64(len(b))
	return nil
}

// finish pads the group and writes what is left, with the header. It fills in the header's position, length and body
// checksum.
func (w *groupWriter) finish(h *groupHeader, segmentSum uint32) error {
	size := w.off - w.at + int64(len(w.buf))
	if err := w.pad(size, groupAlign); err != nil {
		return err
	}
	h.length = align(size, groupAlign)
	if w.off == w.at {
		h.bodySum = crc32.Checksum(w.buf[groupHeaderBytes:], castagnoli)
		h.encode(w.buf, segmentSum)
		_, err := w.file.WriteAt(w.buf, w.at)
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	h.bodySum = w.sum
	head := w.buf[:groupHeaderBytes]
	h.encode(head, segmentSum)
	_, err := w.file.WriteAt(head, w.at)
	return err
}
