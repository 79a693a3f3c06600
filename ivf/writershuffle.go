package ivf

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// minWriterSpill is what a partition's writer keeps of its pages' metadata: 512 bytes for each stream, four pages. With the 64
// bytes that a stream has at least, each page would be a chunk of its own, and the 16 bytes for each chunk would be what grows.
const minWriterSpill = 2 << 10

// writerShuffle is the shuffler with a file and its writer for each partition, as Lance's first one. It is not what builds
// use: it is there to measure groupShuffle against, and to check it.
type writerShuffle struct {
	ctx    context.Context // of the build, which the shuffler does not outlive
	folder *spill.Folder
	width  int
	opt    lance.WriterOptions
	err    error // the first failure, or that the shuffler was closed

	buffer   *rowBuffer
	schema   *arrow.Schema
	stored   *lance.Schema
	writers  []*lance.Writer // nil for a partition that has no rows so far
	files    []lance.FileInfo
	finished bool
}

var _ shuffler = (*writerShuffle)(nil)

// newWriterShuffle returns a shuffler of rows of width bytes. Its files lie in the folder, which becomes its own.
func newWriterShuffle(ctx context.Context, folder *spill.Folder, partitions, width int, o ShuffleOptions) (*writerShuffle, error) {
	o, err := o.validate(partitions, width)
	if err != nil {
		return nil, err
	}
	s := &writerShuffle{
		ctx: ctx, folder: folder, width: width, schema: shuffleSchema(width),
		writers: make([]*lance.Writer, partitions), files: make([]lance.FileInfo, partitions),
		opt: lance.WriterOptions{
			// Each group is a page of each column of each partition; a writer's own buffer is as large as its pages.
			PageBytes:  min(max(o.BufferBytes/int64(partitions), minShufflePage), maxShufflePage),
			SpillPages: folder, SpillBytes: max(o.SpillBytes/int64(partitions), minWriterSpill),
		},
	}
	if o.PagesInMemory {
		s.opt.SpillPages = nil
	}
	if s.stored, err = shuffleFile(width); err != nil {
		return nil, err
	}
	s.buffer = newRowBuffer(partitions, width, o.BufferBytes)
	return s, nil
}

// Add implements shuffler.
func (s *writerShuffle) Add(parts []int32, ids []uint64, codes []byte) error {
	if s.err != nil || s.finished {
		return errors.Join(s.err, errShuffle)
	}
	if err := checkRows(parts, ids, codes, s.width); err != nil {
		return err
	}
	if err := s.buffer.fill(parts, ids, codes, s.writeGroup); err != nil {
		return s.fail(err)
	}
	return nil
}

// fail remembers an error.
func (s *writerShuffle) fail(err error) error {
	s.err = fmt.Errorf("shuffle: %w", err)
	return s.err
}

// writeGroup sorts what is in the buffer and gives each partition's rows to its writer, which writes them at once: what it
// kept of them would be as much as the buffer, again.
func (s *writerShuffle) writeGroup() error {
	b := s.buffer
	b.sort()
	for p := range s.writers {
		from, to := b.span(p)
		if from == to {
			continue
		}
		if err := s.open(p); err != nil {
			return err
		}
		w := s.writers[p]
		for piece := max(maxShufflePage/s.width, 1); from < to; from += piece {
			rec := b.batch(s.schema, from, min(from+piece, to))
			err := w.Write(s.ctx, rec)
			rec.Release()
			if err != nil {
				return err
			}
		}
		if err := w.EndPages(s.ctx); err != nil {
			return err
		}
	}
	b.clear()
	return nil
}

// open makes sure that a partition has its writer.
func (s *writerShuffle) open(p int) (err error) {
	if s.writers[p] == nil {
		s.writers[p], err = lance.Create(s.ctx, s.folder, s.folder.Path(fmt.Sprintf("partition-%d.lance", p)), s.stored, s.opt)
	}
	return err
}

// Finish implements shuffler.
func (s *writerShuffle) Finish() error {
	if s.err != nil || s.finished {
		return errors.Join(s.err, errShuffle)
	}
	if err := s.writeGroup(); err != nil {
		return s.fail(err)
	}
	s.buffer.close()
	for p, w := range s.writers {
		if w == nil {
			continue
		}
		var err error
		if s.files[p], err = w.Finish(s.ctx); err != nil {
			return s.fail(err)
		}
		s.writers[p] = nil
	}
	s.finished = true
	return nil
}

// Partition implements shuffler.
func (s *writerShuffle) Partition(p int, fn func(ids []uint64, codes []byte) error) error {
	if s.err != nil || !s.finished {
		return errors.Join(s.err, errShuffle)
	}
	if s.files[p].Rows == 0 {
		return nil
	}
	r, err := lance.Open(s.ctx, s.folder, s.files[p].Name, s.files[p].Bytes, lance.ReaderOptions{})
	if err != nil {
		return s.fail(err)
	}
	defer func() { _ = r.Close() }() // It never fails.
	sc := r.Scan([]int{0, 1}, 0, r.Rows(), 0)
	defer sc.Close()
	for {
		rec, err := sc.Next(s.ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.fail(err)
		}
		err = fn(shuffleColumns(rec, s.width))
		rec.Release()
		if err != nil {
			return err
		}
	}
}

// Close implements shuffler.
func (s *writerShuffle) Close() error {
	if errors.Is(s.err, object.ErrClosed) {
		return nil
	}
	s.err = fmt.Errorf("shuffle: %w", object.ErrClosed)
	for _, w := range s.writers {
		if w != nil {
			w.Abort()
		}
	}
	s.buffer.close()
	return s.folder.Close()
}
