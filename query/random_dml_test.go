package query

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// dmlSteps is how many statements TestRandomChanges runs from each seed.
var dmlSteps = flag.Int("dml-steps", 150, "statements of TestRandomChanges")

// changeMaker writes random statements that change the tables t, whose key is a number, and u, whose key is two columns.
type changeMaker struct{ r *rand.Rand }

func (m changeMaker) pick(list ...string) string { return list[m.r.IntN(len(list))] }

// id is a random key; there are few, so that statements meet.
func (m changeMaker) id() int { return m.r.IntN(120) - 10 }

// value is a random expression for a column of t; from is what its other columns are seen under.
func (m changeMaker) value(column, from string) string {
	switch column {
	case "a":
		return m.pick("NULL", fmt.Sprint(m.r.IntN(100)), from+".a + 1", "coalesce("+from+".a, 0) * 2 % 1000", "(SELECT count(*) FROM u)", "length("+from+".s)", "DEFAULT")
	case "s":
		return m.pick("NULL", fmt.Sprintf("'v%d'", m.r.IntN(50)), "left("+from+".s || 'x', 20)", "upper("+from+".s)", from+".a", "(SELECT max(y) FROM u WHERE x < 20)", "DEFAULT")
	case "d":
		return m.pick("NULL", from+".d + 1.25", fmt.Sprintf("%d.5", m.r.IntN(90)), "7")
	case "v":
		return m.pick("NULL", fmt.Sprintf("[%d, NULL, 3]", m.r.IntN(9)), fmt.Sprintf("list_value(%s.a, 2, %d)", from, m.r.IntN(9)))
	}
	return m.pick("NULL", fmt.Sprintf("[%d, %s.a]", m.r.IntN(9), from), "[]")
}

// where is a random condition on t.
func (m changeMaker) where() string {
	return m.pick(
		fmt.Sprintf("t.id = %d", m.id()), fmt.Sprintf("t.id BETWEEN %d AND %d", m.id(), m.id()+20), "t.a IS NOT DISTINCT FROM 2", "t.s LIKE 'v%'", "t.a % 3 = 1",
		"t.id IN (SELECT x FROM u)", "t.d > 3", "t.v IS NULL AND t.id > 50", "EXISTS (FROM u WHERE u.x = t.id AND u.y > 'm')", "len(t.l) > 1",
	)
}

// set is a random list of assignments.
func (m changeMaker) set(from string) string {
	var out []string
	for _, i := range m.r.Perm(5)[:1+m.r.IntN(3)] {
		c := []string{"a", "s", "d", "v", "l"}[i]
		out = append(out, c+" = "+m.value(c, from))
	}
	return strings.Join(out, ", ")
}

// rows is a random query of rows for t (id, a, s), with keys that may be stored but come once.
func (m changeMaker) rows() string {
	from, n := m.id(), 1+m.r.IntN(25)
	return m.pick(
		fmt.Sprintf("SELECT i, i %% 7, 'r' || i FROM range(%d, %d) r(i)", from, from+n),
		fmt.Sprintf("SELECT DISTINCT ON (x) x, 3, 'u' FROM u WHERE x < %d", from),
		fmt.Sprintf("SELECT id + %d, a, s FROM t WHERE %s", m.r.IntN(9), m.where()),
		fmt.Sprintf("VALUES (%d, 1, 'w'), (%d + 200, NULL, NULL)", from, from),
	)
}

// statement is a random statement.
func (m changeMaker) statement() string {
	switch m.r.IntN(13) {
	case 0:
		return fmt.Sprintf("INSERT INTO t (id, a, s) VALUES (%d, %d, DEFAULT), (%d, NULL, 'new')", m.id(), m.r.IntN(9), m.id())
	case 1, 2:
		return "INSERT INTO t (id, a, s) " + m.rows()
	case 3, 4:
		return "INSERT INTO t (id, a, s) " + m.rows() + " ON CONFLICT " + m.pick("", "(id) ") + "DO NOTHING"
	case 5:
		set := m.pick("s = excluded.s, a = coalesce(excluded.a, 0) + coalesce(t.a, 0)", "a = excluded.a, d = t.d + 1", m.set("t"))
		return "INSERT INTO t (id, a, s) " + m.rows() + " ON CONFLICT DO UPDATE SET " + set + m.pick("", " WHERE t.a > 1", " WHERE excluded.s <> t.s")
	case 6, 7:
		return "UPDATE t SET " + m.set("t") + " WHERE " + m.where()
	case 8:
		return fmt.Sprintf("UPDATE t SET id = %s, %s WHERE %s", m.pick("id + 1", "-id", fmt.Sprint(m.id()), "id", "id + 300"), m.set("t"), m.where())
	case 9:
		return m.pick("UPDATE t SET a = q.x FROM (SELECT x, max(y) AS y FROM u GROUP BY x) q WHERE q.x = t.id", "UPDATE u SET y = left(u.y || t.a, 20) FROM t WHERE t.id = u.x",
			"UPDATE u SET x = x + 1, y = y || 'k' WHERE x % 9 = 0")
	case 10:
		return "DELETE FROM t WHERE " + m.where()
	case 11:
		return m.pick("DELETE FROM u USING t WHERE u.x = t.id AND t.a > 3", fmt.Sprintf("DELETE FROM u WHERE x = %d", m.id()), "DELETE FROM t USING u WHERE t.id = u.x + 3")
	}
	return m.pick("INSERT INTO u SELECT id, coalesce(s, 'none') FROM t WHERE "+m.where()+" ON CONFLICT DO NOTHING", "INSERT OR REPLACE INTO t BY NAME SELECT id, 'again' AS s FROM t WHERE "+m.where(),
		"CREATE OR REPLACE TABLE k AS SELECT * FROM t WHERE "+m.where(), "INSERT INTO k FROM t WHERE "+m.where(), "TRUNCATE k")
}

// TestRandomChanges runs random statements on an engine and on a DuckDB of its own, and compares all rows after each.
// Between them tables are flushed, merged and opened again.
func TestRandomChanges(t *testing.T) {
	for seed := range uint64(2) {
		p := newPair(t)
		m := changeMaker{rowMaker{}.seeded(seed + 77)}
		for _, sql := range []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER DEFAULT 4, s VARCHAR DEFAULT 'dflt', d DECIMAL(9, 2), v FLOAT[3], l BIGINT[])",
			"CREATE TABLE u (x INTEGER, y VARCHAR, PRIMARY KEY (x, y))",
			"CREATE TABLE k AS FROM t",
			"INSERT INTO t SELECT i, i % 5, 's' || i, i / 4, [i, 1, 2], [i] FROM range(60) r(i)",
			"INSERT INTO u SELECT i * 2, chr(97 + i::INT) FROM range(20) r(i)",
		} {
			p.run(sql)
		}
		done := 0
		for step := range *dmlSteps {
			sql := m.statement()
			after := fmt.Sprintf("seed %d, step %d: %s", seed, step, sql)
			if p.run(sql) {
				done++
			}
			for _, name := range []string{"t", "u", "k"} {
				p.same("FROM "+name, after)
			}
			switch m.r.IntN(20) {
			case 0:
				p.maintain("OPTIMIZE " + m.pick("t", "u", "k"))
			case 1:
				p.reopen(t)
			}
		}
		t.Logf("seed %d: %d of %d statements changed something or could have", seed, done, *dmlSteps)
	}
}

// maintain runs a statement that the twin does not know.
func (p *pair) maintain(sql string) {
	if _, err := runUpdate(p.e, sql, nil); err != nil {
		p.t.Fatalf("%s: %v", sql, err)
	}
}
