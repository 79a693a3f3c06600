package vector

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
)

// Start is how k-means chooses its first centroids.
type Start uint8

// PlusPlus chooses each next row with a probability that grows with its squared distance to those chosen (k-means++, Arthur and
// Vassilvitskii 2007), among startRows rows for each cluster. Sampled chooses rows at random. Nested clusters the rows into few clusters and then
// each of these by itself, which takes a fraction of an iteration's time when many clusters are wanted, where PlusPlus takes that of several.
const (
	PlusPlus Start = iota
	Sampled
	Nested
)

// KMeansOptions says how rows are clustered. Zero values are the defaults.
type KMeansOptions struct {
	// Clusters is how many centroids are wanted. There must be as many rows that are finite.
	Clusters int
	// Metric is L2 or Dot: by what rows choose their centroid. A centroid is the mean of its rows under both, as in Lance.
	Metric Metric
	// Start chooses the first centroids.
	Start Start
	// Iterations is at most how often centroids move; 0 means 20.
	Iterations int
	// Tolerance ends the iterations when the loss has changed by less than this share of it; 0 means 1e-4.
	Tolerance float64
	// SampleRows is at most how many rows are looked at, drawn without replacement; 0 means 256 for each cluster. When there are more rows,
	// those that are drawn are copied.
	SampleRows int
	// BatchRows, when it is positive, makes each iteration a mini-step (Sculley 2010): so many rows are drawn, and each
	// pulls its centroid by one over the number of rows that the centroid has had. Steps are cheap, and 20 are few.
	BatchRows int
	// Workers is at most how many goroutines compute; 0 means 1. The result does not depend on it.
	Workers int
	// Seed makes the random choices: the same rows, options and seed give the same centroids on one machine.
	Seed uint64
}

// startRows is how many rows for each cluster the start looks at: an eighth of the default sample, so that it costs about as
// much as an iteration does in an eighth of its time.
const startRows = 32

// leastNested is for how many clusters a Nested start differs from PlusPlus; with fewer, two levels make no sense.
const leastNested = 16

// Clustering is what KMeans has found.
type Clustering struct {
	Centroids *Centroids
	// Loss is the sum of the distances between the rows looked at and their centroids.
	Loss float64
	// Sizes is how many of the rows looked at each centroid has.
	Sizes []int
	// Iterations is how often the centroids moved.
	Iterations int
}

// KMeans clusters rows of dim elements by Lloyd's iterations, or by mini-steps. Rows with elements that are not finite, or so
// large that float32 cannot hold the square of their length, are left out. It reads rows until it returns and keeps
// nothing of them.
//
// Clusters that come out empty, and far too small ones while others are far too large, are moved to split the largest.
//
// Goroutines: up to Workers, which all end before it returns. When ctx ends it returns ctx's error, soon.
func KMeans(ctx context.Context, rows []float32, dim int, o KMeansOptions) (*Clustering, error) {
	if err := o.validate(len(rows), dim); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(o.Seed, 0x6b6d65616e73))
	rows = sample(random, rows, dim, o.SampleRows)
	if len(rows)/dim < o.Clusters {
		return nil, fmt.Errorf("k-means: %d rows that are finite for %d clusters; ask for fewer clusters or give more rows", len(rows)/dim, o.Clusters)
	}
	k := &kmeans{KMeansOptions: o, rows: rows, dim: dim, n: len(rows) / dim, random: random}
	k.to, k.dist = make([]int32, k.n), make([]float32, k.n)
	k.sizes, k.means = make([]int, o.Clusters), make([]float32, o.Clusters*dim)
	if err := k.start(ctx); err != nil {
		return nil, err
	}
	if o.BatchRows > 0 {
		return k.miniSteps(ctx)
	}
	return k.lloyd(ctx)
}

func (o *KMeansOptions) validate(elements, dim int) error {
	switch {
	case dim <= 0:
		return fmt.Errorf("k-means: rows of %d dimensions", dim)
	case elements%dim != 0:
		return fmt.Errorf("k-means: %d elements are not rows of %d dimensions", elements, dim)
	case o.Clusters <= 0 || o.Clusters > math.MaxInt32:
		return fmt.Errorf("k-means: %d clusters; it takes 1 to %d", o.Clusters, math.MaxInt32)
	case o.Metric != L2 && o.Metric != Dot:
		return fmt.Errorf("k-means: clusters by l2 or dot, not by %v; under cosine normalise and use l2", o.Metric)
	case elements/dim > math.MaxInt32:
		return fmt.Errorf("k-means: %d rows, at most %d can be looked at; sample first", elements/dim, math.MaxInt32)
	}
	if o.Iterations <= 0 {
		o.Iterations = 20
	}
	if o.Tolerance <= 0 {
		o.Tolerance = 1e-4
	}
	if o.SampleRows <= 0 {
		o.SampleRows = 256 * o.Clusters
	}
	o.Workers = max(1, o.Workers)
	return nil
}

// usable reports whether a row can be near anything: its elements are finite, and so is the square of its length.
func usable(row []float32) bool {
	var square [1]float32
	dotRows(row, row, square[:])
	return square[0]-square[0] == 0
}

func allUsable(rows []float32, dim int) bool {
	for at := 0; at < len(rows); at += dim {
		if !usable(rows[at : at+dim]) {
			return false
		}
	}
	return true
}

// sample returns at most limit of the rows, in their order, all usable. Without a reason to leave any out these are rows
// themselves.
func sample(random *rand.Rand, rows []float32, dim, limit int) []float32 {
	n := len(rows) / dim
	if n <= limit && allUsable(rows, dim) {
		return rows
	}
	// Selection sampling (Knuth, The Art of Computer Programming 2, 3.4.2, algorithm S), in one pass in order; rows that
	// are not usable are few, so they are left out of those drawn.
	out := make([]float32, 0, min(n, limit)*dim)
	left := min(n, limit)
	for i := range n {
		if random.IntN(n-i) >= left {
			continue
		}
		left--
		if row := rows[i*dim : (i+1)*dim]; usable(row) {
			out = append(out, row...)
		}
	}
	return out
}

// kmeans is one run. Its goroutines write parts of to, dist and means of their own.
type kmeans struct {
	KMeansOptions
	rows   []float32
	dim, n int
	random *rand.Rand
	means  []float32 // the centroids at hand
	sizes  []int
	to     []int32
	dist   []float32
}

func (k *kmeans) row(i int) []float32  { return k.rows[i*k.dim : (i+1)*k.dim] }
func (k *kmeans) mean(c int) []float32 { return k.means[c*k.dim : (c+1)*k.dim] }

func (k *kmeans) start(ctx context.Context) error {
	if k.Start == Nested && k.Clusters >= leastNested {
		return k.nested(ctx)
	}
	n := k.n
	if k.Start == Sampled {
		n = k.Clusters
	} else {
		n = min(n, startRows*k.Clusters)
	}
	// n different rows in random order.
	chosen := k.random.Perm(k.n)[:n]
	if k.Start == Sampled {
		for c, i := range chosen {
			copy(k.mean(c), k.row(i))
		}
		return nil
	}
	if n == k.n {
		// All rows are candidates: where many clusters have a large sample, a copy would be as much memory again.
		return k.plusPlus(ctx, k.rows, chosen)
	}
	candidates := make([]float32, 0, n*k.dim)
	for i, row := range chosen {
		candidates = append(candidates, k.row(row)...)
		chosen[i] = i
	}
	return k.plusPlus(ctx, candidates, chosen)
}

// plusPlus chooses the centroids among candidates in a given order, of which the first is taken as it comes.
func (k *kmeans) plusPlus(ctx context.Context, candidates []float32, order []int) error {
	n := len(order)
	nearest, fresh := make([]float32, n), make([]float32, n)
	for i := range nearest {
		nearest[i] = float32(math.Inf(1))
	}
	chosen := order[0]
	for c := range k.Clusters {
		if err := ctx.Err(); err != nil {
			return err
		}
		row := candidates[chosen*k.dim : (chosen+1)*k.dim]
		copy(k.mean(c), row)
		l2Rows(row, candidates, fresh)
		var sum float64
		for _, i := range order {
			nearest[i] = min(nearest[i], fresh[i])
			sum += float64(nearest[i])
		}
		// When all that is left lies on a centroid, or sums overflow, any candidate will do.
		chosen = order[k.random.IntN(n)]
		if sum > 0 && !math.IsInf(sum, 0) {
			at := k.random.Float64() * sum
			for _, i := range order {
				if at -= float64(nearest[i]); at < 0 {
					chosen = i
					break
				}
			}
		}
	}
	return nil
}

// lloyd moves centroids to the means of their rows until that changes little.
func (k *kmeans) lloyd(ctx context.Context) (*Clustering, error) {
	var before float64 // 0 is settled at once only when there is nothing to lose
	for iteration := 0; ; iteration++ {
		found, err := k.assign(ctx)
		if err != nil {
			return nil, err
		}
		found.Iterations = iteration
		if iteration == k.Iterations || math.Abs(before-found.Loss) <= k.Tolerance*math.Abs(before) {
			return found, nil
		}
		before = found.Loss
		k.move()
		split(k.sizes, k.means, k.dim)
	}
}

// assign finds the centroid of each row, and with it sizes and loss.
func (k *kmeans) assign(ctx context.Context) (*Clustering, error) {
	c, err := NewCentroids(k.Metric, k.dim, slices.Clone(k.means))
	if err != nil {
		return nil, fmt.Errorf("k-means: %w: the rows are too large for float32", err)
	}
	const step = 16 * chunkRows
	k.parallel(k.n, func(from, to int) {
		for ; from < to && ctx.Err() == nil; from += step {
			end := min(from+step, to)
			c.Assign(k.rows[from*k.dim:end*k.dim], k.to[from:end], k.dist[from:end])
		}
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	found := &Clustering{Centroids: c}
	clear(k.sizes)
	for i, p := range k.to {
		if p >= 0 {
			k.sizes[p]++
			found.Loss += float64(k.dist[i])
		}
	}
	found.Sizes = slices.Clone(k.sizes)
	return found, nil
}

// move puts each centroid in the middle of its rows. Each cluster is summed by one goroutine in the order of its rows, so the
// number of workers does not change a bit.
func (k *kmeans) move() {
	members, ends := membersOf(k.to, k.Clusters)
	k.parallel(k.Clusters, func(from, to int) {
		sums := make([]float64, k.dim)
		for c := from; c < to; c++ {
			if ends[c] == ends[c+1] {
				continue
			}
			clear(sums)
			for _, i := range members[ends[c]:ends[c+1]] {
				for d, x := range k.row(int(i)) {
					sums[d] += float64(x)
				}
			}
			share := 1 / float64(k.sizes[c])
			for d, mean := 0, k.mean(c); d < k.dim; d++ {
				mean[d] = float32(sums[d] * share)
			}
		}
	})
}

// miniSteps draws rows and lets each pull its centroid.
func (k *kmeans) miniSteps(ctx context.Context) (*Clustering, error) {
	n := min(k.BatchRows, k.n)
	batch := &kmeans{KMeansOptions: k.KMeansOptions, rows: make([]float32, n*k.dim), dim: k.dim, n: n,
		means: k.means, sizes: make([]int, k.Clusters), to: make([]int32, n), dist: make([]float32, n)}
	pulled := make([]int, k.Clusters)
	for range k.Iterations {
		for i := range n {
			copy(batch.row(i), k.row(k.random.IntN(k.n)))
		}
		if _, err := batch.assign(ctx); err != nil {
			return nil, err
		}
		for i, p := range batch.to {
			if p < 0 {
				continue
			}
			pulled[p]++
			rate, row := 1/float32(pulled[p]), batch.row(i)
			for d, mean := 0, k.mean(int(p)); d < k.dim; d++ {
				mean[d] += rate * (row[d] - mean[d])
			}
		}
		split(pulled, k.means, k.dim)
	}
	found, err := k.assign(ctx)
	if err != nil {
		return nil, err
	}
	found.Iterations = k.Iterations
	return found, nil
}

// unbalanced is how many times the mean size a cluster must have, and how many times smaller than it another must be, for
// the small one to be moved.
const unbalanced = 8

// split moves the centroids of clusters that are empty, or unbalanced, beside that of the largest cluster, which they halve. Both keep almost its
// place, one a little to each side, so that the next assignment divides its rows: faiss and Lance do the same with empty ones.
func split(sizes []int, means []float32, dim int) {
	total := 0
	for _, size := range sizes {
		total += size
	}
	mean := total / len(sizes)
	for c := range sizes {
		if sizes[c] > 0 && sizes[c]*unbalanced >= mean {
			continue
		}
		largest := 0
		for i, size := range sizes {
			if size > sizes[largest] {
				largest = i
			}
		}
		if sizes[largest] < 2 || sizes[c] > 0 && sizes[largest] <= unbalanced*mean {
			continue
		}
		sizes[c] = sizes[largest] / 2
		sizes[largest] -= sizes[c]
		from, to := means[largest*dim:(largest+1)*dim], means[c*dim:(c+1)*dim]
		for d, x := range from {
			eps := float32(1.0 / 1024)
			if d%2 == 1 {
				eps = -eps
			}
			to[d], from[d] = x*(1+eps), x*(1-eps)
		}
	}
}

// parallel calls fn for consecutive parts of [0, n), on at most Workers goroutines, and waits for them.
func (k *kmeans) parallel(n int, fn func(from, to int)) {
	parts := min(k.Workers, n)
	if parts <= 1 {
		fn(0, n)
		return
	}
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { fn(n*p/parts, n*(p+1)/parts) })
	}
	wg.Wait()
}
