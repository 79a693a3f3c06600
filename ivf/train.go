package ivf

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/vector"
)

// ErrNoRows is returned by Train when the sample has no row that an index takes.
var ErrNoRows = errors.New("there are no rows to train an index with")

// TrainOptions say what a model is made for. Zero values are the defaults.
type TrainOptions struct {
	// Kind is PQ by default.
	Kind Kind
	// Metric ranks the rows: L2, Cosine or Dot.
	Metric vector.Metric
	// Partitions is how many there shall be; default DefaultPartitions of Rows. There are never more than rows in the sample.
	Partitions int
	// SubVectors divides the dimensions; default DefaultSubVectors.
	SubVectors int
	// Bits is 8, the default, or 4.
	Bits int
	// Element is the type of the elements of the vectors; default float32. The model's numbers are ones that it holds exactly.
	Element arrow.DataType
	// Rows is how many rows will be indexed, for the default of Partitions.
	Rows int64
	// SampleRate is how many rows are looked at for each centroid and code word; default 256, as in Lance.
	SampleRate int
	// Iterations is at most how often centroids and code words move; default 20.
	Iterations int
	// Workers is at most how many goroutines compute; default 1. The model does not depend on it.
	Workers int
	// Seed makes the random choices.
	Seed uint64
}

const (
	// maxPartitions bounds what a statement may ask for: an id and two counts for each lie in memory and in the files.
	maxPartitions = 1 << 16
	// sampleBytes bounds the memory of a sample.
	sampleBytes = 64 << 20
	// manyPartitions is for how many partitions training is made cheaper: its time grows with their square. On a sample of 131,072 rows of
	// 128 dimensions in 1,000 clusters, 4,096 partitions took 29 s with the usual start, 11 s with the nested one, and 7 s when the
	// iterations end as they change less than manyTolerance; the loss became larger by 0.01 and 0.07 %.
	manyPartitions = 1 << 10
	manyTolerance  = 1e-3
	// defaultSampleRate is Lance's own choice.
	defaultSampleRate = 256
)

// DefaultPartitions is the square root of the number of rows: then a search looks at about as many centroids as at rows of a partition.
func DefaultPartitions(rows int64) int {
	return min(max(int(math.Sqrt(float64(rows))), 1), 4096)
}

// DefaultSubVectors is the number of sub-vectors whose codes have about one bit for each dimension with 8 bits, two with 4: the
// divisor of dim that comes nearest. It is 0 if there is none, which is so for an odd dim with 4 bits.
func DefaultSubVectors(dim, bits int) int {
	elements, step := 8, 1
	if bits == 4 {
		elements, step = 2, 2
	}
	best := 0
	for m := step; m <= min(dim, 4096); m += step {
		far := func(m int) float64 { return math.Abs(math.Log(float64(dim) / float64(m*elements))) }
		if dim%m == 0 && (best == 0 || far(m) < far(best)) {
			best = m
		}
	}
	return best
}

// resolve fills in the defaults for vectors of dim elements and refuses what makes no model.
func (o TrainOptions) resolve(dim int) (TrainOptions, element, error) {
	e, err := elementOf(o.Element)
	if err != nil {
		return o, e, err
	}
	if o.Kind == "" {
		o.Kind = PQ
	}
	if o.Partitions == 0 {
		o.Partitions = DefaultPartitions(o.Rows)
	}
	if o.Bits == 0 {
		o.Bits = 8
	}
	if o.SubVectors == 0 && o.Kind == PQ && dim > 0 {
		o.SubVectors = DefaultSubVectors(dim, o.Bits)
	}
	if o.SampleRate == 0 {
		o.SampleRate = defaultSampleRate
	}
	switch {
	case dim <= 0:
		return o, e, fmt.Errorf("vectors of %d dimensions have no index", dim)
	case o.Kind != PQ && o.Kind != Flat:
		return o, e, fmt.Errorf("no index of kind %q; it is %s or %s", o.Kind, PQ, Flat)
	case o.Metric != vector.L2 && o.Metric != vector.Cosine && o.Metric != vector.Dot:
		return o, e, fmt.Errorf("no index under metric %s; it is l2, cosine or dot", o.Metric)
	case o.Partitions < 0 || o.Partitions > maxPartitions:
		return o, e, fmt.Errorf("%d partitions, an index has 1 to %d", o.Partitions, maxPartitions)
	case o.SampleRate < 1:
		return o, e, fmt.Errorf("a sample of %d rows for each centroid, it is at least 1", o.SampleRate)
	}
	if o.Kind == PQ {
		// The quantiser knows what it takes.
		if _, err := vector.NewPQ(dim, o.SubVectors, o.Bits, make([]float32, dim<<min(max(o.Bits, 0), 8))); err != nil {
			return o, e, err
		}
	}
	return o, e, nil
}

// Check refuses options with which vectors of dim elements cannot be indexed.
func (o TrainOptions) Check(dim int) error {
	_, _, err := o.resolve(dim)
	return err
}

// SampleRows is how many rows Train makes use of: SampleRate for each centroid or code word, whichever are more, in at most 64
// MiB.
func (o TrainOptions) SampleRows(dim int) (int, error) {
	o, _, err := o.resolve(dim)
	if err != nil {
		return 0, err
	}
	centroids := o.Partitions
	if o.Kind == PQ {
		centroids = max(centroids, 1<<o.Bits)
	}
	fits := max(sampleBytes/(4*dim), 1)
	if centroids > fits/o.SampleRate {
		return fits, nil
	}
	return centroids * o.SampleRate, nil
}

// Train makes a model of a sample of rows of dim elements. It overwrites the sample, so that no copy of it is needed; rows that no index takes are
// left out. A sample with fewer rows than Partitions gives as many partitions as it has rows, each its own centroid; one with fewer rows
// than there are code words gives code words that are the rows.
//
// Goroutines: up to Workers, which all end before it returns.
func Train(ctx context.Context, sample []float32, dim int, o TrainOptions) (*vector.IVF, float64, error) {
	o, e, err := o.resolve(dim)
	if err != nil {
		return nil, 0, fmt.Errorf("train an index: %w", err)
	}
	if len(sample)%dim != 0 {
		return nil, 0, fmt.Errorf("train an index: %d elements are no rows of %d", len(sample), dim)
	}
	rank := o.Metric
	if o.Metric == vector.Cosine {
		rank = vector.L2
		vector.Normalize(dim, sample, sample)
	}
	if sample = keepFinite(sample, dim); len(sample) == 0 {
		return nil, 0, ErrNoRows
	}
	o.Partitions = min(o.Partitions, len(sample)/dim)
	ko := vector.KMeansOptions{
		Clusters: o.Partitions, Metric: rank, Iterations: o.Iterations, SampleRows: len(sample) / dim, Workers: max(o.Workers, 1), Seed: o.Seed,
	}
	if o.Partitions >= manyPartitions {
		ko.Start, ko.Tolerance = vector.Nested, manyTolerance
	}
	found, err := vector.KMeans(ctx, sample, dim, ko)
	if err != nil {
		return nil, 0, fmt.Errorf("train an index: %w", err)
	}
	flat := slices.Clone(found.Centroids.Flat())
	e.round(flat)
	centroids, err := vector.NewCentroids(rank, dim, flat)
	if err != nil {
		return nil, 0, fmt.Errorf("train an index: %w", err)
	}
	pq, err := trainPQ(ctx, sample, centroids, o, e)
	if err != nil {
		return nil, 0, fmt.Errorf("train an index: %w", err)
	}
	model, err := vector.NewIVF(o.Metric, centroids, pq)
	return model, found.Loss, err
}

// trainPQ finds the code words for what the model will encode, nil for IVF_FLAT.
func trainPQ(ctx context.Context, sample []float32, c *vector.Centroids, o TrainOptions, e element) (*vector.PQ, error) {
	if o.Kind == Flat {
		return nil, nil
	}
	dim := c.Dim()
	if c.Metric() == vector.L2 {
		parts := make([]int32, len(sample)/dim)
		c.Assign(sample, parts, nil)
		c.Residuals(sample, sample, parts)
		sample = keepFinite(sample, dim)
	}
	if n, words := len(sample)/dim, 1<<o.Bits; n > 0 && n < words {
		few := sample
		sample = make([]float32, 0, words*dim)
		for i := range words {
			sample = append(sample, few[i%n*dim:(i%n+1)*dim]...)
		}
	}
	pq, err := vector.TrainPQ(ctx, sample, dim, vector.PQOptions{
		SubVectors: o.SubVectors, Bits: o.Bits, Iterations: o.Iterations, SampleRows: o.SampleRate << o.Bits, Workers: max(o.Workers, 1), Seed: o.Seed,
	})
	if err != nil {
		return nil, err
	}
	book := slices.Clone(pq.Codebook())
	e.round(book)
	return vector.NewPQ(dim, o.SubVectors, o.Bits, book)
}

// keepFinite moves the rows without NaN, infinity, or numbers whose square overflows to the front and returns them.
func keepFinite(rows []float32, dim int) []float32 {
	kept := 0
	for at := 0; at < len(rows); at += dim {
		if norm := vector.Norm(rows[at : at+dim]); norm-norm == 0 {
			copy(rows[kept:kept+dim], rows[at:at+dim])
			kept += dim
		}
	}
	return rows[:kept]
}

// Sampler draws rows, each as likely as the others, from rows that come in any number of batches (reservoir sampling). It belongs to one
// goroutine. It must be closed.
type Sampler struct {
	dim, want int
	seen      int64
	rows      []float32
	random    *rand.Rand
	// block is the memory of rows. It lies outside the Go heap, whose collector would let it stand for twice its size; free gives it back.
	block []byte
	free  func([]byte)
}

// sampleInMemory is the size of a sample for which no file is made.
const sampleInMemory = 4 << 20

// NewSampler draws up to want rows of dim elements. A large sample lies in a temporary file in dir, which is mapped, so that it takes none of the
// memory of the build; in memory if dir is empty, or there is no room for the file.
func NewSampler(dim, want int, seed uint64, dir string) *Sampler {
	s := &Sampler{dim: dim, want: want, random: rand.New(rand.NewPCG(seed, 0x73616d706c65))}
	if size := 4 * want * dim; dir != "" && size > sampleInMemory {
		if block, err := offheap.MapFile(dir, size); err == nil {
			s.block, s.free = block, offheap.UnmapFile
		}
	}
	if s.block == nil {
		// What is not used of it takes no memory.
		s.block, s.free = offheap.Default.AllocateDirty(4*want*dim), offheap.Default.Discard
	}
	s.rows = arrow.Float32Traits.CastFromBytes(s.block)[:0]
	return s
}

// Add offers rows, which it copies as far as it draws them.
func (s *Sampler) Add(rows []float32) {
	for at := 0; at+s.dim <= len(rows); at += s.dim {
		s.seen++
		if len(s.rows) < s.want*s.dim {
			s.rows = append(s.rows, rows[at:at+s.dim]...)
			continue
		}
		if place := s.random.Int64N(s.seen); place < int64(s.want) {
			copy(s.rows[int(place)*s.dim:], rows[at:at+s.dim])
		}
	}
}

// Rows is what was drawn, the caller's to change and valid until Close. No more may be offered then.
func (s *Sampler) Rows() []float32 { return s.rows }

// Close gives the memory of the rows back. It may be called again.
func (s *Sampler) Close() {
	if s.block != nil {
		s.free(s.block)
	}
	s.block, s.rows = nil, nil
}
