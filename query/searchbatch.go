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

// batchQueries are the queries of a search by many: a column of a table or view, whose rows are told by another one.
type batchQueries struct {
	table     int64  // 0 for a view
	view      string // its name as SQL text, "" for a table
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
	return schema, b.queriesOf(a.call, a.conn, queries, vectors, id)
}

// queriesOf finds the table or view of the queries and its columns.
func (b *bridge) queriesOf(c *searchCall, conn uint64, table, vectors, id string) error {
	q := c.batch
	var schema *arrow.Schema
	var key []string
	if ref, ok := b.viewNamed(table); ok {
		q.view, q.tableName = ref.qualified(), ref.schema+"."+ref.name
		var err error
		if schema, err = b.viewColumns(conn, q.view); err != nil {
			return err
		}
	} else {
		t, err := b.named(batchMacro, table)
		if err != nil {
			return err
		}
		if q.table, q.tableName = t.id, t.schema+"."+t.name; isSystem(t.schema) {
			return errorf(InvalidArgument, "%s: table %s cannot give queries", batchMacro, q.tableName)
		}
		schema, key = t.arrow, t.key
	}
	return c.pickQueries(schema, key, vectors, id)
}

// pickQueries finds the columns of the queries among those of their table or view.
func (c *searchCall) pickQueries(schema *arrow.Schema, key []string, vectors, id string) error {
	q := c.batch
	find := func(name string) int {
		return slices.IndexFunc(schema.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) })
	}
	if q.column = find(vectors); q.column < 0 {
		return errorf(InvalidArgument, "%s: %s has no column %q, which was to have the query vectors", batchMacro, q.what(), vectors)
	}
	q.vectors = schema.Field(q.column)
	typ, err := sqlTypeOf(q.vectors)
	list, ok := q.vectors.Type.(arrow.ListLikeType)
	if err != nil || !ok || !isNumber(list.Elem()) {
		return errorf(InvalidArgument, "%s: column %q of %s is %s, and query vectors are lists or arrays of floats or integers", batchMacro, q.vectors.Name, q.what(), typ)
	}
	if fixed, ok := list.(*arrow.FixedSizeListType); ok && int(fixed.Len()) != q.dim {
		return errorf(InvalidArgument, "%s: the query vectors in column %q of %s have %d elements, those of column %q have %d",
			batchMacro, q.vectors.Name, q.what(), fixed.Len(), c.vectorsColumn, q.dim)
	}
	switch {
	case id == "" && len(key) == 1:
		id = key[0]
	case id == "":
		return errorf(InvalidArgument, "%s: %s has no key of one column that would tell its queries apart; say query_id := 'column'", batchMacro, q.what())
	}
	if q.idColumn = find(id); q.idColumn < 0 {
		return errorf(InvalidArgument, "%s: %s has no column %q, which query_id names", batchMacro, q.what(), id)
	}
	q.id = schema.Field(q.idColumn)
	if typ, err := sqlTypeOf(q.id); err != nil || typ.isOpaque() {
		return errorf(InvalidArgument, "%s: column %q of %s has a type that SQL cannot compare; let query_id name another one", batchMacro, q.id.Name, q.what())
	}
	return nil
}

// what names the table or view in messages.
func (q *batchQueries) what() string {
	if q.view != "" {
		return "view " + q.tableName
	}
	return "table " + q.tableName
}

// setViews makes the views of clients known.
func (b *bridge) setViews(views []viewInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.views)
	for _, v := range views {
		b.views[fold(v.schema, v.name)] = v
	}
}

// explainBatch returns what stands for a search by many queries in an EXPLAIN: the options of one of them, whatever its vector, and how many there are.
func (x *execution) explainBatch(c *searchCall) (lsm.VectorSearchOptions, string, error) {
	o := c.options()
	o.Queries = make([]float32, c.batch.dim)
	o.Queries[0] = 1
	if c.batch.view != "" {
		return o, fmt.Sprintf(", for each %s of view %s", c.batch.vectors.Name, c.batch.tableName), nil
	}
	src, err := x.source(c.batch.table)
	if err != nil {
		return o, "", err
	}
	return o, fmt.Sprintf(", for each %s of %s, %s", c.batch.vectors.Name, c.batch.tableName, count(int(src.rows()), "row")), nil
}

// searchBatch implements searchSource.
func (s lsmSource) searchBatch(call *searchCall, columns []int, queries querySource) morselReader {
	each := min(call.k, max(s.v.Rows(), 1))
	return &batchMorsels{table: s.v, call: call, columns: columns, block: int(max(min(batchFound/each, batchBlock), 1)),
		reader: queryReader{src: queries, call: call}}
}

// batchMorsels hands out what many queries find: for each its rows, the nearest first. It has one thread, as the rows come in an order.
type batchMorsels struct {
	table   *lsm.View
	call    *searchCall
	columns []int
	block   int // queries that are looked for at a time

	mu     sync.Mutex
	reader queryReader
	found  [][]lsm.Neighbor // what is left of a block
	places []uint64         // of the queries of found
}

// next implements morselReader.
func (m *batchMorsels) next(ctx context.Context) (morsel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.places) > 0 {
		m.reader.src.forget(m.places[0])
	}
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
		var err error
		if ids, err = m.reader.src.ids(ctx, of); err != nil {
			return morsel{}, err
		}
		defer ids.Release()
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
	ids, err := m.reader.src.ids(ctx, []uint64{place})
	if err != nil {
		return err
	}
	defer ids.Release()
	text := strings.TrimPrefix(why.Error(), lsm.ErrInvalid.Error()+": ")
	return errorf(InvalidArgument, "%s: in the row of %s with %s = %s: %s", batchMacro, m.call.batch.what(), m.call.batch.id.Name, ids.ValueStr(0), text)
}

// close implements morselReader.
func (m *batchMorsels) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reader.close()
}
