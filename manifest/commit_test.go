package manifest

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

func testSchema(t testing.TB) *lance.Schema {
	t.Helper()
	key := arrow.NewMetadata([]string{lance.MetaKey}, []string{"true"})
	s, err := lance.SchemaFromArrow(arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Metadata: key},
		{Name: "v", Type: arrow.BinaryTypes.String, Nullable: true},
	}, nil), 0)
	require.NoError(t, err)
	return s
}

// dataFile stores a stand-in for a data file: this package never looks into one.
func dataFile(t testing.TB, st object.Store, root, name string, rows int64) Fragment {
	t.Helper()
	w, err := st.Create(context.Background(), path.Join(root, "data", name))
	require.NoError(t, err)
	_, err = w.Write([]byte(name))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return Fragment{Rows: rows, Files: []DataFile{{
		Path: name, Fields: []int32{0, 1}, Columns: []int32{0, 1}, Major: 2, Minor: 0, Bytes: int64(len(name)),
	}}}
}

func createTable(t testing.TB, st object.Store, root string) *Version {
	t.Helper()
	v, err := Create(context.Background(), st, root, testSchema(t), CreateOptions{Shards: 1})
	require.NoError(t, err)
	return v
}

func appendRows(t testing.TB, st object.Store, root string, base *Version, name string, rows int64) *Version {
	t.Helper()
	v, err := Commit(context.Background(), st, root, base, Change{Append: []Fragment{dataFile(t, st, root, name, rows)}}, Options{})
	require.NoError(t, err)
	return v
}

func requireSameVersion(t testing.TB, want, got *Version) {
	t.Helper()
	require.True(t, proto.Equal(want.raw, got.raw), "want %v\ngot  %v", want.raw, got.raw)
	require.Equal(t, len(want.indexes), len(got.indexes))
	for i := range want.indexes {
		require.True(t, proto.Equal(want.indexes[i], got.indexes[i]))
	}
	require.Equal(t, want.Schema.Arrow(), got.Schema.Arrow())
	require.Equal(t, want.Compacted, got.Compacted)
}

func TestCreatedTableIsTheLatest(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	_, err := Latest(ctx, st, "t.lance", Options{})
	require.ErrorIs(t, err, object.ErrNotExist)

	v := createTable(t, st, "t.lance")
	require.EqualValues(t, 1, v.Number)
	require.Equal(t, "2.0", v.Format)
	require.Empty(t, v.Fragments)
	got, err := Latest(ctx, st, "t.lance", Options{})
	require.NoError(t, err)
	requireSameVersion(t, v, got)

	_, err = Create(ctx, st, "t.lance", testSchema(t), CreateOptions{})
	require.ErrorIs(t, err, object.ErrExists)
}

func TestCommitAppendsDeletesAndRemovesEmptyFragments(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "s/t.lance"
	v := createTable(t, st, root)
	v = appendRows(t, st, root, v, "a.lance", 10)
	v = appendRows(t, st, root, v, "b.lance", 4)
	require.EqualValues(t, 14, v.Rows())
	require.EqualValues(t, 1, v.Fragments[1].ID)

	v, err := Commit(ctx, st, root, v, Change{Delete: map[uint64]*roaring.Bitmap{
		0: roaring.BitmapOf(1, 3), 1: roaring.BitmapOf(0, 1, 2),
	}}, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 9, v.Rows())
	require.EqualValues(t, flagDeletions, v.raw.GetReaderFeatureFlags())

	v, err = Commit(ctx, st, root, v, Change{
		Append: []Fragment{dataFile(t, st, root, "c.lance", 7)},
		Delete: map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(3, 5), 1: roaring.BitmapOf(3)},
	}, Options{})
	require.NoError(t, err)
	require.Len(t, v.Fragments, 2)
	require.EqualValues(t, 0, v.Fragments[0].ID)
	require.EqualValues(t, 2, v.Fragments[1].ID, "ids of removed fragments are not used again")
	rows, err := v.Deletions(ctx, st, root, &v.Fragments[0])
	require.NoError(t, err)
	require.Equal(t, []uint32{1, 3, 5}, rows.ToArray())
	require.EqualValues(t, 14, v.Rows())

	_, err = Commit(ctx, st, root, v, Change{Delete: map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(10)}}, Options{})
	require.ErrorContains(t, err, "delete row 10 of fragment 0, which has 10 rows")
}

func TestOverwriteReplacesRowsButRemembersWhatWasCompacted(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	shard := uuid.New()
	v := appendRows(t, st, root, createTable(t, st, root), "a.lance", 10)
	v, err := Commit(ctx, st, root, v, Change{Compacted: map[uuid.UUID]uint64{shard: 3}}, Options{})
	require.NoError(t, err)
	v, err = Commit(ctx, st, root, v, Change{Overwrite: true, Append: []Fragment{dataFile(t, st, root, "b.lance", 2)}}, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 2, v.Rows())
	require.EqualValues(t, 1, v.Fragments[0].ID)
	require.Equal(t, map[uuid.UUID]uint64{shard: 3}, v.Compacted)
}

func TestGenerationsAreNeverCompactedTwice(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	shard, other := uuid.New(), uuid.New()
	base := createTable(t, st, root)
	v, err := Commit(ctx, st, root, base, Change{Compacted: map[uuid.UUID]uint64{shard: 3}}, Options{})
	require.NoError(t, err)
	_, err = Commit(ctx, st, root, v, Change{Compacted: map[uuid.UUID]uint64{shard: 3}}, Options{})
	require.ErrorIs(t, err, ErrConflict)
	_, err = Commit(ctx, st, root, base, Change{Compacted: map[uuid.UUID]uint64{shard: 4}}, Options{})
	require.ErrorIs(t, err, ErrConflict, "two compactions of one shard ran side by side")
	v, err = Commit(ctx, st, root, base, Change{Compacted: map[uuid.UUID]uint64{other: 1}}, Options{})
	require.NoError(t, err)
	require.Equal(t, map[uuid.UUID]uint64{shard: 3, other: 1}, v.Compacted)
}

func testIndex(st object.Store, root string, fragments ...uint64) Index {
	x := Index{
		UUID: uuid.New(), Name: "id_idx", Fields: []int32{0}, Fragments: roaring.New(),
		Files: []IndexFile{{Path: "page_data.lance", Bytes: 4}},
	}
	x.Details, _ = lancepb.NewAny(&lancepb.BTreeIndexDetails{})
	for _, f := range fragments {
		x.Fragments.Add(uint32(f))
	}
	w, _ := st.Create(context.Background(), path.Join(root, x.Dir(), "page_data.lance"))
	_, _ = w.Write([]byte("data"))
	_ = w.Close()
	return x
}

func TestIndexesFollowTheIDsThatFragmentsGet(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	base := createTable(t, st, root)
	appendRows(t, st, root, base, "rival.lance", 5)
	var calls [][]uint64
	v, err := Commit(ctx, st, root, base, Change{
		Append: []Fragment{dataFile(t, st, root, "a.lance", 3), dataFile(t, st, root, "b.lance", 3)},
		Indexes: func(on *Version, ids []uint64) ([]Index, error) {
			calls = append(calls, ids)
			x := testIndex(st, root, ids...)
			x.Version = on.Number
			return []Index{x}, nil
		},
	}, Options{})
	require.NoError(t, err)
	require.Equal(t, [][]uint64{{0, 1}, {1, 2}}, calls, "the rival took id 0 and the index had to be made again")
	require.Len(t, v.Indexes, 1)
	require.Equal(t, []uint32{1, 2}, v.Indexes[0].Fragments.ToArray())
	require.True(t, v.Indexes[0].BTree())

	v = appendRows(t, st, root, v, "c.lance", 1)
	require.Len(t, v.Indexes, 1, "an append carries indexes forward")
	v, err = Commit(ctx, st, root, v, Change{RemoveIndexes: []uuid.UUID{v.Indexes[0].UUID}}, Options{})
	require.NoError(t, err)
	require.Empty(t, v.Indexes)
	require.NotNil(t, v.memWAL, "the system index stays")
}

func TestCommitRebasesOverWhatCommutesAndRefusesTheRest(t *testing.T) {
	ctx := context.Background()
	rows := func(fragment uint64, at ...uint32) map[uint64]*roaring.Bitmap {
		return map[uint64]*roaring.Bitmap{fragment: roaring.BitmapOf(at...)}
	}
	for _, c := range []struct {
		name        string
		rival, mine Change
		conflict    bool
	}{
		{name: "delete over append", rival: Change{Append: make([]Fragment, 1)}, mine: Change{Delete: rows(0, 1)}},
		{name: "delete over delete of another fragment", rival: Change{Delete: rows(1, 1)}, mine: Change{Delete: rows(0, 1)}},
		{name: "delete over delete of the fragment", rival: Change{Delete: rows(0, 1)}, mine: Change{Delete: rows(0, 2)}, conflict: true},
		{name: "append over delete", rival: Change{Delete: rows(0, 1)}, mine: Change{Append: make([]Fragment, 1)}},
		{name: "append over overwrite", rival: Change{Overwrite: true}, mine: Change{Append: make([]Fragment, 1)}, conflict: true},
		{name: "append over update", rival: Change{Append: make([]Fragment, 1), Delete: rows(0, 1)}, mine: Change{Append: make([]Fragment, 1)}},
		{name: "update over update of another fragment", rival: Change{Append: make([]Fragment, 1), Delete: rows(0, 1)}, mine: Change{Append: make([]Fragment, 1), Delete: rows(1, 1)}},
		{name: "update over update of the fragment", rival: Change{Append: make([]Fragment, 1), Delete: rows(0, 1)}, mine: Change{Append: make([]Fragment, 1), Delete: rows(0, 2)}, conflict: true},
		{name: "compaction over update", rival: Change{Append: make([]Fragment, 1), Delete: rows(0, 1)}, mine: Change{Append: make([]Fragment, 1), Compacted: map[uuid.UUID]uint64{uuid.New(): 1}}, conflict: true},
		{name: "overwrite over append", rival: Change{Append: make([]Fragment, 1)}, mine: Change{Overwrite: true}, conflict: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, root := object.NewMem(), "t.lance"
			base := createTable(t, st, root)
			base = appendRows(t, st, root, base, "a.lance", 10)
			base = appendRows(t, st, root, base, "b.lance", 10)
			for i := range c.rival.Append {
				c.rival.Append[i] = dataFile(t, st, root, fmt.Sprintf("rival%d.lance", i), 5)
			}
			for i := range c.mine.Append {
				c.mine.Append[i] = dataFile(t, st, root, fmt.Sprintf("mine%d.lance", i), 5)
			}
			rival, err := Commit(ctx, st, root, base, c.rival, Options{})
			require.NoError(t, err)
			before, err := st.List(ctx, root+"/_deletions")
			require.NoError(t, err)

			v, err := Commit(ctx, st, root, base, c.mine, Options{})
			if c.conflict {
				require.ErrorIs(t, err, ErrConflict)
				after, err := st.List(ctx, root+"/_deletions")
				require.NoError(t, err)
				require.Equal(t, before, after, "a conflict leaves no files behind")
				return
			}
			require.NoError(t, err)
			require.EqualValues(t, rival.Number+1, v.Number)
		})
	}
}

func TestManyCommittersLoseNothing(t *testing.T) {
	t.Run("in memory", func(t *testing.T) { raceCommitters(t, object.NewMem(), 8, 10) })
	t.Run("on disk", func(t *testing.T) { raceCommitters(t, object.NewLocal(t.TempDir()), 4, 6) })
}

func raceCommitters(t *testing.T, st object.Store, writers, commits int) {
	ctx, root := context.Background(), "t.lance"
	base := createTable(t, st, root)
	for w := range writers {
		base = appendRows(t, st, root, base, fmt.Sprintf("own%d.lance", w), 100)
	}
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			v := base
			for c := range commits {
				// Each writer deletes in its own fragment and appends, in turn: both commute with everything here.
				change := Change{Delete: map[uint64]*roaring.Bitmap{uint64(w): roaring.BitmapOf(uint32(c))}}
				if c%2 == 1 {
					change = Change{Append: []Fragment{dataFile(t, st, root, fmt.Sprintf("w%d-%d.lance", w, c), 1)}}
				}
				if v, errs[w] = Commit(ctx, st, root, v, change, Options{}); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}

	last, err := Latest(ctx, st, root, Options{})
	require.NoError(t, err)
	require.EqualValues(t, int(base.Number)+writers*commits, last.Number, "each commit has a version of its own")
	for n := uint64(1); n <= last.Number; n++ {
		_, err := Load(ctx, st, root, n)
		require.NoError(t, err, "there is no gap")
	}
	paths := make(map[string]int)
	for i := range last.Fragments {
		f := &last.Fragments[i]
		paths[f.Files[0].Path]++
		if f.ID < uint64(writers) {
			rows, err := last.Deletions(ctx, st, root, f)
			require.NoError(t, err)
			require.Equal(t, []uint32{0, 2, 4, 6, 8}[:commits/2], rows.ToArray())
		}
	}
	require.Len(t, paths, writers+writers*commits/2)
	require.EqualValues(t, 100*writers, last.Rows(), "each writer appended as many rows as it deleted")
	files, err := st.List(ctx, root+"/_deletions")
	require.NoError(t, err)
	require.Len(t, files, commits/2*writers, "attempts that were overtaken leave no deletion files")
}

func TestFilesThatDoNotFitTheTableAreRefused(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	base := createTable(t, st, root)
	for want, edit := range map[string]func(*DataFile){
		"field 7, which the table does not have":   func(f *DataFile) { f.Fields[1] = 7 },
		"of version 2.1 to a table of version 2.0": func(f *DataFile) { f.Minor = 1 },
		"a column for each field":                  func(f *DataFile) { f.Columns = nil },
	} {
		f := dataFile(t, st, root, uuid.NewString(), 5)
		edit(&f.Files[0])
		_, err := Commit(ctx, st, root, base, Change{Append: []Fragment{f}}, Options{})
		require.ErrorContains(t, err, want)
	}
	for name, c := range map[string]Change{
		"empty":             {},
		"schema and rows":   {Schema: testSchema(t), Append: []Fragment{dataFile(t, st, root, "c", 1)}},
		"files, no schema":  {AddFiles: map[uint64][]DataFile{0: dataFile(t, st, root, "d", 1).Files}},
		"files of nothing":  {Schema: testSchema(t), AddFiles: map[uint64][]DataFile{7: dataFile(t, st, root, "e", 1).Files}},
		"all rows deleted":  {Append: []Fragment{dataFile(t, st, root, "a", 1)}, AppendDeleted: map[int]*roaring.Bitmap{0: roaring.BitmapOf(0)}},
		"rows not in it":    {Append: []Fragment{dataFile(t, st, root, "b", 1)}, AppendDeleted: map[int]*roaring.Bitmap{0: roaring.BitmapOf(1)}},
		"overwrite of some": {Overwrite: true, Delete: map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(1)}},
	} {
		_, err := Commit(ctx, st, root, base, c, Options{})
		require.Error(t, err, name)
	}
}

func TestColumnsChangeWithTheSchemaOnly(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	v := appendRows(t, st, root, createTable(t, st, root), "a.lance", 10)
	next := &lance.Schema{Fields: append(slices.Clone(v.Schema.Fields[:1]),
		lance.Field{ID: 5, Name: "added", Type: arrow.PrimitiveTypes.Int64, Nullable: true})}
	file := dataFile(t, st, root, "added.lance", 10).Files[0]
	file.Fields, file.Columns = []int32{5}, []int32{0}
	rival := appendRows(t, st, root, v, "b.lance", 1)
	change := Change{Schema: next, AddFiles: map[uint64][]DataFile{0: {file}}}
	_, err := Commit(ctx, st, root, v, change, Options{})
	require.ErrorIs(t, err, ErrConflict, "the rival's rows have no such file")
	v, err = Commit(ctx, st, root, rival, change, Options{})
	require.NoError(t, err)
	require.Equal(t, []string{"added"}, []string{v.Schema.Fields[1].Name})
	require.Len(t, v.Fragments[0].Files, 2)
	require.Len(t, v.Fragments[1].Files, 1)
	require.NotNil(t, v.tx.GetMerge())
	require.EqualValues(t, 6, v.NextFieldID())

	v, err = Commit(ctx, st, root, v, Change{Schema: &lance.Schema{Fields: next.Fields[:1]}}, Options{})
	require.NoError(t, err)
	require.NotNil(t, v.tx.GetProject())
	require.Len(t, v.Fragments[0].Files, 2, "files stay; their field counts no longer")
	require.EqualValues(t, 6, v.NextFieldID(), "ids are not given again")
}

func BenchmarkCommit(b *testing.B) {
	st, root := object.NewLocal(b.TempDir()), "t.lance"
	v := createTable(b, st, root)
	for i := 0; b.Loop(); i++ {
		v = appendRows(b, st, root, v, fmt.Sprint(i), 10)
	}
}

// TestACommitIsNotHiddenBelowNewerVersions has another program commit twice and remove all but its newest version: the
// number after the one that we stand on is free again, but a version there would be seen by nobody.
func TestACommitIsNotHiddenBelowNewerVersions(t *testing.T) {
	ctx, st := context.Background(), object.NewMem()
	v1 := createTable(t, st, "t.lance")
	v2 := appendRows(t, st, "t.lance", v1, "a.lance", 10)
	v3 := appendRows(t, st, "t.lance", v2, "b.lance", 10)
	for _, v := range []*Version{v1, v2} {
		require.NoError(t, st.Delete(ctx, v.name))
	}
	current, err := Current(ctx, st, "t.lance", v1.Number)
	require.NoError(t, err)
	require.False(t, current, "version 2 is not there, but version 1 is not, either")
	_, err = Commit(ctx, st, "t.lance", v1, Change{Append: []Fragment{dataFile(t, st, "t.lance", "c.lance", 10)}}, Options{})
	require.ErrorIs(t, err, ErrConflict)
	last, err := Latest(ctx, st, "t.lance", Options{})
	require.NoError(t, err)
	requireSameVersion(t, v3, last)
}
