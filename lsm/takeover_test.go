package lsm

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/rows"
	"github.com/flightd/flightd/lsm/wal"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// foreignShard is a shard of another writer in the folder of table p, under construction.
type foreignShard struct {
	t     *testing.T
	dir   string // of the data folder
	st    *object.Local
	id    uuid.UUID
	man   *manifest.Shard
	keyed bool
	last  uint64 // position of the last entry
}

// foreignSchemas are the columns of table p.
var foreignSchemas = map[bool]string{true: "k int64 key, n int64", false: "k int64, n int64"}

// newForeignShard makes a data folder with table p and, in front of its base, a shard as another MemWAL writer leaves it:
// two generations, an entry that they have, a sentinel and two entries that they do not have, under epoch 2. The folder
// has flightd's own files only if it is known, and the table then has rows in generations of its own.
func newForeignShard(t *testing.T, keyed, known bool) *foreignShard {
	t.Helper()
	ctx := t.Context()
	f := &foreignShard{t: t, dir: filepath.Join(t.TempDir(), "data"), keyed: keyed, id: uuid.UUID{15: 7}}
	f.st = object.NewLocal(f.dir)
	db := openManual(t, f.dir)
	table := createTest(t, db, "p", foreignSchemas[keyed])
	f.write(db, "1 10", "2 20", "3 30", "4 40", "5 50", "6 60")
	require.NoError(t, table.optimize(ctx))
	before := table.shards[0].manifest().CurrentGeneration
	f.write(db, "2 21", "3 31")
	require.NoError(t, db.Flush(ctx, table.Name()))
	f.write(db, "3 32", "7 70")
	if keyed {
		f.write(db, "1 0 true")
	}
	require.NoError(t, db.Flush(ctx, table.Name()))
	own := filepath.Join(f.dir, table.shards[0].dir())
	gens := table.shards[0].manifest().Generations
	require.NoError(t, db.Close())
	require.NoError(t, os.Rename(own, filepath.Join(f.dir, f.shard())))
	require.NoError(t, os.RemoveAll(filepath.Join(f.dir, f.shard(), "manifest")))
	require.NoError(t, os.RemoveAll(filepath.Join(f.dir, systemFolder)))
	if known { // a flightd that lost its own shard would not open; this one never had it
		root := filepath.Join(f.dir, "p.lance")
		require.NoError(t, os.Rename(filepath.Join(root, "_mem_wal"), filepath.Join(f.dir, "aside")))
		db := openManual(t, f.dir)
		f.write(db, "4 41", "3 33")
		require.NoError(t, db.Flush(ctx, TableName{Name: "p"}))
		f.write(db, "5 51")
		require.NoError(t, db.Close())
		require.NoError(t, os.Rename(filepath.Join(f.dir, "aside", f.id.String()), filepath.Join(f.dir, f.shard())))
		require.NoError(t, os.Remove(filepath.Join(f.dir, "aside")))
	}
	for range 2 {
		var err error
		f.man, err = manifest.ClaimShard(ctx, f.st, f.shard(), f.id, false, manifest.Options{})
		require.NoError(t, err)
	}
	f.entry(1, 1, "2 21")
	f.edit(func(n *manifest.Shard) {
		n.Generations, n.ReplayAfter, n.CurrentGeneration = nil, f.last, 3
		for i, g := range gens {
			g.Number -= before - 1
			require.Equal(t, uint64(i+1), g.Number)
			n.Generations = append(n.Generations, g)
		}
	})
	f.sentinel(2)
	f.entry(2, 2, "6 666") // generation 2 has it, as far as this says
	f.entry(2, 3, "3 34", "8 80")
	if keyed {
		f.entry(2, 3, "7 0 true", "6 0 true", "6 61")
	}
	return f
}

// want are the rows of p when the shard is taken over.
func (f *foreignShard) want(known bool) []string {
	switch {
	case f.keyed && known:
		return []string{"2 21", "3 34", "4 41", "5 51", "6 61", "8 80"}
	case f.keyed:
		return []string{"2 21", "3 34", "4 40", "5 50", "6 61", "8 80"}
	}
	list := []string{"1 10", "2 20", "2 21", "3 30", "3 31", "3 32", "3 34", "4 40", "5 50", "6 60", "7 70", "8 80"}
	if known {
		list = append(list, "3 33", "4 41", "5 51")
		slices.Sort(list)
	}
	return list
}

// base are its rows before that.
func (f *foreignShard) base() []string {
	return []string{"1 10", "2 20", "3 30", "4 40", "5 50", "6 60"}
}

func (f *foreignShard) shard() string { return path.Join("p.lance", "_mem_wal", f.id.String()) }

// write puts rows into p, "key n" or "key n tombstone" each.
func (f *foreignShard) write(db *DB, lines ...string) {
	f.t.Helper()
	table, err := db.Table(TableName{Name: "p"})
	require.NoError(f.t, err)
	for _, line := range lines {
		s := table.Schema()
		if bytes.HasSuffix([]byte(line), []byte("true")) {
			s = arrow.NewSchema(append(s.Fields(), tombstoneField), nil)
		}
		rec, err := rows.Parse(s, line)
		require.NoError(f.t, err)
		lsn, err := table.Put(f.t.Context(), Batch{Record: rec})
		rec.Release()
		require.NoError(f.t, err)
		require.NoError(f.t, db.Wait(f.t.Context(), lsn))
	}
}

func (f *foreignShard) edit(change func(*manifest.Shard)) {
	f.t.Helper()
	var err error
	f.man, err = f.man.Commit(f.t.Context(), f.st, f.shard(), change)
	require.NoError(f.t, err)
}

// entry appends an entry with rows, one batch each, laid out as Lance does; the columns are told by their field ids.
func (f *foreignShard) entry(epoch, generation uint64, lines ...string) {
	f.t.Helper()
	id := func(n string) arrow.Metadata { return arrow.MetadataFrom(map[string]string{metaFieldID: n}) }
	fields := []arrow.Field{
		{Name: "was_k", Type: arrow.PrimitiveTypes.Int64, Metadata: id("0")},
		{Name: "n", Type: arrow.PrimitiveTypes.Int64, Nullable: true, Metadata: id("1")},
		{Name: TombstoneColumn, Type: arrow.FixedWidthTypes.Boolean},
	}
	var batches []arrow.RecordBatch
	for _, line := range lines {
		if !bytes.HasSuffix([]byte(line), []byte("true")) {
			line += " false"
		}
		rec, err := rows.Parse(arrow.NewSchema(fields, nil), line)
		require.NoError(f.t, err)
		defer rec.Release()
		batches = append(batches, rec)
	}
	f.object(map[string]string{"writer_epoch": strconv.FormatUint(epoch, 10), "generation": strconv.FormatUint(generation, 10)}, fields, batches...)
}

func (f *foreignShard) sentinel(epoch uint64) {
	f.t.Helper()
	f.object(map[string]string{"writer_epoch": strconv.FormatUint(epoch, 10), "fence_sentinel": "true"}, nil)
}

func (f *foreignShard) object(meta map[string]string, fields []arrow.Field, batches ...arrow.RecordBatch) {
	f.t.Helper()
	md := arrow.MetadataFrom(meta)
	s := arrow.NewSchema(fields, &md)
	var b bytes.Buffer
	w := ipc.NewWriter(&b, ipc.WithSchema(s))
	for _, rec := range batches {
		require.NoError(f.t, w.Write(rec))
	}
	require.NoError(f.t, w.Close())
	f.last++
	require.NoError(f.t, f.st.PutIfAbsent(f.t.Context(), f.entryName(f.last), b.Bytes()))
}

func (f *foreignShard) entryName(position uint64) string {
	return path.Join(f.shard(), entriesFolder, wal.EntryName(position))
}

// newest returns the shard's manifest in a data folder.
func (f *foreignShard) newest(dir string) *manifest.Shard {
	f.t.Helper()
	s, err := manifest.LoadShard(f.t.Context(), object.NewLocal(dir), f.shard(), manifest.Options{})
	require.NoError(f.t, err)
	return s
}

// files returns the names of what lies in the shard's folder, manifests aside.
func (f *foreignShard) files(dir string) (names []string) {
	f.t.Helper()
	m, err := readMoment(filepath.Join(dir, f.shard()))
	require.NoError(f.t, err)
	for name := range m.files {
		if path.Dir(name) != "manifest" {
			names = append(names, name)
		}
	}
	return names
}

// forForeignShards runs a test over all kinds of tables.
func forForeignShards(t *testing.T, test func(t *testing.T, keyed, known bool)) {
	for _, keyed := range []bool{true, false} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("keyed=%t,known=%t", keyed, known), func(t *testing.T) { test(t, keyed, known) })
		}
	}
}

// TestShardsOfOtherWritersAreTakenOver opens folders with such a shard: its rows are the table's, once, and its writer
// finds the shard sealed, and an entry where it would put its next.
func TestShardsOfOtherWritersAreTakenOver(t *testing.T) {
	forForeignShards(t, func(t *testing.T, keyed, known bool) {
		f := newForeignShard(t, keyed, known)
		want := f.want(known)
		for range 3 {
			db := openTest(t, f.dir)
			require.Equal(t, want, tableLines(t, db, "p"))
			require.NoError(t, db.Close())
			_, list := faults(t, f.dir)
			require.Empty(t, list)
		}
		man := f.newest(f.dir)
		require.True(t, man.Sealed)
		require.Empty(t, man.Generations)
		require.Equal(t, f.last+1, man.ReplayAfter)
		_, err := manifest.ClaimShard(t.Context(), f.st, f.shard(), f.id, false, manifest.Options{})
		require.ErrorIs(t, err, manifest.ErrSealed)
		_, err = f.man.Commit(t.Context(), f.st, f.shard(), func(*manifest.Shard) {})
		require.ErrorIs(t, err, manifest.ErrFenced)
		require.ElementsMatch(t, []string{path.Join(entriesFolder, wal.EntryName(2)), path.Join(entriesFolder, wal.EntryName(f.last+1))}, f.files(f.dir),
			"only the sentinels stay")

		db := openTest(t, f.dir)
		defer func() { require.NoError(t, db.Close()) }()
		f.write(db, "9 90")
		require.NoError(t, db.Optimize(t.Context(), TableName{Name: "p"}))
		require.Equal(t, append(want, "9 90"), tableLines(t, db, "p"))
	})
}

// TestCrashesOfTakeOvers cuts the power at each call of the store while a folder with another writer's shard is opened, and
// opens what is left: no row is lost, none is there twice.
func TestCrashesOfTakeOvers(t *testing.T) {
	for _, x := range []struct {
		keyed, known bool
		stage        int64 // Options.StageBytes: with 1 each batch becomes a generation
	}{{keyed: true, known: true}, {stage: 1}} {
		t.Run(fmt.Sprintf("keyed=%t,known=%t,stage=%d", x.keyed, x.known, x.stage), func(t *testing.T) {
			t.Parallel()
			f := newForeignShard(t, x.keyed, x.known)
			start, err := readMoment(f.dir)
			require.NoError(t, err)
			calls := int64(1 << 30)
			for cut := int64(1); cut <= calls; cut++ {
				left, n := crashOpen(t, start, x.stage, cut)
				if calls = n; n < cut {
					break // how many there are differs by what works beside: this time no power was cut
				}
				f.survives(left, f.want(x.known), fmt.Sprintf("cut at call %d of %d", cut, n))
			}
			require.Greater(t, calls, int64(30))
		})
	}
}

// survives opens what a power cut left.
func (f *foreignShard) survives(left moment, want []string, when string) {
	t := f.t
	dir := filepath.Join(t.TempDir(), "left")
	require.NoError(t, left.write(dir))
	if _, old := left.files[systemFolder+"/format"]; old {
		_, err := Check(t.Context(), dir, func(x Fault) { t.Errorf("%s: %s", when, x) })
		require.NoError(t, err)
	}
	db := openTest(t, dir)
	require.Equal(t, want, tableLines(t, db, "p"), when)
	table, err := db.Table(TableName{Name: "p"})
	require.NoError(t, err)
	require.NoError(t, table.refuseWrite())
	require.NoError(t, db.Close())
	man := f.newest(dir)
	require.True(t, man.Sealed && len(man.Generations) == 0, when)
	require.NoError(t, os.RemoveAll(dir))
}

// crashOpen opens a folder and returns what a power cut at a call of the store leaves of it, and how many calls there were.
func crashOpen(t *testing.T, start moment, stage, cut int64) (left moment, calls int64) {
	t.Helper()
	losses := rand.New(rand.NewPCG(uint64(cut), 3))
	dir := filepath.Join(t.TempDir(), "open")
	require.NoError(t, start.write(dir))
	var st *crashStore
	var imageErr error
	counted := make(chan int64, 1)
	counted <- 0
	db, err := Open(context.Background(), Options{Dir: dir, Memory: minMemory, SegmentBytes: 1 << 20, manual: true, StageBytes: stage, wrap: func(local object.Store) object.Store {
		st = newCrashStore(local, dir, func() {
			n := <-counted + 1
			if n == cut {
				left, imageErr = st.image(losses)
			}
			counted <- n
		})
		return st
	}})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, imageErr)
	return left, <-counted
}

// TestShardsThatCannotBeTakenOver has shards with something wrong: the table is read without their rows and not written,
// the error names the file, and when that is put right, or moved away, the next Open has the table whole.
func TestShardsThatCannotBeTakenOver(t *testing.T) {
	garbage := func(name func(f *foreignShard) string) func(f *foreignShard) (string, []byte) {
		return func(f *foreignShard) (string, []byte) { return name(f), []byte("garbage") }
	}
	generation := func(f *foreignShard) string {
		data, err := filepath.Glob(filepath.Join(f.dir, f.shard(), f.man.Generations[1].Path, "data", "*"))
		require.NoError(f.t, err)
		name, err := filepath.Rel(f.dir, data[0])
		require.NoError(f.t, err)
		return name
	}
	newest := func(f *foreignShard) string {
		manifests, err := filepath.Glob(filepath.Join(f.dir, f.shard(), "manifest", "11*.binpb")) // version 3
		require.NoError(f.t, err)
		name, err := filepath.Rel(f.dir, manifests[0])
		require.NoError(f.t, err)
		return name
	}
	for what, damage := range map[string]func(f *foreignShard) (name string, data []byte){
		"entry":      garbage(func(f *foreignShard) string { return f.entryName(f.last) }),
		"generation": garbage(generation),
		"manifest":   garbage(newest),
		"missing":    func(f *foreignShard) (string, []byte) { return f.entryName(f.last - 1), nil },
		"cut": func(f *foreignShard) (string, []byte) {
			b, err := f.st.Get(f.t.Context(), f.entryName(f.last))
			require.NoError(f.t, err)
			return f.entryName(f.last), b[:len(b)-9]
		},
		"column": func(f *foreignShard) (string, []byte) {
			b, err := f.st.Get(f.t.Context(), f.entryName(f.last))
			require.NoError(f.t, err)
			return f.entryName(f.last), bytes.ReplaceAll(b, []byte("1\x00\x00\x00\x0e\x00\x00\x00lance:field_id"), []byte("9\x00\x00\x00\x0e\x00\x00\x00lance:field_id"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			for _, known := range []bool{true, false} {
				f := newForeignShard(t, true, known)
				name, data := damage(f)
				full := filepath.Join(f.dir, filepath.FromSlash(name))
				good, err := os.ReadFile(full)
				require.NoError(t, err)
				require.NotEqual(t, good, data)
				require.NoError(t, os.Remove(full))
				if data != nil {
					require.NoError(t, os.WriteFile(full, data, 0o644))
				}
				for range 2 {
					db := openTest(t, f.dir)
					table, err := db.Table(TableName{Name: "p"})
					if what == "manifest" && !known {
						var unserved *UnservedError
						require.ErrorAs(t, err, &unserved)
						require.ErrorContains(t, err, name)
						require.NoError(t, db.Close())
						continue
					}
					require.NoError(t, err)
					if !known {
						require.Equal(t, f.base(), tableLines(t, db, "p"))
					}
					var readOnly *ReadOnlyError
					err = table.refuseWrite()
					require.ErrorAs(t, err, &readOnly)
					require.ErrorContains(t, err, filepath.Base(name))
					require.ErrorContains(t, err, f.id.String())
					require.ErrorContains(t, err, "move its folder away")
					require.NoError(t, db.Close())
				}
				require.NoError(t, os.WriteFile(full, good, 0o644))
				require.False(t, f.newest(f.dir).Sealed, "its writer can go on with it")
				db := openTest(t, f.dir)
				table, err := db.Table(TableName{Name: "p"})
				require.NoError(t, err)
				require.NoError(t, table.refuseWrite())
				require.Equal(t, f.want(known), tableLines(t, db, "p"))
				require.NoError(t, db.Close())
			}
		})
	}
}

// TestSealedShardsOfOthersAreLeftAlone has a shard that somebody else has sealed, who is about to drop the dataset.
func TestSealedShardsOfOthersAreLeftAlone(t *testing.T) {
	for _, known := range []bool{true, false} {
		f := newForeignShard(t, true, known)
		f.edit(func(n *manifest.Shard) { n.Sealed = true })
		before := f.files(f.dir)
		db := openTest(t, f.dir)
		table, err := db.Table(TableName{Name: "p"})
		if known {
			require.NoError(t, err)
			err = table.refuseWrite()
		}
		require.ErrorIs(t, err, errDropping)
		require.NoError(t, db.Close())
		require.ElementsMatch(t, before, f.files(f.dir))
		require.Equal(t, f.man.Version, f.newest(f.dir).Version)
		require.NoError(t, os.RemoveAll(filepath.Join(f.dir, f.shard())))
		db = openTest(t, f.dir)
		table, err = db.Table(TableName{Name: "p"})
		require.NoError(t, err)
		require.NoError(t, table.refuseWrite())
		require.NoError(t, db.Close())
	}
}

// TestGenerationsThatAreInTheBaseAreNotTakenIn has the base say that another program merged the first generation.
func TestGenerationsThatAreInTheBaseAreNotTakenIn(t *testing.T) {
	f := newForeignShard(t, false, false)
	v, err := manifest.Latest(t.Context(), f.st, "p.lance", manifest.Options{})
	require.NoError(t, err)
	_, err = manifest.Commit(t.Context(), f.st, "p.lance", v, manifest.Change{Compacted: map[uuid.UUID]uint64{f.id: 1}}, manifest.Options{})
	require.NoError(t, err)
	db := openTest(t, f.dir)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, []string{"1 10", "2 20", "3 30", "3 32", "3 34", "4 40", "5 50", "6 60", "7 70", "8 80"}, tableLines(t, db, "p"))
}

// TestCheckVerifiesShardsOfOtherWriters looks at such a shard before it is taken over, whole and with each kind of file
// damaged, and after that.
func TestCheckVerifiesShardsOfOtherWriters(t *testing.T) {
	f := newForeignShard(t, true, true)
	sum, list := faults(t, f.dir)
	require.Empty(t, list)
	require.Equal(t, []int{1, 4}, []int{sum.Strangers, sum.StrangerEntries})
	generation := path.Join(f.shard(), f.man.Generations[1].Path)
	for _, pattern := range []string{
		path.Join(f.shard(), "manifest", "*.binpb"), path.Join(generation, "_versions", "*.manifest"), path.Join(generation, "data", "*"),
		path.Join(generation, "_pk_index", "page_data.lance"), f.entryName(f.last), f.entryName(f.last - 1),
	} {
		for _, cut := range []bool{true, false} {
			victim := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(victim, os.DirFS(f.dir)))
			name := newestMatch(t, victim, pattern)
			full := filepath.Join(victim, name)
			switch {
			case cut:
				require.NoError(t, os.Truncate(full, fileBytes(full)/2))
			case name == f.entryName(f.last-1):
				require.NoError(t, os.Remove(full))
			default:
				flip(t, full, 1)
			}
			_, list := faults(t, victim)
			require.True(t, slices.ContainsFunc(list, func(x Fault) bool { return x.File == name }), "%s, cut %t: %v", name, cut, list)
		}
	}
	db := openTest(t, f.dir)
	require.NoError(t, db.Close())
	sum, list = faults(t, f.dir)
	require.Empty(t, list)
	require.Equal(t, []int{1, 0}, []int{sum.Strangers, sum.StrangerEntries})
}
