package lsm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/manifest"
)

// wordRows returns the rows of a table that has a column "word" whose word is a given one, as a scan by that column
// finds them.
func wordRows(t *testing.T, db *DB, name, word string) []string {
	t.Helper()
	snap, err := db.Snapshot(context.Background())
	require.NoError(t, err)
	defer snap.Release()
	v, err := snap.Table(TableName{Name: name})
	require.NoError(t, err)
	lines, err := wordRowsOf(v, word, allColumns(v.Schema()))
	require.NoError(t, err)
	return lines
}

// wordRowsOf is wordRows of some columns of a view, the last of which is "word".
func wordRowsOf(v *View, word string, columns []int) ([]string, error) {
	set := v.NewColumnSet(columnIndex(v.Schema(), "word"))
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Append(word)
	if err := set.Add([]arrow.Array{b.NewArray()}); err != nil {
		return nil, err
	}
	lines, err := scanWith(context.Background(), v, ScanOptions{Columns: columns, Where: set})
	return withWord(lines, word), err
}

// withWord returns the lines that end with a word.
func withWord(lines []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasSuffix(l, " "+word) })
}

// TestIndexIsWholeAfterACrash copies the folder before and after every call of the store, while an index is made,
// extended by a merge and dropped, and opens each copy: answers are those of a full scan, nothing is at fault, and what
// there is of the index can be completed.
func TestIndexIsWholeAfterACrash(t *testing.T) {
	ctx := context.Background()
	s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
	s.open()
	n := TableName{Name: "t"}
	require.NoError(t, s.create(ctx, "t", "id int64 key, word utf8"))
	require.NoError(t, s.put(ctx, "t", false, "1 a\n2 b\n3 a\n4 c\n5 a\n6 d\n7 e\n8 a"))
	require.NoError(t, s.db.Optimize(ctx, n))
	require.NoError(t, s.put(ctx, "t", false, "2 a\n3 b"))
	require.NoError(t, s.db.Flush(ctx, n))
	require.NoError(t, s.put(ctx, "t", false, "4 a"))

	var mu sync.Mutex
	var copies []string
	take := func(op, name string) error {
		mu.Lock()
		defer mu.Unlock()
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
	require.NoError(t, s.db.CreateIndex(ctx, n, IndexDef{Name: "w", Kind: BTreeIndex, Columns: []string{"word"}}, CreateIndexOptions{}))
	require.NoError(t, s.put(ctx, "t", false, "5 b\n9 a"))
	require.NoError(t, s.db.Optimize(ctx, n))
	require.NoError(t, s.db.DropIndex(ctx, n, "w"))
	s.db.st.(*faultStore).inject(nil, nil)
	s.close()

	before, after := []string{"1 a", "2 a", "4 a", "5 a", "8 a"}, []string{"1 a", "2 a", "4 a", "8 a", "9 a"}
	have := 0
	for _, dir := range copies {
		db := openTest(t, dir)
		want := before
		if countRows(t, db, "t") == 9 {
			want = after
		}
		require.Equal(t, want, wordRows(t, db, "t", "a"), dir)
		for _, x := range mustTable(t, db, "t").Indexes() {
			have++
			if !x.Foreign {
				require.NoError(t, mustTable(t, db, "t").OptimizeIndex(ctx, x.Name, nil))
			}
		}
		require.Equal(t, want, wordRows(t, db, "t", "a"), dir)
		require.NoError(t, db.CreateIndex(ctx, n, IndexDef{Name: "w", Kind: BTreeIndex, Columns: []string{"word"}}, CreateIndexOptions{Replace: true}))
		require.Equal(t, want, wordRows(t, db, "t", "a"), dir)
		require.Zero(t, mustTable(t, db, "t").Indexes()[0].Uncovered, dir)
		require.NoError(t, db.Close())
		requireSound(t, dir)
	}
	require.Greater(t, have, len(copies)/3, "few of %d copies have the index", len(copies))
}

// TestADropIsNotHalfAnIndex copies the folder before and after every call of the store while an index is dropped: in each
// copy it is the catalog's, or gone.
func TestADropIsNotHalfAnIndex(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "t", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"seq"}}, CreateIndexOptions{}))
	var copies []string
	take := func(string, string) error {
		copies = append(copies, crashCopy(t, dir))
		return nil
	}
	withFaults(db).inject(take, take)
	require.NoError(t, db.DropIndex(ctx, table.Name(), "i"))
	withFaults(db).inject(nil, nil)
	require.Empty(t, table.Indexes())
	require.NoError(t, db.Close())
	found := map[int]int{}
	for _, dir := range copies {
		db := openTest(t, dir)
		list := mustTable(t, db, "t").Indexes()
		for _, x := range list {
			require.False(t, x.Foreign)
		}
		found[len(list)]++
		require.Equal(t, map[int64][2]int64{1: {0, 1}, 2: {0, 1}, 3: {0, 1}}, readWrites(t, db, "t"))
		require.NoError(t, db.Close())
	}
	require.Positive(t, found[0])
	require.Positive(t, found[1])
}

// TestAReplacedIndexIsGoneAfterACrash copies the folder before and after every call of the store while an index takes the
// place of one over another column: each copy comes to have segments of one of the two.
func TestAReplacedIndexIsGoneAfterACrash(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	table := createTest(t, db, "t", writesSchema)
	putKeys(t, db, table, 1, 1, 2, 3)
	require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"seq"}}, CreateIndexOptions{}))
	var copies []string
	take := func(string, string) error {
		copies = append(copies, crashCopy(t, dir))
		return nil
	}
	withFaults(db).inject(take, take)
	require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: "I", Kind: BTreeIndex, Columns: []string{"writer"}}, CreateIndexOptions{Replace: true}))
	withFaults(db).inject(nil, nil)
	require.NoError(t, db.Close())
	both := 0
	for _, dir := range copies {
		db := openTest(t, dir)
		table := mustTable(t, db, "t")
		for range 2 { // the compactor looks at the base before it serves the second
			require.NoError(t, table.compactor.order(ctx, func(context.Context) error { return nil }))
		}
		list := table.Indexes()
		require.Len(t, list, 1)
		fields := table.indexList()[0].Fields
		for _, seg := range table.set.Load().base.version.Indexes {
			if !table.now().isKey(seg.Fields) && seg.Name != "__lance_mem_wal" {
				require.Equal(t, fields, seg.Fields, "%s in %s", seg.Name, dir)
			}
		}
		if list[0].Columns[0] == "writer" && list[0].Uncovered > 0 {
			both++ // the base was cut off between the two
		}
		require.Equal(t, map[int64][2]int64{1: {0, 1}, 2: {0, 1}, 3: {0, 1}}, readWrites(t, db, "t"))
		require.NoError(t, db.Close())
		requireSound(t, dir)
	}
	require.Positive(t, both)
}

// TestCheckFindsIndexesThatLie puts indexes into a base that lack a row, or have another value.
func TestCheckFindsIndexesThatLie(t *testing.T) {
	ctx := context.Background()
	for want, entries := range map[string]map[string][]uint64{
		"":                             {"a": {0, 2}, "b": {1}},
		"2 entries of rows that count": {"a": {0}, "b": {1}},
		"other values than the rows":   {"a": {0, 1}, "b": {2}},
		"leads to row 7 of fragment 0": {"a": {0, 2}, "b": {1, 7}},
	} {
		dir := t.TempDir()
		s := &scenario{t: t, dir: dir, snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
		s.open()
		require.NoError(t, s.create(ctx, "t", "id int64 key, word utf8"))
		require.NoError(t, s.put(ctx, "t", false, "1 a\n2 b\n3 a\n4 dead"))
		require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
		require.NoError(t, s.put(ctx, "t", true, "4 null true"))
		require.NoError(t, s.db.Optimize(ctx, TableName{Name: "t"}))
		table := mustTable(t, s.db, "t")
		b, err := table.holdBase()
		require.NoError(t, err)
		seg, err := newColumnSegment(indexEntry{Name: "w", Fields: []int32{table.now().lance.Fields[1].ID}}, 1)
		require.NoError(t, err)
		seg.Fragments.Add(0)
		codec := newColumnCodec(table.now().arrow.Field(1), 1)
		require.NoError(t, writeColumn(ctx, s.db.st, table.root, &seg, codec, func(w *columnWriter) error {
			for _, word := range []string{"a", "b"} {
				for _, id := range entries[word] {
					if err := w.add(id); err != nil {
						return err
					}
					appendWide(w.b, []byte(word))
				}
			}
			return nil
		}))
		_, err = manifest.Commit(ctx, s.db.st, table.root, b.version, manifest.Change{
			Indexes: func(*manifest.Version, []uint64) ([]manifest.Index, error) { return []manifest.Index{seg}, nil }}, manifest.Options{})
		require.NoError(t, err)
		b.unref()
		s.close()
		_, list := faults(t, dir)
		if want == "" {
			require.Empty(t, list)
			continue
		}
		require.Len(t, list, 1, want)
		require.ErrorContains(t, list[0].Err, want)
		require.Contains(t, list[0].File, "_indices/")
	}
}

// TestSortedInScratchFiles sorts rows of a column whose values do not fit into memory: the index is the same, and the
// scratch files are gone.
func TestSortedInScratchFiles(t *testing.T) {
	ctx := context.Background()
	rows := fewer[int64](40_000, 5)
	db, err := Open(ctx, Options{Dir: t.TempDir(), sortBytes: 100_000})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	fields, _ := indexTypes()
	schema := arrow.NewSchema(append([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}}, fields...), nil)
	require.NoError(t, db.CreateTable(ctx, TableDef{Name: TableName{Name: "t"}, Schema: schema, Key: []string{"id"}}))
	table := mustTable(t, db, "t")
	for at := int64(0); at < rows; at += 4000 {
		rec := indexedBatch(schema, at, 4000, 1)
		lsn, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
		rec.Release()
		require.NoError(t, db.Wait(ctx, lsn))
		require.NoError(t, db.Optimize(ctx, table.Name())) // a fragment each
	}
	for _, column := range []string{"i", "s"} {
		var told []int64
		require.NoError(t, db.CreateIndex(ctx, table.Name(), IndexDef{Name: column, Kind: BTreeIndex, Columns: []string{column}},
			CreateIndexOptions{Progress: func(done, total int64) { told = append(told, done, total) }}))
		require.Equal(t, []int64{rows, rows}, told[len(told)-2:])
	}
	left, err := os.ReadDir(db.opt.Temp)
	require.NoError(t, err)
	for _, e := range left {
		inside, err := os.ReadDir(filepath.Join(db.opt.Temp, e.Name()))
		require.NoError(t, err)
		require.Empty(t, inside, e.Name())
	}
	b, err := table.holdBase()
	require.NoError(t, err)
	defer b.unref()
	require.Len(t, b.columns, 2)
	for _, seg := range b.columns {
		x, err := btree.Open(ctx, db.st, filepath.Join(table.root, seg.meta.Dir()), btree.Options{})
		require.NoError(t, err)
		require.NoError(t, x.Verify(ctx))
		require.Equal(t, rows, x.Rows())
		require.NoError(t, x.Close())
	}
	requireSound(t, crashCopy(t, db.opt.Dir))
}
