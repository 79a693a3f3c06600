package query

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/lsm"
)

// openAll opens the storage engine in a folder, and the SQL engine over it.
func openAll(t *testing.T, dir string) (*lsm.DB, *Engine) {
	db, err := lsm.Open(t.Context(), lsm.Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	e, err := Open(t.Context(), Options{DB: db, Threads: 2, Memory: 256 << 20, Temp: filepath.Join(t.TempDir(), "spill")})
	require.NoError(t, err)
	return db, e
}

// TestEngineOverStorage creates, fills, queries and drops tables of the storage engine, across a restart.
func TestEngineOverStorage(t *testing.T) {
	dir := t.TempDir()
	db, e := openAll(t, dir)
	update := func(sql string) int64 {
		t.Helper()
		n, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
		return n
	}
	rows := func(sql string) []string {
		t.Helper()
		rec := collectRows(t, e, sql, nil)
		defer rec.Release()
		return printRows(rec)
	}
	update("CREATE TABLE docs (id BIGINT PRIMARY KEY, lang VARCHAR DEFAULT 'en', v FLOAT[2], at_ TIMESTAMPTZ)")
	require.EqualValues(t, 2, update("INSERT INTO docs VALUES (1, 'de', [1, 2], '2020-01-01 00:00:00+00'), (2, NULL, NULL, NULL)"))
	require.EqualValues(t, 1, update("INSERT INTO docs (id) VALUES (3)"))
	_, err := runUpdate(e, "INSERT INTO docs (id) VALUES (4), (2)", nil)
	require.ErrorIs(t, err, lsm.ErrKeyExists)
	require.Equal(t, AlreadyExists, codeOf(t, err))
	want := []string{"1 | de | [1,2] | 2020-01-01T00:00:00Z", "2 | NULL | NULL | NULL", "3 | en | NULL | NULL"}
	require.Equal(t, want, rows("FROM docs ORDER BY id"))
	update("OPTIMIZE docs")
	require.Equal(t, want, rows("FROM docs ORDER BY id"))
	require.EqualValues(t, 1, update("INSERT INTO docs (id, lang) VALUES (4, 'fr')"))

	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
	db, e = openAll(t, dir)
	require.Equal(t, append(want, "4 | fr | NULL | NULL"), rows("FROM docs ORDER BY id"))
	require.Equal(t, []string{"id | BIGINT | NO | PRI | NULL | NULL"}, rows("DESCRIBE docs")[:1])
	require.Equal(t, []string{"docs"}, rows("SHOW TABLES"))
	update("DROP TABLE docs")
	require.Empty(t, rows("SHOW TABLES"))
	_, err = tryRows(e, "FROM docs", nil)
	require.Equal(t, NotFound, codeOf(t, err))
	for _, sql := range []string{`CREATE TABLE "a/b" (_tombstone INT)`, "CREATE TABLE x (_rowid INT)", "CREATE TABLE nosuch.t (i INT)"} {
		_, err = runUpdate(e, sql, nil)
		require.Error(t, err, sql)
		require.NotEqual(t, Internal, codeOf(t, err), "%s: %v", sql, err)
	}
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
	require.Zero(t, morselsAlive())
}

// TestCreateTableTakesADurability makes tables in every way, changes them and starts again.
func TestCreateTableTakesADurability(t *testing.T) {
	dir := t.TempDir()
	db, e := openAll(t, dir)
	for _, sql := range []string{
		"CREATE TABLE a (x INT)",
		"CREATE TABLE b (x INT) WITH (durability = 'buffered')",
		"CREATE TABLE c (x INT) WITH (Durability = BUFFERED, shards = 1)",
		"CREATE TABLE d WITH (durability = 'buffered') AS SELECT 1 AS x",
		"CREATE TABLE r (x INT)",
		"CREATE OR REPLACE TABLE r (x INT) WITH (durability = 'buffered')",
		"CREATE TABLE s (x INT) WITH (durability = 'buffered')",
		"CREATE OR REPLACE TABLE s (x INT)",
		"TRUNCATE b",
		"ALTER TABLE c ADD COLUMN y INT",
	} {
		_, err := runUpdate(e, sql, nil)
		require.NoError(t, err, sql)
	}
	for sql, part := range map[string]string{
		"CREATE TABLE f (x INT) WITH (durability = 'eventual')": "'durable' or 'buffered'",
		"CREATE TABLE f (x INT) WITH (color = 'red')":           `no table option "color"`,
		"CREATE TABLE f (x INT) WITH (durability)":              "name = value",
	} {
		_, err := runUpdate(e, sql, nil)
		require.Equal(t, InvalidArgument, codeOf(t, err), sql)
		require.ErrorContains(t, err, part)
	}
	for range 2 {
		got := map[string]lsm.Durability{}
		for _, table := range db.Tables() {
			got[table.Name().Name] = table.Durability()
		}
		require.Equal(t, map[string]lsm.Durability{"a": lsm.Durable, "b": lsm.Buffered, "c": lsm.Buffered, "d": lsm.Buffered,
			"r": lsm.Buffered, "s": lsm.Durable}, got)
		require.NoError(t, e.Close())
		require.NoError(t, db.Close())
		db, e = openAll(t, dir)
	}
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}

// TestQueriesSeeOneMoment upserts two keys together, over and over, and asks for both: they never differ.
func TestQueriesSeeOneMoment(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	_, err := runUpdate(e, "CREATE TABLE p (id BIGINT PRIMARY KEY, n BIGINT)", nil)
	require.NoError(t, err)
	table, err := db.Table(lsm.TableName{Name: "p"})
	require.NoError(t, err)
	put := func(n int64) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, table.Schema())
		defer b.Release()
		b.Field(0).(*array.Int64Builder).AppendValues([]int64{1, 2}, nil)
		b.Field(1).(*array.Int64Builder).AppendValues([]int64{n, n}, nil)
		rec := b.NewRecordBatch()
		defer rec.Release()
		lsn, err := table.Put(context.Background(), lsm.Batch{Record: rec})
		if err == nil {
			err = db.Wait(context.Background(), lsn)
		}
		if err != nil {
			panic(err)
		}
	}
	put(0)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for n := range int64(100) {
			put(n)
			if n%30 == 29 {
				_, _ = runUpdate(e, "OPTIMIZE p", nil)
			}
		}
	}()
	for range 50 {
		rec := collectRows(t, e, "SELECT count(*), a.n - b.n FROM p a, p b, p c WHERE a.id = 1 AND b.id = 2 GROUP BY 2", nil)
		require.Equal(t, []string{"2 | 0"}, printRows(rec))
		rec.Release()
	}
	wg.Wait()
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}

// TestConcurrentDDL creates and drops tables while others are queried.
func TestConcurrentDDL(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	_, err := runUpdate(e, "CREATE TABLE stay (id BIGINT PRIMARY KEY)", nil)
	require.NoError(t, err)
	_, err = runUpdate(e, "INSERT INTO stay VALUES (1), (2)", nil)
	require.NoError(t, err)
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for g := range 3 {
		wg.Add(2)
		go func() {
			defer wg.Done()
			for i := range 8 {
				name := fmt.Sprintf("t%d", g)
				for _, sql := range []string{
					fmt.Sprintf("CREATE TABLE %s (id BIGINT PRIMARY KEY, c%d INT)", name, i), "INSERT INTO " + name + " (id) VALUES (1)", "DROP TABLE " + name,
				} {
					if _, err := runUpdate(e, sql, nil); err != nil {
						errs <- fmt.Errorf("%s: %w", sql, err)
					}
				}
			}
		}()
		go func() {
			defer wg.Done()
			for range 20 {
				rec, err := tryRows(e, "SELECT count(*) FROM stay", nil)
				if err != nil {
					errs <- err
					continue
				}
				if got := printRows(rec)[0]; got != "2" {
					errs <- fmt.Errorf("%s rows", got)
				}
				rec.Release()
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}

// TestStoredTypesPassThrough stores a column of each type and reads it back from memory and from disk.
func TestStoredTypesPassThrough(t *testing.T) {
	db, e := openAll(t, t.TempDir())
	twin := &memStore{}
	var types []arrow.DataType
	for _, dt := range allTypes() {
		probe := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "c", Type: dt, Nullable: true}}, nil)
		err := db.CreateTable(t.Context(), lsm.TableDef{Name: lsm.TableName{Name: "probe"}, Schema: probe, Key: []string{"id"}})
		if err != nil {
			require.ErrorIs(t, err, lsm.ErrInvalid, "%s", dt)
			continue
		}
		require.NoError(t, db.DropTable(t.Context(), lsm.TableName{Name: "probe"}))
		types = append(types, dt)
	}
	require.Greater(t, len(types), 30)
	rec := typesTable(t, twin, "x", types, 700)
	require.NoError(t, db.CreateTable(t.Context(), lsm.TableDef{Name: lsm.TableName{Name: "x"}, Schema: rec.Schema(), Key: []string{"id"}}))
	table, err := db.Table(lsm.TableName{Name: "x"})
	require.NoError(t, err)
	_, err = table.Insert(t.Context(), rec)
	require.NoError(t, err)
	for _, act := range []string{"memory", "OPTIMIZE x"} {
		if act != "memory" {
			_, err := runUpdate(e, act, nil)
			require.NoError(t, err)
		}
		got := collectRows(t, e, "FROM x ORDER BY id", nil)
		for i := range int(rec.NumCols()) {
			requireColumn(t, rec, got, i, i, act)
		}
		got.Release()
	}
	require.NoError(t, e.Close())
	require.NoError(t, db.Close())
}
