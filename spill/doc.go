// Package spill keeps what must not stay in memory in side files: many streams of bytes in one local file, each appended
// to in small pieces and read back in order, gone when it is closed.
//
// It is made for the metadata of pages. A lance.Writer learns of its pages while it writes them and needs to write down
// what it learned at the end, column by column; a shuffle has thousands of columns open, whose pages come in turn. Kept in
// memory, that grows with every row. Kept here, what stays in memory is a buffer of a set size and 16 bytes for each
// chunk, however much was appended.
//
// # The file
//
// A side file is chunks and nothing else: no header, no padding, no footer.
//
//	+------------------+------------------+-----+------------------+
//	| chunk 0: n bytes | chunk 1: n bytes | ... | chunk k: n bytes |   offset 0 up, each directly behind the one before
//	+------------------+------------------+-----+------------------+
//
// A chunk is a run of bytes of one stream: one or more whole pieces, each as it was given to Append. Chunks of all streams
// lie in the order in which their buffers became full. Which stream a chunk belongs to and where it lies is not in the
// file but in memory, for each chunk of a stream, in order:
//
//	+--------------+------------+-------------------+
//	| u64 position | u32 length | u32 CRC32C of it  |   16 bytes
//	+--------------+------------+-------------------+
//
// A file lives no longer than the process that wrote it, so nothing in it has to explain itself. The checksum is in memory
// because there it costs nothing (the 12 bytes would take 16 anyway) and proves more: a chunk that is read from a wrong
// place, or is an older one's, has a sound checksum of its own. Nothing is decoded from the disk but what the caller put
// there, and that only after its checksum was right.
//
// What the pieces are is the caller's business. Those of lance.Writer are described with its option SpillPages: for each
// column of a file one stream of page messages, each behind its tag and its length as it will stand in the column's
// metadata, and one stream of the checksums of the pages' buffers.
//
// # Memory
//
// Options.BufferBytes, 256 KiB by default, is divided evenly over the streams, with at least 64 bytes for each. A stream's
// buffer is allocated as it is used and never grows beyond its part: a piece that does not fit has the buffer written out
// first, and one that is larger than the whole part goes to the file at once, as a chunk of its own. The file is made
// with its first chunk; what fits into the buffers never touches the disk.
//
// INVARIANT: a File holds at most max(BufferBytes, 64 bytes a stream) of what was appended, 16 bytes for each chunk, and
// while it is read one chunk.
//
// # Life
//
// Side files lie in a Folder, which is a folder of its own name below the one for temporary files. That is always a local
// one, also when what is being built goes to a bucket: a side file is read back in pieces of some hundred bytes.
// Nothing is ever synced. A file is removed by its Close, whatever happened before, and everything in a Folder by the
// Folder's; what a crash leaves is swept with the rest of the temporary files when the process starts again.
//
// A Quota bounds what may lie in all folders that share it, side files and other scratch files alike. Who would exceed it
// gets ErrQuota before a byte is written; the disk being full is the error that the system has for it.
//
// # Errors
//
// An error of Append stays: what was written is unknown, so each later call returns it again, and only Close is left. A
// chunk that comes back short or with another checksum is an object.CorruptError with file and offset.
//
// # Concurrency
//
// A File belongs to one goroutine. A Folder and a Quota are safe for concurrent use and have no locks. No goroutines are
// started.
package spill
