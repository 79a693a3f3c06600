package lsm

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
	require.ErrorContains(t, err, `OPTIMIZE "t" puts them on top of it, and CALL flightd_discard('"t"') drops the rows that are not merged`)
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

// otherKey has pylance overwrite a dataset with two rows and the primary key a.
const otherKey = `
fields = [ds.schema.field(0).remove_metadata(), ds.schema.field(1).with_nullable(False).with_metadata({"lance-schema:unenforced-primary-key": "true"}), ds.schema.field(2)]
lance.write_dataset(pa.table([pa.array([5, 6], pa.int64()), pa.array([6, %d], pa.int64()), pa.array(["x", "y"])], schema=pa.schema(fields)), ds.uri, mode="overwrite")`

// lanceKey has pylance declare the key of a table.
const lanceKey = `ds.update_field_metadata({"id": {"lance-schema:unenforced-primary-key": "true"}})`

// TestAnotherKeyUnderUnmergedRows has pylance overwrite the dataset with another primary key below rows that are not merged: the
// table is read and not written until the old version is back, OPTIMIZE has merged the rows, or they are discarded.
func TestAnotherKeyUnderUnmergedRows(t *testing.T) {
	ctx := context.Background()
	name := TableName{Name: "t"}
	for _, closed := range []bool{false, true} {
		for _, remedy := range []string{"restore", "optimize", "discard"} {
			s := newForeignColumns(t, "id int64 key, a int64, b utf8")
			before := tableLines(t, s.db, "t")
			lanceDo(t, s.dir, "t", fmt.Sprintf(otherKey, 7))
			if closed {
				s.crash()
			}
			require.NoError(t, s.db.Refresh(ctx))
			on := []string{"2 21 two!", "3 30 three", "5 6 x", "6 7 y"}
			require.Equal(t, on, tableLines(t, s.db, "t"))
			require.Equal(t, []string{"id"}, s.db.mustTable(t, "t").Key())
			err := s.put(ctx, "t", false, "7 70 seven")
			var readOnly *ReadOnlyError
			require.ErrorAs(t, err, &readOnly)
			require.ErrorContains(t, err, `CALL flightd_discard('"t"') drops the rows that are not merged`)
			require.ErrorContains(t, err, `OPTIMIZE "t"`)
			key := []string{"a"}
			switch remedy {
			case "restore":
				lanceDo(t, s.dir, "t", `lance.dataset(ds.uri, version=ds.version - 1).restore()`)
				require.NoError(t, s.db.Refresh(ctx))
				on, key = before, []string{"id"} // what was restored is what the rows were written over
			case "optimize":
				require.NoError(t, s.db.Optimize(ctx, name))
			case "discard":
				rows, err := s.db.Discard(ctx, name)
				require.NoError(t, err)
				require.EqualValues(t, 2, rows)
				on = on[2:]
			}
			for range 2 {
				require.Equal(t, key, s.db.mustTable(t, "t").Key(), remedy)
				require.Equal(t, on, tableLines(t, s.db, "t"), remedy)
				s.crash()
			}
			require.NoError(t, s.put(ctx, "t", false, "7 70 seven"))
			require.NoError(t, s.put(ctx, "t", false, "7 70 seven"), "it upserts")
			s.crash()
			require.Equal(t, append(slices.Clone(on), "7 70 seven"), tableLines(t, s.db, "t"), remedy)
			require.NoError(t, s.db.Optimize(ctx, name))
			require.Equal(t, append(slices.Clone(on), "7 70 seven"), lanceLines(t, s.dir+"/t.lance"), remedy)
			s.close()
			requireSound(t, s.dir)
		}
	}
}

// TestAKeyThatPylanceDeclares has pylance declare a key on a table without one: it upserts from then on, while it is open or
// from the next start, unless two rows have one key: then it is read only until one of them is gone.
func TestAKeyThatPylanceDeclares(t *testing.T) {
	python.Need(t)
	ctx := context.Background()
	name := TableName{Name: "t"}
	for _, closed := range []bool{false, true} {
		s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
		python.Run(t, `import lance, pyarrow as pa, sys
fields = [pa.field("id", pa.int64(), nullable=False), pa.field("a", pa.int64()), pa.field("b", pa.string())]
lance.write_dataset(pa.table([pa.array([1, 2, 2]), pa.array([10, 20, 21]), pa.array(["one", "two", "again"])], schema=pa.schema(fields)), sys.argv[1])`, s.dir+"/t.lance")
		s.open()
		if closed {
			s.close()
		}
		lanceDo(t, s.dir, "t", lanceKey)
		if closed {
			s.open()
		}
		require.NoError(t, s.db.Refresh(ctx))
		err := s.put(ctx, "t", false, "7 70 seven")
		require.ErrorContains(t, err, "declares the primary key (id), the table has none: two rows have the key id = 2; delete one of them")
		require.Len(t, tableLines(t, s.db, "t"), 3)
		require.ErrorContains(t, s.db.Optimize(ctx, name), "two rows have the key id = 2")
		_, err = s.db.Discard(ctx, name)
		require.ErrorContains(t, err, "two rows have the key id = 2")
		if closed {
			s.close()
		}
		lanceDo(t, s.dir, "t", `ds.delete("a = 20")`)
		if closed {
			s.open()
		}
		require.NoError(t, s.db.Refresh(ctx))
		require.NoError(t, s.put(ctx, "t", false, "1 11 one!\n7 70 seven"))
		want := []string{"1 11 one!", "2 21 again", "7 70 seven"}
		require.Equal(t, want, tableLines(t, s.db, "t"))
		s.crash()
		require.Equal(t, want, tableLines(t, s.db, "t"))
		require.NoError(t, s.db.Optimize(ctx, name))
		require.Equal(t, want, lanceLines(t, s.dir+"/t.lance"))
		s.close()
		requireSound(t, s.dir)
	}
}

// TestDeclareKey declares keys by ourselves: over rows in memtables, generations and base, twins and nulls among them.
func TestDeclareKey(t *testing.T) {
	python.Need(t)
	ctx := context.Background()
	name := TableName{Name: "t"}
	for _, key := range [][]string{{"id"}, {"b", "id"}} {
		s := newForeignColumns(t, "id int64, a int64, b utf8")
		require.NoError(t, s.put(ctx, "t", false, "3 31 three"))
		err := s.db.DeclareKey(ctx, name, key)
		require.ErrorIs(t, err, ErrNotUnique)
		require.ErrorContains(t, err, map[int]string{1: "id = 3", 2: "b, id = (three, 3)"}[len(key)])
		require.NoError(t, s.put(ctx, "t", false, "4 40 null"), "it is what it was")
		lanceDo(t, s.dir, "t", `ds.delete("a = 31")`)
		if len(key) == 1 {
			require.NoError(t, s.db.DeclareKey(ctx, name, key))
			require.ErrorIs(t, s.db.DeclareKey(ctx, name, key), ErrKeyColumn)
		} else {
			require.ErrorContains(t, s.db.DeclareKey(ctx, name, key), "null")
			s.close()
			continue
		}
		require.NoError(t, s.put(ctx, "t", true, "4 41 four false\n2 0 null true"))
		want := []string{"3 30 three", "4 41 four"}
		for range 2 {
			require.Equal(t, want, tableLines(t, s.db, "t"))
			s.crash()
		}
		require.NoError(t, s.db.Optimize(ctx, name))
		require.Equal(t, want, lanceLines(t, s.dir+"/t.lance"))
		s.close()
		requireSound(t, s.dir)
	}
}

// TestDiscardIsWhole cuts Discard off behind its record, before the shards' manifests have it: the rows are gone all the same, and
// what is written afterwards is not.
func TestDiscardIsWhole(t *testing.T) {
	ctx := context.Background()
	name := TableName{Name: "t"}
	for _, again := range []bool{false, true} {
		s := newForeignColumns(t, "id int64 key, a int64, b utf8")
		rows, err := s.db.Discard(ctx, name)
		require.NoError(t, err)
		require.Zero(t, rows, "it is written as usual")
		lanceDo(t, s.dir, "t", overwriteTwo)
		withFaults(s.db).inject(func(op, name string) error {
			if strings.Contains(name, "/_mem_wal/") && op == "putifabsent" {
				return errFault
			}
			return nil
		}, nil)
		_, err = s.db.Discard(ctx, name)
		require.ErrorIs(t, err, errFault)
		s.db.st.(*faultStore).inject(nil, nil)
		var readOnly *ReadOnlyError
		require.ErrorAs(t, s.put(ctx, "t", false, "7 70 seven"), &readOnly)
		if again {
			_, err = s.db.Discard(ctx, name)
			require.NoError(t, err)
		} else {
			s.crash()
			_, err = s.db.Table(name)
			require.NoError(t, err)
		}
		want := []string{"1 1 came", "9 0 new"}
		require.Equal(t, strings.Replace(want[0], "1 1", "1 0", 1), tableLines(t, s.db, "t")[0])
		require.Len(t, tableLines(t, s.db, "t"), 2)
		require.NoError(t, s.put(ctx, "t", false, "7 70 seven"))
		require.NoError(t, s.db.Flush(ctx, name))
		s.crash()
		_, err = s.db.Table(name)
		require.NoError(t, err)
		require.Len(t, tableLines(t, s.db, "t"), 3)
		require.NoError(t, s.db.Optimize(ctx, name))
		require.Len(t, lanceLines(t, s.dir+"/t.lance"), 3)
		s.close()
		requireSound(t, s.dir)
	}
}

// TestDiscardInSeveralShards discards while streams write: what came before is gone, and what is acknowledged afterwards stays.
func TestDiscardInSeveralShards(t *testing.T) {
	python.Need(t)
	ctx := context.Background()
	name := TableName{Name: "t"}
	db, err := Open(ctx, Options{Dir: t.TempDir(), manual: true})
	require.NoError(t, err)
	s := &scenario{t: t, db: db, dir: db.opt.Dir}
	createShards(t, db, "t", "id int64 key, a int64, b utf8", 4)
	require.NoError(t, s.put(ctx, "t", false, "1 10 one\n2 20 two"))
	require.NoError(t, db.Optimize(ctx, name))
	for i := range 20 {
		require.NoError(t, s.put(ctx, "t", false, fmt.Sprintf("%d 0 x", 100+i)))
		if i%7 == 0 {
			require.NoError(t, db.Flush(ctx, name))
		}
	}
	lanceDo(t, s.dir, "t", overwriteTwo)
	rows, err := db.Discard(ctx, name)
	require.NoError(t, err)
	require.EqualValues(t, 20, rows)
	require.Len(t, tableLines(t, db, "t"), 2)
	require.NoError(t, s.put(ctx, "t", false, "7 70 seven"))
	require.NoError(t, db.Close())
	db, err = Open(ctx, Options{Dir: s.dir, manual: true})
	require.NoError(t, err)
	require.Len(t, tableLines(t, db, "t"), 3)
	require.NoError(t, db.Close())
	requireSound(t, s.dir)
}

// TestDiscardOfATableThatIsSetAside has pylance drop the column of the key while nobody has the table open: it is not served until its
// rows are discarded, and then has the key no more.
func TestDiscardOfATableThatIsSetAside(t *testing.T) {
	ctx := context.Background()
	name := TableName{Name: "t"}
	s := newForeignColumns(t, "id int64 key, a int64, b utf8")
	s.close()
	lanceDo(t, s.dir, "t", `ds.drop_columns(["id"])`)
	s.open()
	var unserved *UnservedError
	_, err := s.db.Table(name)
	require.ErrorAs(t, err, &unserved)
	require.ErrorContains(t, err, `CALL flightd_discard('"t"')`)
	_, err = s.db.Discard(ctx, name)
	require.NoError(t, err)
	for range 2 {
		require.Equal(t, []string{"10 one", "20 two"}, tableLines(t, s.db, "t"))
		s.crash()
	}
	require.NoError(t, s.put(ctx, "t", false, "70 seven"))
	require.NoError(t, s.db.Optimize(ctx, name))
	require.Equal(t, []string{"10 one", "20 two", "70 seven"}, lanceLines(t, s.dir+"/t.lance"))
	s.close()
	requireSound(t, s.dir)
}
