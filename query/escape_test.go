package query

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTextsThatDuckDBWouldContinue sends texts whose end DuckDB and a simple lexer see in different places: what stands
// behind must not run unseen.
func TestTextsThatDuckDBWouldContinue(t *testing.T) {
	e := newTestEngine(t, &memStore{})
	for _, sql := range []string{
		"SELECT e'a'\n'\\'' , * FROM duckdb_settings() LIMIT 3 --'",
		"CREATE TABLE t2(a VARCHAR DEFAULT e'a'\n'\\'' ); COMMIT; DROP TABLE main.base; BEGIN --PIVOT ')",
		"SELECT 1e'\\' , * FROM duckdb_settings() --'",
		"SELECT $1e'\\' , * FROM duckdb_settings() --'",
		"SELECT 1 /* PIVOT */; SELECT 2",
		"SELECT * FROM pg_settings",
		"SELECT 1 FROM range(3), pg_catalog.pg_settings",
	} {
		_, err := e.Prepare(t.Context(), e.NewSession(), sql)
		require.ErrorAs(t, err, new(*Error), sql)
	}
	for _, sql := range []string{"SELECT e'it\\'s' || 'x'", "SELECT 'a'\n'b'", "SELECT 1e3, 'x'", "SELECT 'pg_settings' AS pg_settings"} {
		_, err := e.Prepare(t.Context(), e.NewSession(), sql)
		require.NoError(t, err, sql)
	}
}
