package flight

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codecs of a compressed body, by Arrow's numbers.
const (
	noCodec   = -1
	codecLZ4  = 0
	codecZSTD = 1
)

// decompressor holds the codecs of one stream; each is made when first needed.
type decompressor struct {
	lz4  *lz4.Reader
	zstd *zstd.Decoder
}

// Close frees the codecs' memory.
func (c *decompressor) Close() {
	if c.zstd != nil {
		c.zstd.Close()
		c.zstd = nil
	}
}

// decompress returns a buffer of a compressed body. It starts with its plain length as an int64; -1 says that it
// follows as it is.
func (l *loader) decompress(offset, length int64) (*memory.Buffer, error) {
	if length < 8 {
		return nil, fmt.Errorf("compressed in %d bytes, its length alone takes 8", length)
	}
	packed := l.body.Bytes()[offset : offset+length]
	size := int64(binary.LittleEndian.Uint64(packed))
	if size == -1 {
		return memory.SliceBuffer(l.body, int(offset)+8, int(length)-8), nil
	}
	if size < 0 {
		return nil, fmt.Errorf("a plain length of %d cannot be", size)
	}
	if err := l.take(size); err != nil {
		return nil, err
	}
	out := memory.NewResizableBuffer(l.d.alloc)
	out.Resize(int(size))
	if err := l.d.unpack.into(out.Bytes(), packed[8:], l.codec); err != nil {
		out.Release()
		return nil, err
	}
	return out, nil
}

// into decompresses src, which must fill dst exactly.
func (c *decompressor) into(dst, src []byte, codec int) error {
	if codec == codecLZ4 {
		return c.lz4Into(dst, src)
	}
	if c.zstd == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return fmt.Errorf("start the ZSTD decoder: %w", err)
		}
		c.zstd = decoder
	}
	// The capacity limit keeps the output in dst: more than fits is an error, not a new allocation.
	out, err := c.zstd.DecodeAll(src, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("decompress ZSTD: %w", err)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("decompress ZSTD: %d bytes came out, %d were announced", len(out), len(dst))
	}
	return nil
}

// lz4Into is into for LZ4 frames.
func (c *decompressor) lz4Into(dst, src []byte) error {
	if c.lz4 == nil {
		c.lz4 = lz4.NewReader(nil)
	}
	c.lz4.Reset(bytes.NewReader(src))
	if _, err := io.ReadFull(c.lz4, dst); err != nil {
		return fmt.Errorf("decompress LZ4: %w", err)
	}
	var rest [1]byte
	if _, err := io.ReadFull(c.lz4, rest[:]); !errors.Is(err, io.EOF) {
		return fmt.Errorf("decompress LZ4: more than the announced %d bytes came out", len(dst))
	}
	return nil
}
