package vector

import (
	"context"
	"errors"
	"math"
)

// nestedIterations is how often centroids move in each step of a Nested start. What is left to do is done by the iterations over
// all rows.
const nestedIterations = 8

// nested chooses the first centroids in two steps: the rows are clustered into as many coarse clusters as the root of what is wanted, and
// each of these gets its share of the centroids, by k-means among its rows. A row is compared with two roots of centroids in place of all, so that
// both steps together cost less than an iteration over all of them does.
func (k *kmeans) nested(ctx context.Context) error {
	coarse := int(math.Sqrt(float64(k.Clusters)))
	found, err := KMeans(ctx, k.rows, k.dim, KMeansOptions{
		Clusters: coarse, Metric: k.Metric, Iterations: nestedIterations, SampleRows: k.n, Workers: k.Workers, Seed: k.random.Uint64(),
	})
	if err != nil {
		return err
	}
	k.parallel(k.n, func(from, to int) {
		found.Centroids.Assign(k.rows[from*k.dim:to*k.dim], k.to[from:to], k.dist[from:to])
	})
	members, ends := membersOf(k.to, coarse)
	if len(members) < k.Clusters { // of so large numbers that they overflow
		k.Start = PlusPlus
		return k.start(ctx)
	}
	loss := make([]float64, coarse)
	for i, c := range k.to {
		if c >= 0 {
			loss[c] += max(float64(k.dist[i]), 0) // under Dot it may be negative
		}
	}
	shares := apportion(ends, loss, k.Clusters)
	seeds := make([]uint64, coarse)
	firsts, sum := make([]int, coarse), 0
	for c, share := range shares {
		seeds[c], firsts[c] = k.random.Uint64(), sum
		sum += share
	}
	// Each cluster writes centroids of its own, and what it does is decided by its seed.
	errs := make([]error, coarse)
	k.parallel(coarse, func(from, to int) {
		for c := from; c < to; c++ {
			if shares[c] > 0 {
				errs[c] = k.within(ctx, members[ends[c]:ends[c+1]], k.means[firsts[c]*k.dim:], shares[c], seeds[c])
			}
		}
	})
	return errors.Join(errs...)
}

// within writes n centroids of some rows to means. Of many rows it looks at startRows for each centroid, and at no more than an
// eighth of the whole: they are copied.
func (k *kmeans) within(ctx context.Context, members []int32, means []float32, n int, seed uint64) error {
	looked := max(min(len(members), startRows*n, k.n/8), n)
	rows := make([]float32, 0, looked*k.dim)
	for i := range looked {
		rows = append(rows, k.row(int(members[i*len(members)/looked]))...)
	}
	found, err := KMeans(ctx, rows, k.dim, KMeansOptions{Clusters: n, Metric: k.Metric, Iterations: nestedIterations, SampleRows: looked, Seed: seed})
	if err != nil {
		return err
	}
	copy(means, found.Centroids.Flat())
	return nil
}

// membersOf sorts rows by their cluster, and says where each cluster begins; one more place is the end. Rows without one are left out.
func membersOf(to []int32, clusters int) (members []int32, ends []int) {
	ends = make([]int, clusters+1)
	for _, c := range to {
		if c >= 0 {
			ends[c+1]++
		}
	}
	for c := range clusters {
		ends[c+1] += ends[c]
	}
	members = make([]int32, ends[clusters])
	next := append([]int(nil), ends...)
	for i, c := range to {
		if c >= 0 {
			members[next[c]] = int32(i)
			next[c]++
		}
	}
	return members, ends
}

// apportion divides n centroids over clusters, of whose sizes ends has the sums. Each cluster that has rows gets one, and of the rest a part by
// the root of its size times its loss: in clusters of one spread that is by size, and one whose rows are all equal has no use for
// more. None gets more than it has rows. REQUIRES: there are n rows, and no more clusters than n.
func apportion(ends []int, loss []float64, n int) []int {
	shares, weights, sum := make([]int, len(loss)), make([]float64, len(loss)), 0.0
	for c := range shares {
		size := ends[c+1] - ends[c]
		if size > 0 {
			shares[c] = 1
			n--
		}
		weights[c] = math.Sqrt(float64(size) * loss[c])
		sum += weights[c]
	}
	rest := n
	for c := range shares {
		if sum > 0 && !math.IsInf(sum, 0) {
			more := min(int(float64(rest)*weights[c]/sum), ends[c+1]-ends[c]-shares[c], n)
			shares[c], n = shares[c]+max(more, 0), n-max(more, 0)
		}
	}
	// What was rounded away, or was more than a cluster has rows.
	for n > 0 {
		before := n
		for c := range shares {
			if room := ends[c+1] - ends[c] - shares[c]; room > 0 && n > 0 {
				more := min(room, max(before*(ends[c+1]-ends[c])/ends[len(shares)], 1), n)
				shares[c], n = shares[c]+more, n-more
			}
		}
	}
	return shares
}
