package lsm

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/vector"
)

// pylanceVectors searches by the index, and without it, and says what the plan is; before, it may make an index, or extend it.
const pylanceVectors = `import json, lance, sys
root, act = sys.argv[1], sys.argv[2]
ds = lance.dataset(root)
if act == "create":
    ds.create_index("v", "IVF_PQ", name="theirs", metric="l2", num_partitions=4, num_sub_vectors=4)
elif act == "extend":
    ds.optimize.optimize_indices()
elif act == "compact":
    ds.delete("id % 3 = 0")
    ds.optimize.compact_files(target_rows_per_fragment=1 << 20)
ds = lance.dataset(root)
q = [1.0] * 8
near = {"column": "v", "q": q, "k": 10, "nprobes": 1000, "refine_factor": 1000}
by = ds.to_table(nearest=near, columns=["id", "_distance"])["id"].to_pylist()
exact = ds.to_table(nearest={**near, "use_index": False}, columns=["id", "_distance"])["id"].to_pylist()
plan = ds.scanner(nearest=near).explain_plan(True)
out = {"Common": len(set(by) & set(exact)), "Plan": plan, "Rows": {x.name: x.num_rows_indexed for x in ds.describe_indices() if not x.name.startswith("__")}}
print(json.dumps(out))`

type vectorSays struct {
	Common int
	Plan   string
	Rows   map[string]int64
}

func (v *ivfTable) ask(act string) (says vectorSays) {
	require.NoError(v.t, json.Unmarshal(python.Run(v.t, pylanceVectors, filepath.Join(v.dir, "t.lance"), act), &says))
	require.Contains(v.t, says.Plan, "ANN")
	require.GreaterOrEqual(v.t, says.Common, 9)
	return says
}

// TestPylanceSearchesByOurIndex has pylance search by an index over vectors that flightd made, before and after merges extended it, and
// by one that pylance made and flightd's merges extend. Nothing of either is at fault.
func TestPylanceSearchesByOurIndex(t *testing.T) {
	python.Need(t)
	ctx, n := context.Background(), TableName{Name: "t"}
	v := newIVFTable(t, 4, true, 8, arrow.PrimitiveTypes.Float32)
	v.put(1500)
	def := IndexDef{Name: "ours", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{"num_partitions": "4", "num_sub_vectors": "4"}}
	require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
	before := v.ask("")
	require.Positive(t, before.Rows["ours"])
	v.put(500)
	require.NoError(t, v.db.Optimize(ctx, n))
	require.Greater(t, v.ask("").Rows["ours"], before.Rows["ours"])
	require.NoError(t, v.db.DropIndex(ctx, n, "ours"))

	theirs := v.ask("create")
	require.NotContains(t, theirs.Rows, "ours")
	v.put(600)
	require.NoError(t, v.db.Optimize(ctx, n))
	require.Greater(t, v.ask("").Rows["theirs"], theirs.Rows["theirs"])
	v.put(100)
	require.True(t, v.info("theirs").Foreign)
	require.Zero(t, v.info("theirs").Uncovered)
	v.requireMemory()
	v.ask("extend")
	require.NoError(t, v.db.Optimize(ctx, n))
	v.ask("")
	require.NoError(t, v.db.Close())
	requireSound(t, v.dir)
}

// TestPylanceMovesTheRowsOfOurIndex has pylance compact the fragments under an index of flightd's: it writes the segments anew, with what
// the files of ours say of themselves. They are read and extended as before.
func TestPylanceMovesTheRowsOfOurIndex(t *testing.T) {
	python.Need(t)
	ctx, n := context.Background(), TableName{Name: "t"}
	for _, def := range []IndexDef{
		{Name: "i", Kind: IVFPQIndex, Columns: []string{"v"}, Options: map[string]string{"num_partitions": "4", "num_sub_vectors": "4"}},
		{Name: "i", Kind: IVFFlatIndex, Columns: []string{"v"}, Options: map[string]string{"num_partitions": "4"}},
	} {
		t.Run(string(def.Kind), func(t *testing.T) {
			v := newIVFTable(t, 5, false, 8, arrow.PrimitiveTypes.Float32)
			v.put(1500)
			require.NoError(t, v.db.CreateIndex(ctx, n, def, CreateIndexOptions{}))
			v.put(500)
			require.NoError(t, v.db.Optimize(ctx, n))
			v.ask("compact")
			require.NoError(t, v.db.Refresh(ctx))
			v.requireRead()
			require.Zero(t, v.info("i").Uncovered)
			v.put(300)
			require.NoError(t, v.db.Optimize(ctx, n))
			v.requireRead()
			v.ask("compact")
			require.NoError(t, v.db.Refresh(ctx))
			require.NoError(t, mustTable(t, v.db, "t").OptimizeIndex(ctx, "i", nil))
			v.requireRead()
			v.ask("")
			require.NoError(t, v.db.Close())
			requireSound(t, v.dir)
		})
	}
}

// requireRead requires all segments that the base lists to be open.
func (v *ivfTable) requireRead() {
	b, err := mustTable(v.t, v.db, "t").holdBase()
	require.NoError(v.t, err)
	defer b.unref()
	require.NotEmpty(v.t, b.vectors)
	require.Empty(v.t, b.unread(indexEntry{Name: "i", Fields: b.vectors[0].meta.Fields}))
}

// pylanceKind makes an index of a kind.
const pylanceKind = `import lance, sys
root, kind, metric = sys.argv[1:]
options = {"num_sub_vectors": 4} if kind.endswith("PQ") else {}
lance.dataset(root).create_index("v", kind, name="theirs", metric=metric, num_partitions=4, replace=True, **options)`

// TestIndexesThatOnlyOthersMakeServeSearches has pylance make indexes of kinds that are not made here. Searches find rows by them, and rows that
// come later beside them; nothing extends, merges or damages them.
func TestIndexesThatOnlyOthersMakeServeSearches(t *testing.T) {
	python.Need(t)
	ctx, n := context.Background(), TableName{Name: "t"}
	for i, c := range []struct {
		kind   string
		metric vector.Metric
	}{{"IVF_SQ", vector.L2}, {"IVF_HNSW_PQ", vector.Cosine}, {"IVF_HNSW_SQ", vector.Dot}} {
		t.Run(c.kind, func(t *testing.T) {
			v := newIVFTable(t, uint64(20+i), true, 8, arrow.PrimitiveTypes.Float32)
			v.put(800)
			require.NoError(t, v.db.Optimize(ctx, n))
			python.Run(t, pylanceKind, filepath.Join(v.dir, "t.lance"), c.kind, c.metric.String())
			v.put(100)
			require.NoError(t, v.db.Optimize(ctx, n))
			v.searchBoth(c.metric)
			require.Contains(t, v.plan(), "index theirs")
			v.put(200)
			v.searchBoth(c.metric)
			require.NoError(t, v.db.Flush(ctx, n))
			v.restart(true)
			v.searchBoth(c.metric)
			require.NoError(t, v.db.Optimize(ctx, n))
			v.searchBoth(c.metric)
			require.Contains(t, v.plan(), "index theirs")
			require.NoError(t, v.db.Close())
			requireSound(t, v.dir)
		})
	}
}

// TestAnIndexThatIsNotReadSaysWhy has pylance make an index of a kind that nothing here reads.
func TestAnIndexThatIsNotReadSaysWhy(t *testing.T) {
	python.Need(t)
	ctx, n := context.Background(), TableName{Name: "t"}
	v := newIVFTable(t, 30, true, 8, arrow.PrimitiveTypes.Float32)
	v.put(800)
	require.NoError(t, v.db.Optimize(ctx, n))
	python.Run(t, pylanceKind, filepath.Join(v.dir, "t.lance"), "IVF_RQ", "l2")
	v.put(10)
	require.NoError(t, v.db.Optimize(ctx, n))
	plan := v.plan()
	require.Contains(t, plan, "exact (index theirs is not used: ")
	require.Contains(t, plan, "IVF_RQ")
	require.NoError(t, v.db.Close())
}

// plan tells how a search would find its rows.
func (v *ivfTable) plan() string {
	snap, err := v.db.Snapshot(context.Background())
	require.NoError(v.t, err)
	defer snap.Release()
	view, err := snap.Table(TableName{Name: "t"})
	require.NoError(v.t, err)
	_, layers, err := view.VectorSearchPlan(context.Background(), VectorSearchOptions{Column: 1, K: 3, Queries: slices.Repeat([]float32{1}, v.dim), fewer: fewRows})
	require.NoError(v.t, err)
	return fmt.Sprint(layers)
}
