// Package keyfilter says of a key that it is not in a set, in one cache line: most layers of a table do not have the key
// that somebody asks for, and a filter spares the search of their indexes, and the pages on disk that it would touch.
//
// It is a blocked Bloom filter (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007): a key
// belongs to one block of 512 bits, in which it sets six.
//
//	hash of a key     int64: the finaliser of splitmix64; bytes: XXH64 with seed 0
//	block             high 64 bits of hash * blocks
//	bit i, 0 <= i < 6 top 9 bits of (low 32 bits of hash) * 0x9E3779B9^i mod 2^32; bit b is bit b%64 of word b/64
//
// A filter has 10 bits a key, rounded up to whole blocks, and says "maybe" of one absent key in about 104 (measured:
// 0.97 %). A binary fuse filter with fingerprints of 8 bits has 9 bits a key and one in 256, but takes 56 ns and 33
// bytes of working memory a key to build where this takes 7 ns and none (a million keys, one machine). A flush builds one
// while writers wait for its memory, and a wrong "maybe" costs no more than one search.
//
// # File
//
// Integers are little-endian.
//
//	+------------------+----------+------------+-----------+------------------+------------+----------------+
//	| "FLTKEYS1" 8 B   | keys u64 | blocks u64 | probes u32 | crc32c u32 of    | 0, 28 B    | crc32c u32 of  |  64 bytes
//	|                  |          |            | = 6        | all blocks       |            | the 60 before  |
//	+------------------+----------+------------+-----------+------------------+------------+----------------+
//	| blocks * 64 bytes: 8 words u64 each                                                                   |
//	+-------------------------------------------------------------------------------------------------------+
//
// # Memory
//
// A filter that is opened lies where its store can map it, else on the Go heap.
//
// # Concurrency
//
// Add belongs to one goroutine; after the last Add, or Open, a Filter is safe for concurrent use until Close. There are
// no goroutines and no locks.
package keyfilter
