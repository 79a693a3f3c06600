package lance

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/object"
)

// source gives the bytes of an open file as buffers.
type source interface {
	// read returns the bytes of an extent; the caller releases them. They may outlive the source.
	read(e extent) (*memory.Buffer, error)
	// release drops the source's own hold on the file.
	release()
}

// newSource maps the object if it can be mapped. It takes over r.
func newSource(r object.Reader, alloc memory.Allocator) (source, error) {
	m, ok := r.(object.Mapper)
	if !ok {
		return copiedSource{r, alloc}, nil
	}
	b, err := m.Map()
	if err != nil {
		_ = r.Close() // The first error tells more.
		return nil, err
	}
	return mappedSource{memory.NewBufferWithAllocator(b, unmapper{r})}, nil
}

// mappedSource hands out slices of one mapping. Each of them retains it, so the file is unmapped when the Reader was
// closed and the last array is gone.
type mappedSource struct{ whole *memory.Buffer }

func (s mappedSource) read(e extent) (*memory.Buffer, error) {
	return memory.SliceBuffer(s.whole, int(e.off), int(e.size)), nil
}

func (s mappedSource) release() { s.whole.Release() }

// unmapper is the allocator of a mapping: Arrow calls Free when the last reference is gone. It allocates nothing.
type unmapper struct{ r object.Reader }

func (unmapper) Allocate(int) []byte               { return nil }
func (unmapper) Reallocate(_ int, b []byte) []byte { return b }

// Free unmaps the file. A failure leaves address space behind and nothing else, and there is nobody to tell.
func (u unmapper) Free([]byte) { _ = u.r.Close() }

// copiedSource reads extents into buffers of their own: for objects that cannot be mapped.
type copiedSource struct {
	r     object.Reader
	alloc memory.Allocator
}

func (s copiedSource) read(e extent) (*memory.Buffer, error) {
	b := memory.NewResizableBuffer(s.alloc)
	b.Resize(int(e.size))
	if n, err := s.r.ReadAt(b.Bytes(), e.off); n < b.Len() {
		b.Release()
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at offset %d: %w", e.size, e.off, err)
	}
	return b, nil
}

func (s copiedSource) release() { _ = s.r.Close() }

// guard lets operations and the end of a Reader meet: the source is released when Close was called and no operation
// is under way.
type guard struct {
	users atomic.Int64 // operations under way, and one for the Reader until it is closed
}

// enter begins an operation. After the end it returns false.
func (g *guard) enter() bool {
	for {
		n := g.users.Load()
		if n == 0 {
			return false
		}
		if g.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave ends an operation and reports whether it was the last.
func (g *guard) leave() (last bool) { return g.users.Add(-1) == 0 }
