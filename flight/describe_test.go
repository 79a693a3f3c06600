package flight

import (
	"context"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

func TestTypesHaveSQLNames(t *testing.T) {
	f := func(dt arrow.DataType, name string, precision, scale int32) {
		t.Helper()
		require.Equal(t, sqlTypeInfo{name, precision, scale}, sqlTypeOf(dt))
	}
	f(arrow.PrimitiveTypes.Int64, "BIGINT", 19, 0)
	f(arrow.PrimitiveTypes.Float64, "DOUBLE", 0, 0)
	f(&arrow.Decimal128Type{Precision: 10, Scale: 2}, "DECIMAL", 10, 2)
	f(arrow.ListOf(&arrow.Decimal128Type{Precision: 10, Scale: 2}), "DECIMAL(10, 2)[]", 0, 0)
	f(arrow.FixedSizeListOf(3, arrow.PrimitiveTypes.Float32), "FLOAT[3]", 0, 0)
	f(arrow.StructOf(arrow.Field{Name: "a b", Type: arrow.BinaryTypes.String}, arrow.Field{Name: "n", Type: arrow.PrimitiveTypes.Int8}),
		`STRUCT("a b" VARCHAR, "n" TINYINT)`, 0, 0)
	f(arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int32), "MAP(VARCHAR, INTEGER)", 0, 0)
	f(arrow.FixedWidthTypes.Timestamp_us, "TIMESTAMP WITH TIME ZONE", 0, 0)
	f(&arrow.TimestampType{Unit: arrow.Nanosecond}, "TIMESTAMP", 0, 0)
	f(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, "VARCHAR", 0, 0)
}

func TestResultsTellTheSQLTypes(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY, price DECIMAL(10,2), body VARCHAR)")
	const sql = "SELECT body, price, id + 1 AS next FROM docs"
	check := func(raw []byte) {
		t.Helper()
		schema, err := flight.DeserializeSchema(raw, memory.DefaultAllocator)
		require.NoError(t, err)
		get := func(i int, key string) string {
			v, _ := schema.Field(i).Metadata.GetValue(key)
			return v
		}
		require.Equal(t, "VARCHAR", get(0, flightsql.TypeNameKey))
		require.Equal(t, "1", get(0, flightsql.IsCaseSensitiveKey))
		require.Equal(t, []string{"DECIMAL", "10", "2"}, []string{get(1, flightsql.TypeNameKey), get(1, flightsql.PrecisionKey), get(1, flightsql.ScaleKey)})
		require.Equal(t, "BIGINT", get(2, flightsql.TypeNameKey))
		for i := range 3 {
			require.Equal(t, []string{"0", "1", "1"},
				[]string{get(i, flightsql.IsAutoIncrementKey), get(i, flightsql.IsReadOnlyKey), get(i, flightsql.IsSearchableKey)})
		}
	}
	// h.read compares the stream's schema with the announced one, metadata included.
	info, err := h.client.sql.Execute(ctx, sql)
	require.NoError(t, err)
	check(info.GetSchema())
	h.read(info)
	p, err := h.client.sql.Prepare(ctx, sql)
	require.NoError(t, err)
	defer p.Close(ctx)
	check(flight.SerializeSchema(p.DatasetSchema(), memory.DefaultAllocator))
	info, err = p.Execute(ctx)
	require.NoError(t, err)
	check(info.GetSchema())
	h.read(info)
}

func TestAColumnsCommentIsItsRemark(t *testing.T) {
	field := arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int32, Metadata: arrow.NewMetadata(
		[]string{lsm.CommentKey, flightsql.TypeNameKey}, []string{"degrees", "celsius"})}
	got := describeResult(arrow.NewSchema([]arrow.Field{field}, nil)).Field(0).Metadata
	remarks, _ := got.GetValue(flightsql.RemarksKey)
	name, _ := got.GetValue(flightsql.TypeNameKey)
	require.Equal(t, []string{"degrees", "celsius"}, []string{remarks, name}, "what the column says of itself stays")
}

// TestMetadataSchemasAreThoseOfTheSpecification holds every metadata command, announced and streamed, against the
// reference, nullability included: ADBC compares them to the letter.
func TestMetadataSchemasAreThoseOfTheSpecification(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	c := h.client.sql
	f := func(want *arrow.Schema) func(*flight.FlightInfo, error) {
		return func(info *flight.FlightInfo, err error) {
			t.Helper()
			require.NoError(t, err)
			announced, err := flight.DeserializeSchema(info.GetSchema(), memory.DefaultAllocator)
			require.NoError(t, err)
			r, err := c.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
			require.NoError(t, err)
			defer r.Release()
			for r.Next() {
			}
			require.NoError(t, r.Err())
			for _, got := range []*arrow.Schema{announced, r.Schema()} {
				require.Equal(t, want.NumFields(), got.NumFields())
				for i, field := range want.Fields() {
					require.True(t, field.Equal(got.Field(i)), "want %v, got %v", field, got.Field(i))
				}
			}
		}
	}
	docs := flightsql.TableRef{Table: "docs"}
	f(schema_ref.Catalogs)(c.GetCatalogs(ctx))
	f(schema_ref.DBSchemas)(c.GetDBSchemas(ctx, &flightsql.GetDBSchemasOpts{}))
	f(schema_ref.Tables)(c.GetTables(ctx, &flightsql.GetTablesOpts{}))
	f(schema_ref.TablesWithIncludedSchema)(c.GetTables(ctx, &flightsql.GetTablesOpts{IncludeSchema: true}))
	f(schema_ref.TableTypes)(c.GetTableTypes(ctx))
	f(schema_ref.PrimaryKeys)(c.GetPrimaryKeys(ctx, docs))
	f(schema_ref.ExportedKeys)(c.GetExportedKeys(ctx, docs))
	f(schema_ref.ImportedKeys)(c.GetImportedKeys(ctx, docs))
	f(schema_ref.CrossReference)(c.GetCrossReference(ctx, docs, docs))
	f(schema_ref.SqlInfo)(c.GetSqlInfo(ctx, nil))
	f(schema_ref.XdbcTypeInfo)(c.GetXdbcTypeInfo(ctx, nil))
}

func TestCommentsAreRemarks(t *testing.T) {
	h := serve(t)
	ctx := context.Background()
	h.execute("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR)")
	h.execute("CREATE VIEW texts AS SELECT body AS Text FROM docs")
	h.execute("COMMENT ON TABLE docs IS 'all of them'")
	h.execute("COMMENT ON COLUMN docs.body IS 'words'")
	h.execute("COMMENT ON VIEW texts IS 'only words'")
	h.execute("COMMENT ON COLUMN texts.TEXT IS 'of a document'")
	info, err := h.client.sql.GetTables(ctx, &flightsql.GetTablesOpts{IncludeSchema: true, TableTypes: []string{"TABLE", "VIEW"}})
	require.NoError(t, err)
	r, err := h.client.sql.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
	require.NoError(t, err)
	defer r.Release()
	require.True(t, r.Next())
	f := func(row int, table, column, name string) {
		t.Helper()
		schema, err := flight.DeserializeSchema(r.RecordBatch().Column(4).(*array.Binary).Value(row), memory.DefaultAllocator)
		require.NoError(t, err)
		meta := schema.Metadata()
		got, _ := meta.GetValue(lsm.CommentKey)
		require.Equal(t, table, got)
		fields, ok := schema.FieldsByName(name)
		require.True(t, ok)
		got, _ = fields[0].Metadata.GetValue(flightsql.RemarksKey)
		require.Equal(t, column, got)
	}
	f(0, "all of them", "words", "body")
	f(0, "all of them", "", "id")
	f(1, "only words", "of a document", "Text")
}
