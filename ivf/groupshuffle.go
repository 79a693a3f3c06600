package ivf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// groupShuffle is the shuffler with one data file: groups of rows, each sorted by partition, and for each group where its
// partitions end. The package comment has the file.
type groupShuffle struct {
	ctx    context.Context // of the build, which the shuffler does not outlive
	folder *spill.Folder
	width  int
	opt    ShuffleOptions
	err    error // the first failure, or that the shuffler was closed

	buffer   *rowBuffer
	schema   *arrow.Schema
	writer   *lance.Writer // nil before the first group and after Finish
	rows     int64         // written
	groups   int
	totals   []uint64 // rows of each partition
	finished bool

	reader *lance.Reader // nil before Finish, and when all rows are in the buffer
	window window
}

var _ shuffler = (*groupShuffle)(nil)

// newGroupShuffle returns a shuffler of rows of width bytes. Its files lie in the folder, which becomes its own.
func newGroupShuffle(ctx context.Context, folder *spill.Folder, partitions, width int, o ShuffleOptions) (*groupShuffle, error) {
	o, err := o.validate(partitions, width)
	if err != nil {
		return nil, err
	}
	s := &groupShuffle{ctx: ctx, folder: folder, width: width, opt: o, schema: shuffleSchema(width), totals: make([]uint64, partitions)}
	s.buffer = newRowBuffer(partitions, width, o.BufferBytes)
	return s, nil
}

// create begins the file.
func (s *groupShuffle) create() error {
	schema, err := shuffleFile(s.width)
	if err != nil {
		return err
	}
	o := lance.WriterOptions{PageBytes: maxShufflePage, SpillPages: s.folder, SpillBytes: s.opt.SpillBytes}
	if s.opt.PagesInMemory {
		o.SpillPages = nil
	}
	s.writer, err = lance.Create(s.ctx, s.folder, s.folder.Path("rows.lance"), schema, o)
	return err
}

// Add implements shuffler.
func (s *groupShuffle) Add(parts []int32, ids []uint64, codes []byte) error {
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
func (s *groupShuffle) fail(err error) error {
	s.err = fmt.Errorf("shuffle: %w", err)
	return s.err
}

// writeGroup sorts what is in the buffer and appends it to the file.
func (s *groupShuffle) writeGroup() error {
	if s.writer == nil {
		if err := s.create(); err != nil {
			return err
		}
	}
	b := s.buffer
	b.sort()
	piece := max(maxShufflePage/s.width, 1)
	for from := 0; from < b.rows; from += piece {
		rec := b.batch(s.schema, from, min(from+piece, b.rows))
		err := s.writer.Write(s.ctx, rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
	ends, last := make([]byte, 0, 8*len(s.totals)), uint32(0)
	for p, end := range b.ends {
		s.totals[p] += uint64(end - last)
		last = end
		ends = binary.LittleEndian.AppendUint64(ends, uint64(s.rows)+uint64(end))
	}
	if _, err := s.writer.AddGlobalBuffer(s.ctx, ends); err != nil {
		return err
	}
	s.rows += int64(b.rows)
	s.groups++
	b.clear()
	return nil
}

// Finish implements shuffler. Rows that all fit into the buffer stay there, and there is no file.
func (s *groupShuffle) Finish() error {
	if s.err != nil || s.finished {
		return errors.Join(s.err, errShuffle)
	}
	s.finished = true
	if s.groups == 0 {
		s.buffer.sort()
		return nil
	}
	if err := s.finishFile(); err != nil {
		return s.fail(err)
	}
	return nil
}

// finishFile writes the last group and opens the file for reading.
func (s *groupShuffle) finishFile() error {
	if s.buffer.rows > 0 {
		if err := s.writeGroup(); err != nil {
			return err
		}
	}
	s.buffer.close()
	info, err := s.writer.Finish(s.ctx)
	if err != nil {
		return err
	}
	s.writer = nil
	s.reader, err = lance.Open(s.ctx, s.folder, info.Name, info.Bytes, lance.ReaderOptions{})
	return err
}

// Partition implements shuffler. Partitions that are asked for one after the other come from one window.
func (s *groupShuffle) Partition(p int, fn func(ids []uint64, codes []byte) error) error {
	switch {
	case s.err != nil || !s.finished:
		return errors.Join(s.err, errShuffle)
	case s.reader == nil:
		return s.bufferedPartition(p, fn)
	case s.totals[p] == 0:
		return nil
	}
	if p < s.window.first || p >= s.window.end {
		if err := s.readWindow(p); err != nil {
			return s.fail(err)
		}
	}
	return s.window.partition(p, s.width, fn)
}

// bufferedPartition is Partition when there is no file.
func (s *groupShuffle) bufferedPartition(p int, fn func(ids []uint64, codes []byte) error) error {
	from, to := s.buffer.span(p)
	for piece := max(maxShufflePage/s.width, 1); from < to; from += piece {
		rec := s.buffer.batch(s.schema, from, min(from+piece, to))
		err := fn(shuffleColumns(rec, s.width))
		rec.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// readWindow reads partition p and as many of those behind it as fit into the size of the buffer, which is free now.
func (s *groupShuffle) readWindow(p int) error {
	s.window.release()
	end, size := p+1, s.totals[p]
	for end < len(s.totals) && (size+s.totals[end])*uint64(s.width+8) <= uint64(s.opt.BufferBytes) {
		size += s.totals[end]
		end++
	}
	s.window.first, s.window.end = p, end
	for group, start := 1, int64(0); group <= s.groups; group++ {
		ends, err := s.readEnds(group)
		if err != nil {
			return err
		}
		part := windowGroup{bounds: make([]int64, end-p+1)}
		part.bounds[0] = start
		for i := range part.bounds {
			if p+i > 0 {
				part.bounds[i] = ends.at(p + i - 1)
			}
		}
		start = ends.at(len(s.totals) - 1)
		if !slices.IsSorted(part.bounds) || part.bounds[end-p] > s.rows {
			return fmt.Errorf("group %d has partitions out of order, or beyond the %d rows of the file", group, s.rows)
		}
		if part.batches, err = s.readRows(part.bounds[0], part.bounds[end-p]); err != nil {
			return err
		}
		s.window.groups = append(s.window.groups, part)
	}
	return nil
}

// groupEnds are where the partitions of a group end, as rows of the file.
type groupEnds []byte

func (e groupEnds) at(p int) int64 { return int64(binary.LittleEndian.Uint64(e[8*p:])) }

// readEnds returns where the partitions of a group end.
func (s *groupShuffle) readEnds(group int) (groupEnds, error) {
	b, err := s.reader.GlobalBuffer(s.ctx, group)
	if err == nil && len(b) != 8*len(s.totals) {
		err = fmt.Errorf("group %d has the ends of %d partitions, want %d", group, len(b)/8, len(s.totals))
	}
	return b, err
}

// readRows returns rows of the file. Of a mapped one they are slices.
func (s *groupShuffle) readRows(from, to int64) ([]windowBatch, error) {
	var batches []windowBatch
	sc := s.reader.Scan([]int{0, 1}, from, to-from, 0)
	defer sc.Close()
	for {
		rec, err := sc.Next(s.ctx)
		if errors.Is(err, io.EOF) {
			return batches, nil
		}
		if err != nil {
			releaseBatches(batches)
			return nil, err
		}
		batches = append(batches, windowBatch{from, rec})
		from += rec.NumRows()
	}
}

// Close implements shuffler.
func (s *groupShuffle) Close() error {
	if errors.Is(s.err, object.ErrClosed) {
		return nil
	}
	s.err = fmt.Errorf("shuffle: %w", object.ErrClosed)
	s.window.release()
	if s.reader != nil {
		_ = s.reader.Close() // It never fails.
	}
	if s.writer != nil {
		s.writer.Abort()
	}
	s.buffer.close()
	return s.folder.Close()
}

// window is neighbouring partitions in memory, or in the mapping of the file.
type window struct {
	first, end int
	groups     []windowGroup
}

// windowGroup is what a window has of a group.
type windowGroup struct {
	bounds  []int64 // where its partitions begin, and behind the last of them
	batches []windowBatch
}

// windowBatch is a run of rows.
type windowBatch struct {
	first int64
	rec   arrow.RecordBatch
}

func (b windowBatch) end() int64 { return b.first + b.rec.NumRows() }

// partition calls fn with the rows of a partition, group by group.
func (w *window) partition(p, width int, fn func(ids []uint64, codes []byte) error) error {
	for _, g := range w.groups {
		from, to := g.bounds[p-w.first], g.bounds[p-w.first+1]
		i := sort.Search(len(g.batches), func(i int) bool { return g.batches[i].end() > from })
		for ; from < to; i++ {
			b := g.batches[i]
			ids, codes := shuffleColumns(b.rec, width)
			lo, hi := int(from-b.first), int(min(to, b.end())-b.first)
			if err := fn(ids[lo:hi], codes[lo*width:hi*width]); err != nil {
				return err
			}
			from = b.first + int64(hi)
		}
	}
	return nil
}

// release drops the rows.
func (w *window) release() {
	for _, g := range w.groups {
		releaseBatches(g.batches)
	}
	*w = window{}
}

func releaseBatches(batches []windowBatch) {
	for _, b := range batches {
		b.rec.Release()
	}
}
