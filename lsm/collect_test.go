package lsm

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/manifest"
)

// openRetain opens a DB that keeps for an hour what is superseded: the collector itself then finds nothing in a test.
func openRetain(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(context.Background(), Options{Dir: dir, wrap: faulty, Retain: time.Hour, SegmentBytes: 1 << 20})
	require.NoError(t, err)
	return db
}

// vacuumOld collects when everything in the folder is two hours old.
func vacuumOld(t *testing.T, db *DB, dir, name string) (Collected, error) {
	t.Helper()
	age(t, filepath.Join(dir, name+".lance"), 2*time.Hour)
	return db.Vacuum(context.Background(), TableName{Name: name})
}

// age makes everything below a folder look as if it had been written some time ago.
func age(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	require.NoError(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(name, then, then)
	}))
}

// versionsOf returns the numbers of the versions of a table.
func versionsOf(t *testing.T, db *DB, root string) []uint64 {
	t.Helper()
	list, err := manifest.TableHistory(db.st, root, manifest.Options{}).List(context.Background())
	require.NoError(t, err)
	var out []uint64
	for _, v := range list {
		out = append(out, v.Number)
	}
	return out
}

// filesBelow returns all files below a folder of the data folder.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, strings.TrimPrefix(name, dir+"/"))
		}
		return nil
	})
	require.NoError(t, err)
	return out
}

// upsertRounds replaces the same keys and merges, a few times.
func upsertRounds(t *testing.T, db *DB, table *Table, rounds int) {
	t.Helper()
	for i := range rounds {
		putKeys(t, db, table, int64(i), 1, 2, 3, 4, 5)
		require.NoError(t, db.Optimize(context.Background(), table.Name()))
	}
}

// TestExpiredVersionsEqualsItsTwin compares the policy with one that looks at each version by itself.
func TestExpiredVersionsEqualsItsTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	now := time.Unix(1_000_000, 0)
	for range 2000 {
		var chain []manifest.VersionFile
		number := uint64(0)
		for range random.IntN(8) {
			number += 1 + uint64(random.IntN(3))
			chain = append(chain, manifest.VersionFile{Number: number, Time: now.Add(-time.Duration(random.IntN(10)) * time.Hour)})
		}
		keep := map[uint64]bool{uint64(random.IntN(20)): true, uint64(random.IntN(20)): true}
		stay := uint64(random.IntN(20))
		cutoff := now.Add(-time.Duration(random.IntN(10)) * time.Hour)
		got := map[uint64]bool{}
		for _, v := range expiredVersions(chain, keep, stay, cutoff) {
			got[v.Number] = true
		}
		for _, v := range chain {
			// It goes when some version follows, the first of those that follow is old enough, and nobody wants it.
			want := false
			for next := v.Number + 1; next <= number; next++ {
				found := false
				for _, w := range chain {
					if w.Number == next {
						found, want = true, w.Time.Before(cutoff) || w.Time.Equal(cutoff)
					}
				}
				if found {
					break
				}
			}
			if keep[v.Number] || v.Number >= stay {
				want = false
			}
			require.Equal(t, want, got[v.Number], "version %d of %v, keep %v, stay %d, cutoff %s", v.Number, chain, keep, stay, cutoff)
		}
	}
}

// TestExpiredFiles says what becomes of a file by who names it and how old it is.
func TestExpiredFiles(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	f := func(named string, age time.Duration, retain time.Duration, want bool) {
		t.Helper()
		needed, known := map[string]bool{}, map[string]bool{}
		switch named {
		case "needed":
			needed["data/x"] = true
		case "known":
			known["data/x"] = true
		case "both":
			needed["data/x"], known["data/x"] = true, true
		}
		got := expiredFiles([]storedFile{{name: "data/x", owner: "data/x", time: now.Add(-age)}}, needed, known, now.Add(-retain), now.Add(-commitGrace))
		require.Equal(t, want, len(got) == 1)
	}
	f("needed", 100*time.Hour, 0, false)
	f("both", 100*time.Hour, 0, false)
	f("known", 0, 24*time.Hour, true)
	f("never", 23*time.Hour, 24*time.Hour, false)
	f("never", 24*time.Hour, 24*time.Hour, true)
	f("never", commitGrace/2, 0, false)
	f("never", commitGrace, 0, true)
}

// TestVacuumKeepsWhatIsNeeded churns a table: one version is left, everything in it is readable, and a check of the
// folder finds nothing wrong.
func TestVacuumKeepsWhatIsNeeded(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 12)
	got, err := vacuumOld(t, db, dir, "p")
	require.NoError(t, err)
	require.Positive(t, got.Versions)
	require.Greater(t, got.Files, got.Versions)
	require.Positive(t, got.Bytes)
	require.Len(t, versionsOf(t, db, "p.lance"), 1)
	require.Len(t, filesBelow(t, filepath.Join(dir, "p.lance", "data")), 1)
	require.Len(t, filesBelow(t, filepath.Join(dir, "p.lance", "_versions")), 2, "the version and the hint")
	m := db.Metrics()
	require.GreaterOrEqual(t, m.CollectedFiles, got.Files)
	require.GreaterOrEqual(t, m.CollectedBytes, got.Bytes)
	again, err := db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	require.Equal(t, Collected{Table: table.Name()}, again)
	require.Equal(t, 5, countRows(t, db, "p"))
	require.NoError(t, db.Close())
	_, faults := faults(t, dir)
	require.Empty(t, faults)
	db = openRetain(t, dir)
	require.Equal(t, 5, countRows(t, db, "p"))
	require.NoError(t, db.Close())
}

// TestVacuumWithinRetain keeps versions for as long as it was told, counted from when they were superseded.
func TestVacuumWithinRetain(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 3)
	before := versionsOf(t, db, "p.lance")
	got, err := db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	require.Zero(t, got.Files)
	age(t, filepath.Join(dir, "p.lance"), 2*time.Hour)
	upsertRounds(t, db, table, 1)
	got, err = db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	// The last of the old ones was the newest until just now.
	require.Equal(t, int64(len(before)-1), got.Versions)
	require.Equal(t, before[len(before)-1], versionsOf(t, db, "p.lance")[0])
	require.NoError(t, db.Close())
}

// TestVacuumLeavesTagsAndBranches keeps the versions that other programs named, with their files.
func TestVacuumLeavesTagsAndBranches(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 6)
	versions := versionsOf(t, db, "p.lance")
	tag, branch := versions[2], versions[4]
	refs := filepath.Join(dir, "p.lance", "_refs")
	write := func(name, text string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(refs, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(refs, name), []byte(text), 0o644))
	}
	write("tags/a.json", fmt.Sprintf(`{"branch":null,"version":%d}`, tag))
	write("tags/of-branch.json", `{"branch":"kid","version":1}`)
	write("branches/kid.json", fmt.Sprintf(`{"parentBranch":"x","identifier":{"version_mapping":[[%d,"u"],[77,"v"]]},"parentVersion":77}`, branch))
	_, err := vacuumOld(t, db, dir, "p")
	require.NoError(t, err)
	require.Equal(t, []uint64{tag, branch, versions[len(versions)-1]}, versionsOf(t, db, "p.lance"))
	for _, n := range []uint64{tag, branch} {
		v, err := manifest.Load(ctx, db.st, "p.lance", n)
		require.NoError(t, err)
		v.Needs(func(name string) {
			_, err := db.st.Stat(ctx, "p.lance/"+name)
			require.True(t, err == nil || strings.HasPrefix(name, "_indices/"), "%s: %v", name, err)
		})
	}
	write("tags/bad.json", `{`)
	_, err = db.Vacuum(ctx, table.Name())
	require.ErrorContains(t, err, "bad.json")
	require.NoError(t, db.Close())
}

// TestVacuumUnderASnapshot has a scan that began before go on to its end while everything around it is collected.
func TestVacuumUnderASnapshot(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 1)
	putKeys(t, db, table, 7, 6, 7, 8)
	require.NoError(t, db.Flush(ctx, table.Name()))
	snap, err := db.Snapshot(ctx)
	require.NoError(t, err)
	held := versionsOf(t, db, "p.lance")
	v, err := snap.Table(table.Name())
	require.NoError(t, err)
	scan, err := v.Scan(ctx, ScanOptions{Columns: []int{0}})
	require.NoError(t, err)
	upsertRounds(t, db, table, 4)
	_, err = vacuumOld(t, db, dir, "p")
	require.NoError(t, err)
	require.Contains(t, versionsOf(t, db, "p.lance"), held[len(held)-1], "the snapshot's version")
	rows := 0
	for {
		m, err := scan.Next(ctx)
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		rows += int(m.Record.NumRows())
		m.Release()
	}
	scan.Close()
	require.GreaterOrEqual(t, rows, 8)
	again, err := scanRows(ctx, v, []int{0})
	require.NoError(t, err)
	require.Len(t, again, 8)
	snap.Release()
	_, err = db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	require.Len(t, versionsOf(t, db, "p.lance"), 1)
	require.NoError(t, db.Close())
}

// TestVacuumLeavesFreshStrangers: a file that no version names may be about to be committed by another program.
func TestVacuumLeavesFreshStrangers(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", writesSchema)
	upsertRounds(t, db, table, 1)
	root := filepath.Join(dir, "p.lance")
	age(t, root, 2*time.Hour)
	strangers := []string{"data/stranger.lance", "_deletions/0-1-2.arrow", "_transactions/1-x.txn",
		"_indices/6dfd5885-7732-45b3-a744-6b9a2e65c979/page.lance", "data/notes.txt"}
	for _, name := range strangers {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte("xxxx"), 0o644))
	}
	got, err := db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	for _, name := range strangers {
		require.FileExists(t, filepath.Join(root, name), "%+v", got)
	}
	require.NoError(t, db.Close())
	sum, found := faults(t, dir)
	require.Empty(t, found)
	require.Equal(t, 4, sum.Unnamed)
	require.Equal(t, int64(16), sum.UnnamedBytes)
	db = openRetain(t, dir)
	for _, name := range strangers {
		age(t, filepath.Dir(filepath.Join(root, name)), 2*time.Hour)
	}
	_, err = db.Vacuum(ctx, table.Name())
	require.NoError(t, err)
	for _, name := range strangers[:4] {
		require.NoFileExists(t, filepath.Join(root, name))
	}
	require.FileExists(t, filepath.Join(root, "data/notes.txt"), "it is nothing that Lance makes")
	require.NoError(t, db.Close())
}

// TestVacuumThatStopsHalfWay fails each of the first removals in turn: the folder is sound, and the next one ends it.
func TestVacuumThatStopsHalfWay(t *testing.T) {
	for n := range 12 {
		dir := t.TempDir()
		db := openRetain(t, dir)
		f := withFaults(db)
		table := createTest(t, db, "p", writesSchema)
		upsertRounds(t, db, table, 4)
		calls := 0
		f.inject(func(op, _ string) error {
			if op != "delete" {
				return nil
			}
			if calls++; calls > n {
				return errFault
			}
			return nil
		}, nil)
		_, err := vacuumOld(t, db, dir, "p")
		require.ErrorIs(t, err, errFault)
		require.Equal(t, 5, countRows(t, db, "p"))
		f.inject(nil, nil)
		require.NoError(t, db.Close())
		_, faults := faults(t, dir)
		require.Empty(t, faults, "after %d removals", n)
		db = openRetain(t, dir)
		_, err = vacuumOld(t, db, dir, "p")
		require.NoError(t, err)
		require.Len(t, versionsOf(t, db, "p.lance"), 1)
		require.Len(t, filesBelow(t, filepath.Join(dir, "p.lance", "data")), 1)
		require.NoError(t, db.Close())
	}
}

// TestVacuumLeavesWhatAStatementWrites collects while a statement has written rows that it is going to commit on top of
// a version that others have followed.
func TestVacuumLeavesWhatAStatementWrites(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	db := openRetain(t, dir)
	table := createTest(t, db, "p", "key int64, writer int64, seq int64")
	putKeys(t, db, table, 1, 1, 2, 3)
	err := table.Rewrite(ctx, func(ctx context.Context, _ *Snapshot, rw *Rewrite) error {
		rec := writesBatch(table.Schema(), 0, 2, []int64{4})
		defer rec.Release()
		if err := rw.Put(ctx, rec); err != nil {
			return err
		}
		upsertRounds(t, db, table, 2)
		_, err := vacuumOld(t, db, dir, "p")
		return err
	})
	require.NoError(t, err)
	require.Equal(t, 14, countRows(t, db, "p"))
	_, err = vacuumOld(t, db, dir, "p")
	require.NoError(t, err)
	require.Len(t, versionsOf(t, db, "p.lance"), 1)
	require.NoError(t, db.Close())
	_, faults := faults(t, dir)
	require.Empty(t, faults)
}
