package query

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// alterHarness runs statements on a table of the storage engine.
type alterHarness struct {
	t *testing.T
	e *Engine
}

func newAlterHarness(t *testing.T) alterHarness {
	db, e := openAll(t, t.TempDir())
	t.Cleanup(func() {
		require.NoError(t, e.Close())
		require.NoError(t, db.Close())
	})
	return alterHarness{t, e}
}

func (h alterHarness) update(sql string) {
	h.t.Helper()
	_, err := runUpdate(h.e, sql, nil)
	require.NoError(h.t, err, sql)
}

func (h alterHarness) fails(code Code, message, sql string) {
	h.t.Helper()
	_, err := runUpdate(h.e, sql, nil)
	require.ErrorContains(h.t, err, message, sql)
	require.Equal(h.t, code, codeOf(h.t, err), sql)
}

func (h alterHarness) rows(sql string) []string {
	h.t.Helper()
	rec := collectRows(h.t, h.e, sql, nil)
	defer rec.Release()
	return printRows(rec)
}

func TestAlterTable(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (a INT DEFAULT 3, id BIGINT PRIMARY KEY, body VARCHAR)")
	h.update("INSERT INTO docs (id, body) VALUES (1, 'one'), (2, 'two')")
	h.update("OPTIMIZE docs")
	h.update("INSERT INTO docs (id, body) VALUES (3, 'three')")

	h.update("ALTER TABLE docs ADD COLUMN lang VARCHAR DEFAULT concat('e', 'n')")
	h.update("ALTER TABLE main.docs ADD n DECIMAL(9, 2) DEFAULT 1.5 NOT NULL")
	h.update("ALTER TABLE docs ADD v FLOAT[2]")
	h.update("ALTER TABLE docs ADD COLUMN IF NOT EXISTS LANG INT")
	require.Equal(t, []string{"3 | 1 | one | en | 1.5 | NULL", "3 | 2 | two | en | 1.5 | NULL", "3 | 3 | three | en | 1.5 | NULL"}, h.rows("FROM docs ORDER BY id"))
	h.update("INSERT INTO docs (id) VALUES (4)")
	require.Equal(t, []string{"3 | 4 | NULL | en | 1.5 | NULL"}, h.rows("FROM docs WHERE id = 4"))

	h.update("ALTER TABLE docs DROP COLUMN a") // in front of the key, which DuckDB itself refuses
	h.update("ALTER TABLE docs RENAME COLUMN id TO \"Key\"")
	h.update("ALTER TABLE docs RENAME body TO text")
	h.update("ALTER TABLE docs DROP COLUMN IF EXISTS a")
	h.update("ALTER TABLE IF EXISTS nothing DROP COLUMN a")
	require.Equal(t, []string{"4 | NULL | en | 1.5 | NULL"}, h.rows("FROM docs WHERE key = 4"))
	h.update("UPDATE docs SET text = 'four', lang = DEFAULT WHERE key = 4")
	_, err := runUpdate(h.e, "INSERT INTO docs (key) VALUES (4)", nil)
	require.Equal(t, AlreadyExists, codeOf(t, err))

	h.update("ALTER TABLE docs ALTER COLUMN lang SET DEFAULT 'de'")
	h.update("ALTER TABLE docs ALTER n DROP NOT NULL")
	h.update("ALTER TABLE docs ALTER n DROP DEFAULT")
	h.update("ALTER TABLE docs ALTER COLUMN lang SET NOT NULL")
	h.update("INSERT INTO docs (key, text) VALUES (5, 'five')")
	require.Equal(t, []string{"1 | one | en | 1.5", "2 | two | en | 1.5", "3 | three | en | 1.5", "4 | four | en | 1.5", "5 | five | de | NULL"},
		h.rows("SELECT key, text, lang, n FROM docs ORDER BY key"))
	want := []string{
		"Key | BIGINT | NO | PRI | NULL | NULL", "text | VARCHAR | YES | NULL | NULL | NULL", "lang | VARCHAR | NO | NULL | 'de' | NULL",
		"n | DECIMAL(9,2) | YES | NULL | NULL | NULL", "v | FLOAT[2] | YES | NULL | NULL | NULL",
	}
	require.Equal(t, want, h.rows("DESCRIBE docs"))
	h.update("OPTIMIZE docs")
	require.Equal(t, want, h.rows("DESCRIBE docs"))
	require.Equal(t, []string{"5 | five | de | NULL | NULL"}, h.rows("FROM docs WHERE key = 5"))
}

// TestAlterTableAddsNestedColumns has defaults with commas in them, which the base gets in a file of its own.
func TestAlterTableAddsNestedColumns(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY)")
	h.update("INSERT INTO docs VALUES (1), (2)")
	h.update("OPTIMIZE docs")
	h.update("ALTER TABLE docs ADD COLUMN s STRUCT(x INT, l VARCHAR[]) DEFAULT {'x': 1, 'l': ['a', 'b']}")
	h.update("ALTER TABLE docs ADD COLUMN l INT[] DEFAULT [1, 2]")
	want := []string{"1 | 1 | b | 2", "2 | 1 | b | 2"}
	require.Equal(t, want, h.rows("SELECT id, s.x, s.l[2], l[2] FROM docs ORDER BY id"))
	h.update("OPTIMIZE docs")
	require.Equal(t, want, h.rows("SELECT id, s.x, s.l[2], l[2] FROM docs ORDER BY id"))
}

func TestAlterTableRefuses(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, body VARCHAR, s STRUCT(x INT))")
	h.update("INSERT INTO docs VALUES (1, NULL, {'x': 1})")
	for _, c := range []struct {
		code         Code
		message, sql string
	}{
		{FailedPrecondition, `column "id" is part of the primary key`, "ALTER TABLE docs DROP COLUMN id"},
		{FailedPrecondition, `column "id" is part of the primary key`, "ALTER TABLE docs ALTER COLUMN id DROP NOT NULL"},
		{FailedPrecondition, `column "n" may not be null`, "ALTER TABLE docs ADD COLUMN n INT NOT NULL"},
		{FailedPrecondition, `column "body" has nulls`, "ALTER TABLE docs ALTER COLUMN body SET NOT NULL"},
		{AlreadyExists, "already exists", "ALTER TABLE docs ADD COLUMN BODY INT"},
		{AlreadyExists, "already exists", "ALTER TABLE docs RENAME id TO body"},
		{InvalidArgument, "does not have a column", "ALTER TABLE docs DROP COLUMN nothing"},
		{InvalidArgument, "does not have a column", "ALTER TABLE docs RENAME nothing TO x"},
		{InvalidArgument, "reserved column name", "ALTER TABLE docs ADD COLUMN _score FLOAT"},
		{InvalidArgument, "reserved column name", "ALTER TABLE docs RENAME body TO _tombstone"},
		{InvalidArgument, "syntax error", "ALTER TABLE docs ADD COLUMN x INT) AS SELECT (1"},
		{InvalidArgument, "one change at a time", "ALTER TABLE docs ADD COLUMN x INT, y INT"},
		{InvalidArgument, "syntax error", "ALTER TABLE docs DROP COLUMN body, DROP COLUMN s"},
		{NotFound, "nothing", "ALTER TABLE nothing DROP COLUMN body"},
		{NotFound, "nothing", "ALTER TABLE docs ADD COLUMN x nothing"},
		{InvalidArgument, "Conversion Error", "ALTER TABLE docs ADD COLUMN x INT DEFAULT 'abc'"},
		{Unimplemented, "differs from row to row", "ALTER TABLE docs ADD COLUMN x DOUBLE DEFAULT random()"},
		{Unimplemented, "", "ALTER TABLE docs ADD COLUMN x INT CHECK (x > 0)"},
		{Unimplemented, "", "ALTER TABLE docs ADD COLUMN x INT UNIQUE"},
		{Unimplemented, "", "ALTER TABLE docs ADD COLUMN x INT GENERATED ALWAYS AS (id)"},
		{InvalidArgument, "", "ALTER TABLE docs ADD COLUMN x INT PRIMARY KEY"},
		{Unimplemented, "field within a column", "ALTER TABLE docs DROP COLUMN s.x"},
		{InvalidArgument, "does not have all its values", "ALTER TABLE docs ALTER COLUMN body TYPE INT"},
		{Unimplemented, "USING", "ALTER TABLE docs ALTER COLUMN body TYPE INT USING 1"},
		{InvalidArgument, "a type is expected", "ALTER TABLE docs ALTER COLUMN body SET DATA TYPE"},
		{Unimplemented, "", "ALTER TABLE docs RENAME TO other"},
	} {
		h.fails(c.code, c.message, c.sql)
	}
	require.Equal(t, []string{"id", "body", "s"}, strings.Fields(strings.Join(h.rows("SELECT column_name FROM information_schema.columns WHERE table_name = 'docs' ORDER BY ordinal_position"), " ")))
}

// TestStatementsOutliveAnAlteration runs statements that were prepared before their table was altered.
func TestStatementsOutliveAnAlteration(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, a INT, b INT)")
	prepare := func(sql string) *Statement {
		st, err := h.e.Prepare(t.Context(), h.e.NewSession(), sql)
		require.NoError(t, err)
		return st
	}
	star, named, insert := prepare("FROM docs"), prepare("SELECT a FROM docs"), prepare("INSERT INTO docs VALUES (1, 2, 3)")
	_, err := insert.Update(t.Context(), nil)
	require.NoError(t, err)
	h.update("ALTER TABLE docs DROP COLUMN a")
	_, err = insert.Update(t.Context(), nil)
	require.ErrorContains(t, err, "2 columns but 3 values")
	_, err = named.Query(t.Context(), nil)
	require.ErrorContains(t, err, `"a" not found`)
	require.NoError(t, star.Renew(t.Context()))
	require.Equal(t, 2, star.DatasetSchema().NumFields())
	require.ErrorContains(t, named.Renew(t.Context()), `"a" not found`)
	r, err := star.Query(t.Context(), nil)
	require.NoError(t, err)
	require.True(t, r.Schema().Equal(star.DatasetSchema()))
	require.NoError(t, r.Close())
}

// TestAlterBesideStatements alters a table while others insert into it, update it and read it: each statement finds the
// columns of before or of after, or says that it came between, and what it answered stands.
func TestAlterBesideStatements(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, a INT DEFAULT 5)")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(do func(i int) error) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := do(i); err != nil && codeOf(t, err) != FailedPrecondition {
					t.Error(err)
					return
				}
			}
		}()
	}
	var inserted atomic.Int64
	count := func(n int64, err error) error {
		inserted.Add(n)
		return err
	}
	loop(func(i int) error {
		return count(runUpdate(h.e, fmt.Sprintf("INSERT INTO docs (id) VALUES (%d)", 2*i), nil))
	})
	loop(func(i int) error {
		return count(runUpdate(h.e, fmt.Sprintf("INSERT INTO docs (id) SELECT %d", 2*i+1), nil))
	})
	loop(func(int) error {
		_, err := runUpdate(h.e, "UPDATE docs SET a = 5 WHERE id < 10", nil)
		return err
	})
	loop(func(int) error {
		rec, err := tryRows(h.e, "FROM docs", nil)
		if err == nil {
			rec.Release()
		}
		return err
	})
	for i := range 12 {
		h.update(fmt.Sprintf("ALTER TABLE docs ADD COLUMN c%d INT DEFAULT 5", i))
		if i%3 == 2 {
			h.update(fmt.Sprintf("ALTER TABLE docs DROP COLUMN c%d", i-1))
		}
		if i%3 == 0 {
			h.update(fmt.Sprintf("ALTER TABLE docs RENAME COLUMN c%d TO r%d", i, i))
		}
	}
	close(stop)
	wg.Wait()
	require.Equal(t, []string{fmt.Sprint(inserted.Load())}, h.rows("SELECT count(*) FROM docs"))
	require.Equal(t, []string{"true"}, h.rows("SELECT bool_and(a = 5 AND r0 = 5 AND c2 = 5 AND r3 = 5 AND c11 = 5) FROM docs"))
}
