package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// batchRows is how many rows go into a batch: enough to hide what a batch costs by itself, few enough for quick acks.
const batchRows = 8192

// rowSource gives the rows of a file as batches.
type rowSource interface {
	Schema() *arrow.Schema
	// Next returns the next batch, which the caller releases, or io.EOF.
	Next() (arrow.RecordBatch, error)
	// Done says which part of the file was read, from 0 to 1, or a negative number when nobody knows. It may be
	// called while Next runs.
	Done() float64
	Close() error
}

// openSource opens a file by what its name ends in; "-" is an Arrow IPC stream on stdin. The columns of a CSV or
// JSONL file get the types of table, which may be nil: then types are guessed.
func openSource(name string, stdin io.Reader, table *arrow.Schema) (rowSource, error) {
	if name == "-" {
		return openStream(io.NopCloser(stdin), newCountingReader(stdin, 0))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	s, err := openFile(f, strings.ToLower(filepath.Ext(name)), table)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return s, nil
}

func openFile(f *os.File, ext string, table *arrow.Schema) (_ rowSource, err error) {
	defer caught(&err)
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch ext {
	case ".parquet":
		return openParquet(f)
	case ".arrow", ".arrows", ".feather", ".ipc":
		var magic [6]byte
		if _, err := f.ReadAt(magic[:], 0); err == nil && string(magic[:]) == "ARROW1" {
			return openArrow(f)
		}
		return openStream(f, newCountingReader(f, info.Size()))
	case ".csv":
		return openCSV(f, newCountingReader(f, info.Size()), ',', table)
	case ".tsv":
		return openCSV(f, newCountingReader(f, info.Size()), '\t', table)
	case ".jsonl", ".ndjson":
		return openJSONL(f, newCountingReader(f, info.Size()), table)
	}
	return nil, fmt.Errorf("%q is no kind of file that can be read; want .parquet, .arrow, .arrows, .feather, .csv, .tsv, .jsonl or .ndjson", ext)
}

// caught turns a panic into an error. The libraries that read Parquet and Arrow files panic on some broken ones.
func caught(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("the file cannot be read: %v", r)
	}
}

// countingReader counts what is read through it.
type countingReader struct {
	r     io.Reader
	size  int64 // 0 when unknown
	bytes atomic.Int64
}

func newCountingReader(r io.Reader, size int64) *countingReader {
	return &countingReader{r: r, size: size}
}

// Read implements io.Reader.
func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Done implements rowSource.
func (c *countingReader) Done() float64 {
	if c.size == 0 {
		return -1
	}
	return min(1, float64(c.bytes.Load())/float64(c.size))
}

// streamSource reads an Arrow IPC stream.
type streamSource struct {
	*countingReader
	closer io.Closer
	r      *ipc.Reader
}

func openStream(closer io.Closer, c *countingReader) (rowSource, error) {
	r, err := ipc.NewReader(bufio.NewReaderSize(c, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read an Arrow stream: %w", err)
	}
	return &streamSource{countingReader: c, closer: closer, r: r}, nil
}

// Schema implements rowSource.
func (s *streamSource) Schema() *arrow.Schema { return s.r.Schema() }

// Next implements rowSource.
func (s *streamSource) Next() (_ arrow.RecordBatch, err error) {
	defer caught(&err)
	rec, err := s.r.Read()
	if err != nil {
		return nil, err
	}
	rec.Retain()
	return rec, nil
}

// Close implements rowSource.
func (s *streamSource) Close() error {
	s.r.Release()
	return s.closer.Close()
}

// arrowSource reads an Arrow IPC file.
type arrowSource struct {
	f    *os.File
	r    *ipc.FileReader
	next atomic.Int64
}

func openArrow(f *os.File) (rowSource, error) {
	r, err := ipc.NewFileReader(f)
	if err != nil {
		return nil, err
	}
	return &arrowSource{f: f, r: r}, nil
}

// Schema implements rowSource.
func (s *arrowSource) Schema() *arrow.Schema { return s.r.Schema() }

// Next implements rowSource.
func (s *arrowSource) Next() (_ arrow.RecordBatch, err error) {
	defer caught(&err)
	i := int(s.next.Load())
	if i == s.r.NumRecords() {
		return nil, io.EOF
	}
	rec, err := s.r.RecordBatchAt(i)
	if err != nil {
		return nil, err
	}
	s.next.Add(1)
	return rec, nil
}

// Done implements rowSource.
func (s *arrowSource) Done() float64 {
	return float64(s.next.Load()) / float64(max(1, s.r.NumRecords()))
}

// Close implements rowSource.
func (s *arrowSource) Close() error { return errors.Join(s.r.Close(), s.f.Close()) }

// parquetSource reads a Parquet file.
type parquetSource struct {
	file   *file.Reader
	schema *arrow.Schema
	r      pqarrow.RecordReader
	rows   atomic.Int64
}

func openParquet(f *os.File) (rowSource, error) {
	r, err := file.NewParquetReader(f)
	if err != nil {
		return nil, err
	}
	pr, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{BatchSize: batchRows}, memory.DefaultAllocator)
	if err != nil {
		return nil, err
	}
	s := &parquetSource{file: r}
	if s.schema, err = pr.Schema(); err != nil {
		return nil, err
	}
	if s.r, err = pr.GetRecordReader(context.Background(), nil, nil); err != nil {
		return nil, err
	}
	return s, nil
}

// Schema implements rowSource.
func (s *parquetSource) Schema() *arrow.Schema { return s.schema }

// Next implements rowSource.
func (s *parquetSource) Next() (_ arrow.RecordBatch, err error) {
	defer caught(&err)
	rec, err := s.r.Read()
	if err != nil {
		return nil, err
	}
	s.rows.Add(rec.NumRows())
	rec.Retain()
	return rec, nil
}

// Done implements rowSource.
func (s *parquetSource) Done() float64 {
	return float64(s.rows.Load()) / float64(max(1, s.file.NumRows()))
}

// Close implements rowSource. It closes the file, too.
func (s *parquetSource) Close() error {
	s.r.Release()
	return s.file.Close()
}
