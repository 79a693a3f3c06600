package lsm

import (
	"context"
	"errors"
	"io"
	"runtime"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/memindex"
	"github.com/flightd/flightd/object"
)

// vectorRows is how many rows of a column of vectors are read at a time: their copies are small beside a memtable.
const vectorRows = 4096

// scratchBytes is what a build brings into the order of its partitions in memory; more goes through scratch files.
const scratchBytes = 32 << 20

// buildOptions are those of every index over vectors that is built, given how many rows are handed to it at most, those of segments
// that it takes over aside.
func (t *Table) buildOptions(m vectorModel, rows int64) ivf.BuildOptions {
	o := ivf.BuildOptions{WriterOptions: ivf.WriterOptions{Element: m.item, Trained: m.trained}, Workers: runtime.GOMAXPROCS(0)}
	width := m.ivf.CodeBytes()
	if m.ivf.PQ() == nil {
		width = 8 * m.ivf.Dim() // of float64
	}
	if rows*int64(8+width) > scratchBytes {
		o.Scratch = object.NewScratch(t.db.opt.Temp) // in a folder of its own, which the next Open clears if a crash leaves it
	}
	return o
}

// finishVectors ends a build and notes its files.
func finishVectors(ctx context.Context, b *ivf.Builder, x *manifest.Index) error {
	files, err := b.Finish(ctx)
	if err != nil {
		b.Abort()
		return err
	}
	for _, f := range files {
		x.Files = append(x.Files, manifest.IndexFile{Path: f.Path, Bytes: f.Bytes})
	}
	return nil
}

// rowSink takes vectors: a Builder does.
type rowSink interface {
	Add(ctx context.Context, ids []uint64, rows []float32) error
}

// vectorFeed hands the vectors of arrays to a sink, those that are null aside.
type vectorFeed struct {
	sink    rowSink
	dim     int
	ids     []uint64
	rows    []float32
	scratch []float32
}

func newVectorFeed(sink rowSink, dim int) *vectorFeed { return &vectorFeed{sink: sink, dim: dim} }

// add hands on those rows of an array for which id returns true, with the numbers that it gives them.
func (f *vectorFeed) add(ctx context.Context, values arrow.Array, id func(i int) (uint64, bool)) error {
	for at := 0; at < values.Len(); at += vectorRows {
		n := min(vectorRows, values.Len()-at)
		var rows []float32
		rows, f.scratch = memindex.Vectors(values, at, n, f.scratch)
		f.ids = f.ids[:0]
		whole := true
		for i := range n {
			to, ok := id(at + i)
			if ok = ok && values.IsValid(at+i); ok && !whole {
				f.rows = append(f.rows, rows[i*f.dim:(i+1)*f.dim]...)
			}
			if ok {
				f.ids = append(f.ids, to)
			} else if whole { // the first that is left out: from here on the others are copied
				whole = false
				f.rows = append(f.rows[:0], rows[:i*f.dim]...)
			}
		}
		if !whole {
			rows = f.rows
		}
		if len(f.ids) == 0 {
			continue
		}
		if err := f.sink.Add(ctx, f.ids, rows); err != nil {
			return err
		}
	}
	return nil
}

// fragment hands on the rows of a fragment that a bitmap has, or with nil those that are not hidden. id gives each its number and
// is called for these rows only, in order; done, which may be nil, is told of the rows that were read.
func (f *vectorFeed) fragment(ctx context.Context, x *fragment, s *tableSchema, column int, live *roaring.Bitmap, id func(row uint32) uint64, done func(rows int64)) error {
	sc := x.scan(s, []int{column}, 0, x.rows, vectorRows)
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
		values := relabel(rec.Column(0), s.arrow.Field(column).Type)
		err = f.add(ctx, values, func(i int) (uint64, bool) {
			row := first + uint32(i)
			if live != nil && !live.Contains(row) || live == nil && x.hides(row) {
				return 0, false
			}
			return id(row), true
		})
		values.Release()
		n := rec.NumRows()
		rec.Release()
		if err != nil {
			return err
		}
		first += uint32(n)
		if done != nil {
			done(n)
		}
	}
}

// sampler draws rows to train with.
type sampler struct {
	*ivf.Sampler
	model *trainPlan
}

// trainPlan is what an index is trained for.
type trainPlan struct {
	entry indexEntry
	o     ivf.TrainOptions
	dim   int
	least int64
	// finite counts the rows that an index takes.
	finite int64
}

// newTrainPlan returns how an index over a column is trained for some rows.
func newTrainPlan(x indexEntry, f arrow.Field, rows int64) (*trainPlan, error) {
	o, err := newVectorOptions(x.Kind, x.Options, f)
	if err != nil {
		return nil, err
	}
	return &trainPlan{entry: x, dim: o.dim, least: o.leastRows(), o: ivf.TrainOptions{
		Kind: ivf.Kind(x.Kind), Metric: o.metric, Partitions: o.partitions, SubVectors: o.subVectors, Bits: o.bits, Element: f.Type.(*arrow.FixedSizeListType).Elem(),
		Rows: rows, SampleRate: o.sample, Iterations: o.iterations, Workers: runtime.GOMAXPROCS(0), Seed: trainSeed,
	}}, nil
}

// trainSeed makes the same rows give the same index.
const trainSeed = 7

// sampler returns what draws the rows for the training, by a temporary file in temp if they are many. The caller closes it.
func (p *trainPlan) sampler(temp string) (*sampler, error) {
	n, err := p.o.SampleRows(p.dim)
	if err != nil {
		return nil, err
	}
	return &sampler{ivf.NewSampler(p.dim, n, trainSeed, temp), p}, nil
}

// Add implements rowSink. Rows that no index takes are not drawn: they must not stand for others.
func (s *sampler) Add(ctx context.Context, _ []uint64, rows []float32) error {
	dim := s.model.dim
	for at := 0; at < len(rows); at += dim {
		row := rows[at : at+dim]
		if slices.ContainsFunc(row, func(x float32) bool { return x-x != 0 }) {
			continue
		}
		s.model.finite++
		s.Sampler.Add(row)
	}
	return ctx.Err()
}

// train makes the model of what was drawn. It returns false when there are too few rows.
func (s *sampler) train(ctx context.Context) (vectorModel, bool, error) {
	p := s.model
	if p.finite < p.least {
		return vectorModel{}, false, nil
	}
	p.o.Rows = p.finite
	m, _, err := ivf.Train(ctx, s.Rows(), p.dim, p.o)
	s.Close()                          // before the build takes its buffer
	if errors.Is(err, ivf.ErrNoRows) { // they are zero, under cosine
		return vectorModel{}, false, nil
	}
	if err != nil {
		return vectorModel{}, false, err
	}
	return vectorModel{entry: p.entry, id: newModelID(m, p.o.Element), ivf: m, item: p.o.Element}, true, nil
}
