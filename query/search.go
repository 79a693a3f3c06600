package query

/*
#include <stdlib.h>
#include "scan.h"

void flightdSearchBind(void *info);
void flightdBatchBind(void *info);
void flightdSearchInit(void *info);
*/
import "C"

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"runtime/cgo"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

const (
	// searchMacro is the name by which statements search. It stands in front of searchFunction, whose first column, the dummy by
	// which a scan is found in a plan, it leaves out.
	searchMacro = "lance_vector_search"
	// searchFunction is our table function.
	searchFunction = "flightd_vector_search"
	// distanceColumn is the last column of a search.
	distanceColumn = "_distance"
)

// createSearch is the DDL of the macro. A vector may come as any list of numbers.
const createSearch = `CREATE OR REPLACE MACRO ` + searchMacro + `(table_name, column_name, query, k := 10, nprobs := NULL, refine_factor := NULL, ` +
	`prefilter := false, use_index := true, metric_type := NULL, explain_verbose := NULL) AS TABLE ` +
	`SELECT COLUMNS(c -> NOT starts_with(c, '` + emptyColumn + ` ')) FROM ` + searchFunction + `(table_name, column_name, CAST(query AS FLOAT[]), ` +
	`k := k, nprobs := nprobs, refine_factor := refine_factor, prefilter := prefilter, use_index := use_index, metric_type := metric_type)`

// A searchCall is what one bind of the search function asks for.
type searchCall struct {
	table         int64
	column        int
	query         []float32
	batch         *batchQueries // nil for a search by one query
	k             int64
	nprobs        int64 // 0 for the default
	refine        int64 // 0 for the default
	prefilter     bool
	useIndex      bool
	metric        *lsm.Metric // nil for that of the column
	only          *lsm.Places // the rows that fulfil the conditions, nil for all
	tableName     string
	vectorsColumn string
}

// function is the name by which the statement calls.
func (c *searchCall) function() string {
	if c.batch != nil {
		return batchMacro
	}
	return searchMacro
}

// registerSearch registers the functions that search.
func (b *bridge) registerSearch(conn bind.Connection) error {
	varchar, bigint, boolean := bind.CreateLogicalType(bind.TypeVarchar), bind.CreateLogicalType(bind.TypeBigInt), bind.CreateLogicalType(bind.TypeBoolean)
	float := bind.CreateLogicalType(bind.TypeFloat)
	floats := bind.CreateListType(float)
	defer func() {
		for _, t := range []bind.LogicalType{varchar, bigint, boolean, float, floats} {
			bind.DestroyLogicalType(&t)
		}
	}()
	named := map[string]bind.LogicalType{"k": bigint, "nprobs": bigint, "refine_factor": bigint, "use_index": boolean, "metric_type": varchar}
	one, batch := maps.Clone(named), maps.Clone(named)
	one["prefilter"], batch["query_id"] = boolean, varchar
	if err := b.registerTable(conn, searchFunction, []bind.LogicalType{varchar, varchar, floats}, one, C.flightdSearchBind); err != nil {
		return err
	}
	return b.registerTable(conn, batchFunction, []bind.LogicalType{varchar, varchar, varchar, varchar}, batch, C.flightdBatchBind)
}

// registerTable registers one of them.
func (b *bridge) registerTable(conn bind.Connection, name string, arguments []bind.LogicalType, named map[string]bind.LogicalType, onBind unsafe.Pointer) error {
	f := bind.CreateTableFunction()
	defer bind.DestroyTableFunction(&f)
	bind.TableFunctionSetName(f, name)
	for _, t := range arguments {
		bind.TableFunctionAddParameter(f, t)
	}
	for option, t := range named {
		bind.TableFunctionAddNamedParameter(f, option, t)
	}
	bind.TableFunctionSetExtraInfo(f, unsafe.Pointer(b.handle), nil)
	bind.TableFunctionSetBind(f, onBind)
	bind.TableFunctionSetInit(f, C.flightdSearchInit)
	bind.TableFunctionSetLocalInit(f, C.fd_scan_local)
	bind.TableFunctionSetFunction(f, C.fd_scan_next)
	bind.TableFunctionSupportsProjectionPushdown(f, true)
	if bind.RegisterTableFunction(conn, f) == bind.StateError {
		return errors.New("register the table function " + name)
	}
	return nil
}

// searchArguments reads the arguments of a bind. DuckDB throws when a number is asked of a NULL, so that is looked for first.
type searchArguments struct {
	info bind.BindInfo
	conn uint64      // the number of the connection that binds
	call *searchCall // what was read
	open bool        // NULL stands for what is not known yet
	err  error
}

// fail keeps the first error.
func (a *searchArguments) fail(format string, args ...any) {
	if a.err == nil {
		a.err = errorf(InvalidArgument, a.call.function()+": "+format, args...)
	}
}

// text returns a text that has to be there.
func (a *searchArguments) text(i int, what string) string {
	v := bind.BindGetParameter(a.info, bind.IdxT(i))
	defer bind.DestroyValue(&v)
	if bind.IsNullValue(v) {
		a.fail("%s is NULL", what)
		return ""
	}
	return bind.GetVarchar(v)
}

// named calls read with an option that was given, and is not NULL.
func (a *searchArguments) named(name string, read func(bind.Value)) {
	v := bind.BindGetNamedParameter(a.info, name)
	if v.Ptr == nil {
		return
	}
	defer bind.DestroyValue(&v)
	if !bind.IsNullValue(v) {
		read(v)
	}
}

// positive returns a number above 0, otherwise if it was not given.
func (a *searchArguments) positive(name string, otherwise int64) int64 {
	n := otherwise
	a.named(name, func(v bind.Value) {
		if n = bind.GetInt64(v); n <= 0 {
			a.fail("%s is %d, and has to be above 0", name, n)
		}
	})
	return n
}

// flag returns a truth value, otherwise if it was not given.
func (a *searchArguments) flag(name string, otherwise bool) bool {
	yes := otherwise
	a.named(name, func(v bind.Value) { yes = bind.GetBool(v) })
	return yes
}

// vector returns the query.
func (a *searchArguments) vector(i int) []float32 {
	v := bind.BindGetParameter(a.info, bind.IdxT(i))
	defer bind.DestroyValue(&v)
	if bind.IsNullValue(v) {
		if !a.open {
			a.fail("the query vector is NULL")
		}
		return nil
	}
	out := make([]float32, int(bind.GetListSize(v)))
	for j := range out {
		x := bind.GetListChild(v, bind.IdxT(j))
		if bind.IsNullValue(x) {
			a.fail("element %d of the query vector is NULL", j+1)
		} else if out[j] = bind.GetFloat(x); math.IsNaN(float64(out[j])) || math.IsInf(float64(out[j]), 0) {
			a.fail("element %d of the query vector is %v, and all have to be finite", j+1, out[j])
		}
		bind.DestroyValue(&x)
	}
	return out
}

// options reads what all searches may be told.
func (a *searchArguments) options() {
	c := a.call
	c.useIndex = a.flag("use_index", true)
	c.k, c.nprobs, c.refine = a.positive("k", 0), a.positive("nprobs", 0), a.positive("refine_factor", 0)
	if c.k == 0 && !a.open {
		a.fail("k is NULL, and has to be above 0")
	}
	a.named("metric_type", func(v bind.Value) {
		m, err := lsm.ParseMetric(bind.GetVarchar(v))
		if err != nil {
			a.fail("metric_type: %v", err)
		}
		c.metric = &m
	})
}

// one reads all arguments of a search by one query, and returns the columns of its table.
func (a *searchArguments) one(b *bridge) (*arrow.Schema, error) {
	table, column := a.text(0, "the table's name"), a.text(1, "the column's name")
	c := a.call
	c.query, c.prefilter = a.vector(2), a.flag("prefilter", false)
	a.options()
	if a.err != nil {
		return nil, a.err
	}
	schema, dim, err := b.searched(c, table, column)
	if err == nil && len(c.query) != dim && !(a.open && c.query == nil) {
		err = errorf(InvalidArgument, "%s: the query vector has %d elements, those of column %q have %d", searchMacro, len(c.query), c.vectorsColumn, dim)
	}
	return schema, err
}

// searched finds the table and the column of a search, and the dimension of its vectors.
func (b *bridge) searched(c *searchCall, table, column string) (*arrow.Schema, int, error) {
	t, err := b.named(c.function(), table)
	if err != nil {
		return nil, 0, err
	}
	c.table, c.tableName = t.id, t.schema+"."+t.name
	c.column = slices.IndexFunc(t.arrow.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, column) })
	if isSystem(t.schema) {
		return nil, 0, errorf(InvalidArgument, "%s: table %s cannot be searched", c.function(), c.tableName)
	}
	var vectors []string
	for _, f := range t.arrow.Fields() {
		if lsm.VectorDim(f) > 0 {
			vectors = append(vectors, quoteIdent(f.Name))
		}
		if strings.EqualFold(f.Name, distanceColumn) || c.batch != nil && strings.EqualFold(f.Name, queryColumn) {
			return nil, 0, errorf(InvalidArgument, "%s: table %s has a column %s of its own; rename it", c.function(), c.tableName, f.Name)
		}
	}
	has := "the table has no column of vectors (FLOAT[n])"
	if len(vectors) > 0 {
		has = "columns with vectors are " + strings.Join(vectors, ", ")
	}
	if c.column < 0 {
		return nil, 0, errorf(InvalidArgument, "%s: table %s has no column %q; %s", c.function(), c.tableName, column, has)
	}
	f := t.arrow.Field(c.column)
	c.vectorsColumn = f.Name
	dim := lsm.VectorDim(f)
	if dim == 0 {
		typ, _ := sqlTypeOf(f)
		what := "not a vector"
		if list, ok := f.Type.(arrow.ListLikeType); ok && arrow.IsFloating(list.Elem().ID()) {
			what = "lists of any length, and no vectors, which a column of " + typ.String()[:strings.LastIndexByte(typ.String(), '[')] + "[n] has; a cast makes one of the other"
		}
		return nil, 0, errorf(InvalidArgument, "%s: column %q of table %s is %s, %s; %s", c.function(), f.Name, c.tableName, typ, what, has)
	}
	return t.arrow, dim, nil
}

// tableParts cuts the name of a table as SQL writes it, [[catalog.]schema.]name, quoted where it has to be, into schema and name.
func tableParts(name string) ([]string, error) {
	parts, err := nameParts(name)
	if err != nil {
		return nil, err
	}
	if len(parts) == 3 && strings.EqualFold(parts[0], catalogName) {
		parts = parts[1:]
	}
	if len(parts) == 1 {
		parts = []string{lsm.MainSchema, parts[0]}
	}
	return parts, nil
}

// named returns the table with a name.
func (b *bridge) named(function, name string) (*tableInfo, error) {
	parts, err := tableParts(name)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(parts) == 2 {
		if t := b.tables[fold(parts[0], parts[1])]; t != nil {
			return t, nil
		}
		if _, ok := b.views[fold(parts[0], parts[1])]; ok {
			return nil, errorf(InvalidArgument, "%s: %q is a view, and only tables are searched; search the table that it reads, and put its conditions in WHERE, with prefilter := true", function, name)
		}
	}
	var names []string
	for _, t := range b.tables {
		if !isSystem(t.schema) {
			names = append(names, t.name)
		}
	}
	message := fmt.Sprintf("%s: table %q does not exist", function, name)
	if near := nearestName(parts[len(parts)-1], names); near != "" {
		message += "; did you mean " + strconv.Quote(near) + "?"
	}
	return nil, &Error{Code: NotFound, Message: message}
}

// nameParts splits a name at its dots.
func nameParts(name string) ([]string, error) {
	tokens, err := lex(name)
	if err != nil {
		return nil, err
	}
	var parts []string
	for i, t := range tokens {
		if i%2 == 0 && t.ident() {
			parts = append(parts, t.name)
		} else if i%2 == 0 || !t.is(".") {
			return []string{name}, nil // as it stands
		}
	}
	if len(tokens)%2 == 0 {
		return []string{name}, nil
	}
	return parts, nil
}

// bindSearch tells DuckDB the columns of a search: the dummy, those of the table, the distance, and that of the query in a batch.
func (b *bridge) bindSearch(info bind.BindInfo, batch bool) error {
	var cc bind.ClientContext
	bind.TableFunctionGetClientContext(info, &cc)
	conn := uint64(bind.ClientContextGetConnectionId(cc))
	bind.DestroyClientContext(&cc)
	b.mu.Lock()
	x := b.running[conn]
	b.mu.Unlock()
	call := &searchCall{}
	args := &searchArguments{info: info, conn: conn, call: call, open: x == nil && b.describes(conn)}
	read := args.one
	if batch {
		call.batch, read = &batchQueries{}, args.many
	}
	schema, err := read(b)
	if err != nil {
		if x != nil {
			x.fail(err)
		}
		return err
	}
	// A plan of the shadow tells by the name of the dummy which table it is, one of a statement that runs which bind.
	number, first := -1, fmt.Sprint(emptyColumn, " table ", call.table)
	if x != nil {
		number = x.addSearch(call)
		first = fmt.Sprint(emptyColumn, " ", number)
	}
	addColumn(info, first, sqlType{id: bind.TypeBoolean})
	for _, f := range schema.Fields() {
		t, err := sqlTypeOf(f)
		if err != nil {
			t = sqlType{id: bind.TypeBlob}
		}
		addColumn(info, f.Name, t)
	}
	addColumn(info, distanceColumn, sqlType{id: bind.TypeFloat})
	if batch {
		t, _ := sqlTypeOf(call.batch.id) // many has looked at it
		addColumn(info, queryColumn, t)
	}
	rows, err := x.rowsFound(call)
	if err != nil {
		x.fail(err)
		return err
	}
	bind.BindSetCardinality(info, bind.IdxT(min(rows, math.MaxInt32)), false)
	data := C.fd_bind_new(C.int64_t(call.table), C.uint64_t(conn), C.int64_t(number))
	bind.BindSetBindData(info, unsafe.Pointer(data), C.free)
	return nil
}

// viewRows is how many queries a view is thought to have: as many as make a batch worth while.
const viewRows = 10_000

// rowsFound returns about how much a search finds. It is at the bind that a statement says which tables it reads. There is no statement
// in the shadow, where x is nil.
func (x *execution) rowsFound(call *searchCall) (int64, error) {
	if x == nil {
		return call.k, nil
	}
	src, err := x.source(call.table)
	if err != nil {
		return 0, err
	}
	rows := min(call.k, max(src.rows(), 0))
	if call.batch == nil {
		return rows, nil
	}
	if call.batch.view != "" { // nobody knows before it runs
		return min(rows, math.MaxInt32) * viewRows, nil
	}
	queries, err := x.source(call.batch.table)
	if err != nil {
		return 0, err
	}
	return min(rows, math.MaxInt32) * min(max(queries.rows(), 0), math.MaxInt32), nil
}

// searchedTable returns the id of the table that a scan of the shadow's plan searches, 0 if it is no search.
func searchedTable(function string, names []string) int64 {
	if function != searchFunction && function != batchFunction || len(names) == 0 {
		return 0
	}
	id, _ := strconv.ParseInt(strings.TrimPrefix(names[0], emptyColumn+" table "), 10, 64)
	return id
}

// addSearch notes a bind of the search function and returns its number.
func (x *execution) addSearch(call *searchCall) int {
	number := x.addBind(call.table)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.searches == nil {
		x.searches = map[int]*searchCall{}
	}
	x.searches[number] = call
	return number
}

// boundSearches returns the searches of the binds so far.
func (x *execution) boundSearches() map[int]*searchCall {
	x.mu.Lock()
	defer x.mu.Unlock()
	return maps.Clone(x.searches)
}

// readsViews reports whether a search takes its queries from a view, which names tables of its own.
func (x *execution) readsViews() bool {
	for _, c := range x.boundSearches() {
		if c.batch != nil && c.batch.view != "" {
			return true
		}
	}
	return false
}

// searchOf returns what a bind of the search function asks for, nil if it is none.
func (x *execution) searchOf(number int) *searchCall {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.searches[number]
}

// initSearch starts one execution of a search. Nothing is looked for before the first row is asked for.
func (b *bridge) initSearch(info bind.InitInfo) error {
	data := (*C.fd_bind)(bind.InitGetBindData(info))
	schema, x, err := b.lookup(int64(data.table), uint64(data.conn))
	if err != nil {
		return err
	}
	if x == nil {
		return errors.New("a search was started outside of a statement")
	}
	call := x.searchOf(int(data.number))
	if call == nil {
		return errTableChanged
	}
	if call.prefilter {
		one, known := *call, false
		if one.only, known = x.onlyOf(int(data.number)); !known {
			err := errorf(Unimplemented, "%s: prefilter is not for this statement, whose plan does not tell the conditions on the rows; say prefilter := false, or filter in a subquery over the table", searchMacro)
			x.fail(err)
			return err
		}
		call = &one
	}
	if err := b.startSearch(info, schema, x, call); err != nil {
		x.fail(err)
		return err
	}
	return nil
}

// startSearch hands the state of a search to DuckDB, which frees it.
func (b *bridge) startSearch(info bind.InitInfo, schema *arrow.Schema, x *execution, call *searchCall) error {
	behind := []extraColumn{{distanceField, distanceOfRow}}
	if call.batch != nil {
		behind = append(behind, extraColumn{call.batch.id, queryOfRow})
	}
	asked, err := x.asked(info, schema, behind...)
	if err != nil {
		return err
	}
	sc := &scan{x: x, fields: asked.fields}
	found, err := x.searchReader(call, asked.columns)
	if err != nil {
		return err
	}
	sc.morsels = sc.open(found)
	return b.handOver(info, sc, asked, 1)
}

// searchReader returns what reads the rows that a call asks for.
func (x *execution) searchReader(call *searchCall, columns []int) (morselReader, error) {
	src, err := x.source(call.table)
	if err != nil {
		return nil, err
	}
	among, ok := src.(searchSource)
	if !ok {
		return nil, errorf(InvalidArgument, "%s: table %s cannot be searched", call.function(), call.tableName)
	}
	if call.batch == nil {
		return among.search(call, columns), nil
	}
	queries, err := x.queriesFrom(call.batch)
	if err != nil {
		return nil, err
	}
	return among.searchBatch(call, columns, queries), nil
}

// handOver gives DuckDB a scan of the columns that it asks for.
func (b *bridge) handOver(info bind.InitInfo, sc *scan, asked askedColumns, threads int) (err error) {
	cs := C.fd_scan_new(C.uintptr_t(cgo.NewHandle(sc)), b.conn.Ptr, C.int(len(asked.places)))
	cs.empty = C.int64_t(asked.empty)
	out := unsafe.Slice(cs.out, max(len(asked.places), 1))
	schemas := unsafe.Slice(cs.schemas, max(len(asked.places), 1))
	for i, f := range sc.fields {
		out[i] = C.uint64_t(asked.places[i])
		if schemas[i], err = convertedSchema(b.conn, f); err != nil {
			C.fd_scan_free(unsafe.Pointer(cs))
			return err
		}
	}
	bind.InitSetInitData(info, unsafe.Pointer(cs), C.fd_scan_free)
	bind.InitSetMaxThreads(info, bind.IdxT(threads))
	return nil
}

//export flightdSearchBind
func flightdSearchBind(info unsafe.Pointer) {
	i := bind.BindInfo{Ptr: info}
	if err := guard(func() error { return bridgeOf(bind.BindGetExtraInfo(i)).bindSearch(i, false) }); err != nil {
		bind.BindSetError(i, err.Error())
	}
}

//export flightdBatchBind
func flightdBatchBind(info unsafe.Pointer) {
	i := bind.BindInfo{Ptr: info}
	if err := guard(func() error { return bridgeOf(bind.BindGetExtraInfo(i)).bindSearch(i, true) }); err != nil {
		bind.BindSetError(i, err.Error())
	}
}

//export flightdSearchInit
func flightdSearchInit(info unsafe.Pointer) {
	i := bind.InitInfo{Ptr: info}
	if err := guard(func() error { return bridgeOf(bind.InitGetExtraInfo(i)).initSearch(i) }); err != nil {
		bind.InitSetError(i, err.Error())
	}
}
