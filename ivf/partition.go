package ivf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/float16"

	"github.com/flightd/flightd/vector"
)

// partition is the rows of a partition as a search wants them. It is immutable and lives until its last release.
type partition struct {
	ids []uint64
	// codes are in columns; with 4 bits too.
	codes []byte
	// floats are the vectors of IVF_FLAT, halves those of float16.
	floats []float32
	halves []uint16

	refs  atomic.Int32
	batch arrow.RecordBatch // what the slices point into, nil if they are their own
}

func (p *partition) retain() { p.refs.Add(1) }

func (p *partition) release() {
	if p.refs.Add(-1) == 0 && p.batch != nil {
		p.batch.Release()
	}
}

// bytes is what the partition counts for in the cache.
func (p *partition) bytes() int64 {
	return int64(len(p.ids)*8 + len(p.codes) + len(p.floats)*4 + len(p.halves)*2)
}

// partition returns a partition, which the caller releases.
func (x *Index) partition(ctx context.Context, number int) (*partition, error) {
	if p := x.cache.get(number); p != nil {
		return p, nil
	}
	p, err := x.load(ctx, number)
	if err != nil {
		return nil, x.corrupt(dataFile, err)
	}
	return x.cache.put(number, p), nil
}

// load reads a partition. What lies in one page of a mapped file is not copied.
func (x *Index) load(ctx context.Context, number int) (*partition, error) {
	return x.loadRows(ctx, number, x.starts[number], x.starts[number+1]-x.starts[number])
}

// loadRows reads n rows of the file, which are those of a partition, or some of them if codes do not stand in columns.
func (x *Index) loadRows(ctx context.Context, number int, first, n int64) (*partition, error) {
	p := &partition{}
	p.refs.Store(1)
	done := int64(0)
	err := x.scan(ctx, []int{0, 1}, first, n, func(rec arrow.RecordBatch) error {
		whole := done == 0 && rec.NumRows() == n
		done += rec.NumRows()
		if err := p.add(x, rec, whole, int(n)); err != nil {
			return fmt.Errorf("partition %d: %w", number, err)
		}
		return nil
	})
	if err == nil && done != n {
		err = fmt.Errorf("partition %d has %d rows, expected %d", number, done, n)
	}
	if err != nil {
		p.release()
		return nil, err
	}
	if x.kind == PQ && !x.columns && n > 0 {
		codes := make([]byte, len(p.codes))
		vector.TransposeCodes(codes, p.codes, int(n))
		p.codes = codes
	}
	return p, nil
}

// add appends a batch to a partition of n rows, or keeps it if it is the whole.
func (p *partition) add(x *Index, rec arrow.RecordBatch, whole bool, n int) error {
	r, err := x.rowsOf(rec)
	if err != nil {
		return err
	}
	if whole {
		rec.Retain()
		p.batch = rec
		p.ids, p.codes, p.floats = r.ids, r.codes, r.floats
	} else {
		p.ids = append(grown(p.ids, n), r.ids...)
		if len(r.codes) > 0 {
			p.codes = append(grown(p.codes, n*x.width), r.codes...)
		}
		if len(r.floats) > 0 {
			p.floats = append(grown(p.floats, n*x.dim), r.floats...)
		}
	}
	if len(r.halves) > 0 {
		p.halves = grown(p.halves, n*x.dim)
	}
	for _, v := range r.halves {
		p.halves = append(p.halves, v.Uint16())
	}
	if len(r.doubles) > 0 {
		p.floats = grown(p.floats, n*x.dim)
	}
	for _, v := range r.doubles {
		p.floats = append(p.floats, float32(v))
	}
	return nil
}

// grown is have with room for n elements in all.
func grown[T any](have []T, n int) []T {
	if cap(have) >= n {
		return have
	}
	return append(make([]T, 0, n), have...)
}

// rows are those of a batch: ids, and one of the others.
type rows struct {
	ids     []uint64
	codes   []byte
	floats  []float32
	halves  []float16.Num
	doubles []float64
}

// rowsOf returns the rows of a batch of both columns or one of them; they are valid as long as the batch. Rows of an index are never null.
func (x *Index) rowsOf(rec arrow.RecordBatch) (rows, error) {
	var out rows
	for _, c := range rec.Columns() {
		if c.NullN() > 0 {
			return rows{}, errNulls
		}
		switch c := c.(type) {
		case *array.Uint64:
			out.ids = c.Uint64Values()
		case *array.FixedSizeList:
			if c.ListValues().NullN() > 0 {
				return rows{}, errNulls
			}
			out.set(c)
		}
	}
	return out, nil
}

var errNulls = errors.New("there are nulls among the rows")

// set takes the codes or vectors of a list.
func (r *rows) set(list *array.FixedSizeList) {
	width := int(list.DataType().(*arrow.FixedSizeListType).Len())
	from := list.Data().Offset() * width
	to := from + list.Len()*width
	switch a := list.ListValues().(type) {
	case *array.Uint8:
		r.codes = a.Uint8Values()[from:to]
	case *array.Float32:
		r.floats = a.Float32Values()[from:to]
	case *array.Float16:
		r.halves = a.Values()[from:to]
	case *array.Float64:
		r.doubles = a.Float64Values()[from:to]
	}
}

// scanColumns calls fn with rows [off, off+n) of some columns, which are valid during fn only.
func (x *Index) scanColumns(ctx context.Context, columns []int, off, n int64, fn func(rows) error) error {
	return x.scan(ctx, columns, off, n, func(rec arrow.RecordBatch) error {
		r, err := x.rowsOf(rec)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// scan calls fn with the batches of rows [off, off+n); a batch is valid during fn only, unless it is retained.
func (x *Index) scan(ctx context.Context, columns []int, off, n int64, fn func(arrow.RecordBatch) error) error {
	s := x.data.Scan(columns, off, n, n)
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
