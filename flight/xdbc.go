package flight

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// xdbcType is what JDBC and ODBC want to know of a SQL type.
type xdbcType struct {
	name     string
	code     pb.XdbcDataType
	size     int32  // digits, characters or bits; 0 for no limit
	quote    string // around a literal
	params   []string
	scale    int32 // largest number of digits behind the point
	unsigned bool
	subcode  pb.XdbcDatetimeSubcode
}

// xdbcTypes are the types of tables, in the order of their codes as the specification asks.
var xdbcTypes = []xdbcType{
	{name: "BOOLEAN", code: pb.XdbcDataType_XDBC_BIT, size: 1},
	{name: "TINYINT", code: pb.XdbcDataType_XDBC_TINYINT, size: 3},
	{name: "UTINYINT", code: pb.XdbcDataType_XDBC_TINYINT, size: 3, unsigned: true},
	{name: "BIGINT", code: pb.XdbcDataType_XDBC_BIGINT, size: 19},
	{name: "UBIGINT", code: pb.XdbcDataType_XDBC_BIGINT, size: 20, unsigned: true},
	{name: "BLOB", code: pb.XdbcDataType_XDBC_VARBINARY, quote: "'"},
	{name: "DECIMAL", code: pb.XdbcDataType_XDBC_DECIMAL, size: 38, params: []string{"precision", "scale"}, scale: 38},
	{name: "INTEGER", code: pb.XdbcDataType_XDBC_INTEGER, size: 10},
	{name: "UINTEGER", code: pb.XdbcDataType_XDBC_INTEGER, size: 10, unsigned: true},
	{name: "SMALLINT", code: pb.XdbcDataType_XDBC_SMALLINT, size: 5},
	{name: "USMALLINT", code: pb.XdbcDataType_XDBC_SMALLINT, size: 5, unsigned: true},
	{name: "FLOAT", code: pb.XdbcDataType_XDBC_REAL, size: 24},
	{name: "DOUBLE", code: pb.XdbcDataType_XDBC_DOUBLE, size: 53},
	{name: "VARCHAR", code: pb.XdbcDataType_XDBC_VARCHAR, quote: "'"},
	{name: "DATE", code: pb.XdbcDataType_XDBC_DATE, size: 10, quote: "'", subcode: pb.XdbcDatetimeSubcode_XDBC_SUBCODE_DATE},
	{name: "TIME", code: pb.XdbcDataType_XDBC_TIME, size: 15, quote: "'", scale: 6, subcode: pb.XdbcDatetimeSubcode_XDBC_SUBCODE_TIME},
	{name: "TIMESTAMP", code: pb.XdbcDataType_XDBC_TIMESTAMP, size: 29, quote: "'", scale: 9, subcode: pb.XdbcDatetimeSubcode_XDBC_SUBCODE_TIMESTAMP},
	{name: "TIMESTAMP WITH TIME ZONE", code: pb.XdbcDataType_XDBC_TIMESTAMP, size: 35, quote: "'", scale: 6,
		subcode: pb.XdbcDatetimeSubcode_XDBC_SUBCODE_TIMESTAMP_WITH_TIMEZONE},
}

// xdbcRows describes the types, or those of one code.
func xdbcRows(code *int32) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema_ref.XdbcTypeInfo)
	defer b.Release()
	for _, t := range xdbcTypes {
		if code == nil || *code == int32(t.code) {
			t.append(b)
		}
	}
	return b.NewRecordBatch()
}

// append writes the type as a row of XdbcTypeInfo.
func (t xdbcType) append(b *array.RecordBuilder) {
	text := func(i int, v string) {
		if v == "" {
			b.Field(i).AppendNull()
			return
		}
		b.Field(i).(*array.StringBuilder).Append(v)
	}
	number := func(i int, v int32, known bool) {
		if !known {
			b.Field(i).AppendNull()
			return
		}
		b.Field(i).(*array.Int32Builder).Append(v)
	}
	truth := func(i int, v bool) { b.Field(i).(*array.BooleanBuilder).Append(v) }
	numeric := t.quote == "" && t.code != pb.XdbcDataType_XDBC_BIT

	text(0, t.name)
	number(1, int32(t.code), true)
	number(2, t.size, t.size > 0)
	text(3, t.quote)
	text(4, t.quote)
	params := b.Field(5).(*array.ListBuilder)
	params.Append(true)
	params.ValueBuilder().(*array.StringBuilder).AppendValues(t.params, nil)
	number(6, int32(pb.Nullable_NULLABILITY_NULLABLE), true)
	truth(7, t.code == pb.XdbcDataType_XDBC_VARCHAR)
	number(8, int32(pb.Searchable_SEARCHABLE_FULL), true)
	truth(9, t.unsigned)
	truth(10, false)
	truth(11, false)
	text(12, t.name)
	number(13, 0, numeric || t.scale > 0)
	number(14, t.scale, numeric || t.scale > 0)
	number(15, t.sqlDataType(), true)
	number(16, int32(t.subcode), t.subcode != 0)
	number(17, t.radix(), numeric)
	b.Field(18).AppendNull()
}

// sqlDataType is the code without its subcode: dates and times are one type to ODBC.
func (t xdbcType) sqlDataType() int32 {
	if t.subcode != 0 {
		return int32(pb.XdbcDataType_XDBC_DATETIME)
	}
	return int32(t.code)
}

// radix is the base that size counts digits in.
func (t xdbcType) radix() int32 {
	if t.code == pb.XdbcDataType_XDBC_REAL || t.code == pb.XdbcDataType_XDBC_DOUBLE {
		return 2
	}
	return 10
}
