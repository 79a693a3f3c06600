package lance

import (
	"context"
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/object"
)

var errSoon = errors.New("not built yet")

// ReaderOptions tune a Reader.
type ReaderOptions struct {
	Alloc memory.Allocator
}

// Reader reads a file.
type Reader struct{}

func Open(ctx context.Context, st object.Store, name string, size int64, o ReaderOptions) (*Reader, error) {
	return nil, errSoon
}
func (r *Reader) Schema() *Schema                                          { return nil }
func (r *Reader) Rows() int64                                              { return 0 }
func (r *Reader) Metadata() map[string]string                              { return nil }
func (r *Reader) GlobalBuffer(ctx context.Context, i int) ([]byte, error)  { return nil, errSoon }
func (r *Reader) Scan(columns []int, off, n int64, maxRows int64) *Scanner { return nil }
func (r *Reader) Verify(ctx context.Context) error                         { return errSoon }
func (r *Reader) Describe(w io.Writer) error                               { return errSoon }
func (r *Reader) Close() error                                             { return nil }
func (r *Reader) Take(ctx context.Context, columns []int, rows []int64) (arrow.RecordBatch, error) {
	return nil, errSoon
}

// Scanner reads batches.
type Scanner struct{}

func (s *Scanner) Next(ctx context.Context) (arrow.RecordBatch, error) { return nil, errSoon }

// Close releases what an unfinished Scanner holds.
func (s *Scanner) Close() {}
