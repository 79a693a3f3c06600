package lsm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/manifest"
)

// TestIndexesBesideCompaction builds, extends, replaces and drops indexes while rows come, are merged, and fragments and
// segments are put together at random: at any moment a scan by an index has the rows of a full scan of the same snapshot,
// and in the end all segments are of the rows that they say.
func TestIndexesBesideCompaction(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := &besideWorld{t: t, ctx: context.Background(), dir: t.TempDir(), seed: seed}
			db, err := Open(b.ctx, Options{Dir: b.dir, Memory: minMemory, MemtableBytes: 64 << 10, SegmentBytes: 1 << 20, manual: true})
			require.NoError(t, err)
			b.db, b.name = db, TableName{Name: "t"}
			b.table = createTest(t, db, "t", []string{"id int64 key, word utf8, n int64", "id utf8 key, word utf8, n int64"}[seed%2])
			b.work(40)
			require.NoError(t, db.Optimize(b.ctx, b.name))
			b.read(rand.New(rand.NewPCG(seed, 9)))
			require.Positive(t, b.rewrites.Load())
			require.NoError(t, db.Close())
			requireSound(t, b.dir)
		})
	}
}

// besideWorld is what the goroutines of TestIndexesBesideCompaction work on.
type besideWorld struct {
	t        *testing.T
	ctx      context.Context
	dir      string
	seed     uint64
	db       *DB
	name     TableName
	table    *Table
	rewrites atomic.Int64
}

// work does everything beside each other, so many times: what is done to rows as often as there are new ones.
func (b *besideWorld) work(times int) {
	var all sync.WaitGroup
	var turns []chan struct{}
	for i, do := range []func(*rand.Rand){b.index, b.rewrite, b.segments, b.read} {
		turn := make(chan struct{}, times)
		turns = append(turns, turn)
		all.Go(func() {
			r := rand.New(rand.NewPCG(b.seed, uint64(i)))
			for range turn {
				do(r)
			}
		})
	}
	r := rand.New(rand.NewPCG(b.seed, 7))
	for range times {
		b.write(r)
		for _, turn := range turns {
			turn <- struct{}{}
		}
	}
	for _, turn := range turns {
		close(turn)
	}
	all.Wait()
}

// ok fails the test for errors but those that a race with others explains.
func (b *besideWorld) ok(what string, err error, but ...error) {
	if err != nil && !slices.ContainsFunc(but, func(x error) bool { return errors.Is(err, x) }) {
		b.t.Errorf("seed %d: %s: %v", b.seed, what, err)
	}
}

// write puts, and deletes, some rows, and now and then flushes or merges them.
func (b *besideWorld) write(r *rand.Rand) {
	s := &scenario{t: b.t, db: b.db}
	var lines []string
	for range 1 + r.IntN(20) {
		lines = append(lines, fmt.Sprintf("%d w%d %d %t", r.IntN(200), r.IntN(5), r.IntN(1000), r.IntN(5) == 0))
	}
	b.ok("put", s.put(b.ctx, "t", true, strings.Join(lines, "\n")))
	switch r.IntN(4) {
	case 0:
		b.ok("flush", b.db.Flush(b.ctx, b.name))
	case 1:
		b.ok("merge", b.table.optimize(b.ctx))
	}
}

// index makes, completes or drops one of two indexes.
func (b *besideWorld) index(r *rand.Rand) {
	name := []string{"a", "b"}[r.IntN(2)]
	switch r.IntN(4) {
	case 0, 1:
		d := IndexDef{Name: name, Kind: BTreeIndex, Columns: []string{[]string{"word", "n"}[r.IntN(2)]}}
		b.ok("create", b.db.CreateIndex(b.ctx, b.name, d, CreateIndexOptions{Replace: true}))
	case 2:
		b.ok("complete", b.table.OptimizeIndex(b.ctx, name, nil), ErrIndexNotFound)
	case 3:
		b.ok("drop", b.db.DropIndex(b.ctx, b.name, name), ErrIndexNotFound)
	}
}

// rewrite puts some fragments together, whoever stands on them: the policy spares those.
func (b *besideWorld) rewrite(r *rand.Rand) {
	b.ok("rewrite", b.table.compactor.order(b.ctx, func(ctx context.Context) error {
		var ids []uint64
		for _, f := range b.table.set.Load().base.frags {
			if r.IntN(2) == 0 {
				ids = append(ids, f.id)
			}
		}
		if len(ids) == 0 {
			return nil
		}
		_, _, err := b.table.compactor.rewriteFragments(ctx, ids)
		if err == nil {
			b.rewrites.Add(1)
		}
		return err
	}), errStale, manifest.ErrConflict)
}

// segments puts segments of an index together.
func (b *besideWorld) segments(r *rand.Rand) {
	b.ok("segments", b.table.compactor.order(b.ctx, func(ctx context.Context) error {
		byName := map[string][]string{}
		for _, x := range b.table.set.Load().base.version.Indexes {
			if x.BTree() && r.IntN(3) > 0 {
				byName[indexName(&x)] = append(byName[indexName(&x)], x.UUID.String())
			}
		}
		for name, ids := range byName {
			if _, _, err := b.table.compactor.mergeSegments(ctx, name, ids); err != nil {
				return err
			}
		}
		return nil
	}), errStale, manifest.ErrConflict)
}

// read compares scans by a word with a full scan.
func (b *besideWorld) read(r *rand.Rand) {
	snap, err := b.db.Snapshot(b.ctx)
	if err != nil {
		b.ok("snapshot", err)
		return
	}
	defer snap.Release()
	v, err := snap.Table(b.name)
	if err != nil {
		b.ok("table", err)
		return
	}
	full, err := scanRows(b.ctx, v, []int{0, 1})
	b.ok("scan", err)
	word := fmt.Sprintf("w%d", r.IntN(5))
	got, err := wordRowsOf(v, word, []int{0, 1})
	b.ok("scan by word", err)
	if want := withWord(full, word); !slices.Equal(want, got) {
		b.t.Errorf("seed %d: a scan by %s has %q, not %q", b.seed, word, got, want)
	}
}

// TestAnIndexBuildBesideOthersEnds has pylance commit in the middle and at the end of each round of a build: appends without end do not keep it from its
// end, and rows that are put into other fragments each time are an error that says so, not an index that lacks them in silence.
func TestAnIndexBuildBesideOthersEnds(t *testing.T) {
	python.Need(t)
	ctx := context.Background()
	for _, c := range []struct {
		def  IndexDef
		line string
		fail bool
	}{
		{IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"n"}}, lanceAppends, false},
		{IndexDef{Name: "i", Kind: BTreeIndex, Columns: []string{"n"}}, lanceAppends + `; ds.optimize.compact_files()`, true},
		{IndexDef{Name: "i", Kind: IVFFlatIndex, Columns: []string{"v"}, Options: map[string]string{"num_partitions": "1"}}, lanceAppends, false},
	} {
		s := &scenario{t: t, dir: t.TempDir(), snapshots: map[string]*Snapshot{}, stages: map[string]*Stage{}}
		python.Run(t, `import lance, pyarrow as pa, sys; lance.write_dataset(pa.table({"n": pa.array([1, 2, 3]), "v": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2))}), sys.argv[1])`, filepath.Join(s.dir, "t.lance"))
		s.open()
		name := TableName{Name: "t"}
		require.NoError(t, s.db.CreateIndex(ctx, name, c.def, CreateIndexOptions{}))
		lanceDo(t, s.dir, "t", strings.NewReplacer("[4]", "range(140000)", "]]", "]] * 140000").Replace(lanceAppends))
		calls := 0
		err := s.db.mustTable(t, "t").OptimizeIndex(ctx, "i", func(int64, int64) {
			if calls++; calls <= 3*maxCoverRounds { // twice while rows are read and written, and at the end
				lanceDo(t, s.dir, "t", c.line)
			}
		})
		if c.fail {
			require.ErrorIs(t, err, ErrConflict)
			require.ErrorContains(t, err, `other programs wrote rows anew without index "i"`)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, s.db.mustTable(t, "t").OptimizeIndex(ctx, "i", nil))
		s.close()
	}
}

// lanceAppends has pylance append a row.
const lanceAppends = `lance.write_dataset(pa.table({"n": pa.array([4]), "v": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))}), ds, mode="append")`
