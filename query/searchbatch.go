package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

const (
	// batchMacro is the name by which statements search by many queries at once, and batchFunction our table function behind it.
	batchMacro    = searchMacro + "_batch"
	batchFunction = searchFunction + "_batch"
	// queryColumn says which query found a row. It is the last column of the function, and the first of the macro.
	queryColumn = "_query"
)

// createBatch is the DDL of the macro.
const createBatch = `CREATE OR REPLACE MACRO ` + batchMacro + `(table_name, column_name, queries, query_column, query_id := NULL, k := 10, nprobs := NULL, ` +
	`refine_factor := NULL, use_index := true, metric_type := NULL) AS TABLE ` +
	`SELECT ` + queryColumn + `, COLUMNS(c -> NOT starts_with(c, '` + emptyColumn + ` ') AND c <> '` + queryColumn + `') FROM ` + batchFunction +
	`(table_name, column_name, queries, query_column, query_id := query_id, k := k, nprobs := nprobs, refine_factor := refine_factor, ` +
	`use_index := use_index, metric_type := metric_type)`

// queryOfRow is the number of queryColumn among the columns of a search.
const queryOfRow = -101

const (
	// batchBlock is how many queries are looked for at a time, which is what an exact search reads the rows once for.
	batchBlock = 256
	// batchFound bounds the rows that these find together, 16 bytes each: fewer queries are looked for when k is large.
	batchFound = 1 << 20
)

// batchQueries are the queries of a search by many: a column of a table, whose rows are told by another one.
type batchQueries struct {
	table     int64
	tableName string
	column    int         // the vectors
	vectors   arrow.Field // that column
	idColumn  int
	id        arrow.Field // that column
	dim       int         // of the vectors that are searched
}

// many reads all arguments of a search by many queries, and returns the columns of its table.
func (a *searchArguments) many(b *bridge) (*arrow.Schema, error) {
	table, column := a.text(0, "the table's name"), a.text(1, "the column's name")
	queries, vectors := a.text(2, "the name of the table of queries"), a.text(3, "the name of the queries' column")
	id := ""
	a.named("query_id", func(v bind.Value) { id = bind.GetVarchar(v) })
	a.options()
	if a.err != nil {
		return nil, a.err
	}
	schema, dim, err := b.searched(a.call, table, column)
	if err != nil {
		return nil, err
	}
	a.call.batch.dim = dim
	return schema, b.queriesOf(a.call, queries, vectors, id)
}

// queriesOf finds the table of the queries and its columns.
func (b *bridge) queriesOf(c *searchCall, table, vectors, id string) error {
	if b.isView(table) {
		return errorf(Unimplemented, "%s: the queries come from a view, %q, and have to be in a table; make one with CREATE TABLE … AS FROM %s", batchMacro, table, table)
	}
	t, err := b.named(batchMacro, table)
	if err != nil {
		return err
	}
	q := c.batch
	q.table, q.tableName = t.id, t.schema+"."+t.name
	if isSystem(t.schema) {
		return errorf(InvalidArgument, "%s: table %s cannot give queries", batchMacro, q.tableName)
	}
	find := func(name string) int {
		return slices.IndexFunc(t.arrow.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
	}
	if q.column = find(vectors); q.column < 0 {
		return errorf(InvalidArgument, "%s: table %s has no column %q, which was to have the query vectors", batchMacro, q.tableName, vectors)
	}
	q.vectors = t.arrow.Field(q.column)
	typ, err := sqlTypeOf(q.vectors)
	list, ok := q.vectors.Type.(arrow.ListLikeType)
	if err != nil || !ok || !isNumber(list.Elem()) {
		return errorf(InvalidArgument, "%s: column %q of table %s is %s, and query vectors are lists or arrays of floats or integers", batchMacro, q.vectors.Name, q.tableName, typ)
	}
	if fixed, ok := list.(*arrow.FixedSizeListType); ok && int(fixed.Len()) != q.dim {
		return errorf(InvalidArgument, "%s: the query vectors in column %q of table %s have %d elements, those of column %q have %d",
			batchMacro, q.vectors.Name, q.tableName, fixed.Len(), c.vectorsColumn, q.dim)
	}
	switch {
	case id == "" && len(t.key) == 1:
		id = t.key[0]
	case id == "":
		return errorf(InvalidArgument, "%s: table %s has no key of one column that would tell its queries apart; say query_id := 'column'", batchMacro, q.tableName)
	}
	if q.idColumn = find(id); q.idColumn < 0 {
		return errorf(InvalidArgument, "%s: table %s has no column %q, which query_id names", batchMacro, q.tableName, id)
	}
	q.id = t.arrow.Field(q.idColumn)
	if typ, err := sqlTypeOf(q.id); err != nil || typ.isOpaque() {
		return errorf(InvalidArgument, "%s: column %q of table %s has a type that SQL cannot compare; let query_id name another one", batchMacro, q.id.Name, q.tableName)
	}
	return nil
}

// isView says whether a name is that of a client's view.
func (b *bridge) isView(name string) bool {
	parts, err := tableParts(name)
	if err != nil || len(parts) != 2 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.views[fold(parts[0], parts[1])]
}

// setViews makes the views of clients known.
func (b *bridge) setViews(views []viewInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.views)
	for _, v := range views {
		b.views[fold(v.schema, v.name)] = true
	}
}

// explainBatch returns what stands for a search by many queries in an EXPLAIN: the options of one of them, whatever its vector, and how many there are.
func (x *execution) explainBatch(c *searchCall) (lsm.VectorSearchOptions, string, error) {
	o := c.options()
	o.Queries = make([]float32, c.batch.dim)
	o.Queries[0] = 1
	src, err := x.source(c.batch.table)
	if err != nil {
		return o, "", err
	}
	return o, fmt.Sprintf(", for each %s of %s, %s", c.batch.vectors.Name, c.batch.tableName, count(int(src.rows()), "row")), nil
}

// searchBatch implements searchSource.
func (s lsmSource) searchBatch(call *searchCall, columns []int, queries lsmSource) morselReader {
	each := min(call.k, max(s.v.Rows(), 1))
	return &batchMorsels{table: s.v, call: call, columns: columns, block: int(max(min(batchFound/each, batchBlock), 1)),
		queries: queries.v, reader: queryReader{src: queries, call: call}}
}

// batchMorsels hands out what many queries find: for each its rows, the nearest first. It has one thread, as the rows come in an order.
type batchMorsels struct {
	table, queries *lsm.View
	call           *searchCall
	columns        []int
	block          int // queries that are looked for at a time

	mu     sync.Mutex
	reader queryReader
	found  [][]lsm.Neighbor // what is left of a block
	places []uint64         // of the queries of found
}

// next implements morselReader.
func (m *batchMorsels) next(ctx context.Context) (morsel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var some []lsm.Neighbor
	var of []uint64
	for len(some) < searchRows {
		if len(m.found) == 0 {
			err := m.search(ctx)
			if errors.Is(err, io.EOF) && len(some) > 0 {
				break
			}
			if err != nil {
				return morsel{}, err
			}
			continue
		}
		n := min(searchRows-len(some), len(m.found[0]))
		some = append(some, m.found[0][:n]...)
		of = append(of, slices.Repeat(m.places[:1], n)...)
		if m.found[0] = m.found[0][n:]; len(m.found[0]) == 0 {
			m.found, m.places = m.found[1:], m.places[1:]
		}
	}
	var ids arrow.Array
	if slices.Contains(m.columns, queryOfRow) {
		rec, err := m.queries.Take(ctx, []int{m.call.batch.idColumn}, of)
		if err != nil {
			return morsel{}, err
		}
		defer rec.Release()
		ids = rec.Column(0)
	}
	rec, err := takeFound(ctx, m.table, m.columns, some, ids)
	if err != nil {
		return morsel{}, err
	}
	return morsel{record: rec, release: rec.Release}, nil
}

// search looks for the next block of queries.
func (m *batchMorsels) search(ctx context.Context) error {
	vectors, places, err := m.reader.next(ctx, m.block)
	var bad *lsm.QueryError
	if errors.As(err, &bad) {
		return m.blame(ctx, places[bad.Query], bad.Err)
	}
	if err != nil {
		return err
	}
	o := m.call.options()
	o.Queries = vectors
	found, err := m.table.VectorSearch(ctx, o)
	if errors.As(err, &bad) {
		return m.blame(ctx, places[bad.Query], bad.Err)
	}
	if err != nil {
		return err
	}
	m.found, m.places = found, places
	return nil
}

// blame says which query is not one that can be looked for.
func (m *batchMorsels) blame(ctx context.Context, place uint64, why error) error {
	rec, err := m.queries.Take(ctx, []int{m.call.batch.idColumn}, []uint64{place})
	if err != nil {
		return err
	}
	defer rec.Release()
	text := strings.TrimPrefix(why.Error(), lsm.ErrInvalid.Error()+": ")
	return errorf(InvalidArgument, "%s: in the row of table %s with %s = %s: %s", batchMacro, m.call.batch.tableName, m.call.batch.id.Name, rec.Column(0).ValueStr(0), text)
}

// close implements morselReader.
func (m *batchMorsels) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reader.close()
}

// A queryReader reads the query vectors of a table.
type queryReader struct {
	src  lsmSource
	call *searchCall

	rows morselReader // nil before the first block
	now  morsel       // what is being read, if it has a record
	at   int          // the next of its rows that count
}

// next returns up to so many query vectors, one after the other, and where their rows are; io.EOF when there are none left. Rows without a vector
// are passed over. A QueryError counts the places that come with it.
func (q *queryReader) next(ctx context.Context, most int) (vectors []float32, places []uint64, err error) {
	if q.rows == nil {
		if q.rows, err = q.src.scan(ctx, []int{q.call.batch.column, lsm.RowPlace}, nil); err != nil {
			return nil, nil, err
		}
	}
	for len(places) < most {
		if q.now.record == nil {
			q.now, err = q.rows.next(ctx)
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
	if q.rows != nil {
		q.rows.close()
	}
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
