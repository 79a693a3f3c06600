package manifest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

// TestRewritePutsFragmentsInThePlaceOfOthers holds what a rewrite does to fragments, ids, indexes and the rest.
func TestRewritePutsFragmentsInThePlaceOfOthers(t *testing.T) {
	ctx, st, root, shard := context.Background(), object.NewMem(), "t.lance", uuid.New()
	v := createTable(t, st, root)
	for i, rows := range []int64{10, 5, 20, 7} {
		v = appendRows(t, st, root, v, fmt.Sprintf("%d.lance", i), rows)
	}
	v, err := Commit(ctx, st, root, v, Change{Compacted: map[uuid.UUID]uint64{shard: 3}, Delete: map[uint64]*roaring.Bitmap{1: roaring.BitmapOf(0, 1), 2: roaring.BitmapOf(7)},
		Indexes: func(*Version, []uint64) ([]Index, error) { return []Index{testIndex(st, root, 0, 1)}, nil }}, Options{})
	require.NoError(t, err)
	old := v.Indexes[0].UUID

	v, err = Commit(ctx, st, root, v, Change{
		Append:        []Fragment{dataFile(t, st, root, "a.lance", 10), dataFile(t, st, root, "b.lance", 3), dataFile(t, st, root, "c.lance", 7)},
		Rewrite:       []RewriteGroup{{Old: []uint64{1, 0}, New: 2}, {Old: []uint64{3}, New: 1}},
		RemoveIndexes: []uuid.UUID{old},
		Indexes: func(_ *Version, ids []uint64) ([]Index, error) {
			require.Equal(t, []uint64{4, 5, 6}, ids)
			return []Index{testIndex(st, root, 4, 5)}, nil
		}}, Options{})
	require.NoError(t, err)
	var ids []uint64
	for _, f := range v.Fragments {
		ids = append(ids, f.ID)
	}
	require.Equal(t, []uint64{2, 4, 5, 6}, ids)
	require.EqualValues(t, 1, v.Fragments[0].Deletion.Rows)
	require.EqualValues(t, 10-2+5+19+7, v.Rows())
	require.Equal(t, []uint32{4, 5}, v.Indexes[0].Fragments.ToArray())
	require.Equal(t, map[uuid.UUID]uint64{shard: 3}, v.Compacted)
	groups := v.tx.GetRewrite().GetGroups()
	require.Len(t, groups, 2)
	require.EqualValues(t, 1, groups[0].GetOldFragments()[0].GetId())
	require.EqualValues(t, 6, groups[1].GetNewFragments()[0].GetId())

	everything := roaring.New()
	everything.AddRange(0, 6)
	v, err = Commit(ctx, st, root, v, Change{Delete: map[uint64]*roaring.Bitmap{6: everything}}, Options{})
	require.NoError(t, err)
	v, err = Commit(ctx, st, root, v, Change{Append: []Fragment{dataFile(t, st, root, "d.lance", 1)}, Rewrite: []RewriteGroup{{Old: []uint64{6}, New: 1}}}, Options{})
	require.NoError(t, err)
	_, gone := v.Fragment(6)
	require.False(t, gone)

	for name, c := range map[string]Change{
		"rows lost":            {Rewrite: []RewriteGroup{{Old: []uint64{4}}}},
		"rows doubled":         {Append: []Fragment{dataFile(t, st, root, "e.lance", 11)}, Rewrite: []RewriteGroup{{Old: []uint64{4}, New: 1}}},
		"twice":                {Append: []Fragment{dataFile(t, st, root, "f.lance", 20)}, Rewrite: []RewriteGroup{{Old: []uint64{4, 4}, New: 1}}},
		"nothing":              {Rewrite: []RewriteGroup{{}}},
		"and deletes":          {Rewrite: []RewriteGroup{{Old: []uint64{4}}}, Delete: map[uint64]*roaring.Bitmap{4: roaring.BitmapOf(0)}},
		"not of the groups":    {Append: []Fragment{dataFile(t, st, root, "g.lance", 10)}, Rewrite: []RewriteGroup{{Old: []uint64{4}}}},
		"merges a shard, too":  {Rewrite: []RewriteGroup{{Old: []uint64{4}}}, Compacted: map[uuid.UUID]uint64{shard: 4}},
		"a fragment not there": {Append: []Fragment{dataFile(t, st, root, "h.lance", 1)}, Rewrite: []RewriteGroup{{Old: []uint64{99}, New: 1}}},
	} {
		_, err := Commit(ctx, st, root, v, c, Options{})
		require.Error(t, err, name)
	}
	now, err := Latest(ctx, st, root, Options{})
	require.NoError(t, err)
	require.Equal(t, v.Number, now.Number, "nothing of these was published")
}

// TestRewriteRebases says over what a rewrite goes, and what goes over a rewrite.
func TestRewriteRebases(t *testing.T) {
	ctx := context.Background()
	rewrite := Change{Append: make([]Fragment, 1), Rewrite: []RewriteGroup{{Old: []uint64{0}, New: 1}}}
	one := func(fragment uint64) map[uint64]*roaring.Bitmap {
		return map[uint64]*roaring.Bitmap{fragment: roaring.BitmapOf(1)}
	}
	indexed := func(*Version, []uint64) ([]Index, error) { return nil, nil }
	for name, c := range map[string]struct {
		rival, mine Change
		conflict    bool
	}{
		"over append":                  {rival: Change{Append: make([]Fragment, 1)}, mine: rewrite},
		"over delete":                  {rival: Change{Delete: one(0)}, mine: rewrite, conflict: true},
		"over delete elsewhere":        {rival: Change{Delete: one(1)}, mine: rewrite},
		"over update":                  {rival: Change{Append: make([]Fragment, 1), Delete: one(0)}, mine: rewrite, conflict: true},
		"over update elsewhere":        {rival: Change{Append: make([]Fragment, 1), Delete: one(1)}, mine: rewrite},
		"over rewrite":                 {rival: rewrite, mine: rewrite, conflict: true},
		"over overwrite":               {rival: Change{Overwrite: true}, mine: rewrite, conflict: true},
		"over an index":                {rival: Change{Indexes: indexed}, mine: rewrite},
		"append over rewrite":          {rival: rewrite, mine: Change{Append: make([]Fragment, 1)}, conflict: true},
		"delete over rewrite":          {rival: rewrite, mine: Change{Delete: one(0)}, conflict: true},
		"over the merge of a shard":    {rival: Change{Append: make([]Fragment, 1), Compacted: map[uuid.UUID]uint64{uuid.New(): 1}}, mine: rewrite},
		"over a merge that replaces":   {rival: Change{Append: make([]Fragment, 1), Delete: one(0), Compacted: map[uuid.UUID]uint64{uuid.New(): 1}}, mine: rewrite, conflict: true},
		"over a watermark and no rows": {rival: Change{Compacted: map[uuid.UUID]uint64{uuid.New(): 1}}, mine: rewrite},
	} {
		t.Run(name, func(t *testing.T) {
			st, root := object.NewMem(), "t.lance"
			base := createTable(t, st, root)
			base = appendRows(t, st, root, base, "a.lance", 10)
			base = appendRows(t, st, root, base, "b.lance", 10)
			for _, x := range []*Change{&c.rival, &c.mine} {
				x.Append = make([]Fragment, len(x.Append))
				for i := range x.Append {
					x.Append[i] = dataFile(t, st, root, uuid.NewString()+".lance", 10)
				}
			}
			rival, err := Commit(ctx, st, root, base, c.rival, Options{})
			require.NoError(t, err)
			v, err := Commit(ctx, st, root, base, c.mine, Options{})
			if c.conflict {
				require.ErrorIs(t, err, ErrConflict)
				return
			}
			require.NoError(t, err)
			require.EqualValues(t, rival.Number+1, v.Number)
			_, there := v.Fragment(0)
			require.False(t, there)
			_, there = v.Fragment(1)
			require.True(t, there)
		})
	}
}

// rewriteAll writes the fragments of a version anew as one.
func rewriteAll(t testing.TB, st object.Store, root string, v *Version) (*Version, error) {
	t.Helper()
	g := RewriteGroup{New: 1}
	for _, f := range v.Fragments {
		g.Old = append(g.Old, f.ID)
	}
	f := writeRows(t, st, root, uuid.NewString()+".lance", v.Schema, readRows(t, st, root, v))
	return Commit(context.Background(), st, root, v, Change{Append: []Fragment{f}, Rewrite: []RewriteGroup{g}}, Options{})
}

// TestLanceReadsAndRebasesOverOurRewrites has pylance append while we rewrite, delete from a version of before, and
// compact after us.
func TestLanceReadsAndRebasesOverOurRewrites(t *testing.T) {
	p, st := newPylance(t)
	root := "t.lance"
	v := commitRows(t, st, root, createTable(t, st, root), numbered(0, 100), nil)
	commitRows(t, st, root, v, numbered(100, 50), map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(3, 5, 99)})
	p.run("index", root, "id")
	_, err := rewriteAll(t, st, root, p.requireAgreement(st, root))
	require.NoError(t, err)
	v, err = Latest(context.Background(), st, root, Options{})
	require.NoError(t, err)
	require.ElementsMatch(t, readRows(t, st, root, v), p.run("read", root).Rows, "an index of fragments that have gone is no harm")
	before := v

	var wg sync.WaitGroup
	wg.Go(func() { p.run("append_one_by_one", root, "1000", "10") })
	for range 10 {
		v, err = Latest(context.Background(), st, root, Options{})
		require.NoError(t, err)
		_, err = rewriteAll(t, st, root, v)
		require.NoError(t, err, "appends are no conflict")
	}
	wg.Wait()
	v, err = Latest(context.Background(), st, root, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 147+10, v.Rows())
	require.EqualValues(t, before.Number+10+10, v.Number, "all appends and rewrites are in the chain once")
	theirs := p.run("read", root)
	require.ElementsMatch(t, readRows(t, st, root, v), theirs.Rows)
	require.Equal(t, v.Rows(), theirs.Count)

	_, err = rewriteAll(t, st, root, v)
	require.NoError(t, err)
	p.run("append", root, "5000", "1")
	p.run("compact", root)
	p.run("delete", root, "id = 5000")
	now, err := Latest(context.Background(), st, root, Options{})
	require.NoError(t, err)
	require.EqualValues(t, 157, now.Rows())
	require.ElementsMatch(t, readRows(t, st, root, now), p.run("read", root).Rows)
}
