package btree

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

const (
	dataFile   = "page_data.lance"
	lookupFile = "page_lookup.lance"

	metaPageRows    = "batch_size"
	metaPartitioned = "range_partitioned"

	// defaultPageRows is Lance's own choice: a page of integers is then 64 KiB, about one read of a disk.
	defaultPageRows = 4096
	maxPageRows     = 1 << 20
)

// WriterOptions tune a Writer. The zero value is the default.
type WriterOptions struct {
	// PageRows is the number of rows of a page; default 4096, at most 1,048,576. Fewer make the table of pages
	// larger, more make a point lookup read more.
	PageRows int
}

// File is one file of an index.
type File struct {
	// Path is relative to the folder of the index.
	Path string
	// Bytes is the size of the file.
	Bytes int64
}

// Writer writes an index from values that come in order. It must be ended by Finish or Abort.
type Writer struct {
	st       object.Store
	dir      string
	value    arrow.DataType
	pageRows int64

	data *lance.Writer
	rows int64
	// last is the last value added, one row, nil before the first that is not null.
	last arrow.Array
	// pages collects the table of pages.
	pages *pageBuilder
}

// Create begins an index of values of a type in a folder of its own.
func Create(ctx context.Context, st object.Store, dir string, value arrow.DataType, o WriterOptions) (*Writer, error) {
	if err := supported(value); err != nil {
		return nil, fmt.Errorf("create index %s: %w", dir, err)
	}
	if o.PageRows == 0 {
		o.PageRows = defaultPageRows
	}
	if o.PageRows < 0 || o.PageRows > maxPageRows {
		return nil, fmt.Errorf("create index %s: pages of %d rows are out of bounds 1 to %d", dir, o.PageRows, maxPageRows)
	}
	data, err := lance.Create(ctx, st, path.Join(dir, dataFile), dataSchema(value), lance.WriterOptions{})
	if err != nil {
		return nil, fmt.Errorf("create index %s: %w", dir, err)
	}
	return &Writer{
		st: st, dir: dir, value: value, pageRows: int64(o.PageRows), data: data, pages: &pageBuilder{value: value},
	}, nil
}

func dataSchema(value arrow.DataType) *lance.Schema {
	return &lance.Schema{Fields: []lance.Field{
		{ID: 0, Name: "values", Type: value, Nullable: true},
		{ID: 1, Name: "ids", Type: arrow.PrimitiveTypes.Uint64},
	}}
}

func lookupSchema(value arrow.DataType) *lance.Schema {
	return &lance.Schema{Fields: []lance.Field{
		{ID: 0, Name: "min", Type: value, Nullable: true},
		{ID: 1, Name: "max", Type: value, Nullable: true},
		{ID: 2, Name: "null_count", Type: arrow.PrimitiveTypes.Uint32},
		{ID: 3, Name: "page_idx", Type: arrow.PrimitiveTypes.Uint32},
	}}
}

// Add appends values, which are in order, nulls first, and go on from those of the call before, with the id of each.
// It retains values as long as it needs them and copies ids.
func (w *Writer) Add(ctx context.Context, values arrow.Array, ids []uint64) error {
	if values.Len() != len(ids) {
		return fmt.Errorf("add to index %s: %d values with %d ids", w.dir, values.Len(), len(ids))
	}
	if len(ids) == 0 {
		return nil
	}
	if err := w.check(values); err != nil {
		return fmt.Errorf("add to index %s: row %d: %w", w.dir, w.rows, err)
	}
	idb := array.NewUint64Builder(memory.DefaultAllocator)
	defer idb.Release()
	idb.AppendValues(ids, nil)
	idArray := idb.NewArray()
	defer idArray.Release()
	rec := array.NewRecordBatch(dataSchema(w.value).Arrow(), []arrow.Array{values, idArray}, int64(len(ids)))
	defer rec.Release()
	if err := w.data.Write(ctx, rec); err != nil {
		return fmt.Errorf("add to index %s: %w", w.dir, err)
	}
	if err := w.cut(values); err != nil {
		return fmt.Errorf("add to index %s: %w", w.dir, err)
	}
	return nil
}

// check refuses values that would break the order: a search in them would miss rows without a word.
func (w *Writer) check(values arrow.Array) error {
	if !arrow.TypeEqual(values.DataType(), w.value) {
		return fmt.Errorf("values are %s, expected %s", values.DataType(), w.value)
	}
	nulls := values.NullN()
	if nulls > 0 && w.last != nil {
		return errors.New("nulls come first in an index")
	}
	for i := range nulls {
		if values.IsValid(i) {
			return errors.New("nulls come first in an index")
		}
	}
	if nulls == values.Len() {
		return nil
	}
	c, err := view(values)
	if err != nil {
		return err
	}
	if w.last != nil {
		before, err := view(w.last)
		if err != nil {
			return err
		}
		if c.compare(nulls, before, 0) < 0 {
			return errors.New("the value is below the last of the call before")
		}
	}
	if at := c.disorder(nulls); at < values.Len() {
		return fmt.Errorf("value %d is below the one before it", at)
	}
	return nil
}

// cut notes the first and last value of each page that begins or goes on in values.
func (w *Writer) cut(values arrow.Array) error {
	for off := 0; off < values.Len(); {
		n := min(values.Len()-off, int(w.pageRows-w.rows%w.pageRows))
		if w.rows%w.pageRows == 0 {
			w.pages.begin()
		}
		if err := w.pages.extend(values, off, n); err != nil {
			return err
		}
		w.rows += int64(n)
		off += n
	}
	if at := values.Len() - 1; values.IsValid(at) {
		last, err := copyRow(values, at)
		if err != nil {
			return err
		}
		w.release()
		w.last = last
	}
	return nil
}

func (w *Writer) release() {
	if w.last != nil {
		w.last.Release()
		w.last = nil
	}
}

// Finish completes the index, makes it durable and lists its files. After an error only Abort may be called.
func (w *Writer) Finish(ctx context.Context) ([]File, error) {
	files, err := w.finish(ctx)
	if err != nil {
		return nil, fmt.Errorf("finish index %s: %w", w.dir, err)
	}
	w.release()
	w.pages.release()
	return files, nil
}

func (w *Writer) finish(ctx context.Context) ([]File, error) {
	data, err := w.data.Finish(ctx)
	if err != nil {
		return nil, err
	}
	lookup, err := lance.Create(ctx, w.st, path.Join(w.dir, lookupFile), lookupSchema(w.value), lance.WriterOptions{Metadata: map[string]string{
		metaPageRows:    strconv.FormatInt(w.pageRows, 10),
		metaPartitioned: "false",
	}})
	if err != nil {
		return nil, err
	}
	defer lookup.Abort()
	rec, err := w.pages.record(lookupSchema(w.value).Arrow())
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	if rec.NumRows() > 0 {
		if err := lookup.Write(ctx, rec); err != nil {
			return nil, err
		}
	}
	info, err := lookup.Finish(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.st.SyncDirs(ctx, path.Join(w.dir, lookupFile)); err != nil {
		return nil, err
	}
	return []File{{Path: dataFile, Bytes: data.Bytes}, {Path: lookupFile, Bytes: info.Bytes}}, nil
}

// Abort removes what was written. After a Finish that succeeded it does nothing.
func (w *Writer) Abort() {
	w.data.Abort()
	w.release()
	w.pages.release()
}
