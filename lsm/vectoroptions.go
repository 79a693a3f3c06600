package lsm

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/memindex"
	"github.com/flightd/flightd/vector"
)

// The kinds of indexes over vectors.
const (
	// IVFPQIndex has the rows by partition, each as the code of its vector.
	IVFPQIndex IndexKind = "IVF_PQ"
	// IVFFlatIndex has them with their vectors as they are.
	IVFFlatIndex IndexKind = "IVF_FLAT"
)

// The options of indexes over vectors.
const (
	optionPartitions = "num_partitions"
	optionSubVectors = "num_sub_vectors"
	optionBits       = "num_bits"
	optionMetric     = "metric_type"
	optionSample     = "sample_rate"
	optionIterations = "max_iterations"
)

// VectorIndexOptions returns the names of the options that an index over vectors has, nil for other kinds.
func VectorIndexOptions(kind IndexKind) []string {
	switch kind {
	case IVFPQIndex:
		return []string{optionPartitions, optionSubVectors, optionBits, optionMetric, optionSample, optionIterations}
	case IVFFlatIndex:
		return []string{optionPartitions, optionMetric, optionSample, optionIterations}
	}
	return nil
}

const (
	// maxPartitions bounds what may be asked for: centroids of 65,536 partitions of 1,536 dimensions are 400 MiB, in memory.
	maxPartitions = 1 << 16
	// maxIterations and maxSampleRate keep a training from going on for hours; the sample has a limit of its own.
	maxIterations = 1000
	maxSampleRate = 1 << 16
	// defaultIterations and defaultSampleRate are those of Lance.
	defaultIterations = 50
	defaultSampleRate = 256
	// autoTrainRows is how many rows a table has before a merge trains its index without having been asked to: below it, a
	// search that compares all rows takes some hundred microseconds, and the number of partitions would be that of a small table.
	autoTrainRows = 1 << 14
)

// vectorOptions are the options of an index over vectors, checked and complete but for what depends on the number of rows.
type vectorOptions struct {
	metric     vector.Metric
	dim        int
	partitions int // 0: the square root of the rows that there are when it is trained
	subVectors int // 0 for IVF_FLAT
	bits       int
	sample     int // rows for each partition, and for each code word
	iterations int
}

// isVector reports whether an index of the kind is over vectors.
func (k IndexKind) isVector() bool { return k == IVFPQIndex || k == IVFFlatIndex }

// newVectorOptions checks the options of an index over a column.
func newVectorOptions(kind IndexKind, given map[string]string, f arrow.Field) (o vectorOptions, err error) {
	dim, ok := memindex.VectorType(f.Type)
	if !ok {
		return o, fmt.Errorf("%w: column %q has type %s; an %s is over vectors of a fixed number of floats, such as FLOAT[128]", ErrInvalid, f.Name, f.Type, kind)
	}
	o = vectorOptions{dim: dim, sample: defaultSampleRate, iterations: defaultIterations}
	if kind == IVFPQIndex {
		o.bits = 8
	}
	names := VectorIndexOptions(kind)
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			return o, fmt.Errorf("%w: an %s has no option %q; it has %s", ErrInvalid, kind, name, strings.Join(names, ", "))
		}
		if err := o.set(name, given[name]); err != nil {
			return o, err
		}
	}
	if kind == IVFPQIndex {
		err = o.chooseSubVectors()
	}
	return o, err
}

// set sets an option.
func (o *vectorOptions) set(name, value string) (err error) {
	switch name {
	case optionMetric:
		o.metric, err = vector.ParseMetric(value)
		if err != nil || o.metric == vector.Hamming {
			return fmt.Errorf("%w: option %s is %q; it may be l2, cosine or dot", ErrInvalid, name, value)
		}
		return nil
	case optionPartitions:
		o.partitions, err = intOption(name, value, 1, maxPartitions)
	case optionSubVectors:
		o.subVectors, err = intOption(name, value, 1, o.dim)
	case optionBits:
		if o.bits, err = intOption(name, value, 4, 8); err == nil && o.bits != 4 && o.bits != 8 {
			return fmt.Errorf("%w: option %s is %q; it may be 4 or 8", ErrInvalid, name, value)
		}
	case optionSample:
		o.sample, err = intOption(name, value, 2, maxSampleRate)
	case optionIterations:
		o.iterations, err = intOption(name, value, 1, maxIterations)
	}
	return err
}

// intOption reads a number.
func intOption(name, value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%w: option %s is %q; it may be a whole number from %d to %d", ErrInvalid, name, value, least, most)
	}
	return n, nil
}

// chooseSubVectors checks the number of sub-vectors, or takes that of package ivf.
func (o *vectorOptions) chooseSubVectors() error {
	fits := func(n int) bool { return n > 0 && o.dim%n == 0 && (o.bits == 8 || n%2 == 0) }
	if o.subVectors > 0 {
		switch {
		case o.dim%o.subVectors > 0:
			return fmt.Errorf("%w: option %s is %d, which does not divide the %d dimensions of the column; %s does", ErrInvalid, optionSubVectors, o.subVectors, o.dim, o.nearestDivisor(fits))
		case !fits(o.subVectors):
			return fmt.Errorf("%w: option %s is %d; with %s = 4 it has to be even, as two codes share a byte", ErrInvalid, optionSubVectors, o.subVectors, optionBits)
		}
		return nil
	}
	if o.subVectors = ivf.DefaultSubVectors(o.dim, o.bits); o.subVectors > 0 {
		return nil
	}
	return fmt.Errorf("%w: option %s is 4, which takes an even number of sub-vectors, and none divides the %d dimensions of the column; leave it at 8", ErrInvalid, optionBits, o.dim)
}

// nearestDivisor names the number of sub-vectors that fits and is nearest to what was asked for.
func (o *vectorOptions) nearestDivisor(fits func(n int) bool) string {
	for d := range o.dim {
		for _, n := range []int{o.subVectors - d, o.subVectors + d} {
			if n <= o.dim && fits(n) {
				return strconv.Itoa(n)
			}
		}
	}
	return "no number"
}

// leastRows is how many rows, their vectors finite, it takes to train the index: one for each partition and code word.
func (o *vectorOptions) leastRows() int64 {
	n := max(o.partitions, 1)
	if o.bits > 0 {
		n = max(n, 1<<o.bits)
	}
	return int64(n)
}
