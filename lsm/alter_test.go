package lsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/internal/rows"
)

// tableLines returns the rows of a table as text, sorted, nil when there are none.
func tableLines(t *testing.T, db *DB, name string) []string {
	t.Helper()
	snap, err := db.Snapshot(context.Background())
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: name})
	require.NoError(t, err)
	lines, err := scanRows(context.Background(), v, allColumns(v.Schema()))
	require.NoError(t, err)
	return lines
}

// lanceLines returns the rows that pylance reads, as tableLines does, nil when it is not there.
func lanceLines(t *testing.T, dir string) []string {
	t.Helper()
	if !python.Have() {
		return nil
	}
	const script = `import json, lance, sys
rows = lance.dataset(sys.argv[1]).to_table().to_pylist()
def show(v):
    if isinstance(v, list):
        return "[" + ",".join(show(x) for x in v) + "]"
    return "null" if v is None else str(int(v)) if isinstance(v, float) else str(v)
print(json.dumps(sorted(" ".join(show(v) for v in r.values()) for r in rows)))`
	var lines []string
	require.NoError(t, json.Unmarshal(python.Run(t, script, dir), &lines))
	return lines
}

// TestAlterIsWholeAfterACrash copies the folder before and after every call of the store, while a table is altered and
// merged, and opens each copy: the table has its columns of before or of after, and all its rows in them.
func TestAlterIsWholeAfterACrash(t *testing.T) {
	ctx := context.Background()
	s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
	s.open()
	require.NoError(t, s.create(ctx, "t", "id int64 key, a int64, b utf8"))
	require.NoError(t, s.put(ctx, "t", false, "1 10 one\n2 20 two"))
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	require.NoError(t, s.put(ctx, "t", false, "2 21 two!\n3 30 three"))
	require.NoError(t, s.db.Flush(ctx, TableName{Name: "t"}))
	require.NoError(t, s.put(ctx, "t", false, "4 40 four"))

	var copies []string
	take := func(op, name string) error {
		next := filepath.Join(t.TempDir(), fmt.Sprint(len(copies)))
		err := fs.ErrNotExist
		for try := 0; errors.Is(err, fs.ErrNotExist) && try < 100; try++ {
			_ = os.RemoveAll(next)
			err = os.CopyFS(next, os.DirFS(s.dir))
		}
		copies = append(copies, next)
		return err
	}
	withFaults(s.db).inject(take, take)
	require.NoError(t, s.alter(ctx, "t", "add c int64 = 7\ndrop a\nrename b bee"))
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	s.db.st.(*faultStore).inject(nil, nil)
	s.close()

	before := []string{"1 10 one", "2 21 two!", "3 30 three", "4 40 four"}
	after := []string{"1 one 7", "2 two! 7", "3 three 7", "4 four 7"}
	altered := 0
	for _, dir := range copies {
		db := openTest(t, dir)
		lines := tableLines(t, db, "t")
		if len(lines[0]) == len(after[0]) {
			altered++
			require.Equal(t, after, lines)
		} else {
			require.Equal(t, before, lines)
		}
		require.NoError(t, db.Optimize(ctx, TableName{Name: "t"}))
		require.Equal(t, lines, tableLines(t, db, "t"))
		require.NoError(t, db.Close())
		_, err := Check(ctx, dir, func(f Fault) { t.Errorf("%s: %s", dir, f) })
		require.NoError(t, err)
	}
	require.Greater(t, altered, 2)
}

// TestAlignThatFails has the base keep its old columns while the disk takes no version: readers see the new ones all
// the same, and a later merge brings them into the base.
func TestAlignThatFails(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	s := &scenario{t: t, dir: dir, snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
	s.open()
	defer func() { s.close() }()
	require.NoError(t, s.create(ctx, "t", "id int64 key, a int64"))
	require.NoError(t, s.put(ctx, "t", false, "1 10\n2 20"))
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	f := withFaults(s.db)
	f.inject(func(op, name string) error {
		if strings.Contains(name, "_versions/") {
			return errFault
		}
		return nil
	}, nil)
	require.NoError(t, s.alter(ctx, "t", "add c utf8 = new\ndrop a"))
	require.ErrorIs(t, s.db.Optimize(ctx, TableName{Name: "t"}), errFault)
	require.Equal(t, []string{"1 new", "2 new"}, tableLines(t, s.db, "t"))
	s.close()
	s.open()
	require.Equal(t, []string{"1 new", "2 new"}, tableLines(t, s.db, "t"))
	require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
	require.Equal(t, []string{"1 new", "2 new"}, tableLines(t, s.db, "t"))
	if lines := lanceLines(t, filepath.Join(dir, "t.lance")); lines != nil {
		require.Equal(t, []string{"1 new", "2 new"}, lines)
	}
}

// TestAlterBesideWritersAndReaders alters a table while others write and read it: who comes with old columns is told
// so, nothing that was acknowledged is lost, and each snapshot has one schema.
func TestAlterBesideWritersAndReaders(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", "key int64 key, a int64")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var stored [2]int
	for w := range stored {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				schema := table.Schema()
				text := fmt.Sprint(i*len(stored)+w) + strings.Repeat(" 5", schema.NumFields()-1)
				rec, err := rows.Parse(schema, text)
				if err != nil {
					t.Error(err)
					return
				}
				lsn, err := table.Put(ctx, Batch{Record: rec})
				rec.Release()
				if err == nil {
					err = db.Wait(ctx, lsn)
				}
				switch {
				case errors.Is(err, ErrTableChanged):
					i-- // with the columns that there are now
				case err != nil:
					t.Error(err)
					return
				default:
					stored[w]++
				}
			}
		}()
	}
	for i := range 8 {
		a := unchanged(table)
		require.NoError(t, alterLine(&a, fmt.Sprintf("add c%d int64 = 5", i)))
		if i%3 == 2 {
			require.NoError(t, alterLine(&a, fmt.Sprintf("drop c%d", i-1)))
		}
		require.NoError(t, db.AlterTable(ctx, table.Name(), a))
		require.ErrorIs(t, db.AlterTable(ctx, table.Name(), a), ErrTableChanged)
		if i%2 == 0 {
			require.NoError(t, db.Flush(ctx, table.Name()))
		} else {
			require.NoError(t, db.Optimize(ctx, table.Name()))
		}
		for _, line := range tableLines(t, db, "t") {
			_, values, _ := strings.Cut(line, " ")
			require.Equal(t, strings.Repeat(" 5", table.Schema().NumFields()-1), " "+values)
		}
	}
	close(stop)
	wg.Wait()
	require.Len(t, tableLines(t, db, "t"), stored[0]+stored[1])
}

// TestADroppedColumnIsNotTakenForTombstones puts a batch that was made before its table lost the last column, a boolean
// one, where batches with tombstones have these.
func TestADroppedColumnIsNotTakenForTombstones(t *testing.T) {
	ctx := context.Background()
	db := openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", "id int64 key, flag bool")
	rec, err := rows.Parse(table.Schema(), "1 true\n2 true")
	require.NoError(t, err)
	defer rec.Release()
	lsn, err := table.Put(ctx, Batch{Record: rec})
	require.NoError(t, err)
	require.NoError(t, db.Wait(ctx, lsn))
	a := unchanged(table)
	require.NoError(t, alterLine(&a, "drop flag"))
	require.NoError(t, db.AlterTable(ctx, table.Name(), a))
	_, err = table.Put(ctx, Batch{Record: rec})
	require.ErrorIs(t, err, ErrTableChanged)
	require.Equal(t, []string{"1", "2"}, tableLines(t, db, "t"))
}
