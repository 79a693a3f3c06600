package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/vector"
)

const (
	// searchTaskBytes is how many bytes of vectors a worker takes at a time from a file: enough that handing them out costs
	// nothing, and little enough that those of a small table are shared evenly.
	searchTaskBytes = 4 << 20
	// searchBlockBytes is how many bytes of vectors all queries are compared with before the next ones are: a part of a
	// core's cache, so that many queries cost one pass over memory.
	searchBlockBytes = 128 << 10
	// searchHeapBytes bounds the neighbours that the workers keep for the queries which they answer together.
	searchHeapBytes = 64 << 20
	// searchTakeShare is the part of a fragment's rows below which those that are looked among are taken one by one, and the
	// others not read.
	searchTakeShare = 16
)

// searchTask is some rows of a piece that one worker compares with all queries.
type searchTask struct {
	piece *piece
	first int64
	rows  int64
	// batch is the place of the memtable's batch, whose rows they are.
	batch int
}

// tasks cuts the rows that are searched.
func (s *search) tasks() []searchTask {
	var out []searchTask
	step := int64(max(1, searchTaskBytes/s.kind.bytes()))
	cut := func(p *piece, first, n int64, batch int) {
		for ; n > 0; first, n = first+step, n-step {
			out = append(out, searchTask{p, first, min(step, n), batch})
		}
	}
	for i := range s.pieces {
		p := &s.pieces[i]
		if only, picked := s.o.Only.of(i); picked && (only == nil || only.IsEmpty()) {
			continue
		}
		if p.frag != nil {
			cut(p, p.exactFrom, p.frag.rows-p.exactFrom, 0)
			continue
		}
		for j, b := range p.rows.batches {
			if int64(b.first) < p.exactFrom {
				continue // an index has whole batches
			}
			cut(p, int64(b.first), b.rec.NumRows(), j)
		}
	}
	return out
}

// nearest compares some of the queries with all rows and returns, for each, the so many that are nearest, in the order of distance and place.
func (s *search) nearest(ctx context.Context, queries []int, kept int) ([][]vector.Neighbor, error) {
	tasks := s.tasks()
	workers := max(1, min(runtime.GOMAXPROCS(0), len(tasks)))
	together := max(1, searchHeapBytes/(16*max(kept, 1)*workers))
	out := make([][]vector.Neighbor, 0, len(queries))
	for len(queries) > 0 {
		some := queries[:min(together, len(queries))]
		queries = queries[len(some):]
		found, err := s.compareAll(ctx, tasks, workers, some, kept)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// compareAll is nearest for queries that are answered together.
func (s *search) compareAll(ctx context.Context, tasks []searchTask, workers int, queries []int, kept int) ([][]vector.Neighbor, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([]*searcher, workers)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range all {
		w := s.newSearcher(queries, kept)
		all[i] = w
		work := func() {
			for at := next.Add(1) - 1; at < int64(len(tasks)); at = next.Add(1) - 1 {
				if ctx.Err() != nil {
					return
				}
				if err := w.task(ctx, &tasks[at]); err != nil {
					cancel(err)
					return
				}
			}
		}
		if i == workers-1 {
			work()
		} else {
			wg.Go(work)
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	out := make([][]vector.Neighbor, len(queries))
	for i := range queries {
		for _, w := range all[1:] {
			all[0].best[i].Merge(w.best[i])
		}
		out[i] = all[0].best[i].AppendSorted(nil)
	}
	return out, nil
}

// searcher is what one worker has of a search.
type searcher struct {
	*search
	queries []int
	best    []*vector.TopK
	// dist is scratch.
	dist []float32
}

func (s *search) newSearcher(queries []int, kept int) *searcher {
	w := &searcher{search: s, queries: queries, best: make([]*vector.TopK, len(queries))}
	for i := range w.best {
		w.best[i] = vector.NewTopK(kept)
	}
	return w
}

// task compares the rows of a task with all queries.
func (w *searcher) task(ctx context.Context, t *searchTask) error {
	only, picked := w.o.Only.of(t.piece.number)
	if t.piece.frag == nil {
		b := &t.piece.rows.batches[t.batch]
		live := w.live(t, uint32(t.first), t.rows, only, picked)
		if live != nil && len(live) == 0 {
			return nil
		}
		col, err := w.view.schema.pick(b.schema, b.rec, w.o.Column)
		if err != nil {
			return err
		}
		defer col.Release()
		part := array.NewSlice(col, t.first-int64(b.first), t.first-int64(b.first)+t.rows)
		defer part.Release()
		return w.compare(t.piece, uint32(t.first), part, live)
	}
	if picked && int64(only.GetCardinality()) < t.piece.frag.rows/searchTakeShare {
		return w.taken(ctx, t, only)
	}
	if live := w.live(t, uint32(t.first), t.rows, only, picked); live != nil && len(live) == 0 {
		return nil
	}
	return w.scanned(ctx, t, only, picked)
}

// scanned reads the vectors of a range of a fragment.
func (w *searcher) scanned(ctx context.Context, t *searchTask, only *roaring.Bitmap, picked bool) error {
	sc := t.piece.frag.scan(w.view.schema, []int{w.o.Column}, t.first, t.rows, t.rows)
	defer sc.Close()
	for first := t.first; ; {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		err = w.compare(t.piece, uint32(first), rec.Column(0), w.live(t, uint32(first), rec.NumRows(), only, picked))
		first += rec.NumRows()
		rec.Release()
		if err != nil {
			return err
		}
	}
}

// taken reads the vectors of some rows of a fragment that lie in the range of a task.
func (w *searcher) taken(ctx context.Context, t *searchTask, only *roaring.Bitmap) error {
	live := w.live(t, uint32(t.first), t.rows, only, true)
	if len(live) == 0 {
		return nil
	}
	rows := make([]int64, len(live))
	for i, row := range live {
		rows[i] = t.first + int64(row)
	}
	rec, err := t.piece.frag.take(ctx, w.view.schema, []int{w.o.Column}, rows)
	if err != nil {
		return err
	}
	defer rec.Release()
	block, err := newVectorBlock(rec.Column(0), w.kind)
	if err != nil {
		return err
	}
	for i := range w.queries {
		w.dist = grown(w.dist, len(rows))
		block.distances(w.metric, &w.search.queries[w.queries[i]], 0, len(rows), w.dist)
		for j, row := range rows {
			if block.valid(j) {
				w.best[i].Push(uint64(placeAt(t.piece.number, uint32(row))), w.dist[j])
			}
		}
	}
	return nil
}

// live returns which of n rows of a piece from first on are searched, as numbers from 0; nil means that all are.
func (w *searcher) live(t *searchTask, first uint32, n int64, only *roaring.Bitmap, picked bool) []uint32 {
	var live []uint32
	if picked {
		live = pickLive(first, uint32(n), only, t.piece.hidden)
	} else {
		live = liveRows(first, uint32(n), t.piece.hidden, nil)
	}
	if t.piece.rows == nil {
		return live
	}
	b := &t.piece.rows.batches[t.batch]
	if b.tombs == nil {
		return live
	}
	if live == nil {
		live = make([]uint32, n)
		for i := range live {
			live[i] = uint32(i)
		}
	}
	kept := live[:0]
	for _, row := range live {
		if !b.tombs.Value(int(first - b.first + row)) {
			kept = append(kept, row)
		}
	}
	return kept
}

// compare compares rows of a piece, of which vectors has the first one at first, with all queries.
func (w *searcher) compare(p *piece, first uint32, vectors arrow.Array, live []uint32) error {
	if live != nil && len(live) == 0 {
		return nil
	}
	block, err := newVectorBlock(vectors, w.kind)
	if err != nil {
		return err
	}
	if live = block.withoutNulls(live); live != nil && len(live) == 0 {
		return nil
	}
	step := max(32, searchBlockBytes/w.kind.bytes())
	w.dist = grown(w.dist, step)
	for from := 0; from < block.rows; from += step {
		to := min(from+step, block.rows)
		if live == nil {
			for i, q := range w.queries {
				block.distances(w.metric, &w.search.queries[q], from, to, w.dist)
				w.best[i].PushRange(uint64(placeAt(p.number, first+uint32(from))), w.dist[:to-from])
			}
			continue
		}
		n := 0
		for n < len(live) && live[n] < uint32(to) {
			n++
		}
		w.compareSome(p, first, block, live[:n], from, to)
		live = live[n:]
		if len(live) == 0 {
			break
		}
	}
	return nil
}

// compareSome compares some rows between two with all queries.
func (w *searcher) compareSome(p *piece, first uint32, block *vectorBlock, live []uint32, from, to int) {
	if len(live) == 0 {
		return
	}
	// A kernel over neighbouring rows is about twice as fast as one over single ones.
	dense := len(live) > (to-from)/2
	for i, q := range w.queries {
		if dense {
			block.distances(w.metric, &w.search.queries[q], from, to, w.dist)
		} else {
			block.distancesAt(w.metric, &w.search.queries[q], live, w.dist[:len(live)])
		}
		best := w.best[i]
		limit := best.Limit()
		for j, row := range live {
			d := w.dist[j]
			if dense {
				d = w.dist[int(row)-from]
			}
			if d <= limit {
				best.Push(uint64(placeAt(p.number, first+row)), d)
				limit = best.Limit()
			}
		}
	}
}

// grown returns a slice of n numbers, the one it gets if that is long enough.
func grown(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

// vectorBlock is the vectors of an array, without copies.
type vectorBlock struct {
	kind  vectorKind
	rows  int
	list  *array.FixedSizeList
	items arrow.Array
	// first is the place of the first vector's first element among the items.
	first   int
	floats  []float32
	halves  []uint16
	doubles []float64
	bytes   []byte
}

// newVectorBlock looks into an array of vectors, which has to outlive the block.
func newVectorBlock(a arrow.Array, kind vectorKind) (*vectorBlock, error) {
	list, ok := a.(*array.FixedSizeList)
	if !ok || int(list.DataType().(*arrow.FixedSizeListType).Len()) != kind.dim {
		return nil, fmt.Errorf("a column of vectors with %d elements came as %s", kind.dim, a.DataType())
	}
	b := &vectorBlock{kind: kind, rows: list.Len(), list: list, items: list.ListValues(), first: list.Data().Offset() * kind.dim}
	if b.rows == 0 {
		return b, nil
	}
	to := b.first + b.rows*kind.dim
	switch x := b.items.(type) {
	case *array.Float32:
		b.floats = x.Float32Values()[b.first:to]
	case *array.Float16:
		d := x.Data()
		b.halves = arrow.GetData[uint16](d.Buffers()[1].Bytes())[d.Offset()+b.first : d.Offset()+to]
	case *array.Float64:
		b.doubles = x.Float64Values()[b.first:to]
	case *array.Uint8:
		b.bytes = x.Uint8Values()[b.first:to]
	default:
		return nil, fmt.Errorf("vectors came with elements of %s", b.items.DataType())
	}
	return b, nil
}

// valid reports whether a vector is there, with all its elements.
func (b *vectorBlock) valid(i int) bool {
	if b.list.IsNull(i) {
		return false
	}
	if b.items.NullN() == 0 {
		return true
	}
	for j := b.first + i*b.kind.dim; j < b.first+(i+1)*b.kind.dim; j++ {
		if b.items.IsNull(j) {
			return false
		}
	}
	return true
}

// withoutNulls returns those of some rows, nil for all, that have vectors.
func (b *vectorBlock) withoutNulls(live []uint32) []uint32 {
	if b.list.NullN() == 0 && b.items.NullN() == 0 {
		return live
	}
	if live == nil {
		live = make([]uint32, b.rows)
		for i := range live {
			live[i] = uint32(i)
		}
	}
	kept := live[:0]
	for _, i := range live {
		if b.valid(int(i)) {
			kept = append(kept, i)
		}
	}
	return kept
}

// distances writes those between a query and the rows from one to another to out.
func (b *vectorBlock) distances(m vector.Metric, q *searchQuery, from, to int, out []float32) {
	out = out[:to-from]
	from, to = from*b.kind.dim, to*b.kind.dim
	switch b.kind.item {
	case arrow.FLOAT32:
		vector.Distances(m, q.floats, b.floats[from:to], out)
	case arrow.FLOAT16:
		vector.DistancesFloat16(m, q.floats, b.halves[from:to], out)
	case arrow.FLOAT64:
		vector.DistancesFloat64(m, q.wide, b.doubles[from:to], out)
	case arrow.UINT8:
		vector.HammingDistances(q.bytes, b.bytes[from:to], out)
	}
}

// distancesAt writes those between a query and some rows to out.
func (b *vectorBlock) distancesAt(m vector.Metric, q *searchQuery, rows []uint32, out []float32) {
	if b.kind.item == arrow.FLOAT32 {
		vector.DistancesAt(m, q.floats, b.floats, rows, out)
		return
	}
	for i, row := range rows {
		b.distances(m, q, int(row), int(row)+1, out[i:])
	}
}
