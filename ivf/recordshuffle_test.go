package ivf

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/flightd/flightd/object"
	"github.com/flightd/flightd/spill"
)

// recordShuffle is groupShuffle without Lance's file: records of an id and a code, one behind the other, and the ends of the
// partitions in memory. It is what groupShuffle is measured against, and has no more than that needs: its checksums are
// computed and not looked at again.
type recordShuffle struct {
	ctx    context.Context
	folder *spill.Folder
	width  int
	buffer *rowBuffer
	w      object.Writer
	r      object.Reader
	rows   int64
	ends   [][]int64
	sums   []uint32
	block  []byte
	err    error
}

func newRecordShuffle(ctx context.Context, folder *spill.Folder, partitions, width int, o ShuffleOptions) *recordShuffle {
	o, _ = o.validate(partitions, width)
	s := &recordShuffle{ctx: ctx, folder: folder, width: width, buffer: newRowBuffer(partitions, width, o.BufferBytes)}
	s.w, s.err = folder.Create(ctx, folder.Path("rows"))
	return s
}

func (s *recordShuffle) Add(parts []int32, ids []uint64, codes []byte) error {
	for s.err == nil && len(parts) > 0 {
		var n int
		if n, s.err = s.buffer.take(parts, ids, codes); s.err == nil && n < len(parts) {
			s.writeGroup()
		}
		parts, ids, codes = parts[n:], ids[n:], codes[n*s.width:]
	}
	return s.err
}

func (s *recordShuffle) writeGroup() {
	b := s.buffer
	b.sort()
	for at, row := range b.order[:b.rows] {
		s.block = binary.LittleEndian.AppendUint64(s.block, b.ids[row])
		s.block = append(s.block, b.codes[int(row)*s.width:(int(row)+1)*s.width]...)
		if len(s.block) >= maxShufflePage || at == b.rows-1 {
			s.sums = append(s.sums, crc32.Checksum(s.block, crc32.MakeTable(crc32.Castagnoli)))
			if s.err == nil {
				_, s.err = s.w.Write(s.block)
			}
			s.block = s.block[:0]
		}
	}
	ends := make([]int64, len(b.ends)+1)
	ends[0] = s.rows
	for p, end := range b.ends {
		ends[p+1] = s.rows + int64(end)
	}
	s.ends, s.rows = append(s.ends, ends), s.rows+int64(b.rows)
	b.clear()
}

func (s *recordShuffle) Finish() error {
	s.writeGroup()
	s.buffer.close()
	if s.err == nil {
		s.err = s.w.Close()
	}
	if s.err == nil {
		s.r, s.err = s.folder.Open(s.ctx, s.folder.Path("rows"))
	}
	return s.err
}

func (s *recordShuffle) Partition(p int, fn func(ids []uint64, codes []byte) error) error {
	size := int64(8 + s.width)
	for _, ends := range s.ends {
		n := int(ends[p+1] - ends[p])
		if n == 0 {
			continue
		}
		records := make([]byte, size*int64(n))
		if _, err := s.r.ReadAt(records, ends[p]*size); err != nil {
			return fmt.Errorf("read %d records: %w", n, err)
		}
		ids, codes := make([]uint64, n), make([]byte, 0, n*s.width)
		for i := range ids {
			ids[i] = binary.LittleEndian.Uint64(records)
			codes = append(codes, records[8:size]...)
			records = records[size:]
		}
		if err := fn(ids, codes); err != nil {
			return err
		}
	}
	return nil
}

func (s *recordShuffle) Close() error {
	s.w.Abort()
	if s.r != nil {
		_ = s.r.Close() // It was only read.
	}
	s.buffer.close()
	return s.folder.Close()
}
