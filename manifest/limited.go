package manifest

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/memory"
)

// limited is an allocator that panics when more is asked for than any sane file needs. Whoever decodes with it
// recovers the panic: the Arrow library has no other way to hear that an allocation is refused.
type limited struct {
	memory.Allocator
	left int
}

func newLimited(bytes int) *limited {
	return &limited{Allocator: memory.NewGoAllocator(), left: bytes}
}

func (l *limited) take(n int) {
	if n < 0 || n > l.left {
		panic(fmt.Sprintf("a length of %d bytes is out of bounds", n))
	}
	l.left -= n
}

// Allocate implements memory.Allocator.
func (l *limited) Allocate(size int) []byte {
	l.take(size)
	return l.Allocator.Allocate(size)
}

// Reallocate implements memory.Allocator.
func (l *limited) Reallocate(size int, b []byte) []byte {
	if size > len(b) {
		l.take(size - len(b))
	}
	return l.Allocator.Reallocate(size, b)
}
