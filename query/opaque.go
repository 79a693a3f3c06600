package query

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
)

// opaqueError is what an expression over a column gets whose values are nothing but bytes to DuckDB.
func opaqueError(f arrow.Field) error {
	return errorf(InvalidArgument, "column %q: SQL has no type for Arrow's %s; it can be selected as it is, not computed with", f.Name, f.Type)
}

// explainOpaque adds to DuckDB's error about a text that names an opaque column why there is no function for it.
func explainOpaque(err error, tables map[string]tableInfo, p *parsed) error {
	e, ok := err.(*Error)
	if !ok || e.Code != InvalidArgument {
		return err
	}
	for _, t := range mentioned(tables, p) {
		for _, f := range t.arrow.Fields() {
			typ, bad := sqlTypeOf(f)
			if bad == nil && typ.isOpaque() && p.mentions(f.Name) {
				e.Message += fmt.Sprintf("\nThe column %q is Arrow's %s, for which SQL has no type: it is listed as %s, and can be selected as it is, not computed with", f.Name, f.Type, typ)
				return e
			}
		}
	}
	return e
}

// carries reports whether the plan, whose top has these columns, only hands opaque columns on. An expression over one is
// an error. False without an error means that there may be such an expression, because we do not know an operator:
// then the scan refuses the column.
func (o *origin) carries(n *planNode, columns []*arrow.Field) (bool, error) {
	if columns == nil {
		return false, nil
	}
	// Below the top, columns are followed once more for each operator, which is quadratic in the depth of the plan:
	// DuckDB bounds it.
	var sides [][]*arrow.Field
	for i := range n.Children {
		side := o.columns(&n.Children[i])
		if ok, err := o.carries(&n.Children[i], side); !ok || err != nil {
			return false, err
		}
		sides = append(sides, side)
	}
	if f := lostOpaque(n, columns, sides); f != nil {
		return false, opaqueError(*f)
	}
	for key, raw := range n.raw {
		var e any
		if key == "children" {
			continue
		} else if json.Unmarshal(raw, &e) != nil {
			return false, nil
		}
		f := opaqueUse(e, slices.Concat(sides...), handsOn(n, key))
		if key == "conditions" && len(sides) == 2 {
			f = opaqueCondition(e, sides)
		}
		if f != nil {
			return false, opaqueError(*f)
		}
	}
	return true, nil
}

// handsOn reports whether a list of an operator's expressions hands on what they refer to, looking at no more than
// whether two values are the same.
func handsOn(n *planNode, key string) bool {
	return key == "expressions" && n.Type == "LOGICAL_PROJECTION" || key == "groups" || key == "distinct_targets"
}

// lostOpaque returns an opaque column below an operator that mixes it with others, or of which we do not know where it
// goes.
func lostOpaque(n *planNode, columns []*arrow.Field, sides [][]*arrow.Field) *arrow.Field {
	switch n.Type {
	case "LOGICAL_UNION", "LOGICAL_EXCEPT", "LOGICAL_INTERSECT", "LOGICAL_RECURSIVE_CTE":
		for _, side := range sides {
			for i := range side {
				if f := opaqueIn(i, side); f != nil && opaqueIn(i, columns) == nil {
					return f
				}
			}
		}
	}
	return nil
}

// opaqueCondition is opaqueUse for the conditions of a join, each of which has an expression over its left side and one
// over its right side.
func opaqueCondition(e any, sides [][]*arrow.Field) *arrow.Field {
	list, _ := e.([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		for key, part := range m {
			over := slices.Concat(sides...)
			switch key {
			case "left":
				over = sides[0]
			case "right":
				over = sides[1]
			}
			if f := opaqueUse(part, over, false); f != nil {
				return f
			}
		}
	}
	return nil
}

// opaqueUse returns the first opaque column that an expression over columns refers to. A list of expressions that hand
// on what they refer to may do so itself, but not inside of others.
func opaqueUse(e any, columns []*arrow.Field, handsOn bool) *arrow.Field {
	switch e := e.(type) {
	case []any:
		for _, x := range e {
			if m, ok := x.(map[string]any); ok && handsOn && m["type"] == "BOUND_REF" {
				continue
			}
			if f := opaqueUse(x, columns, false); f != nil {
				return f
			}
		}
	case map[string]any:
		if index, ok := e["index"].(float64); ok && e["type"] == "BOUND_REF" {
			return opaqueIn(int(index), columns)
		}
		for _, x := range e {
			if f := opaqueUse(x, columns, false); f != nil {
				return f
			}
		}
	}
	return nil
}

// opaqueIn returns the opaque column at a place.
func opaqueIn(at int, columns []*arrow.Field) *arrow.Field {
	if at < 0 || at >= len(columns) || columns[at] == nil {
		return nil
	}
	if t, err := sqlTypeOf(*columns[at]); err != nil || !t.isOpaque() {
		return nil
	}
	return columns[at]
}
