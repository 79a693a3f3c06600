package query

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

// TestOrderByDistanceIsServedByTheIndex asks in every way in which a statement may say it, and compares with what comes when all distances are
// computed: the index serves where it should, rows are in order, and nearly all of the nearest are found.
func TestOrderByDistanceIsServedByTheIndex(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, tag VARCHAR, n INTEGER, v FLOAT[4])")
	rows := "SELECT i, 't' || (i %% 5), i %% 100, [sin(i) * 3, cos(i * 7), sin(i * i), cos(i * i * 3)]::FLOAT[4] FROM range(%d, %d) r(i)"
	h.update("INSERT INTO docs " + fmt.Sprintf(rows, 0, 8000))
	h.update("OPTIMIZE docs")
	h.update("CREATE INDEX near ON docs USING IVF_PQ (v) WITH (num_partitions = 16, num_sub_vectors = 2)")
	h.update("INSERT INTO docs " + fmt.Sprintf(rows, 8000, 9000))
	h.update("CREATE VIEW tagged AS SELECT id, tag, v FROM docs WHERE tag <> 't0'")
	h.update("CREATE TABLE names (tag VARCHAR PRIMARY KEY, name VARCHAR)")
	h.update("INSERT INTO names SELECT 't' || i, 'name' || i FROM range(5) r(i)")
	const exact = " + 0" // what stands behind the distance so that nothing but DuckDB computes it
	f := func(served bool, sql string, params ...arrow.Array) {
		t.Helper()
		var rec arrow.RecordBatch
		if params != nil {
			rec = paramsOf(params...)
			defer rec.Release()
		}
		run := func(sql string) []string {
			got, err := tryRows(h.e, sql, rec)
			require.NoError(t, err, sql)
			defer got.Release()
			return printRows(got)
		}
		asked := strings.ReplaceAll(sql, "§", "")
		got, want := run(asked), run(strings.ReplaceAll(sql, "§", exact))
		require.Len(t, got, len(want), sql)
		found := 0
		for _, row := range want {
			if strings.Contains("\n"+strings.Join(got, "\n")+"\n", "\n"+row+"\n") {
				found++
			}
		}
		require.GreaterOrEqual(t, float64(found), 0.9*float64(len(want)), "%s: %v, exact %v", sql, got, want)
		lines := strings.Join(explainLines(t, h.e, asked, rec), "\n")
		require.Equal(t, served, strings.Contains(lines, "index near"), "%s: %s", sql, lines)
		require.NotContains(t, strings.Join(explainLines(t, h.e, strings.ReplaceAll(sql, "§", exact), rec), "\n"), "nearest")
	}
	q := "[1.5, 0.2, -0.3, 0.1]"
	f(true, "SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
	f(true, "SELECT id FROM docs ORDER BY array_distance("+q+"::FLOAT[4], v)§ LIMIT 20")
	f(true, "SELECT id FROM docs ORDER BY array_distance(v, CAST("+q+" AS FLOAT[4]))§ LIMIT 20 OFFSET 30")
	f(true, "SELECT id FROM docs ORDER BY array_distance(v, array_value(1.5::FLOAT, 0.1::FLOAT + 0.1::FLOAT, -0.3::FLOAT, sin(0)::FLOAT))§ ASC NULLS LAST LIMIT 20")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, (SELECT "+q+"::FLOAT[4]))§ LIMIT 20") // DuckDB knows it only when the statement runs
	f(true, "SELECT id FROM docs ORDER BY (v <-> "+q+"::FLOAT[4])§ LIMIT 20")
	f(true, "SELECT id, array_distance(v, "+q+"::FLOAT[4]) AS d FROM docs ORDER BY d§, id DESC LIMIT 20")
	f(false, "SELECT id FROM docs WHERE tag = 't3' AND n > 20 ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20") // among so few all are compared
	f(true, "SELECT id FROM docs WHERE tag <> 't3' AND n > 20 ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
	f(true, "SELECT id FROM docs WHERE array_distance(v, "+q+"::FLOAT[4]) < 30 ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
	f(true, "SELECT id FROM tagged ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
	f(true, "SELECT name, s.id FROM (SELECT id, tag FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20) s JOIN names USING (tag)")
	f(true, "WITH s AS (SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20) SELECT id FROM docs WHERE id IN (FROM s)")
	vector := vectors(4, 1.5, 0.2, -0.3, 0.1)
	f(true, "SELECT id FROM docs ORDER BY array_distance(v, ?::FLOAT[4])§ LIMIT 20", vector)
	f(true, "SELECT id FROM docs ORDER BY array_distance(?, v)§ LIMIT 20", vector)
	f(true, "SELECT id FROM docs WHERE n < ? ORDER BY array_distance(v, ?::FLOAT[4])§ LIMIT ? OFFSET ?", int64s(70), vector, int64s(20), int64s(5))
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ DESC LIMIT 20")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ NULLS FIRST LIMIT 20")
	f(false, "SELECT id FROM docs ORDER BY array_cosine_distance(v, "+q+"::FLOAT[4])§ LIMIT 20") // the index ranks by l2
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§, id")
	f(false, "SELECT id FROM docs ORDER BY id, array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
	f(false, "SELECT id FROM docs JOIN names USING (tag) ORDER BY array_distance(v, "+q+"::FLOAT[4])§, id LIMIT 20")
	f(false, "SELECT a.id FROM docs a WHERE a.id < 30 ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
	f(false, "SELECT tag, min(array_distance(v, "+q+"::FLOAT[4]))§ FROM docs GROUP BY tag ORDER BY 2 LIMIT 3")
	f(false, "SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 8999")
	h.update("OPTIMIZE docs")
	f(true, "SELECT id FROM docs ORDER BY array_distance(v, "+q+"::FLOAT[4])§ LIMIT 20")
}
