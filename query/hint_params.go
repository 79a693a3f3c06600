package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// withValues writes a statement with its parameters' values in their place, each cast to its type. DuckDB plans a
// parameter inside an expression only by its value. ok is false if a value cannot be written.
func (r run) withValues(sql string) (_ string, ok bool) {
	tokens, err := lex(sql)
	if err != nil || r.params == nil {
		return "", false
	}
	var b strings.Builder
	at := 0
	var seen []string // names that are no numbers, by their place
	for i, name := range parameterNames(tokens) {
		t := tokens[i]
		column := slices.Index(r.names, name)
		if n, err := strconv.Atoi(name); r.names == nil && err == nil {
			column = n - 1
		} else if r.names == nil {
			if !slices.Contains(seen, name) {
				seen = append(seen, name)
			}
			column = slices.Index(seen, name)
		}
		if column < 0 || column >= int(r.params.NumCols()) || int64(r.row) >= r.params.NumRows() {
			return "", false
		}
		text, ok := valueText(r.params.Column(column), r.row)
		if !ok {
			return "", false
		}
		b.WriteString(sql[at:t.start] + text)
		at = t.end
	}
	if at == 0 {
		return "", false
	}
	return b.String() + sql[at:], true
}

// valueText writes a value as SQL that has its type and is it to the bit: conditions on another value would leave rows
// out. ok is false for types and values of which that is not sure.
func valueText(column arrow.Array, row int) (text string, ok bool) {
	t, err := sqlTypeOf(arrow.Field{Type: column.DataType()})
	if err != nil || t.isOpaque() {
		return "", false
	}
	if column.IsNull(row) {
		return "CAST(NULL AS " + t.String() + ")", true
	}
	if list, isList := column.(array.ListLike); isList {
		if text, ok = listText(list, row); !ok {
			return "", false
		}
		return "CAST(" + quoteString(text) + " AS " + t.String() + ")", true
	}
	switch a := column.(type) {
	case *array.Boolean:
		text = strconv.FormatBool(a.Value(row))
	case *array.String:
		text = a.Value(row)
	case *array.LargeString:
		text = a.Value(row)
	case *array.Uint64:
		text = strconv.FormatUint(a.Value(row), 10)
	case *array.Decimal128:
		text = a.Value(row).ToString(a.DataType().(*arrow.Decimal128Type).Scale)
	case *array.Float32:
		text = strconv.FormatFloat(float64(a.Value(row)), 'g', -1, 32)
	case *array.Float64:
		text = strconv.FormatFloat(a.Value(row), 'g', -1, 64)
	case *array.Date32:
		text = a.Value(row).FormattedString()
	case *array.Timestamp:
		return timestampText(a, row)
	default:
		n, ok := integerAt(column, row)
		if !ok {
			return "", false
		}
		text = strconv.FormatInt(n, 10)
	}
	if strings.IndexByte(text, 0) >= 0 || !utf8.ValidString(text) {
		return "", false
	}
	return "CAST(" + quoteString(text) + " AS " + t.String() + ")", true
}

// listText writes a list of numbers as the text that casts to it; others are not written.
func listText(a array.ListLike, row int) (string, bool) {
	items := a.ListValues()
	switch items.DataType().ID() {
	case arrow.FLOAT32, arrow.FLOAT64, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.UINT8, arrow.UINT16, arrow.UINT32, arrow.UINT64:
	default:
		return "", false
	}
	var b strings.Builder
	from, to := a.ValueOffsets(row)
	for i := from; i < to; i++ {
		if i > from {
			b.WriteString(", ")
		}
		switch x := items.(type) {
		case *array.Float32:
			b.WriteString(numberOrNull(x, int(i), func() string { return strconv.FormatFloat(float64(x.Value(int(i))), 'g', -1, 32) }))
		case *array.Float64:
			b.WriteString(numberOrNull(x, int(i), func() string { return strconv.FormatFloat(x.Value(int(i)), 'g', -1, 64) }))
		default:
			b.WriteString(numberOrNull(x, int(i), func() string { return x.ValueStr(int(i)) }))
		}
	}
	return "[" + b.String() + "]", true
}

// numberOrNull writes one number of a list.
func numberOrNull(a arrow.Array, i int, text func() string) string {
	if a.IsNull(i) {
		return "NULL"
	}
	return text()
}

// timestampText is valueText for timestamps that are microseconds in SQL.
func timestampText(a *array.Timestamp, row int) (string, bool) {
	of := a.DataType().(*arrow.TimestampType)
	micros, exact := toMicros(int64(a.Value(row)), of.Unit)
	switch id := timestampID(of); {
	case exact && id == bind.TypeTimestampTZ:
		return fmt.Sprintf("(to_timestamp(0) + to_microseconds(%d))", micros), micros > -maxTextMicros && micros < maxTextMicros
	case exact && id == bind.TypeTimestamp:
		return fmt.Sprintf("make_timestamp(%d)", micros), micros > -maxTextMicros && micros < maxTextMicros
	}
	return "", false
}

// maxTextMicros bounds the timestamps that are written as SQL: some ten thousand years from 1970, in microseconds.
const maxTextMicros = 1 << 58
