package bitmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

const (
	// File is the name of the file in the index's folder.
	File = "bitmap_page_lookup.lance"
	// maxKeyBytes bounds the values of an index in memory: columns with more are not what it is for.
	maxKeyBytes = 32 << 20
	// keyBatch is how many values are read at a time.
	keyBatch = 8192
	// idBatch is how many ids Range hands out at a time.
	idBatch = 4096
)

// Options say how an index is opened.
type Options struct {
	// Bytes is the size of the file that a manifest gives, 0 when it gives none.
	Bytes int64
	// FragmentRows returns how many rows a fragment of the table has, 0 for one that it does not have: a bitmap may say
	// "all of them".
	FragmentRows func(fragment uint32) int64
	// Rows is how many rows the index is over.
	Rows int64
}

// Index is an open index.
type Index struct {
	opt   Options
	name  string
	value arrow.DataType
	r     *lance.Reader
	// keys are the values in the order of the file, and order are their places in ascending order, without the null.
	keys  arrow.Array
	view  btree.Order
	order []int32
}

// Open opens the index in a folder.
func Open(ctx context.Context, st object.Store, dir string, o Options) (*Index, error) {
	x := &Index{opt: o, name: path.Join(dir, File)}
	if err := x.open(ctx, st); err != nil {
		return nil, errors.Join(fmt.Errorf("open index %s: %w", dir, err), x.Close())
	}
	return x, nil
}

func (x *Index) open(ctx context.Context, st object.Store) error {
	var err error
	if x.r, err = lance.Open(ctx, st, x.name, x.opt.Bytes, lance.ReaderOptions{}); err != nil {
		return err
	}
	f := x.r.Schema().Fields
	if len(f) != 2 || f[0].Name != "keys" || f[1].Name != "bitmaps" || f[1].Type.ID() != arrow.BINARY {
		return x.corrupt("columns are %s, expected keys and bitmaps", x.r.Schema().Arrow())
	}
	x.value = f[0].Type
	if err := x.loadKeys(ctx); err != nil {
		return err
	}
	if x.view, err = btree.OrderOf(x.keys); err != nil {
		return err
	}
	for i := range x.keys.Len() {
		if x.keys.IsValid(i) {
			x.order = append(x.order, int32(i))
		}
	}
	slices.SortFunc(x.order, func(a, b int32) int { return x.view.Compare(int(a), x.view, int(b)) })
	for i := range x.order {
		if i > 0 && x.view.Compare(int(x.order[i-1]), x.view, int(x.order[i])) == 0 {
			return x.corrupt("rows %d and %d have the same value", x.order[i-1], x.order[i])
		}
	}
	return nil
}

func (x *Index) corrupt(format string, args ...any) error {
	return &object.CorruptError{Name: x.name, Err: fmt.Errorf(format, args...)}
}

// loadKeys reads the values.
func (x *Index) loadKeys(ctx context.Context) error {
	var parts []arrow.Array
	defer func() {
		for _, a := range parts {
			a.Release()
		}
	}()
	s := x.r.Scan([]int{0}, 0, x.r.Rows(), keyBatch)
	defer s.Close()
	bytes := int64(0)
	for {
		rec, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		a := rec.Column(0)
		a.Retain()
		rec.Release()
		parts = append(parts, a)
		if bytes += int64(a.Data().SizeInBytes()); bytes > maxKeyBytes {
			return fmt.Errorf("the values of a bitmap index take more than %d MiB: %w", maxKeyBytes>>20, errors.ErrUnsupported)
		}
	}
	if len(parts) == 0 {
		x.keys = array.MakeArrayOfNull(memory.DefaultAllocator, x.value, 0)
		return nil
	}
	var err error
	x.keys, err = array.Concatenate(parts, memory.DefaultAllocator)
	return err
}

// Type is the type of the values.
func (x *Index) Type() arrow.DataType { return x.value }

// Rows counts the rows that the index is over.
func (x *Index) Rows() int64 { return x.opt.Rows }

// Values counts the values, without the null.
func (x *Index) Values() int { return len(x.order) }

// Lookup calls fn for each row that has one of some values, with the place of the value and the id of the row. The
// values are of the type of the index; null finds nothing.
func (x *Index) Lookup(ctx context.Context, keys arrow.Array, fn func(i int, id uint64) error) error {
	if !arrow.TypeEqual(keys.DataType(), x.value) {
		return fmt.Errorf("look up in %s: keys are %s, expected %s", x.name, keys.DataType(), x.value)
	}
	view, err := btree.OrderOf(keys)
	if err != nil {
		return fmt.Errorf("look up in %s: %w", x.name, err)
	}
	for k := range keys.Len() {
		if keys.IsNull(k) {
			continue
		}
		at := x.seek(view, k, false)
		if at == len(x.order) || x.view.Compare(int(x.order[at]), view, k) != 0 {
			continue
		}
		rows, err := x.bitmap(ctx, x.order[at])
		if err == nil {
			err = x.each(rows, func(id uint64) error { return fn(k, id) })
		}
		if err != nil {
			return fmt.Errorf("look up in %s: %w", x.name, err)
		}
	}
	return nil
}

// Range calls fn with the ids of the rows whose values lie between two bounds, those of one value after the other. The
// ids are valid during fn only.
func (x *Index) Range(ctx context.Context, from, to btree.Bound, fn func(ids []uint64) error) error {
	first, last, err := x.between(from, to)
	if err != nil {
		return err
	}
	ids := make([]uint64, 0, idBatch)
	flush := func() error {
		defer func() { ids = ids[:0] }()
		return fn(ids)
	}
	for ; first < last; first++ {
		rows, err := x.bitmap(ctx, x.order[first])
		if err == nil {
			err = x.each(rows, func(id uint64) error {
				if ids = append(ids, id); len(ids) < idBatch {
					return nil
				}
				return flush()
			})
		}
		if err != nil {
			return fmt.Errorf("scan a range of %s: %w", x.name, err)
		}
	}
	if len(ids) > 0 {
		return flush()
	}
	return nil
}

// CountRange says between which numbers lies that of the rows between two bounds, without reading any bitmap: most is
// the share of the values, as if all had as many rows.
func (x *Index) CountRange(from, to btree.Bound) (least, most int64, err error) {
	first, last, err := x.between(from, to)
	if err != nil || first >= last {
		return 0, 0, err
	}
	return 0, x.opt.Rows * int64(last-first) / int64(len(x.order)), nil
}

// between returns the places in order of the values between two bounds.
func (x *Index) between(from, to btree.Bound) (first, last int, err error) {
	low, high := 0, len(x.order)
	for i, b := range []btree.Bound{from, to} {
		if b.Values == nil {
			continue
		}
		if !arrow.TypeEqual(b.Values.DataType(), x.value) || b.Row < 0 || b.Row >= b.Values.Len() || b.Values.IsNull(b.Row) {
			return 0, 0, fmt.Errorf("scan a range of %s: row %d of %s is no bound of %s", x.name, b.Row, b.Values.DataType(), x.value)
		}
		view, err := btree.OrderOf(b.Values)
		if err != nil {
			return 0, 0, fmt.Errorf("scan a range of %s: %w", x.name, err)
		}
		if i == 0 {
			low = x.seek(view, b.Row, b.Exclusive)
		} else {
			high = x.seek(view, b.Row, !b.Exclusive)
		}
	}
	return low, high, nil
}

// seek returns the place in order of the first value that is not below a key, or that is above it.
func (x *Index) seek(keys btree.Order, k int, above bool) int {
	return sort.Search(len(x.order), func(i int) bool {
		c := x.view.Compare(int(x.order[i]), keys, k)
		return c > 0 || c == 0 && !above
	})
}

// Close ends the use of the index.
func (x *Index) Close() error {
	if x.keys != nil {
		x.keys.Release()
		x.keys = nil
	}
	if x.r == nil {
		return nil
	}
	err := x.r.Close()
	x.r = nil
	return err
}
