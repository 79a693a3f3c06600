package lsm

import (
	"context"
	"errors"
	"io"
	"iter"
	"path"
	"slices"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/memindex"
	"github.com/flightd/flightd/object"
)

// defaultSortBytes bounds what the columnSorters of one build hold in memory: four million numbers.
const defaultSortBytes = 128 << 20

// columnSorter brings the values of a column of rows that no index has into order. What does not fit into memory it
// writes to scratch files, each sorted, as BTREEs. It belongs to one goroutine, and is closed by it.
type columnSorter struct {
	codec *keyCodec
	most  int64 // bytes in memory
	st    object.Store
	dir   string

	mem *memindex.BTree
	// ids are those of the rows in mem, noID for one that is left out.
	ids   []uint64
	bytes int64 // of the values that mem retains
	runs  []*btree.Index
	files int
}

// noID is the id of a row that does not count.
const noID = ^uint64(0)

// newColumnSorter returns an empty sorter for a column of a type, with scratch files in a local folder.
func newColumnSorter(codec *keyCodec, temp string, most int64) *columnSorter {
	return &columnSorter{codec: codec, most: most, st: object.NewLocal(temp), dir: "index-" + uuid.NewString(), mem: memindex.NewBTree(codec.values())}
}

// add takes the rows of a fragment that a bitmap has, or with nil those that are not hidden; id gives each its number
// in the result and is called for these rows only, in order. done, which may be nil, is told of the rows that were read.
func (s *columnSorter) add(ctx context.Context, f *fragment, schema *tableSchema, live *roaring.Bitmap, id func(row uint32) uint64, done func(rows int64)) error {
	sc := f.scan(schema, s.codec.cols, 0, f.rows, morselRows)
	defer sc.Close()
	first := uint32(0)
	for {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n := uint32(rec.NumRows())
		col := s.codec.arrayOf(rec)
		s.take(col, func(i uint32) uint64 {
			row := first + i
			if live != nil && !live.Contains(row) || live == nil && f.hides(row) {
				return noID
			}
			return id(row)
		})
		col.Release()
		rec.Release()
		first += n
		if done != nil {
			done(int64(n))
		}
		if s.mem.MemoryBytes()+int64(8*cap(s.ids))+s.bytes > s.most {
			if err := s.spill(ctx); err != nil {
				return err
			}
		}
	}
}

// arrayOf returns the values of the codec's columns, which are all that a batch has, as a BTREE stores them: null where one of
// several is. The caller releases it.
func (k *keyCodec) arrayOf(rec arrow.RecordBatch) arrow.Array {
	if len(k.cols) == 1 {
		rec.Column(0).Retain()
		return rec.Column(0)
	}
	b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
	defer b.Release()
	for i := range int(rec.NumRows()) {
		if slices.ContainsFunc(rec.Columns(), func(c arrow.Array) bool { return c.IsNull(i) }) {
			b.AppendNull()
			continue
		}
		b.Append(appendTuple(nil, rec.Columns(), i))
	}
	return b.NewArray()
}

// take puts an array into the index in memory.
func (s *columnSorter) take(col arrow.Array, id func(i uint32) uint64) {
	values := relabel(col, s.codec.typ)
	defer values.Release()
	first := uint32(len(s.ids))
	for i := range values.Len() {
		s.ids = append(s.ids, id(uint32(i)))
	}
	s.mem.Add(values, first)
	s.bytes += wideBytes(values)
}

// wideBytes returns what an array of wide values takes in memory, 0 for others.
func wideBytes(a arrow.Array) int64 {
	switch a := a.(type) {
	case array.BinaryLike:
		return int64(len(a.ValueBytes()) + 8*a.Len())
	case *array.FixedSizeBinary, *array.Decimal128, *array.Decimal256:
		return int64(a.Len() * 32)
	}
	return 0
}

// of returns the id of a row in memory, and whether it counts.
func (s *columnSorter) of(row uint32) (uint64, bool) {
	id := s.ids[row]
	return id, id != noID
}

// spill writes what is in memory to a file.
func (s *columnSorter) spill(ctx context.Context) error {
	dir := path.Join(s.dir, strconv.Itoa(s.files))
	s.files++
	w, err := btree.Create(ctx, s.st, dir, s.codec.typ, btree.WriterOptions{})
	if err != nil {
		return err
	}
	out := newColumnWriter(ctx, w, s.codec)
	defer out.b.Release()
	out.id = s.of
	if err = s.mem.Write(out); err == nil {
		err = out.flush()
	}
	if err == nil {
		_, err = w.Finish(ctx)
	}
	if err != nil {
		w.Abort()
		return err
	}
	x, err := btree.Open(ctx, s.st, dir, btree.Options{})
	if err != nil {
		return err
	}
	s.runs = append(s.runs, x)
	s.mem.Release()
	s.mem, s.ids, s.bytes = memindex.NewBTree(s.codec.values()), s.ids[:0], 0
	return nil
}

// sources returns what there is, in order, as sources of a merge. They end before the sorter is closed. It can be
// called again for another merge.
func (s *columnSorter) sources(ctx context.Context) []*keySource {
	var out []*keySource
	for _, x := range s.runs {
		out = append(out, newKeySource(ctx, s.codec, x))
	}
	if len(s.ids) > 0 {
		out = append(out, newSource(s.codec, func(yield func(keyBatch, error) bool) {
			y := &yieldSink{codec: s.codec, id: s.of, yield: yield}
			if err := s.mem.Write(y); err != nil && !errors.Is(err, errStopped) {
				yield(keyBatch{}, err)
			}
		}))
	}
	return out
}

// close removes the scratch files.
func (s *columnSorter) close() {
	s.mem.Release()
	for _, x := range s.runs {
		_ = x.Close() // open for reading only
	}
	if s.files > 0 {
		_ = s.st.DeleteAll(context.Background(), s.dir) // the next Open clears what stays
	}
}

// errStopped ends a walk whose consumer has had enough.
var errStopped = errors.New("stopped")

// yieldSink hands the rows of an index of a memtable on as a BTREE has them.
type yieldSink struct {
	codec *keyCodec
	id    func(row uint32) (uint64, bool)
	yield func(keyBatch, error) bool
}

// Nulls implements memindex.Sink.
func (y *yieldSink) Nulls(rows []uint32) error {
	return y.hand(rows, func(b array.Builder, _ int) { b.AppendNull() })
}

// Ints implements memindex.Sink.
func (y *yieldSink) Ints(values []int64, rows []uint32) error {
	return y.hand(rows, func(b array.Builder, i int) { appendInt(b, values[i]) })
}

// Wide implements memindex.Sink.
func (y *yieldSink) Wide(values [][]byte, rows []uint32) error {
	return y.hand(rows, func(b array.Builder, i int) { appendWide(b, values[i]) })
}

func (y *yieldSink) hand(rows []uint32, put func(b array.Builder, i int)) error {
	b := array.NewBuilder(memory.DefaultAllocator, y.codec.typ)
	defer b.Release()
	ids := make([]uint64, 0, len(rows))
	for i, row := range rows {
		if id, ok := y.id(row); ok {
			put(b, i)
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	values := b.NewArray()
	defer values.Release()
	if !y.yield(keyBatch{values, ids}, nil) {
		return errStopped
	}
	return nil
}

// newSource returns a source over batches that come in order. The caller closes it.
func newSource(codec *keyCodec, seq iter.Seq2[keyBatch, error]) *keySource {
	s := &keySource{codec: codec}
	s.next, s.stop = iter.Pull2(seq)
	return s
}

// mergeColumn writes the entries of sources in order. id says, for a source by its place, what an entry's id becomes
// and whether it still counts.
func mergeColumn(sources []*keySource, w *columnWriter, id func(source int, id uint64) (uint64, bool)) error {
	return mergeKeys(sources, func(src *keySource, from, to int) error {
		for i := from; i < to; i++ {
			at, ok := id(src.rank, src.ids[i])
			if !ok {
				continue
			}
			if err := w.add(at); err != nil {
				return err
			}
			src.appendTo(w.b, i)
		}
		return nil
	})
}

// appendTo appends the value of an entry to a builder.
func (s *keySource) appendTo(b array.Builder, i int) {
	switch {
	case i < s.nulls:
		b.AppendNull()
	case s.keys.wide != nil:
		appendWide(b, s.keys.wide(i))
	default:
		appendInt(b, s.keys.ints[i])
	}
}
