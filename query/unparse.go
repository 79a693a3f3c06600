package query

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	bind "github.com/duckdb/duckdb-go-bindings"
)

// A planText writes an expression of an optimised plan as SQL over the columns of one scan, which are c0, c1, … there.
type planText struct {
	columns  []filterRef
	unstable map[string]bool // functions whose values are not in their arguments
	scan     *scanFilters    // of all columns so far
	// beyond says that the expression needs more than the columns of one scan, or is not the same twice.
	beyond bool
	// unknown is what could not be written.
	unknown string
}

// give keeps the first thing that could not be written.
func (w *planText) give(what string) string {
	if w.unknown == "" {
		w.unknown = what
	}
	return "NULL"
}

// text writes an expression.
func (w *planText) text(e *planExpr) string {
	if e == nil {
		return w.give("nothing")
	}
	switch e.Class {
	case "BOUND_REF":
		return w.ref(refOf(e, w.columns))
	case "BOUND_CONSTANT":
		return w.constant(e.Value)
	case "BOUND_CAST":
		if e.TryCast {
			return "TRY_CAST(" + w.text(e.Child) + " AS " + w.typ(&e.ReturnType) + ")"
		}
		return "CAST(" + w.text(e.Child) + " AS " + w.typ(&e.ReturnType) + ")"
	case "BOUND_FUNCTION":
		return w.function(e)
	case "BOUND_COMPARISON":
		if op, ok := comparisonSigns[e.Type]; ok {
			return "(" + w.text(e.Left) + op + w.text(e.Right) + ")"
		}
	case "BOUND_CONJUNCTION":
		if e.Type == "CONJUNCTION_OR" {
			return "(" + w.list(e.Children, " OR ") + ")"
		}
		return "(" + w.list(e.Children, " AND ") + ")"
	case "BOUND_BETWEEN":
		low, high := " > ", " < "
		if e.LowerInclusive {
			low = " >= "
		}
		if e.UpperInclusive {
			high = " <= "
		}
		in := w.text(e.Input)
		return "(" + in + low + w.text(e.Lower) + " AND " + in + high + w.text(e.Upper) + ")"
	case "BOUND_OPERATOR":
		return w.operator(e)
	case "BOUND_CASE":
		var b strings.Builder
		b.WriteString("(CASE")
		for i := range e.CaseChecks {
			b.WriteString(" WHEN " + w.text(&e.CaseChecks[i].When) + " THEN " + w.text(&e.CaseChecks[i].Then))
		}
		return b.String() + " ELSE " + w.text(e.Else) + " END)"
	}
	return w.give(e.Class)
}

// comparisonSigns are the comparisons as SQL.
var comparisonSigns = map[string]string{
	"COMPARE_EQUAL": " = ", "COMPARE_NOTEQUAL": " <> ", "COMPARE_LESSTHAN": " < ", "COMPARE_GREATERTHAN": " > ",
	"COMPARE_LESSTHANOREQUALTO": " <= ", "COMPARE_GREATERTHANOREQUALTO": " >= ",
	"COMPARE_DISTINCT_FROM": " IS DISTINCT FROM ", "COMPARE_NOT_DISTINCT_FROM": " IS NOT DISTINCT FROM ",
}

// list writes expressions with something between them.
func (w *planText) list(all []planExpr, between string) string {
	out := make([]string, len(all))
	for i := range all {
		out[i] = w.text(&all[i])
	}
	return strings.Join(out, between)
}

// ref writes a column, or what a join with a list of values says of one.
func (w *planText) ref(ref filterRef) string {
	if ref.mark != nil {
		return w.predicate(ref.mark)
	}
	if ref.scan == nil || w.scan != nil && w.scan != ref.scan {
		w.beyond = true
		return "NULL"
	}
	w.scan = ref.scan
	return "c" + strconv.Itoa(ref.column)
}

// predicate writes a condition that was made of a list of values.
func (w *planText) predicate(p *predicate) string {
	switch p.op {
	case opCompare:
		if p.value.constant != nil && p.cmp == "=" {
			return "(" + w.ref(p.ref) + " = " + w.constant(p.value.constant) + ")"
		}
	case opOr:
		out := make([]string, len(p.args))
		for i := range p.args {
			out[i] = w.predicate(&p.args[i])
		}
		if len(out) == 0 {
			return "false"
		}
		return "(" + strings.Join(out, " OR ") + ")"
	}
	return w.give("a list of values")
}

// function writes a call. Operators are functions with their signs as names.
func (w *planText) function(e *planExpr) string {
	if w.unstable[strings.ToLower(e.Name)] {
		w.beyond = true
		return "NULL"
	}
	if e.Name == "" || strings.HasPrefix(e.Name, "__") || e.Name == "struct_pack" || e.Name == "row" {
		return w.give("function " + e.Name)
	}
	for i := range e.Children {
		if e.Children[i].Class == "BOUND_LAMBDA" {
			return w.give("a lambda")
		}
	}
	return quoteIdent(e.Name) + "(" + w.list(e.Children, ", ") + ")"
}

// operator writes what is no function.
func (w *planText) operator(e *planExpr) string {
	switch n := len(e.Children); {
	case e.Type == "OPERATOR_NOT" && n == 1:
		return "(NOT " + w.text(&e.Children[0]) + ")"
	case e.Type == "OPERATOR_IS_NULL" && n == 1:
		return "(" + w.text(&e.Children[0]) + " IS NULL)"
	case e.Type == "OPERATOR_IS_NOT_NULL" && n == 1:
		return "(" + w.text(&e.Children[0]) + " IS NOT NULL)"
	case e.Type == "OPERATOR_COALESCE" && n > 0:
		return "COALESCE(" + w.list(e.Children, ", ") + ")"
	case e.Type == "COMPARE_IN" && n > 1:
		return "(" + w.text(&e.Children[0]) + " IN (" + w.list(e.Children[1:], ", ") + "))"
	case e.Type == "COMPARE_NOT_IN" && n > 1:
		return "(" + w.text(&e.Children[0]) + " NOT IN (" + w.list(e.Children[1:], ", ") + "))"
	}
	return w.give(e.Type)
}

// typ writes a type.
func (w *planText) typ(t *planType) string {
	info := t.Info
	switch {
	case t.ID == "TIMESTAMP WITH TIME ZONE", info == nil:
		return t.ID
	case info.Alias != "":
	case t.ID == "DECIMAL":
		return fmt.Sprintf("DECIMAL(%d,%d)", info.Width, info.Scale)
	case t.ID == "LIST" && info.Child != nil:
		return w.typ(info.Child) + "[]"
	case t.ID == "ARRAY" && info.Child != nil:
		return fmt.Sprintf("%s[%d]", w.typ(info.Child), info.Size)
	case t.ID == "VARCHAR":
		return t.ID
	}
	return w.give("type " + t.String())
}

// constant writes a value with its type, to the bit.
func (w *planText) constant(v *planValue) string {
	if v == nil {
		return w.give("a constant")
	}
	typ := w.typ(&v.Type)
	if v.IsNull {
		return "CAST(NULL AS " + typ + ")"
	}
	raw := string(v.Value)
	switch v.Type.ID {
	case "BOOLEAN":
		return raw
	case "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "HUGEINT", "UHUGEINT":
		return "CAST('" + strings.Trim(numberText(v.Value), `"`) + "' AS " + typ + ")"
	case "DECIMAL":
		n, ok := new(big.Int).SetString(numberText(v.Value), 10)
		if ok {
			return "CAST('" + decimalText(n, int(v.Type.Info.Scale)) + "' AS " + typ + ")"
		}
	case "VARCHAR", "BLOB":
		var text string
		if json.Unmarshal(v.Value, &text) == nil && strings.IndexByte(text, 0) < 0 {
			return "CAST(" + quoteString(text) + " AS " + typ + ")"
		}
	case "DATE":
		return "CAST(make_timestamp(86400000000 * CAST(" + raw + " AS BIGINT)) AS DATE)"
	case "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "TIME":
		return w.instant(v.Type.ID, raw)
	case "LIST", "ARRAY":
		var values struct {
			Children []planValue `json:"children"`
		}
		if json.Unmarshal(v.Value, &values) == nil {
			out := make([]string, len(values.Children))
			for i := range values.Children {
				out[i] = w.constant(&values.Children[i])
			}
			return "CAST([" + strings.Join(out, ", ") + "] AS " + typ + ")"
		}
	case "UUID":
		if s, ok := v.scalar(sqlType{id: bind.TypeUUID}); ok {
			return fmt.Sprintf("CAST('%x' AS UUID)", s.text)
		}
	case "INTERVAL":
		var i struct{ Months, Days, Micros int64 }
		if json.Unmarshal(v.Value, &i) == nil {
			return fmt.Sprintf("(to_months(%d) + to_days(%d) + to_microseconds(%d))", i.Months, i.Days, i.Micros)
		}
	}
	return w.give("a constant of type " + typ)
}

// instant writes a moment, which a plan has as a number.
func (w *planText) instant(typ, raw string) string {
	if _, err := strconv.ParseInt(raw, 10, 64); err != nil {
		return w.give("a constant of type " + typ)
	}
	switch typ {
	case "TIMESTAMP_S":
		return "CAST(make_timestamp(1000000 * " + raw + "::BIGINT) AS TIMESTAMP_S)"
	case "TIMESTAMP_MS":
		return "CAST(make_timestamp(1000 * " + raw + "::BIGINT) AS TIMESTAMP_MS)"
	case "TIMESTAMP_NS":
		return "make_timestamp_ns(" + raw + "::BIGINT)"
	case "TIMESTAMP WITH TIME ZONE":
		return "(to_timestamp(0) + to_microseconds(" + raw + "::BIGINT))"
	case "TIME":
		return "(TIME '00:00:00' + to_microseconds(" + raw + "::BIGINT))"
	}
	return "make_timestamp(" + raw + "::BIGINT)"
}

// numberText is a number of a plan in digits; those of 128 bits come in halves.
func numberText(raw json.RawMessage) string {
	var huge struct {
		Upper *json.Number `json:"upper"`
		Lower *json.Number `json:"lower"`
	}
	if json.Unmarshal(raw, &huge) != nil || huge.Upper == nil || huge.Lower == nil {
		return string(raw)
	}
	upper, ok1 := new(big.Int).SetString(huge.Upper.String(), 10)
	lower, ok2 := new(big.Int).SetString(huge.Lower.String(), 10)
	if !ok1 || !ok2 {
		return string(raw)
	}
	return upper.Add(upper.Lsh(upper, 64), lower).String()
}

// decimalText writes a number with so many digits behind the point.
func decimalText(n *big.Int, scale int) string {
	if scale == 0 {
		return n.String()
	}
	text := new(big.Int).Abs(n).String()
	for len(text) <= scale {
		text = "0" + text
	}
	sign := ""
	if n.Sign() < 0 {
		sign = "-"
	}
	return sign + text[:len(text)-scale] + "." + text[len(text)-scale:]
}

// floatsOf returns the elements of a constant vector of floats.
func floatsOf(v *planValue) ([]float32, bool) {
	var values struct {
		Children []planValue `json:"children"`
	}
	if v == nil || v.IsNull || !slices.Contains([]string{"ARRAY", "LIST"}, v.Type.ID) || json.Unmarshal(v.Value, &values) != nil {
		return nil, false
	}
	out := make([]float32, len(values.Children))
	for i, c := range values.Children {
		x, err := strconv.ParseFloat(string(c.Value), 64)
		if c.IsNull || err != nil || float64(float32(x)) != x {
			return nil, false
		}
		out[i] = float32(x)
	}
	return out, true
}
