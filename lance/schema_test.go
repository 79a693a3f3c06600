package lance

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

// storable is one of each type that a file can hold.
var storable = []arrow.DataType{
	arrow.Null, arrow.FixedWidthTypes.Boolean,
	arrow.PrimitiveTypes.Int8, arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64,
	arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Uint16, arrow.PrimitiveTypes.Uint32, arrow.PrimitiveTypes.Uint64,
	arrow.FixedWidthTypes.Float16, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64,
	arrow.BinaryTypes.String, arrow.BinaryTypes.LargeString, arrow.BinaryTypes.Binary, arrow.BinaryTypes.LargeBinary,
	arrow.FixedWidthTypes.Date32, arrow.FixedWidthTypes.Date64,
	arrow.FixedWidthTypes.Time32s, arrow.FixedWidthTypes.Time32ms,
	arrow.FixedWidthTypes.Time64us, arrow.FixedWidthTypes.Time64ns,
	&arrow.TimestampType{Unit: arrow.Second}, &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"},
	&arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "Europe/Berlin"},
	arrow.FixedWidthTypes.Duration_s, arrow.FixedWidthTypes.Duration_ms,
	arrow.FixedWidthTypes.Duration_us, arrow.FixedWidthTypes.Duration_ns,
	&arrow.Decimal128Type{Precision: 38, Scale: 10}, &arrow.Decimal256Type{Precision: 76, Scale: -2},
	&arrow.FixedSizeBinaryType{ByteWidth: 3}, &arrow.FixedSizeBinaryType{ByteWidth: 16},
	arrow.FixedSizeListOf(4, arrow.PrimitiveTypes.Float32), arrow.FixedSizeListOf(784, arrow.PrimitiveTypes.Uint8),
	arrow.FixedSizeListOf(3, arrow.FixedWidthTypes.Boolean),
	arrow.FixedSizeListOf(2, &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}),
	arrow.FixedSizeListOf(2, &arrow.FixedSizeBinaryType{ByteWidth: 5}),
}

func TestLogicalTypesGoThereAndBack(t *testing.T) {
	seen := map[string]bool{}
	// A zone with a colon, by itself and in a list. Lance before version 7 cannot read it.
	colon := &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "+01:30"}
	for _, dt := range append([]arrow.DataType{colon, arrow.FixedSizeListOf(2, colon)}, storable...) {
		name, err := logicalType(dt)
		require.NoError(t, err)
		require.False(t, seen[name], name)
		seen[name] = true
		back, err := parseLogicalType(name)
		require.NoError(t, err)
		require.True(t, arrow.TypeEqual(dt, back), "%s came back as %s", dt, back)
	}
}

func TestOtherTypesAreRefused(t *testing.T) {
	for _, dt := range []arrow.DataType{
		arrow.ListOf(arrow.BinaryTypes.BinaryView),
		arrow.FixedSizeListOf(2, arrow.StructOf()), arrow.ListViewOf(arrow.Null), tooDeep(),
		&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String},
		arrow.FixedWidthTypes.MonthInterval, arrow.BinaryTypes.StringView,
		arrow.FixedSizeListOf(2, arrow.BinaryTypes.String),
		arrow.FixedSizeListOf(2, arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int8)),
		arrow.FixedSizeListOf(1<<30, arrow.PrimitiveTypes.Int64),
	} {
		_, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{{Name: "odd", Type: dt}}, nil), 0)
		require.ErrorIs(t, err, ErrUnsupported, "%s", dt)
		require.ErrorContains(t, err, `column "odd"`)
	}
	for _, name := range []string{
		"", "struct", "list", "int65", "timestamp", "timestamp:us", "timestamp:years:-", "decimal:128:39:0", "decimal:1",
		"decimal:128:x:1", "fixed_size_binary:0", "fixed_size_binary:x", "fixed_size_list:float", "fixed_size_list:float:x",
		"fixed_size_list:float:-1", "fixed_size_list:string:4", "fixed_size_list:fixed_size_list:float:2:2", "dict:string:int8:false",
	} {
		_, err := parseLogicalType(name)
		require.Error(t, err, "%q", name)
	}
}

func TestMapsNeedLaterFiles(t *testing.T) {
	m := arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Int64)
	s, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{{Name: "l", Type: arrow.ListOf(m)}}, nil), 0)
	require.NoError(t, err)
	require.NoError(t, s.Check(Version22))
	require.ErrorIs(t, s.Check(Version20), ErrUnsupported)
	_, err = Create(t.Context(), object.NewMem(), "f", s, WriterOptions{})
	require.ErrorContains(t, err, `column "l.item"`)
}

// tooDeep is a list of lists beyond what is followed.
func tooDeep() arrow.DataType {
	dt := arrow.DataType(arrow.Null)
	for range maxDepth + 1 {
		dt = arrow.ListOf(dt)
	}
	return dt
}

func TestNestedFieldsHaveIDs(t *testing.T) {
	s, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: arrow.PrimitiveTypes.Int8}, {Name: "b", Type: nested[5]}, {Name: "c", Type: nested[0]},
	}, nil), 7)
	require.NoError(t, err)
	require.Equal(t, []int32{7, 8, 9, 10, 11, 12, 13, 14}, s.FieldIDs())
	require.EqualValues(t, 14, s.LastID())
	var paths []string
	s.walk(func(_ *Field, path string) { paths = append(paths, path) })
	require.Equal(t, []string{"a", "b", "b.item", "b.item.x", "b.item.text", "b.item.bits", "c", "c.item"}, paths)
	back, err := SchemaFromProto(s.Proto(), nil)
	require.NoError(t, err)
	require.Equal(t, s.FieldIDs(), back.FieldIDs())
	require.True(t, s.Arrow().Equal(back.Arrow()))
}

func TestStoredTreesThatAreNone(t *testing.T) {
	f := func(want string, fields ...*lancepb.Field) {
		t.Helper()
		_, err := SchemaFromProto(fields, nil)
		require.ErrorContains(t, err, want)
	}
	field := func(id, parent int32, dt string) *lancepb.Field {
		return &lancepb.Field{Name: fmt.Sprint("f", id), Id: id, ParentId: parent, LogicalType: dt}
	}
	f(`column "f1": there is no field 0 before it`, field(1, 0, "int8"), field(0, -1, "struct"))
	f(`column "f0": type "list": a list with 0 children`, field(0, -1, "list"))
	f(`column "f0": type "list": a list with 2 children`, field(0, -1, "list"), field(1, 0, "int8"), field(2, 0, "int8"))
	f(`column "f0": type "int8" with nested fields`, field(0, -1, "int8"), field(1, 0, "int8"))
	f(`column "f0": "f1": a map with 0 children`, field(0, -1, "struct"), field(1, 0, "map"))
	f(`column "f0": a map whose entries are int8`, field(0, -1, "map"), field(1, 0, "int8"))
	deep := []*lancepb.Field{field(0, -1, "list")}
	for i := range int32(maxDepth) {
		deep = append(deep, field(i+1, i, "list"))
	}
	f("nested more than", append(deep, field(maxDepth+1, maxDepth, "int8"))...)
}

func keyField(name, position string) arrow.Field {
	md := map[string]string{MetaKey: "true"}
	if position != "" {
		md[MetaKeyPosition] = position
	}
	return arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int64, Metadata: arrow.MetadataFrom(md)}
}

func TestSchemaGoesThereAndBack(t *testing.T) {
	md := arrow.MetadataFrom(map[string]string{"of": "schema"})
	fields := []arrow.Field{keyField("b", "2"), keyField("a", "1"), {Name: "v", Type: arrow.BinaryTypes.String, Nullable: true,
		Metadata: arrow.MetadataFrom(map[string]string{"of": "field"})}}
	want := arrow.NewSchema(fields, &md)

	s, err := SchemaFromArrow(want, 7)
	require.NoError(t, err)
	require.Equal(t, []int32{7, 8, 9}, []int32{s.Fields[0].ID, s.Fields[1].ID, s.Fields[2].ID})
	require.Equal(t, []int{2, 1, 0}, []int{s.Fields[0].Key, s.Fields[1].Key, s.Fields[2].Key})
	require.True(t, want.Equal(s.Arrow()), "%s", s.Arrow())

	proto := s.Proto()
	require.True(t, proto[0].UnenforcedPrimaryKey)
	require.EqualValues(t, 2, proto[0].UnenforcedPrimaryKeyPosition)
	require.EqualValues(t, -1, proto[2].ParentId)
	back, err := SchemaFromProto(proto, bytesMap(s.Metadata))
	require.NoError(t, err)
	require.True(t, want.Equal(back.Arrow()), "%s", back.Arrow())
	require.Equal(t, s, back)
}

func TestKeyOrder(t *testing.T) {
	f := func(fields []arrow.Field, want ...int) {
		t.Helper()
		s, err := SchemaFromArrow(arrow.NewSchema(fields, nil), 0)
		require.NoError(t, err)
		for i, key := range want {
			require.Equal(t, key, s.Fields[i].Key, "column %d", i)
		}
		back, err := SchemaFromProto(s.Proto(), nil)
		require.NoError(t, err)
		require.Equal(t, s.Fields, back.Fields)
	}
	f([]arrow.Field{keyField("a", ""), keyField("b", "")}, 1, 2)
	f([]arrow.Field{keyField("a", "2"), keyField("b", "1")}, 2, 1)
	f([]arrow.Field{keyField("a", ""), keyField("b", "5")}, 2, 1)

	_, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{keyField("a", "1"), keyField("b", "1")}, nil), 0)
	require.ErrorContains(t, err, `"a" and "b" have the same place 1`)

	// A key that was set without metadata says its order where the ids do not.
	s, err := SchemaFromArrow(arrow.NewSchema([]arrow.Field{keyField("a", ""), keyField("b", "")}, nil), 0)
	require.NoError(t, err)
	s.Fields[0].Key, s.Fields[1].Key = 2, 1
	back, err := SchemaFromProto(s.Proto(), nil)
	require.NoError(t, err)
	require.Equal(t, 2, back.Fields[0].Key)
	require.Equal(t, 1, back.Fields[1].Key)
}
