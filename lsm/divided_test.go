package lsm

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
)

// overwriteTwo has pylance put two other rows in the place of a dataset's.
const overwriteTwo = `lance.write_dataset(pa.table([pa.array(c, f.type) for c, f in zip([[1, 9], [0, 0], ["came", "new"]], ds.schema)], schema=ds.schema), ds.uri, mode="overwrite")`

// refusedAsDivided fails unless the table says that it is divided, to all that would write to it.
func refusedAsDivided(t *testing.T, s *scenario, what string) {
	t.Helper()
	var readOnly *ReadOnlyError
	err := s.put(context.Background(), "t", false, "7 70 seven")
	require.ErrorAs(t, err, &readOnly)
	require.ErrorContains(t, err, what)
	require.ErrorContains(t, err, `OPTIMIZE "t" puts them on top of it`)
	table := s.db.mustTable(t, "t")
	require.ErrorAs(t, table.compactor.order(context.Background(), table.compactor.mergeAll), &readOnly, "nor is it merged by itself")
}

// TestAReplacedContentDividesTheTable has pylance overwrite the dataset, or restore a version, below rows in a generation and in a
// memtable: while the table is open, while it is not, and with a restart before OPTIMIZE.
func TestAReplacedContentDividesTheTable(t *testing.T) {
	ctx := context.Background()
	restored := []string{"2 21 two!", "3 30 three"}
	for _, c := range []struct {
		name, line, says string
		want             []string
	}{
		{"overwrite", overwriteTwo, "another program overwrote the dataset in version", []string{"1 0 came", "2 21 two!", "3 30 three", "9 0 new"}},
		{"restore", `lance.dataset(ds.uri, version=1).restore()`, "another program restored an older version of the dataset in version", restored},
	} {
		for _, closed := range []bool{false, true} {
			s := newForeignColumns(t, "id int64 key, a int64, b utf8")
			if closed {
				s.close()
			}
			lanceDo(t, s.dir, "t", c.line)
			if closed {
				s.open()
			}
			require.NoError(t, s.db.Refresh(ctx))
			refusedAsDivided(t, s, c.says)
			require.Equal(t, c.want, tableLines(t, s.db, "t"), c.name)
			// Others commit on top of it, and the process ends: nothing is forgotten.
			lanceDo(t, s.dir, "t", `ds.delete("id = 1000")`)
			s.crash()
			refusedAsDivided(t, s, c.says)
			require.Equal(t, c.want, tableLines(t, s.db, "t"), c.name)

			require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
			require.NoError(t, s.put(ctx, "t", false, "7 70 seven"))
			s.crash()
			require.NoError(t, s.put(ctx, "t", false, "8 80 eight"))
			require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
			require.Contains(t, tableLines(t, s.db, "t"), "7 70 seven")
			require.Len(t, tableLines(t, s.db, "t"), len(c.want)+2)
			require.Equal(t, tableLines(t, s.db, "t"), lanceLines(t, s.dir+"/t.lance"))
			s.close()
		}
	}
}

// TestAReplacedContentWithNothingInFrontIsTakenUp overwrites the dataset of a table with no unmerged rows: it is written on, before
// and after a restart.
func TestAReplacedContentWithNothingInFrontIsTakenUp(t *testing.T) {
	ctx := context.Background()
	s := newForeignColumns(t, "id int64 key, a int64, b utf8")
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	lanceDo(t, s.dir, "t", overwriteTwo)
	require.NoError(t, s.db.Refresh(ctx))
	require.Equal(t, []string{"1 0 came", "9 0 new"}, tableLines(t, s.db, "t"))
	require.NoError(t, s.put(ctx, "t", false, "7 70 seven"))
	require.NoError(t, s.db.trimNow())
	for range 2 {
		s.crash()
		require.NoError(t, s.put(ctx, "t", false, "8 80 eight"))
		require.Equal(t, []string{"1 0 came", "7 70 seven", "8 80 eight", "9 0 new"}, tableLines(t, s.db, "t"))
	}
	s.close()
}

// TestAnotherKeyIsNotTakenUp has pylance overwrite the dataset with another primary key: readers keep the version before, and
// nothing is written.
func TestAnotherKeyIsNotTakenUp(t *testing.T) {
	python.Need(t)
	ctx := context.Background()
	s := newForeignColumns(t, "id int64 key, a int64, b utf8")
	before := tableLines(t, s.db, "t")
	lanceDo(t, s.dir, "t", `
fields = [ds.schema.field(0).remove_metadata(), ds.schema.field(1).with_nullable(False).with_metadata({"lance-schema:unenforced-primary-key": "true"}), ds.schema.field(2)]
lance.write_dataset(pa.table([pa.array([5], pa.int64()), pa.array([6], pa.int64()), pa.array(["x"])], schema=pa.schema(fields)), ds.uri, mode="overwrite")`)
	require.NoError(t, s.db.Refresh(ctx))
	require.Equal(t, before, tableLines(t, s.db, "t"))
	err := s.put(ctx, "t", false, "7 70 seven")
	var readOnly *ReadOnlyError
	require.ErrorAs(t, err, &readOnly)
	require.ErrorContains(t, err, "declares the primary key (a), the table has (id)")
	lanceDo(t, s.dir, "t", `lance.dataset(ds.uri, version=ds.version - 1).restore()`)
	require.NoError(t, s.db.Refresh(ctx))
	require.Equal(t, before, tableLines(t, s.db, "t"))
	require.NoError(t, s.put(ctx, "t", false, "7 70 seven")) // what was restored is what the rows were written over
	s.crash()
	require.NoError(t, s.put(ctx, "t", false, "8 80 eight"))
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	require.Equal(t, append(before, "7 70 seven", "8 80 eight"), tableLines(t, s.db, "t"))
	s.close()
}
