package query

import (
	"slices"
	"strings"

	"github.com/flightd/flightd/lsm"
)

// A distanceRef is how far the vectors of a column of a scan are from a constant.
type distanceRef struct {
	scan   *scanFilters
	column int
	query  []float32
	metric string
}

// topRows are the first rows of a scan in the order of a distance.
type topRows struct {
	distanceRef
	k int64
}

// orderedBy are the functions of DuckDB in whose order rows can be searched for, with the metric that has the same order.
var orderedBy = map[string]string{
	"array_distance": "l2", "<->": "l2",
	"array_cosine_distance": "cosine", "<=>": "cosine",
	"array_negative_inner_product": "dot", "array_negative_dot_product": "dot",
}

// note keeps a condition as SQL for the scan that it is about.
func (r *filterReader) note(e *planExpr, columns []filterRef) {
	w := planText{columns: columns, unstable: r.unstable}
	w.keep(w.text(e))
}

// noteValues is note for a join with a list of values.
func (r *filterReader) noteValues(p *predicate, columns []filterRef) {
	w := planText{columns: columns, unstable: r.unstable}
	w.keep(w.predicate(p))
}

// keep gives a condition to its scan.
func (w *planText) keep(text string) {
	switch {
	case w.beyond || w.scan == nil:
		for _, ref := range w.columns {
			if ref.scan != nil {
				ref.scan.beyond = true
			}
			if ref.distance != nil {
				ref.distance.scan.beyond = true
			}
		}
	case w.unknown != "":
		w.scan.unread = w.unknown
	default:
		w.scan.texts = append(w.scan.texts, text)
	}
}

// projected returns the origin of an expression of a projection.
func (r *filterReader) projected(e *planExpr, columns []filterRef) filterRef {
	metric, ok := orderedBy[e.Name]
	if e.Class != "BOUND_FUNCTION" || !ok || len(e.Children) != 2 {
		return refOf(e, columns)
	}
	for i := range 2 {
		of, q := &e.Children[i], &e.Children[1-i]
		if of.Class == "BOUND_CAST" && of.ReturnType.ID == "LIST" {
			of = of.Child // the operators are for lists
		}
		ref := refOf(of, columns)
		if query, ok := floatsOf(q.Value); ok && ref.scan != nil && ref.mark == nil && !ref.joined && q.Class == "BOUND_CONSTANT" {
			return filterRef{distance: &distanceRef{ref.scan, ref.column, query, metric}}
		}
	}
	return filterRef{}
}

// noteTop notes that of a scan only the first rows in the order of a distance are wanted.
func (n *filterNode) noteTop(columns []filterRef) {
	limit, err := n.Limit.Int64()
	offset, err2 := n.Offset.Int64()
	if err != nil || n.Offset != "" && err2 != nil || len(n.Orders) == 0 || limit <= 0 || offset < 0 || limit > maxTop || offset > maxTop {
		return
	}
	o := n.Orders[0]
	by := refOf(&o.Expression, columns).distance
	if by == nil || o.Type != "ASCENDING" || o.NullOrder != "NULLS LAST" {
		return
	}
	by.scan.top = &topRows{*by, limit + offset}
}

// maxTop bounds the rows that ORDER BY … LIMIT searches for: a sort of more is DuckDB's.
const maxTop = 1 << 20

// joined marks the columns of a side of a join, which may drop rows or have them twice: what is computed above it is in no order of the scan.
func joined(columns []filterRef) []filterRef {
	out := slices.Clone(columns)
	for i := range out {
		out[i].distance, out[i].joined = nil, true
	}
	return out
}

// A rowsWanted is which rows of a bind of the table functions count, as the plan has it.
type rowsWanted struct {
	// where is the condition as SQL over c0, c1, …, empty for all rows, and unread what could not be written in it.
	where, unread string
	// top is set when only the first in an order count.
	top *topRows
	// exact says that where is all that decides.
	exact bool
}

// wanted returns, for each bind, which of its rows count.
func (r *filterReader) wanted() map[int]rowsWanted {
	out := map[int]rowsWanted{}
	for seq, list := range r.scans {
		var w rowsWanted
		var any []string
		all := false
		for _, s := range list {
			all = all || len(s.texts) == 0
			any = append(any, "("+strings.Join(s.texts, " AND ")+")")
			if s.unread != "" {
				w.unread = s.unread
			}
		}
		if !all {
			w.where = strings.Join(any, " OR ")
		}
		if len(list) == 1 {
			w.top, w.exact = list[0].top, !list[0].beyond && list[0].unread == ""
		}
		out[seq] = w
	}
	return out
}

// searchesBefore says whether the text, or a view, may have conditions that come before a search.
func (p *parsed) searchesBefore(views []viewInfo) bool {
	return slices.ContainsFunc(p.tokens, func(t token) bool { return t.is("PREFILTER") }) ||
		slices.ContainsFunc(views, func(v viewInfo) bool { return strings.Contains(strings.ToLower(v.sql), "prefilter") })
}

// ordersByDistance says whether the text, or a view, may put rows in the order of a distance.
func (p *parsed) ordersByDistance(views []viewInfo) bool {
	limited := slices.ContainsFunc(p.tokens, func(t token) bool { return t.is("LIMIT") || t.is("FETCH") })
	if !limited {
		return false
	}
	for name := range orderedBy {
		if strings.Contains(strings.ToLower(p.sql), name) ||
			slices.ContainsFunc(views, func(v viewInfo) bool { return strings.Contains(strings.ToLower(v.sql), name) }) {
			return true
		}
	}
	return false
}

// searches says whether the text, or a view, may search.
func (p *parsed) searches(views []viewInfo) bool {
	return slices.ContainsFunc(p.tokens, func(t token) bool {
		return t.ident() && (strings.EqualFold(t.name, searchMacro) || strings.EqualFold(t.name, batchMacro))
	}) ||
		slices.ContainsFunc(views, func(v viewInfo) bool { return strings.Contains(strings.ToLower(v.sql), searchMacro) })
}

// pickRows finds, before the statement runs, the rows that its searches may choose from, and those that are the first in the order of a
// distance. It asks on the connection of the statement, in its transaction and over its snapshot.
func (r *Result) pickRows(h *hints, filters map[int]*scanFilter) (map[int]*lsm.Places, map[int][]lsm.Neighbor, error) {
	only, tops := map[int]*lsm.Places{}, map[int][]lsm.Neighbor{}
	for seq, w := range h.wanted {
		if seq >= len(h.binds) {
			continue
		}
		call := h.calls[seq]
		switch {
		case call == nil && w.top != nil && w.exact:
			found, among, err := r.findTop(h.binds[seq], w, filters[seq])
			if err != nil {
				return nil, nil, err
			}
			if found != nil {
				tops[seq], only[seq] = found, among
			}
		case call == nil || !call.prefilter:
		case w.unread != "":
			return nil, nil, errorf(Unimplemented, "%s: prefilter cannot apply a condition with %s before the search; say prefilter := false, or filter in a subquery over the table",
				searchMacro, w.unread)
		case w.where == "":
			only[seq] = nil
		default:
			places, err := r.placesWhere(call.table, w.where, filters[seq])
			if err != nil {
				return nil, nil, err
			}
			only[seq] = places
		}
	}
	return only, tops, nil
}

// findTop searches for the first rows of a table in the order of a distance, and those that DuckDB, which rounds otherwise, might take for such. It
// returns nil when all rows should be read, and else the rows among which it searched, nil for all.
func (r *Result) findTop(table int64, w rowsWanted, f *scanFilter) ([]lsm.Neighbor, *lsm.Places, error) {
	src, err := r.exec.source(table)
	if err != nil {
		return nil, nil, err
	}
	s, ok := src.(lsmSource)
	if !ok || s.parts > 0 || !s.ranksAs(w.top) {
		return nil, nil, nil
	}
	metric, err := lsm.ParseMetric(w.top.metric)
	if err != nil {
		return nil, nil, err
	}
	o := lsm.VectorSearchOptions{Column: w.top.column, Queries: w.top.query, K: int(w.top.k), Metric: &metric, Ties: true}
	if w.where != "" {
		if o.Only, err = r.placesWhere(table, w.where, f); err != nil {
			return nil, nil, err
		}
	}
	found, err := s.v.VectorSearch(r.ctx, o)
	if err != nil {
		return nil, nil, nil // such as a query that has no direction: DuckDB says what it makes of it
	}
	if int64(len(found[0])) < w.top.k { // rows without a distance come behind the others
		return nil, nil, nil
	}
	return found[0], o.Only, nil
}

// ranksAs reports whether a search ranks rows as the distance would that DuckDB computes.
func (s lsmSource) ranksAs(t *topRows) bool {
	fields := s.v.Schema().Fields()
	return t.column < len(fields) && lsm.VectorDim(fields[t.column]) == len(t.query) && lsm.IsFloat32Vector(fields[t.column])
}
