package lsm

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/vector"
)

// someVector returns a vector of few values, so that many rows are at one distance, now and then a zero vector, which has no cosine.
func someVector(r *rand.Rand) []float32 {
	v := make([]float32, 8)
	if r.IntN(20) == 0 {
		return v
	}
	for i := range v {
		v[i] = float32(r.IntN(4))
	}
	return v
}

// vectorText returns a vector as rows.Format writes it.
func vectorText(v []float32) string {
	return strings.ReplaceAll(fmt.Sprint(v), " ", ",")
}

// someVectorIndex defines an index over a column of vectors that few rows are enough for.
func (x *metaRun) someVectorIndex(column string) IndexDef {
	d := IndexDef{Kind: IVFFlatIndex, Columns: []string{column}, Options: map[string]string{optionIterations: "2"}}
	if x.r.IntN(2) == 0 {
		d.Kind = IVFPQIndex
		d.Options[optionBits], d.Options[optionSubVectors] = "4", []string{"2", "4", "8"}[x.r.IntN(3)]
	}
	if x.r.IntN(3) > 0 {
		d.Options[optionPartitions] = fmt.Sprint(2 + x.r.IntN(3))
	}
	if m := x.r.IntN(5); m < 3 {
		d.Options[optionMetric] = []vector.Metric{vector.L2, vector.Cosine, vector.Dot}[m].String()
	}
	return d
}

// modelNeighbor is a row of the model and its distance.
type modelNeighbor struct {
	line     string
	distance float32
}

// neighbors returns the rows of the model that have a distance, the nearest first; of those at one distance there is no order.
func (m *tableModel) neighbors(column int, metric vector.Metric, q []float32) (out []modelNeighbor) {
	at := len(m.keys) + column
	for _, line := range m.lines() {
		var v []float32
		if err := json.Unmarshal([]byte(wordOf(line, at)), &v); err != nil || v == nil {
			continue
		}
		if d := distance(arrow.PrimitiveTypes.Float32, metric, q, v); d == d {
			out = append(out, modelNeighbor{line, d})
		}
	}
	slices.SortStableFunc(out, func(a, b modelNeighbor) int { return cmp.Compare(a.distance, b.distance) })
	return out
}

// compareSearch searches a column of vectors: by comparing all rows, and by whatever indexes there are, with all that they have and
// with little of it.
func (x *metaRun) compareSearch(v *View, column int) {
	metric := []vector.Metric{vector.L2, vector.L2, vector.Cosine, vector.Dot}[x.r.IntN(4)]
	q := someVector(x.r)
	q[x.r.IntN(len(q))]++ // it is not zero
	o := VectorSearchOptions{Column: columnIndex(v.Schema(), x.m.columns[column].name), Queries: q, K: 1 + x.r.IntN(12), Metric: &metric, fewer: fewRows}
	probes, refine := 1+x.r.IntN(3), 1+x.r.IntN(5)
	all := x.m.neighbors(column, metric, q)
	var want []float32
	for _, n := range all[:min(o.K, len(all))] {
		want = append(want, n.distance)
	}

	o.NoIndex = true
	exact := x.searched(v, o, all)
	x.want(slices.Equal(want, distancesOf(exact)), "an exact search by %s for the nearest %d to %v found %v, want %v", metric, o.K, q, exact, want)
	o.NoIndex, o.NProbes, o.Refine = false, 1<<20, 1<<20
	whole := x.searched(v, o, all)
	// Which of many rows at one distance it finds an index leaves open.
	x.want(slices.Equal(want, distancesOf(whole)), "a search of whole indexes by %s for the nearest %d to %v found %v, want %v", metric, o.K, q, whole, exact)
	o.NProbes, o.Refine = probes, refine
	some := x.searched(v, o, all)
	x.want(len(some) == len(exact), "a search by indexes for the nearest %d by %s to %v found %v, want as many as %v", o.K, metric, q, some, exact)
	for i, n := range some {
		x.want(n.distance >= exact[i].distance, "row %d of %v is nearer than that of %v", i, some, exact)
		if n.distance <= exact[len(exact)-1].distance {
			x.near++
		}
	}
	x.nearest += len(exact)
	x.answer("%v", want)
}

// searched searches, and compares each row that was found with the model: it is there, at its distance, and comes once.
func (x *metaRun) searched(v *View, o VectorSearchOptions, all []modelNeighbor) []modelNeighbor {
	found, err := v.VectorSearch(x.ctx, o)
	x.ok(err)
	x.want(len(found) == 1, "%d lists of rows for a query", len(found))
	places := make([]uint64, len(found[0]))
	for i, n := range found[0] {
		places[i] = uint64(n.Place)
	}
	rec, err := v.Take(x.ctx, allColumns(v.Schema()), places)
	x.ok(err)
	defer rec.Release()
	var out []modelNeighbor
	for i, line := range rows.Format(rec, nil) {
		n := modelNeighbor{line, found[0][i].Distance}
		x.want(slices.Contains(all, n), "a search found %v, which is none of %v", n, all)
		x.want(!slices.Contains(out, n), "a search found %v twice", n)
		out = append(out, n)
	}
	return out
}

func distancesOf(list []modelNeighbor) (out []float32) {
	for _, n := range list {
		out = append(out, n.distance)
	}
	return out
}

// wantRecall fails the run when searches that looked into few partitions have missed many rows.
func (x *metaRun) wantRecall() {
	x.want(x.nearest < 200 || float64(x.near) >= .6*float64(x.nearest), "searches by indexes found %d of the %d rows that are nearest", x.near, x.nearest)
}
