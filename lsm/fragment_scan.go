package lsm

import (
	"context"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/lance"
)

// rowReader reads a range of rows batch by batch. It belongs to one goroutine.
type rowReader interface {
	// Next returns the next batch, which the caller releases, or io.EOF.
	Next(ctx context.Context) (arrow.RecordBatch, error)
	Close()
}

// layout is how some columns of a table lie in a fragment.
type layout struct {
	schema *tableSchema
	// columns are those of the table, in the order in which they are wanted.
	columns []int
	// files are the fragment's files that have any of them, with these columns of theirs.
	files []fileColumns
	// from says, for each wanted column, which of files has it, -1 when none, and at which place among its columns.
	from []place
	// older says of a column that no file has whether it is younger than the fragment.
	older []bool
	// narrow says that a file has a column under an id that it had before it was widened.
	narrow bool
}

// fileColumns are some columns of one file.
type fileColumns struct {
	reader  *lance.Reader
	columns []int
}

// layout finds columns of a schema in the fragment. Without columns it has one file, for the rows.
func (f *fragment) layout(s *tableSchema, columns []int) *layout {
	l := &layout{schema: s, columns: columns, from: make([]place, len(columns)), older: make([]bool, len(columns))}
	used := make(map[int]int, 1) // a file's place in l.files
	for i, c := range columns {
		at, ok, known := place{}, false, false
		for id := range s.lives(c) {
			known = known || f.known[id]
			if at, ok = f.at[id]; ok {
				l.narrow = l.narrow || id != s.lance.Fields[c].ID
				break
			}
		}
		if !ok {
			l.from[i], l.older[i] = place{-1, -1}, !known
			continue
		}
		n, ok := used[at.file]
		if !ok {
			n = len(l.files)
			used[at.file] = n
			l.files = append(l.files, fileColumns{reader: f.files[at.file]})
		}
		l.from[i] = place{n, len(l.files[n].columns)}
		l.files[n].columns = append(l.files[n].columns, at.column)
	}
	if len(l.files) == 0 {
		l.files = []fileColumns{{reader: f.files[0]}}
	}
	return l
}

// whole reports whether one file has all columns, in their order and as the schema has them.
func (l *layout) whole() bool {
	if l.narrow {
		return false
	}
	for _, p := range l.from {
		if p.file != 0 {
			return false
		}
	}
	return true
}

// join puts the wanted columns together from batches of the files, one for each, of the same rows.
func (l *layout) join(parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	rows := parts[0].NumRows()
	cols := make([]arrow.Array, len(l.columns))
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	fields := make([]arrow.Field, len(l.columns))
	for i, c := range l.columns {
		fields[i] = l.schema.arrow.Field(c)
		fields[i].Nullable = true
		if p := l.from[i]; p.file >= 0 {
			var err error
			if cols[i], err = l.schema.widened(parts[p.file].Column(p.column), c); err != nil {
				return nil, err
			}
			fields[i].Type = cols[i].DataType()
			continue
		}
		var err error
		if cols[i], err = l.schema.missing(c, int(rows), l.older[i]); err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, rows), nil
}

// scan returns the rows [first, first+n) of some columns of a schema, in batches of at most most rows. Inner fields
// may have other names than the schema's.
func (f *fragment) scan(s *tableSchema, columns []int, first, n, most int64) rowReader {
	l := f.layout(s, columns)
	if l.whole() {
		return l.files[0].reader.Scan(l.files[0].columns, first, n, most)
	}
	sc := &fragmentScan{layout: l}
	for _, x := range l.files {
		sc.parts = append(sc.parts, scanPart{scanner: x.reader.Scan(x.columns, first, n, most)})
	}
	return sc
}

// take returns some rows of some columns of a schema, in the order in which they are asked for.
func (f *fragment) take(ctx context.Context, s *tableSchema, columns []int, rows []int64) (arrow.RecordBatch, error) {
	l := f.layout(s, columns)
	parts := make([]arrow.RecordBatch, 0, len(l.files))
	defer func() {
		for _, p := range parts {
			p.Release()
		}
	}()
	for _, x := range l.files {
		rec, err := x.reader.Take(ctx, x.columns, rows)
		if err != nil {
			return nil, err
		}
		parts = append(parts, rec)
	}
	return l.join(parts)
}

// fragmentScan reads columns that do not all lie in one file. The files' batches end at different rows, so that it
// hands out the rows that all have.
type fragmentScan struct {
	layout *layout
	parts  []scanPart
}

// scanPart is the scan of one file with what is left of its current batch.
type scanPart struct {
	scanner *lance.Scanner
	rec     arrow.RecordBatch
}

// Next implements rowReader.
func (sc *fragmentScan) Next(ctx context.Context) (arrow.RecordBatch, error) {
	rows := int64(-1)
	for i := range sc.parts {
		p := &sc.parts[i]
		if p.rec == nil {
			rec, err := p.scanner.Next(ctx)
			if err != nil {
				return nil, err // io.EOF comes from all files at the same row
			}
			p.rec = rec
		}
		if n := p.rec.NumRows(); rows < 0 || n < rows {
			rows = n
		}
	}
	if rows < 0 {
		return nil, io.EOF
	}
	heads := make([]arrow.RecordBatch, len(sc.parts))
	for i := range sc.parts {
		heads[i] = sc.parts[i].cut(rows)
		defer heads[i].Release()
	}
	return sc.layout.join(heads)
}

// cut takes the first rows off the current batch.
func (p *scanPart) cut(rows int64) arrow.RecordBatch {
	head := p.rec.NewSlice(0, rows)
	var rest arrow.RecordBatch
	if rows < p.rec.NumRows() {
		rest = p.rec.NewSlice(rows, p.rec.NumRows())
	}
	p.rec.Release()
	p.rec = rest
	return head
}

// Close implements rowReader.
func (sc *fragmentScan) Close() {
	for i := range sc.parts {
		sc.parts[i].scanner.Close()
		if sc.parts[i].rec != nil {
			sc.parts[i].rec.Release()
			sc.parts[i].rec = nil
		}
	}
}
