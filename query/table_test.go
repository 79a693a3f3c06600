package query

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// TestTableSQLIsTried writes the statement of a table that comes as an Arrow schema, and leaves no table behind.
func TestTableSQLIsTried(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	defer func() {
		require.NoError(t, e.Close())
		require.NoError(t, db.Close())
	}()
	_, err := runUpdate(e, "CREATE TABLE taken (x INTEGER)", nil)
	require.NoError(t, err)
	schema := func(names ...string) *arrow.Schema {
		var fields []arrow.Field
		for _, name := range names {
			fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int64, Nullable: true})
		}
		return arrow.NewSchema(fields, nil)
	}
	for _, name := range []string{"new", "taken"} { // one that exists may be replaced
		text, err := e.TableSQL(t.Context(), lsm.TableName{Name: name}, schema("id", "select"), []string{"id"})
		require.NoError(t, err)
		require.Equal(t, `CREATE TABLE "main"."`+name+`"("id" BIGINT, "select" BIGINT, PRIMARY KEY("id"));`, text)
	}
	for _, names := range [][]string{{""}, {"a", "A"}, {"a\x00"}, {}} {
		_, err := e.TableSQL(t.Context(), lsm.TableName{Name: "new"}, schema(names...), nil)
		require.Equal(t, InvalidArgument, codeOf(t, err), "%q: %v", names, err)
	}
	rec := collectRows(t, e, "SELECT table_name, sql FROM duckdb_tables() WHERE schema_name = 'main'", nil)
	defer rec.Release()
	require.Equal(t, []string{"taken | CREATE TABLE taken(x INTEGER);"}, printRows(rec))
}
