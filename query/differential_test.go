package query

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	bind "github.com/duckdb/duckdb-go-bindings"
	"github.com/stretchr/testify/require"
)

func disconnect(c *bind.Connection)             { bind.Disconnect(c) }
func destroyExtracted(x *extraction)            { bind.DestroyExtracted(&x.list) }
func destroyPrepare(ps *bind.PreparedStatement) { bind.DestroyPrepare(ps) }

// twinQueries are run on both sides; rows are compared in order when the text says ORDER BY ALL at its end, as a
// set otherwise.
var twinQueries = []string{
	"SELECT * FROM t",
	"SELECT count(*) FROM t",
	"SELECT count(*), count(s), count(emb) FROM t",
	"SELECT s FROM t",
	"SELECT emb, id FROM t",
	"SELECT pix, s, b, id FROM t",
	"SELECT de, ts, d, bl, b, f64, f32, u8, i32, id FROM t",
	"SELECT id, tz FROM t WHERE i32 > 0",
	"SELECT s, id FROM t WHERE s LIKE 'a%' AND u8 < 128",
	"SELECT id FROM t WHERE s = 'a' OR s IS NULL",
	"SELECT id, emb FROM t WHERE id BETWEEN 1000 AND 1100",
	"SELECT id, bl FROM t WHERE octet_length(bl) > 12",
	"SELECT id FROM t WHERE emb IS NULL AND pix IS NOT NULL",
	"SELECT b, count(*), sum(id), min(s), max(s), min(ts), max(tz), sum(de) FROM t GROUP BY b ORDER BY ALL",
	"SELECT s, count(*) AS n, sum(f64) FROM t GROUP BY s ORDER BY n DESC, s NULLS FIRST LIMIT 50",
	"SELECT length(s) AS l, count(DISTINCT s), max(bl) FROM t GROUP BY l ORDER BY ALL",
	"SELECT * FROM t ORDER BY id DESC LIMIT 7",
	"SELECT s, id FROM t ORDER BY s NULLS LAST, id LIMIT 100 OFFSET 13",
	"SELECT id, s FROM t ORDER BY ALL",
	"SELECT a.id, b.s FROM t a JOIN t b ON a.id = b.id WHERE a.i32 = 3",
	"SELECT a.id, b.id FROM t a JOIN u b ON a.s = b.s AND length(a.s) > 3",
	"SELECT count(*) FROM t a, u b WHERE a.i32 = b.i32",
	"SELECT t.id, u.emb FROM t LEFT JOIN u USING (id) WHERE t.u8 = 7",
	"SELECT id FROM t WHERE id IN (SELECT id FROM u WHERE b)",
	"SELECT id FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.id = t.id AND u.i32 > 0)",
	"SELECT id, (SELECT max(s) FROM u WHERE u.i32 = t.i32) FROM t WHERE id < 300",
	"WITH x AS (SELECT s, id FROM t WHERE b) SELECT x.s, count(*) FROM x JOIN x y ON x.id = y.id GROUP BY 1 ORDER BY ALL",
	"WITH x AS MATERIALIZED (SELECT s, emb, id FROM t) SELECT a.s, b.emb FROM x a JOIN x b USING (id) WHERE a.id % 17 = 0",
	"WITH RECURSIVE r AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n, (SELECT count(*) FROM t WHERE i32 = n) FROM r",
	"SELECT id, row_number() OVER (PARTITION BY i32 ORDER BY id), lag(s) OVER (PARTITION BY i32 ORDER BY id) FROM t",
	"SELECT id, sum(u8) OVER (ORDER BY id ROWS BETWEEN 3 PRECEDING AND CURRENT ROW), first_value(s) OVER (ORDER BY id) FROM t",
	"SELECT s FROM t UNION SELECT s FROM u",
	"SELECT s, id FROM t UNION ALL SELECT s, id FROM u",
	"SELECT i32 FROM t EXCEPT SELECT i32 FROM u WHERE b",
	"SELECT DISTINCT b, u8 FROM t",
	"SELECT DISTINCT ON (i32) i32, id FROM t ORDER BY i32, id",
	"SELECT list_sum(emb::FLOAT[]), array_distance(emb, [1, 2, 3, 4]::FLOAT[4]) FROM t WHERE emb IS NOT NULL",
	"SELECT emb[2], pix[3] FROM t",
	"SELECT min(emb), max(pix), first(s ORDER BY id), string_agg(s, ',' ORDER BY id) FROM t WHERE id < 500",
	"SELECT list(s ORDER BY id) FROM t WHERE id < 2000",
	"SELECT p, count(*) FROM (SELECT unnest(pix) AS p FROM t) GROUP BY p",
	"SELECT upper(s), s || '!', reverse(s), id FROM t WHERE contains(s, 'b')",
	"SELECT date_trunc('month', ts) AS m, count(*) FROM t GROUP BY m",
	"SELECT extract(year FROM tz) AS y, count(*) FROM t GROUP BY y",
	"SELECT i32, s FROM t QUALIFY row_number() OVER (PARTITION BY i32 ORDER BY id) = 1",
	"PIVOT (SELECT i32, u8 FROM t WHERE u8 < 3) ON u8 IN (0, 1, 2) USING count(*)",
	"FROM t SELECT id WHERE id % 1000 = 1",
	"SELECT * FROM t POSITIONAL JOIN (SELECT 1)",
	"SELECT t.id FROM t ASOF JOIN u ON t.id >= u.id",
	"SELECT id FROM t WHERE f32 > 100 AND f64 < 5000 AND d > DATE '1990-01-01' AND de > 1.5",
	"SELECT sum(i32) FILTER (WHERE b), avg(f32), median(u8) FROM t",
	"SELECT s, count(*) FROM t GROUP BY ROLLUP (s) ORDER BY ALL",
	"SELECT * FROM (SELECT id, s FROM t LIMIT 0)",
	"SELECT t.s, u.s FROM t FULL JOIN u ON t.id = u.id + 100000",
	"SELECT count(*) FROM t a, t b, t c WHERE a.id = b.id AND b.id = c.id",
	"SELECT EXISTS (FROM t), (SELECT count(*) FROM u), 1 WHERE (SELECT count(*) FROM t) >= 0",
}

// comparable returns rows in an order that both sides share.
func comparable(sql string, rows []string) []string {
	if strings.Contains(sql, "ORDER BY ALL") || strings.Contains(sql, "LIMIT") && strings.Contains(sql, "ORDER BY") {
		return rows
	}
	return slices.Sorted(slices.Values(rows))
}

// isPositional says whether a query depends on the order in which rows are scanned.
func isPositional(sql string) bool { return strings.Contains(sql, "POSITIONAL") }

// TestScanEqualsTable compares every query with a DuckDB that has the rows in tables of its own, for tables cut in
// different ways.
func TestScanEqualsTable(t *testing.T) {
	for name, p := range map[string]morselPlan{
		"one morsel":      {sizes: []int{3000}, alive: []float64{1}, all: true},
		"many morsels":    {sizes: []int{1, 2047, 2048, 2049, 0, 500}, alive: []float64{1}},
		"sliced":          {sizes: []int{700, 2500, 65, 1}, alive: []float64{1}, slice: true},
		"half alive":      {sizes: []int{5000, 100, 2048}, alive: []float64{0.5}},
		"sparse":          {sizes: []int{7000, 3000}, alive: []float64{0.003, 0.05}, slice: true},
		"dead and alive":  {sizes: []int{2500, 900, 1500, 2100}, alive: []float64{0, 1, 0.98, 0.2}, slice: true, all: true},
		"nothing":         {},
		"only dead":       {sizes: []int{3000}, alive: []float64{0}},
		"tiny morsels":    {sizes: slices.Repeat([]int{3}, 400), alive: []float64{1, 0.5}, slice: true},
		"nearly all dead": {sizes: []int{6000}, alive: []float64{0.0005}},
	} {
		t.Run(name, func(t *testing.T) {
			m := rowMaker{rand.New(rand.NewPCG(1, uint64(len(name))))}
			s := &memStore{}
			rows := map[string][]string{
				"t": m.table(t, s, "t", wideSchema, p),
				"u": m.table(t, s, "u", wideSchema, morselPlan{sizes: []int{400, 900}, alive: []float64{0.7}}),
			}
			twin := newTwin(t, wideSchema, rows)
			e := newTestEngine(t, s)
			for i, sql := range twinQueries {
				if isPositional(sql) && len(p.sizes) > 1 || !p.all && (i+len(name))%2 == 0 {
					continue
				}
				want := comparable(sql, twinRows(t, twin, sql))
				rec := collectRows(t, e, sql, nil)
				got := comparable(sql, printRows(rec))
				rec.Release()
				requireRows(t, want, got, sql)
			}
		})
	}
}

// TestConcurrentQueries runs queries from eight goroutines over one engine.
func TestConcurrentQueries(t *testing.T) {
	m := rowMaker{rand.New(rand.NewPCG(7, 7))}
	s := &memStore{}
	rows := map[string][]string{
		"t": m.table(t, s, "t", wideSchema, morselPlan{sizes: []int{3000, 100, 5000}, alive: []float64{1, 0.5}}),
		"u": m.table(t, s, "u", wideSchema, morselPlan{sizes: []int{400}, alive: []float64{1}}),
	}
	twin := newTwin(t, wideSchema, rows)
	e := newTestEngine(t, s)
	var queries []string
	want := map[string][]string{}
	for i, sql := range twinQueries {
		if i%3 == 0 && !isPositional(sql) {
			queries = append(queries, sql)
			want[sql] = comparable(sql, twinRows(t, twin, sql))
		}
	}
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range queries {
				sql := queries[(i+g*5)%len(queries)]
				rec, err := tryRows(e, sql, nil)
				if err != nil {
					errs <- fmt.Errorf("%s: %w", sql, err)
					return
				}
				got := comparable(sql, printRows(rec))
				rec.Release()
				if !slices.Equal(want[sql], got) {
					errs <- fmt.Errorf("%s: other rows", sql)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
}
