// Package bitmap reads Lance's BITMAP index: for each value of a column, which rows have it. LABEL_LIST is the same
// over the items of lists: a row is in the bitmap of each item of its list. flightd writes neither; other programs do.
//
// An index is a folder with one Lance file.
//
//	bitmap_page_lookup.lance   +-----------------+----------------+   one row per value, the null among them;
//	                           | keys T nullable | bitmaps binary |   no order is promised
//	                           +-----------------+----------------+
//
// A bitmap is a set of row addresses, fragment << 32 | row, all integers little-endian (Lance's RowAddrTreeMap):
//
//	+-----------+   n times: +--------------+-----------+------------------------+
//	| n uint32  |            | fragment u32 | bytes u32 | portable roaring bitmap |
//	+-----------+            +--------------+-----------+------------------------+
//
// where 0 bytes stand for all rows of the fragment.
//
// # Memory
//
// An open index holds its values, at most maxKeyBytes of them; more is no index that helps, and is refused. A bitmap
// is read when a search meets its value, one at a time.
//
// # Concurrency
//
// An Index is safe for concurrent use until Close. No goroutines, no locks.
//
// # Errors
//
// Bytes that cannot be an index are an object.CorruptError; a column type that package btree does not order is refused
// with btree.ErrUnsupported.
package bitmap
