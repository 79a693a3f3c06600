package query

import (
	"context"
	"io"
	"math"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// distanceField is the column of the distance, and distanceOfRow its number among those of a search.
var distanceField = arrow.Field{Name: distanceColumn, Type: arrow.PrimitiveTypes.Float32, Nullable: true}

const distanceOfRow = -100

// searchRows is how many of the rows that a search found come at a time: a vector of DuckDB's.
const searchRows = 2048

// A searchSource is a source whose rows can be searched for.
type searchSource interface {
	// search returns the rows that a call asks for, the nearest first: columns of the table, and distanceOfRow.
	search(call *searchCall, columns []int) morselReader
	// searchBatch is search for each of some queries, which it closes; queryOfRow may be among the columns.
	searchBatch(call *searchCall, columns []int, queries querySource) morselReader
}

// search implements searchSource.
func (s lsmSource) search(call *searchCall, columns []int) morselReader {
	return &searchMorsels{view: s.v, call: call, columns: columns}
}

// options are what lsm is asked for.
func (c *searchCall) options() lsm.VectorSearchOptions {
	return lsm.VectorSearchOptions{Column: c.column, Queries: c.query, K: int(c.k), Metric: c.metric, Only: c.only,
		NProbes: int(min(c.nprobs, math.MaxInt32)), Refine: int(min(c.refine, math.MaxInt32)), NoIndex: !c.useIndex}
}

// searchMorsels hands out what a search finds. It has one thread, as the rows come in an order.
type searchMorsels struct {
	view    *lsm.View
	call    *searchCall
	columns []int

	mu    sync.Mutex
	ran   bool
	found []lsm.Neighbor // what is left
}

// next implements morselReader.
func (m *searchMorsels) next(ctx context.Context) (morsel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ran {
		found, err := m.view.VectorSearch(ctx, m.call.options())
		if err != nil {
			return morsel{}, err
		}
		m.found, m.ran = found[0], true
	}
	if len(m.found) == 0 {
		return morsel{}, io.EOF
	}
	some := m.found[:min(searchRows, len(m.found))]
	m.found = m.found[len(some):]
	rec, err := takeFound(ctx, m.view, m.columns, some, nil)
	if err != nil {
		return morsel{}, err
	}
	return morsel{record: rec, release: rec.Release}, nil
}

// close implements morselReader.
func (m *searchMorsels) close() {}

// takeFound returns columns of rows that a search found, with their distances and queries where these are wanted.
func takeFound(ctx context.Context, v *lsm.View, columns []int, found []lsm.Neighbor, queries arrow.Array) (arrow.RecordBatch, error) {
	places := make([]uint64, len(found))
	var stored []int
	for i, n := range found {
		places[i] = uint64(n.Place)
	}
	for _, c := range columns {
		if c != distanceOfRow && c != queryOfRow {
			stored = append(stored, c)
		}
	}
	rec, err := v.Take(ctx, stored, places)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	cols, fields := make([]arrow.Array, len(columns)), make([]arrow.Field, len(columns))
	next := 0
	for i, c := range columns {
		if c == distanceOfRow {
			distances := distancesOf(found)
			defer distances.Release()
			cols[i], fields[i] = distances, distanceField
			continue
		}
		if c == queryOfRow {
			cols[i], fields[i] = queries, arrow.Field{Name: queryColumn, Type: queries.DataType(), Nullable: true}
			continue
		}
		cols[i], fields[i] = rec.Column(next), rec.Schema().Field(next)
		next++
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, int64(len(found))), nil
}

// distancesOf returns distances as a column outside the Go heap.
func distancesOf(found []lsm.Neighbor) arrow.Array {
	b := array.NewFloat32Builder(offheap.Default)
	defer b.Release()
	b.Reserve(len(found))
	for _, n := range found {
		b.UnsafeAppend(n.Distance)
	}
	return b.NewArray()
}
