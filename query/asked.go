package query

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// An extraColumn is a column of a table function behind those of the table: its field, and the number by which it is asked of a source.
type extraColumn struct {
	field  arrow.Field
	number int
}

// askedColumns are the columns that DuckDB asks of one execution of a table function.
type askedColumns struct {
	fields []arrow.Field
	// columns are their numbers, and places where they stand in DuckDB's chunks.
	columns, places []int
	// empty is the place of the dummy, -1 if it is not asked for.
	empty int
}

// asked returns what DuckDB asks of a function that has the dummy, the columns of a table, and some behind them.
func (x *execution) asked(info bind.InitInfo, schema *arrow.Schema, behind ...extraColumn) (a askedColumns, err error) {
	a.empty = -1
	stored := uint64(schema.NumFields())
	for i := range int(bind.InitGetColumnCount(info)) {
		c := uint64(bind.InitGetColumnIndex(info, bind.IdxT(i)))
		var next extraColumn
		switch {
		case c == 0 || c == math.MaxUint64: // or the row id, which DuckDB makes up and does not look at
			a.empty = i
			continue
		case c <= stored:
			next = extraColumn{schema.Field(int(c - 1)), int(c - 1)}
			if err := x.checkColumn(next.field); err != nil {
				return a, err
			}
		case c-stored <= uint64(len(behind)):
			next = behind[c-stored-1]
		default:
			return a, fmt.Errorf("DuckDB asks for column %d of %d", c, stored+uint64(len(behind)))
		}
		a.fields, a.columns, a.places = append(a.fields, next.field), append(a.columns, next.number), append(a.places, i)
	}
	return a, nil
}
