package query

import (
	"encoding/json"

	"github.com/apache/arrow-go/v18/arrow"
)

// checkZones refuses AT TIME ZONE on a column timestamp[ns, zone]. The column is an instant, but SQL sees its wall
// clock in UTC, and would shift that the other way round: a wrong answer without an error.
func (o *origin) checkZones(n *planNode) error {
	switch n.Type {
	case "LOGICAL_PROJECTION", "LOGICAL_FILTER", "LOGICAL_AGGREGATE_AND_GROUP_BY", "LOGICAL_WINDOW":
		child := o.child(n, 0)
		for _, raw := range []json.RawMessage{n.Expressions, n.Groups} {
			var e any
			if json.Unmarshal(raw, &e) == nil && zoneMisuse(e, child) {
				return errorf(InvalidArgument, "AT TIME ZONE on a timestamp in nanoseconds with a zone, which SQL sees as its wall clock in UTC: write column::TIMESTAMPTZ AT TIME ZONE ...")
			}
		}
	}
	for i := range n.Children {
		if err := o.checkZones(&n.Children[i]); err != nil {
			return err
		}
	}
	return nil
}

// zoneMisuse looks for such a use anywhere inside an expression. Expressions have many forms, and all of them may
// hold others, so it walks the JSON as it is.
func zoneMisuse(e any, child []*arrow.Field) bool {
	switch e := e.(type) {
	case []any:
		for _, x := range e {
			if zoneMisuse(x, child) {
				return true
			}
		}
	case map[string]any:
		args, _ := e["children"].([]any)
		for i := 0; e["name"] == "timezone" && i < len(args); i++ {
			if t, ok := uncast(args[i], child).(*arrow.TimestampType); ok && t.Unit == arrow.Nanosecond && t.TimeZone != "" {
				return true
			}
		}
		for _, x := range e {
			if zoneMisuse(x, child) {
				return true
			}
		}
	}
	return false
}

// uncast returns the origin of an expression below casts to TIMESTAMP, which DuckDB adds by itself.
func uncast(e any, child []*arrow.Field) arrow.DataType {
	m, _ := e.(map[string]any)
	if to, _ := m["return_type"].(map[string]any); m["type"] == "OPERATOR_CAST" && to["id"] == "TIMESTAMP" {
		return uncast(m["child"], child)
	}
	index, _ := m["index"].(float64)
	if m["type"] != "BOUND_REF" || index < 0 || index >= float64(len(child)) || child[int(index)] == nil {
		return nil
	}
	return child[int(index)].Type
}
