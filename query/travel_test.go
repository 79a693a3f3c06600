package query

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// travelFixture is a table with three versions that have rows, and what was in it when each was the newest.
type travelFixture struct {
	t  *testing.T
	db *lsm.DB
	e  *Engine
	// numbers are those of the versions.
	numbers []string
}

func newTravelFixture(t *testing.T) *travelFixture {
	db, e := openAll(t, t.TempDir())
	t.Cleanup(func() {
		require.NoError(t, e.Close())
		require.Empty(t, e.pasts.open)
		require.NoError(t, db.Close())
	})
	f := &travelFixture{t: t, db: db, e: e}
	f.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR, half FLOAT)")
	f.update("CREATE INDEX by_lang ON docs (lang)")
	f.update("INSERT INTO docs VALUES (1, 'de', 1), (2, 'en', 2), (3, 'fr', 3)")
	f.merge()
	f.update("UPDATE docs SET lang = 'it' WHERE id = 2")
	f.update("DELETE FROM docs WHERE id = 1")
	f.update("INSERT INTO docs VALUES (4, 'es', 4)")
	f.merge()
	f.update("ALTER TABLE docs DROP COLUMN half")
	f.update("ALTER TABLE docs ADD COLUMN n INTEGER DEFAULT 7")
	f.update("ALTER TABLE docs RENAME COLUMN lang TO language")
	f.update("INSERT INTO docs VALUES (5, 'pt', 5)")
	f.merge()
	f.update("INSERT INTO docs VALUES (6, 'no', 6)") // in front of the base
	return f
}

// update runs a change.
func (f *travelFixture) update(sql string) int64 {
	f.t.Helper()
	n, err := runUpdate(f.e, sql, nil)
	require.NoError(f.t, err, sql)
	return n
}

// merge brings everything into the base and notes the version.
func (f *travelFixture) merge() {
	f.update("OPTIMIZE docs")
	f.numbers = append(f.numbers, f.rows("SELECT base_version FROM flightd_catalog.tables")...)
}

// at writes a text with the numbers of the versions in the place of V1, V2 and V3.
func (f *travelFixture) at(sql string) string {
	for i, n := range f.numbers {
		sql = strings.ReplaceAll(sql, fmt.Sprintf("V%d", i+1), n)
	}
	return sql
}

// rows runs a query.
func (f *travelFixture) rows(sql string) []string {
	f.t.Helper()
	rec := collectRows(f.t, f.e, f.at(sql), nil)
	defer rec.Release()
	return printRows(rec)
}

// fails returns what a statement fails with.
func (f *travelFixture) fails(code Code, sql string) string {
	f.t.Helper()
	_, err := tryRows(f.e, f.at(sql), nil)
	require.Error(f.t, err, sql)
	require.Equal(f.t, code, codeOf(f.t, err), "%s: %v", sql, err)
	return err.Error()
}

// TestVersionsAreRead reads versions with their own rows, columns and names, wherever a table can stand.
func TestVersionsAreRead(t *testing.T) {
	f := newTravelFixture(t)
	first := []string{"1 | de | 1", "2 | en | 2", "3 | fr | 3"}
	second := []string{"2 | it | 2", "3 | fr | 3", "4 | es | 4"}
	third := []string{"2 | it | 7", "3 | fr | 7", "4 | es | 7", "5 | pt | 5"}
	require.Equal(t, first, f.rows("SELECT * FROM docs AT (VERSION => V1) ORDER BY id"))
	require.Equal(t, second, f.rows("from main.docs at (version => V2) order by docs.id"))
	require.Equal(t, third, f.rows(`SELECT d.id, d.language, d."n" FROM flightd.main.docs AS d AT (VERSION => V3) ORDER BY d.id`))
	require.Equal(t, append(third, "6 | no | 6"), f.rows("FROM docs ORDER BY id"))

	require.Equal(t, []string{"1 | de | NULL", "2 | en | it", "3 | fr | fr", "4 | NULL | es", "5 | NULL | pt", "6 | NULL | no"},
		f.rows("SELECT id, old.lang, new.language FROM docs old AT (VERSION => V1) FULL JOIN docs AS new USING (id) ORDER BY id"))
	require.Equal(t, []string{"2"}, f.rows("SELECT count(*) FROM docs a AT (VERSION => V1), docs AT (VERSION => V2) WHERE a.id = docs.id"))
	require.Equal(t, []string{"7"}, f.rows("SELECT (SELECT count(*) FROM docs AT (VERSION => V3)) + count(*) FROM docs AS d(x) AT (VERSION => V1) WHERE x > 0"))
	require.Equal(t, second, f.rows("WITH old AS (SELECT * FROM docs AT (VERSION => V2)) SELECT * FROM old ORDER BY 1"))
	require.Equal(t, []string{"id", "lang", "half"}, f.rows("SELECT column_name FROM (DESCRIBE SELECT * FROM docs AT (VERSION => V1))"))

	// By the key and by an index, as far as the version has them.
	require.Equal(t, first[1:2], f.rows("SELECT * FROM docs AT (VERSION => V1) WHERE id = 2"))
	require.Contains(t, strings.Join(f.rows("EXPLAIN SELECT * FROM docs AT (VERSION => V2) WHERE id = 2"), "\n"),
		"main.docs at version "+f.numbers[1]+": 1 point and 0 ranges of the key (id); base: key index, 1 row")
	require.Equal(t, []string{"4 | es | 4"}, f.rows("SELECT * FROM docs AT (VERSION => V2) WHERE lang = 'es'"))
	require.Contains(t, strings.Join(f.rows("EXPLAIN SELECT * FROM docs AT (VERSION => V2) WHERE lang = 'es'"), "\n"), "(index by_lang)")
	require.Empty(t, f.rows("SELECT * FROM docs AT (VERSION => V1) WHERE lang = 'it'"))

	// A statement that is prepared reads what its text means when it runs.
	st, err := f.e.Prepare(t.Context(), f.e.NewSession(), f.at("SELECT id FROM docs AT (VERSION => V1) WHERE id > ? ORDER BY id"))
	require.NoError(t, err)
	require.Equal(t, "int64", st.DatasetSchema().Field(0).Type.String())
	for range 3 {
		require.Equal(t, []string{"2", "3"}, runStatement(t, st, int64(1)))
	}
	f.update("INSERT INTO docs VALUES (7, 'dk', 7)")
	require.NoError(t, st.Renew(t.Context()))
	require.Equal(t, []string{"3"}, runStatement(t, st, int64(2)))
}

// runStatement runs a prepared query with one parameter.
func runStatement(t *testing.T, st *Statement, param int64) []string {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "1", Type: arrow.PrimitiveTypes.Int64}}, nil))
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(param)
	rec := b.NewRecordBatch()
	defer rec.Release()
	r, err := st.Query(t.Context(), rec)
	require.NoError(t, err)
	defer r.Close()
	var out []string
	require.NoError(t, r.each(t.Context(), func(rec arrow.RecordBatch) error {
		out = append(out, printRows(rec)...)
		return nil
	}))
	return out
}

// TestVersionsAreSources writes what older versions have into tables.
func TestVersionsAreSources(t *testing.T) {
	f := newTravelFixture(t)
	f.update(f.at("CREATE TABLE copy AS SELECT * FROM docs AT (VERSION => V1)"))
	require.Equal(t, []string{"1 | de | 1", "2 | en | 2", "3 | fr | 3"}, f.rows("FROM copy ORDER BY id"))
	require.EqualValues(t, 3, f.update(f.at("INSERT INTO docs (id, language) SELECT id, lang FROM docs AT (VERSION => V1) ON CONFLICT DO UPDATE SET language = excluded.language")))
	require.Equal(t, []string{"1 | de", "2 | en", "3 | fr", "4 | es", "5 | pt", "6 | no"}, f.rows("SELECT id, language FROM docs ORDER BY id"))
	require.EqualValues(t, 3, f.update(f.at("UPDATE docs SET language = old.lang FROM docs old AT (VERSION => V2) WHERE old.id = docs.id")))
	require.EqualValues(t, 2, f.update(f.at("DELETE FROM docs USING docs old AT (VERSION => V2) WHERE old.id = docs.id AND old.id > 2")))
	require.Equal(t, []string{"1 | de", "2 | it", "5 | pt", "6 | no"}, f.rows("SELECT id, language FROM docs ORDER BY id"))
	require.EqualValues(t, 2, f.update(f.at("MERGE INTO docs USING docs old AT (VERSION => V2) ON docs.id = old.id WHEN NOT MATCHED THEN INSERT (id, language) VALUES (old.id, old.lang)")))
	require.Equal(t, []string{"3 | fr", "4 | es"}, f.rows("SELECT id, language FROM docs WHERE id IN (3, 4) ORDER BY id"))
}

// TestVersionsKeepArrowTypes selects a column whose type SQL has not, from an older version.
func TestVersionsKeepArrowTypes(t *testing.T) {
	f := newTravelFixture(t)
	big := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "x", Type: arrow.BinaryTypes.LargeString, Nullable: true}}, nil)
	require.NoError(t, f.db.CreateTable(t.Context(), lsm.TableDef{Name: lsm.TableName{Name: "large"}, Schema: big, Key: []string{"id"}}))
	f.update("INSERT INTO large VALUES (1, 'a')")
	f.update("OPTIMIZE large")
	rec := collectRows(t, f.e, "SELECT x FROM large AT (TIMESTAMP => now())", nil)
	defer rec.Release()
	require.Equal(t, arrow.BinaryTypes.LargeString, rec.Schema().Field(0).Type)
	require.Equal(t, []string{"a"}, printRows(rec))
}

// TestMomentsAndTags finds versions by when they were committed and by their tags.
func TestMomentsAndTags(t *testing.T) {
	f := newTravelFixture(t)
	require.Equal(t, f.rows("FROM docs AT (VERSION => V3) ORDER BY id"), f.rows("FROM docs AT (TIMESTAMP => now()) ORDER BY id"))
	when := f.rows("SELECT created_at::VARCHAR FROM flightd_catalog.versions WHERE version = V2")
	require.Equal(t, f.rows("FROM docs AT (VERSION => V2) ORDER BY id"),
		f.rows("FROM docs AT (TIMESTAMP => TIMESTAMPTZ '"+when[0]+"') ORDER BY id"))
	require.Contains(t, f.fails(NotFound, "FROM docs AT (TIMESTAMP => now() - INTERVAL 1 YEAR)"), "the oldest that is kept is version 1 of ")
	require.Equal(t, []string{"docs | " + f.numbers[0] + " | 3 | flightd", "docs | " + f.numbers[2] + " | 4 | flightd"},
		f.rows("SELECT table_name, version, rows, writer[:7] FROM flightd_catalog.versions WHERE version IN (V1, V3) ORDER BY version"))
	require.Contains(t, f.fails(NotFound, "FROM docs AT (TAG => 'nosuch')"), `it has no tag "nosuch"`)
	require.Contains(t, f.fails(NotFound, "FROM docs AT (VERSION => 'nosuch')"), `it has no tag "nosuch"`)
	require.Empty(t, f.rows("FROM flightd_catalog.tags"))
}

// TestVersionsThatAreNot says what is wrong with an AT clause, and changes nothing about those that are none.
func TestVersionsThatAreNot(t *testing.T) {
	f := newTravelFixture(t)
	f.update("CREATE VIEW v AS FROM docs")
	newest := f.rows("SELECT base_version FROM flightd_catalog.tables")[0]
	require.Contains(t, f.fails(NotFound, "FROM docs AT (VERSION => 1000)"), "no version 1000: it never had it; its oldest version is 1, its newest "+newest)
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => 0)"), "whole numbers from 1")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => -1)"), "whole numbers from 1")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => 1.5)"), "whole numbers from 1")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => NULL)"), "not NULL")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (TAG => 3)"), "tags are texts")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (TIMESTAMP => 'noon')"), "AT (TIMESTAMP => 'noon')")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (TIMESTAMP => NULL)"), "not NULL")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (BRANCH => 'b')"), "AT takes VERSION, TIMESTAMP or TAG")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => ?)"), "cannot be a parameter")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => (SELECT 1))"), "without subqueries")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => )"), "AT has no value")
	require.Contains(t, f.fails(InvalidArgument, "FROM docs AT (VERSION => nosuch)"), "nosuch")
	require.Contains(t, f.fails(NotFound, "FROM nosuch AT (VERSION => 1)"), "nosuch")
	require.Contains(t, f.fails(InvalidArgument, "FROM v AT (VERSION => 1)"), "view")
	require.Contains(t, f.fails(InvalidArgument, "FROM flightd_catalog.tables AT (VERSION => 1)"), "no versions")
	require.Contains(t, f.fails(InvalidArgument, "FROM (SELECT 1) AT (VERSION => 1)"), "AT follows the name of a table")
	f.fails(PermissionDenied, "FROM docs AT (VERSION => 1), flightd_scan(1)")
	for _, sql := range []string{"DELETE FROM docs AT (VERSION => 2)", "UPDATE docs AT (VERSION => 2) SET n = 1", "INSERT INTO docs AT (VERSION => 2) SELECT 1, 'x', 2"} {
		_, err := runUpdate(f.e, sql, nil)
		require.Equal(t, InvalidArgument, codeOf(t, err), "%s: %v", sql, err)
	}
	_, err := runUpdate(f.e, "CREATE VIEW old AS FROM docs AT (VERSION => 2)", nil)
	require.Equal(t, Unimplemented, codeOf(t, err))
	require.Equal(t, []string{"2020-01-01T10:00:00"}, f.rows("SELECT TIMESTAMPTZ '2020-01-01 10:00:00+00' AT TIME ZONE 'UTC'"))
	require.Equal(t, []string{"1"}, f.rows(`SELECT "at".id FROM docs AS "at" AT (VERSION => V1) ORDER BY 1 LIMIT 1`))
}
