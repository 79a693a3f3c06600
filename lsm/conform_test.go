package lsm

import (
	"context"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lance"
)

// TestConform matches streams to a table by name and casts without loss, or says which column does not fit and why.
func TestConform(t *testing.T) {
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	keyed := createTest(t, db, "t", "id int64 key, n int16, f float, s utf8, b large_binary, v fsl(2,uint8)")
	plain := createTest(t, db, "p", "id int64, s utf8")
	check := func(table *Table, stream, in, want string) {
		t.Helper()
		got, err := conformRows(t, table, stream, in)
		if err != nil {
			require.ErrorAs(t, err, new(*ColumnError))
			require.Contains(t, err.Error(), want)
			return
		}
		require.Equal(t, want, got)
	}
	check(keyed, "id int64, n int16, f float, s utf8, b large_binary, v fsl(2,uint8)", "1 2 0.5 x y [1,2]", "1 2 0.5 x y [1,2]")
	check(keyed, "S large_utf8, ID uint8", "x 7\nnull 8", "7 null null x null null\n8 null null null null null")
	check(keyed, "id int64, f double, n int64, b binary", "1 0.25 -5 raw", "1 -5 0.25 null raw null")
	check(keyed, "id int64, _tombstone bool", "1 true\n2 null", "1 null null null null null true\n2 null null null null null null")
	check(keyed, "id int64, n int32", "1 40000", `column "n": got int32, want int16: the value 40000 in row 0 does not fit`)
	check(keyed, "id uint64", "9223372036854775808", "the value 9223372036854775808 in row 0 does not fit")
	check(keyed, "id int64, f double", "1 0.1", "the value 0.1 in row 0 does not fit")
	check(keyed, "id int64, s int64", "1 1", `column "s": got int64, want utf8: cast it before sending`)
	check(keyed, "id int64, v fsl(3,uint8)", "1 [1,2,3]", `column "v": got fixed_size_list`)
	check(keyed, "n int16", "1", `column "id", want int64: the stream lacks it and it may not be null`)
	check(keyed, "id int64, other utf8", "1 x", `column "other": got utf8: the table has no such column; it has id, n, f, s, b, v`)
	check(keyed, "id int64, Id int64", "1 1", "the stream has it twice")
	check(plain, "id int64, _tombstone bool", "1 true", `table "p" has no primary key; declare one with PRIMARY KEY or the Arrow field metadata lance-schema:unenforced-primary-key`)
}

// conformRows returns the rows of a stream as rows of the table.
func conformRows(t *testing.T, table *Table, stream, in string) (string, error) {
	t.Helper()
	s, err := rows.Schema(stream)
	require.NoError(t, err)
	rec, err := rows.Parse(s, in)
	require.NoError(t, err)
	defer rec.Release()
	c, err := table.Conform(s, ConformOptions{})
	if err != nil {
		return "", err
	}
	out, err := c.Apply(context.Background(), rec)
	if err != nil {
		return "", err
	}
	defer out.Release()
	return strings.Join(rows.Format(out, nil), "\n"), nil
}

// TestConformedRowsAreTheTables puts a stream whose inner field names differ, and one that needs casts.
func TestConformedRowsAreTheTables(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", "id int64 key, v fsl(2,float)")
	named := arrow.FixedSizeListOfField(2, arrow.Field{Name: "element", Type: arrow.PrimitiveTypes.Float32})
	s := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "v", Type: named}}, nil)
	rec, err := rows.Parse(s, "1 [1,2]\n2 [3,4]")
	require.NoError(t, err)
	defer rec.Release()
	lsn, err := table.Put(ctx, Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(ctx, lsn))
	snap, err := db.Snapshot(ctx)
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: "T"})
	require.NoError(t, err)
	got, err := scanRows(ctx, v, []int{1, 0})
	require.NoError(t, err)
	require.Equal(t, []string{"[1,2] 1", "[3,4] 2"}, got)
	_, err = table.Put(ctx, Batch{Record: rec.NewSlice(0, 0)})
	require.NoError(t, err, "a batch without rows is no error")
}

// TestPrimaryKey reads the key that a schema declares, as liberally as Lance does.
func TestPrimaryKey(t *testing.T) {
	check := func(want []string, metadata ...map[string]string) {
		t.Helper()
		var fields []arrow.Field
		for i, m := range metadata {
			fields = append(fields, arrow.Field{Name: string(rune('a' + i)), Type: arrow.PrimitiveTypes.Int64, Nullable: true, Metadata: arrow.MetadataFrom(m)})
		}
		schema := arrow.NewSchema(fields, nil)
		got, err := PrimaryKey(schema)
		require.NoError(t, err)
		require.Equal(t, want, got)
		_, key, err := keyedSchema(TableDef{Name: TableName{Name: "t"}, Schema: schema})
		require.NoError(t, err)
		require.Equal(t, want, key)
	}
	key := func(v string) map[string]string { return map[string]string{lance.MetaKey: v} }
	place := func(v string) map[string]string { return map[string]string{lance.MetaKeyPosition: v} }
	check([]string{}, nil, key("false"))
	check([]string{"b"}, nil, key("true"))
	check([]string{"a", "c"}, key("1"), nil, key("TRUE"))
	check([]string{"c", "a", "b"}, place("2"), key("true"), place("1"))
	_, err := PrimaryKey(arrow.NewSchema([]arrow.Field{{Name: "m", Type: arrow.ListViewOf(arrow.BinaryTypes.String)}}, nil))
	require.ErrorIs(t, err, ErrInvalid)
}
