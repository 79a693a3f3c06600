// Package memindex holds the indexes that grow with one memtable. They live in memory only, are written by one
// goroutine, and do no I/O.
//
// A memtable numbers its rows from 0 in the order in which they arrive. A key index maps each primary key to the
// newest row that has it: Ints for keys that fit 64 bits, Bytes for all others. Both are open-addressing hash
// tables with linear probing, because that is what keeps up with the log: on one core it takes in some 20 million
// random keys a second, where Go's map takes 6, a B-tree 3 and a skip list half a million. A slot is a hash of 32 bits and
// a row; the keys lie by row, in pieces of 8,192 that are never moved. Both are outside the Go heap, in huge pages once they
// are large: an index is released, and tells exactly what it occupies. Its table doubles, and is the faster at the size that
// the table of the memtable before it had. Rows of Ints whose keys are above all before are
// not hashed, as a search finds them. For ranges, an Order has the numbers of the first rows in the order of their keys, in
// runs each at least twice as long as the next, and 4 bytes a row. It is made by readers that need it, beside the writer.
//
// # Indexes over other columns
//
// Those over values have one small interface, Index: a batch goes in, rows come out that a query wants, memory is accounted, and at
// the end all rows go to a sink in the order of the index, from where they are written with the memtable.
//
// BTree is the one for points and ranges. It is no tree: rows are appended to a tail that is sorted by radix when it
// has 4,096 of them, and again when sixteen such runs have come together. That takes in a row in some 50 ns, whatever
// the order of the values, which is a tenth of what a B-tree takes, and a search looks into one run for each 65,536
// rows. An entry is 16 bytes: of wide values it has the first eight bytes, and the rest stays in the memtable's batch.
//
//	      tail: as they came        short runs: 4,096 rows each       long runs: 65,536 each
//	Add ─▶ [7 3 9 1 ...       ] ─▶  [1 3 7 9 ...] [...] ... (16)  ─▶  [...........] [...........]
//
// IVFPQ is the one for vectors. It has the centroids and the product quantiser of the base's index, so what it holds goes into that
// one as it is: each row's partition and code, made in bulk while the batch is taken in. A partition is a list of blocks outside the Go
// heap, which grow with the list (ivfpq.go shows them). 128 float32 take some 2 µs for 256 partitions and 16 sub-vectors of 8
// bits, 25 bytes are kept of them, and a search of 16 partitions among 100,000 rows takes a quarter of a millisecond. Its
// distances are those of the codes: the rows, which the memtable has, tell which of the best are the nearest.
//
// # Concurrency
//
// One goroutine writes. Readers of a key index must be kept out while it does (lsm holds a read-write lock per memtable
// around both); once a memtable is frozen nobody writes and readers need no lock. RowKeys, taken under that lock, are read
// without it, as keys do not move. An Index and an IVFPQ need no lock at all: what readers see of the one is replaced after each
// batch, and does not change; of the other they see the first entries of each list, as many as there were when they came to it.
//
// # Errors
//
// There are none: an index holds what it was given. Row numbers stay below MaxRows, which the caller sees to.
package memindex
