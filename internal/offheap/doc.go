// Package offheap allocates memory outside the Go heap.
//
// DuckDB's C code keeps pointers into the Arrow buffers that a scan hands it, across calls. Pointers into the Go heap
// must not be kept there, so every buffer that may reach a query is made here. It also keeps the large and
// long-lived buffers of memtables out of the garbage collector's sight.
//
// # Layout
//
// Blocks of up to maxSmall bytes are cut from slabs, larger ones are mappings of their own:
//
//	slab, slabBytes long and aligned to its size
//	+---------------+---------+---------+-----+---------+-----------+
//	| header, 64 B  | block 0 | block 1 | ... | block n | remainder |
//	+---------------+---------+---------+-----+---------+-----------+
//
// The header lies in the slab itself and so do the links between free blocks: nothing here is a Go object, and the
// slab of a block is found by clearing the low bits of its address. A slab whose last block came back is returned
// to the system, save one per class.
//
// Sizes are rounded to classes, four to each power of two, so at most a fifth of a block is lost to rounding. Freed
// large blocks wait in a cache of bounded size, because fresh pages cost more than what is usually done with them.
//
// Words hands out tables of numbers, in huge pages where the system has them. They are blocks like the others: one that
// waited in the cache may come back as either.
//
// MapFile is for large buffers that are needed for a while only: pages of a file without a name, which the system can write out and take
// away.
//
// INVARIANT: every block begins at a multiple of 64 and its capacity is the size of its class; Free and Reallocate
// find the class by the capacity, so a caller may shorten a block but must not cut its front or its capacity.
//
// # Concurrency
//
// An Allocator is safe for concurrent use. It has one lock per class and one for the cache of large blocks; no lock is
// taken under another and no system call but the one that maps a slab is made under one. There are no goroutines.
package offheap
