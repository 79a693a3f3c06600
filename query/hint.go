package query

import (
	"container/list"
	"encoding/json"
	"strings"
	"sync"

	bind "github.com/duckdb/duckdb-go-bindings"
)

// maxCachedHints bounds the statements whose conditions an instance remembers.
const maxCachedHints = 512

// hints are what DuckDB's optimiser says of the scans of one statement.
type hints struct {
	// binds are the tables of the binds of the table function, in their order. A statement has the same binds each
	// time that it is bound; if it ever has others, its hints are not used.
	binds []int64
	// conditions are by the number of the bind.
	conditions map[int]predicate
	// wanted says which rows of a bind count, and calls are the searches, both by the number of the bind.
	wanted map[int]rowsWanted
	calls  map[int]*searchCall
}

// A hintCache remembers the hints of statements by their text, the least recently used ones go first.
type hintCache struct {
	mu      sync.Mutex
	version uint64 // of the catalog
	entries map[string]*list.Element
	order   list.List // of *hintEntry, the last used one in front
	// unstable are the names of functions whose values are not in their arguments, in lower case, once they are known.
	unstable map[string]bool
}

// hintEntry is a statement in the cache.
type hintEntry struct {
	sql string
	// hints are nil when they hold only for the moment in which they are made.
	hints *hints
	seen  int
	// byValue is set when DuckDB has a plan only with the parameters' values in place of the parameters.
	byValue bool
}

// get returns the entry of a statement as it was when it was found, and counts how often it was asked for.
func (c *hintCache) get(version uint64, sql string) hintEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version || c.entries == nil {
		c.version, c.entries = version, map[string]*list.Element{}
		c.order.Init()
	}
	x := c.entries[sql]
	if x == nil {
		x = c.order.PushFront(&hintEntry{sql: sql})
		c.entries[sql] = x
		if c.order.Len() > maxCachedHints {
			delete(c.entries, c.order.Remove(c.order.Back()).(*hintEntry).sql)
		}
	}
	c.order.MoveToFront(x)
	e := x.Value.(*hintEntry)
	e.seen++
	return *e
}

// put keeps the hints of a statement.
func (c *hintCache) put(version uint64, sql string, h *hints) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.entries[sql]; x != nil && c.version == version {
		x.Value.(*hintEntry).hints = h
	}
}

// needsValues notes that there is no plan of a statement without its parameters' values.
func (c *hintCache) needsValues(version uint64, sql string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.entries[sql]; x != nil && c.version == version {
		x.Value.(*hintEntry).byValue = true
	}
}

// filtering are the words without one of which nothing in a statement filters rows.
var filtering = []string{"WHERE", "ON", "HAVING", "QUALIFY", "JOIN"}

// mayFilter says whether a statement is worth a look at its plan.
func (p *parsed) mayFilter(tables map[string]tableInfo) bool {
	words := false
	for _, t := range p.tokens {
		for _, w := range filtering {
			words = words || t.is(w)
		}
	}
	if !words {
		return false
	}
	for _, t := range tables {
		if len(t.key) > 0 || len(t.indexes)+len(t.foreign) > 0 {
			return true
		}
	}
	return false
}

// hintsOf returns the hints of a statement that DuckDB takes for n, nil if it needs none. Those of an EXPLAIN are those
// of its query.
func (r *Result) hintsOf(n int, in run) *hints {
	p := r.parsed
	if p.kind != kindSelect || n != 1 {
		return nil
	}
	if sql, ok := p.explained(); ok {
		return r.findHints(sql, in)
	}
	views := r.lease.query.views
	if !p.mayFilter(r.lease.query.tables) && !p.searchesBefore(views) && !p.ordersByDistance(views) {
		return nil
	}
	return r.findHints(r.sql, in)
}

// useHints tells the scans of the statement, which is about to run, what they are asked for. An EXPLAIN says it, too.
func (r *Result) useHints(h *hints, params map[string]paramValue) error {
	if h == nil {
		return nil
	}
	filters := h.filters(r.lease, params)
	r.exec.setFilters(h, filters)
	only, tops, err := r.pickRows(h, filters)
	if err != nil {
		return err
	}
	r.exec.setPicked(only, tops)
	if _, ok := r.parsed.explained(); !ok {
		return nil
	}
	text, err := r.explainScans(h, filters)
	if err == nil && text != "" {
		r.last = explanation(text)
	}
	return err
}

// findHints returns what the optimiser says of the scans of a statement, which is about to be prepared on the same
// connection; nil if it says nothing that helps, or cannot say it. The connection is in a transaction then, so that
// what both make of now() is the same.
func (r *Result) findHints(sql string, in run) *hints {
	cache := &r.in.hints
	known := cache.get(r.lease.version, sql)
	if known.hints != nil {
		return known.hints
	}
	if r.in.execOn(r.conn, "BEGIN TRANSACTION READ ONLY") != nil {
		return nil
	}
	r.exec.beginBinding()
	plan := &filterNode{}
	// Of a search the text without values cannot be bound, nor a distance be told from it.
	if known.byValue || in.params != nil && (r.parsed.searches(r.lease.query.views) || r.parsed.ordersByDistance(r.lease.query.views)) || !r.in.planJSON(r.conn, sql, true, plan) {
		if plan = r.planByValue(cache, sql, in); plan == nil {
			_ = r.in.execOn(r.conn, "ROLLBACK") // the statement runs without it, or says what is wrong
			return nil
		}
		return r.readHints(plan)
	}
	h := r.readHints(plan)
	// A statement that comes again may keep its hints, unless the optimiser put in a value that is another the next
	// time.
	if known.seen > 1 && r.in.stable(r.conn, cache, sql) {
		cache.put(r.lease.version, sql, h)
	}
	return h
}

// readHints reads the plan of a statement, which was just bound.
func (r *Result) readHints(plan *filterNode) *hints {
	reader := &filterReader{scans: map[int][]*scanFilters{}, unstable: r.in.unstableFunctions(r.conn, &r.in.hints)}
	reader.columns(plan)
	return &hints{binds: r.exec.bound(), conditions: reader.conditions(), wanted: reader.wanted(), calls: r.exec.boundSearches()}
}

// planByValue returns the optimised plan of a statement with its parameters' values in it, nil if there is none. What
// follows from it holds for these values alone.
func (r *Result) planByValue(cache *hintCache, sql string, in run) *filterNode {
	valued, ok := in.withValues(sql)
	if !ok {
		return nil
	}
	if r.in.execOn(r.conn, "ROLLBACK") != nil || r.in.execOn(r.conn, "BEGIN TRANSACTION READ ONLY") != nil {
		return nil // what failed may have ended the transaction
	}
	r.exec.beginBinding()
	plan := &filterNode{}
	if !r.in.planJSON(r.conn, valued, true, plan) {
		return nil
	}
	cache.needsValues(r.lease.version, sql)
	return plan
}

// planJSON asks DuckDB for the plan of a query. It returns false if there is none that can be read.
func (in *instance) planJSON(conn bind.Connection, sql string, optimize bool, plan any) bool {
	call := "SELECT json_serialize_plan(" + quoteString(sql) + ")"
	if optimize {
		call = "SELECT json_serialize_plan(" + quoteString(sql) + ", optimize := true)"
	}
	rows, err := in.stringsOn(conn, call)
	if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
		return false
	}
	var doc struct {
		Error bool              `json:"error"`
		Plans []json.RawMessage `json:"plans"`
	}
	if json.Unmarshal([]byte(rows[0][0]), &doc) != nil || doc.Error || len(doc.Plans) != 1 {
		return false
	}
	return json.Unmarshal(doc.Plans[0], plan) == nil
}

// stable reports whether the plan of a statement, bound but not optimised, has only functions whose values their
// arguments tell.
func (in *instance) stable(conn bind.Connection, cache *hintCache, sql string) bool {
	names := in.unstableFunctions(conn, cache)
	var plan any
	if names == nil || !in.planJSON(conn, sql, false, &plan) {
		return false
	}
	return !mentions(plan, names)
}

// unstableFunctions asks DuckDB once for the functions whose values are not in their arguments.
func (in *instance) unstableFunctions(conn bind.Connection, cache *hintCache) map[string]bool {
	cache.mu.Lock()
	names := cache.unstable
	cache.mu.Unlock()
	if names != nil {
		return names
	}
	rows, err := in.stringsOn(conn, "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability IS DISTINCT FROM 'CONSISTENT'")
	if err != nil || len(rows) == 0 {
		return nil
	}
	names = map[string]bool{}
	for _, r := range rows {
		names[r[0]] = true
	}
	for _, consistent := range []string{scanFunction, searchFunction, batchFunction, "json_serialize_plan"} {
		delete(names, consistent)
	}
	cache.mu.Lock()
	cache.unstable = names
	cache.mu.Unlock()
	return names
}

// mentions reports whether anything in a plan has one of the names, or is a text that a cast may take for a moment.
func mentions(plan any, names map[string]bool) bool {
	switch x := plan.(type) {
	case map[string]any:
		if class, _ := x["expression_class"].(string); class == "BOUND_FUNCTION" {
			if name, _ := x["name"].(string); names[strings.ToLower(name)] {
				return true
			}
		}
		if text, ok := x["value"].(string); ok && momentary(text) {
			return true
		}
		for _, v := range x {
			if mentions(v, names) {
				return true
			}
		}
	case []any:
		for _, v := range x {
			if mentions(v, names) {
				return true
			}
		}
	}
	return false
}

// momentary says whether a text may mean another moment each time that it is cast.
func momentary(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "now", "today", "tomorrow", "yesterday":
		return true
	}
	return false
}

// filters returns what each bind of the statement is asked for, with the parameters' values.
func (h *hints) filters(l *lease, params map[string]paramValue) map[int]*scanFilter {
	out := map[int]*scanFilter{}
	for seq, p := range h.conditions {
		if seq < 0 || seq >= len(h.binds) {
			continue
		}
		t, _ := l.table(h.binds[seq])
		if f := t.asked(p, params); f != nil {
			out[seq] = f
		}
	}
	return out
}
