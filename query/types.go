package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// maxArray is the largest fixed-size list that DuckDB can hold.
const maxArray = 100_000

// A sqlType is the type by which SQL knows a column.
type sqlType struct {
	id           bind.Type
	json         bool     // a VARCHAR that is called JSON
	opaque       bool     // a BLOB of the bytes of a value that SQL has no type for
	width, scale uint8    // of a DECIMAL
	size         int      // of an ARRAY
	child        *sqlType // of an ARRAY or a LIST
	names        []string // of a STRUCT; a MAP has those of its key and its value
	fields       []sqlType
}

// plainTypes are the Arrow types that need no parameters.
var plainTypes = map[arrow.Type]bind.Type{
	arrow.BOOL: bind.TypeBoolean,
	arrow.INT8: bind.TypeTinyInt, arrow.INT16: bind.TypeSmallInt, arrow.INT32: bind.TypeInteger, arrow.INT64: bind.TypeBigInt,
	arrow.UINT8: bind.TypeUTinyInt, arrow.UINT16: bind.TypeUSmallInt, arrow.UINT32: bind.TypeUInteger, arrow.UINT64: bind.TypeUBigInt,
	arrow.FLOAT16: bind.TypeFloat, arrow.FLOAT32: bind.TypeFloat, arrow.FLOAT64: bind.TypeDouble,
	arrow.STRING: bind.TypeVarchar, arrow.LARGE_STRING: bind.TypeVarchar,
	arrow.BINARY: bind.TypeBlob, arrow.LARGE_BINARY: bind.TypeBlob, arrow.FIXED_SIZE_BINARY: bind.TypeBlob,
	arrow.DATE32: bind.TypeDate,
	// No column of DuckDB is of the type of NULL; it makes INTEGERs of them, too.
	arrow.NULL: bind.TypeInteger,
	// DuckDB's DATE has no time of day, a date64 may have one.
	arrow.DATE64: bind.TypeTimestampMS,
	// DuckDB's INTERVAL counts microseconds and months; the plain number loses nothing.
	arrow.DURATION: bind.TypeBigInt,
}

// sqlTypeOf maps a column's Arrow type. Every value must come back equal to the bit when it passes through, so a
// type that DuckDB would shorten gets a wider or a coarser neighbour that holds its bits, and one that it has not at
// all becomes opaque.
func sqlTypeOf(f arrow.Field) (sqlType, error) {
	switch extensionOf(f) {
	case extensionUUID:
		return sqlType{id: bind.TypeUUID}, nil
	case extensionJSON:
		return sqlType{id: bind.TypeVarchar, json: true}, nil
	}
	if id, ok := plainTypes[f.Type.ID()]; ok {
		return sqlType{id: id}, nil
	}
	switch t := f.Type.(type) {
	case *arrow.TimestampType:
		return sqlType{id: timestampID(t)}, nil
	case *arrow.Time32Type:
		return sqlType{id: bind.TypeTime}, nil
	case *arrow.Time64Type:
		if t.Unit == arrow.Nanosecond {
			return sqlType{id: bind.TypeTimeNS}, nil
		}
		return sqlType{id: bind.TypeTime}, nil
	case *arrow.Decimal128Type:
		if opaqueWidth(t) == 0 {
			return sqlType{id: bind.TypeDecimal, width: uint8(t.Precision), scale: uint8(t.Scale)}, nil
		}
		return sqlType{id: bind.TypeBlob, opaque: true}, nil
	case *arrow.Decimal256Type:
		return sqlType{id: bind.TypeBlob, opaque: true}, nil
	case *arrow.FixedSizeListType:
		child, err := sqlTypeOf(t.ElemField())
		if err == nil && t.Len() > 0 && t.Len() <= maxArray {
			return sqlType{id: bind.TypeArray, size: int(t.Len()), child: &child}, nil
		}
	case *arrow.ListType, *arrow.LargeListType:
		child, err := sqlTypeOf(t.(arrow.ListLikeType).ElemField())
		if err == nil {
			return sqlType{id: bind.TypeList, child: &child}, nil
		}
	case *arrow.StructType:
		if st, ok := sqlStruct(t); ok {
			return st, nil
		}
	case *arrow.MapType:
		if st, ok := sqlStruct(t.Elem().(*arrow.StructType)); ok {
			st.id = bind.TypeMap
			return st, nil
		}
	}
	return sqlType{}, fmt.Errorf("SQL has no type for Arrow's %s; leave the column out of the query", f.Type)
}

// opaqueWidth returns the bytes of a value of a type that SQL has not, 0 for others. DuckDB's decimals have 38 digits
// at most, and no more of them behind the point than there are.
func opaqueWidth(dt arrow.DataType) int {
	switch t := dt.(type) {
	case *arrow.Decimal256Type:
		return t.Bytes()
	case *arrow.Decimal128Type:
		if t.Scale < 0 || t.Scale > t.Precision {
			return t.Bytes()
		}
	}
	return 0
}

// isOpaque reports whether a type is opaque, or has one in it that is. DuckDB may carry such values, not look at them.
func (t sqlType) isOpaque() bool {
	return t.opaque || t.child != nil && t.child.isOpaque() || slices.ContainsFunc(t.fields, sqlType.isOpaque)
}

// sqlStruct maps structs. SQL's have fields, with names that differ without case; names that do not get a number.
func sqlStruct(t *arrow.StructType) (sqlType, bool) {
	out := sqlType{id: bind.TypeStruct}
	seen := map[string]bool{"": true}
	for i, f := range t.Fields() {
		field, err := sqlTypeOf(f)
		if err != nil {
			return out, false
		}
		name := f.Name
		for n := i; seen[strings.ToLower(name)]; n++ {
			name = fmt.Sprintf("%s_%d", f.Name, n+1)
		}
		seen[strings.ToLower(name)] = true
		out.names, out.fields = append(out.names, name), append(out.fields, field)
	}
	return out, len(out.fields) > 0
}

// timestampID maps timestamps. With a zone they are instants, which SQL has in microseconds only: coarser units fit
// in, nanoseconds do not and appear as their wall clock in UTC.
func timestampID(t *arrow.TimestampType) bind.Type {
	switch {
	case t.Unit == arrow.Nanosecond:
		return bind.TypeTimestampNS
	case t.TimeZone != "":
		return bind.TypeTimestampTZ
	case t.Unit == arrow.Second:
		return bind.TypeTimestampS
	case t.Unit == arrow.Millisecond:
		return bind.TypeTimestampMS
	}
	return bind.TypeTimestamp
}

// scanType is the Arrow type under which DuckDB is shown the buffers of a column.
func scanType(dt arrow.DataType) arrow.DataType {
	switch t := dt.(type) {
	case *arrow.NullType:
		return arrow.PrimitiveTypes.Int32
	case *arrow.Float16Type:
		return arrow.PrimitiveTypes.Float32
	case *arrow.Date64Type:
		return &arrow.TimestampType{Unit: arrow.Millisecond}
	case *arrow.DurationType:
		return arrow.PrimitiveTypes.Int64
	case *arrow.TimestampType:
		if t.Unit == arrow.Nanosecond {
			return &arrow.TimestampType{Unit: arrow.Nanosecond}
		}
		if t.TimeZone != "" {
			return &arrow.TimestampType{Unit: t.Unit, TimeZone: "UTC"}
		}
	case *arrow.Decimal128Type, *arrow.Decimal256Type:
		if n := opaqueWidth(t); n > 0 {
			return &arrow.FixedSizeBinaryType{ByteWidth: n}
		}
	case *arrow.FixedSizeListType:
		return arrow.FixedSizeListOfField(t.Len(), scanField(t.ElemField()))
	case *arrow.ListType:
		return arrow.ListOfField(scanField(t.ElemField()))
	case *arrow.LargeListType:
		return arrow.LargeListOfField(scanField(t.ElemField()))
	case *arrow.StructType:
		fields := make([]arrow.Field, t.NumFields())
		names, _ := sqlStruct(t)
		for i, f := range t.Fields() {
			if fields[i] = scanField(f); i < len(names.names) {
				fields[i].Name = names.names[i]
			}
		}
		return arrow.StructOf(fields...)
	case *arrow.MapType:
		key, value := scanField(t.KeyField()), scanField(t.ItemField())
		key.Nullable = false
		return arrow.MapOfFields(key, value)
	}
	return dt
}

// scanField is scanType with the extensions that DuckDB knows: of any other it would look at the metadata.
func scanField(f arrow.Field) arrow.Field {
	out := arrow.Field{Name: f.Name, Type: scanType(f.Type), Nullable: true}
	if name := extensionOf(f); name != "" {
		out.Metadata = arrow.NewMetadata([]string{extensionName, extensionMetadata}, []string{name, ""})
	}
	return out
}

// logical returns the type for DuckDB's C API; the caller destroys it.
func (t sqlType) logical() bind.LogicalType {
	switch t.id {
	case bind.TypeDecimal:
		return bind.CreateDecimalType(t.width, t.scale)
	case bind.TypeArray:
		child := t.child.logical()
		defer bind.DestroyLogicalType(&child)
		return bind.CreateArrayType(child, bind.IdxT(t.size))
	case bind.TypeList:
		child := t.child.logical()
		defer bind.DestroyLogicalType(&child)
		return bind.CreateListType(child)
	case bind.TypeStruct:
		fields := make([]bind.LogicalType, len(t.fields))
		for i, f := range t.fields {
			fields[i] = f.logical()
			defer bind.DestroyLogicalType(&fields[i])
		}
		return bind.CreateStructType(fields, t.names)
	case bind.TypeMap:
		key, value := t.fields[0].logical(), t.fields[1].logical()
		defer bind.DestroyLogicalType(&key)
		defer bind.DestroyLogicalType(&value)
		return bind.CreateMapType(key, value)
	}
	l := bind.CreateLogicalType(t.id)
	if t.json {
		bind.LogicalTypeSetAlias(l, jsonAlias)
	}
	return l
}

// typeNames are the names of the types in SQL text.
var typeNames = map[bind.Type]string{
	bind.TypeBoolean: "BOOLEAN",
	bind.TypeTinyInt: "TINYINT", bind.TypeSmallInt: "SMALLINT", bind.TypeInteger: "INTEGER", bind.TypeBigInt: "BIGINT",
	bind.TypeUTinyInt: "UTINYINT", bind.TypeUSmallInt: "USMALLINT", bind.TypeUInteger: "UINTEGER", bind.TypeUBigInt: "UBIGINT",
	bind.TypeFloat: "FLOAT", bind.TypeDouble: "DOUBLE", bind.TypeVarchar: "VARCHAR", bind.TypeBlob: "BLOB",
	bind.TypeDate: "DATE", bind.TypeTime: "TIME", bind.TypeTimeNS: "TIME_NS",
	bind.TypeTimestamp: "TIMESTAMP", bind.TypeTimestampS: "TIMESTAMP_S", bind.TypeTimestampMS: "TIMESTAMP_MS",
	bind.TypeTimestampNS: "TIMESTAMP_NS", bind.TypeTimestampTZ: "TIMESTAMP WITH TIME ZONE", bind.TypeUUID: "UUID",
}

// String returns the type as SQL text.
func (t sqlType) String() string {
	switch t.id {
	case bind.TypeDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.width, t.scale)
	case bind.TypeArray:
		return fmt.Sprintf("%s[%d]", t.child, t.size)
	case bind.TypeList:
		return t.child.String() + "[]"
	case bind.TypeStruct:
		fields := make([]string, len(t.fields))
		for i, f := range t.fields {
			fields[i] = quoteIdent(t.names[i]) + " " + f.String()
		}
		return "STRUCT(" + strings.Join(fields, ", ") + ")"
	case bind.TypeMap:
		return fmt.Sprintf("MAP(%s, %s)", t.fields[0], t.fields[1])
	}
	if t.json {
		return jsonAlias
	}
	return typeNames[t.id]
}

// sameType is arrow.TypeEqual that also looks at what lists call their values, and at all of nested fields.
func sameType(a, b arrow.DataType) bool {
	if a.ID() != b.ID() {
		return false
	}
	x, ok := a.(arrow.NestedType)
	if !ok {
		return arrow.TypeEqual(a, b)
	}
	if l, ok := a.(*arrow.FixedSizeListType); ok && l.Len() != b.(*arrow.FixedSizeListType).Len() {
		return false
	}
	return slices.EqualFunc(x.Fields(), b.(arrow.NestedType).Fields(), func(f, g arrow.Field) bool {
		return f.Name == g.Name && f.Nullable == g.Nullable && f.Metadata.Equal(g.Metadata) && sameType(f.Type, g.Type)
	})
}

// tableSQL writes the CREATE TABLE statement of a table that came as an Arrow schema.
func tableSQL(schema, name string, s *arrow.Schema, key []string, defaults map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s.%s(", quoteIdent(schema), quoteIdent(name))
	for i, f := range s.Fields() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoteIdent(f.Name) + " " + sqlTypeText(f))
		if x := defaults[f.Name]; x != "" {
			b.WriteString(" DEFAULT(" + x + ")")
		}
		if !f.Nullable {
			b.WriteString(" NOT NULL")
		}
	}
	if len(key) > 0 {
		quoted := make([]string, len(key))
		for i, k := range key {
			quoted[i] = quoteIdent(k)
		}
		b.WriteString(", PRIMARY KEY(" + strings.Join(quoted, ", ") + ")")
	}
	b.WriteString(");")
	return b.String()
}

// sqlTypeText writes the type of a column of tables.
func sqlTypeText(f arrow.Field) string {
	if t, err := sqlTypeOf(f); err == nil {
		return t.String()
	}
	return "BLOB" // a column that no query can name must still be listed
}

// quoteIdent writes a name as a quoted SQL identifier.
func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
