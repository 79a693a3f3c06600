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
// INVARIANT: partitions lie back to back in order, and have all rows of the file. An index that says otherwise is damaged.
//
// An id is a row id of the table, which is a row address unless the table has stable row ids. Rows that were deleted since stay in an index
// until it is merged; the owner knows them.
//
// # Memory
//
// An open index holds the centroids and the codebook twice, and of the partitions those that were probed last, up to
// Options.CacheBytes. Of a mapped file they are slices. A search holds the distances of one partition and what it found.
//
// # Concurrency
//
// An Index is safe for concurrent use until Close; a Search belongs to one goroutine. The lock of the cache is held for moments,
// never while something is read.
//
// # Errors
//
// Bytes that cannot be an index are an object.CorruptError. What is an index, but of another kind (HNSW, SQ, RQ) or metric
// (hamming), is lance.ErrUnsupported: who has such an index searches without it.
package ivf
