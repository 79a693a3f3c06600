package lsm

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"
)

// TestASegmentThatIsNotReadIsReplaced damages a segment of an index. Merges leave its fragments to it, so that no two segments lie over
// one; OptimizeIndex puts another in its place, and Optimize where no segment is left to tell the model.
func TestASegmentThatIsNotReadIsReplaced(t *testing.T) {
	ctx, n := context.Background(), TableName{Name: "t"}
	for _, def := range []IndexDef{
		{Name: "i", Kind: BTreeIndex, Columns: []string{"id"}},
		{Name: "i", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{"num_partitions": "4", "num_sub_vectors": "4"}},
	} {
		t.Run(string(def.Kind), func(t *testing.T) {
			v := newIVFTable(t, 6, false, 8, arrow.PrimitiveTypes.Float32)
			v.put(1200)
			require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
			b, err := mustTable(t, v.db, "t").holdBase()
			require.NoError(t, err)
			require.Len(t, b.version.Indexes, 1)
			bad := b.version.Indexes[0]
			b.unref()
			require.NoError(t, v.db.Close())
			require.NotEmpty(t, bad.Files)
			for _, f := range bad.Files {
				require.NoError(t, os.Truncate(filepath.Join(v.dir, "t.lance", bad.Dir(), f.Path), f.Bytes/2))
			}
			v.open()
			for range 2 {
				v.put(400)
				require.NoError(t, v.db.Optimize(ctx, n))
				v.requireApart(bad.UUID.String(), def.Kind == BTreeIndex)
			}
			require.NoError(t, mustTable(t, v.db, "t").OptimizeIndex(ctx, "i", nil))
			v.requireApart(bad.UUID.String(), false)
			require.Zero(t, v.info("i").Uncovered)
			require.NoError(t, v.db.Close())
			requireSound(t, v.dir)
		})
	}
}

// requireApart requires that no two segments lie over one fragment, and that a segment is still listed or no more.
func (v *ivfTable) requireApart(id string, listed bool) {
	b, err := mustTable(v.t, v.db, "t").holdBase()
	require.NoError(v.t, err)
	defer b.unref()
	seen, there := map[uint32]string{}, false
	for _, x := range b.version.Indexes {
		there = there || x.UUID.String() == id
		for _, f := range x.Fragments.ToArray() {
			require.NotContains(v.t, seen, f, "segments %s and %s", seen[f], x.UUID)
			seen[f] = x.UUID.String()
		}
	}
	require.Equal(v.t, listed, there)
}
