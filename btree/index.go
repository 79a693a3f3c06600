package btree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// Options say how an index is opened. The zero value is the default.
type Options struct {
	// Files are the sizes that a manifest gives; a file that is not listed is taken as it is.
	Files []File
	// Alloc gives the memory of values that cannot be used in place; default is that of package lance.
	Alloc memory.Allocator
}

// Index is an open index.
type Index struct {
	dir      string
	value    arrow.DataType
	data     *lance.Reader
	lookup   *lance.Reader
	pageRows int64

	// min and max have one row per page; minOrder and maxOrder are their ordered views.
	min, max           arrow.Array
	minOrder, maxOrder column
	nulls              []uint32
	// empty is the number of leading pages that hold nothing but nulls.
	empty int
	// least is the least value of all, one row, nil when there is none.
	least arrow.Array
}

// Open opens the index in a folder.
func Open(ctx context.Context, st object.Store, dir string, o Options) (*Index, error) {
	x := &Index{dir: dir}
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
	if x.data, err = lance.Open(ctx, st, path.Join(x.dir, dataFile), size(dataFile), ro); err != nil {
		return err
	}
	if x.lookup, err = lance.Open(ctx, st, path.Join(x.dir, lookupFile), size(lookupFile), ro); err != nil {
		return err
	}
	if err := x.checkSchemas(); err != nil {
		return err
	}
	return x.loadPages(ctx)
}

func (x *Index) corrupt(file, format string, args ...any) error {
	return &object.CorruptError{Name: path.Join(x.dir, file), Err: fmt.Errorf(format, args...)}
}

// checkSchemas refuses files that are not the two of an index.
func (x *Index) checkSchemas() error {
	data, lookup := x.data.Schema().Fields, x.lookup.Schema().Fields
	if len(data) != 2 || data[0].Name != "values" || data[1].Name != "ids" || data[1].Type.ID() != arrow.UINT64 {
		return x.corrupt(dataFile, "columns are %s, expected values and ids", x.data.Schema().Arrow())
	}
	x.value = data[0].Type
	if err := supported(x.value); err != nil {
		return err
	}
	want := lookupSchema(x.value).Fields
	if len(lookup) != len(want) {
		return x.corrupt(lookupFile, "%d columns, expected %d", len(lookup), len(want))
	}
	for i, f := range lookup {
		if f.Name != want[i].Name || !arrow.TypeEqual(f.Type, want[i].Type) {
			return x.corrupt(lookupFile, "column %q of %s, expected %q of %s", f.Name, f.Type, want[i].Name, want[i].Type)
		}
	}
	meta := x.lookup.Metadata()
	if meta[metaPartitioned] == "true" {
		return fmt.Errorf("an index in several files per range is not read yet: %w", errors.ErrUnsupported)
	}
	rows, err := strconv.ParseInt(meta[metaPageRows], 10, 64)
	if err != nil || rows <= 0 || rows > maxPageRows {
		return x.corrupt(lookupFile, "pages of %q rows", meta[metaPageRows])
	}
	x.pageRows = rows
	return nil
}

// loadPages reads the table of pages and holds it against the values.
func (x *Index) loadPages(ctx context.Context) error {
	pages := (x.data.Rows() + x.pageRows - 1) / x.pageRows
	if x.lookup.Rows() != pages {
		return x.corrupt(lookupFile, "%d pages, expected %d of %d rows for %d values", x.lookup.Rows(), pages, x.pageRows, x.data.Rows())
	}
	cols := make([][]arrow.Array, 4)
	defer func() {
		for _, list := range cols {
			for _, a := range list {
				a.Release()
			}
		}
	}()
	err := scan(ctx, x.lookup, []int{0, 1, 2, 3}, 0, pages, func(rec arrow.RecordBatch) error {
		for i := range cols {
			rec.Column(i).Retain()
			cols[i] = append(cols[i], rec.Column(i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if x.min, err = join(cols[0], x.value); err != nil {
		return err
	}
	if x.max, err = join(cols[1], x.value); err != nil {
		return err
	}
	for i, a := range cols[3] {
		places, ok := a.(*array.Uint32)
		nulls, ok2 := cols[2][i].(*array.Uint32)
		if !ok || !ok2 {
			return x.corrupt(lookupFile, "places are %s", a.DataType())
		}
		for j, place := range places.Uint32Values() {
			if int(place) != len(x.nulls) {
				return x.corrupt(lookupFile, "page %d is listed in place %d", place, len(x.nulls))
			}
			x.nulls = append(x.nulls, nulls.Value(j))
		}
	}
	return x.checkPages(ctx)
}

// checkPages holds that the pages follow each other in order. A search relies on it.
func (x *Index) checkPages(ctx context.Context) error {
	var err error
	if x.minOrder, err = view(x.min); err != nil {
		return err
	}
	if x.maxOrder, err = view(x.max); err != nil {
		return err
	}
	for x.empty < x.max.Len() && x.max.IsNull(x.empty) {
		x.empty++
	}
	for p := x.empty; p < x.max.Len(); p++ {
		if x.max.IsNull(p) || p > x.empty && x.min.IsNull(p) {
			return x.corrupt(lookupFile, "page %d has nulls behind values", p)
		}
		if x.min.IsNull(p) {
			continue
		}
		if x.minOrder.compare(p, x.maxOrder, p) > 0 || p > x.empty && x.maxOrder.compare(p-1, x.minOrder, p) > 0 {
			return x.corrupt(lookupFile, "page %d is out of order", p)
		}
	}
	return x.findLeast(ctx)
}

// findLeast looks into the first page with values when that has nulls in front of them.
func (x *Index) findLeast(ctx context.Context) error {
	if x.empty == x.max.Len() {
		return nil
	}
	if x.min.IsValid(x.empty) {
		x.least = array.NewSlice(x.min, int64(x.empty), int64(x.empty)+1)
		return nil
	}
	cur := page{number: -1}
	defer cur.release()
	if err := x.load(ctx, &cur, x.empty); err != nil {
		return err
	}
	for i := range cur.pieces {
		if c := &cur.pieces[i]; c.nulls < len(c.ids) {
			var err error
			x.least, err = copyRow(c.values, c.nulls)
			return err
		}
	}
	return x.corrupt(dataFile, "page %d has no values, its maximum says otherwise", x.empty)
}

// startsAbove reports whether all values of a page are above row k of keys.
func (x *Index) startsAbove(page int, keys column, k int) bool {
	return x.min.IsValid(page) && x.minOrder.compare(page, keys, k) > 0
}

// Rows counts the values, nulls included.
func (x *Index) Rows() int64 { return x.data.Rows() }

// Type is the type of the values.
func (x *Index) Type() arrow.DataType { return x.value }

// Bounds returns the least and the greatest value as arrays of one row, which the caller releases, or nil when there
// is none.
func (x *Index) Bounds() (least, greatest arrow.Array) {
	if x.least == nil {
		return nil, nil
	}
	x.least.Retain()
	last := int64(x.max.Len())
	return x.least, array.NewSlice(x.max, last-1, last)
}

// Describe tells people what is in the index.
func (x *Index) Describe(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "btree of %s, %d rows in %d pages of %d\n", x.value, x.Rows(), len(x.nulls), x.pageRows)
	if least, greatest := x.Bounds(); least != nil {
		fmt.Fprintf(&b, "from %s to %s\n", least.ValueStr(0), greatest.ValueStr(0))
		least.Release()
		greatest.Release()
	}
	_, err := w.Write(b.Bytes())
	return err
}

// Close ends the use of the index. Values and ids that were handed out stay valid while they are retained.
func (x *Index) Close() error {
	var errs []error
	for _, a := range []arrow.Array{x.min, x.max, x.least} {
		if a != nil {
			a.Release()
		}
	}
	x.min, x.max, x.least = nil, nil, nil
	for _, r := range []*lance.Reader{x.data, x.lookup} {
		if r != nil {
			errs = append(errs, r.Close())
		}
	}
	x.data, x.lookup = nil, nil
	return errors.Join(errs...)
}

// scan calls fn with the batches of rows [off, off+n) of some columns; a batch is valid during fn only.
func scan(ctx context.Context, r *lance.Reader, columns []int, off, n int64, fn func(arrow.RecordBatch) error) error {
	s := r.Scan(columns, off, n, n)
	defer s.Close()
	for {
		rec, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = fn(rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
}
