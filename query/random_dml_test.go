package query

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// dmlSteps is how many statements TestRandomChanges runs from each of its two seeds, the first of which is dmlSeed.
var (
	dmlSteps = flag.Int("dml-steps", 250, "statements of TestRandomChanges from each seed")
	dmlSeed  = flag.Uint64("dml-seed", 0, "first seed of TestRandomChanges")
)

// changeMaker writes random statements that change the tables t, whose key is a number, u, whose key is two columns, w,
// whose key is a text, and k, which has the columns of t and no key. Where the twin's answer is open, because several
// rows of a source match one, or wrong (RETURNING of WHEN NOT MATCHED BY SOURCE), they are not made.
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

// returning is a random list, or none.
func (m changeMaker) returning(table string) string {
	return m.pick("", "", "", " RETURNING *", " RETURNING "+table+".*, 1 + 1 AS two", " RETURNING COLUMNS('a|s|x|y')")
}

// source is a random query of rows (id, a, s) whose ids come once.
func (m changeMaker) source() string {
	from := m.id()
	return m.pick(fmt.Sprintf("(SELECT i AS id, i %% 5 AS a, 'm' || i AS s FROM range(%d, %d) r(i)) q", from, from+20), fmt.Sprintf("(SELECT DISTINCT ON (x) x AS id, 9 AS a, 'u' AS s FROM u WHERE x > %d) q", from),
		"(SELECT id + 1 AS id, a, s FROM t WHERE "+m.where()+") q", fmt.Sprintf("(VALUES (%d, 1, 'v'), (%d, NULL, NULL)) q(id, a, s)", from, from+150))
}

// merge is a random MERGE into t or k.
func (m changeMaker) merge() string {
	into := m.pick("t", "t", "k")
	sql := fmt.Sprintf("MERGE INTO %s USING %s ON %s.id = q.id", into, m.source(), into)
	sql += m.pick("", fmt.Sprintf(" WHEN MATCHED AND %s.a > %d THEN DELETE", into, m.r.IntN(6)), " WHEN MATCHED AND q.a = 3 THEN DO NOTHING", " WHEN MATCHED AND q.a = 4 THEN ERROR 'four'")
	sql += m.pick("", " WHEN MATCHED THEN UPDATE SET s = q.s, a = coalesce(q.a, 0) + "+into+".a", " WHEN MATCHED THEN UPDATE BY NAME", " WHEN MATCHED THEN UPDATE SET a = DEFAULT, d = "+into+".d + 1", " WHEN MATCHED THEN DELETE")
	sql += m.pick(" WHEN NOT MATCHED THEN INSERT BY NAME", " WHEN NOT MATCHED AND a IS NOT NULL THEN INSERT (id, s) VALUES (id, upper(s))", " WHEN NOT MATCHED THEN DO NOTHING")
	if m.r.IntN(4) == 0 {
		return sql + m.pick(fmt.Sprintf(" WHEN NOT MATCHED BY SOURCE AND id %% 17 = %d THEN DELETE", m.r.IntN(17)), " WHEN NOT MATCHED BY SOURCE AND a = 2 THEN UPDATE SET s = 'alone'")
	}
	return sql + m.pick("", "", " RETURNING merge_action, *", " RETURNING id, merge_action || '!' AS what")
}

// loose is a random statement on tables whose rows have no key, or a text for one.
func (m changeMaker) loose() string {
	where := strings.ReplaceAll(m.where(), "t.", "k.")
	switch m.r.IntN(7) {
	case 0, 1:
		return "UPDATE k SET " + m.set("k") + m.pick("", ", id = k.id + 1") + " WHERE " + where + m.returning("k")
	case 2:
		return "DELETE FROM k WHERE " + where + m.returning("k")
	case 3:
		return m.pick("UPDATE k SET s = q.s FROM "+m.source()+" WHERE q.id = k.id", "DELETE FROM k USING "+m.source()+" WHERE q.id = k.id AND q.a > 1"+m.returning("k"), "INSERT INTO k FROM k WHERE "+where+m.returning("k"))
	case 4:
		return fmt.Sprintf("INSERT INTO w SELECT 'v' || i, i FROM range(%d, %d) r(i) ON CONFLICT %s", m.r.IntN(20), m.r.IntN(50), m.pick("DO NOTHING", "DO UPDATE SET n = w.n + excluded.n")) + m.returning("w")
	case 5:
		return m.pick("UPDATE w SET n = n + 1, s = s || '~' WHERE s LIKE '%1'", "UPDATE w SET n = NULL WHERE n % 4 = 1", "DELETE FROM w WHERE n > 30 OR s LIKE '%~~'", "DELETE FROM w USING k WHERE w.s = k.s") + m.returning("w")
	}
	return "MERGE INTO w USING (SELECT s, max(a) AS n FROM k WHERE s IS NOT NULL GROUP BY s) q ON w.s = q.s WHEN MATCHED THEN UPDATE SET n = q.n WHEN NOT MATCHED THEN INSERT BY NAME" + m.pick("", " RETURNING merge_action, w.*")
}

// statement is a random statement.
func (m changeMaker) statement() string {
	switch m.r.IntN(19) {
	case 13, 14:
		return m.merge()
	case 15, 16, 17, 18:
		return m.loose()
	case 0:
		return fmt.Sprintf("INSERT INTO t (id, a, s) VALUES (%d, %d, DEFAULT), (%d, NULL, 'new')", m.id(), m.r.IntN(9), m.id()) + m.returning("t")
	case 1, 2:
		return "INSERT INTO t (id, a, s) " + m.rows() + m.returning("t")
	case 3, 4:
		return "INSERT INTO t (id, a, s) " + m.rows() + " ON CONFLICT " + m.pick("", "(id) ") + "DO NOTHING" + m.returning("t")
	case 5:
		set := m.pick("s = excluded.s, a = coalesce(excluded.a, 0) + coalesce(t.a, 0)", "a = excluded.a, d = t.d + 1", m.set("t"))
		return "INSERT INTO t (id, a, s) " + m.rows() + " ON CONFLICT DO UPDATE SET " + set + m.pick("", " WHERE t.a > 1", " WHERE excluded.s <> t.s") + m.returning("t")
	case 6, 7:
		return "UPDATE t SET " + m.set("t") + " WHERE " + m.where() + m.returning("t")
	case 8:
		return fmt.Sprintf("UPDATE t SET id = %s, %s WHERE %s", m.pick("id + 1", "-id", fmt.Sprint(m.id()), "id", "id + 300"), m.set("t"), m.where())
	case 9:
		return m.pick("UPDATE t SET a = q.x FROM (SELECT x, max(y) AS y FROM u GROUP BY x) q WHERE q.x = t.id", "UPDATE u SET y = left(u.y || t.a, 20) FROM t WHERE t.id = u.x",
			"UPDATE u SET x = x + 1, y = y || 'k' WHERE x % 9 = 0")
	case 10:
		return "DELETE FROM t WHERE " + m.where() + m.returning("t")
	case 11:
		return m.pick("DELETE FROM u USING t WHERE u.x = t.id AND t.a > 3", fmt.Sprintf("DELETE FROM u WHERE x = %d", m.id()), "DELETE FROM t USING u WHERE t.id = u.x + 3")
	}
	return m.pick("INSERT INTO u SELECT id, coalesce(s, 'none') FROM t WHERE "+m.where()+" ON CONFLICT DO NOTHING", "INSERT OR REPLACE INTO t BY NAME SELECT id, 'again' AS s FROM t WHERE "+m.where(),
		"INSERT INTO k SELECT * FROM t WHERE "+m.where(), "INSERT INTO k FROM t WHERE "+m.where(), m.pick("TRUNCATE k", "INSERT INTO k FROM t"))
}

// TestRandomChanges runs random statements on an engine and on a DuckDB of its own, and compares all rows after each.
// Between them tables are flushed, merged and opened again.
func TestRandomChanges(t *testing.T) {
	for seed := *dmlSeed; seed < *dmlSeed+2; seed++ {
		p := newPair(t)
		m := changeMaker{rowMaker{}.seeded(seed + 77)}
		for _, sql := range []string{
			"CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER DEFAULT 4, s VARCHAR DEFAULT 'dflt', d DECIMAL(9, 2), v FLOAT[3], l BIGINT[])",
			"CREATE TABLE u (x INTEGER, y VARCHAR, PRIMARY KEY (x, y))",
			"CREATE TABLE k (id INTEGER, a INTEGER DEFAULT 4, s VARCHAR DEFAULT 'dflt', d DECIMAL(9, 2), v FLOAT[3], l BIGINT[])",
			"CREATE TABLE w (s VARCHAR PRIMARY KEY, n INTEGER)",
			"INSERT INTO t SELECT i, i % 5, 's' || i, i / 4, [i, 1, 2], [i] FROM range(60) r(i)",
			"INSERT INTO k SELECT * FROM t WHERE id < 40",
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
			for _, name := range []string{"t", "u", "k", "w"} {
				p.same("FROM "+name, after)
			}
			switch m.r.IntN(20) {
			case 0:
				p.maintain("OPTIMIZE " + m.pick("t", "u", "k", "w"))
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
