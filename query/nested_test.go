package query

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

// TestNestedRowsOfMorsels scans lists and structs of which some rows live, through windows that begin anywhere in a
// morsel, in slices and in small morsels.
func TestNestedRowsOfMorsels(t *testing.T) {
	s := &memStore{}
	for i, dt := range nestedTypes() {
		rec := typesTable(t, s, fmt.Sprintf("all%d", i), []arrow.DataType{dt}, 9000)
		var large, small []uint32
		for row := range uint32(9000) {
			if row%3 != 1 && row/1000 != 4 {
				large = append(large, row)
			}
			if row < 700 && row%5 == 2 {
				small = append(small, row)
			}
		}
		name := fmt.Sprintf("some%d", i)
		s.add(t, name, rec.Schema(), nil, memMorsel{rec: rec, live: large}, memMorsel{rec: rec.NewSlice(11, 711), live: small})
		e := newTestEngine(t, s)
		got := collectRows(t, e, "SELECT * FROM "+name, nil)
		want := map[string]int{}
		for _, row := range large {
			want[rawCell(rec.Column(0), int(row))+rawCell(rec.Column(1), int(row))]++
		}
		for _, row := range small {
			want[rawCell(rec.Column(0), int(row)+11)+rawCell(rec.Column(1), int(row)+11)]++
		}
		for row := range int(got.NumRows()) {
			want[rawCell(got.Column(0), row)+rawCell(got.Column(1), row)]--
		}
		for row, n := range want {
			require.Zero(t, n, "%s: %s", dt, row)
		}
		got.Release()
		require.NoError(t, e.Close())
	}
}

// TestNestedExpressions looks into lists and structs, and makes tables with them by SQL.
func TestNestedExpressions(t *testing.T) {
	s := &memStore{}
	e := newTestEngine(t, s)
	run := func(sql string) []string {
		t.Helper()
		rec := collectRows(t, e, sql, nil)
		defer rec.Release()
		return printRows(rec)
	}
	exec := func(sql string) {
		t.Helper()
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err)
	}
	exec(`CREATE TABLE t (id INT PRIMARY KEY, l INT[], s STRUCT(a VARCHAR, "b c" DOUBLE[]), d STRUCT(x INT)[])`)
	require.Equal(t, []string{`id INTEGER`, `l INTEGER[]`, `s STRUCT(a VARCHAR, "b c" DOUBLE[])`, `d STRUCT(x INTEGER)[]`},
		run("SELECT column_name || ' ' || column_type FROM (DESCRIBE t)"))
	exec("INSERT INTO t VALUES (1, [1, NULL, 3], {a: 'x', 'b c': [0.5]}, [{x: 7}, {x: NULL}]), (2, NULL, {a: NULL, 'b c': NULL}, [])")
	require.Equal(t, []string{"4 x 7 2", "NULL NULL NULL 0"}, run("SELECT concat_ws(' ', coalesce(list_sum(l)::VARCHAR, 'NULL'), coalesce(s.a, 'NULL'), coalesce(d[1].x::VARCHAR, 'NULL'), len(d)) FROM t ORDER BY id"))
	require.Equal(t, []string{"1", "3", "NULL"}, run("SELECT coalesce(x::VARCHAR, 'NULL') FROM (SELECT unnest(l) AS x FROM t) ORDER BY x NULLS LAST"))
}
