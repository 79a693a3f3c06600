package lsm

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
)

// lanceDo has pylance run a line of Python on the dataset ds of a table.
func lanceDo(t *testing.T, dir, name, line string) {
	t.Helper()
	python.Run(t, "import lance, pyarrow as pa, sys\nds = lance.dataset(sys.argv[1])\n"+line, filepath.Join(dir, name+".lance"))
}

// columnNames returns the columns of a table as text.
func columnNames(t *testing.T, db *DB, name string) string {
	t.Helper()
	table, err := db.Table(TableName{Name: name})
	require.NoError(t, err)
	return columnList(table.Schema())
}

// newForeignColumns opens a folder with a table that has a row in a generation and one in a memtable, and two in the base if it
// has a key. (Lance casts no column of a table that has the mark of merged generations.)
func newForeignColumns(t *testing.T, schema string) *scenario {
	t.Helper()
	python.Need(t)
	ctx := context.Background()
	s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
	s.open()
	require.NoError(t, s.create(ctx, "t", schema))
	if strings.Contains(schema, "key") {
		require.NoError(t, s.put(ctx, "t", false, "1 10 one\n2 20 two"))
		require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	}
	require.NoError(t, s.put(ctx, "t", false, "2 21 two!"))
	require.NoError(t, s.db.Flush(ctx, TableName{Name: "t"}))
	require.NoError(t, s.put(ctx, "t", false, "3 30 three"))
	return s
}

// TestColumnsOfOtherProgramsAreTakenUp has pylance add, drop and rename columns while rows are not merged yet: by the next look
// when the table is open, at the next Open when it is not, each time beside an ALTER TABLE that the dataset does not have.
func TestColumnsOfOtherProgramsAreTakenUp(t *testing.T) {
	ctx := context.Background()
	s := newForeignColumns(t, "id int64 key, a int64, b utf8")
	require.NoError(t, s.db.CreateIndex(ctx, TableName{Name: "t"}, IndexDef{Name: "by_b", Kind: BTreeIndex, Columns: []string{"b"}}, CreateIndexOptions{}))
	require.NoError(t, s.put(ctx, "t", false, "2 22 two!!\n3 30 three"))
	lanceDo(t, s.dir, "t", `ds.add_columns(pa.schema([pa.field("twice", pa.int64())]))`)
	require.NoError(t, s.db.Refresh(ctx))
	require.Equal(t, "id, a, b, twice", columnNames(t, s.db, "t"))
	require.Equal(t, []string{"1 10 one null", "2 22 two!! null", "3 30 three null"}, tableLines(t, s.db, "t"))
	require.NoError(t, s.put(ctx, "t", false, "4 40 four 80"))

	lanceDo(t, s.dir, "t", `ds.alter_columns({"path": "a", "name": "ay"}); ds.drop_columns(["b"])`)
	require.NoError(t, s.db.Refresh(ctx))
	want := []string{"1 10 null", "2 22 null", "3 30 null", "4 40 80"}
	require.Equal(t, "id, ay, twice", columnNames(t, s.db, "t"))
	require.Equal(t, want, tableLines(t, s.db, "t"))
	require.Empty(t, s.db.mustTable(t, "t").Indexes())

	// A kill, or a shutdown, and the same from the log.
	s.close()
	lanceDo(t, s.dir, "t", `ds.add_columns(pa.schema([pa.field("text", pa.string())])); ds.drop_columns(["twice"])`)
	s.open()
	want = []string{"1 10 null", "2 22 null", "3 30 null", "4 40 null"}
	require.Equal(t, "id, ay, text", columnNames(t, s.db, "t"))
	require.Equal(t, want, tableLines(t, s.db, "t"))
	s.close()
	s.open()
	require.Equal(t, want, tableLines(t, s.db, "t"))

	// An ALTER TABLE that the dataset does not have yet stays.
	fails := func(op, name string) error {
		if strings.HasPrefix(name, "t.lance/_versions/") && op == "putifabsent" {
			return errFault
		}
		return nil
	}
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	withFaults(s.db).inject(fails, nil)
	require.NoError(t, s.alter(ctx, "t", "add n int64 = 7\nrename text words"))
	lanceDo(t, s.dir, "t", `ds.drop_columns(["ay"])`)
	require.NoError(t, s.db.Refresh(ctx))
	require.Equal(t, "id, words, n", columnNames(t, s.db, "t"))
	want = []string{"1 null 7", "2 null 7", "3 null 7", "4 null 7"}
	require.Equal(t, want, tableLines(t, s.db, "t"))
	s.db.st.(*faultStore).inject(nil, nil)
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	require.Equal(t, want, tableLines(t, s.db, "t"))
	s.close()
	require.Equal(t, want, lanceLines(t, filepath.Join(s.dir, "t.lance")))
	_, err := Check(ctx, s.dir, func(f Fault) { t.Error(f) })
	require.NoError(t, err)
}

// mustTable returns a table.
func (db *DB) mustTable(t *testing.T, name string) *Table {
	t.Helper()
	table, err := db.Table(TableName{Name: name})
	require.NoError(t, err)
	return table
}

// TestColumnsThatCannotBeTakenUp has pylance drop the key, and give a column another type under rows that are not merged yet:
// readers keep what they had, writers are told why, other tables are served, and no row is lost when it is undone.
func TestColumnsThatCannotBeTakenUp(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct{ schema, do, fault string }{
		"key":  {"id int64 key, a int64, b utf8", `ds.drop_columns(["id"])`, `has no column "id" any more, which is part of the primary key (id)`},
		"cast": {"id int64, a int32, b utf8", `ds.alter_columns({"path": "a", "data_type": pa.int64()})`, `has another type for column "a", of which there are rows that were not merged yet`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newForeignColumns(t, c.schema)
			require.NoError(t, s.create(ctx, "other", "id int64 key"))
			require.NoError(t, s.put(ctx, "other", false, "1"))
			want := tableLines(t, s.db, "t")
			lanceDo(t, s.dir, "t", c.do)
			require.NoError(t, s.db.Refresh(ctx))
			require.Equal(t, want, tableLines(t, s.db, "t"))
			var readOnly *ReadOnlyError
			require.ErrorAs(t, s.put(ctx, "t", false, "4 40 four"), &readOnly)
			require.ErrorContains(t, readOnly, c.fault)
			require.ErrorContains(t, s.db.Optimize(ctx, TableName{Name: "t"}), c.fault)

			s.close()
			s.open()
			require.Equal(t, []string{"1"}, tableLines(t, s.db, "other"))
			var unserved *UnservedError
			_, err := s.db.Table(TableName{Name: "t"})
			require.ErrorAs(t, err, &unserved)
			require.ErrorContains(t, err, c.fault)
			require.NoError(t, s.put(ctx, "other", false, "2"))
			require.NoError(t, s.db.Flush(ctx, TableName{Name: "other"}))
			s.close()

			lanceDo(t, s.dir, "t", `lance.dataset(ds.uri, version=ds.version - 1).restore()`)
			s.open()
			require.Equal(t, want, tableLines(t, s.db, "t"))
			require.NoError(t, s.put(ctx, "t", false, "4 40 four"))
			require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
			require.Equal(t, append(want, "4 40 four"), tableLines(t, s.db, "t"))
			s.close()
		})
	}
}

// TestACastIsTakenUpWhenAllIsMerged has pylance widen a column, and add one that it computes: their values come from the dataset.
func TestACastIsTakenUpWhenAllIsMerged(t *testing.T) {
	ctx := context.Background()
	s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
	python.Need(t)
	lance := func(line string) {
		python.Run(t, "import lance, pyarrow as pa, sys\npath = sys.argv[1]\n"+line, filepath.Join(s.dir, "t.lance"))
	}
	lance(`lance.write_dataset(pa.table({"a": pa.array([1, 2], pa.int16())}), path)`)
	s.open()
	lance(`lance.dataset(path).alter_columns({"path": "a", "data_type": pa.int32()})`)
	require.NoError(t, s.db.Refresh(ctx))
	require.Equal(t, "int32", s.db.mustTable(t, "t").Schema().Field(0).Type.String())
	require.Equal(t, []string{"1", "2"}, tableLines(t, s.db, "t"))
	s.close()
	lance(`lance.dataset(path).alter_columns({"path": "a", "data_type": pa.int64()}); lance.dataset(path).add_columns({"twice": "a * 2"})`)
	s.open()
	require.Equal(t, "int64", s.db.mustTable(t, "t").Schema().Field(0).Type.String())
	require.Equal(t, []string{"1 2", "2 4"}, tableLines(t, s.db, "t"))
	require.NoError(t, s.put(ctx, "t", false, "3 6"))
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	require.Equal(t, []string{"1 2", "2 4", "3 6"}, tableLines(t, s.db, "t"))
	s.close()
}

// TestAColumnThatCameAndWentStaysAway has pylance add a column, rename and drop it, so that the dataset has columns which the
// table had before: that is no ALTER TABLE that the dataset lacks. So while the table is open, and so while it is not.
func TestAColumnThatCameAndWentStaysAway(t *testing.T) {
	ctx := context.Background()
	s := newForeignColumns(t, "id int64 key, a int64, b utf8")
	for _, restart := range []bool{false, true} {
		again := func() {
			if restart {
				s.close()
				s.open()
			}
			require.NoError(t, s.db.Refresh(ctx))
		}
		if restart {
			s.close()
		}
		lanceDo(t, s.dir, "t", `ds.add_columns(pa.schema([pa.field("extra", pa.int64())]))`)
		if restart {
			s.open()
		}
		require.NoError(t, s.db.Refresh(ctx))
		require.Equal(t, "id, a, b, extra", columnNames(t, s.db, "t"))
		lanceDo(t, s.dir, "t", `ds.alter_columns({"path": "extra", "name": "more"})`)
		again()
		require.Equal(t, "id, a, b, more", columnNames(t, s.db, "t"))
		lanceDo(t, s.dir, "t", `ds.drop_columns(["more"])`)
		again()
		require.Equal(t, "id, a, b", columnNames(t, s.db, "t"))
		require.NoError(t, s.put(ctx, "t", false, "2 22 two"))
		require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
		lanceDo(t, s.dir, "t", `assert ds.schema.names == ["id", "a", "b"], ds.schema`)
		require.Equal(t, []string{"1 10 one", "2 22 two", "3 30 three"}, tableLines(t, s.db, "t"))
	}
	s.close()
}
