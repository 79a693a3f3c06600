package offheap

import "math/bits"

const (
	// align is the alignment that Arrow recommends for buffers: a cache line, and the widest vector register.
	align = 64
	// slabBytes is the size of a slab. With blocks of at most a sixteenth of it, little is lost at the end.
	slabBytes = 512 << 10
	// maxSmall is the largest block that is cut from a slab.
	maxSmall = 32 << 10
	// smallClasses is the number of classes up to maxSmall.
	smallClasses = 32
)

// classOf returns the number of the smallest class that holds size bytes: 1, 2, 3 and 4 times 64, and from there four
// steps to each power of two.
func classOf(size int) int {
	units := (size + align - 1) / align
	if units <= 4 {
		return max(units-1, 0)
	}
	// With units-1 = 1xxyyy in binary, the leading bit gives the power and xx the step.
	power := bits.Len(uint(units-1)) - 3
	return power*4 + (units-1)>>power
}

// classBytes returns the size of the blocks of a class.
func classBytes(class int) int {
	if class < 4 {
		return (class + 1) * align
	}
	power := class/4 - 1
	return (class%4 + 5) << power * align
}
