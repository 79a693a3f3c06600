package manifest

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/python"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/object"
)

// pylance runs one command of the script that drives Lance itself.
type pylance struct {
	t *testing.T
	// dir is the folder of the store, in which the names of tables are paths.
	dir string
}

func newPylance(t *testing.T) (*pylance, object.Store) {
	t.Helper()
	python.Need(t)
	dir := t.TempDir()
	return &pylance{t, dir}, object.NewLocal(dir)
}

// report is a table as the script describes it.
type report struct {
	Version   uint64
	Count     int64
	Fragments []struct {
		ID      uint64
		Rows    int64
		Deleted []uint32
	}
	Indexes []struct {
		Name, Type string
		Fragments  []uint32
	}
	Rows    []row
	Refused string
	Plan    string
}

// row is a row of the test tables.
type row struct {
	id int64
	v  string
}

func (r *row) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &[]any{&r.id, &r.v}) }

func (p *pylance) run(command, root string, args ...string) report {
	p.t.Helper()
	full := append([]string{command, filepath.Join(p.dir, root)}, args...)
	out := python.RunFile(p.t, filepath.Join("..", "testdata", "manifest", "pylance.py"), full...)
	var answer report
	if string(out) != "null\n" {
		require.NoError(p.t, json.Unmarshal(out, &answer), "%s", out)
	}
	return answer
}

// numbered returns the rows first, first+1, ... of the test tables.
func numbered(first, n int64) []row {
	rows := make([]row, n)
	for i := range rows {
		rows[i] = row{first + int64(i), fmt.Sprintf("v%d", first+int64(i))}
	}
	return rows
}

// writeRows writes a data file with rows, and the boolean column _tombstone when the schema has one.
func writeRows(t testing.TB, st object.Store, root, name string, s *lance.Schema, rows []row) Fragment {
	t.Helper()
	ctx := context.Background()
	b := array.NewRecordBuilder(memory.DefaultAllocator, s.Arrow())
	defer b.Release()
	for _, r := range rows {
		b.Field(0).(*array.Int64Builder).Append(r.id)
		b.Field(1).(*array.StringBuilder).Append(r.v)
		if len(s.Fields) > 2 {
			b.Field(2).(*array.BooleanBuilder).Append(r.v == "")
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	w, err := lance.Create(ctx, st, path.Join(root, "data", name), s, lance.WriterOptions{})
	require.NoError(t, err)
	defer w.Abort()
	require.NoError(t, w.Write(ctx, rec))
	info, err := w.Finish(ctx)
	require.NoError(t, err)
	f := Fragment{Rows: info.Rows, Files: []DataFile{{Path: name, Major: 2, Bytes: info.Bytes}}}
	for i, field := range s.Fields {
		f.Files[0].Fields = append(f.Files[0].Fields, field.ID)
		f.Files[0].Columns = append(f.Files[0].Columns, int32(i))
	}
	return f
}

// commitRows appends rows and deletes others in one commit.
func commitRows(t testing.TB, st object.Store, root string, base *Version, rows []row, del map[uint64]*roaring.Bitmap) *Version {
	t.Helper()
	c := Change{Delete: del}
	if len(rows) > 0 {
		c.Append = []Fragment{writeRows(t, st, root, uuid.NewString()+".lance", base.Schema, rows)}
	}
	v, err := Commit(context.Background(), st, root, base, c, Options{})
	require.NoError(t, err)
	return v
}

// readRows reads a version as a query would: the files that the manifest names, without the deleted rows.
func readRows(t testing.TB, st object.Store, root string, v *Version) []row {
	t.Helper()
	ctx := context.Background()
	rows := []row{}
	for i := range v.Fragments {
		f := &v.Fragments[i]
		deleted, err := v.Deletions(ctx, st, root, f)
		require.NoError(t, err)
		require.Len(t, f.Files, 1)
		r, err := lance.Open(ctx, st, path.Join(root, "data", f.Files[0].Path), f.Files[0].Bytes, lance.ReaderOptions{})
		require.NoError(t, err)
		require.Equal(t, f.Rows, r.Rows())
		all := make([]int64, f.Rows)
		for j := range all {
			all[j] = int64(j)
		}
		rec, err := r.Take(ctx, []int{0, 1}, all)
		require.NoError(t, err)
		for j := range all {
			if deleted == nil || !deleted.Contains(uint32(j)) {
				v := strings.Clone(rec.Column(1).(*array.String).Value(j))
				rows = append(rows, row{rec.Column(0).(*array.Int64).Value(j), v})
			}
		}
		rec.Release()
		require.NoError(t, r.Close())
	}
	return rows
}

// requireAgreement holds that pylance and we see the same newest version.
func (p *pylance) requireAgreement(st object.Store, root string) *Version {
	p.t.Helper()
	ctx := context.Background()
	v, err := Latest(ctx, st, root, Options{})
	require.NoError(p.t, err)
	theirs := p.run("read", root)
	require.Equal(p.t, theirs.Version, v.Number)
	require.Equal(p.t, theirs.Count, v.Rows())
	require.ElementsMatch(p.t, theirs.Rows, readRows(p.t, st, root, v))
	require.Len(p.t, v.Fragments, len(theirs.Fragments))
	for i, f := range theirs.Fragments {
		require.Equal(p.t, f.ID, v.Fragments[i].ID)
		require.Equal(p.t, f.Rows, v.Fragments[i].Rows)
		deleted, err := v.Deletions(ctx, st, root, &v.Fragments[i])
		require.NoError(p.t, err)
		if deleted == nil {
			require.Empty(p.t, f.Deleted)
		} else {
			require.Equal(p.t, f.Deleted, deleted.ToArray())
		}
	}
	require.Len(p.t, v.Indexes, len(theirs.Indexes))
	for i, x := range theirs.Indexes {
		require.Equal(p.t, x.Name, v.Indexes[i].Name)
		require.Equal(p.t, x.Fragments, v.Indexes[i].Fragments.ToArray())
	}
	return v
}

func TestLanceReadsWhatWeCommit(t *testing.T) {
	p, st := newPylance(t)
	root := "t.lance"
	v := createTable(t, st, root)
	p.requireAgreement(st, root)
	v = commitRows(t, st, root, v, numbered(0, 100), nil)
	v = commitRows(t, st, root, v, numbered(100, 50), map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(3, 5, 99)})
	v = commitRows(t, st, root, v, nil, map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(4), 1: roaring.BitmapOf(0)})
	p.requireAgreement(st, root)
	whole := roaring.New()
	whole.AddRange(0, 100)
	v = commitRows(t, st, root, v, numbered(150, 5), map[uint64]*roaring.Bitmap{0: whole})
	require.Len(t, v.Fragments, 2)
	p.requireAgreement(st, root)
	require.ElementsMatch(t, readRows(t, st, root, v), p.run("duckdb", root).Rows)

	v, err := Commit(context.Background(), st, root, v, Change{
		Overwrite: true, Append: []Fragment{writeRows(t, st, root, "over.lance", v.Schema, numbered(7, 3))},
		AppendDeleted: map[int]*roaring.Bitmap{0: roaring.BitmapOf(1)},
	}, Options{})
	require.NoError(t, err)
	p.requireAgreement(st, root)
	require.ElementsMatch(t, readRows(t, st, root, v), p.run("duckdb", root).Rows)
}

func TestWeAndLanceTakeTurnsOnOneTable(t *testing.T) {
	p, st := newPylance(t)
	root := "t.lance"
	commitRows(t, st, root, createTable(t, st, root), numbered(0, 12000), nil)
	p.run("append", root, "12000", "100")
	p.requireAgreement(st, root)
	p.run("delete", root, "id % 1000 = 7") // few: an Arrow array
	v := p.requireAgreement(st, root)
	require.Equal(t, Array, v.Fragments[0].Deletion.Kind)
	commitRows(t, st, root, v, numbered(20000, 10), map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(1, 7)})
	p.requireAgreement(st, root)
	p.run("delete", root, "id < 6000") // many: a bitmap
	v = p.requireAgreement(st, root)
	require.Equal(t, Bitmap, v.Fragments[0].Deletion.Kind)
	p.run("index", root, "id")
	v = p.requireAgreement(st, root)
	require.Len(t, v.Indexes, 1)
	require.True(t, v.Indexes[0].BTree())
	commitRows(t, st, root, v, numbered(30000, 10), map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(7000)})
	p.requireAgreement(st, root)
	p.run("merge", root, "11990", "20")
	p.requireAgreement(st, root)
	p.run("compact", root)
	v = p.requireAgreement(st, root)
	require.Nil(t, v.Fragments[0].Deletion, "compaction has rewritten the fragments")
	v = commitRows(t, st, root, v, numbered(40000, 10), map[uint64]*roaring.Bitmap{v.Fragments[0].ID: roaring.BitmapOf(0)})
	p.requireAgreement(st, root)
	require.ElementsMatch(t, readRows(t, st, root, v), p.run("duckdb", root).Rows)
}

func TestWeTakeUpATableThatLanceMade(t *testing.T) {
	p, st := newPylance(t)
	root := "theirs.lance"
	p.run("create", root, "0", "10")
	v := p.requireAgreement(st, root)
	require.False(t, v.synced)
	v = commitRows(t, st, root, v, numbered(10, 10), map[uint64]*roaring.Bitmap{0: roaring.BitmapOf(0)})
	require.True(t, v.synced)
	p.requireAgreement(st, root)
}

func TestLanceRebasesOverOurCommits(t *testing.T) {
	p, st := newPylance(t)
	root := "t.lance"
	old := commitRows(t, st, root, createTable(t, st, root), numbered(0, 100), nil)
	v := commitRows(t, st, root, old, numbered(100, 10), nil)
	v = commitRows(t, st, root, v, nil, map[uint64]*roaring.Bitmap{1: roaring.BitmapOf(0)})
	commitRows(t, st, root, v, numbered(200, 10), map[uint64]*roaring.Bitmap{1: roaring.BitmapOf(1)})
	p.run("delete_from", root, strconv.FormatUint(old.Number, 10), "id = 50")
	v = p.requireAgreement(st, root)
	require.EqualValues(t, old.Number+4, v.Number)
	require.EqualValues(t, 100-1+10-2+10, v.Rows())
}

func TestWeAndLanceRaceForOneTable(t *testing.T) {
	p, st := newPylance(t)
	root := "t.lance"
	v := commitRows(t, st, root, createTable(t, st, root), numbered(0, 10), nil)
	var wg sync.WaitGroup
	wg.Go(func() { p.run("append_one_by_one", root, "1000", "30") })
	for i := range int64(30) {
		v = commitRows(t, st, root, v, numbered(100+i, 1), nil)
	}
	wg.Wait()
	v = p.requireAgreement(st, root)
	require.EqualValues(t, 10+30+30, v.Rows())
	require.EqualValues(t, 2+30+30, v.Number)
}

// generationSchema is the schema of a table with the column that marks deletions.
func generationSchema(t testing.TB, s *lance.Schema) *lance.Schema {
	t.Helper()
	g := &lance.Schema{Fields: append([]lance.Field(nil), s.Fields...)}
	g.Fields = append(g.Fields, lance.Field{ID: 2, Name: "_tombstone", Type: arrow.FixedWidthTypes.Boolean})
	return g
}

// writeKeyIndex writes the _pk_index of a generation whose rows have the given keys, in order. It is the work of
// package btree, which this package may not import.
func writeKeyIndex(t testing.TB, st object.Store, dir string, keys []int64) {
	t.Helper()
	ctx := context.Background()
	write := func(name string, s *lance.Schema, meta map[string]string, put func(b *array.RecordBuilder)) {
		b := array.NewRecordBuilder(memory.DefaultAllocator, s.Arrow())
		defer b.Release()
		put(b)
		rec := b.NewRecordBatch()
		defer rec.Release()
		w, err := lance.Create(ctx, st, path.Join(dir, "_pk_index", name), s, lance.WriterOptions{Metadata: meta})
		require.NoError(t, err)
		require.NoError(t, w.Write(ctx, rec))
		_, err = w.Finish(ctx)
		require.NoError(t, err)
	}
	write("page_data.lance", &lance.Schema{Fields: []lance.Field{
		{ID: 0, Name: "values", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {ID: 1, Name: "ids", Type: arrow.PrimitiveTypes.Uint64},
	}}, nil, func(b *array.RecordBuilder) {
		for i, k := range keys {
			b.Field(0).(*array.Int64Builder).Append(k)
			b.Field(1).(*array.Uint64Builder).Append(uint64(i))
		}
	})
	write("page_lookup.lance", &lance.Schema{Fields: []lance.Field{
		{ID: 0, Name: "min", Type: arrow.PrimitiveTypes.Int64, Nullable: true}, {ID: 1, Name: "max", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{ID: 2, Name: "null_count", Type: arrow.PrimitiveTypes.Uint32}, {ID: 3, Name: "page_idx", Type: arrow.PrimitiveTypes.Uint32},
	}}, map[string]string{"batch_size": "4096", "range_partitioned": "false"}, func(b *array.RecordBuilder) {
		b.Field(0).(*array.Int64Builder).Append(keys[0])
		b.Field(1).(*array.Int64Builder).Append(keys[len(keys)-1])
		b.Field(2).(*array.Uint32Builder).Append(0)
		b.Field(3).(*array.Uint32Builder).Append(0)
	})
}

func TestLanceReadsTheGenerationsOfASealedShardAndRefusesToClaimIt(t *testing.T) {
	p, st := newPylance(t)
	ctx, root, id := context.Background(), "t.lance", uuid.New()
	v := commitRows(t, st, root, createTable(t, st, root), numbered(0, 10), nil)
	dir := path.Join(root, "_mem_wal", id.String())
	s, err := ClaimShard(ctx, st, dir, id, true, Options{})
	require.NoError(t, err)

	var args []string
	// The empty value is a tombstone.
	for _, rows := range [][]row{
		{{1, "gen1"}, {2, "gen1 first"}, {2, "gen1 last"}, {11, "gen1"}},
		{{2, "gen2"}, {3, ""}, {12, "gen2"}},
	} {
		number := s.CurrentGeneration
		name := fmt.Sprintf("%08x_gen_%d", number, number)
		g := generationSchema(t, v.Schema)
		o := CreateOptions{Append: []Fragment{writeRows(t, st, path.Join(dir, name), "rows.lance", g, rows)}}
		if number == 1 {
			o.AppendDeleted = map[int]*roaring.Bitmap{0: roaring.BitmapOf(1)}
		}
		_, err := Create(ctx, st, path.Join(dir, name), g, o)
		require.NoError(t, err)
		keys := make([]int64, len(rows))
		for i := range rows {
			keys[i] = rows[i].id
		}
		writeKeyIndex(t, st, path.Join(dir, name), keys)
		s, err = s.Commit(ctx, st, dir, func(s *Shard) {
			s.Generations = append(s.Generations, Generation{Number: number, Path: name, Rows: int64(len(rows))})
			s.CurrentGeneration++
		})
		require.NoError(t, err)
		args = append(args, fmt.Sprintf("%d=%s", number, name))
	}
	want := append([]row{{0, "v0"}, {1, "gen1"}, {2, "gen2"}, {11, "gen1"}, {12, "gen2"}}, numbered(4, 6)...)
	require.ElementsMatch(t, want, p.run("lsm", root, append([]string{id.String()}, args...)...).Rows)
	require.Contains(t, p.run("claim", root, id.String()).Refused, "sealed")
	require.ElementsMatch(t, numbered(0, 10), p.run("duckdb", root).Rows)

	v, err = Commit(ctx, st, root, v, Change{Compacted: map[uuid.UUID]uint64{id: 2}}, Options{})
	require.NoError(t, err)
	p.run("shards", root)
	got := p.requireAgreement(st, root)
	require.Equal(t, v.Compacted, got.Compacted)
	p.run("append", root, "100", "1")
	got = p.requireAgreement(st, root)
	require.Equal(t, v.Compacted, got.Compacted, "Lance carries our watermark forward")
}
