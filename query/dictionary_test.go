package query

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm"
)

// TestDictionaries has columns whose rows are plain values and whose type is a dictionary that counts less of them than
// there are: a result comes in batches that each have a dictionary of their own.
func TestDictionaries(t *testing.T) {
	const rows = 1000
	of := func(name string, index, value arrow.DataType) arrow.Field {
		d := &arrow.DictionaryType{IndexType: index, ValueType: value, Ordered: true}
		return arrow.Field{Name: name, Type: value, Nullable: true, Metadata: lsm.DictionaryMetadata(d, arrow.Metadata{})}
	}
	item := of("item", arrow.PrimitiveTypes.Int8, arrow.BinaryTypes.LargeString)
	fields := []arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64}, of("s", arrow.PrimitiveTypes.Int8, arrow.BinaryTypes.String), of("n", arrow.PrimitiveTypes.Uint8, arrow.PrimitiveTypes.Int64),
		{Name: "l", Type: arrow.LargeListOfField(item), Nullable: true}, {Name: "st", Type: arrow.StructOf(item), Nullable: true}, {Name: "plain", Type: arrow.BinaryTypes.String, Nullable: true},
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(offheap.Default, schema)
	defer b.Release()
	for i := range rows {
		text := fmt.Sprintf(`"value %d"`, i)
		if i%10 == 3 {
			text = "null"
		}
		row := fmt.Sprintf(`{"id": %d, "s": %s, "n": %d, "l": [%s, "x"], "st": {"item": %s}, "plain": %s}`, i, text, i/2, text, text, text)
		require.NoError(t, b.UnmarshalJSON([]byte(row)))
	}
	s := &memStore{}
	s.add(t, "x", schema, []string{"id"}, memMorsel{rec: b.NewRecordBatch()})
	e := newTestEngine(t, s)

	st, err := e.Prepare(t.Context(), nil, "SELECT id, s, n, l, st, plain FROM x ORDER BY id")
	require.NoError(t, err)
	want := lsm.WireSchema(schema)
	for i, f := range st.DatasetSchema().Fields() {
		require.True(t, arrow.TypeEqual(want.Field(i).Type, f.Type), "%s is %s", f.Name, f.Type)
	}
	r, err := st.Query(t.Context(), nil)
	require.NoError(t, err)
	defer r.Close()
	seen := 0
	for seen < rows {
		rec, err := r.Next(t.Context())
		require.NoError(t, err)
		require.Less(t, rec.NumRows(), int64(200))
		for i := range int(rec.NumRows()) {
			text := fmt.Sprintf("value %d", seen)
			if seen%10 == 3 {
				text = array.NullValueStr
			}
			require.Equal(t, text, rec.Column(1).ValueStr(i))
			require.Equal(t, fmt.Sprint(seen/2), rec.Column(2).ValueStr(i))
			require.Equal(t, text, rec.Column(5).ValueStr(i))
			from, _ := rec.Column(3).(array.ListLike).ValueOffsets(i)
			require.Equal(t, text, rec.Column(3).(array.ListLike).ListValues().ValueStr(int(from)))
			require.Equal(t, text, rec.Column(4).(*array.Struct).Field(0).ValueStr(i))
			seen++
		}
		rec.Release()
	}
	for sql, want := range map[string]string{
		"upper(s)": "utf8", "n + 1": "int64", "s": want.Field(1).Type.String(), "max(s)": "utf8", "coalesce(s, plain)": "utf8",
	} {
		st, err := e.Prepare(t.Context(), nil, "SELECT "+sql+" FROM x")
		require.NoError(t, err)
		require.Equal(t, want, st.DatasetSchema().Field(0).Type.String(), sql)
	}
	_, err = tryRows(e, "SELECT s FROM x UNION ALL SELECT plain FROM x", nil)
	require.NoError(t, err)
}
