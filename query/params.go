package query

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	bind "github.com/duckdb/duckdb-go-bindings"
)

// bindParams binds one row of parameters by place. A query takes exactly one row; nil stands for none.
func bindParams(ps bind.PreparedStatement, params arrow.RecordBatch, row int) error {
	want := int(bind.NParams(ps))
	got := 0
	if params != nil {
		got = int(params.NumCols())
	}
	switch {
	case want != got:
		return errorf(InvalidArgument, "the statement has %d parameters, %d were given", want, got)
	case want == 0:
		return nil
	case params.NumRows() == 0:
		return errorf(InvalidArgument, "the statement has %d parameters, but the batch that should bind them has no row", want)
	}
	for i := range want {
		if err := bindParam(ps, i, params.Column(i), row); err != nil {
			return err
		}
	}
	return nil
}

// bindNamed binds one row of parameters whose columns have the names. The statement has all of them, in any order.
func bindNamed(ps bind.PreparedStatement, params arrow.RecordBatch, row int, names []string) error {
	if int(params.NumCols()) != len(names) {
		return errorf(InvalidArgument, "the statement has %d parameters, %d were given", len(names), params.NumCols())
	}
	if int64(row) >= params.NumRows() {
		return errorf(InvalidArgument, "the statement has %d parameters, but the batch that should bind them has no row", len(names))
	}
	for i := range int(bind.NParams(ps)) {
		name := bind.ParameterName(ps, bind.IdxT(i+1))
		from := slices.Index(names, name)
		if from < 0 {
			return errorf(Internal, "parameter %q is not one of the statement's", name)
		}
		if err := bindParam(ps, i, params.Column(from), row); err != nil {
			return err
		}
	}
	return nil
}

// checkOneRow refuses several rows for a query, of which all but the first would be ignored.
func checkOneRow(params arrow.RecordBatch) error {
	if params != nil && params.NumCols() > 0 && params.NumRows() > 1 {
		return errorf(InvalidArgument, "a query takes one row of parameters, %d were given", params.NumRows())
	}
	return nil
}

// bindParam binds one value.
func bindParam(ps bind.PreparedStatement, i int, column arrow.Array, row int) error {
	v, err := valueOf(column, row)
	if err != nil {
		return errorf(InvalidArgument, "parameter %d: %v", i+1, err)
	}
	if v.Ptr == nil { // DuckDB would dereference it
		return errorf(InvalidArgument, "parameter %d: the value of type %s cannot be bound", i+1, column.DataType())
	}
	defer bind.DestroyValue(&v)
	if bind.BindValue(ps, bind.IdxT(i+1), v) == bind.StateError {
		return errorf(InvalidArgument, "parameter %d: %s", i+1, bind.PrepareError(ps))
	}
	return nil
}

// valueOf makes a DuckDB value of one element. The caller destroys it.
func valueOf(arr arrow.Array, row int) (bind.Value, error) {
	if arr.IsNull(row) {
		return nullValue(arr.DataType()), nil
	}
	switch a := arr.(type) {
	case *array.Null:
		return bind.CreateNullValue(), nil
	case *array.Boolean:
		return bind.CreateBool(a.Value(row)), nil
	case *array.String:
		return stringValue(a.Value(row))
	case *array.LargeString:
		return stringValue(a.Value(row))
	case *array.StringView:
		return stringValue(a.Value(row))
	case *array.Binary:
		return bind.CreateBlob(a.Value(row)), nil
	case *array.LargeBinary:
		return bind.CreateBlob(a.Value(row)), nil
	case *array.FixedSizeBinary:
		return bind.CreateBlob(a.Value(row)), nil
	case *array.Dictionary:
		return valueOf(a.Dictionary(), a.GetValueIndex(row))
	case *array.DenseUnion:
		child := a.Field(a.ChildID(row))
		return valueOf(child, int(a.ValueOffset(row)))
	case *array.Decimal128:
		return decimalValue(a.Value(row), a.DataType().(*arrow.Decimal128Type))
	case *array.FixedSizeList:
		return listValue(a, row, bind.CreateArrayValue)
	case *array.List:
		return listValue(a, row, bind.CreateListValue)
	case *array.LargeList:
		return listValue(a, row, bind.CreateListValue)
	case *array.Struct:
		return structValue(a, row)
	case *array.Map:
		return mapValue(a, row)
	}
	if v, ok := numberValue(arr, row); ok {
		return v, nil
	}
	return timeValue(arr, row)
}

// nullValue makes a null of a type. A null of none would be an INTEGER where nothing else says what it is, so that
// SELECT ? had other columns for a null than for a value. The C API has typed nulls only inside lists.
func nullValue(dt arrow.DataType) bind.Value {
	null := bind.CreateNullValue()
	t, err := sqlTypeOf(arrow.Field{Type: dt})
	if err != nil {
		return null // any cast of it is null, whatever the type
	}
	defer bind.DestroyValue(&null)
	l := t.logical()
	defer bind.DestroyLogicalType(&l)
	list := bind.CreateListValue(l, []bind.Value{null})
	defer bind.DestroyValue(&list)
	return bind.GetListChild(list, 0)
}

// stringValue keeps zero bytes inside the string, which end it in C otherwise. Text that is not UTF-8 is no value for
// DuckDB.
func stringValue(s string) (bind.Value, error) {
	if !utf8.ValidString(s) {
		return bind.Value{}, errors.New("the text is not UTF-8")
	}
	return bind.CreateVarcharLength(s, bind.IdxT(len(s))), nil
}

// numberValue makes values of integers and floats.
func numberValue(arr arrow.Array, row int) (bind.Value, bool) {
	switch a := arr.(type) {
	case *array.Int8:
		return bind.CreateInt8(a.Value(row)), true
	case *array.Int16:
		return bind.CreateInt16(a.Value(row)), true
	case *array.Int32:
		return bind.CreateInt32(a.Value(row)), true
	case *array.Int64:
		return bind.CreateInt64(a.Value(row)), true
	case *array.Uint8:
		return bind.CreateUInt8(a.Value(row)), true
	case *array.Uint16:
		return bind.CreateUInt16(a.Value(row)), true
	case *array.Uint32:
		return bind.CreateUInt32(a.Value(row)), true
	case *array.Uint64:
		return bind.CreateUInt64(a.Value(row)), true
	case *array.Float16:
		return bind.CreateFloat(a.Value(row).Float32()), true
	case *array.Float32:
		return bind.CreateFloat(a.Value(row)), true
	case *array.Float64:
		return bind.CreateDouble(a.Value(row)), true
	}
	return bind.Value{}, false
}

// timeValue makes values of dates and times.
func timeValue(arr arrow.Array, row int) (bind.Value, error) {
	switch a := arr.(type) {
	case *array.Date32:
		return bind.CreateDate(bind.NewDate(int32(a.Value(row)))), nil
	case *array.Date64:
		return bind.CreateTimestampMS(bind.NewTimestampMS(int64(a.Value(row)))), nil
	case *array.Time32:
		unit := a.DataType().(*arrow.Time32Type).Unit
		return bind.CreateTime(bind.NewTime(int64(a.Value(row)) * int64(unit.Multiplier()) / 1000)), nil
	case *array.Time64:
		if a.DataType().(*arrow.Time64Type).Unit == arrow.Nanosecond {
			return bind.CreateTimeNS(bind.NewTimeNS(int64(a.Value(row)))), nil
		}
		return bind.CreateTime(bind.NewTime(int64(a.Value(row)))), nil
	case *array.Duration:
		return durationValue(int64(a.Value(row)), a.DataType().(*arrow.DurationType).Unit)
	case *array.Timestamp:
		return timestampValue(int64(a.Value(row)), a.DataType().(*arrow.TimestampType))
	}
	return bind.Value{}, fmt.Errorf("values of type %s cannot be bound", arr.DataType())
}

// durationValue makes an interval. Nanoseconds below a microsecond do not fit into one.
func durationValue(v int64, unit arrow.TimeUnit) (bind.Value, error) {
	micros, ok := toMicros(v, unit)
	if !ok {
		return bind.Value{}, fmt.Errorf("the duration %d%s does not fit into an INTERVAL", v, unit)
	}
	return bind.CreateInterval(bind.NewInterval(0, 0, micros)), nil
}

// toMicros converts to microseconds, if that loses nothing.
func toMicros(v int64, unit arrow.TimeUnit) (int64, bool) {
	if unit == arrow.Nanosecond {
		return v / 1000, v%1000 == 0
	}
	factor := int64(unit.Multiplier()) / 1000
	return v * factor, v*factor/factor == v
}

// timestampValue makes the timestamp that a column of the same Arrow type would have in SQL.
func timestampValue(v int64, t *arrow.TimestampType) (bind.Value, error) {
	switch timestampID(t) {
	case bind.TypeTimestampNS:
		return bind.CreateTimestampNS(bind.NewTimestampNS(v)), nil
	case bind.TypeTimestampTZ:
		micros, ok := toMicros(v, t.Unit)
		if !ok {
			return bind.Value{}, fmt.Errorf("the timestamp %d%s is out of range", v, t.Unit)
		}
		return bind.CreateTimestampTZ(bind.NewTimestamp(micros)), nil
	case bind.TypeTimestampS:
		return bind.CreateTimestampS(bind.NewTimestampS(v)), nil
	case bind.TypeTimestampMS:
		return bind.CreateTimestampMS(bind.NewTimestampMS(v)), nil
	}
	return bind.CreateTimestamp(bind.NewTimestamp(v)), nil
}

// decimalValue makes a DECIMAL.
func decimalValue(n decimal128.Num, t *arrow.Decimal128Type) (bind.Value, error) {
	if t.Scale < 0 || t.Scale > t.Precision {
		return bind.Value{}, fmt.Errorf("values of type %s cannot be bound", t)
	}
	return bind.CreateDecimal(bind.NewDecimal(uint8(t.Precision), uint8(t.Scale), bind.NewHugeInt(n.LowBits(), n.HighBits()))), nil
}

// structValue makes a STRUCT.
func structValue(a *array.Struct, row int) (bind.Value, error) {
	typ, err := sqlTypeOf(arrow.Field{Type: a.DataType()})
	if err != nil {
		return bind.Value{}, err
	}
	values := make([]bind.Value, 0, a.NumField())
	defer func() {
		for i := range values {
			bind.DestroyValue(&values[i])
		}
	}()
	for i := range a.NumField() {
		v, err := valueOf(a.Field(i), row)
		if err != nil {
			return bind.Value{}, err
		}
		values = append(values, v)
	}
	logical := typ.logical()
	defer bind.DestroyLogicalType(&logical)
	return bind.CreateStructValue(logical, values), nil
}

// mapValue makes a MAP.
func mapValue(a *array.Map, row int) (bind.Value, error) {
	typ, err := sqlTypeOf(arrow.Field{Type: a.DataType()})
	if err != nil {
		return bind.Value{}, err
	}
	from, to := a.ValueOffsets(row)
	var sides [2][]bind.Value
	defer func() {
		for _, side := range sides {
			for i := range side {
				bind.DestroyValue(&side[i])
			}
		}
	}()
	for k, arr := range []arrow.Array{a.Keys(), a.Items()} {
		for i := from; i < to; i++ {
			v, err := valueOf(arr, int(i))
			if err != nil {
				return bind.Value{}, err
			}
			sides[k] = append(sides[k], v)
		}
	}
	logical := typ.logical()
	defer bind.DestroyLogicalType(&logical)
	v := bind.CreateMapValue(logical, sides[0], sides[1])
	if v.Ptr == nil {
		return v, fmt.Errorf("the map of %s cannot be bound; has it a key twice?", a.DataType())
	}
	return v, nil
}

// listValue makes an ARRAY or a LIST, which DuckDB casts to what the statement wants.
func listValue(a array.ListLike, row int, create func(bind.LogicalType, []bind.Value) bind.Value) (bind.Value, error) {
	from, to := a.ValueOffsets(row)
	elem, err := sqlTypeOf(arrow.Field{Type: a.ListValues().DataType()})
	if err != nil {
		return bind.Value{}, err
	}
	values := make([]bind.Value, 0, to-from)
	defer func() {
		for i := range values {
			bind.DestroyValue(&values[i])
		}
	}()
	for i := from; i < to; i++ {
		v, err := valueOf(a.ListValues(), int(i))
		if err != nil {
			return bind.Value{}, err
		}
		if v.Ptr == nil {
			return v, fmt.Errorf("the list of %s cannot be bound", a.ListValues().DataType())
		}
		values = append(values, v)
	}
	l := elem.logical()
	defer bind.DestroyLogicalType(&l)
	v := create(l, values)
	if v.Ptr == nil {
		return v, fmt.Errorf("the list of %s cannot be bound", a.ListValues().DataType())
	}
	return v, nil
}
