package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/flightd/flightd/lsm"
)

const (
	// spoolKeep is how much of a spool stays in memory. It is small, because results of statements that changed rows
	// are kept for as long as their tickets can be read, and most of them are a few rows.
	spoolKeep = 64 << 10
	// spoolFactor bounds a spool on disk, as a multiple of the memory for queries.
	spoolFactor = 16
)

// A spool keeps batches of one schema that may be more than memory can hold: what is above spoolKeep goes to a file that
// has no name, so that nothing stays behind. One goroutine adds; afterwards any number may read.
type spool struct {
	dir   string // for the file; empty for none
	limit int64  // of all batches together, in bytes

	parts []spooled
	held  int64 // in memory
	file  *os.File
	end   int64 // of the file
	rows  int64
}

// spooled is one batch of a spool: in memory, or at a place in the file, where it has no metadata.
type spooled struct {
	rec      arrow.RecordBatch
	schema   *arrow.Schema
	at, size int64
	rows     int64
}

// newSpool returns an empty spool. Without a folder for files it is bounded by the memory for queries.
func (e *Engine) newSpool() (*spool, error) {
	dir, err := spillFolder(e.opts.Temp, "spool")
	if err != nil {
		return nil, err
	}
	s := &spool{dir: dir, limit: e.opts.Memory}
	if dir != "" {
		s.limit *= spoolFactor
	}
	return s, nil
}

// add appends a batch, which stays the caller's.
func (s *spool) add(rec arrow.RecordBatch) error {
	if rec.NumRows() == 0 {
		return nil
	}
	size := batchSize(rec)
	if s.held+s.end+size > s.limit {
		return errorf(ResourceExhausted, "the rows that the statement must keep until its end take more than %d bytes; change fewer at a time", s.limit)
	}
	p := spooled{rows: rec.NumRows(), schema: rec.Schema()}
	if s.dir == "" || s.file == nil && s.held+size <= spoolKeep {
		rec.Retain()
		p.rec, p.size = rec, size
		s.held += size
	} else {
		var err error
		if p.at, p.size, err = s.write(rec); err != nil {
			return errorf(ResourceExhausted, "keep rows until the statement's end: %v", err)
		}
	}
	s.parts = append(s.parts, p)
	s.rows += p.rows
	return nil
}

// batchSize is what a batch takes, at most: its buffers may be shared with other batches.
func batchSize(rec arrow.RecordBatch) (n int64) {
	for _, c := range rec.Columns() {
		n += int64(c.Data().SizeInBytes())
	}
	return n
}

// write appends a batch to the file.
func (s *spool) write(rec arrow.RecordBatch) (at, size int64, err error) {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "rows")
		if err != nil {
			return 0, 0, err
		}
		if err := os.Remove(f.Name()); err != nil {
			return 0, 0, errors.Join(err, f.Close())
		}
		s.file = f
	}
	var buf bytes.Buffer
	bare := array.NewRecordBatch(lsm.BareSchema(rec.Schema()), rec.Columns(), rec.NumRows())
	defer bare.Release()
	w := ipc.NewWriter(&buf, ipc.WithSchema(bare.Schema()))
	if err := errors.Join(w.Write(bare), w.Close()); err != nil {
		return 0, 0, err
	}
	if _, err := s.file.WriteAt(buf.Bytes(), s.end); err != nil {
		return 0, 0, err
	}
	at = s.end
	s.end += int64(buf.Len())
	return at, int64(buf.Len()), nil
}

// cut forgets all batches but the first n. What they took of the file is used again.
func (s *spool) cut(n int) {
	for i, p := range s.parts[n:] {
		s.rows -= p.rows
		if p.rec != nil {
			s.held -= p.size
			p.rec.Release()
		} else if i == 0 || s.parts[n+i-1].rec != nil {
			s.end = p.at
		}
	}
	s.parts = s.parts[:n]
}

// read returns the i-th batch, which the caller releases.
func (s *spool) read(i int) (arrow.RecordBatch, error) {
	p := s.parts[i]
	if p.rec != nil {
		p.rec.Retain()
		return p.rec, nil
	}
	r, err := ipc.NewReader(io.NewSectionReader(s.file, p.at, p.size))
	if err != nil {
		return nil, fmt.Errorf("read rows back: %w", err)
	}
	defer r.Release()
	rec, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read rows back: %w", err)
	}
	return array.NewRecordBatch(p.schema, rec.Columns(), rec.NumRows()), nil
}

// all yields the batches, each until the next.
func (s *spool) all(yield func(arrow.RecordBatch, error) bool) {
	for i := range s.parts {
		rec, err := s.read(i)
		more := yield(rec, err)
		if rec != nil {
			rec.Release()
		}
		if !more || err != nil {
			return
		}
	}
}

// close frees everything.
func (s *spool) close() {
	s.cut(0)
	if s.file != nil {
		_ = s.file.Close() // nobody reads it any more
	}
}

// Rows are what a statement returned that changed rows, or what Collect kept of a query. They can be read any number of times, by several goroutines at
// once, until they are closed.
type Rows struct {
	schema *arrow.Schema
	count  int64 // of the rows that the statement changed
	spool  *spool

	mu     sync.Mutex
	users  int // readers of now
	closed bool
}

// Collect runs a query to its end and keeps what it returns, so that it can be read later and more than once without
// holding a snapshot.
func (st *Statement) Collect(ctx context.Context, params arrow.RecordBatch) (*Rows, error) {
	r, err := st.Query(ctx, params)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	keep, err := st.e.newSpool()
	if err != nil {
		return nil, engineError(err)
	}
	for {
		rec, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return &Rows{schema: r.Schema(), spool: keep}, nil
		}
		if err == nil {
			err = keep.add(rec)
			rec.Release()
		}
		if err != nil {
			keep.close()
			return nil, engineError(err)
		}
	}
}

// Schema returns the schema of the rows.
func (r *Rows) Schema() *arrow.Schema { return r.schema }

// Changed returns the number of rows that the statement changed.
func (r *Rows) Changed() int64 { return r.count }

// Read calls fn with each batch, which is valid until fn returns.
func (r *Rows) Read(fn func(arrow.RecordBatch) error) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return errorf(FailedPrecondition, "the rows are closed")
	}
	r.users++
	r.mu.Unlock()
	defer r.leave()
	for rec, err := range r.spool.all {
		if err != nil {
			return engineError(err)
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
	return nil
}

// leave ends what Read began.
func (r *Rows) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users--
	if r.closed && r.users == 0 {
		r.spool.close()
	}
}

// Close lets the rows go, once those who read them have ended.
func (r *Rows) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed && r.users == 0 {
		r.spool.close()
	}
	r.closed = true
}
