package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/flightd/flightd/object"
)

// windowBytes is how much of a segment is read at once.
const windowBytes = 1 << 20

// window reads a file in large pieces.
type window struct {
	file file
	path string
	size int64
	// off is where buf stands in the file.
	off int64
	buf []byte
}

// bytes returns n bytes at an offset, or fewer at the end of the file. They are valid until the next call. Memory never
// exceeds windowBytes or, for a larger group, the size of the file.
func (w *window) bytes(off, n int64) ([]byte, error) {
	n = max(0, min(n, w.size-off))
	if off >= w.off && off+n <= w.off+int64(len(w.buf)) {
		return w.buf[off-w.off:][:n], nil
	}
	fill := min(max(n, windowBytes), w.size-off)
	w.buf = slices.Grow(w.buf[:0], int(fill))[:fill]
	w.off = off
	if read, err := w.file.ReadAt(w.buf, off); err != nil && (err != io.EOF || int64(read) < fill) {
		w.buf = w.buf[:0]
		return nil, fmt.Errorf("read %s at %d: %w", w.path, off, err)
	}
	return w.buf[:n], nil
}

// group is one group with its body, which is valid until the next one is read.
type group struct {
	groupHeader
	body []byte
}

// reader reads the groups of a log in their order and tells a torn tail from damage. It changes nothing.
type reader struct {
	disk disk
	ids  []uint64
	// i is the segment of at in ids, win its content and sum the checksum of its header.
	i   int
	win window
	sum uint32
	// at is where the next group is expected. It is zero when the log has no segments.
	at position
	// sealed tells that the last group was a seal: the next one is in the next segment.
	sealed bool
	// last and next are what the next group must continue, if started says that there was one before.
	last, next LSN
	started    bool
	// proved is the highest position to which anything read so far says that the log was synced.
	proved position
	// dropped is the number of groups of which the torn tail has a header.
	dropped int
}

// newReader returns a reader at the first group of the log.
func newReader(d disk) (*reader, error) {
	ids, err := listSegments(d)
	if err != nil || len(ids) == 0 {
		return &reader{disk: d}, err
	}
	for i := 1; i < len(ids); i++ {
		if ids[i] != ids[i-1]+1 {
			return nil, missingSegment(d, ids[i-1]+1)
		}
	}
	r := &reader{disk: d, ids: ids}
	if len(ids) > 1 {
		// The last segment was prepared when the one before it was entered, and that was after a seal was synced.
		r.proved = position{ids[len(ids)-2], firstGroup}
	}
	if err := r.enter(0); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// missingSegment reports a segment that others prove to have been there.
func missingSegment(d disk, id uint64) error {
	return &object.CorruptError{Name: d.Path(segmentName(id)), Err: errors.New("the segment is missing: the log goes on in it")}
}

// enter goes to the first group of a segment.
func (r *reader) enter(i int) error {
	r.close()
	id := r.ids[i]
	name := segmentName(id)
	f, err := r.disk.Open(name, false)
	if err != nil {
		return fmt.Errorf("read log segment: %w", err)
	}
	r.win = window{file: f, path: r.disk.Path(name), buf: r.win.buf[:0]}
	r.i, r.at, r.sealed = i, position{id, firstGroup}, false
	if r.win.size, err = f.Size(); err != nil {
		return fmt.Errorf("read log segment: %w", err)
	}
	h, err := readSegmentHeader(f, id, r.win.path)
	r.sum = h.sum
	return err
}

// close closes the segment. That can fail to no harm: nothing was written.
func (r *reader) close() {
	if r.win.file != nil {
		_ = r.win.file.Close()
		r.win.file = nil
	}
}

// read returns the next group, io.EOF at the end of the log, which may be a torn tail, and an object.CorruptError when
// what follows is damage.
func (r *reader) read() (group, error) {
	if len(r.ids) == 0 {
		return group{}, io.EOF
	}
	if r.sealed {
		if r.i+1 == len(r.ids) {
			return group{}, missingSegment(r.disk, r.at.segment+1)
		}
		if err := r.enter(r.i + 1); err != nil {
			return group{}, err
		}
	}
	g, bad, err := r.groupHere()
	if err != nil {
		return group{}, err
	}
	if bad != nil {
		return group{}, r.judge(bad)
	}
	if err := r.follow(&g.groupHeader); err != nil {
		return group{}, r.corrupt(err)
	}
	r.at, r.sealed = g.end(), g.typ == seal
	return g, nil
}

// groupHere reads the group at the present position. It tells apart bytes that are no group, and a failure to read.
func (r *reader) groupHere() (g group, bad, err error) {
	b, err := r.win.bytes(r.at.offset, groupHeaderBytes)
	if err != nil {
		return g, nil, err
	}
	if g.groupHeader, bad = decodeGroupHeader(b, r.sum, r.at); bad != nil {
		return g, bad, nil
	}
	if left := r.win.size - r.at.offset; g.length > left {
		return g, fmt.Errorf("group has %d bytes, the file has %d left", g.length, left), nil
	}
	if b, err = r.win.bytes(r.at.offset, g.length); err != nil {
		return g, nil, err
	}
	g.body = b[groupHeaderBytes:]
	return g, g.checkBody(g.body), nil
}

// follow checks that a group continues the one before it.
func (r *reader) follow(h *groupHeader) error {
	if !r.started {
		r.started, r.last, r.next = true, h.prev, h.lsn
		if h.typ == epochMark {
			r.next = h.prev + 1
		}
	}
	switch {
	case h.prev != r.last:
		return fmt.Errorf("%s group continues LSN %s, the last one in the log is %s", h.typ, h.prev, r.last)
	case h.typ == epochMark && (h.lsn.N() != 0 || h.lsn.Epoch() <= r.next.Epoch()):
		return fmt.Errorf("epoch mark for LSN %s, the log is at %s", h.lsn, r.next)
	case h.typ != epochMark && h.lsn != r.next:
		return fmt.Errorf("%s group has LSN %s, the log is at %s", h.typ, h.lsn, r.next)
	}
	r.prove(h.synced)
	r.last, r.next = h.last(), h.lsn+LSN(h.count)
	if h.typ == epochMark {
		r.next++
	}
	return nil
}

// prove takes note that the log was synced up to a position.
func (r *reader) prove(p position) {
	if r.proved.less(p) {
		r.proved = p
	}
}

// judge decides whether the bytes at the present position, which are no group, are a torn tail or damage. It stays there.
func (r *reader) judge(bad error) error {
	i, at := r.i, r.at
	for off := at.offset; ; off = firstGroup {
		if err := r.proveRest(off); err != nil {
			return err
		}
		if r.i+1 == len(r.ids) {
			break
		}
		if err := r.enter(r.i + 1); err != nil {
			return err
		}
	}
	if err := r.enter(i); err != nil {
		return err
	}
	r.at = at
	if r.at.less(r.proved) {
		return r.corrupt(fmt.Errorf("%w; it is no torn tail, since the log was synced up to %s: restore the file from a copy", bad, r.proved))
	}
	return io.EOF
}

// proveRest takes note of what the group headers of the segment prove, from an offset on.
func (r *reader) proveRest(off int64) error {
	for {
		h, ok, err := r.findHeader(off)
		if err != nil || !ok {
			return err
		}
		r.prove(h.synced)
		r.dropped++
		off = h.end().offset
	}
}

// findHeader returns the first group header that verifies at or behind an offset of the segment.
func (r *reader) findHeader(off int64) (h groupHeader, ok bool, err error) {
	id := r.ids[r.i]
	for ; off+groupHeaderBytes <= r.win.size; off += groupAlign {
		b, err := r.win.bytes(off, groupHeaderBytes)
		if err != nil {
			return h, false, err
		}
		// Id and offset first: they spare nearly all places the checksum.
		if binary.LittleEndian.Uint64(b[8:]) != id || int64(binary.LittleEndian.Uint32(b[16:])) != off {
			continue
		}
		if h, err := decodeGroupHeader(b, r.sum, position{id, off}); err == nil {
			return h, true, nil
		}
	}
	return h, false, nil
}

// resume goes to the next group whose header verifies, behind damage at the present position, and reports whether there
// is one. What is read there need not continue what was read before. Faults on the way are added to faults.
func (r *reader) resume(faults []error) ([]error, bool) {
	r.started, r.sealed = false, false
	for off := r.at.offset + groupAlign; r.win.file != nil; off = firstGroup {
		h, ok, err := r.findHeader(off)
		if err != nil {
			return append(faults, err), false
		}
		if ok {
			r.at = h.at
			return faults, true
		}
		if r.i+1 == len(r.ids) {
			break
		}
		if err := r.enter(r.i + 1); err != nil {
			faults = append(faults, err)
		}
	}
	return faults, false
}

// corrupt reports damage at the present position.
func (r *reader) corrupt(err error) error { return r.corruptAt(r.at, err) }

// corruptAt reports damage in the present segment.
func (r *reader) corruptAt(at position, err error) error {
	return &object.CorruptError{Name: r.win.path, Offset: at.offset, Err: err}
}
