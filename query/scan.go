package query

/*
#include <stdlib.h>
#include "scan.h"

void flightdScanBind(void *info);
void flightdScanInit(void *info);
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/cgo"
	"runtime/debug"
	"slices"
	"sync"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/cdata"
	bind "github.com/duckdb/duckdb-go-bindings"

	"github.com/flightd/flightd/lsm"
)

// scanFunction is the name of our table function. Views call it with the id of their table.
const scanFunction = "flightd_scan"

// A source is one table at one moment, as the bridge reads it.
type source interface {
	// rows is an upper bound of the rows that a scan returns.
	rows() int64
	// scan starts reading the columns with these places in the table's schema, lsm.RowAddress among them; none means
	// that only rows count. Rows that keys, which may be nil, does not have are not needed.
	scan(ctx context.Context, columns []int, keys *scanFilter) (morselReader, error)
	// explain tells how a scan that is asked for keys finds its rows.
	explain(ctx context.Context, keys *scanFilter) (string, error)
}

// A tableSource is a source that can be read in parts.
type tableSource interface {
	source
	// reads is an upper bound of the rows that a scan that is asked for keys reads.
	reads(ctx context.Context, keys *scanFilter) (int64, error)
	// piece returns a part of the rows with some keys, from 0: together the parts have each row once. Scans of it are
	// asked for no others.
	piece(part, parts int, keys *scanFilter) tableSource
}

// A morselReader hands out the morsels of a scan. next is called by several threads at once, each morsel goes to
// one of them; after the last one next returns io.EOF. close is called when no thread reads any more.
type morselReader interface {
	next(ctx context.Context) (morsel, error)
	close()
}

// A morsel is a record batch whose buffers lie outside the Go heap, because C keeps pointers into them. live holds
// the ascending numbers of the rows that count, nil means all. The receiver calls release.
type morsel struct {
	record  arrow.RecordBatch
	live    []uint32
	release func()
}

// An execution is what the scans of one running statement read from. Scans find it by their connection, which is
// all that DuckDB tells a table function about who calls it.
type execution struct {
	ctx    context.Context
	source func(table int64) (source, error)
	// within runs a query of ours over the same snapshot, on a connection of its own, with DuckDB's own types.
	within func(sql string) (*Result, error)
	// carries says that no expression of the statement looks into opaque columns, which are bytes to DuckDB.
	carries bool
	own     arrow.RecordBatch // what the table ownRows has
	// progress hears of what the scans have read.
	progress *Progress

	mu   sync.Mutex
	err  error
	used map[int64]struct{} // the tables that source was asked for
	// binds are the tables of the statement's binds since it was last bound from its beginning. newBinding says that
	// the next bind is the first of another.
	binds      []int64
	newBinding bool
	hints      *hints
	filters    map[int]*scanFilter // by the number of the bind
	searches   map[int]*searchCall // by the number of the bind
	// only are the rows among which the searches look that have conditions before them, nil for all, and tops those of scans of which the
	// first in the order of a distance are wanted; by the number of the bind.
	only map[int]*lsm.Places
	tops map[int][]lsm.Neighbor
}

// beginBinding says that the next bind, if any comes, is the first of the statement.
func (x *execution) beginBinding() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.newBinding = true
}

// addBind notes a bind and returns its number.
func (x *execution) addBind(table int64) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.newBinding {
		x.binds, x.newBinding, x.searches = nil, false, nil
	}
	x.binds = append(x.binds, table)
	return len(x.binds) - 1
}

// bound returns the binds so far.
func (x *execution) bound() []int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.binds)
}

// setFilters says what the scans are asked for. REQUIRES: none has started.
func (x *execution) setFilters(h *hints, filters map[int]*scanFilter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.hints, x.filters = h, filters
}

// filter returns the keys that a bind's scan is asked for, nil for all. Hints are those of another way to bind the
// statement if that had other binds.
func (x *execution) filter(number int) *scanFilter {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.hints == nil || !slices.Equal(x.hints.binds, x.binds) {
		return nil
	}
	return x.filters[number]
}

// setPicked says which rows searches choose from, and which scans return. REQUIRES: none has started.
func (x *execution) setPicked(only map[int]*lsm.Places, tops map[int][]lsm.Neighbor) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.only, x.tops = only, tops
}

// topOf returns the rows that are all that a bind's scan returns, nil for all rows.
func (x *execution) topOf(number int) []lsm.Neighbor {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.hints == nil || !slices.Equal(x.hints.binds, x.binds) {
		return nil
	}
	return x.tops[number]
}

// onlyOf returns the rows among which the search of a bind looks, nil for all. known is false when the conditions before it could not be read.
func (x *execution) onlyOf(number int) (only *lsm.Places, known bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.hints == nil || !slices.Equal(x.hints.binds, x.binds) {
		return nil, false
	}
	only, known = x.only[number]
	return only, known
}

// use remembers that the statement reads a table.
func (x *execution) use(table int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.used == nil {
		x.used = map[int64]struct{}{}
	}
	x.used[table] = struct{}{}
}

// uses returns the tables that the statement reads.
func (x *execution) uses() []int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Collect(maps.Keys(x.used))
}

// fail keeps the first error of a scan, so that the caller gets it as it was and not as DuckDB's text.
func (x *execution) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.err == nil {
		x.err = err
	}
}

// checkColumn refuses a column that SQL cannot read.
func (x *execution) checkColumn(f arrow.Field) error {
	t, err := sqlTypeOf(f)
	if err != nil {
		return errorf(InvalidArgument, "column %q: %v", f.Name, err)
	}
	if t.isOpaque() && !x.carries {
		return opaqueError(f)
	}
	return nil
}

// cause returns the first error of a scan.
func (x *execution) cause() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// A bridge connects one DuckDB instance with the sources. It is known to C by a handle, in memory of C.
type bridge struct {
	// conn lends its settings to the conversion from Arrow. It never runs a query, so any thread may use it.
	conn    bind.Connection
	threads int
	handle  *C.uintptr_t
	in      *instance // whose it is

	mu      sync.Mutex
	schemas map[int64]*arrow.Schema
	tables  map[string]*tableInfo // by folded name, for searches
	views   map[string]viewInfo   // those of clients, by folded name
	nested  map[uint64]int        // how deep in views of queries connections lie, by their numbers
	running map[uint64]*execution
	// described are the connections whose statements are bound only to find out their columns.
	described map[uint64]bool
}

// newBridge registers the table function in the database of conn, which the bridge keeps and closes.
func newBridge(conn bind.Connection, threads int) (*bridge, error) {
	b := &bridge{conn: conn, threads: threads, schemas: map[int64]*arrow.Schema{}, tables: map[string]*tableInfo{}, views: map[string]viewInfo{}, nested: map[uint64]int{},
		running: map[uint64]*execution{}, described: map[uint64]bool{}}
	b.handle = (*C.uintptr_t)(C.malloc(C.sizeof_uintptr_t))
	*b.handle = C.uintptr_t(cgo.NewHandle(b))

	f := bind.CreateTableFunction()
	defer bind.DestroyTableFunction(&f)
	bigint := bind.CreateLogicalType(bind.TypeBigInt)
	defer bind.DestroyLogicalType(&bigint)
	bind.TableFunctionSetName(f, scanFunction)
	bind.TableFunctionAddParameter(f, bigint)
	bind.TableFunctionSetExtraInfo(f, unsafe.Pointer(b.handle), nil)
	bind.TableFunctionSetBind(f, C.flightdScanBind)
	bind.TableFunctionSetInit(f, C.flightdScanInit)
	bind.TableFunctionSetLocalInit(f, C.fd_scan_local)
	bind.TableFunctionSetFunction(f, C.fd_scan_next)
	bind.TableFunctionSupportsProjectionPushdown(f, true)
	if bind.RegisterTableFunction(conn, f) == bind.StateError {
		b.free()
		return nil, errors.New("register the table function " + scanFunction)
	}
	if err := b.registerSearch(conn); err != nil {
		b.free()
		return nil, err
	}
	return b, nil
}

// free forgets the handle. REQUIRES: the database is closed, so that no callback comes any more.
func (b *bridge) free() {
	cgo.Handle(*b.handle).Delete()
	C.free(unsafe.Pointer(b.handle))
}

// setTable makes the table known to views that name its id; a nil schema forgets it.
func (b *bridge) setTable(id int64, schema *arrow.Schema) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if schema == nil {
		delete(b.schemas, id)
		return
	}
	b.schemas[id] = schema
}

// showTable makes the table known to searches that name it, too.
func (b *bridge) showTable(t tableInfo) {
	b.setTable(t.id, t.arrow)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tables[fold(t.schema, t.name)] = &t
}

// hideTable is the inverse of showTable.
func (b *bridge) hideTable(t tableInfo) {
	b.setTable(t.id, nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := b.tables[fold(t.schema, t.name)]; now != nil && now.id == t.id {
		delete(b.tables, fold(t.schema, t.name))
	}
}

// start makes x the execution of the connection; a nil x ends it.
func (b *bridge) start(conn uint64, x *execution) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x == nil {
		delete(b.running, conn)
		return
	}
	b.running[conn] = x
}

// lookup returns the schema of the table and the execution of the connection, nil if it has none.
func (b *bridge) lookup(table int64, conn uint64) (*arrow.Schema, *execution, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.running[conn]
	if table == ownRows && x != nil && x.own != nil {
		return x.own.Schema(), x, nil
	}
	schema := b.schemas[table]
	if schema == nil {
		return nil, nil, errTableChanged
	}
	return schema, x, nil
}

// connectionID returns the number by which table functions know the connection.
func connectionID(conn bind.Connection) uint64 {
	var c bind.ClientContext
	bind.ConnectionGetClientContext(conn, &c)
	defer bind.DestroyClientContext(&c)
	return uint64(bind.ClientContextGetConnectionId(c))
}

// bind tells DuckDB the columns of the table and how many rows to expect.
func (b *bridge) bind(info bind.BindInfo) error {
	v := bind.BindGetParameter(info, 0)
	defer bind.DestroyValue(&v)
	// DuckDB throws a C++ exception, which would end the process, when a number is asked of a NULL.
	if bind.IsNullValue(v) {
		return errTableChanged
	}
	table := bind.GetInt64(v)
	var c bind.ClientContext
	bind.TableFunctionGetClientContext(info, &c)
	conn := uint64(bind.ClientContextGetConnectionId(c))
	bind.DestroyClientContext(&c)

	schema, x, err := b.lookup(table, conn)
	if err != nil {
		return err
	}
	number, first := -1, emptyColumn
	if x != nil {
		number = x.addBind(table)
		first = fmt.Sprint(emptyColumn, " ", number)
	} else if table > pastBase {
		first = fmt.Sprint(emptyColumn, pastMark, table)
	}
	addColumn(info, first, sqlType{id: bind.TypeBoolean})
	for _, f := range schema.Fields() {
		t, err := sqlTypeOf(f)
		if err != nil {
			t = sqlType{id: bind.TypeBlob}
		}
		addColumn(info, f.Name, t)
	}
	addColumn(info, addressColumn, sqlType{id: bind.TypeUBigInt})
	addColumn(info, placeColumn, sqlType{id: bind.TypeUBigInt})
	if x != nil {
		src, err := x.source(table)
		if err != nil {
			x.fail(err)
			return err
		}
		// The count bounds the rows from above; the optimiser may take it for exact only if it is.
		bind.BindSetCardinality(info, bind.IdxT(max(src.rows(), 0)), false)
	}
	data := C.fd_bind_new(C.int64_t(table), C.uint64_t(conn), C.int64_t(number))
	bind.BindSetBindData(info, unsafe.Pointer(data), C.free)
	return nil
}

// emptyColumn is the function's first column, before those of the table. Views leave it out. DuckDB reads the first
// column of a function when it needs none, as for count(*); this one costs nothing. In a statement that runs its name
// has the number of the bind behind it, by which a scan is found in the statement's plan.
const emptyColumn = "flightd_empty"

// pastMark stands in the name of the first column, outside of a statement that runs, before the number of a scan of an older
// version of a table, so that the shadow's plans tell which one that is.
const pastMark = " at "

// addressColumn is the function's last column but one, behind those of the table, which views leave out, too: where in the base
// a row lies. Only statements that change tables without a key read it.
const addressColumn = "_rowid"

// addressField is the column as a source gives it.
var addressField = arrow.Field{Name: addressColumn, Type: arrow.PrimitiveTypes.Uint64}

// placeField is that of the place.
var placeField = arrow.Field{Name: placeColumn, Type: arrow.PrimitiveTypes.Uint64}

// addColumn adds a column to the function's result.
func addColumn(info bind.BindInfo, name string, t sqlType) {
	l := t.logical()
	defer bind.DestroyLogicalType(&l)
	bind.BindAddResultColumn(info, name, l)
}

// init starts the scan of one execution of one scan node.
func (b *bridge) init(info bind.InitInfo) error {
	data := (*C.fd_bind)(bind.InitGetBindData(info))
	schema, x, err := b.lookup(int64(data.table), uint64(data.conn))
	if err != nil {
		return err
	}
	if x == nil {
		return errors.New("a scan was started outside of a statement")
	}
	if err := b.startScan(info, int64(data.table), schema, x, int(data.number)); err != nil {
		x.fail(err)
		return err
	}
	return nil
}

// startScan opens the source's scan and hands its state to DuckDB, which frees it.
func (b *bridge) startScan(info bind.InitInfo, table int64, schema *arrow.Schema, x *execution, number int) error {
	keys := x.filter(number)
	asked, err := x.asked(info, schema, extraColumn{addressField, lsm.RowAddress}, extraColumn{placeField, lsm.RowPlace})
	if err != nil {
		return err
	}
	src, err := x.source(table)
	if err != nil {
		return err
	}
	x.progress.total.Add(src.rows())
	sc := &scan{x: x, fields: asked.fields}
	var morsels morselReader
	if found := x.topOf(number); found != nil {
		morsels = &searchMorsels{view: src.(lsmSource).v, columns: asked.columns, ran: true, found: found}
	} else {
		morsels, err = src.scan(x.ctx, asked.columns, keys)
	}
	if err != nil {
		return err
	}
	sc.morsels = sc.open(morsels)
	return b.handOver(info, sc, asked, b.threads)
}

// convertedSchema tells DuckDB how to read arrays of the field.
func convertedSchema(conn bind.Connection, f arrow.Field) (unsafe.Pointer, error) {
	s := (*C.struct_ArrowSchema)(C.calloc(1, C.sizeof_struct_ArrowSchema))
	defer C.free(unsafe.Pointer(s))
	one := arrow.NewSchema([]arrow.Field{scanField(f)}, nil)
	cdata.ExportArrowSchema(one, (*cdata.CArrowSchema)(unsafe.Pointer(s)))
	defer C.fd_release_schema(s)
	var out unsafe.Pointer
	if err := takeErrorData(C.duckdb_schema_from_arrow(conn.Ptr, s, &out)); err != nil {
		return nil, fmt.Errorf("column %q of type %s: %w", f.Name, f.Type, err)
	}
	return out, nil
}

// takeErrorData turns DuckDB's error object into an error and destroys it.
func takeErrorData(data unsafe.Pointer) error {
	if data == nil {
		return nil
	}
	defer C.duckdb_destroy_error_data(&data)
	if !C.duckdb_error_data_has_error(data) {
		return nil
	}
	return errors.New(C.GoString(C.duckdb_error_data_message(data)))
}

// A scan is the Go side of one running scan. C holds its handle.
type scan struct {
	x       *execution
	morsels morselReader
	fields  []arrow.Field
}

// open returns the reader of a scan's morsels, in pieces of a vector each if there are structs of structs among its
// columns: DuckDB finds their values only in arrays that begin with their first row.
func (sc *scan) open(m morselReader) morselReader {
	if slices.ContainsFunc(sc.fields, func(f arrow.Field) bool { return hasStructOfStruct(f.Type) }) {
		return &pieces{whole: m, rows: int64(bind.VectorSize())}
	}
	return m
}

// next returns the next morsel in memory of C, nil after the last one.
func (sc *scan) next() (*C.fd_morsel, error) {
	m, err := sc.morsels.next(sc.x.ctx)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer m.release()
	read := m.record.NumRows()
	if m.live != nil {
		read = int64(len(m.live))
	}
	sc.x.progress.done.Add(read)
	return sc.export(m)
}

// export copies what C needs to know of the morsel. The exported columns retain their buffers.
func (sc *scan) export(m morsel) (*C.fd_morsel, error) {
	rows := m.record.NumRows()
	if int(m.record.NumCols()) != len(sc.fields) {
		return nil, fmt.Errorf("a morsel has %d columns, the scan asked for %d", m.record.NumCols(), len(sc.fields))
	}
	nlive := -1
	if m.live != nil {
		nlive = len(m.live)
	}
	cm := C.fd_morsel_new(C.int64_t(rows), C.int(len(sc.fields)), C.int64_t(nlive))
	if err := sc.exportInto(cm, m); err != nil {
		C.fd_morsel_unref(cm)
		return nil, err
	}
	return cm, nil
}

// exportInto fills columns and live rows. A row number out of order or out of range would make DuckDB read beyond
// a buffer, so it is checked here.
func (sc *scan) exportInto(cm *C.fd_morsel, m morsel) error {
	last := int64(-1)
	for _, r := range m.live {
		if int64(r) <= last || int64(r) >= m.record.NumRows() {
			return fmt.Errorf("a morsel of %d rows lists row %d as live after row %d", m.record.NumRows(), r, last)
		}
		last = int64(r)
	}
	if len(m.live) > 0 {
		copy(unsafe.Slice((*uint32)(cm.live), len(m.live)), m.live)
	}
	cols := unsafe.Slice(cm.cols, max(len(sc.fields), 1))
	for i, f := range sc.fields {
		col := m.record.Column(i)
		if !arrow.TypeEqual(col.DataType(), f.Type) {
			return fmt.Errorf("column %q of a morsel is %s, the table has %s", f.Name, col.DataType(), f.Type)
		}
		arr := scanArray(col)
		cdata.ExportArrowArray(arr, (*cdata.CArrowArray)(unsafe.Pointer(&cols[i])), nil)
		arr.Release()
	}
	return nil
}

// guard runs a callback's body. Neither a panic nor its unwinding may reach DuckDB's frames.
func guard(body func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a scan: %v\n%s", p, debug.Stack())
		}
	}()
	return body()
}

// bridgeOf finds the bridge by the memory that newBridge registered.
func bridgeOf(p unsafe.Pointer) *bridge {
	return cgo.Handle(*(*C.uintptr_t)(p)).Value().(*bridge)
}

//export flightdScanBind
func flightdScanBind(info unsafe.Pointer) {
	i := bind.BindInfo{Ptr: info}
	if err := guard(func() error { return bridgeOf(bind.BindGetExtraInfo(i)).bind(i) }); err != nil {
		bind.BindSetError(i, err.Error())
	}
}

//export flightdScanInit
func flightdScanInit(info unsafe.Pointer) {
	i := bind.InitInfo{Ptr: info}
	if err := guard(func() error { return bridgeOf(bind.InitGetExtraInfo(i)).init(i) }); err != nil {
		bind.InitSetError(i, err.Error())
	}
}

//export flightdScanNext
func flightdScanNext(handle C.uintptr_t, message **C.char) *C.fd_morsel {
	var m *C.fd_morsel
	sc := cgo.Handle(handle).Value().(*scan)
	err := guard(func() (err error) {
		m, err = sc.next()
		return err
	})
	if err != nil {
		sc.x.fail(err)
		*message = C.CString(err.Error())
		return nil
	}
	return m
}

//export flightdScanClose
func flightdScanClose(handle C.uintptr_t) {
	h := cgo.Handle(handle)
	sc := h.Value().(*scan)
	h.Delete()
	// A panic here has nobody to tell: DuckDB is tearing the scan down.
	_ = guard(func() error { sc.morsels.close(); return nil })
}

// morselsAlive counts the morsels that C holds, in all scans of the process. Tests look for leaks with it.
func morselsAlive() int64 { return int64(C.fd_morsels_alive()) }
