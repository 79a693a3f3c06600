package flight

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/lsm"
	"github.com/flightd/flightd/query"
)

// tableType is what tables are listed as. Tools ask for it in upper case.
const tableType = "TABLE"

// viewType is what views are listed as.
const viewType = "VIEW"

// systemType is what the tables of flightd_catalog are listed as, by the name that JDBC has for such.
const systemType = "SYSTEM TABLE"

// listing is a metadata command: the schema that the specification gives its answer, to the letter because ADBC
// compares it, and the answer.
type listing struct {
	schema *arrow.Schema
	rows   func() (arrow.RecordBatch, error)
}

// listing returns the listing that a command asks for.
func (s *service) listing(command proto.Message) (listing, bool) {
	switch c := command.(type) {
	case *pb.CommandGetCatalogs:
		return fixed(schema_ref.Catalogs, []string{catalogName}), true
	case *pb.CommandGetTableTypes:
		return fixed(schema_ref.TableTypes, []string{systemType}, []string{tableType}, []string{viewType}), true
	case *pb.CommandGetDbSchemas:
		return fixed(schema_ref.DBSchemas, s.schemaRows(c)...), true
	case *pb.CommandGetTables:
		return s.tables(c), true
	case *pb.CommandGetPrimaryKeys:
		return listing{schema_ref.PrimaryKeys, func() (arrow.RecordBatch, error) { return s.keyRows(c), nil }}, true
	case *pb.CommandGetExportedKeys:
		return fixed(schema_ref.ExportedKeys), true
	case *pb.CommandGetImportedKeys:
		return fixed(schema_ref.ImportedKeys), true
	case *pb.CommandGetCrossReference:
		return fixed(schema_ref.CrossReference), true
	case *pb.CommandGetSqlInfo:
		return listing{schema_ref.SqlInfo, func() (arrow.RecordBatch, error) { return sqlInfoRows(s.info, c.GetInfo()) }}, true
	case *pb.CommandGetXdbcTypeInfo:
		return listing{schema_ref.XdbcTypeInfo, func() (arrow.RecordBatch, error) { return xdbcRows(c.DataType), nil }}, true
	}
	return listing{}, false
}

// getListing streams the answer to a metadata command.
func (s *service) getListing(stream pb.FlightService_DoGetServer, l listing) error {
	rows, err := l.rows()
	if err != nil {
		return err
	}
	defer rows.Release()
	return sendRecord(stream, rows)
}

// fixed returns a listing of rows of text.
func fixed(schema *arrow.Schema, rows ...[]string) listing {
	return listing{schema, func() (arrow.RecordBatch, error) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		for _, row := range rows {
			for i, v := range row {
				b.Field(i).(*array.StringBuilder).Append(v)
			}
		}
		return b.NewRecordBatch(), nil
	}}
}

// schemas returns the names of all schemas, sorted.
func (s *service) schemas() []string {
	names := []string{lsm.MainSchema, query.SystemSchema}
	for _, table := range s.db.Tables() {
		names = append(names, schemaName(table.Name()))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// hasSchema says whether a schema exists.
func (s *service) hasSchema(name string) bool {
	return slices.ContainsFunc(s.schemas(), func(other string) bool { return strings.EqualFold(name, other) })
}

// schemaRows answers GetDbSchemas.
func (s *service) schemaRows(c *pb.CommandGetDbSchemas) [][]string {
	var rows [][]string
	for _, name := range s.schemas() {
		if inCatalog(c.Catalog) && like(c.DbSchemaFilterPattern, name) {
			rows = append(rows, []string{catalogName, name})
		}
	}
	return rows
}

// tables answers GetTables.
func (s *service) tables(c *pb.CommandGetTables) listing {
	schema := schema_ref.Tables
	if c.GetIncludeSchema() {
		schema = schema_ref.TablesWithIncludedSchema
	}
	return listing{schema, func() (arrow.RecordBatch, error) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		defer b.Release()
		add := func(name lsm.TableName, kind string, columns func() *arrow.Schema) {
			if len(c.GetTableTypes()) > 0 && !slices.Contains(c.GetTableTypes(), kind) || !inCatalog(c.Catalog) ||
				!like(c.DbSchemaFilterPattern, schemaName(name)) || !like(c.TableNameFilterPattern, name.Name) {
				return
			}
			for i, v := range []string{catalogName, schemaName(name), name.Name, kind} {
				b.Field(i).(*array.StringBuilder).Append(v)
			}
			if c.GetIncludeSchema() {
				b.Field(4).(*array.BinaryBuilder).Append(flight.SerializeSchema(columns(), memory.DefaultAllocator))
			}
		}
		system := query.SystemTables()
		for _, name := range slices.Sorted(maps.Keys(system)) {
			of := lsm.TableName{Schema: query.SystemSchema, Name: name}
			add(of, systemType, func() *arrow.Schema { return describeSystem(of, system[name]) })
		}
		for _, table := range s.db.Tables() {
			add(table.Name(), tableType, func() *arrow.Schema { return describeTable(table) })
		}
		for _, view := range s.db.Views() {
			add(view.Name, viewType, func() *arrow.Schema { return s.viewColumns(view) })
		}
		return b.NewRecordBatch(), nil
	}}
}

// viewColumns returns what a view's query gives, and no columns when its tables are not there any more.
func (s *service) viewColumns(view lsm.ViewDef) *arrow.Schema {
	name := view.Name
	statement, err := s.query.Prepare(s.stop, s.query.NewSession(), "SELECT * FROM "+quoteName(schemaName(name))+"."+quoteName(name.Name))
	if err != nil {
		return arrow.NewSchema(nil, nil)
	}
	defer s.close(statement)
	return describeView(describeResult(statement.DatasetSchema()), view.Comments)
}

// keyRows answers GetPrimaryKeys. A table that does not exist has no keys, as in JDBC.
func (s *service) keyRows(c *pb.CommandGetPrimaryKeys) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema_ref.PrimaryKeys)
	defer b.Release()
	for _, table := range s.db.Tables() {
		name := table.Name()
		if !inCatalog(c.Catalog) || !strings.EqualFold(c.GetTable(), name.Name) {
			continue
		}
		if c.DbSchema != nil && !strings.EqualFold(c.GetDbSchema(), schemaName(name)) {
			continue
		}
		for i, column := range table.Key() {
			for field, v := range []string{catalogName, schemaName(name), name.Name, column} {
				b.Field(field).(*array.StringBuilder).Append(v)
			}
			b.Field(4).(*array.Int32Builder).Append(int32(i + 1))
			b.Field(5).(*array.StringBuilder).Append(fmt.Sprintf("%s_pkey", name.Name))
		}
	}
	return b.NewRecordBatch()
}

// inCatalog says whether a catalog filter lets our catalog through; it is a name, not a pattern.
func inCatalog(filter *string) bool { return filter == nil || strings.EqualFold(*filter, catalogName) }

// like says whether a name matches an optional LIKE pattern, without regard to case. ADBC sends names as patterns
// without escaping them, which still match themselves.
func like(pattern *string, name string) bool {
	if pattern == nil {
		return true
	}
	return matchLike([]rune(strings.ToLower(*pattern)), []rune(strings.ToLower(name)))
}

// matchLike matches with '%' for any run, '_' for any character and '\' before either for itself. It goes back only
// to the last '%', so that its time is bounded by the product of the lengths.
func matchLike(pattern, name []rune) bool {
	p, n := 0, 0
	star, resume := -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '%':
			star, resume = p, n
			p++
			continue
		case p+1 < len(pattern) && pattern[p] == '\\' && (pattern[p+1] == '%' || pattern[p+1] == '_' || pattern[p+1] == '\\'):
			if pattern[p+1] == name[n] {
				p, n = p+2, n+1
				continue
			}
		case p < len(pattern) && (pattern[p] == '_' || pattern[p] == name[n]):
			p, n = p+1, n+1
			continue
		}
		if star < 0 {
			return false
		}
		resume++
		p, n = star+1, resume
	}
	for p < len(pattern) && pattern[p] == '%' {
		p++
	}
	return p == len(pattern)
}
