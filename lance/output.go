package lance

import (
	"bufio"
	"hash/crc32"

	"github.com/flightd/flightd/object"
)

// outputBuffer gathers the small pieces of pages that come from many small batches. Pieces above it go to the file as
// they are, without a copy. Where pages are smaller it is, too: who asks for these writes many files at a time.
const outputBuffer = 256 << 10

// padding fills the space between buffers.
var padding [bufferAlign]byte

// output appends buffers to a file, aligned and with their checksums.
type output struct {
	obj object.Writer
	buf *bufio.Writer
	pos int64 // bytes appended

	start int64  // offset of the buffer that is being written
	sum   uint32 // its checksum so far

	scratch []uint64 // what words hands out
}

func newOutput(obj object.Writer, pageBytes int64) *output {
	return &output{obj: obj, buf: bufio.NewWriterSize(obj, int(min(outputBuffer, max(pageBytes, 1<<10))))}
}

// words returns space for n numbers, valid until the next call. Their values are undefined.
func (o *output) words(n int) []uint64 {
	if cap(o.scratch) < n {
		o.scratch = make([]uint64, n)
	}
	return o.scratch[:n]
}

// begin starts a buffer at the next aligned offset.
func (o *output) begin() error {
	if over := o.pos % bufferAlign; over != 0 {
		if err := o.Write(padding[over:]); err != nil {
			return err
		}
	}
	o.start, o.sum = o.pos, 0
	return nil
}

// Write appends to the buffer.
func (o *output) Write(b []byte) error {
	n, err := o.buf.Write(b)
	o.pos += int64(n)
	o.sum = crc32.Update(o.sum, castagnoli, b)
	return err
}

// end returns what was written since begin and its checksum.
func (o *output) end() (extent, uint32) {
	return extent{o.start, o.pos - o.start}, o.sum
}

// append writes one buffer of known bytes.
func (o *output) append(b []byte) (extent, uint32, error) {
	if err := o.begin(); err != nil {
		return extent{}, 0, err
	}
	if err := o.Write(b); err != nil {
		return extent{}, 0, err
	}
	at, sum := o.end()
	return at, sum, nil
}

// close writes what is left and makes the file durable.
func (o *output) close() error {
	if err := o.buf.Flush(); err != nil {
		return err
	}
	return o.obj.Close()
}
