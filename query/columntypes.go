package query

import (
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// jsonAlias is how DuckDB calls a VARCHAR that holds JSON.
const jsonAlias = "JSON"

// sqlTypeOfLogical reads the type of a column back from DuckDB; the error says what a table cannot have, and what to
// use instead.
func sqlTypeOfLogical(l bind.LogicalType) (sqlType, error) {
	t := sqlType{id: bind.GetTypeId(l)}
	switch alias := bind.LogicalTypeGetAlias(l); {
	case alias == jsonAlias && t.id == bind.TypeVarchar:
		t.json = true
		return t, nil
	case alias != "":
		return t, fmt.Errorf("type %s cannot be stored; use VARCHAR", alias)
	}
	switch t.id {
	case bind.TypeDecimal:
		t.width, t.scale = bind.DecimalWidth(l), bind.DecimalScale(l)
		return t, nil
	case bind.TypeArray:
		return sqlArrayOfLogical(l)
	case bind.TypeList:
		c := bind.ListTypeChildType(l)
		defer bind.DestroyLogicalType(&c)
		child, err := sqlTypeOfLogical(c)
		t.child = &child
		return t, err
	case bind.TypeStruct:
		return sqlStructOfLogical(l)
	case bind.TypeMap:
		return sqlMapOfLogical(l)
	}
	if _, ok := typeNames[t.id]; !ok {
		return t, unstored(t.id)
	}
	return t, nil
}

// sqlArrayOfLogical reads an array back from DuckDB. Lance's are of values of one width.
func sqlArrayOfLogical(l bind.LogicalType) (sqlType, error) {
	c := bind.ArrayTypeChildType(l)
	defer bind.DestroyLogicalType(&c)
	child, err := sqlTypeOfLogical(c)
	if err != nil {
		return sqlType{}, err
	}
	switch child.id {
	case bind.TypeVarchar, bind.TypeBlob, bind.TypeArray, bind.TypeList, bind.TypeStruct:
		return sqlType{}, fmt.Errorf("arrays of %s cannot be stored, only those of values of one width; use a list, %s[]", child, child)
	}
	return sqlType{id: bind.TypeArray, size: int(bind.ArrayTypeArraySize(l)), child: &child}, nil
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
		return t, errors.New("structs without names cannot be stored; name the fields")
	}
	return t, nil
}

// sqlMapOfLogical reads a map back from DuckDB.
func sqlMapOfLogical(l bind.LogicalType) (sqlType, error) {
	t := sqlType{id: bind.TypeMap, names: []string{"key", "value"}}
	for _, part := range []func(bind.LogicalType) bind.LogicalType{bind.MapTypeKeyType, bind.MapTypeValueType} {
		c := part(l)
		field, err := sqlTypeOfLogical(c)
		bind.DestroyLogicalType(&c)
		if err != nil {
			return t, err
		}
		t.fields = append(t.fields, field)
	}
	return t, nil
}

// unstoredTypes are the types that SQL has and Lance has not, with what to use instead.
var unstoredTypes = map[bind.Type]string{
	bind.TypeHugeInt:  "HUGEINT cannot be stored: its 39 digits are one more than a decimal of 128 bits has; use DECIMAL(38,0)",
	bind.TypeUHugeInt: "UHUGEINT cannot be stored: its 39 digits are one more than a decimal of 128 bits has; use DECIMAL(38,0)",
	bind.TypeBigNum:   "BIGNUM cannot be stored: Lance has no integers of any length; use DECIMAL(38,0) or VARCHAR",
	bind.TypeEnum:     "ENUM cannot be stored: Lance does not keep the list of its values; use VARCHAR",
	bind.TypeBit:      "BIT cannot be stored: Lance has no strings of bits; use VARCHAR, or BLOB for whole bytes",
	bind.TypeTimeTZ:   "TIME WITH TIME ZONE cannot be stored: Lance's times have no zone; use TIME and a column for the offset, or TIMESTAMPTZ",
	bind.TypeInterval: "INTERVAL cannot be stored: Lance has none; use BIGINT for a number of microseconds, or STRUCT(months INTEGER, days INTEGER, micros BIGINT)",
	bind.TypeUnion:    "UNION cannot be stored: Lance has none; use a STRUCT with a field for each member",
	bind.TypeVariant:  "VARIANT cannot be stored: Lance has none; use JSON",
	bind.TypeGeometry: "GEOMETRY cannot be stored: Lance has none; use BLOB for its WKB",
	bind.TypeSQLNull:  "a column of nothing but NULL has no type; cast it, as in NULL::INTEGER",
}

// unstored says why a type cannot be a table's.
func unstored(id bind.Type) error {
	if why, ok := unstoredTypes[id]; ok {
		return errors.New(why)
	}
	return errors.New("this type cannot be stored; cast it, for example to VARCHAR")
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
	bind.TypeUUID:        &arrow.FixedSizeBinaryType{ByteWidth: uuidBytes},
}

// field returns the column that SQL creates with this type. It maps back to the same SQL type.
func (t sqlType) field(name string) arrow.Field {
	f := arrow.Field{Name: name, Nullable: true, Type: sqlArrowTypes[t.id]}
	switch {
	case t.id == bind.TypeUUID:
		f.Metadata = extensionField(extensionUUID)
	case t.json:
		f.Metadata = extensionField(extensionJSON)
	case t.id == bind.TypeDecimal:
		f.Type = &arrow.Decimal128Type{Precision: int32(t.width), Scale: int32(t.scale)}
	case t.id == bind.TypeArray:
		f.Type = arrow.FixedSizeListOfField(int32(t.size), t.child.field("item"))
	case t.id == bind.TypeList:
		f.Type = arrow.ListOfField(t.child.field("item"))
	case t.id == bind.TypeStruct:
		fields := make([]arrow.Field, len(t.fields))
		for i, child := range t.fields {
			fields[i] = child.field(t.names[i])
		}
		f.Type = arrow.StructOf(fields...)
	case t.id == bind.TypeMap:
		key := t.fields[0].field("key")
		key.Nullable = false
		f.Type = arrow.MapOfFields(key, t.fields[1].field("value"))
	}
	return f
}

// natural returns the Arrow type in which DuckDB hands out values of this type.
func (t sqlType) natural() arrow.DataType {
	switch t.id {
	case bind.TypeUUID:
		return arrow.BinaryTypes.String // as text
	case bind.TypeArray:
		return arrow.FixedSizeListOf(int32(t.size), t.child.natural())
	case bind.TypeList:
		return arrow.ListOf(t.child.natural())
	case bind.TypeStruct:
		fields := make([]arrow.Field, len(t.fields))
		for i, f := range t.fields {
			fields[i] = arrow.Field{Name: t.names[i], Type: f.natural(), Nullable: true}
		}
		return arrow.StructOf(fields...)
	case bind.TypeMap:
		return arrow.MapOf(t.fields[0].natural(), t.fields[1].natural())
	}
	return t.field("").Type
}

// exact says whether a column comes out of DuckDB in its very type, without our help.
func exact(f arrow.Field) bool {
	t, err := sqlTypeOf(f)
	return err == nil && !hasTypeMetadata(f) && sameType(t.natural(), f.Type)
}
