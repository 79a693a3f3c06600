package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// SystemSchema is the schema of the tables that tell about the server. They are read as any others, and nobody writes them.
const SystemSchema = "flightd_catalog"

// systemTable is one of them: its columns, and its rows as of a moment. A row has a value for each column: string, int64,
// float64, bool, time.Time, []string, or nil for null.
type systemTable struct {
	name    string
	columns []arrow.Field
	rows    func(*systemState) [][]any
}

// systemState is what the rows of all system tables are made of.
type systemState struct {
	now time.Time
	// count returns how many rows a table has in the statement's snapshot, and whether it could tell.
	count    func(schema, name string) (int64, bool)
	engine   lsm.Stats
	queries  []queryStats
	sessions []SessionStats
	streams  []StreamStats
	memory   []memoryPart
	history  []tableHistory // nil before a table asked for it
}

// memoryPart is a budget and what is used of it, in bytes.
type memoryPart struct {
	name        string
	used, limit int64
}

// instantType is the type of columns with moments.
var instantType = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}

// fields makes columns of pairs of names and types.
func fields(pairs ...any) []arrow.Field {
	out := make([]arrow.Field, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, arrow.Field{Name: pairs[i].(string), Type: pairs[i+1].(arrow.DataType), Nullable: true})
	}
	return out
}

// Types of columns, short for the lists below.
var (
	textType  = arrow.BinaryTypes.String
	longType  = arrow.PrimitiveTypes.Int64
	realType  = arrow.PrimitiveTypes.Float64
	truthType = arrow.FixedWidthTypes.Boolean
	namesType = arrow.ListOf(arrow.BinaryTypes.String)
)

// systemTables are all system tables. docs/sql.md tells what their columns mean.
var systemTables = []systemTable{
	{"generations", fields("table_schema", textType, "table_name", textType, "shard", longType, "generation", longType, "rows", longType, "live_rows", longType,
		"bytes", longType, "folder", textType), (*systemState).generationRows},
	{"indexes", fields("table_schema", textType, "table_name", textType, "index_name", textType, "index_type", textType, "columns", namesType,
		"rows_indexed", longType, "rows_unindexed", longType, "segments", longType, "bytes", longType, "memory_bytes", longType,
		"maintained", truthType, "foreign", truthType, "metric_type", textType, "num_partitions", longType), (*systemState).indexRows},
	{"memory", fields("part", textType, "used_bytes", longType, "limit_bytes", longType), (*systemState).memoryRows},
	{"queries", fields("query_id", longType, "session_id", longType, "kind", textType, "state", textType, "sql", textType, "started_at", instantType,
		"elapsed_seconds", realType, "progress", realType, "rows", longType), (*systemState).queryRows},
	{"sessions", fields("session_id", longType, "kind", textType, "client", textType, "current_schema", textType, "started_at", instantType, "idle_seconds", realType,
		"calls", longType, "prepared_statements", longType), (*systemState).sessionRows},
	{"shards", fields("table_schema", textType, "table_name", textType, "shard", longType, "shard_id", textType, "memtables", longType, "frozen_memtables", longType,
		"memtable_rows", longType, "memtable_bytes", longType, "generations", longType, "generation_rows", longType, "generation_bytes", longType), (*systemState).shardRows},
	{"stalls", fields("cause", textType, "waiting", longType, "count", longType, "waited_seconds", realType), (*systemState).stallRows},
	{"streams", fields("stream_id", longType, "session_id", longType, "table_schema", textType, "table_name", textType, "kind", textType, "started_at", instantType,
		"batches", longType, "rows", longType, "bytes", longType, "acked_batches", longType, "acked_rows", longType, "waiting_for", textType), (*systemState).streamRows},
	{"tables", fields("table_schema", textType, "table_name", textType, "incarnation", longType, "key_columns", namesType, "durability", textType, "index_mode", textType, "maintain", namesType, "shards", longType,
		"rows", longType, "memtable_rows", longType, "memtable_bytes", longType, "generations", longType, "generation_rows", longType, "generation_bytes", longType,
		"base_version", longType, "base_fragments", longType, "base_rows", longType, "base_bytes", longType), (*systemState).tableRows},
	{"tags", fields("table_schema", textType, "table_name", textType, "name", textType, "kind", textType, "version", longType), (*systemState).tagRows},
	{"versions", fields("table_schema", textType, "table_name", textType, "version", longType, "created_at", instantType, "operation", textType, "writer", textType,
		"rows", longType, "fragments", longType, "bytes", longType, "columns", namesType, "tags", namesType), (*systemState).versionRows},
}

// systemInfos are the system tables as the catalogs know tables.
var systemInfos = func() []tableInfo {
	var out []tableInfo
	for _, t := range systemTables {
		out = append(out, tableInfo{schema: SystemSchema, name: t.name, arrow: arrow.NewSchema(t.columns, nil)})
	}
	return out
}()

// SystemTables returns the names of the system tables with their columns.
func SystemTables() map[string]*arrow.Schema {
	out := make(map[string]*arrow.Schema, len(systemInfos))
	for _, t := range systemInfos {
		out[t.name] = t.arrow
	}
	return out
}

// isSystem says whether a schema is that of the system tables.
func isSystem(schema string) bool { return strings.EqualFold(schema, SystemSchema) }

// writable refuses the namesType of system tables in statements that change a table.
func (r tableRef) writable() error {
	if isSystem(r.schema) {
		return errorf(PermissionDenied, "%s.%s cannot be changed: the tables of schema %s tell about the server, and are only read", SystemSchema, r.name, SystemSchema)
	}
	return nil
}

// tableRows are those of flightd_catalog.tables.
func (s *systemState) tableRows() (out [][]any) {
	for _, t := range s.engine.Tables {
		var memtables, memtableBytes, generations, generationRows, generationBytes int64
		for _, sh := range t.Shards {
			memtables += sh.MemtableRows
			memtableBytes += sh.MemtableBytes
			n, rows, bytes := sum(sh.Generations)
			generations, generationRows, generationBytes = generations+n, generationRows+rows, generationBytes+bytes
		}
		d := t.Definition
		rows, ok := s.count(schemaOf(d.Name), d.Name.Name)
		if !ok { // it was made since, or cannot be read; whoever reads it hears why
			rows = t.Rows
		}
		out = append(out, []any{schemaOf(d.Name), d.Name.Name, int64(t.Incarnation), d.Key, string(t.Durability), string(t.IndexMode), maintained(d.Maintain), int64(len(t.Shards)), rows,
			memtables, memtableBytes, generations, generationRows, generationBytes,
			int64(t.BaseVersion), int64(t.BaseFragments), t.BaseRows, t.BaseBytes})
	}
	return out
}

// maintained is the value of a column for a list of which nil is null.
func maintained(names []string) any {
	if names == nil {
		return nil
	}
	return names
}

// sum adds generations up.
func sum(list []lsm.GenerationStats) (n, rows, bytes int64) {
	for _, g := range list {
		rows += g.Rows
		bytes += g.Bytes
	}
	return int64(len(list)), rows, bytes
}

// shardRows are those of flightd_catalog.shards.
func (s *systemState) shardRows() (out [][]any) {
	for _, t := range s.engine.Tables {
		for i, sh := range t.Shards {
			n, rows, bytes := sum(sh.Generations)
			out = append(out, []any{schemaOf(t.Definition.Name), t.Definition.Name.Name, int64(i), sh.ID, int64(sh.Memtables), int64(sh.FrozenMemtables),
				sh.MemtableRows, sh.MemtableBytes, n, rows, bytes})
		}
	}
	return out
}

// generationRows are those of flightd_catalog.generations.
func (s *systemState) generationRows() (out [][]any) {
	for _, t := range s.engine.Tables {
		for i, sh := range t.Shards {
			for _, g := range sh.Generations {
				out = append(out, []any{schemaOf(t.Definition.Name), t.Definition.Name.Name, int64(i), int64(g.Number), g.Rows, g.LiveRows, g.Bytes, g.Folder})
			}
		}
	}
	return out
}

// indexRows are those of flightd_catalog.indexes.
func (s *systemState) indexRows() (out [][]any) {
	for _, t := range s.engine.Tables {
		for _, x := range t.Indexes {
			row := []any{schemaOf(t.Definition.Name), t.Definition.Name.Name, x.Name, string(x.Kind), x.Columns,
				x.Covered, x.Uncovered, int64(x.Segments), x.Bytes, x.MemoryBytes, x.Maintained, x.Foreign, nil, nil}
			if v := x.Vectors; v != nil {
				row[12], row[13] = v.Metric, int64(v.Partitions)
			}
			out = append(out, row)
		}
	}
	return out
}

// stallRows are those of flightd_catalog.stalls.
func (s *systemState) stallRows() (out [][]any) {
	for _, x := range s.engine.Stalls {
		out = append(out, []any{string(x.Cause), x.Waiting, x.Count, x.Waited.Seconds()})
	}
	return out
}

// memoryRows are those of flightd_catalog.memory.
func (s *systemState) memoryRows() (out [][]any) {
	for _, p := range s.memory {
		row := []any{p.name, p.used, nil}
		if p.limit > 0 {
			row[2] = p.limit
		}
		out = append(out, row)
	}
	return out
}

// queryRows are those of flightd_catalog.queries.
func (s *systemState) queryRows() (out [][]any) {
	for _, q := range s.queries {
		out = append(out, []any{q.id, number(q.session), q.kind, q.state, q.sql, q.started, s.now.Sub(q.started).Seconds(), q.progress, q.rows})
	}
	return out
}

// sessionRows are those of flightd_catalog.sessions.
func (s *systemState) sessionRows() (out [][]any) {
	for _, x := range s.sessions {
		row := []any{x.ID, x.Kind, x.Client, x.Schema, x.Started, nil, x.Calls, x.Prepared}
		if x.Calls == 0 {
			row[5] = s.now.Sub(x.LastCall).Seconds()
		}
		out = append(out, row)
	}
	return out
}

// streamRows are those of flightd_catalog.streams.
func (s *systemState) streamRows() (out [][]any) {
	for _, x := range s.streams {
		out = append(out, []any{x.ID, number(x.Session), schemaOf(x.Table), x.Table.Name, x.Kind, x.Started, x.Batches, x.Rows, x.Bytes,
			x.AckedBatches, x.AckedRows, x.WaitingFor})
	}
	return out
}

// number is the value of a column for an id of which 0 is none.
func number(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

// schemaOf returns the schema of a table's name.
func schemaOf(n lsm.TableName) string {
	if n.Schema == "" {
		return lsm.MainSchema
	}
	return n.Schema
}

// record makes the rows of a system table, in memory outside of the Go heap, as C will point into it.
func (t systemTable) record(s *systemState) arrow.RecordBatch {
	b := array.NewRecordBuilder(offheap.Default, arrow.NewSchema(t.columns, nil))
	defer b.Release()
	for _, row := range t.rows(s) {
		for i, v := range row {
			appendValue(b.Field(i), v)
		}
	}
	return b.NewRecordBatch()
}

// appendValue appends a value of a system table.
func appendValue(b array.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.AppendNull()
	case string:
		b.(*array.StringBuilder).Append(v)
	case int64:
		b.(*array.Int64Builder).Append(v)
	case float64:
		b.(*array.Float64Builder).Append(v)
	case bool:
		b.(*array.BooleanBuilder).Append(v)
	case time.Time:
		b.(*array.TimestampBuilder).Append(arrow.Timestamp(v.UnixMicro()))
	case []string:
		l := b.(*array.ListBuilder)
		l.Append(true)
		for _, s := range v {
			l.ValueBuilder().(*array.StringBuilder).Append(s)
		}
	}
}

// A systemSnapshot is a snapshot with the system tables, which are as of their first use in a statement: all of one
// moment, and the same in all its scans.
type systemSnapshot struct {
	snapshot
	ctx context.Context // of the statement
	e   *Engine
	in  *instance // that the statement runs in

	mu     sync.Mutex
	state  *systemState                 // nil before the first use
	tables map[string]arrow.RecordBatch // those that were used, by name
}

// table implements snapshot.
func (s *systemSnapshot) table(schema, name string) (tableSource, error) {
	if !isSystem(schema) {
		return s.snapshot.table(schema, name)
	}
	i := slices.IndexFunc(systemTables, func(t systemTable) bool { return strings.EqualFold(t.name, name) })
	if i < 0 {
		return nil, errTableChanged
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		s.state = s.e.systemState(s.in)
		s.state.count, s.tables = s.count, make(map[string]arrow.RecordBatch)
	}
	t := systemTables[i]
	if (t.name == "versions" || t.name == "tags") && s.state.history == nil {
		var err error
		if s.state.history, err = s.e.store.histories(s.ctx); err != nil {
			return nil, engineError(err)
		}
	}
	rec := s.tables[t.name]
	if rec == nil {
		rec = t.record(s.state)
		s.tables[t.name] = rec
	}
	return systemSource{ownSource{rec}}, nil
}

// count counts the rows of a table as count(*) does.
func (s *systemSnapshot) count(schema, name string) (n int64, ok bool) {
	src, err := s.snapshot.table(schema, name)
	if err != nil {
		return 0, false
	}
	all, err := src.scan(s.ctx, []int{}, nil)
	if err != nil {
		return 0, false
	}
	defer all.close()
	for {
		m, err := all.next(s.ctx)
		if err != nil {
			return n, errors.Is(err, io.EOF)
		}
		if n += m.record.NumRows(); m.live != nil {
			n += int64(len(m.live)) - m.record.NumRows()
		}
		m.release()
	}
}

// keep implements snapshot. System tables are small, and stay.
func (s *systemSnapshot) keep(tables []tableInfo) {
	s.snapshot.keep(slices.DeleteFunc(slices.Clone(tables), func(t tableInfo) bool { return isSystem(t.schema) }))
}

// release implements snapshot.
func (s *systemSnapshot) release() {
	s.mu.Lock()
	for _, rec := range s.tables {
		rec.Release()
	}
	clear(s.tables)
	s.mu.Unlock()
	s.snapshot.release()
}

// systemSource is a system table of a snapshot.
type systemSource struct{ ownSource }

// reads implements tableSource.
func (s systemSource) reads(context.Context, *scanFilter) (int64, error) { return s.rows(), nil }

// piece implements tableSource. The first part has all rows.
func (s systemSource) piece(part, _ int, _ *scanFilter) tableSource {
	if part == 0 {
		return s
	}
	none := s.rec.NewSlice(0, 0)
	return systemSource{ownSource{none}}
}

// explain implements source.
func (s systemSource) explain(context.Context, *scanFilter) (string, error) {
	return fmt.Sprintf("full scan; %s", count(int(s.rows()), "row")), nil
}

// systemState looks at everything that the system tables tell about.
func (e *Engine) systemState(in *instance) *systemState {
	s := &systemState{now: time.Now(), engine: e.store.stats(), queries: e.activity.list()}
	if c := e.clients.Load(); c != nil {
		s.sessions, s.streams = (*c).Sessions(), (*c).Streams()
	}
	m := s.engine.Memory
	s.memory = []memoryPart{{"memtables", m.Used, m.Limit}, {"old_snapshots", m.Kept, 0}}
	// Without an answer the statement does without the row: the other numbers are as right as with it.
	if text, err := in.scalar("SELECT sum(memory_usage_bytes)::VARCHAR FROM duckdb_memory()"); err == nil {
		if used, err := strconv.ParseInt(text, 10, 64); err == nil {
			s.memory = append(s.memory, memoryPart{"queries", used, e.opts.Memory})
		}
	}
	if e.opts.Held != nil {
		s.memory = append(s.memory, memoryPart{"process", e.opts.Held(), e.opts.HeldLimit})
	}
	return s
}
