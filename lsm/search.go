package lsm

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/vector"
)

// VectorSearchOptions say what a search looks for.
type VectorSearchOptions struct {
	// Column is the column of vectors, by its number in the table's schema.
	Column int
	// Queries are one or more vectors of the column's dimension, one after the other. Those for a column of bytes have whole
	// numbers from 0 to 255.
	Queries []float32
	// K is how many rows are wanted for each query. Fewer are found only when there are fewer.
	K int
	// Metric ranks the rows; nil stands for that of the column's index, or what Lance takes without one (View.SearchMetric).
	Metric *vector.Metric
	// NProbes is how many partitions of an index are looked into, more when they have fewer than K rows that count, or are small; 0 stands for DefaultNProbes.
	NProbes int
	// Refine is how many times K rows an index finds, of which the distances are then computed from the rows; 0 stands for DefaultRefine.
	Refine int
	// NoIndex compares all rows.
	NoIndex bool
	// fewer is by how many rows fewRows is less in tests.
	fewer int64
	// Ties asks for the rows, too, that are behind the k nearest by no more than a rounding, for callers who compute distances again
	// in another way. There may then be more rows than K.
	Ties bool
	// Only, of the same view, are the rows among which the nearest are looked for; nil stands for all.
	Only *Places
}

// Neighbor is a row that a search found.
type Neighbor struct {
	Place Place
	// Distance is as Lance has it: the square of L2, 1 - cosine, 1 - a·b, or the bits that differ. It does not depend on
	// where the row lies, nor on what found it.
	Distance float32
}

// VectorSearch returns, for each query, the nearest rows, the nearest first; of rows at one distance those with smaller keys come
// first. Rows whose vectors are null, or have a null or a NaN in them, are never found. What it returns is the same however
// the table's rows lie in its layers.
func (v *View) VectorSearch(ctx context.Context, o VectorSearchOptions) ([][]Neighbor, error) {
	s, err := v.newSearch(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("search table %q: %w", v.table.name, err)
	}
	out, err := s.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("search table %q: %w", v.table.name, err)
	}
	return out, nil
}

// A QueryError says that one of the queries of a search is not a vector that can be looked for.
type QueryError struct {
	// Query is which one, from 0.
	Query int
	Err   error
}

// Error implements error. Which query it is the caller says, who knows what it calls them.
func (e *QueryError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong with the query.
func (e *QueryError) Unwrap() error { return e.Err }

// Metric is a distance that ranks vectors.
type Metric = vector.Metric

// ParseMetric reads the name of a metric, in any case: l2, cosine, dot or hamming.
func ParseMetric(s string) (Metric, error) { return vector.ParseMetric(s) }

// VectorDim returns the dimension of the vectors of a column, 0 when it has none that can be searched.
func VectorDim(f arrow.Field) int {
	k, _ := vectorKindOf(f.Type)
	return k.dim
}

// IsFloat32Vector reports whether a column has vectors of float32.
func IsFloat32Vector(f arrow.Field) bool {
	k, ok := vectorKindOf(f.Type)
	return ok && k.item == arrow.FLOAT32
}

// A vectorKind is what the vectors of a column are made of.
type vectorKind struct {
	dim  int
	item arrow.Type
}

// bytes is the size of a vector.
func (k vectorKind) bytes() int {
	switch k.item {
	case arrow.UINT8:
		return k.dim
	case arrow.FLOAT16:
		return 2 * k.dim
	case arrow.FLOAT64:
		return 8 * k.dim
	}
	return 4 * k.dim
}

// vectorKindOf returns what vectors a column of a type has; ok is false when it has none that can be searched.
func vectorKindOf(t arrow.DataType) (k vectorKind, ok bool) {
	list, ok := t.(*arrow.FixedSizeListType)
	if !ok || list.Len() <= 0 {
		return k, false
	}
	switch item := list.Elem().ID(); item {
	case arrow.FLOAT32, arrow.FLOAT16, arrow.FLOAT64, arrow.UINT8:
		return vectorKind{int(list.Len()), item}, true
	}
	return k, false
}

// SearchableColumns returns the names of the columns that have vectors.
func (v *View) SearchableColumns() []string {
	var out []string
	for _, f := range v.schema.arrow.Fields() {
		if _, ok := vectorKindOf(f.Type); ok {
			out = append(out, f.Name)
		}
	}
	return out
}

// SearchMetric returns the metric by which a search of a column ranks when it is not told one: that of an index over it, l2, or
// hamming for bytes.
func (v *View) SearchMetric(column int) vector.Metric {
	field := v.schema.lance.Fields[column].ID
	for _, x := range v.table.vectorEntries(v.set.base) {
		if slices.Equal(x.Fields, []int32{field}) && x.Options[optionMetric] != "" {
			if m, err := vector.ParseMetric(x.Options[optionMetric]); err == nil {
				return m
			}
		}
	}
	if b := v.set.base; b != nil {
		for _, x := range vectorsOver(b.found, field) {
			return x.index.Metric()
		}
	}
	if k, ok := vectorKindOf(v.schema.arrow.Field(column).Type); ok && k.item == arrow.UINT8 {
		return vector.Hamming
	}
	return vector.L2
}

// search is one run of a VectorSearch.
type search struct {
	view    *View
	o       VectorSearchOptions
	kind    vectorKind
	metric  vector.Metric
	queries []searchQuery
	pieces  []piece
	// rows is an upper bound of the rows that may be found.
	rows int64
}

// searchQuery is one vector that is looked for.
type searchQuery struct {
	floats []float32
	wide   []float64 // for a column of float64
	bytes  []byte    // for one of bytes
}

// newSearch checks what is asked for.
func (v *View) newSearch(ctx context.Context, o VectorSearchOptions) (*search, error) {
	if o.Column < 0 || o.Column >= v.schema.arrow.NumFields() {
		return nil, fmt.Errorf("%w: there is no column number %d", ErrInvalid, o.Column)
	}
	f := v.schema.arrow.Field(o.Column)
	kind, ok := vectorKindOf(f.Type)
	if !ok {
		return nil, fmt.Errorf("%w: column %q is %s, and vectors are fixed-size lists of float32, float16, float64 or uint8%s", ErrInvalid, f.Name, f.Type,
			candidates(v.SearchableColumns()))
	}
	s := &search{view: v, o: o, kind: kind, metric: v.SearchMetric(o.Column)}
	if o.Metric != nil {
		s.metric = *o.Metric
	}
	if (s.metric == vector.Hamming) != (kind.item == arrow.UINT8) {
		return nil, fmt.Errorf("%w: metric %s is not for column %q of %s: hamming is for vectors of bytes, l2, cosine and dot for those of floats", ErrInvalid, s.metric, f.Name, f.Type)
	}
	if o.K <= 0 {
		return nil, fmt.Errorf("%w: k is %d, and at least one row has to be asked for", ErrInvalid, o.K)
	}
	if len(o.Queries) == 0 || len(o.Queries)%kind.dim > 0 {
		return nil, fmt.Errorf("%w: the query has %d elements, the vectors of column %q have %d", ErrInvalid, len(o.Queries), f.Name, kind.dim)
	}
	for at := 0; at < len(o.Queries); at += kind.dim {
		q, err := newSearchQuery(o.Queries[at:at+kind.dim], kind, s.metric)
		if err != nil {
			return nil, &QueryError{at / kind.dim, err}
		}
		s.queries = append(s.queries, q)
	}
	var err error
	if s.pieces, err = v.pieces(ctx); err != nil {
		return nil, err
	}
	for i := range s.pieces {
		n := s.pieces[i].rowCount()
		if only, picked := o.Only.of(i); picked {
			n = 0
			if only != nil {
				n = int64(only.GetCardinality())
			}
		}
		s.rows += n
	}
	return s, nil
}

// candidates says which columns could have been meant.
func candidates(names []string) string {
	if len(names) == 0 {
		return "; the table has no such column"
	}
	return "; the table has " + strings.Join(names, ", ")
}

// newSearchQuery checks a query.
func newSearchQuery(q []float32, kind vectorKind, m vector.Metric) (searchQuery, error) {
	out := searchQuery{floats: q}
	for i, x := range q {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return out, fmt.Errorf("%w: element %d of the query is %v, and all have to be finite", ErrInvalid, i+1, x)
		}
		switch kind.item {
		case arrow.FLOAT16: // rounded to what the column has, as Lance does
			if i == 0 {
				out.floats = make([]float32, len(q))
			}
			var half [1]uint16
			vector.NarrowFloat16(half[:], q[i:i+1])
			if vector.WidenFloat16(out.floats[i:i+1], half[:]); math.IsInf(float64(out.floats[i]), 0) {
				return out, fmt.Errorf("%w: element %d of the query is %v, which is too large for the column's float16", ErrInvalid, i+1, x)
			}
		case arrow.UINT8:
			if x < 0 || x > 255 || x != float32(uint8(x)) {
				return out, fmt.Errorf("%w: element %d of the query is %v, and the column has bytes: whole numbers from 0 to 255", ErrInvalid, i+1, x)
			}
			out.bytes = append(out.bytes, uint8(x))
		case arrow.FLOAT64:
			out.wide = append(out.wide, float64(x))
		}
	}
	if m == vector.Cosine && vector.Norm(q) == 0 {
		return out, fmt.Errorf("%w: the query is a zero vector, which has no direction, and metric cosine ranks by directions", ErrInvalid)
	}
	return out, nil
}

// tieSlack is how many rows beyond the k nearest are kept: enough to see whether rows at the distance of the last one were left out.
const tieSlack = 8

// run searches. Which rows of one distance are among the k nearest their keys decide, so when such rows may have been left out
// it searches again and keeps more.
func (s *search) run(ctx context.Context) ([][]Neighbor, error) {
	k := int(min(int64(s.o.K), s.rows))
	out := make([][]Neighbor, len(s.queries))
	var open []int // the queries without an answer
	for i := range s.queries {
		open = append(open, i)
	}
	if sources := s.indexed(); len(sources) > 0 {
		found, ok, err := s.byIndex(ctx, sources, k)
		if err != nil {
			return nil, err
		}
		open = open[:0]
		for i := range s.queries {
			if !ok[i] {
				open = append(open, i)
				continue
			}
			if out[i], err = s.settle(ctx, found[i], s.withTies(found[i], k)); err != nil {
				return nil, err
			}
		}
		for i := range s.pieces {
			s.pieces[i].exactFrom = 0
		}
	}
	for kept := int64(k) + tieSlack; len(open) > 0; kept *= tieSlack {
		kept = min(kept, max(s.rows, 1))
		found, err := s.nearest(ctx, open, int(kept))
		if err != nil {
			return nil, err
		}
		var again []int
		for i, q := range open {
			f := found[i]
			tied := s.view.schema.codec != nil || s.o.Ties
			if tied && len(f) > k && int64(len(f)) == kept && kept < s.rows && f[len(f)-1].Distance <= s.reach(f[k-1].Distance) {
				again = append(again, q)
				continue
			}
			if out[q], err = s.settle(ctx, f, s.withTies(f, k)); err != nil {
				return nil, err
			}
		}
		open = again
	}
	return out, nil
}

// withTies returns how many of the nearest rows are wanted: k, and with Ties those that are as near.
func (s *search) withTies(found []vector.Neighbor, k int) int {
	n := k
	for s.o.Ties && n < len(found) && n > 0 && found[n].Distance <= s.reach(found[k-1].Distance) {
		n++
	}
	return n
}

// reach returns up to which distance rows may be as near as one at a distance: it itself, or with Ties what that may come to
// when the same sums are rounded otherwise.
func (s *search) reach(d float32) float32 {
	if !s.o.Ties {
		return d
	}
	slack := 4 * float64(s.kind.dim) / (1 << 24)
	if s.metric == vector.L2 {
		return float32(float64(d) * (1 + slack))
	}
	return float32(float64(d) + slack*(1+math.Abs(float64(d))))
}

// settle returns the first k of rows that are in the order of their distances, those of one distance in the order of their keys.
func (s *search) settle(ctx context.Context, found []vector.Neighbor, k int) ([]Neighbor, error) {
	out := make([]Neighbor, len(found))
	for i, n := range found {
		out[i] = Neighbor{Place(n.ID), n.Distance}
	}
	k = min(k, len(out))
	codec := s.view.schema.codec
	for from := 0; from < k && codec != nil; {
		to := from + 1
		for to < len(out) && out[to].Distance == out[from].Distance {
			to++
		}
		if to-from > 1 {
			if err := s.sortByKey(ctx, out[from:to]); err != nil {
				return nil, err
			}
		}
		from = to
	}
	return out[:k], nil
}

// sortByKey puts rows in the order of their keys.
func (s *search) sortByKey(ctx context.Context, rows []Neighbor) error {
	places := make([]uint64, len(rows))
	for i, n := range rows {
		places[i] = uint64(n.Place)
	}
	codec := s.view.schema.codec
	rec, err := s.view.take(ctx, codec.cols, places)
	if err != nil {
		return err
	}
	defer rec.Release()
	keys := codec.alone().normalise(rec, nil)
	order := make([]int, len(rows))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if keys.wide == nil {
			return cmp.Compare(keys.ints[a], keys.ints[b])
		}
		return strings.Compare(string(keys.wide(a)), string(keys.wide(b)))
	})
	sorted := make([]Neighbor, len(rows))
	for i, at := range order {
		sorted[i] = rows[at]
	}
	copy(rows, sorted)
	return nil
}
