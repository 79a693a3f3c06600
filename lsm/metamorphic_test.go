package lsm

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/object"
)

var (
	metaSeeds   = flag.Uint64("meta-seeds", 24, "how many lists of operations TestMetamorphic runs")
	metaFirst   = flag.Uint64("meta-first", 0, "the seed of the first list of TestMetamorphic")
	metaOps     = flag.Int("meta-ops", 60, "how many operations a list of TestMetamorphic has")
	metaRuns    = flag.Int("meta-runs", 3, "under how many options TestMetamorphic runs a list")
	metaFile    = flag.String("meta-file", "", "a file that TestMetamorphic wrote about a failure, to run that again and nothing else")
	metaShorten = flag.Duration("meta-shorten", time.Minute, "how long TestMetamorphic looks for a shorter list that fails, too")
)

// metaOptions are what a list of operations runs under: nothing that a reader may notice.
type metaOptions struct {
	memtable, segment, stage int64
	retain                   time.Duration
	// beside has flushes, merges and collections run all the time.
	beside     bool
	durability Durability
	indexMode  IndexMode
	maintain   []string
	// shards is how many a table with a key has.
	shards int
	// store has the data in the form of a store of objects, in a folder.
	store bool
	// lance has pylance read the table in the end, which takes a second.
	lance bool
}

// newMetaOptions returns the options of one run of a list. The first has everything in memory and nothing beside it, the
// second everything at once.
func newMetaOptions(seed uint64, run int) metaOptions {
	r := rand.New(rand.NewPCG(seed, uint64(run)+100))
	switch run {
	case 0:
		return metaOptions{memtable: 16 << 20, segment: 1 << 20, stage: 1 << 20, durability: Durable, indexMode: Sync}
	case 1:
		return metaOptions{memtable: 16 << 10, segment: 64 << 10, stage: 3000, retain: -1, beside: true, durability: Durable, indexMode: Sync,
			shards: 3, lance: seed%5 == 0}
	}
	return metaOptions{
		memtable:   1 << (11 + r.IntN(8)),
		segment:    64 << (10 + r.IntN(3)),
		stage:      1 << (10 + r.IntN(8)),
		retain:     []time.Duration{-1, 0, time.Hour}[r.IntN(3)],
		beside:     r.IntN(2) == 0,
		durability: []Durability{Durable, Buffered}[r.IntN(2)],
		indexMode:  []IndexMode{Sync, Async}[r.IntN(2)],
		maintain:   [][]string{nil, {}, {"i0", "i2"}}[r.IntN(3)],
		shards:     []int{1, 2, 3, 7}[r.IntN(4)],
		store:      r.IntN(3) == 0,
	}
}

// options returns those of a DB.
func (o metaOptions) options(dir string) Options {
	out := Options{Dir: dir, wrap: faulty, Memory: minMemory, MemtableBytes: o.memtable, SegmentBytes: o.segment, StageBytes: o.stage, Retain: o.retain, sortBytes: int64(o.memtable)}
	if o.store {
		out.Store, out.Takeover = namedStore{object.NewLocal(dir)}, true // after a crash the owner seems to live
	}
	return out
}

// def returns the definition of a table.
func (o metaOptions) def(d TableDef) TableDef {
	d.Durability, d.IndexMode, d.Maintain = o.durability, o.indexMode, o.maintain
	if key, err := PrimaryKey(d.Schema); err == nil && len(key) > 0 && !o.store {
		d.Shards = o.shards
	}
	return d
}

// metaList is a list of operations on a table of some kind.
type metaList struct {
	seed uint64
	kind modelKind
	ops  []metaOp
}

// newMetaList makes the list of a seed.
func newMetaList(seed uint64, n int) metaList {
	r := rand.New(rand.NewPCG(seed, 9))
	total := 0
	for _, k := range metaKinds {
		total += k.weight
	}
	l := metaList{seed: seed, kind: modelKinds[seed%uint64(len(modelKinds))]}
	for range n {
		at := r.IntN(total)
		for _, k := range metaKinds {
			if at -= k.weight; at < 0 {
				l.ops = append(l.ops, metaOp{k.kind, r.Uint64N(1 << 32)})
				break
			}
		}
	}
	return l
}

// write stores a list that failed in a run, for -meta-file.
func (l metaList) write(run int) (string, error) {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("flightd-metamorphic-%d-%d.txt", l.seed, run))
	text := fmt.Sprintf("# %+v\nlist %d %s run %d\n", newMetaOptions(l.seed, run), l.seed, l.kind, run)
	for _, o := range l.ops {
		text += o.String() + "\n"
	}
	return name, os.WriteFile(name, []byte(text), 0o644)
}

// readMetaList reads what write wrote.
func readMetaList(name string) (l metaList, run int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return l, 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		var o metaOp
		switch {
		case strings.HasPrefix(line, "#") || line == "":
			continue
		case strings.HasPrefix(line, "list "):
			_, err = fmt.Sscanf(line, "list %d %s run %d", &l.seed, &l.kind, &run)
		default:
			if _, err = fmt.Sscan(line, &o.kind, &o.seed); err == nil && metaDo(o.kind) == nil {
				err = fmt.Errorf("there is no operation %q", o.kind)
			}
			l.ops = append(l.ops, o)
		}
		if err != nil {
			return l, 0, fmt.Errorf("%s: %q: %w", name, line, err)
		}
	}
	return l, run, nil
}

// TestMetamorphic runs one random list of operations under several options. All answers must be the same in all runs,
// and those of a model. Operations are everything that changes a table: puts, deletes, inserts, partial upserts,
// statements, stages that stay open over other changes, streams that resume, ALTER, rewrites, replacements, and commits
// of another program; flushes, merges and collections come between and run beside them, and so do restarts and crashes.
// After each operation the table is compared by a full scan, by its parts and by keys; snapshots that were taken on the
// way keep their rows.
//
// A list that fails is made shorter as long as it fails, printed, and written to a file for -meta-file.
func TestMetamorphic(t *testing.T) {
	if *metaFile != "" {
		l, run, err := readMetaList(*metaFile)
		require.NoError(t, err)
		_, story, err := runMeta(t, l.kind, newMetaOptions(l.seed, run), l.ops)
		require.NoError(t, err, "%+v\n%s", newMetaOptions(l.seed, run), strings.Join(story, "\n"))
		return
	}
	for seed := *metaFirst; seed < *metaFirst+fewer(*metaSeeds, 3); seed++ {
		l := newMetaList(seed, *metaOps)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel() // it waits for syncs, much of the time
			var first []string
			for run := range *metaRuns {
				said, story, err := runMeta(t, l.kind, newMetaOptions(seed, run), l.ops)
				if err != nil {
					metaReport(t, l, run, story, err)
				}
				if run == 0 {
					first = said
				}
				require.Equal(t, first, said, "the options %+v make a difference to %+v\n%s", newMetaOptions(seed, run), newMetaOptions(seed, 0), strings.Join(story, "\n"))
			}
		})
	}
}

// metaReport fails with the shortest list that it finds to fail under the options of a run.
func metaReport(t *testing.T, l metaList, run int, story []string, err error) {
	t.Helper()
	fails := func(ops []metaOp) bool {
		_, s, e := runMeta(t, l.kind, newMetaOptions(l.seed, run), ops)
		if e != nil {
			story, err = s, e
		}
		return e != nil
	}
	l.ops = shorten(l.ops, time.Now().Add(*metaShorten), fails)
	name, writeErr := l.write(run)
	require.NoError(t, writeErr)
	t.Fatalf("seed %d, run %d, %+v: %v\n%d operations are left, again with -meta-file %s\n%s",
		l.seed, run, newMetaOptions(l.seed, run), err, len(l.ops), name, strings.Join(story, "\n"))
}

// shorten returns a part of a list that fails, too, as short as it finds one until a moment: it leaves out halves,
// quarters and so on down to single elements, as long as one of them can be spared.
func shorten[T any](list []T, until time.Time, fails func([]T) bool) []T {
	for size := (len(list) + 1) / 2; size > 0; {
		spared := false
		for at := 0; at < len(list) && time.Now().Before(until); {
			rest := slices.Delete(slices.Clone(list), at, min(at+size, len(list)))
			if fails(rest) {
				list, spared = rest, true
			} else {
				at += size
			}
		}
		if time.Now().After(until) || size == 1 && !spared {
			return list
		}
		if !spared || size > 1 {
			size = max(size/2, 1)
		}
	}
	return list
}

// TestShorten leaves nothing that can be spared.
func TestShorten(t *testing.T) {
	list := make([]int, 100)
	for i := range list {
		list[i] = i
	}
	tries := 0
	got := shorten(list, time.Now().Add(time.Hour), func(part []int) bool {
		tries++
		return slices.Contains(part, 17) && slices.Contains(part, 18) && slices.Contains(part, 93)
	})
	require.Equal(t, []int{17, 18, 93}, got)
	require.Less(t, tries, 100)
}
