// Package btree reads and writes Lance's BTREE index: the values of one column in order, with the id of each row.
//
// An index is a folder of two Lance files.
//
//	page_data.lance     +-------------------+------------+   sorted by value, nulls first; rows
//	                    | values T nullable | ids uint64 |   [p*batch_size, (p+1)*batch_size) are page p
//	                    +-------------------+------------+
//	page_lookup.lance   +-------+-------+-------------------+-----------------+   one row per page, in order;
//	                    | min T | max T | null_count uint32 | page_idx uint32 |   metadata batch_size = "4096"
//	                    +-------+-------+-------------------+-----------------+   and range_partitioned = "false"
//
// The minimum of a page is its first row and the maximum its last, so a page with nulls has no minimum and a page of
// nothing but nulls has no maximum either. What an id is, the owner decides: row addresses in an index of a table, row
// offsets in the _pk_index of a generation.
//
// A "page" is this logical page of batch_size rows, the unit in which Lance loads the index. The pages of the Lance
// files themselves are larger and of no interest here.
//
// Floats are in the total order of IEEE 754: NaNs with a sign first, -0 before +0, the other NaNs last.
//
// INVARIANT: values are in order over the whole file, equal values included in runs that may cross pages. Writer
// refuses values that are not.
//
// # Lookups
//
// Keys come in bulk and in order. The search gallops: it doubles its steps from where the last key was found, over
// pages first and then inside a page, so n keys in an index of N rows cost about min(n log N, n + N) comparisons, and
// pages between two keys are never touched.
//
// # Memory
//
// An open index holds the minima and maxima of its pages, one value in two thousand. Pages of values come from the
// Lance reader, which maps files where it can.
//
// # Concurrency
//
// An Index is safe for concurrent use until Close; a Writer belongs to one goroutine. No goroutines, no locks.
//
// # Errors
//
// Bytes that cannot be an index are an object.CorruptError. A column type without an order here is refused when the
// index is created or opened.
package btree
