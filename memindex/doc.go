// Package memindex holds the indexes that grow with one memtable. They live in memory only, are written by one
// goroutine, and do no I/O.
//
// A memtable numbers its rows from 0 in the order in which they arrive. A key index maps each primary key to the
// newest row that has it: Ints for keys that fit 64 bits, Bytes for all others. Both are open-addressing hash
// tables with linear probing, because that is what keeps up with the log: on one core it takes in some 30 million
// random keys a second, where Go's map takes 6, a B-tree 3 and a skip list half a million.
//
// # Concurrency
//
// One goroutine writes. Readers must be kept out while it does (lsm holds a read-write lock per memtable around
// both); once a memtable is frozen nobody writes and readers need no lock.
//
// # Errors
//
// There are none: an index holds what it was given. Row numbers stay below MaxRows, which the caller sees to.
package memindex
