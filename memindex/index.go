package memindex

import "github.com/apache/arrow-go/v18/arrow"

// Index is an index over a column of a memtable. One goroutine calls Add and Release; the other methods may be called
// beside it, by any number of goroutines, and see the batches that were in when they began, or more.
type Index interface {
	// Add puts the values of one batch in; its rows are numbered from first on, which is the number behind the last.
	// What the index keeps of the values it retains.
	Add(values arrow.Array, first uint32)
	// MemoryBytes returns the memory that the index occupies, values that it retains aside.
	MemoryBytes() int64
	// Growth returns how many bytes more it may occupy once some rows more are in.
	Growth(rows int) int64
	// Search calls fn for each row below a number that a query wants, in no order, maybe some twice, until fn returns
	// false.
	Search(q *Query, below uint32, fn func(row uint32) bool)
	// Write hands all rows to a sink, in the order of the index.
	Write(s Sink) error
	// Release ends the use of what the index retains. Nothing may be called after it.
	Release()
}

// Query is what Search looks for: values that are in any of the ranges or equal to any of the points. They are those
// that the Values of the index make of the column's: Ints and the ends of Ranges for the one kind, Wide for the other.
type Query struct {
	Ranges []Range
	// Ints and Wide are points in ascending order.
	Ints []int64
	Wide [][]byte
}

// Range is the values between two ends. Of ints both are in it. A nil Low or High is an open end of wide values.
type Range struct {
	LowInt, HighInt   int64
	Low, High         []byte
	LowOpen, HighOpen bool // the end itself is not in the range
}

// Sink takes the rows of an index: first those that are null, in the order of their numbers, then the others in the
// order of their values, equal ones in that of their numbers. What it is given is valid during the call only. It ends
// the walk by an error.
type Sink interface {
	Nulls(rows []uint32) error
	Ints(values []int64, rows []uint32) error
	Wide(values [][]byte, rows []uint32) error
}

// Values say what the index compares: of a column either Ints or Wide is set.
type Values struct {
	// Ints appends a number for each value of an array, in whose order the values are. Where the array has a null, any
	// number may come.
	Ints func(dst []int64, values arrow.Array) []int64
	// Wide returns the accessor of bytes in whose order the values are.
	Wide func(values arrow.Array) func(i int) []byte
}
