package lsm

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/object"
)

// pastLines returns the rows of a version of a table as text.
func pastLines(t *testing.T, table *Table, as AsOf) []string {
	t.Helper()
	v, err := table.At(t.Context(), as)
	require.NoError(t, err)
	defer v.Close()
	return viewLines(t, v)
}

// viewLines returns the rows of a view as text.
func viewLines(t *testing.T, v *View) []string {
	t.Helper()
	lines, err := scanRows(t.Context(), v, allColumns(v.Schema()))
	require.NoError(t, err)
	return lines
}

// TestAVersionThatIsReadIsNotCollected holds an old version while everything old is collected, and reads it then: its files
// are there as long as it is held, and gone after the next collection.
func TestAVersionThatIsReadIsNotCollected(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	db := openRetain(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	upsertRounds(t, db, table, 6)
	list, err := table.Versions(ctx)
	require.NoError(t, err)
	first := list[0].Number
	for _, v := range list {
		if v.Rows > 0 {
			first = v.Number
			break
		}
	}
	v, err := table.At(ctx, AsOf{Version: first})
	require.NoError(t, err)
	want := viewLines(t, v)
	require.Len(t, want, 5)

	_, err = vacuumOld(t, db, dir, "t")
	require.NoError(t, err)
	require.Equal(t, []uint64{first, list[len(list)-1].Number}, versionsOf(t, db, "t.lance"))
	require.Equal(t, want, viewLines(t, v))
	require.Equal(t, want, pastLines(t, table, AsOf{Version: first}), "it can be opened again")
	v.Close()
	_, err = vacuumOld(t, db, dir, "t")
	require.NoError(t, err)
	_, err = table.At(ctx, AsOf{Version: first})
	require.ErrorIs(t, err, ErrVersionNotFound)
	require.ErrorContains(t, err, "it was collected")
	require.Len(t, filesBelow(t, filepath.Join(dir, "t.lance", "data")), 1)
}

// listedStore tells of listings before they are made.
type listedStore struct {
	*faultStore
	listing func(name string)
}

// List is that of object.Store.
func (s *listedStore) List(ctx context.Context, dir string) ([]object.Info, error) {
	if s.listing != nil {
		s.listing(dir)
	}
	return s.faultStore.List(ctx, dir)
}

// TestAVersionIsHeldWhileCollectionsRun opens a version right before a collection that has decided to remove it does so.
func TestAVersionIsHeldWhileCollectionsRun(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	store := &listedStore{}
	db, err := Open(ctx, Options{Dir: dir, Retain: time.Hour, SegmentBytes: 1 << 20, wrap: func(st object.Store) object.Store {
		store.faultStore = &faultStore{Store: st}
		return store
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	upsertRounds(t, db, table, 4)
	list, err := table.Versions(ctx)
	require.NoError(t, err)
	second := list[2].Number

	age(t, filepath.Join(dir, "t.lance"), 2*time.Hour)
	var v *View
	asked := false
	// The collection has listed what is in use when it asks for branches.
	store.listing = func(name string) {
		if !asked && name == "t.lance/_refs/branches" {
			asked = true
			v, err = table.At(ctx, AsOf{Version: second})
		}
	}
	_, vacuumed := db.Vacuum(ctx, table.Name())
	require.NoError(t, vacuumed)
	require.True(t, asked)
	require.NoError(t, err)
	require.Len(t, viewLines(t, v), 5)
	require.Equal(t, viewLines(t, v), pastLines(t, table, AsOf{Version: second}))
	v.Close()
}

// TestTagsAndBranchesOfLance has pylance make tags and branches, and write to a branch: tags name versions that are read and
// kept, and what belongs to branches is neither taken for the table's nor collected.
func TestTagsAndBranchesOfLance(t *testing.T) {
	python.Need(t)
	ctx := t.Context()
	dir := t.TempDir()
	db := openRetain(t, dir)
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	upsertRounds(t, db, table, 2)
	tagged := table.set.Load().base.version.Number
	was := pastLines(t, table, AsOf{Version: tagged})
	lanceDo(t, dir, "t", `
ds.tags.create("release-1", ds.version)
ds.create_branch("try/one", ds.version)
b = ds.checkout_version(("try/one", None))
b = lance.write_dataset(pa.table({f.name: pa.array([77], f.type) for f in ds.schema}, schema=ds.schema), b, mode="append")
assert b.count_rows() == ds.count_rows() + 1
b.tags.create("of-branch", ("try/one", b.version))
`)
	upsertRounds(t, db, table, 3)
	refs, err := table.Refs(ctx)
	require.NoError(t, err)
	require.Equal(t, []Ref{{Name: "of-branch"}, {Name: "release-1", Version: tagged}, {Name: "try/one", Branch: true, Version: tagged}}, refs)
	branch := filesBelow(t, filepath.Join(dir, "t.lance", "tree"))
	require.NotEmpty(t, branch)

	_, err = vacuumOld(t, db, dir, "t")
	require.NoError(t, err)
	require.Equal(t, []uint64{tagged, table.set.Load().base.version.Number}, versionsOf(t, db, "t.lance"))
	require.Equal(t, was, pastLines(t, table, AsOf{Tag: "release-1"}))
	require.Equal(t, branch, filesBelow(t, filepath.Join(dir, "t.lance", "tree")))
	lanceDo(t, dir, "t", `
assert ds.checkout_version("release-1").count_rows() == 5
assert ds.checkout_version(("try/one", None)).to_table().num_rows == 6`)
	for _, tag := range []string{"of-branch", "try/one"} {
		_, err = table.At(ctx, AsOf{Tag: tag})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, "branch")
	}
	require.NoError(t, db.Close())
	_, err = Check(ctx, dir, func(f Fault) { t.Errorf("%+v", f) })
	require.NoError(t, err)
	db = openRetain(t, dir)
	require.Len(t, db.Tables(), 1)
	require.Equal(t, was, pastLines(t, db.mustTable(t, "t"), AsOf{Tag: "release-1"}))

	lanceDo(t, dir, "t", `ds.tags.delete("release-1"); ds.tags.delete("of-branch"); ds.branches.delete("try/one")`)
	_, err = vacuumOld(t, db, dir, "t")
	require.NoError(t, err)
	require.Len(t, versionsOf(t, db, "t.lance"), 1)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "t.lance", "tree")))
}

// TestVersionsByTheirTimes finds the version that was the newest at a moment.
func TestVersionsByTheirTimes(t *testing.T) {
	ctx := context.Background()
	db := openRetain(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	upsertRounds(t, db, table, 5)
	list, err := table.Versions(ctx)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(list), 6)
	for i, v := range list {
		got, err := table.versionBefore(ctx, v.Time)
		require.NoError(t, err)
		want := v.Number
		for _, later := range list[i+1:] {
			if !later.Time.After(v.Time) {
				want = later.Number
			}
		}
		require.Equal(t, want, got)
	}
	_, err = table.versionBefore(ctx, list[0].Time.Add(-time.Nanosecond))
	require.ErrorIs(t, err, ErrVersionNotFound)
}
