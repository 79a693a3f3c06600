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
	// large is largeBytes but in tests.
	large int64
}

// defaultCacheBytes holds the codes of a million rows of 16 bytes.
const defaultCacheBytes = 32 << 20

// Index is an open index.
type Index struct {
	dir    string
	kind   Kind
	model  *vector.IVF
	elem   element
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
	centroids, metric, err := x.readIndex(ctx)
	if err != nil {
		return x.corrupt(IndexFile, err)
	}
	if err := x.readData(ctx, centroids, metric); err != nil {
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

func (x *Index) readIndex(ctx context.Context) (*vector.Centroids, vector.Metric, error) {
	kind, metric, err := readMeta(x.index)
	if err != nil {
		return nil, 0, err
	}
	m, err := readIVF(ctx, x.index)
	if err != nil {
		return nil, 0, err
	}
	x.kind, x.loss = kind, m.GetLoss()
	c, e, err := readCentroids(m, metric)
	x.elem = e
	return c, metric, err
}

func (x *Index) readData(ctx context.Context, c *vector.Centroids, metric vector.Metric) error {
	var pq *vector.PQ
	var err error
	if x.kind == PQ {
		if pq, x.columns, err = readPQ(ctx, x.data); err != nil {
			return err
		}
		x.width = pq.CodeBytes()
	} else {
		x.width = c.Dim() * x.elem.bytes
	}
	if m := x.data.Metadata()[metaMetric]; m != metric.String() {
		return fmt.Errorf("rows are under %q, the centroids under %q", m, metric)
	}
	if x.model, err = vector.NewIVF(metric, c, pq); err != nil {
		return err
	}
	if err := checkColumns(x.data.Schema(), dataSchema(x.kind, x.width, c.Dim(), x.elem)); err != nil {
		return err
	}
	m, err := readIVF(ctx, x.data)
	if err != nil {
		return err
	}
	x.starts, err = readPartitions(m, c.Len(), x.data.Rows())
	return err
}

// Kind is what the index keeps of its rows.
func (x *Index) Kind() Kind { return x.kind }

// Model is how rows get their partition and code.
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
		x.kind, x.elem.arrow, x.model.Dim(), x.model.Metric(), x.Rows(), len(sizes), least, most, empty); err != nil {
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
