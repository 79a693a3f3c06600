package flight

import (
	"math"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Bit masks and ordinals of FlightSql.proto, where its enums are too long to be read in a table.
const (
	sortedAtEnd     = int32(pb.SqlNullOrdering_SQL_NULLS_SORTED_AT_END)
	caseInsensitive = int32(pb.SqlSupportedCaseSensitivity_SQL_CASE_SENSITIVITY_CASE_INSENSITIVE)
	noTransactions  = int32(pb.SqlSupportedTransaction_SQL_SUPPORTED_TRANSACTION_NONE)
	isolationNone   = int32(pb.SqlTransactionIsolationLevel_SQL_TRANSACTION_NONE)
	fullOuterJoins  = int32(pb.SqlOuterJoinsSupportLevel_SQL_FULL_OUTER_JOINS)

	groupByAny     = int32(1<<pb.SqlSupportedGroupBy_SQL_GROUP_BY_UNRELATED | 1<<pb.SqlSupportedGroupBy_SQL_GROUP_BY_BEYOND_SELECT)
	grammarCore    = int32(1<<pb.SupportedSqlGrammar_SQL_MINIMUM_GRAMMAR | 1<<pb.SupportedSqlGrammar_SQL_CORE_GRAMMAR)
	ansi92Entry    = int32(1 << pb.SupportedAnsi92SqlGrammarLevel_ANSI92_ENTRY_SQL)
	subqueriesAll  = int32(0b1111) // comparisons, EXISTS, IN, quantified
	unionsAll      = int32(0b11)   // UNION and UNION ALL
	forwardOnly    = int32(1 << pb.SqlSupportedResultSetType_SQL_RESULT_SET_TYPE_FORWARD_ONLY)
	readOnlyCursor = int32(1 << pb.SqlSupportedResultSetConcurrency_SQL_RESULT_SET_CONCURRENCY_READ_ONLY)
)

// sqlInfoOf returns the answers of a server of the version, to every id of FlightSql.proto: JDBC fails with a null
// pointer on ids that are left out. A number of 0 means that there is no limit, or none that is known. The Go types
// choose the branch of the answer's union.
func sqlInfoOf(version string, sessionIdle time.Duration) map[uint32]any {
	info := map[uint32]any{
		0: "flightd", 1: version, 2: arrow.PkgVersion,
		3: false, // read only
		4: true,  // SQL
		5: false, // Substrait, with no lowest and no highest version
		6: "", 7: "",
		8:   noTransactions,
		9:   true,                                                  // CancelFlightInfo
		10:  true,                                                  // bulk ingestion by CommandStatementIngest
		11:  false,                                                 // bulk ingestion inside a transaction
		100: int32(min(sessionIdle.Milliseconds(), math.MaxInt32)), // after which a prepared statement is closed
		101: int32(0),                                              // the same for transactions

		500: false, 501: false, 502: true, // CREATE and DROP of catalogs, schemas, tables
		503: caseInsensitive, 504: `"`, 505: caseInsensitive,
		506: true, // all tables are selectable
		507: sortedAtEnd,
		508: []string{}, 509: numericFunctions, 510: stringFunctions, 511: systemFunctions, 512: dateFunctions,
		513: `\`, 514: "",
		515: true, 516: true, // column aliases; NULL + NULL is NULL
		517: map[int32][]int32{}, // the CONVERT escape of ODBC
		518: true,                // table aliases
		519: false,               // which need not differ from table names
		520: true, 521: true,     // ORDER BY expressions, and columns that are not selected
		522: groupByAny, 523: true, // LIKE … ESCAPE
		524: true, // NOT NULL columns
		525: grammarCore, 526: ansi92Entry,
		527: false, // foreign keys
		528: fullOuterJoins,
		529: "schema", 530: "", 531: "catalog", 532: true,
		533: int32(0), 534: int32(0), 535: int32(0),
		536: false, 537: false, // SELECT FOR UPDATE, stored procedures
		538: subqueriesAll, 539: true, 540: unionsAll,
		556: false,                // rows have no limit that could include blobs
		562: int64(isolationNone), // an ordinal, which the JDBC driver takes in this branch only
		563: false, 564: int32(1 << pb.SqlTransactionIsolationLevel_SQL_TRANSACTION_NONE),
		565: false, 566: false,
		567: forwardOnly, 568: int32(0), 569: readOnlyCursor, 570: int32(0), 571: int32(0),
		572: true,              // batches of parameters
		573: false, 574: false, // savepoints, parameters by name
		575: false, 576: false,
	}
	for id := uint32(541); id <= 561; id++ { // lengths and counts
		if _, ok := info[id]; !ok {
			info[id] = int64(0)
		}
	}
	info[559] = int64(maxTableNameBytes)
	return info
}

// maxTableNameBytes is the longest table name that the engine takes.
const maxTableNameBytes = 80

// Functions of DuckDB that JDBC and ODBC know by the same names.
var (
	numericFunctions = []string{"ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "CEILING", "COS", "COT", "DEGREES", "EXP", "FLOOR",
		"LOG", "LOG10", "MOD", "PI", "POWER", "RADIANS", "ROUND", "SIGN", "SIN", "SQRT", "TAN"}
	stringFunctions = []string{"ASCII", "CONCAT", "LCASE", "LEFT", "LENGTH", "LOWER", "LTRIM", "POSITION", "REPEAT", "REPLACE",
		"RIGHT", "RTRIM", "SUBSTRING", "TRIM", "UCASE", "UPPER"}
	systemFunctions = []string{"COALESCE", "IFNULL"}
	dateFunctions   = []string{"CURRENT_DATE", "DAYNAME", "DAYOFMONTH", "DAYOFWEEK", "DAYOFYEAR", "EXTRACT", "HOUR", "MINUTE",
		"MONTH", "MONTHNAME", "NOW", "QUARTER", "SECOND", "WEEK", "YEAR"}
)

// sqlInfoRows answers ids, all of them when none is given.
func sqlInfoRows(info map[uint32]any, ids []uint32) (arrow.RecordBatch, error) {
	if len(ids) == 0 {
		for id := range info {
			ids = append(ids, id)
		}
		slices.Sort(ids)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema_ref.SqlInfo)
	defer b.Release()
	names := b.Field(0).(*array.Uint32Builder)
	values := b.Field(1).(*array.DenseUnionBuilder)
	for _, id := range ids {
		value, ok := info[id]
		if !ok {
			return nil, notFound("SqlInfo %d is not known to this server", id)
		}
		names.Append(id)
		appendSQLInfo(values, value)
	}
	return b.NewRecordBatch(), nil
}

// appendSQLInfo appends a value to the branch of the union that its type chooses.
func appendSQLInfo(union *array.DenseUnionBuilder, value any) {
	switch v := value.(type) {
	case string:
		union.Append(0)
		union.Child(0).(*array.StringBuilder).Append(v)
	case bool:
		union.Append(1)
		union.Child(1).(*array.BooleanBuilder).Append(v)
	case int64:
		union.Append(2)
		union.Child(2).(*array.Int64Builder).Append(v)
	case int32:
		union.Append(3)
		union.Child(3).(*array.Int32Builder).Append(v)
	case []string:
		union.Append(4)
		list := union.Child(4).(*array.ListBuilder)
		list.Append(true)
		list.ValueBuilder().(*array.StringBuilder).AppendValues(v, nil)
	case map[int32][]int32:
		union.Append(5)
		appendConversions(union.Child(5).(*array.MapBuilder), v)
	}
}

// appendConversions appends a map of lists.
func appendConversions(b *array.MapBuilder, conversions map[int32][]int32) {
	b.Append(true)
	lists := b.ItemBuilder().(*array.ListBuilder)
	for from, to := range conversions {
		b.KeyBuilder().(*array.Int32Builder).Append(from)
		lists.Append(true)
		lists.ValueBuilder().(*array.Int32Builder).AppendValues(to, nil)
	}
}
