package query

import (
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

// TestIndexStatements makes, lists and drops indexes in all the ways in which one writes that.
func TestIndexStatements(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR, \"Odd name\" DOUBLE, v FLOAT[3])")
	h.update("CREATE TABLE other (id BIGINT PRIMARY KEY, lang VARCHAR)")
	h.update("INSERT INTO docs (id, lang) VALUES (1, 'en'), (2, 'de')")
	list := func(want ...string) {
		t.Helper()
		require.ElementsMatch(t, want, h.rows("SELECT index_name, index_type, columns, table_name FROM flightd_catalog.indexes"))
	}
	h.update("CREATE INDEX by_lang ON docs (lang)")
	h.update("create index if not exists BY_LANG on docs using btree (lang)")
	h.update("CREATE INDEX odd ON flightd.main.DOCS USING \"BTree\" (\"odd NAME\")")
	h.update("CREATE INDEX by_lang ON other (lang) USING BTREE WITH (replace = true)")
	list(`by_lang | BTREE | ["lang"] | docs`, `odd | BTREE | ["Odd name"] | docs`, `by_lang | BTREE | ["lang"] | other`)
	for _, sql := range []string{"SHOW INDEXES ON docs", "show indexes from main.DOCS;"} {
		rec := collectRows(t, h.e, sql, nil)
		require.Equal(t, []string{"index_name", "index_type", "fields", "rows_indexed"}, fieldNames(rec)[:4])
		require.Equal(t, int64(2), rec.NumRows())
		require.Equal(t, "by_lang BTREE lang", rec.Column(0).ValueStr(0)+" "+rec.Column(1).ValueStr(0)+" "+rec.Column(2).ValueStr(0))
		rec.Release()
	}
	h.fails(AlreadyExists, "By_Lang", "CREATE INDEX By_Lang ON docs (lang)")
	h.update("CREATE OR REPLACE INDEX by_lang ON docs (\"Odd name\")")
	list(`by_lang | BTREE | ["Odd name"] | docs`, `odd | BTREE | ["Odd name"] | docs`, `by_lang | BTREE | ["lang"] | other`)
	h.update("ALTER INDEX odd OPTIMIZE")
	h.update("ALTER INDEX by_lang ON docs OPTIMIZE WITH (mode = 'merge')")
	h.update("ALTER INDEX IF EXISTS nope ON docs OPTIMIZE")
	h.fails(InvalidArgument, "docs and other", "DROP INDEX by_lang")
	h.fails(InvalidArgument, "docs and other", "ALTER INDEX by_lang OPTIMIZE")
	h.fails(NotFound, "nope", "DROP INDEX nope")
	h.fails(NotFound, "nope", "DROP INDEX nope ON docs")
	h.fails(NotFound, "nope", "ALTER INDEX nope ON docs OPTIMIZE")
	h.fails(NotFound, "nowhere", "DROP INDEX by_lang ON nowhere")
	h.update("DROP INDEX IF EXISTS nope")
	h.update("DROP INDEX IF EXISTS nope ON docs")
	h.update("DROP INDEX IF EXISTS by_lang ON nowhere")
	h.update("DROP INDEX BY_LANG ON docs RESTRICT")
	h.update("DROP INDEX by_lang")
	h.update("DROP INDEX odd")
	list()
}

// TestIndexesOverVectors makes them with their options, before and after there are rows enough to train them.
func TestIndexesOverVectors(t *testing.T) {
	h := newAlterHarness(t)
	told := func(want ...string) {
		require.Equal(t, want, h.rows("SELECT index_name, index_type, metric_type, num_partitions, rows_indexed, rows_unindexed FROM flightd_catalog.indexes ORDER BY 1"))
	}
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, v FLOAT[4])")
	h.update("CREATE INDEX a ON docs USING IVF_PQ (v) WITH (num_partitions = 2, num_sub_vectors = 2, num_bits = 4, metric_type = 'cosine', max_iterations = 2)")
	told("a | IVF_PQ | cosine | 0 | 0 | 0")
	h.update("INSERT INTO docs SELECT i, [i, i * i, 1, 2]::FLOAT[4] FROM range(100) t(i)")
	h.update("OPTIMIZE docs")
	told("a | IVF_PQ | cosine | 2 | 100 | 0")
	h.update("CREATE INDEX b ON docs (v) USING ivf_flat")
	h.update("INSERT INTO docs SELECT i + 1000, [i, i * i, 1, 2]::FLOAT[4] FROM range(20) t(i)")
	told("a | IVF_PQ | cosine | 2 | 120 | 0", "b | IVF_FLAT | l2 | 10 | 120 | 0")
	h.update("ALTER INDEX b ON docs OPTIMIZE WITH (mode = 'retrain')")
	h.fails(InvalidArgument, "does not divide the 4 dimensions", "CREATE INDEX c ON docs USING IVF_PQ (v) WITH (num_sub_vectors = 3)")
	h.fails(InvalidArgument, "vectors of a fixed number of floats", "CREATE INDEX c ON docs USING IVF_PQ (id)")
	h.update("DROP INDEX a ON docs")
	told("b | IVF_FLAT | l2 | 10 | 120 | 0")
}

// TestIndexOfTheKey gives the index that a key has anyway a name.
func TestIndexOfTheKey(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, n INTEGER)")
	h.update("INSERT INTO docs VALUES (1, 10), (2, 20), (3, 30)")
	h.update("CREATE INDEX i ON docs USING BTREE (id)")
	for range 2 {
		require.Equal(t, []string{`i | BTREE | ["id"] | 3 | 0`}, h.rows("SELECT index_name, index_type, columns, rows_indexed, rows_unindexed FROM flightd_catalog.indexes"))
		require.Equal(t, []string{"20"}, h.rows("SELECT n FROM docs WHERE id = 2"))
		h.update("OPTIMIZE docs")
	}
	h.update("INSERT OR REPLACE INTO docs VALUES (2, 21)")
	h.update("ALTER INDEX i ON docs OPTIMIZE")
	h.update("OPTIMIZE docs")
	require.Equal(t, []string{"21"}, h.rows("SELECT n FROM docs WHERE id = 2"))
	h.update("DROP INDEX i ON docs")
	h.update("OPTIMIZE docs")
	require.Equal(t, []string{"21"}, h.rows("SELECT n FROM docs WHERE id = 2"))
}

// fieldNames returns the names of a batch's columns.
func fieldNames(rec arrow.RecordBatch) (out []string) {
	for _, f := range rec.Schema().Fields() {
		out = append(out, f.Name)
	}
	return out
}

// TestIndexStatementsSayWhatIsWrong checks the code, the words and the place of errors.
func TestIndexStatementsSayWhatIsWrong(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR, n INTEGER, v FLOAT[3])")
	h.update("CREATE VIEW seen AS FROM docs")
	// What is wrong stands between the marks, which are taken out; none means that the error has no place.
	f := func(code Code, message, sql string) {
		t.Helper()
		place := strings.Index(sql, "^") + 1
		sql = strings.Replace(sql, "^", "", 1)
		_, err := runUpdate(h.e, sql, nil)
		require.ErrorContains(t, err, message, sql)
		require.Equal(t, code, codeOf(t, err), sql)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, place, e.Position, "%s: %v", sql, err)
	}
	f(InvalidArgument, "name of an index", "CREATE INDEX ^ON docs (lang)")
	f(InvalidArgument, "name of an index", "CREATE INDEX^")
	f(InvalidArgument, "without schema", "CREATE INDEX ^main.i ON docs (lang)")
	f(InvalidArgument, "ON and the name of a table", "CREATE INDEX i ^(lang)")
	f(InvalidArgument, "not a path", "CREATE INDEX i ON ^'data/docs.lance' (lang)")
	f(InvalidArgument, "column in parentheses", "CREATE INDEX i ON docs^")
	f(InvalidArgument, "column in parentheses", "CREATE INDEX i ON docs USING BTREE ^lang")
	f(InvalidArgument, "name of a column", "CREATE INDEX i ON docs (^)")
	f(InvalidArgument, "name of a column", "CREATE INDEX i ON docs (lang, ^)")
	f(InvalidArgument, "syntax error", "CREATE INDEX i ON docs (lang^")
	f(InvalidArgument, "direction", "CREATE INDEX i ON docs (lang ^DESC)")
	f(Unimplemented, "several columns", "CREATE INDEX i ON docs (^lang, n)")
	f(Unimplemented, "expression", "CREATE INDEX i ON docs (^lower(lang))")
	f(Unimplemented, "expression", "CREATE INDEX i ON docs (^(n + 1))")
	f(InvalidArgument, "USING is there twice", "CREATE INDEX i ON docs USING BTREE (lang) ^USING BTREE")
	f(InvalidArgument, "kind of the index", "CREATE INDEX i ON docs (lang) USING^")
	f(InvalidArgument, "no IVF_FLAT index option \"num_bits\"; there are num_partitions", "CREATE INDEX i ON docs USING ivf_flat (v) WITH (^num_bits = 4)")
	f(Unimplemented, "words of texts", "CREATE INDEX i ON docs (lang) USING ^inverted")
	f(Unimplemented, "BITMAP are not implemented", "CREATE INDEX i ON docs (lang) USING ^BITMAP")
	f(Unimplemented, "PRIMARY KEY", "CREATE ^UNIQUE INDEX i ON docs (lang)")
	f(InvalidArgument, "no BTREE index option \"zone\"; there are replace", "CREATE INDEX i ON docs (lang) WITH (^zone = 4)")
	f(InvalidArgument, "say true or false", "CREATE INDEX i ON docs (lang) WITH (replace = ^'maybe')")
	f(InvalidArgument, "there twice", "CREATE INDEX i ON docs (lang) WITH (replace = true, ^REPLACE = false)")
	f(InvalidArgument, "WITH (name = value", "CREATE INDEX i ON docs (lang) WITH (^)")
	f(InvalidArgument, "WITH (name = value", "CREATE INDEX i ON docs (lang) WITH (^replace)")
	f(InvalidArgument, "not both", "CREATE OR REPLACE INDEX IF NOT EXISTS ^i ON docs (lang)")
	f(InvalidArgument, "syntax error", "CREATE INDEX i ON docs (lang) ^WHERE n > 1")
	f(InvalidArgument, "OPTIMIZE is expected", "ALTER INDEX i ON docs ^RENAME TO j")
	f(InvalidArgument, "'merge' or 'append' or 'retrain'", "ALTER INDEX i ON docs OPTIMIZE WITH (mode = ^'fast')")
	f(InvalidArgument, "ON or FROM", "SHOW INDEXES^")
	f(InvalidArgument, "syntax error", "SHOW INDEXES ON docs ^WHERE true")
	f(NotFound, "nope", "SHOW INDEXES ON nope")
	f(NotFound, "nope", "CREATE INDEX i ON nope (lang)")
	f(InvalidArgument, "is a view", "CREATE INDEX i ON seen (lang)")
	f(InvalidArgument, "does not have a column", "CREATE INDEX i ON docs (nope)")
	f(InvalidArgument, "no order", "CREATE INDEX i ON docs (v)")
	f(PermissionDenied, "flightd_catalog", "CREATE INDEX i ON flightd_catalog.tables (rows)")
	f(NotFound, "\"i\" does not exist", "DROP INDEX ^i")
	require.Empty(t, h.rows("FROM flightd_catalog.indexes"))
}

// TestIndexStatementsArePrepared runs prepared statements about indexes, again after the table has changed.
func TestIndexStatementsArePrepared(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR)")
	s := h.e.NewSession()
	prepare := func(sql string) *Statement {
		st, err := h.e.Prepare(t.Context(), s, sql)
		require.NoError(t, err)
		require.Equal(t, sql, st.SQL())
		return st
	}
	create, show, drop := prepare("CREATE INDEX i ON docs (lang)"), prepare("SHOW INDEXES ON docs"), prepare("DROP INDEX i ON docs")
	require.True(t, create.IsUpdate() && drop.IsUpdate() && !show.IsUpdate())
	require.Equal(t, "index_name", show.DatasetSchema().Field(0).Name)
	for range 2 {
		_, err := create.Update(t.Context(), nil)
		require.NoError(t, err)
		res, err := show.Query(t.Context(), nil)
		require.NoError(t, err)
		rec, err := res.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, "i", rec.Column(0).ValueStr(0))
		rec.Release()
		require.NoError(t, res.Close())
		_, err = drop.Update(t.Context(), nil)
		require.NoError(t, err)
	}
	params := paramsOf(texts("x"))
	defer params.Release()
	_, err := create.Update(t.Context(), params)
	require.Equal(t, InvalidArgument, codeOf(t, err))
	h.update("DROP TABLE docs")
	require.Equal(t, NotFound, codeOf(t, show.Renew(t.Context())))
	_, err = create.Update(t.Context(), nil)
	require.Equal(t, NotFound, codeOf(t, err))
}

// TestBuildingAnIndexTellsItsProgress: who waits for CREATE INDEX or OPTIMIZE sees how far it is.
func TestBuildingAnIndexTellsItsProgress(t *testing.T) {
	h := newAlterHarness(t)
	h.update("CREATE TABLE docs (id BIGINT PRIMARY KEY, n INTEGER)")
	h.update("INSERT INTO docs SELECT range, range FROM range(1000)")
	h.update("OPTIMIZE docs")
	run := func(sql string) float64 {
		var p Progress
		st, err := h.e.Prepare(t.Context(), h.e.NewSession(), sql)
		require.NoError(t, err)
		defer st.Close()
		_, err = st.Update(WithProgress(t.Context(), &p), nil)
		require.NoError(t, err)
		return p.Fraction()
	}
	require.InDelta(t, 0.99, run("CREATE INDEX i ON docs (n)"), 0.001, "all rows are in, and the statement was not over")
	require.Zero(t, run("ALTER INDEX i OPTIMIZE"), "nothing was left to do")
	require.Zero(t, run("DROP INDEX i"))
}
