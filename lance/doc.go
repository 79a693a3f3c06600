// Package lance reads and writes one Lance file: what a table's fragments and indexes are made of. It reads and writes
// formats 2.0, 2.1 and 2.2, the later ones with compression if it is asked for.
//
// Version 2.0 is written because every reader of Lance accepts it and because its buffers are Arrow's own: a write is a
// header and Arrow's buffers as they are, a read is a mapping and a slice of it. A benchmark (no disk) encodes 3 to 19
// GB/s and decodes strings at 10 GB/s; the checksums cost a read 15 GB/s once for each page. Nothing outside this
// package knows that a page is a slice of a mapping: formats that must be decoded, and stores that cannot map, come
// into it as other codecs and sources.
//
// # The file
//
//	+----------------------------------------------------------------------------------+
//	| page buffers and user global buffers, in any order, each at a multiple of 64     |
//	+----------------------------------------------------------------------------------+
//	| checksums: the last user global buffer (ours alone, others skip it)              |
//	| global buffer 0: lancepb.FileDescriptor, the schema and the number of rows       |
//	| lancepb.ColumnMetadata of column 0 | ... | of column n-1: its pages              |
//	+----------------------------------------------------------------------------------+
//	| column table: for each column                  u64 offset | u64 size             |
//	| global buffer table: for each, schema first    u64 offset | u64 size             |
//	+----------------------------------------------------------------------------------+
//	| footer, 40 bytes:                                                                |
//	|   u64 offset of the metadata of column 0 (readers need only the table)           |
//	|   u64 offset of the column table | u64 offset of the global buffer table         |
//	|   u32 global buffers | u32 columns | u16 major = 0 | u16 minor = 3 | "LANC"      |
//	+----------------------------------------------------------------------------------+
//
// All numbers are little-endian, and so is the machine: offsets and values are used as they lie in the file. The pair
// 0, 3 is how a file says 2.0; the manifest of a table says 2, 0 for the same file.
//
// # Pages
//
// A column is a list of pages, each a run of rows with the same layout. The layouts, by their messages:
//
//	Nullable(Flat)                  [validity bitmap,] values: all types of one width; bool is a bitmap
//	Nullable(FixedSizeList(..Flat)) [validity of rows,] [validity of items,] values
//	Nullable(all nulls)             nothing; also as the items of a list
//	Binary                          u64 end offset of each row, then the bytes; no validity: the end offset of a
//	                                null row is that of the row before plus the page's null adjustment, which is more
//	                                than any end offset
//	Dictionary(Flat 8, Binary)      u8 for each row, 0 for null, else the item's number plus 1; then the items. Other
//	                                writers choose it by themselves for few distinct strings; we only read it
//	Dictionary(Flat 32 or 64, Binary) in a column of dictionary type: the item's number for each row; one of the items
//	                                may be null. Others write numbers of 8 and 16 bits, too
//	List(Flat 64)                   u64 end offset of each row among the items of the page, a null row as with Binary;
//	                                the page says how many items it has, which are in the column below
//	SimpleStruct                    nothing: the header of structs, one page for the whole column
//
// # Nested columns
//
// Each field of the schema's tree has a column, a nested one behind its parent's, so that lists of structs of a and b are
// four columns: offsets, header, a, b. Fixed-size lists are one column. Structs cannot be null in 2.0, so a null struct
// is refused when it is written; lists can. A page of items never holds items of two pages of offsets: readers rely on
// it. A Writer cuts the pages of all columns of a tree together, which is the simplest way to that; a Reader lets the
// pages of fields and items end where they want. The batches of a scan end where a page of any field or of any items
// ends, so that items are not copied either; a list with items in several pages is a batch of one row, and they are.
//
// # Versions 2.1 and 2.2
//
// The file is the same, the pages are not. Only leaves of the schema's tree have columns. The structure around them, null
// rows included, is in each page of a leaf as repetition and definition levels, which count from the inside: levels.go.
// A page has one of these layouts:
//
//	mini-blocks  small values in chunks of some thousand, each compressed on its own (structural.go)
//	full zip     large values, each behind its levels; without levels Arrow's own array, which is not copied (fullzip.go)
//	constant     one value for all, or null for all (constant.go)
//
// and one or several of these encodings for its values: flat, lists of one length, bits packed in FastLanes order, strings
// behind their offsets, FSST, runs, byte streams, LZ4, ZSTD, and a dictionary for the page (block.go). Where the chunks of
// a page are is read once and kept, as is its dictionary; a chunk is decoded each time. Scattered rows cost the chunks
// they lie in. A batch of a scan ends with a page of any leaf, or after about 4 MiB.
//
// What is written in 2.2 is plain unless WriterOptions.Compress is set: flat values and strings in chunks with 32-bit
// sizes, levels of 16 bits as they are, values of 256 bytes and more zipped unless they are items of lists, and constant
// pages only for nulls. Pages with lists are cut so that their levels fit one chunk.
//
// In 2.1 the sizes of chunks have 12 bits, in words of 8 bytes, and those of their buffers 16: a chunk has 32 KiB at most,
// and fewer values where they do not fit. Levels are always packed, dictionaries are those of strings and not compressed.
//
// A page is zipped, too, where two values do not fit one chunk: in 2.1 because they are large, in both because more than
// 65,535 lists between them are null or empty. Booleans are zipped as bytes of 0 or 1. Only dictionaries and fixed-size
// lists of booleans cannot be zipped; a batch with a row that would need it is refused (rowcheck.go).
//
// # Compression
//
// A Writer that compresses measures the values of each page and takes what is smallest, unless that saves less than a
// sixteenth (compress.go):
//
//	values of 8 to 64 bits   packed, 1,024 in as few bits as the widest of them needs; or runs of at most 255; or, from 32
//	                         bits on, a dictionary
//	strings                  a dictionary; or FSST (Boncz, Neumann, Leis: FSST: Fast Random Access String
//	                         Compression, VLDB 2020), with a table of symbols for the page, chosen by 16 KiB of it
//	levels                   packed in as many bits as the layers need
//
// A dictionary has at most 65,536 distinct values and 1 MiB of strings, with LZ4 where that helps; its numbers are packed
// or runs. Vectors and other lists of one length, bool and values of more than 64 bits stay as they are. No page is compressed as
// a whole, so a row costs the chunk it lies in.
//
// # Dictionary and extension types
//
// A field whose metadata have [MetaDictionary] is a dictionary of its type: callers see and give plain values, the file
// has a dictionary in each page, with indices of 32 bits or more, and other readers see a dictionary type. Dictionaries of anything but strings and bytes, and those of a key, are stored as their values. Extension types
// are metadata of their fields; arrow.json is stored under another name, see extension.go.
//
// # Forms that others choose
//
// A field's metadata, or Lance's name of its type, can ask for another form than the type's: JSON of Lance, which is binary
// and read as text (jsonb.go); blobs, which lie outside the pages, in 2.2 in files beside the data file, too, and are read as
// bytes (blob.go); packed structs, whose fields share a column (packed.go); and dictionaries of values of one width. They
// are read as what they stand for. What says the form is no metadata of the field that is read, so a copy of the table has none
// of it. A Writer goes on in the form of a schema that a file or manifest had, or that StoredAs made from one: rows are laid out
// as binary JSON, or as values of one width, before they are gathered for pages, and pages of numbers have dictionaries
// (formwrite.go). It writes neither blobs nor packed structs with fields that vary in length: Schema.Writable names the
// column.
//
// # The size of pages
//
// A Writer cuts a page when it has PageBytes bytes, at the roundest row of the upper half, so that the pages of columns
// of different width mostly end together and a scan, whose batches end at every page of every column it reads, is not
// cut into slivers.
//
// # What a Writer knows of its pages
//
// The metadata of all columns is written at the end, and grows until then by 100 to 150 bytes for each page and by 4 for
// each of its buffers. That is little for one file with pages of 8 MiB, and more than the rows for thousands of files with
// pages of a few rows. WriterOptions.SpillPages puts it into a side file (package spill), which changes nothing in what is
// written. The side file has two streams for each column of the file:
//
//	stream 2c      for each page of column c: 0x12 | varint n | n bytes of lancepb.Page
//	stream 2c+1    for each page of column c: u32 CRC32C of each of its buffers
//
// 0x12 is the tag of ColumnMetadata.pages: a column's metadata is what comes before its pages, the same for all columns,
// and the bytes of its stream as they are. The length and the checksum of the metadata are kept up with each page. So the
// end reads each stream once, the checksums of all columns first, which stand in front in the file, and decodes nothing.
// 256 KiB, or SpillBytes, are divided evenly over the columns, for both streams of each, with at least 64 bytes for a
// stream.
// INVARIANT: with SpillPages a Writer holds of its pages these buffers, 16 bytes for each chunk that left them, and while
// it ends one chunk; not the pages of a column, nor of all.
//
// # Checksums
//
// Lance has none. Ours are CRC32C (Castagnoli) of every part of the file:
//
//	+-----------------+------------+--------------------+----------------+------------------------------+
//	| "fd-crc3" u8(1) | u32 schema | u32 globals = g    | u32 columns = n | g x u32 user global buffers |
//	+-----------------+------------+--------------------+----------------+------------------------------+
//	| n x (u32 column metadata | u32 buffers = b | b x u32 page buffers, page by page)                  |
//	+---------------------------------------------------------------------------------------------------+
//	| u32 of all bytes above                                                                            |
//	+---------------------------------------------------------------------------------------------------+
//
// The schema's metadata has the number of the global buffer and its offset in the file under "flightd:checksums", as "2@75072".
// A file with an entry whose place has no checksums is one that another program wrote with the metadata of ours: it has none. The tables and the footer need no checksum of
// their own: a change to them points at something else, which then fails its own. What is left are the bytes between
// buffers and the first number of the footer, which nobody reads. A page is verified when it is first read, Verify
// reads all; files of others are read without.
//
// # Memory and concurrency
//
// A Reader is safe for concurrent use, without locks: what it learns of a column or a page is the same whoever learns it
// first. A Writer and a Scanner belong to one goroutine each. A Scanner of a file that is not mapped reads with one goroutine for
// each column, all at once and one batch ahead of the caller, which Close awaits; others start none.
//
// Arrays over a mapping retain it: Close of the Reader and Release of the batches may come in any order, and the file is
// unmapped at the last of them. Buffers that are made, such as the offsets of strings, come from ReaderOptions.Alloc.
//
// Of a file that cannot be mapped, pages are read in parts once their checksums were verified (those of others have none).
// Of 2.1 and 2.2: the chunks or values that are asked for, with what lies in small gaps between them, up to 4 MiB at a time
// (window.go). Of 2.0: the bytes of the rows, as if the page had no others, with the rows in small gaps; a scan takes about
// 4 MiB of a column at a time (part.go). Only pages that are compressed as a whole, which are others', are read whole. The
// first look at a page of ours reads all of it, at most 8 MiB, because its checksum is of all of it. A scan holds a batch of
// each column, which is decoded in pieces of about 4 MiB, and the next one of a file that is not mapped; in a mapped file nothing
// for what is not decoded. There is no cache here: that of a mapped file is the system's page cache.
// INVARIANT: arrays leave this package with their number of nulls known, and that of what is nested in them, because
// Arrow counts it on demand without a lock, and batches are shared.
// INVARIANT: no length or offset from a file is used before it is bounded by the size of the file, and no memory is
// asked for that is not in proportion to it: null rows, which take no room in a file, are made by the megabyte. The items
// of one list must be made at once, so a Writer writes long runs of null items in full.
//
// # Errors
//
// Bytes that cannot be right are an object.CorruptError with the offset, in Open or when they are first needed. What is
// right by the format but not by this package is ErrUnsupported: blobs that lie outside the dataset or in lists, packed
// structs with fields that are nested or, in records, compressed; in 2.0 compressed pages of anything but strings by ZSTD;
// anywhere fixed-size lists of anything but values of one width, and other versions. A batch that does not fit the schema is refused by Writer.Write as a whole, naming the column.
package lance
