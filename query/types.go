package query

import (
	"errors"
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
	width, scale uint8    // of a DECIMAL
	size         int      // of an ARRAY
	child        *sqlType // of an ARRAY or a LIST
	names        []string // of a STRUCT
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
	// DuckDB's DATE has no time of day, a date64 may have one.
	arrow.DATE64: bind.TypeTimestampMS,
	// DuckDB's INTERVAL counts microseconds and months; the plain number loses nothing.
	arrow.DURATION: bind.TypeBigInt,
}

// sqlTypeOf maps a column's Arrow type. Every value must come back equal to the bit when it passes through, so a
// type that DuckDB would shorten gets a wider or a coarser neighbour that holds its bits.
func sqlTypeOf(dt arrow.DataType) (sqlType, error) {
	if id, ok := plainTypes[dt.ID()]; ok {
		return sqlType{id: id}, nil
	}
	switch t := dt.(type) {
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
		if t.Scale >= 0 && t.Scale <= t.Precision {
			return sqlType{id: bind.TypeDecimal, width: uint8(t.Precision), scale: uint8(t.Scale)}, nil
		}
	case *arrow.FixedSizeListType:
		child, err := sqlTypeOf(t.Elem())
		if err == nil && child.plain() && t.Len() > 0 && t.Len() <= maxArray {
			return sqlType{id: bind.TypeArray, size: int(t.Len()), child: &child}, nil
		}
	case *arrow.ListType, *arrow.LargeListType:
		child, err := sqlTypeOf(t.(arrow.ListLikeType).Elem())
		if err == nil {
			return sqlType{id: bind.TypeList, child: &child}, nil
		}
	case *arrow.StructType:
		if st, ok := sqlStruct(t); ok {
			return st, nil
		}
	}
	return sqlType{}, fmt.Errorf("SQL has no type for Arrow's %s; leave the column out of the query", dt)
}

// plain reports whether a type has no others in it.
func (t sqlType) plain() bool { return t.child == nil && t.fields == nil }

// sqlStruct maps structs. SQL's have fields, with names that differ without case.
func sqlStruct(t *arrow.StructType) (sqlType, bool) {
	out := sqlType{id: bind.TypeStruct}
	seen := map[string]bool{"": true}
	for _, f := range t.Fields() {
		field, err := sqlTypeOf(f.Type)
		low := strings.ToLower(f.Name)
		if err != nil || seen[low] {
			return out, false
		}
		seen[low] = true
		out.names, out.fields = append(out.names, f.Name), append(out.fields, field)
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
	case *arrow.FixedSizeListType:
		return arrow.FixedSizeListOf(t.Len(), scanType(t.Elem()))
	case *arrow.ListType:
		return arrow.ListOf(scanType(t.Elem()))
	case *arrow.LargeListType:
		return arrow.LargeListOf(scanType(t.Elem()))
	case *arrow.StructType:
		fields := make([]arrow.Field, t.NumFields())
		for i, f := range t.Fields() {
			fields[i] = arrow.Field{Name: f.Name, Type: scanType(f.Type), Nullable: true}
		}
		return arrow.StructOf(fields...)
	}
	return dt
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
	}
	return bind.CreateLogicalType(t.id)
}

// typeNames are the names of the types in SQL text.
var typeNames = map[bind.Type]string{
	bind.TypeBoolean: "BOOLEAN",
	bind.TypeTinyInt: "TINYINT", bind.TypeSmallInt: "SMALLINT", bind.TypeInteger: "INTEGER", bind.TypeBigInt: "BIGINT",
	bind.TypeUTinyInt: "UTINYINT", bind.TypeUSmallInt: "USMALLINT", bind.TypeUInteger: "UINTEGER", bind.TypeUBigInt: "UBIGINT",
	bind.TypeFloat: "FLOAT", bind.TypeDouble: "DOUBLE", bind.TypeVarchar: "VARCHAR", bind.TypeBlob: "BLOB",
	bind.TypeDate: "DATE", bind.TypeTime: "TIME", bind.TypeTimeNS: "TIME_NS",
	bind.TypeTimestamp: "TIMESTAMP", bind.TypeTimestampS: "TIMESTAMP_S", bind.TypeTimestampMS: "TIMESTAMP_MS",
	bind.TypeTimestampNS: "TIMESTAMP_NS", bind.TypeTimestampTZ: "TIMESTAMP WITH TIME ZONE",
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
	}
	return typeNames[t.id]
}

// sqlTypeOfLogical reads a type back from DuckDB; the error names types that a table cannot have yet.
func sqlTypeOfLogical(l bind.LogicalType) (sqlType, error) {
	t := sqlType{id: bind.GetTypeId(l)}
	if alias := bind.LogicalTypeGetAlias(l); alias != "" {
		return t, fmt.Errorf("type %s is not stored yet; use VARCHAR", alias)
	}
	switch t.id {
	case bind.TypeDecimal:
		t.width, t.scale = bind.DecimalWidth(l), bind.DecimalScale(l)
		return t, nil
	case bind.TypeArray:
		c := bind.ArrayTypeChildType(l)
		defer bind.DestroyLogicalType(&c)
		child, err := sqlTypeOfLogical(c)
		if err != nil {
			return t, err
		}
		if !child.plain() {
			return t, errors.New("arrays of arrays, lists or structs are not stored yet; use a list of them")
		}
		t.size, t.child = int(bind.ArrayTypeArraySize(l)), &child
		return t, nil
	case bind.TypeList:
		c := bind.ListTypeChildType(l)
		defer bind.DestroyLogicalType(&c)
		child, err := sqlTypeOfLogical(c)
		t.child = &child
		return t, err
	case bind.TypeStruct:
		return sqlStructOfLogical(l)
	}
	if _, ok := typeNames[t.id]; !ok {
		return t, fmt.Errorf("this type is not stored yet%s", typeRemedy(t.id))
	}
	return t, nil
}

// sqlStructOfLogical reads a struct back from DuckDB.
func sqlStructOfLogical(l bind.LogicalType) (sqlType, error) {
	t := sqlType{id: bind.TypeStruct}
	for i := range bind.StructTypeChildCount(l) {
		c := bind.StructTypeChildType(l, i)
		field, err := sqlTypeOfLogical(c)
		bind.DestroyLogicalType(&c)
		if err != nil {
			return t, err
		}
		t.names, t.fields = append(t.names, bind.StructTypeChildName(l, i)), append(t.fields, field)
	}
	if slices.Contains(t.names, "") {
		return t, errors.New("structs without names are not stored yet; name the fields")
	}
	return t, nil
}

// typeRemedy says what to use instead of a type that tables cannot have yet.
func typeRemedy(id bind.Type) string {
	switch id {
	case bind.TypeHugeInt, bind.TypeUHugeInt, bind.TypeBigNum:
		return "; use BIGINT or DECIMAL(38,0)"
	case bind.TypeUUID, bind.TypeEnum, bind.TypeBit:
		return "; use VARCHAR"
	case bind.TypeMap:
		return "; use a list of structs such as STRUCT(k VARCHAR, v INTEGER)[]"
	}
	return ""
}

// sqlArrowTypes are the Arrow types of columns that SQL creates.
var sqlArrowTypes = map[bind.Type]arrow.DataType{
	bind.TypeBoolean: arrow.FixedWidthTypes.Boolean,
	bind.TypeTinyInt: arrow.PrimitiveTypes.Int8, bind.TypeSmallInt: arrow.PrimitiveTypes.Int16,
	bind.TypeInteger: arrow.PrimitiveTypes.Int32, bind.TypeBigInt: arrow.PrimitiveTypes.Int64,
	bind.TypeUTinyInt: arrow.PrimitiveTypes.Uint8, bind.TypeUSmallInt: arrow.PrimitiveTypes.Uint16,
	bind.TypeUInteger: arrow.PrimitiveTypes.Uint32, bind.TypeUBigInt: arrow.PrimitiveTypes.Uint64,
	bind.TypeFloat: arrow.PrimitiveTypes.Float32, bind.TypeDouble: arrow.PrimitiveTypes.Float64,
	bind.TypeVarchar: arrow.BinaryTypes.String, bind.TypeBlob: arrow.BinaryTypes.Binary,
	bind.TypeDate: arrow.FixedWidthTypes.Date32,
	bind.TypeTime: arrow.FixedWidthTypes.Time64us, bind.TypeTimeNS: arrow.FixedWidthTypes.Time64ns,
	bind.TypeTimestamp:   &arrow.TimestampType{Unit: arrow.Microsecond},
	bind.TypeTimestampS:  &arrow.TimestampType{Unit: arrow.Second},
	bind.TypeTimestampMS: &arrow.TimestampType{Unit: arrow.Millisecond},
	bind.TypeTimestampNS: &arrow.TimestampType{Unit: arrow.Nanosecond},
	bind.TypeTimestampTZ: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
}

// arrow returns the Arrow type of a column that SQL creates with this type. It maps back to the same SQL type.
func (t sqlType) arrow() arrow.DataType {
	switch t.id {
	case bind.TypeDecimal:
		return &arrow.Decimal128Type{Precision: int32(t.width), Scale: int32(t.scale)}
	case bind.TypeArray:
		return arrow.FixedSizeListOf(int32(t.size), t.child.arrow())
	case bind.TypeList:
		return arrow.ListOf(t.child.arrow())
	case bind.TypeStruct:
		fields := make([]arrow.Field, len(t.fields))
		for i, f := range t.fields {
			fields[i] = arrow.Field{Name: t.names[i], Type: f.arrow(), Nullable: true}
		}
		return arrow.StructOf(fields...)
	}
	return sqlArrowTypes[t.id]
}

// exact says whether a column of the Arrow type comes out of DuckDB in that very type, without our help.
func exact(dt arrow.DataType) bool {
	t, err := sqlTypeOf(dt)
	return err == nil && sameType(t.arrow(), dt)
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
func tableSQL(schema, name string, s *arrow.Schema, key []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s.%s(", quoteIdent(schema), quoteIdent(name))
	for i, f := range s.Fields() {
		if i > 0 {
			b.WriteString(", ")
		}
		typ := "BLOB" // a column that no query can name must still be listed
		if t, err := sqlTypeOf(f.Type); err == nil {
			typ = t.String()
		}
		b.WriteString(quoteIdent(f.Name) + " " + typ)
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

// quoteIdent writes a name as a quoted SQL identifier.
func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
