// Package ivf reads and writes Lance's indexes over vectors of the kinds IVF_PQ and IVF_FLAT: the rows of a column by the
// partition whose centroid is nearest, each as a code or as it is.
//
// An index is a folder of two Lance files. What a model (vector.IVF) says of a row, its partition and its code, is what the
// rows are stored by.
//
//	index.idx       +---------------------------------+   no rows; metadata lance:index = {"type":"IVF_PQ",
//	                | __flat_marker uint64            |   "distance_type":"l2"}, lance:ivf = "1", lance:flat = an
//	                +---------------------------------+   array with "" for each partition
//	                global buffer 1: lancepb.IVF with the centroids, a tensor [partition, element]; offsets and lengths are zeros
//
//	auxiliary.idx   +---------------+------------------------------------+   partition by partition, back to back;
//	                | _rowid uint64 | __pq_code uint8[code bytes]        |   metadata distance_type, lance:ivf = "1",
//	                |               | or, in IVF_FLAT, flat T[dimension] |   storage_metadata = an array of one string
//	                +---------------+------------------------------------+   with JSON in it
//	                global buffer 1: lancepb.IVF with the first row and the number of rows of each partition
//	                global buffer 2: the codebook, a tensor [code words, element], in memory [sub-vector][code word][element];
//	                not in IVF_FLAT
//
// storage_metadata is {"codebook_position":2,"nbits":8,"num_sub_vectors":16,"dimension":128,"codebook_tensor":[],"transposed":true}
// or, in IVF_FLAT, {"dim":128}. With "transposed" the codes of a partition of n rows stand in columns: byte 0 of all of its rows, then byte 1
// of all, so a value of __pq_code is that of no row, and only the partition as a whole means something. With 4 bits a byte is two sub-vectors,
// the even one in its low half. In IVF_FLAT the rows are as they came, under cosine scaled to length 1.
//
// Tensors and flat rows have the type of the column's elements: float16, float32 or float64. Here they become float32.
//
// # Kinds of others
//
// IVF_SQ has the elements of its vectors as bytes, in a column __sq_code uint8[dimension], with storage_metadata
// {"dim":16,"num_bits":8,"bounds":{"start":-4.03,"end":4.41}}: byte 0 is the lower bound, 255 the upper, and what lies between is rounded down.
// An IVF_FLAT under hamming has bytes as they are, flat uint8[dimension], and its centroids are a tensor of bytes. IVF_HNSW_PQ, IVF_HNSW_FLAT and
// IVF_HNSW_SQ have the auxiliary.idx of the kind without HNSW, and in index.idx a graph of each partition. They are read, checked and searched, the
// partitions row by row without the graph, but not made: Index.Extensible tells.
//
// INVARIANT: partitions lie back to back in order, and have all rows of the file. An index that says otherwise is damaged.
//
// An id is a row id of the table, which is a row address unless the table has stable row ids. Rows that were deleted since stay in an index
// until it is merged; the owner knows them.
//
// # The shuffle
//
// A build takes rows in the order of the table and writes them in that of their partitions. In between they go through a shuffler, which
// holds as much of them as ShuffleOptions.BufferBytes and no more, however many rows and partitions there are. There are two layouts; both
// give back the ids and codes of a partition in the order in which they came, so an index does not depend on the layout.
//
// groupShuffle, which builds use, fills a buffer outside the Go heap, sorts it by partition (by counting), and appends it to one file as
// a group:
//
//	rows.lance      +---------------+-------------------+   Lance 2.0, pages of 1 MiB, WriterOptions.SpillPages
//	                | _rowid uint64 | code uint8[width] |   group 1: the rows of partition 0, of 1, …; group 2: those of partition 0, …
//	                +---------------+-------------------+
//	                global buffer g, from 1: for each partition u64 the row of the file behind its last of group g
//
// Partitions are read back in windows: neighbours whose rows fit into BufferBytes together, which is one range of rows in each group.
// The file is mapped, so a window is slices of it. If all rows fit into the buffer there is no file. In memory are the buffer or a window,
// 12 bytes for each partition, and the metadata of pages as package spill bounds it; open are the file and its side file.
//
// writerShuffle has a lance.Writer for each partition that has rows, each with its side file, and writes each group as a page of each
// column of each partition. It is kept as an oracle and as what the other is measured against: it takes two open files and 10 KiB of memory
// for each partition, and with small groups its pages are as small as what is known of them. That is where the spilled metadata shows.
//
// Records of id and code, one behind the other, instead of a Lance file were measured (recordShuffle, in the tests): 3 million rows with codes
// of 16 bytes in 4,096 partitions take as much processor time to write and ten times that to read, since nothing of them can be used in place.
//
// One file with columns for each partition would have one open file, too, and no ranges to look for. But the schema, the table of columns
// and the buffers of what is spilled are then as long as there are partitions (65,536 partitions are 131,072 columns: 30 MB of
// buffers at 64 bytes a stream, and as much again of schema when the file is opened), and each group still writes a page for each of them, of a few rows,
// padded to 64 bytes and described by 110. It has the costs of writerShuffle but for the handles, so it was not built.
//
// The scratch files lie in a folder of BuildOptions.Scratch, which is always local. They are gone when the build has ended, in whatever
// way, and after a crash are swept with all temporary files. The index's own file spills what is known of its pages there, too.
//
// # Too few rows, and rows of no use
//
// A sample with fewer rows than the partitions that are wanted gives as many partitions as it has rows, as pylance does. With fewer rows than
// there are code words these are the rows, again and again (pylance leaves such an index untrained). Without any row there is no model:
// ErrNoRows. Rows with NaN or infinity, rows whose length overflows, and zeros under cosine are in no index, as in Lance.
//
// # Drift
//
// New rows get the partitions of an old model. Where they lie elsewhere, few partitions take most of them, and a search looks at more
// rows. Imbalance is by how much: partitions times the sum of the squares of their sizes, over the square of the sum. Drifted says to train again when an
// index has half as many rows again as when it was trained, and twice the imbalance that it had then. The second condition is relative since training
// cannot mend what lies in the data: when all vectors are equal, all are in one partition for ever. What it compares with is the
// metadata flightd:trained of index.idx, {"rows":…,"imbalance":…}; without it, as in indexes of others, an imbalance of 2.
//
// # Memory
//
// A build holds the shuffle's buffer, and before that what training needs beside its sample: the centroids three times, 24 bytes for each row of
// the sample, and a sub-vector of it for each worker. The sample itself, at most 64 MiB, lies in a temporary file that is mapped and has no name.
//
// A partition of more than 8 MiB (all vectors equal: one with all rows) is written, merged, checked and searched in pieces. As its codes stand
// in columns, a piece of the file needs bytes of many rows, so the rows are gone through once for each piece.
//
// An open index holds the centroids and the codebook twice, which indexes with one Models share if they are the same, and of the partitions those that were probed last, up to
// Options.CacheBytes. Of a mapped file they are slices. A search holds the distances of one partition and what it found.
//
// # Concurrency
//
// An Index is safe for concurrent use until Close; a Search belongs to one goroutine. The lock of the cache is held for moments,
// never while something is read.
//
// # Errors
//
// Bytes that cannot be an index are an object.CorruptError. What is an index, but of another kind (RQ), is lance.ErrUnsupported: who has such an
// index searches without it.
package ivf
