package validation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	driver "github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// quirks tell the suite what flightd has and how it says it.
type quirks struct{ address, version string }

// SetupDriver implements validation.DriverQuirks.
func (q *quirks) SetupDriver(*testing.T) adbc.Driver { return driver.NewDriver(q.Alloc()) }

// TearDownDriver implements validation.DriverQuirks. Memory is not counted: the driver never releases the reader that it
// makes of a bound batch when it ingests.
func (q *quirks) TearDownDriver(*testing.T, adbc.Driver) {}

// DatabaseOptions implements validation.DriverQuirks.
func (q *quirks) DatabaseOptions() map[string]string {
	return map[string]string{adbc.OptionKeyURI: "grpc+tcp://" + q.address}
}

// What flightd has, as the suite asks for it.

func (q *quirks) Alloc() memory.Allocator                     { return memory.DefaultAllocator }
func (q *quirks) BindParameter(int) string                    { return "?" }
func (q *quirks) Catalog() string                             { return "flightd" }
func (q *quirks) DBSchema() string                            { return "main" }
func (q *quirks) SupportsBulkIngest(string) bool              { return true }
func (q *quirks) SupportsConcurrentStatements() bool          { return true }
func (q *quirks) SupportsCurrentCatalogSchema() bool          { return true }
func (q *quirks) SupportsDynamicParameterBinding() bool       { return true }
func (q *quirks) SupportsErrorIngestIncompatibleSchema() bool { return true }
func (q *quirks) SupportsExecuteSchema() bool                 { return true }
func (q *quirks) SupportsGetParameterSchema() bool            { return true }
func (q *quirks) SupportsGetSetOptions() bool                 { return true }
func (q *quirks) SupportsPartitionedData() bool               { return true }
func (q *quirks) SupportsStatistics() bool                    { return false } // by the driver
func (q *quirks) SupportsTransactions() bool                  { return false }

// GetMetadata implements validation.DriverQuirks.
func (q *quirks) GetMetadata(code adbc.InfoCode) any {
	switch code {
	case adbc.InfoDriverName:
		return "ADBC Flight SQL Driver - Go"
	case adbc.InfoDriverVersion, adbc.InfoDriverArrowVersion:
		return "(unknown or development build)" // tests have no build information
	case adbc.InfoDriverADBCVersion:
		return adbc.AdbcVersion1_1_0
	case adbc.InfoVendorName:
		return "flightd"
	case adbc.InfoVendorVersion:
		return q.version
	case adbc.InfoVendorArrowVersion:
		return arrow.PkgVersion
	}
	return nil
}

// sqlTypes are the SQL names of the types that the suite makes tables of.
var sqlTypes = map[arrow.Type]string{arrow.INT64: "BIGINT", arrow.STRING: "VARCHAR"}

// SampleTableSchemaMetadata implements validation.DriverQuirks.
func (q *quirks) SampleTableSchemaMetadata(table string, t arrow.DataType) arrow.Metadata {
	b := flightsql.NewColumnMetadataBuilder().CatalogName(q.Catalog()).SchemaName(q.DBSchema()).TableName(table).TypeName(sqlTypes[t.ID()]).
		IsAutoIncrement(false).IsCaseSensitive(t.ID() == arrow.STRING).IsReadOnly(false).IsSearchable(true)
	if t.ID() == arrow.INT64 {
		b.Precision(19).Scale(0)
	}
	return b.Metadata()
}

// CreateSampleTable implements validation.DriverQuirks.
func (q *quirks) CreateSampleTable(table string, rows arrow.RecordBatch) error {
	ctx := context.Background()
	db, err := q.SetupDriver(nil).NewDatabase(q.DatabaseOptions())
	if err != nil {
		return err
	}
	defer db.Close()
	connection, err := db.Open(ctx)
	if err != nil {
		return err
	}
	defer connection.Close()
	columns, marks := make([]string, rows.NumCols()), make([]string, rows.NumCols())
	for i, field := range rows.Schema().Fields() {
		columns[i], marks[i] = field.Name+" "+sqlTypes[field.Type.ID()], q.BindParameter(i)
	}
	if err := execute(ctx, connection, fmt.Sprintf("CREATE TABLE %s (%s)", table, strings.Join(columns, ", ")), nil); err != nil {
		return err
	}
	return execute(ctx, connection, fmt.Sprintf("INSERT INTO %s VALUES (%s)", table, strings.Join(marks, ", ")), rows)
}

// DropTable implements validation.DriverQuirks.
func (q *quirks) DropTable(connection adbc.Connection, table string) error {
	return execute(context.Background(), connection, "DROP TABLE IF EXISTS "+table, nil)
}

// execute runs a statement with optional rows of parameters.
func execute(ctx context.Context, connection adbc.Connection, sql string, params arrow.RecordBatch) (err error) {
	statement, err := connection.NewStatement()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, statement.Close()) }()
	if err := statement.SetSqlQuery(sql); err != nil {
		return err
	}
	if params != nil {
		if err := statement.Prepare(ctx); err != nil {
			return err
		}
		if err := statement.Bind(ctx, params); err != nil {
			return err
		}
	}
	_, err = statement.ExecuteUpdate(ctx)
	return err
}
