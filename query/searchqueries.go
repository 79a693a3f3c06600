package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// A querySource is where the queries of a batch come from. It belongs to one goroutine.
type querySource interface {
	// next returns some of the queries, io.EOF after the last: their vectors, and their places, by which they are called.
	next(ctx context.Context) (morsel, error)
	// ids returns what tells the queries at some places, in memory outside the Go heap.
	ids(ctx context.Context, places []uint64) (arrow.Array, error)
	// forget says that queries at places before one are not asked for any more.
	forget(before uint64)
	close()
}

// queriesFrom returns where the queries of a batch come from.
func (x *execution) queriesFrom(q *batchQueries) (querySource, error) {
	if q.view != "" {
		return &viewQueries{x: x, of: q}, nil
	}
	src, err := x.source(q.table)
	if err != nil {
		return nil, err
	}
	from, ok := src.(lsmSource)
	if !ok {
		return nil, errorf(InvalidArgument, "%s: %s cannot give queries", batchMacro, q.what())
	}
	return &tableQueries{from: from, of: q}, nil
}

// tableQueries are those of a table.
type tableQueries struct {
	from lsmSource
	of   *batchQueries
	rows morselReader // nil before the first
}

// next implements querySource.
func (q *tableQueries) next(ctx context.Context) (morsel, error) {
	if q.rows == nil {
		var err error
		if q.rows, err = q.from.scan(ctx, []int{q.of.column, lsm.RowPlace}, nil); err != nil {
			return morsel{}, err
		}
	}
	return q.rows.next(ctx)
}

// ids implements querySource.
func (q *tableQueries) ids(ctx context.Context, places []uint64) (arrow.Array, error) {
	rec, err := q.from.v.Take(ctx, []int{q.of.idColumn}, places)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	ids := rec.Column(0)
	ids.Retain()
	return ids, nil
}

// forget implements querySource.
func (q *tableQueries) forget(uint64) {}

// close implements querySource.
func (q *tableQueries) close() {
	if q.rows != nil {
		q.rows.close()
	}
}

// viewQueries are those of a view, which is a query of its own within the statement, over the same snapshot. A row's place is its number.
type viewQueries struct {
	x    *execution
	of   *batchQueries
	rows *Result // nil before the first
	read uint64  // rows so far
	kept []viewIDs
}

// viewIDs are the ids of the rows of a batch that came from a view.
type viewIDs struct {
	first uint64
	ids   arrow.Array
}

// next implements querySource.
func (q *viewQueries) next(ctx context.Context) (morsel, error) {
	if q.rows == nil {
		var err error
		sql := fmt.Sprintf("SELECT %s, %s FROM %s", quoteIdent(q.of.vectors.Name), quoteIdent(q.of.id.Name), q.of.view)
		if q.rows, err = q.x.within(sql); err != nil {
			return morsel{}, err
		}
	}
	rec, err := q.rows.Next(ctx)
	if err != nil {
		return morsel{}, err
	}
	defer rec.Release()
	if got := rec.Column(1).DataType(); !arrow.TypeEqual(got, q.of.id.Type) {
		return morsel{}, fmt.Errorf("column %q of %s is %s, and was to be %s", q.of.id.Name, q.of.what(), got, q.of.id.Type)
	}
	ids := rec.Column(1)
	ids.Retain()
	q.kept = append(q.kept, viewIDs{q.read, ids})
	places := array.NewUint64Builder(memory.DefaultAllocator)
	defer places.Release()
	for range rec.NumRows() {
		places.Append(q.read)
		q.read++
	}
	at := places.NewArray()
	defer at.Release()
	schema := arrow.NewSchema([]arrow.Field{rec.Schema().Field(0), placeField}, nil)
	out := array.NewRecordBatch(schema, []arrow.Array{rec.Column(0), at}, rec.NumRows())
	return morsel{record: out, release: out.Release}, nil
}

// ids implements querySource.
func (q *viewQueries) ids(_ context.Context, places []uint64) (arrow.Array, error) {
	rows := make([]arrow.Array, 0, len(places))
	defer func() {
		for _, r := range rows {
			r.Release()
		}
	}()
	for _, p := range places {
		i := len(q.kept) - 1
		for i >= 0 && q.kept[i].first > p {
			i--
		}
		if i < 0 || p-q.kept[i].first >= uint64(q.kept[i].ids.Len()) {
			return nil, fmt.Errorf("row %d of %s is not there any more", p, q.of.what())
		}
		at := int64(p - q.kept[i].first)
		rows = append(rows, array.NewSlice(q.kept[i].ids, at, at+1))
	}
	return array.Concatenate(rows, offheap.Default)
}

// forget implements querySource.
func (q *viewQueries) forget(before uint64) {
	for len(q.kept) > 0 && q.kept[0].first+uint64(q.kept[0].ids.Len()) <= before {
		q.kept[0].ids.Release()
		q.kept = q.kept[1:]
	}
}

// close implements querySource.
func (q *viewQueries) close() {
	q.forget(math.MaxUint64)
	if q.rows != nil {
		_ = q.rows.Close() // it never fails
	}
}

// viewNamed returns the view of a client that has a name.
func (b *bridge) viewNamed(name string) (viewInfo, bool) {
	parts, err := tableParts(name)
	if err != nil || len(parts) != 2 {
		return viewInfo{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.views[fold(parts[0], parts[1])]
	return v, ok
}

// maxNestedViews bounds how deep views of queries lie in each other. Those that go round would have no end.
const maxNestedViews = 8

// viewColumns returns the columns of a view as DuckDB has them. It is asked on a connection of its own, as that of the caller, whose number is
// given, is at work.
func (b *bridge) viewColumns(caller uint64, view string) (*arrow.Schema, error) {
	conn, err := b.in.connect()
	if err != nil {
		return nil, err
	}
	defer bind.Disconnect(&conn)
	id := connectionID(conn)
	b.mu.Lock()
	depth := b.nested[caller] + 1
	b.nested[id] = depth
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.nested, id)
	}()
	if depth > maxNestedViews {
		return nil, errorf(InvalidArgument, "%s: view %s takes its queries from itself, or through more than %d views", batchMacro, view, maxNestedViews)
	}
	ps, free, err := b.in.prepareOne(conn, "SELECT * FROM "+view)
	if err != nil {
		return nil, err
	}
	defer free()
	s, err := preparedSchema(conn, ps)
	if err == nil && s == nil {
		err = errorf(InvalidArgument, "%s: the columns of view %s are not known", batchMacro, view)
	}
	return s, err
}

// A queryReader reads query vectors.
type queryReader struct {
	src  querySource
	call *searchCall

	now morsel // what is being read, if it has a record
	at  int    // the next of its rows that count
}

// next returns up to so many query vectors, one after the other, and where their rows are; io.EOF when there are none left. Rows without a vector
// are passed over. A QueryError counts the places that come with it.
func (q *queryReader) next(ctx context.Context, most int) (vectors []float32, places []uint64, err error) {
	for len(places) < most {
		if q.now.record == nil {
			q.now, err = q.src.next(ctx)
			if q.at = 0; err != nil {
				q.now = morsel{}
				if errors.Is(err, io.EOF) && len(places) > 0 {
					return vectors, places, nil
				}
				return nil, nil, err
			}
		}
		if vectors, places, err = q.read(vectors, places, most); err != nil {
			return nil, places, err
		}
	}
	return vectors, places, nil
}

// read adds rows of the morsel at hand, which it lets go of when all were read. A row that is no query is a QueryError of the last place.
func (q *queryReader) read(vectors []float32, places []uint64, most int) ([]float32, []uint64, error) {
	rec := q.now.record
	rows := int(rec.NumRows())
	if q.now.live != nil {
		rows = len(q.now.live)
	}
	lists, ok := rec.Column(0).(array.ListLike)
	at, ok2 := rec.Column(1).(*array.Uint64)
	if !ok || !ok2 {
		return vectors, places, fmt.Errorf("query vectors are %s, and places %s", rec.Column(0).DataType(), rec.Column(1).DataType())
	}
	items, value := lists.ListValues(), numbersOf(lists.ListValues())
	bad := func(format string, args ...any) error {
		return &lsm.QueryError{Query: len(places) - 1, Err: fmt.Errorf(format, args...)}
	}
	for ; q.at < rows && len(places) < most; q.at++ {
		row := q.at
		if q.now.live != nil {
			row = int(q.now.live[q.at])
		}
		if lists.IsNull(row) {
			continue
		}
		places = append(places, at.Value(row))
		from, to := lists.ValueOffsets(row)
		if int(to-from) != q.call.batch.dim {
			return vectors, places, bad("the query vector has %d elements, those of column %q have %d", to-from, q.call.vectorsColumn, q.call.batch.dim)
		}
		for i := int(from); i < int(to); i++ {
			if items.IsNull(i) {
				return vectors, places, bad("element %d of the query vector is NULL", i-int(from)+1)
			}
			vectors = append(vectors, value(i))
		}
	}
	if q.at == rows {
		q.now.release()
		q.now = morsel{}
	}
	return vectors, places, nil
}

// close lets go of what is being read.
func (q *queryReader) close() {
	if q.now.record != nil {
		q.now.release()
		q.now = morsel{}
	}
	q.src.close()
}

// isNumber says whether elements of a type can be those of a query.
func isNumber(t arrow.DataType) bool {
	return arrow.IsFloating(t.ID()) || arrow.IsInteger(t.ID())
}

// numbersOf reads an array of numbers, rounded to float32 as queries are.
func numbersOf(a arrow.Array) func(int) float32 {
	switch x := a.(type) {
	case *array.Float16:
		return func(i int) float32 { return x.Value(i).Float32() }
	case *array.Float32:
		return numbersIn(x.Float32Values())
	case *array.Float64:
		return numbersIn(x.Float64Values())
	case *array.Int8:
		return numbersIn(x.Int8Values())
	case *array.Int16:
		return numbersIn(x.Int16Values())
	case *array.Int32:
		return numbersIn(x.Int32Values())
	case *array.Int64:
		return numbersIn(x.Int64Values())
	case *array.Uint8:
		return numbersIn(x.Uint8Values())
	case *array.Uint16:
		return numbersIn(x.Uint16Values())
	case *array.Uint32:
		return numbersIn(x.Uint32Values())
	case *array.Uint64:
		return numbersIn(x.Uint64Values())
	}
	return nil // the bind has refused others
}

// numbersIn reads numbers of one type.
func numbersIn[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32 | uint64 | float32 | float64](values []T) func(int) float32 {
	return func(i int) float32 { return float32(values[i]) }
}
