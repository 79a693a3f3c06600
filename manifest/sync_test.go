package manifest

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

// watched is a store that shows the test each version that is about to be published, and knows how to sync what
// others wrote.
type watched struct {
	*object.Mem
	before func(name string)
	synced []string
}

func (w *watched) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if strings.HasSuffix(name, ".manifest") {
		w.before(name)
	}
	return w.Mem.PutIfAbsent(ctx, name, data)
}

func (w *watched) Sync(_ context.Context, name string) error {
	w.synced = append(w.synced, name)
	return nil
}

// namedFiles lists the files of a version below the root of its table.
func namedFiles(v *Version) []string {
	var names []string
	for i := range v.Fragments {
		f := &v.Fragments[i]
		for _, file := range f.Files {
			names = append(names, path.Join("data", file.Path))
		}
		if f.Deletion != nil {
			names = append(names, f.Deletion.Path(f.ID))
		}
	}
	for i := range v.Indexes {
		for _, file := range v.Indexes[i].Files {
			names = append(names, path.Join(v.Indexes[i].Dir(), file.Path))
		}
	}
	return names
}

func TestPowerCutAroundACommitLeavesAVersionWithAllItsFiles(t *testing.T) {
	ctx, root := context.Background(), "main/t.lance"
	st := &watched{Mem: object.NewMem()}
	// The crash just before the version is linked has no version yet, but everything that it is going to name.
	var crashed *object.Mem
	st.before = func(string) { crashed = st.CrashClone(nil) }
	check := func(v *Version) {
		t.Helper()
		for _, name := range namedFiles(v) {
			_, err := crashed.Stat(ctx, path.Join(root, name))
			require.NoError(t, err, "%s was not durable when version %d was linked", name, v.Number)
		}
		after, err := Latest(ctx, st.CrashClone(nil), root, Options{})
		require.NoError(t, err)
		require.Equal(t, v.Number, after.Number)
	}
	v := createTable(t, st, root)
	check(v)
	v = appendRows(t, st, root, v, "a.lance", 10)
	check(v)
	v, err := Commit(ctx, st, root, v, Change{
		Append:        []Fragment{dataFile(t, st, root, "b.lance", 10), dataFile(t, st, root, "c.lance", 3)},
		AppendDeleted: map[int]*roaring.Bitmap{1: roaring.BitmapOf(2)},
		Delete:        map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(3)},
		Compacted:     map[uuid.UUID]uint64{{1}: 2},
		Indexes: func(_ *Version, ids []uint64) ([]Index, error) {
			return []Index{testIndex(st, root, ids...)}, nil
		},
	}, Options{})
	require.NoError(t, err)
	require.Len(t, namedFiles(v), 6)
	check(v)
}

func TestForeignVersionsAreSyncedBeforeWeStandOnThem(t *testing.T) {
	ctx, root := context.Background(), "t.lance"
	st := &watched{Mem: object.NewMem(), before: func(string) {}}
	m := &lancepb.Manifest{
		Version: 1, Fields: testSchema(t).Proto(), DataFormat: &lancepb.DataFormat{FileFormat: "lance", Version: "2.0"},
		WriterVersion: &lancepb.WriterVersion{Library: "lance", Version: "14.0.2"},
		Fragments: []*lancepb.DataFragment{{
			PhysicalRows: 9, Files: []*lancepb.DataFile{{Path: "theirs.lance", FileMajorVersion: 2}},
			DeletionFile: &lancepb.DeletionFile{ReadVersion: 1, Id: 7, NumDeletedRows: 1},
		}},
	}
	index := &lancepb.IndexMetadata{Uuid: uuidProto(uuid.New()), Name: "theirs", Files: []*lancepb.IndexFile{{Path: "page_data.lance", SizeBytes: 3}}}
	name := tableChain(st, root, Options{}).path(1)
	require.NoError(t, st.Mem.PutIfAbsent(ctx, name, foreign(t, m, &lancepb.IndexSection{Indices: []*lancepb.IndexMetadata{index}})))
	w, err := st.Create(ctx, root+"/data/theirs.lance")
	require.NoError(t, err)
	require.NoError(t, w.Close())

	v, err := Latest(ctx, st, root, Options{})
	require.NoError(t, err)
	want := []string{name}
	for _, file := range namedFiles(v) {
		want = append(want, path.Join(root, file))
	}
	require.Len(t, want, 4)
	var atLink []string
	st.before = func(string) { atLink = slices.Clone(st.synced) }
	v = appendRows(t, st, root, v, "ours.lance", 1)
	require.ElementsMatch(t, want, atLink)

	st.synced = nil
	v = appendRows(t, st, root, v, "ours2.lance", 1)
	require.Empty(t, st.synced, "what we wrote ourselves is durable")
	require.EqualValues(t, 3, v.Number)
}

// ambiguous is a store whose puts take effect but report that the name was taken, as a retried request may.
type ambiguous struct {
	object.Store
	armed bool
}

func (a *ambiguous) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	err := a.Store.PutIfAbsent(ctx, name, data)
	if err == nil && a.armed {
		a.armed = false
		return object.ErrExists
	}
	return err
}

func TestCommitThatSucceededBehindAnErrorIsNotRepeated(t *testing.T) {
	ctx, root := context.Background(), "t.lance"
	st := &ambiguous{Store: object.NewMem()}
	base := createTable(t, st, root)
	st.armed = true
	v := appendRows(t, st, root, base, "a.lance", 10)
	require.EqualValues(t, 2, v.Number)
	last, err := Latest(ctx, st, root, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 2, last.Number)
	require.EqualValues(t, 10, last.Rows())
}

// TestATableOfWhichTheAnswerWasLostIsThere makes a table of which the store says that it is there already: by the same call.
func TestATableOfWhichTheAnswerWasLostIsThere(t *testing.T) {
	ctx, root := context.Background(), "t.lance"
	st := &lossy{Store: object.NewMem(), lose: func(name string) bool { return strings.HasSuffix(name, ".manifest") }}
	v := createTable(t, st, root)
	require.EqualValues(t, 1, v.Number)
	_, err := Create(ctx, st, root, v.Schema, CreateOptions{})
	require.ErrorIs(t, err, object.ErrExists, "what another made is not taken for one's own")
}

func TestIndexesCallbackErrorsEndTheCommit(t *testing.T) {
	ctx, st, root := context.Background(), object.NewMem(), "t.lance"
	base := createTable(t, st, root)
	for _, want := range []error{errors.New("no room"), object.ErrExists} {
		calls := 0
		_, err := Commit(ctx, st, root, base, Change{Indexes: func(*Version, []uint64) ([]Index, error) {
			calls++
			return nil, want
		}}, Options{})
		require.ErrorIs(t, err, want)
		require.Equal(t, 1, calls)
	}
}
