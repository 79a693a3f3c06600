package query

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/decimal128"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// A planExpr is what we read of an expression in an optimised plan. A BOUND_REF is a place in the columns of the
// operators below, laid side by side.
type planExpr struct {
	Class string `json:"expression_class"`
	Type  string `json:"type"`
	Name  string `json:"name"` // of a function

	Left     *planExpr  `json:"left"`
	Right    *planExpr  `json:"right"`
	Input    *planExpr  `json:"input"` // of a BETWEEN
	Lower    *planExpr  `json:"lower"`
	Upper    *planExpr  `json:"upper"`
	Children []planExpr `json:"children"`

	LowerInclusive bool `json:"lower_inclusive"`
	UpperInclusive bool `json:"upper_inclusive"`

	Child      *planExpr `json:"child"` // of a cast
	ReturnType planType  `json:"return_type"`
	TryCast    bool      `json:"try_cast"`
	CaseChecks []struct {
		When planExpr `json:"when_expr"`
		Then planExpr `json:"then_expr"`
	} `json:"case_checks"`
	Else *planExpr `json:"else_expr"`

	Index      uint64     `json:"index"`      // of a BOUND_REF
	Identifier string     `json:"identifier"` // of a parameter
	Value      *planValue `json:"value"`      // of a constant
}

// A planType is a type in a plan.
type planType struct {
	ID   string `json:"id"`
	Info *struct {
		Type         string `json:"type"`
		Alias        string `json:"alias"`
		Width, Scale uint8
		Size         int       // of an ARRAY
		Child        *planType `json:"child_type"` // of an ARRAY or a LIST
	} `json:"type_info"`
}

// String returns the type as sqlType.String does. A type that has more to it, such as a collation, is none of those.
func (t planType) String() string {
	switch {
	case t.Info == nil:
		return t.ID
	case t.ID == "DECIMAL" && t.Info.Type == "DECIMAL_TYPE_INFO" && t.Info.Alias == "":
		return "DECIMAL(" + strconv.Itoa(int(t.Info.Width)) + "," + strconv.Itoa(int(t.Info.Scale)) + ")"
	}
	return t.ID + " with more"
}

// A planValue is a constant in a plan.
type planValue struct {
	Type   planType        `json:"type"`
	IsNull bool            `json:"is_null"`
	Value  json.RawMessage `json:"value"`
}

// A filterNode is what we read of an operator of an optimised plan to find what its scans are filtered by.
type filterNode struct {
	Type     string       `json:"type"`
	Name     string       `json:"name"`
	Children []filterNode `json:"children"`

	Names         []string    `json:"names"` // of a scan's columns
	ColumnIndexes []planIndex `json:"column_indexes"`
	ProjectionIDs []int       `json:"projection_ids"`

	Expressions json.RawMessage `json:"expressions"`
	Conditions  []struct {
		Comparison string   `json:"comparison"`
		Left       planExpr `json:"left"`
		Right      planExpr `json:"right"`
	} `json:"conditions"`

	JoinType           string `json:"join_type"`
	LeftProjectionMap  []int  `json:"left_projection_map"`
	RightProjectionMap []int  `json:"right_projection_map"`
	ProjectionMap      []int  `json:"projection_map"`

	Collection struct {
		Values [][]planValue `json:"values"`
	} `json:"collection"` // of a LOGICAL_CHUNK_GET

	Orders []struct {
		Type       string   `json:"type"`
		NullOrder  string   `json:"null_order"`
		Expression planExpr `json:"expression"`
	} `json:"orders"` // of a LOGICAL_TOP_N
	Limit  json.Number `json:"limit"`
	Offset json.Number `json:"offset"`
}

// A filterRef is where a column of an operator comes from: a column of a scan, or, for the mark of a join, whether a
// row of that scan fulfils a condition. The zero value is any other column.
type filterRef struct {
	scan   *scanFilters
	column int
	mark   *predicate
	// distance is set for how far the vectors of a column are from a constant, as long as nothing but filters and
	// projections lies between here and the scan.
	distance *distanceRef
	joined   bool // there is a join between
}

// scanFilters collects the conditions that all rows of one bind of the table function fulfil which matter. A bind that
// stands in the plan more than once has one for each, in other.
type scanFilters struct {
	all []predicate
	// texts are the conditions as SQL, unread what is in some that could not be written. beyond says that there are others,
	// which more decides than the columns of the scan.
	texts  []string
	unread string
	beyond bool
	// top is what the rows are put in order by, if only the first of them are wanted.
	top *topRows
}

// filterReader walks through a plan.
type filterReader struct {
	// scans are those of the plan by the number of their bind.
	scans    map[int][]*scanFilters
	unstable map[string]bool // functions whose values are not in their arguments
}

// conditions returns, for each bind of the table function that the plan has, a condition that its rows fulfil as
// far as they matter: what the plan drops there is not asked for.
func (r *filterReader) conditions() map[int]predicate {
	out := make(map[int]predicate, len(r.scans))
	for seq, list := range r.scans {
		any := predicate{op: opOr}
		for _, s := range list {
			any.args = append(any.args, predicate{op: opAnd, args: s.all})
		}
		out[seq] = any
	}
	return out
}

// columns returns the origins of the operator's columns, none if it is of a kind whose columns do not say what may be
// dropped below it, and collects the conditions in it and below.
func (r *filterReader) columns(n *filterNode) []filterRef {
	children := make([][]filterRef, len(n.Children))
	for i := range n.Children {
		children[i] = r.columns(&n.Children[i])
	}
	switch {
	case n.Type == "LOGICAL_GET":
		return r.get(n)
	case n.Type == "LOGICAL_FILTER" && len(children) == 1:
		for _, e := range filterExpressions(n.Expressions) {
			demand(read(&e, children[0]), children[0])
			r.note(&e, children[0])
		}
		return pickRefs(children[0], n.ProjectionMap)
	case n.Type == "LOGICAL_PROJECTION" && len(children) == 1:
		var out []filterRef
		for _, e := range filterExpressions(n.Expressions) {
			out = append(out, r.projected(&e, children[0]))
		}
		return out
	case n.Type == "LOGICAL_TOP_N" && len(children) == 1:
		n.noteTop(children[0])
		return nil
	case (n.Type == "LOGICAL_COMPARISON_JOIN" || n.Type == "LOGICAL_DELIM_JOIN") && len(children) == 2:
		return r.join(n, children[0], children[1])
	}
	return nil
}

// demand adds a condition to the scan of which all its columns are.
func demand(p predicate, columns []filterRef) {
	if p.op == opAny {
		return
	}
	if p.op == opAnd {
		for _, a := range p.args {
			demand(a, columns)
		}
		return
	}
	if s := p.scan(); s != nil {
		s.all = append(s.all, p)
	}
}

// get notes a scan, and returns its columns.
func (r *filterReader) get(n *filterNode) []filterRef {
	seq, ok := bindNumber(n.Names)
	stored := len(n.Names)
	switch n.Name {
	case scanFunction:
	case searchFunction:
		stored-- // the distance is no column of the table
	case batchFunction:
		stored -= 2 // nor is the query
	default:
		return nil
	}
	if !ok {
		return nil
	}
	s := &scanFilters{}
	r.scans[seq] = append(r.scans[seq], s)
	all := make([]filterRef, len(n.ColumnIndexes))
	for i, c := range n.ColumnIndexes {
		if c.Index > 0 && c.Index < uint64(stored) { // not the dummy, nor the row id
			all[i] = filterRef{scan: s, column: int(c.Index) - 1}
		}
	}
	return pickRefs(all, n.ProjectionIDs)
}

// join lays the columns side by side. Those of a side whose rows may come back with nulls have no origin: to drop rows
// there is not to drop rows of the result.
func (r *filterReader) join(n *filterNode, left, right []filterRef) []filterRef {
	left, right = joined(left), joined(right)
	var in *predicate
	if n.JoinType == "MARK" || n.JoinType == "SEMI" || n.JoinType == "INNER" {
		in = n.values(left)
	}
	out := pickRefs(left, n.LeftProjectionMap)
	switch n.JoinType {
	case "INNER":
		if in != nil {
			demand(*in, left)
			r.noteValues(in, left)
		}
		return append(slices.Clone(out), pickRefs(right, n.RightProjectionMap)...)
	case "SEMI":
		if in != nil {
			demand(*in, left)
			r.noteValues(in, left)
		}
		return out
	case "LEFT", "ANTI", "SINGLE":
		return out
	case "MARK":
		return append(slices.Clone(out), filterRef{mark: in})
	}
	return nil
}

// values returns what a join with a list of constants asks of the columns on its left, nil if that is not what it is.
// Lists of values in IN become such joins.
func (n *filterNode) values(left []filterRef) *predicate {
	if n.Children[1].Type != "LOGICAL_CHUNK_GET" || len(n.Conditions) != 1 || n.Conditions[0].Comparison != "COMPARE_EQUAL" {
		return nil
	}
	c := n.Conditions[0]
	ref := refOf(&c.Left, left)
	lists := n.Children[1].Collection.Values
	if ref.scan == nil || c.Right.Type != "BOUND_REF" || c.Right.Index >= uint64(len(lists)) {
		return nil
	}
	p := predicate{op: opOr}
	for _, v := range lists[c.Right.Index] {
		p.args = append(p.args, predicate{op: opCompare, ref: ref, cmp: "=", value: operand{constant: &v}})
	}
	return &p
}

// filterExpressions reads a list of expressions.
func filterExpressions(raw json.RawMessage) []planExpr {
	var out []planExpr
	if len(raw) > 0 && json.Unmarshal(raw, &out) != nil {
		return nil
	}
	return out
}

// refOf returns the origin of an expression.
func refOf(e *planExpr, columns []filterRef) filterRef {
	if e != nil && e.Type == "BOUND_REF" && e.Index < uint64(len(columns)) {
		return columns[e.Index]
	}
	return filterRef{}
}

// pickRefs applies a projection map; an empty one keeps all.
func pickRefs(columns []filterRef, places []int) []filterRef {
	if len(places) == 0 {
		return columns
	}
	out := make([]filterRef, len(places))
	for i, p := range places {
		if p >= 0 && p < len(columns) {
			out[i] = columns[p]
		}
	}
	return out
}

// comparisons are the operators that we read, with what they are when their sides change places.
var comparisons = map[string][2]string{
	"COMPARE_EQUAL":                {"=", "="},
	"COMPARE_NOT_DISTINCT_FROM":    {"=", "="},
	"COMPARE_LESSTHAN":             {"<", ">"},
	"COMPARE_GREATERTHAN":          {">", "<"},
	"COMPARE_LESSTHANOREQUALTO":    {"<=", ">="},
	"COMPARE_GREATERTHANOREQUALTO": {">=", "<="},
}

// read reads a condition; what we do not know of is one that every row may fulfil.
func read(e *planExpr, columns []filterRef) predicate {
	switch {
	case e.Type == "BOUND_REF":
		if ref := refOf(e, columns); ref.mark != nil {
			return *ref.mark
		}
	case e.Class == "BOUND_CONJUNCTION":
		p := predicate{op: opAnd}
		if e.Type == "CONJUNCTION_OR" {
			p.op = opOr
		}
		for i := range e.Children {
			p.args = append(p.args, read(&e.Children[i], columns))
		}
		return p
	case e.Class == "BOUND_BETWEEN":
		lower, upper := ">", "<"
		if e.LowerInclusive {
			lower = ">="
		}
		if e.UpperInclusive {
			upper = "<="
		}
		return predicate{op: opAnd, args: []predicate{
			compare(lower, refOf(e.Input, columns), e.Lower), compare(upper, refOf(e.Input, columns), e.Upper)}}
	case e.Type == "COMPARE_IN" && len(e.Children) > 1:
		p := predicate{op: opOr}
		for i := range e.Children[1:] {
			p.args = append(p.args, compare("=", refOf(&e.Children[0], columns), &e.Children[i+1]))
		}
		return p
	case e.Class == "BOUND_FUNCTION" && (e.Name == "prefix" || e.Name == "starts_with") && len(e.Children) == 2:
		return compare("prefix", refOf(&e.Children[0], columns), &e.Children[1])
	case e.Class == "BOUND_FUNCTION" && len(e.Children) == 2:
		return readHas(e, columns)
	case e.Class == "BOUND_COMPARISON":
		return readComparison(e, columns)
	}
	return predicate{}
}

// readHas reads a condition on the items of a column's lists.
func readHas(e *planExpr, columns []filterRef) predicate {
	ref := refOf(&e.Children[0], columns)
	switch e.Name {
	case "list_contains", "list_has", "array_contains", "array_has":
		return compare("has", ref, &e.Children[1])
	case "list_has_any", "array_has_any", "&&":
		return compareItems(opOr, ref, e.Children[1].Value)
	case "list_has_all", "array_has_all", "@>":
		return compareItems(opAnd, ref, e.Children[1].Value)
	}
	return predicate{}
}

// compareItems reads that lists have any or all of some constants. Nulls among these may be fulfilled by any row.
func compareItems(op int, ref filterRef, list *planValue) predicate {
	var values struct {
		Children []planValue `json:"children"`
	}
	if list == nil || list.IsNull || list.Type.ID != "LIST" || json.Unmarshal(list.Value, &values) != nil {
		return predicate{}
	}
	p := predicate{op: op}
	for i := range values.Children {
		one := compare("has", ref, &planExpr{Type: "VALUE_CONSTANT", Value: &values.Children[i]})
		one.nullIsAny = true
		p.args = append(p.args, one)
	}
	return p
}

// readComparison reads a comparison of a column, or of a row of columns, with a value.
func readComparison(e *planExpr, columns []filterRef) predicate {
	names, ok := comparisons[e.Type]
	if !ok || e.Left == nil || e.Right == nil {
		return predicate{}
	}
	if e.Type == "COMPARE_EQUAL" && e.Left.Class == "BOUND_FUNCTION" && e.Left.Name == "row" && e.Right.Value != nil {
		return compareRow(e.Left, e.Right.Value, columns)
	}
	p := compare(names[0], refOf(e.Left, columns), e.Right)
	if p.op == opAny {
		p = compare(names[1], refOf(e.Right, columns), e.Left)
	}
	if e.Type == "COMPARE_NOT_DISTINCT_FROM" && p.op != opAny {
		p.nullIsAny = true
	}
	return p
}

// compareRow reads (a, b) = (1, 2).
func compareRow(row *planExpr, v *planValue, columns []filterRef) predicate {
	var values struct {
		Children []planValue `json:"children"`
	}
	if v.IsNull || json.Unmarshal(v.Value, &values) != nil || len(values.Children) != len(row.Children) {
		return predicate{}
	}
	p := predicate{op: opAnd}
	for i := range row.Children {
		constant := planExpr{Type: "VALUE_CONSTANT", Value: &values.Children[i]}
		one := compare("=", refOf(&row.Children[i], columns), &constant)
		one.nullIsAny = true // nulls in rows are equal
		p.args = append(p.args, one)
	}
	return p
}

// compare reads a comparison of a column with a constant or a parameter.
func compare(cmp string, ref filterRef, value *planExpr) predicate {
	if ref.scan == nil || value == nil {
		return predicate{}
	}
	p := predicate{op: opCompare, ref: ref, cmp: cmp}
	switch {
	case value.Type == "VALUE_CONSTANT" && value.Value != nil:
		p.value.constant = value.Value
	case value.Type == "VALUE_PARAMETER":
		p.value.parameter = value.Identifier
	default:
		return predicate{}
	}
	return p
}

// bindNumber returns the number that the bind of a scan put into the name of its first column.
func bindNumber(names []string) (int, bool) {
	if len(names) == 0 {
		return 0, false
	}
	text, ok := strings.CutPrefix(names[0], emptyColumn+" ")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil
}

// scalar reads the constant, if it is of the type, in SQL's numbers; ok is false for any other.
func (v *planValue) scalar(t sqlType) (s scalar, ok bool) {
	if v.Type.String() != t.String() {
		return s, false
	}
	var text string
	if json.Unmarshal(v.Value, &text) == nil {
		switch v.Type.ID {
		case "VARCHAR":
			return scalar{text: text}, true
		case "BLOB":
			return blobScalar(text)
		}
		return s, false
	}
	if t.id == bind.TypeFloat || t.id == bind.TypeDouble {
		n, err := strconv.ParseFloat(string(v.Value), 64)
		return scalar{real: n}, err == nil
	}
	var yes bool
	if json.Unmarshal(v.Value, &yes) == nil {
		return boolScalar(yes), true
	}
	var huge struct {
		Upper *int64  `json:"upper"`
		Lower *uint64 `json:"lower"`
	}
	if json.Unmarshal(v.Value, &huge) == nil && huge.Upper != nil && huge.Lower != nil {
		if t.id == bind.TypeUUID { // DuckDB flips the first bit, to compare them as numbers with a sign
			b := binary.BigEndian.AppendUint64(nil, uint64(*huge.Upper)^1<<63)
			return scalar{text: string(binary.BigEndian.AppendUint64(b, *huge.Lower))}, true
		}
		return scalar{num: decimal128.New(*huge.Upper, *huge.Lower)}, true
	}
	if n, err := strconv.ParseInt(string(v.Value), 10, 64); err == nil {
		return scalar{num: decimal128.FromI64(n)}, true
	}
	if n, err := strconv.ParseUint(string(v.Value), 10, 64); err == nil {
		return scalar{num: decimal128.FromU64(n)}, true
	}
	return s, false
}

// blobScalar reads a BLOB as DuckDB writes it: bytes that are no plain characters are \xHH.
func blobScalar(text string) (scalar, bool) {
	var out []byte
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			out = append(out, text[i])
			continue
		}
		if i+4 > len(text) || text[i+1] != 'x' {
			return scalar{}, false
		}
		b, err := strconv.ParseUint(text[i+2:i+4], 16, 8)
		if err != nil {
			return scalar{}, false
		}
		out = append(out, byte(b))
		i += 3
	}
	return scalar{text: string(out)}, true
}

// boolScalar is the scalar of a BOOLEAN.
func boolScalar(yes bool) scalar {
	if yes {
		return scalar{num: decimal128.FromI64(1)}
	}
	return scalar{}
}
