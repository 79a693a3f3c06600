package query

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCommentsEqualTwin comments on both sides and reads the comments as clients do.
func TestCommentsEqualTwin(t *testing.T) {
	p := newPair(t)
	for i, sql := range []string{
		"CREATE TABLE t (id INTEGER PRIMARY KEY, s VARCHAR DEFAULT 'x', \"odd name\" FLOAT[2])", "CREATE VIEW v AS SELECT id, s AS Text FROM t",
		"COMMENT ON TABLE t IS 'it''s a table'", "COMMENT ON COLUMN t.s IS $$dollars$$", `COMMENT ON COLUMN main.T."ODD NAME" IS E'two\nlines'`, "comment /* x */ on column t . id is 'key' -- the end",
		"COMMENT ON VIEW v IS 'a view'", "COMMENT ON COLUMN v.Text IS 'words'", "COMMENT ON COLUMN t.id IS ''",
		"COMMENT ON TABLE nosuch IS 'x'", "COMMENT ON COLUMN t.nosuch IS 'x'", "COMMENT ON COLUMN s IS 'x'", "COMMENT ON COLUMN nosuch.s IS 'x'",
		"COMMENT ON TABLE t IS", "COMMENT ON TABLE t IS x", "COMMENT ON TABLE t IS 1", "COMMENT ON TABLE t IS 'x' || 'y'", "COMMENT ON TABLE t 'x'", "COMMENT TABLE t IS 'x'", "COMMENT ON TABLE t IS 'x' 'y'", "COMMENT ON COLUMN t. IS 'x'", "COMMENT ON", "COMMENT",
		"ALTER TABLE t RENAME s TO words", "ALTER TABLE t ADD COLUMN s INTEGER", "COMMENT ON COLUMN t.id IS NULL", "COMMENT ON TABLE t IS NULL", "COMMENT ON TABLE t IS NULL",
		"COMMENT ON TABLE t IS 'again'", "INSERT INTO t (id) VALUES (1)", "TRUNCATE t", "ALTER TABLE t DROP COLUMN words",
		"CREATE OR REPLACE VIEW v AS FROM t", "CREATE OR REPLACE TABLE t (id INTEGER)", "DROP VIEW v", "DROP TABLE t", "CREATE TABLE t (id INTEGER)",
	} {
		p.run(sql)
		if i > 1 {
			p.same("SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = 'main'", sql)
			if sql != "ALTER TABLE t RENAME s TO words" { // then the view is lost
				p.same("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal", sql)
			}
			p.same("SELECT column_name, comment FROM duckdb_columns() WHERE NOT internal AND table_name = 't'", sql)
		}
		if i%7 == 6 {
			p.reopen(t)
		}
	}
	require.True(t, p.run("CREATE VIEW v AS FROM t"))
	for _, sql := range []string{"COMMENT ON TABLE nosuch IS 'x'", "COMMENT ON VIEW t IS 'x'", "COMMENT ON TABLE v IS 'x'"} {
		_, err := runUpdate(p.e, sql, nil)
		require.Equal(t, NotFound, codeOf(t, err), sql)
		require.NotContains(t, err.Error(), "LINE")
	}
}
