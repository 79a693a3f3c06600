package query

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lsm"
)

// explainKey is what the row of an EXPLAIN that tells about scans has as its key.
const explainKey = "flightd_scan"

// explained returns the query that an EXPLAIN is about.
func (p *parsed) explained() (sql string, ok bool) {
	if p.word(0) != "EXPLAIN" {
		return "", false
	}
	if i := p.explainedAt(); i < len(p.tokens) {
		return p.sql[p.tokens[i].start:], true
	}
	return "", false
}

// explainScans tells, for each scan of a statement, what it is asked for and what finds its rows.
func (r *Result) explainScans(h *hints, filters map[int]*scanFilter) (string, error) {
	var lines []string
	for _, seq := range slices.Sorted(maps.Keys(h.conditions)) {
		if seq >= len(h.binds) {
			continue
		}
		t, _ := r.lease.table(h.binds[seq])
		text, err := r.explainSearch(h, seq)
		if err != nil {
			return "", err
		}
		if text == "" {
			src, err := r.exec.source(h.binds[seq])
			if err != nil {
				return "", err
			}
			if text, err = src.explain(r.ctx, filters[seq]); err != nil {
				return "", err
			}
		}
		name := t.schema + "." + t.name
		if t.at > 0 {
			name += fmt.Sprintf(" at version %d", t.at)
		}
		lines = append(lines, name+": "+text)
	}
	return strings.Join(lines, "\n"), nil
}

// explainSearch tells what a bind searches for, and how, "" if it scans.
func (r *Result) explainSearch(h *hints, seq int) (string, error) {
	call, w := h.calls[seq], h.wanted[seq]
	t, _ := r.lease.table(h.binds[seq])
	var o lsm.VectorSearchOptions
	where, as := "", ""
	switch {
	case call != nil && call.batch != nil:
		var err error
		if o, as, err = r.exec.explainBatch(call); err != nil {
			return "", err
		}
	case call != nil:
		o = call.options()
		if call.prefilter {
			where = w.where
			o.Only, _ = r.exec.onlyOf(seq)
		}
	case r.exec.topOf(seq) != nil:
		metric, err := lsm.ParseMetric(w.top.metric)
		if err != nil {
			return "", err
		}
		where, as = w.where, ", as ORDER BY wants"
		o = lsm.VectorSearchOptions{Column: w.top.column, Queries: w.top.query, K: int(w.top.k), Metric: &metric}
		o.Only, _ = r.exec.onlyOf(seq)
	default:
		return "", nil
	}
	src, err := r.exec.source(h.binds[seq])
	if err != nil {
		return "", err
	}
	s, ok := src.(lsmSource)
	if !ok {
		return "", nil
	}
	metric, layers, err := s.v.VectorSearchPlan(r.ctx, o)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("nearest %d in %s by %s%s", o.K, t.arrow.Field(o.Column).Name, metric, as)
	for _, l := range layers {
		text += fmt.Sprintf("; %s: %s, %s", l.Layer, l.Access, count(int(l.Rows), "row"))
	}
	if where == "" {
		return text, nil
	}
	where = columnRefs.ReplaceAllStringFunc(where, func(c string) string {
		var n int
		if _, err := fmt.Sscanf(c, "c%d", &n); err != nil || n >= t.arrow.NumFields() {
			return c
		}
		return t.arrow.Field(n).Name
	})
	text += "; among the rows with " + where
	if o.Only != nil {
		text += fmt.Sprintf(", which are %d", o.Only.Len())
	}
	return text, nil
}

// explanation is the row with a text that goes behind those of DuckDB.
func explanation(text string) arrow.RecordBatch {
	s := arrow.NewSchema([]arrow.Field{{Name: "explain_key", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "explain_value", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, s)
	defer b.Release()
	b.Field(0).(*array.StringBuilder).Append(explainKey)
	b.Field(1).(*array.StringBuilder).Append(text)
	return b.NewRecordBatch()
}

// explain implements source.
func (s lsmSource) explain(ctx context.Context, keys *scanFilter) (string, error) {
	m, err := s.open(ctx, []int{}, keys)
	if err != nil {
		return "", err
	}
	defer m.sc.Close()
	plan := m.sc.Plan()
	parts := []string{"full scan"}
	if plan.Keyed {
		parts[0] = fmt.Sprintf("%s and %s of ", count(plan.Points, "point"), count(plan.Ranges, "range"))
		if plan.Column != "" {
			parts[0] += fmt.Sprintf("%s (index %s)", plan.Column, keys.index)
		} else {
			var names []string
			for _, c := range keys.keys.columns {
				names = append(names, s.v.Schema().Field(c.place).Name)
			}
			parts[0] += "the key (" + strings.Join(names, ", ") + ")"
		}
	}
	for i := 0; i < len(plan.Layers); {
		l, n, rows := plan.Layers[i], 0, int64(0)
		for ; i < len(plan.Layers) && plan.Layers[i].Layer == l.Layer && plan.Layers[i].Access == l.Access; i++ {
			n++
			rows += plan.Layers[i].Rows
		}
		where := l.Layer
		switch {
		case l.Layer == "base" && l.Access != "key index" && l.Access != "column index":
			where = fmt.Sprintf("base, %s", count(n, "fragment"))
		case l.Layer != "base":
			where = count(n, l.Layer)
		}
		parts = append(parts, fmt.Sprintf("%s: %s, %s", where, l.Access, count(int(rows), "row")))
	}
	return strings.Join(parts, "; "), nil
}

// count writes a number of things.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
