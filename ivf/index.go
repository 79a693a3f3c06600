package ivf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/vector"
)

// File is one file of an index.
type File struct {
	// Path is relative to the folder of the index.
	Path string
	// Bytes is the size of the file.
	Bytes int64
}

// Options say how an index is opened. The zero value is the default.
type Options struct {
	// Files are the sizes that a manifest gives; a file that is not listed is taken as it is.
	Files []File
	// Alloc gives the memory of rows that cannot be used in place; default is that of package lance.
	Alloc memory.Allocator
	// CacheBytes bounds the partitions that are kept after they were probed, mapped or not; default 32 MiB, negative keeps
	// none.
	CacheBytes int64
	// Models shares the model with other indexes; nil does not.
	Models *Models
	// large is largeBytes but in tests.
	large int64
}

// defaultCacheBytes holds the codes of a million rows of 16 bytes.
const defaultCacheBytes = 32 << 20

// Index is an open index.
type Index struct {
	dir string
	// name is the kind, and kind the one whose rows it has: PQ, Flat or SQ.
	name, kind Kind
	metric     vector.Metric
	dim        int
	// model is that of the bits of binary vectors under hamming.
	model  *vector.IVF
	elem   element
	scalar *scalar // nil but for SQ
	data   *lance.Reader
	index  *lance.Reader
	width  int     // bytes of a row beside its id, as they are stored
	starts []int64 // of partitions; one more is the end
	// columns says that codes stand in columns in each partition.
	columns bool
	loss    float64
	large   int64
	cache   cache
	// scratches are those of searches that ended.
	scratches sync.Pool
}

// Open opens the index in a folder.
func Open(ctx context.Context, st object.Store, dir string, o Options) (*Index, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.large == 0 {
		o.large = largeBytes
	}
	x := &Index{dir: dir, large: o.large, cache: cache{limit: o.CacheBytes}}
	if err := x.open(ctx, st, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open index %s: %w", dir, err), x.Close())
	}
	return x, nil
}

func (x *Index) open(ctx context.Context, st object.Store, o Options) error {
	size := func(file string) int64 {
		for _, f := range o.Files {
			if f.Path == file {
				return f.Bytes
			}
		}
		return 0
	}
	var err error
	ro := lance.ReaderOptions{Alloc: o.Alloc}
	if x.index, err = lance.Open(ctx, st, path.Join(x.dir, IndexFile), size(IndexFile), ro); err != nil {
		return err
	}
	if x.data, err = lance.Open(ctx, st, path.Join(x.dir, dataFile), size(dataFile), ro); err != nil {
		return err
	}
	m, err := x.readIndex(ctx)
	if err != nil {
		return x.corrupt(IndexFile, err)
	}
	if err := x.readData(ctx, m, o.Models); err != nil {
		return x.corrupt(dataFile, err)
	}
	return nil
}

// corrupt says that a file cannot be what was written, unless err says what it is better.
func (x *Index) corrupt(file string, err error) error {
	var known *object.CorruptError
	if errors.As(err, &known) || errors.Is(err, errUnsupported) || errors.Is(err, object.ErrClosed) || errors.Is(err, object.ErrNotExist) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &object.CorruptError{Name: path.Join(x.dir, file), Err: err}
}

func (x *Index) readIndex(ctx context.Context) (*lancepb.IVF, error) {
	kind, metric, err := readMeta(x.index)
	if err != nil {
		return nil, err
	}
	m, err := readIVF(ctx, x.index)
	if err != nil {
		return nil, err
	}
	x.name, x.kind, x.metric, x.loss = kind, kind.rows(), metric, m.GetLoss()
	return m, nil
}

func (x *Index) readData(ctx context.Context, index *lancepb.IVF, shared *Models) error {
	if m := x.data.Metadata()[metaMetric]; m != x.metric.String() {
		return fmt.Errorf("rows are under %q, the centroids under %q", m, x.metric)
	}
	var book *pqBook
	var err error
	if x.kind == PQ {
		if book, err = readPQ(ctx, x.data); err != nil {
			return err
		}
		x.columns = book.meta.Transposed
	}
	if err := x.readModel(index, book, shared); err != nil {
		return err
	}
	switch x.kind {
	case PQ:
		x.width = x.model.CodeBytes()
	case SQ:
		x.width = x.dim
		if x.scalar, err = readScalar(x.data, x.dim); err != nil {
			return err
		}
	default:
		x.width = x.dim * x.elem.bytes
	}
	if err := checkColumns(x.data.Schema(), dataSchema(x.kind, x.width, x.dim, x.elem)); err != nil {
		return err
	}
	m, err := readIVF(ctx, x.data)
	if err != nil {
		return err
	}
	x.starts, err = readPartitions(m, x.model.Partitions(), x.data.Rows())
	return err
}

// readModel makes the model, or takes one that is the same.
func (x *Index) readModel(index *lancepb.IVF, book *pqBook, shared *Models) error {
	key := newModelKey(x.metric, index, book)
	if index.GetCentroidsTensor() != nil {
		x.model = shared.get(key)
	}
	var err error
	if x.model == nil {
		if x.model, err = decodeModel(x.metric, index, book); err != nil {
			return err
		}
		if index.GetCentroidsTensor() != nil { // the key is of nothing else
			x.model = shared.put(key, x.model)
		}
	}
	x.dim, x.elem = x.model.Dim(), elements[0]
	switch t := index.GetCentroidsTensor(); {
	case x.metric == vector.Hamming:
		x.dim, x.elem = x.dim/8, byteElement
	case t != nil:
		x.elem, err = elementOfTensor(t.GetDataType())
	}
	return err
}

// decodeModel makes a model of what the files of an index have of it.
func decodeModel(metric vector.Metric, index *lancepb.IVF, book *pqBook) (*vector.IVF, error) {
	if metric == vector.Hamming {
		c, _, err := readBinaryCentroids(index)
		if err != nil {
			return nil, err
		}
		return vector.NewIVF(vector.L2, c, nil)
	}
	c, err := readCentroids(index, metric)
	if err != nil {
		return nil, err
	}
	var pq *vector.PQ
	if book != nil {
		if pq, err = book.decode(); err != nil {
			return nil, err
		}
	}
	return vector.NewIVF(metric, c, pq)
}

// Kind is what the index keeps of its rows.
func (x *Index) Kind() Kind { return x.name }

// Metric ranks the rows.
func (x *Index) Metric() vector.Metric { return x.metric }

// Dim is the number of elements of a vector, which under hamming are bytes.
func (x *Index) Dim() int { return x.dim }

// Extensible reports whether a Builder makes indexes of this kind, so that Model says how other rows get into one, and indexes of one
// model can become one. Others are searched only.
func (x *Index) Extensible() bool {
	return x.name == x.kind && x.kind != SQ && x.metric != vector.Hamming
}

// Model is how rows get their partition and code. REQUIRES: the index is Extensible.
func (x *Index) Model() *vector.IVF { return x.model }

// Element is the type of the elements of the vectors that are indexed.
func (x *Index) Element() arrow.DataType { return x.elem.arrow }

// Partitions is the number of partitions.
func (x *Index) Partitions() int { return x.model.Partitions() }

// Rows is the number of rows, those that were deleted from the table since included.
func (x *Index) Rows() int64 { return x.data.Rows() }

// Sizes is the number of rows of each partition.
func (x *Index) Sizes() []int64 {
	sizes := make([]int64, x.Partitions())
	for p := range sizes {
		sizes[p] = x.starts[p+1] - x.starts[p]
	}
	return sizes
}

// RowBytes is the length of what is stored of a row beside its id.
func (x *Index) RowBytes() int { return x.width }

// Describe tells people what is in the index.
func (x *Index) Describe(w io.Writer) error {
	sizes := x.Sizes()
	least, most, empty := sizes[0], sizes[0], 0
	for _, n := range sizes {
		least, most = min(least, n), max(most, n)
		if n == 0 {
			empty++
		}
	}
	if _, err := fmt.Fprintf(w, "%s of %s[%d] under %s, %d rows in %d partitions of %d to %d rows, %d empty\n",
		x.name, x.elem.arrow, x.dim, x.metric, x.Rows(), len(sizes), least, most, empty); err != nil {
		return err
	}
	if pq := x.model.PQ(); pq != nil {
		layout := "rows"
		if x.columns {
			layout = "columns"
		}
		_, err := fmt.Fprintf(w, "%d sub-vectors of %d bits, %d bytes a row, in %s\n", pq.SubVectors(), pq.Bits(), x.width, layout)
		return err
	}
	return nil
}

// Close ends the use of the index. Searches that are under way must have ended.
func (x *Index) Close() error {
	x.cache.clear()
	var errs []error
	for _, r := range []*lance.Reader{x.index, x.data} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	return errors.Join(errs...)
}
