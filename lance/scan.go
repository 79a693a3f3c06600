package lance

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Scanner reads a range of rows batch by batch. It belongs to one goroutine; a Reader can have many.
type Scanner struct {
	r       *Reader
	columns []int
	schema  *arrow.Schema
	parts   []part // the decoded rows of each column
	// ahead has, of a file that is not mapped, what is being read for each column behind its part.
	ahead   []*reading
	pos     int64 // the next row
	end     int64
	maxRows int64
	err     error
}

// reading is a run of rows that a goroutine reads. What came of it is there when done is closed.
type reading struct {
	done chan struct{}
	data arrow.ArrayData
	err  error
}

// part is a run of decoded rows of a column.
type part struct {
	array      arrow.Array
	first, end int64
}

// Scan returns the rows [off, off+n) of the given columns, which are numbers in the schema; rows beyond the file are not
// missed. Batches end where a page of any of the columns ends, so that fixed-width data is never copied, and have at most
// maxRows rows, if it is not 0. Without columns the batches have rows and nothing else.
func (r *Reader) Scan(columns []int, off, n int64, maxRows int64) *Scanner {
	s := &Scanner{r: r, columns: columns, parts: make([]part, len(columns)), ahead: make([]*reading, len(columns)), maxRows: maxRows}
	if maxRows <= 0 {
		s.maxRows = math.MaxInt64
	}
	s.pos = min(max(off, 0), r.rows)
	s.end = s.pos + min(max(n, 0), r.rows-s.pos)
	s.schema, s.err = r.project(columns)
	return s
}

// project returns the schema of some columns.
func (r *Reader) project(columns []int) (*arrow.Schema, error) {
	whole := r.schema.Arrow()
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		if c < 0 || c >= whole.NumFields() {
			return nil, fmt.Errorf("read %s: there is no column %d, the file has %d", r.name, c, whole.NumFields())
		}
		fields[i] = whole.Field(c)
	}
	md := whole.Metadata()
	return arrow.NewSchema(fields, &md), nil
}

// Next returns the next batch, which the caller releases, or io.EOF. After an error it returns the same again.
func (s *Scanner) Next(ctx context.Context) (arrow.RecordBatch, error) {
	if s.err != nil {
		return nil, s.err
	}
	rec, err := s.next(ctx)
	if err != nil {
		s.Close()
		s.err = err
	}
	return rec, err
}

func (s *Scanner) next(ctx context.Context) (arrow.RecordBatch, error) {
	if s.pos >= s.end {
		return nil, io.EOF
	}
	if err := s.r.enter(ctx); err != nil {
		return nil, err
	}
	defer s.r.leave()
	end := s.pos + min(s.maxRows, s.end-s.pos)
	for i := range s.parts {
		s.readAhead(i, s.pos)
	}
	for i := range s.parts {
		if err := s.fill(i); err != nil {
			return nil, err
		}
		end = min(end, s.parts[i].end)
	}
	arrays := make([]arrow.Array, len(s.parts))
	for i, p := range s.parts {
		arrays[i] = slice(p.array, s.pos-p.first, end-p.first)
		defer arrays[i].Release()
	}
	rec := array.NewRecordBatch(s.schema, arrays, end-s.pos)
	s.pos = end
	return rec, nil
}

// slice returns rows of an array.
func slice(a arrow.Array, from, to int64) arrow.Array {
	data := sliceData(a.Data(), from, to)
	defer data.Release()
	return array.MakeFromData(data)
}

// sliceData returns rows of an array with the number of nulls in them, and in the fields of structs, which Arrow would
// count on demand and without a lock.
func sliceData(d arrow.ArrayData, from, to int64) arrow.ArrayData {
	if d.DataType().ID() == arrow.STRUCT {
		children := make([]arrow.ArrayData, len(d.Children()))
		for i, c := range d.Children() {
			children[i] = sliceData(c, int64(d.Offset())+from, int64(d.Offset())+to)
			defer children[i].Release()
		}
		validity, nulls := sliceValidity(d, from, to)
		defer releaseBuffer(validity)
		return array.NewData(d.DataType(), int(to-from), []*memory.Buffer{validity}, children, nulls, 0)
	}
	data := array.NewSliceData(d, from, to)
	if data.NullN() < 0 {
		nulls := chunk{data: data, n: data.Len()}.nulls()
		data.(*array.Data).SetNullN(nulls)
	}
	return data
}

// sliceValidity returns the validity of rows of structs as a bitmap of its own, since their fields are sliced, too; nil
// when all are valid.
func sliceValidity(d arrow.ArrayData, from, to int64) (*memory.Buffer, int) {
	c := chunk{data: d, from: int(from), n: int(to - from)}
	nulls := c.nulls()
	if nulls == 0 {
		return nil, 0
	}
	b := memory.NewBufferBytes(make([]byte, bitBytes(c.n)))
	bitutil.CopyBitmap(c.validity(), c.offset(), c.n, b.Bytes(), 0)
	return b, nulls
}

// fill makes sure that the rows from pos on of a column are decoded.
func (s *Scanner) fill(i int) error {
	p := &s.parts[i]
	if p.array != nil && s.pos < p.end {
		return nil
	}
	p.release()
	data, err := s.decode(i)
	if err != nil {
		return err
	}
	defer data.Release()
	p.array = array.MakeFromData(data)
	p.first, p.end = s.pos, s.pos+int64(p.array.Len())
	s.readAhead(i, p.end)
	return nil
}

// decode returns the rows of a column from pos on.
func (s *Scanner) decode(i int) (arrow.ArrayData, error) {
	a := s.ahead[i]
	if a == nil {
		return s.r.decodeField(s.columns[i], s.pos, s.end)
	}
	<-a.done
	s.ahead[i] = nil
	return a.data, a.err
}

// readAhead begins to read the rows of a column from one on, if they are not at hand and reading takes its time: all columns
// at once, and while a batch is with the caller those behind it.
func (s *Scanner) readAhead(i int, from int64) {
	if s.ahead[i] != nil || from >= s.end || s.r.mapped() || s.parts[i].array != nil && from < s.parts[i].end {
		return
	}
	a := &reading{done: make(chan struct{})}
	s.ahead[i] = a
	go func() {
		defer close(a.done)
		if a.err = s.r.enter(context.Background()); a.err == nil {
			defer s.r.leave()
			a.data, a.err = s.r.decodeField(s.columns[i], from, s.end)
		}
	}()
}

// decodeField returns the rows [from, to) of a column of the schema, or as many of the first of them as one array should
// hold, at least one.
func (r *Reader) decodeField(i int, from, to int64) (arrow.ArrayData, error) {
	if r.trees != nil {
		return r.decodeTree(r.trees[i], from, to)
	}
	return r.decode(r.tops[i], from, to)
}

func (p *part) release() {
	if p.array != nil {
		p.array.Release()
		p.array = nil
	}
}

// Close releases what the scanner holds, and waits for what it is reading. After io.EOF or an error there is nothing left to release.
func (s *Scanner) Close() {
	for i := range s.parts {
		s.parts[i].release()
		if a := s.ahead[i]; a != nil {
			<-a.done
			if s.ahead[i] = nil; a.data != nil {
				a.data.Release()
			}
		}
	}
	if s.err == nil {
		s.err = io.EOF
	}
}
