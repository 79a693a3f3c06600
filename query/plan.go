package query

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// A planNode is what we read of an operator or expression in DuckDB's plan. In a plan that was bound but not
// optimised, a BOUND_REF is a place in the columns of the operator's children, laid side by side.
type planNode struct {
	Type     string     `json:"type"`
	Name     string     `json:"name"`
	Children []planNode `json:"children"`

	// Of projections, aggregates and so on. VALUES has lists of lists here, hence the raw form.
	Expressions json.RawMessage `json:"expressions"`
	Groups      json.RawMessage `json:"groups"`

	// Of a BOUND_REF and of the columns of a LOGICAL_GET; the row id is the largest 64-bit number.
	Index         uint64      `json:"index"`
	Names         []string    `json:"names"` // of the columns of a scan
	ColumnIndexes []planIndex `json:"column_indexes"`
	ProjectionIDs []int       `json:"projection_ids"`
	FunctionData  struct {
		Schema string `json:"schema"`
		Table  string `json:"table"`
	} `json:"function_data"`

	JoinType           string `json:"join_type"`
	LeftProjectionMap  []int  `json:"left_projection_map"`
	RightProjectionMap []int  `json:"right_projection_map"`
	ProjectionMap      []int  `json:"projection_map"`

	// raw is the operator with everything that is not named here.
	raw map[string]json.RawMessage

	TableIndex  int               `json:"table_index"`
	CTEIndex    int               `json:"cte_index"`
	ColumnCount int               `json:"column_count"`
	ChunkTypes  []json.RawMessage `json:"chunk_types"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *planNode) UnmarshalJSON(b []byte) error {
	type fields planNode
	if err := json.Unmarshal(b, (*fields)(n)); err != nil {
		return err
	}
	return json.Unmarshal(b, &n.raw)
}

// A planIndex is a place in a table's columns.
type planIndex struct {
	Index uint64 `json:"index"`
}

// planOf asks the shadow for the plan of a query. There is none for statements such as EXPLAIN, and none that we can
// read if DuckDB changes its form; that is no error, the columns then just keep DuckDB's types.
func planOf(shadow *view, sql string) (*planNode, error) {
	text, err := shadow.in.scalar("SELECT json_serialize_plan(" + quoteString(sql) + ")")
	if err != nil {
		return nil, err
	}
	var doc struct {
		Error bool       `json:"error"`
		Plans []planNode `json:"plans"`
	}
	if json.Unmarshal([]byte(text), &doc) != nil || doc.Error || len(doc.Plans) != 1 {
		return nil, nil
	}
	return &doc.Plans[0], nil
}

// quoteString writes a text as a SQL string.
func quoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// scansTables says whether any operator of the plan reads one of the tables.
func (n *planNode) scansTables(tables map[string]tableInfo) bool {
	if n.Type == "LOGICAL_GET" && n.Name == scanFunction {
		return true // an older version of one
	}
	if searchedTable(n.Name, n.Names) > 0 {
		return true
	}
	if n.Type == "LOGICAL_GET" && n.FunctionData.Table != "" {
		if _, ok := tables[fold(n.FunctionData.Schema, n.FunctionData.Table)]; ok {
			return true
		}
	}
	for i := range n.Children {
		if n.Children[i].scansTables(tables) {
			return true
		}
	}
	return false
}

// An origin follows columns from a plan's top to the tables. An entry is the table's column that passed through, nil
// for a computed one. A nil slice means that even the number of columns is unknown.
type origin struct {
	tables map[string]tableInfo
	past   func(id int64) (*past, bool)
	byID   map[int64]tableInfo
	ctes   map[int][]*arrow.Field
}

// columns returns the origins of the operator's columns.
func (o *origin) columns(n *planNode) []*arrow.Field {
	switch n.Type {
	case "LOGICAL_GET":
		return o.get(n)
	case "LOGICAL_PROJECTION":
		return o.project(n)
	case "LOGICAL_FILTER", "LOGICAL_ORDER_BY":
		return pick(o.child(n, 0), n.ProjectionMap)
	case "LOGICAL_LIMIT", "LOGICAL_TOP_N", "LOGICAL_DISTINCT", "LOGICAL_SAMPLE":
		return o.child(n, 0)
	case "LOGICAL_AGGREGATE_AND_GROUP_BY":
		return o.aggregate(n)
	case "LOGICAL_WINDOW", "LOGICAL_UNNEST":
		return extend(o.child(n, 0), len(expressions(n.Expressions)))
	case "LOGICAL_COMPARISON_JOIN", "LOGICAL_DELIM_JOIN", "LOGICAL_ASOF_JOIN", "LOGICAL_ANY_JOIN",
		"LOGICAL_CROSS_PRODUCT", "LOGICAL_POSITIONAL_JOIN":
		return o.join(n)
	case "LOGICAL_UNION", "LOGICAL_EXCEPT", "LOGICAL_INTERSECT":
		return common(o.child(n, 0), o.child(n, 1))
	case "LOGICAL_MATERIALIZED_CTE":
		o.ctes[n.TableIndex] = o.child(n, 0)
		return o.child(n, 1)
	case "LOGICAL_RECURSIVE_CTE":
		return make([]*arrow.Field, n.ColumnCount)
	case "LOGICAL_CTE_REF":
		if c, ok := o.ctes[n.CTEIndex]; ok && len(c) == len(n.ChunkTypes) {
			return c
		}
		return make([]*arrow.Field, len(n.ChunkTypes))
	case "LOGICAL_DELIM_GET", "LOGICAL_CHUNK_GET":
		return make([]*arrow.Field, len(n.ChunkTypes))
	}
	return nil
}

// child returns the origins of the child's columns.
func (o *origin) child(n *planNode, i int) []*arrow.Field {
	if i >= len(n.Children) {
		return nil
	}
	return o.columns(&n.Children[i])
}

// get returns the types of the table's columns that are read. A scan that needs none has one, which nobody reads.
func (o *origin) get(n *planNode) []*arrow.Field {
	out := make([]*arrow.Field, max(len(n.ColumnIndexes), 1))
	if p, ok := o.scanned(n); ok {
		for i, c := range n.ColumnIndexes {
			if c.Index > 0 && c.Index <= uint64(p.info.arrow.NumFields()) { // the dummy comes first
				f := p.info.arrow.Field(int(c.Index) - 1)
				out[i] = &f
			}
		}
		return pick(out, n.ProjectionIDs)
	}
	if t, ok := o.byID[searchedTable(n.Name, n.Names)]; ok { // its first column is the dummy
		for i, c := range n.ColumnIndexes {
			if c.Index > 0 && c.Index <= uint64(t.arrow.NumFields()) {
				f := t.arrow.Field(int(c.Index - 1))
				out[i] = &f
			}
		}
		return pick(out, n.ProjectionIDs)
	}
	if t, ok := o.tables[fold(n.FunctionData.Schema, n.FunctionData.Table)]; ok && n.FunctionData.Table != "" {
		for i, c := range n.ColumnIndexes {
			if c.Index < uint64(t.arrow.NumFields()) {
				f := t.arrow.Field(int(c.Index))
				out[i] = &f
			}
		}
	}
	return pick(out, n.ProjectionIDs)
}

// scanned returns the older version of a table that a scan in the shadow is of.
func (o *origin) scanned(n *planNode) (*past, bool) {
	if n.Name != scanFunction || len(n.Names) == 0 || o.past == nil {
		return nil, false
	}
	text, ok := strings.CutPrefix(n.Names[0], emptyColumn+pastMark)
	id, err := strconv.ParseInt(text, 10, 64)
	if !ok || err != nil {
		return nil, false
	}
	return o.past(id)
}

// expressions decodes a list of expressions.
func expressions(raw json.RawMessage) []planNode {
	var list []planNode
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	return list
}

// project follows the references of a projection.
func (o *origin) project(n *planNode) []*arrow.Field {
	child := o.child(n, 0)
	var out []*arrow.Field
	for _, e := range expressions(n.Expressions) {
		out = append(out, follow(e, child))
	}
	return out
}

// follow returns the origin of an expression.
func follow(e planNode, child []*arrow.Field) *arrow.Field {
	if e.Type == "BOUND_REF" && e.Index < uint64(len(child)) {
		return child[e.Index]
	}
	return nil
}

// aggregate has its groups first; they pass through.
func (o *origin) aggregate(n *planNode) []*arrow.Field {
	child := o.child(n, 0)
	var out []*arrow.Field
	for _, g := range expressions(n.Groups) {
		out = append(out, follow(g, child))
	}
	return extend(out, len(expressions(n.Expressions)))
}

// join lays the columns of both sides side by side, unless the kind of join drops one side.
func (o *origin) join(n *planNode) []*arrow.Field {
	left := pick(o.child(n, 0), n.LeftProjectionMap)
	right := pick(o.child(n, 1), n.RightProjectionMap)
	switch n.JoinType {
	case "SEMI", "ANTI":
		return left
	case "RIGHT_SEMI", "RIGHT_ANTI":
		return right
	case "MARK":
		return extend(left, 1)
	}
	if left == nil {
		return nil
	}
	out := append([]*arrow.Field{}, left...)
	return append(out, right...)
}

// pick applies a projection map; an empty one keeps all.
func pick(columns []*arrow.Field, places []int) []*arrow.Field {
	if len(places) == 0 || columns == nil {
		return columns
	}
	out := make([]*arrow.Field, len(places))
	for i, p := range places {
		if p >= 0 && p < len(columns) {
			out[i] = columns[p]
		}
	}
	return out
}

// extend adds computed columns.
func extend(columns []*arrow.Field, n int) []*arrow.Field {
	if columns == nil && n == 0 {
		return nil
	}
	return append(append([]*arrow.Field{}, columns...), make([]*arrow.Field, n)...)
}

// common keeps what both sides of a set operation agree on.
func common(a, b []*arrow.Field) []*arrow.Field {
	if len(a) != len(b) {
		return nil
	}
	out := make([]*arrow.Field, len(a))
	for i := range a {
		if a[i] != nil && b[i] != nil && sameColumn(*a[i], *b[i]) {
			out[i] = a[i]
		}
	}
	return out
}

// sameColumn reports whether two columns have the same type, extensions included.
func sameColumn(a, b arrow.Field) bool {
	return sameType(a.Type, b.Type) && typeMetadata(a).Equal(typeMetadata(b))
}

// A shape is what a plan tells of a query. The zero shape knows nothing.
type shape struct {
	// columns are the origins of the result's columns.
	columns []*arrow.Field
	// carries says that the query looks into no opaque column.
	carries bool
}

// shapeOf reads the plan of a query. It is only asked for when a table of the text has a column whose type DuckDB does
// not keep by itself.
func shapeOf(shadow *view, p *parsed) (s shape, err error) {
	throughView := slices.ContainsFunc(shadow.views, func(v viewInfo) bool { return p.mentions(v.name) })
	if !throughView && !mentionsInexact(shadow.tables, p) && len(p.pasts()) == 0 {
		return s, nil
	}
	plan, err := planOf(shadow, p.sql)
	if err != nil || plan == nil {
		return s, nil // the values are right, only their types are DuckDB's
	}
	o := &origin{tables: shadow.tables, past: shadow.past, byID: shadow.byID, ctes: map[int][]*arrow.Field{}}
	s.columns = o.columns(plan)
	if err := o.checkZones(plan); err != nil {
		return s, err
	}
	s.carries, err = o.carries(plan, s.columns)
	return s, err
}

// schema returns the schema of the result: DuckDB's own, in which the columns that come unchanged from a table have the
// table's type.
func (s shape) schema(natural *arrow.Schema) (*arrow.Schema, error) {
	if len(s.columns) != natural.NumFields() {
		if s.carries {
			return nil, errorf(Internal, "the plan has %d columns, the result %d", len(s.columns), natural.NumFields())
		}
		return natural, nil
	}
	fields := natural.Fields()
	for i, f := range s.columns {
		if f == nil {
			continue
		}
		t, err := sqlTypeOf(*f)
		if err == nil && arrow.TypeEqual(t.natural(), fields[i].Type) {
			fields[i].Type, fields[i].Metadata = f.Type, typeMetadata(*f)
		}
	}
	return arrow.NewSchema(fields, nil), nil
}

// mentionsInexact says whether the text has the name of a table with a column that needs help.
func mentionsInexact(tables map[string]tableInfo, p *parsed) bool {
	return slices.ContainsFunc(mentioned(tables, p), func(t tableInfo) bool {
		return slices.ContainsFunc(t.arrow.Fields(), func(f arrow.Field) bool { return !exact(f) })
	})
}

// mentioned returns the tables whose names the text has.
func mentioned(tables map[string]tableInfo, p *parsed) (out []tableInfo) {
	for _, t := range tables {
		if p.mentions(t.name) {
			out = append(out, t)
		}
	}
	return out
}

// mentions reports whether the text has the name. Searches name tables in strings.
func (p *parsed) mentions(name string) bool {
	return slices.ContainsFunc(p.tokens, func(t token) bool {
		return t.ident() && strings.EqualFold(t.name, name) || t.kind == literal && strings.Contains(strings.ToLower(t.text), strings.ToLower(name))
	})
}
