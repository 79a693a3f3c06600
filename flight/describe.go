package flight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"

	"github.com/flightd/flightd/lsm"
)

// describeTable returns a table's schema with what Flight SQL says about columns in their metadata, behind the
// table's own.
func describeTable(table *lsm.Table) *arrow.Schema {
	name, comments := table.Name(), table.Comments()
	schema := describe(lsm.WireSchema(table.Schema()), func(b *flightsql.ColumnMetadataBuilder, field arrow.Field) {
		b.CatalogName(catalogName).SchemaName(schemaName(name)).TableName(name.Name).IsReadOnly(false)
		if remarks, ok := comments.Columns[field.Name]; ok {
			b.Remarks(remarks)
		}
	})
	return withComment(schema, comments)
}

// describeSystem is describeTable of a system table.
func describeSystem(name lsm.TableName, schema *arrow.Schema) *arrow.Schema {
	return describe(schema, func(b *flightsql.ColumnMetadataBuilder, _ arrow.Field) {
		b.CatalogName(catalogName).SchemaName(name.Schema).TableName(name.Name).IsReadOnly(true)
	})
}

// describeView adds to what describeResult said of a view's query the comments on the view.
func describeView(schema *arrow.Schema, comments lsm.Comments) *arrow.Schema {
	fields := slices.Clone(schema.Fields())
	for i, field := range fields {
		if remarks, ok := comments.Columns[field.Name]; ok {
			fields[i].Metadata = merged(arrow.NewMetadata([]string{flightsql.RemarksKey}, []string{remarks}), field.Metadata)
		}
	}
	meta := schema.Metadata()
	return withComment(arrow.NewSchema(fields, &meta), comments)
}

// withComment adds the comment on a table or view. Flight SQL has no place for it but the schema's own metadata.
func withComment(schema *arrow.Schema, comments lsm.Comments) *arrow.Schema {
	if comments.Self == nil {
		return schema
	}
	meta := merged(arrow.NewMetadata([]string{lsm.CommentKey}, []string{*comments.Self}), schema.Metadata())
	return arrow.NewSchema(schema.Fields(), &meta)
}

// describeResult returns the schema of a query's result with what Flight SQL says about columns in their metadata.
// The columns of a result cannot be written, wherever they come from.
func describeResult(schema *arrow.Schema) *arrow.Schema {
	return describe(schema, func(b *flightsql.ColumnMetadataBuilder, field arrow.Field) {
		b.IsReadOnly(true)
		if remarks, ok := field.Metadata.GetValue(lsm.CommentKey); ok {
			b.Remarks(remarks)
		}
	})
}

// describe adds to each field's metadata what follows from its type, and what place adds. Keys that are there stay
// as they are.
func describe(schema *arrow.Schema, place func(*flightsql.ColumnMetadataBuilder, arrow.Field)) *arrow.Schema {
	fields := slices.Clone(schema.Fields())
	for i, field := range fields {
		b := flightsql.NewColumnMetadataBuilder()
		place(b, field)
		t := sqlTypeOf(field.Type)
		if name, ok := extensionTypes[extensionOf(field)]; ok {
			t = sqlTypeInfo{name: name}
		}
		b.TypeName(t.name).IsAutoIncrement(false).IsCaseSensitive(t.name == "VARCHAR").IsSearchable(true)
		if t.precision > 0 {
			b.Precision(t.precision).Scale(t.scale)
		}
		fields[i].Metadata = merged(field.Metadata, b.Metadata())
	}
	meta := schema.Metadata()
	return arrow.NewSchema(fields, &meta)
}

// extensionTypes are the SQL types of Arrow's extensions that SQL knows.
var extensionTypes = map[string]string{"arrow.uuid": "UUID", "arrow.json": "JSON"}

// extensionOf returns the name of a field's extension, "" without one.
func extensionOf(field arrow.Field) string {
	name, _ := field.Metadata.GetValue("ARROW:extension:name")
	return name
}

// merged returns the pairs of both; where a key is in both, the first's value.
func merged(own, added arrow.Metadata) arrow.Metadata {
	keys, values := slices.Clone(own.Keys()), slices.Clone(own.Values())
	for i, key := range added.Keys() {
		if own.FindKey(key) < 0 {
			keys, values = append(keys, key), append(values, added.Values()[i])
		}
	}
	return arrow.NewMetadata(keys, values)
}

// sqlTypeInfo is what tools show of a column's type.
type sqlTypeInfo struct {
	name string
	// precision and scale are decimal digits; a precision of 0 means that the type has none.
	precision, scale int32
}

// sqlTypeOf returns the SQL type of a column. Power BI cannot show columns without a name of their type, and it must
// not have parameters where precision and scale tell them.
func sqlTypeOf(t arrow.DataType) sqlTypeInfo {
	switch t := t.(type) {
	case arrow.ExtensionType:
		return sqlTypeOf(t.StorageType())
	case *arrow.DictionaryType:
		return sqlTypeOf(t.ValueType)
	case arrow.DecimalType:
		return sqlTypeInfo{"DECIMAL", t.GetPrecision(), t.GetScale()}
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return sqlTypeInfo{name: "TIMESTAMP WITH TIME ZONE"}
		}
		return sqlTypeInfo{name: "TIMESTAMP"}
	case *arrow.FixedSizeListType:
		return sqlTypeInfo{name: fmt.Sprintf("%s[%d]", nestedName(t.Elem()), t.Len())}
	case *arrow.MapType:
		return sqlTypeInfo{name: "MAP(" + nestedName(t.KeyType()) + ", " + nestedName(t.ItemType()) + ")"}
	case arrow.ListLikeType:
		return sqlTypeInfo{name: nestedName(t.Elem()) + "[]"}
	case *arrow.StructType:
		fields := make([]string, t.NumFields())
		for i, f := range t.Fields() {
			fields[i] = quoteName(f.Name) + " " + nestedName(f.Type)
		}
		return sqlTypeInfo{name: "STRUCT(" + strings.Join(fields, ", ") + ")"}
	}
	if known, ok := sqlTypes[t.ID()]; ok {
		return known
	}
	return sqlTypeInfo{name: strings.ToUpper(t.String())}
}

// nestedName is the name of a type inside another, where nothing but the name tells its precision.
func nestedName(t arrow.DataType) string {
	of := sqlTypeOf(t)
	if of.name == "DECIMAL" {
		return fmt.Sprintf("DECIMAL(%d, %d)", of.precision, of.scale)
	}
	return of.name
}

// sqlTypes are DuckDB's names of the types without parameters, with the digits of numbers.
var sqlTypes = map[arrow.Type]sqlTypeInfo{
	arrow.NULL: {name: "NULL"},
	arrow.BOOL: {name: "BOOLEAN"},
	arrow.INT8: {name: "TINYINT", precision: 3}, arrow.INT16: {name: "SMALLINT", precision: 5},
	arrow.INT32: {name: "INTEGER", precision: 10}, arrow.INT64: {name: "BIGINT", precision: 19},
	arrow.UINT8: {name: "UTINYINT", precision: 3}, arrow.UINT16: {name: "USMALLINT", precision: 5},
	arrow.UINT32: {name: "UINTEGER", precision: 10}, arrow.UINT64: {name: "UBIGINT", precision: 20},
	arrow.FLOAT16: {name: "FLOAT"}, arrow.FLOAT32: {name: "FLOAT"}, arrow.FLOAT64: {name: "DOUBLE"},
	arrow.STRING: {name: "VARCHAR"}, arrow.LARGE_STRING: {name: "VARCHAR"}, arrow.STRING_VIEW: {name: "VARCHAR"},
	arrow.BINARY: {name: "BLOB"}, arrow.LARGE_BINARY: {name: "BLOB"}, arrow.BINARY_VIEW: {name: "BLOB"},
	arrow.FIXED_SIZE_BINARY: {name: "BLOB"},
	arrow.DATE32:            {name: "DATE"}, arrow.DATE64: {name: "DATE"}, arrow.TIME32: {name: "TIME"}, arrow.TIME64: {name: "TIME"},
	arrow.DURATION: {name: "INTERVAL"}, arrow.INTERVAL_MONTHS: {name: "INTERVAL"}, arrow.INTERVAL_DAY_TIME: {name: "INTERVAL"},
	arrow.INTERVAL_MONTH_DAY_NANO: {name: "INTERVAL"},
}
