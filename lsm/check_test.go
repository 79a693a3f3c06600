package lsm

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/internal/rows"
)

// checkFolder makes a data folder that has a file of every kind, closes it and returns it.
func checkFolder(t *testing.T) string {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	db := openTest(t, dir)
	put := func(table *Table, deletes bool, text string) {
		rec, err := rows.Parse(table.now().withTombstones(deletes), text)
		require.NoError(t, err)
		defer rec.Release()
		lsn, err := table.Put(ctx, Batch{Record: rec})
		require.NoError(t, err)
		require.NoError(t, db.Wait(ctx, lsn))
	}
	keyed := createTest(t, db, "keyed", "id int64 key, x double, word utf8")
	put(keyed, false, "1 0.5 a\n2 1.5 b\n3 2.5 c\n4 3.5 d")
	require.NoError(t, db.Optimize(ctx, keyed.Name()))
	put(keyed, true, "2 9.5 again false\n3 null null true")
	require.NoError(t, db.Optimize(ctx, keyed.Name())) // the base gets a deletion file
	put(keyed, false, "7 1.5 old")
	put(keyed, false, "7 2.5 new\n8 3.5 h")
	require.NoError(t, db.Flush(ctx, keyed.Name())) // and so does the generation
	put(keyed, false, "9 4.5 log")
	plain := createTest(t, db, "plain", "n int64")
	put(plain, false, "1\n2")
	require.NoError(t, db.Flush(ctx, plain.Name()))
	require.NoError(t, db.Close())
	return dir
}

// faults runs Check and returns what it reports.
func faults(t *testing.T, dir string) (Checked, []Fault) {
	t.Helper()
	var list []Fault
	sum, err := Check(context.Background(), dir, func(f Fault) { list = append(list, f) })
	require.NoError(t, err)
	require.Len(t, list, sum.Faults)
	return sum, list
}

// snapshotFolder returns the content of every file below a folder and when it was changed.
func snapshotFolder(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			files[path] = "folder"
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		files[path] = info.ModTime().String() + string(b)
		return err
	}))
	return files
}

func TestCheckOfAHealthyFolderCountsAndChangesNothing(t *testing.T) {
	dir := checkFolder(t)
	before := snapshotFolder(t, dir)
	sum, list := faults(t, dir)
	require.Empty(t, list)
	require.Equal(t, before, snapshotFolder(t, dir))
	require.Equal(t, 2, sum.Tables)
	require.Equal(t, 2, sum.Generations)
	require.Equal(t, 4, sum.Fragments, "two in the base of one table, one in each generation")
	require.Equal(t, 2, sum.DeletionFiles)
	require.Equal(t, 1, sum.KeyFilters)
	require.Equal(t, 3, sum.Indexes, "two segments in the base, one in the generation")
	require.EqualValues(t, 4+1+3+2, sum.Rows)
	require.Zero(t, sum.Unsummed)
	require.Positive(t, sum.LogRecords)
}

// TestCheckFindsAFlippedByte turns over one byte of each kind of file in a copy of the folder: the fault names that file.
func TestCheckFindsAFlippedByte(t *testing.T) {
	dir := checkFolder(t)
	for kind, c := range map[string]struct {
		pattern string
		// at is the offset of the byte; negative ones count from the end.
		at int64
	}{
		"format":                        {"_flightd/format", 3},
		"catalog":                       {"_flightd/catalog.json", 40},
		"header of a log segment":       {"_flightd/wal/*.wal", 9},
		"first group of the log":        {"_flightd/wal/*.wal", 4096 + 70},
		"manifest of a table":           {"keyed.lance/_versions/*.manifest", 100},
		"head of a table's manifest":    {"keyed.lance/_versions/*.manifest", 9},
		"data page of the base":         {"keyed.lance/data/*.lance", 0},
		"footer of a data file":         {"keyed.lance/data/*.lance", -30},
		"deletion file":                 {"keyed.lance/_deletions/*.bin", -2},
		"values of the base's index":    {"keyed.lance/_indices/*/page_data.lance", 0},
		"pages of the base's index":     {"keyed.lance/_indices/*/page_lookup.lance", 0},
		"manifest of a shard":           {"keyed.lance/_mem_wal/*/manifest/*.binpb", 20},
		"manifest of a generation":      {"keyed.lance/_mem_wal/*/*_gen_*/_versions/*.manifest", 100},
		"data page of a generation":     {"keyed.lance/_mem_wal/*/*_gen_*/data/*.lance", 0},
		"deletion file of a generation": {"keyed.lance/_mem_wal/*/*_gen_*/_deletions/*.bin", -2},
		"key index of a generation":     {"keyed.lance/_mem_wal/*/*_gen_*/_pk_index/page_data.lance", 0},
		"pages of that index":           {"keyed.lance/_mem_wal/*/*_gen_*/_pk_index/page_lookup.lance", 0},
		"key filter of a generation":    {"keyed.lance/_mem_wal/*/*_gen_*/key_filter.bin", 70},
		"head of that filter":           {"keyed.lance/_mem_wal/*/*_gen_*/key_filter.bin", 9},
		"table without a key":           {"plain.lance/_mem_wal/*/*_gen_*/data/*.lance", 0},
	} {
		t.Run(kind, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(victim, os.DirFS(dir)))
			file := newestMatch(t, victim, c.pattern)
			flip(t, filepath.Join(victim, file), c.at)
			_, list := faults(t, victim)
			require.NotEmpty(t, list)
			var named []string
			for _, f := range list {
				named = append(named, f.File)
			}
			require.Contains(t, named, file, "%v", list)
		})
	}
}

// TestCheckFindsACutFile cuts off the second half of each kind of file in a copy of the folder: the fault names that file.
func TestCheckFindsACutFile(t *testing.T) {
	dir := checkFolder(t)
	for _, pattern := range []string{
		"_flightd/format",
		"_flightd/catalog.json",
		"keyed.lance/_versions/*.manifest",
		"keyed.lance/data/*.lance",
		"keyed.lance/_deletions/*.bin",
		"keyed.lance/_indices/*/page_data.lance",
		"keyed.lance/_indices/*/page_lookup.lance",
		"keyed.lance/_mem_wal/*/manifest/*.binpb",
		"keyed.lance/_mem_wal/*/*_gen_*/_versions/*.manifest",
		"keyed.lance/_mem_wal/*/*_gen_*/data/*.lance",
		"keyed.lance/_mem_wal/*/*_gen_*/_deletions/*.bin",
		"keyed.lance/_mem_wal/*/*_gen_*/_pk_index/page_data.lance",
		"keyed.lance/_mem_wal/*/*_gen_*/_pk_index/page_lookup.lance",
		"keyed.lance/_mem_wal/*/*_gen_*/key_filter.bin",
	} {
		t.Run(pattern, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(victim, os.DirFS(dir)))
			file := newestMatch(t, victim, pattern)
			full := filepath.Join(victim, file)
			require.NoError(t, os.Truncate(full, fileBytes(full)/2))
			_, list := faults(t, victim)
			require.True(t, slices.ContainsFunc(list, func(f Fault) bool { return f.File == file }), "%v", list)
		})
	}
}

// newestMatch returns one of the files that match a pattern: of versions the newest, as older ones are not read.
func newestMatch(t *testing.T, dir, pattern string) string {
	t.Helper()
	list, err := fs.Glob(os.DirFS(dir), pattern)
	require.NoError(t, err)
	require.NotEmpty(t, list, pattern)
	if !strings.HasSuffix(pattern, ".binpb") {
		return list[0] // a table's versions are listed newest first
	}
	newest, last := "", ""
	for _, name := range list { // a shard's have their bits reversed
		digits := []byte(strings.TrimSuffix(filepath.Base(name), ".binpb"))
		for i, j := 0, len(digits)-1; i < j; i, j = i+1, j-1 {
			digits[i], digits[j] = digits[j], digits[i]
		}
		if string(digits) > last {
			newest, last = name, string(digits)
		}
	}
	return newest
}

// flip turns over the bits of one byte.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	if at < 0 {
		at += int64(len(b))
	}
	b[at] ^= 0xff
	require.NoError(t, os.WriteFile(name, b, 0o644))
}

func TestCheckReportsEachFaultOfAFile(t *testing.T) {
	dir := checkFolder(t)
	file := newestMatch(t, dir, "keyed.lance/data/*.lance")
	index := newestMatch(t, dir, "keyed.lance/_indices/*/page_data.lance")
	for _, at := range []int64{0, 64, 128} { // a page of each of three buffers
		flip(t, filepath.Join(dir, file), at)
	}
	flip(t, filepath.Join(dir, index), 0)
	flip(t, filepath.Join(dir, index), 64)
	_, list := faults(t, dir)
	offsets := map[string][]int64{}
	for _, f := range list {
		offsets[f.File] = append(offsets[f.File], f.Offset)
	}
	require.Equal(t, map[string][]int64{file: {0, 64, 128}, index: {0, 64}}, offsets)
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	dir := checkFolder(t)
	for kind, pattern := range map[string]string{
		"data file":     "keyed.lance/data/*.lance",
		"deletion file": "keyed.lance/_deletions/*.bin",
		"index":         "keyed.lance/_indices/*",
		"generation":    "keyed.lance/_mem_wal/*/*_gen_*",
		"shard":         "keyed.lance/_mem_wal/*",
		"table":         "keyed.lance",
		"log":           "_flightd/wal",
	} {
		t.Run(kind, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "copy")
			require.NoError(t, os.CopyFS(victim, os.DirFS(dir)))
			file := newestMatch(t, victim, pattern)
			require.NoError(t, os.RemoveAll(filepath.Join(victim, file)))
			_, list := faults(t, victim)
			require.NotEmpty(t, list)
			require.True(t, strings.HasPrefix(list[0].File, file), "%v", list)
		})
	}
}

func TestCheckIsRefusedWhereItCannotTell(t *testing.T) {
	dir := t.TempDir()
	_, err := Check(context.Background(), dir, nil)
	require.ErrorContains(t, err, "is no data folder of flightd")

	db := openTest(t, dir)
	_, err = Check(context.Background(), dir, nil)
	require.ErrorIs(t, err, ErrInUse)
	require.ErrorContains(t, err, "flightd, process")
	require.NoError(t, db.Close())

	lock, err := os.Open(filepath.Join(dir, systemFolder, "LOCK"))
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_SH))
	faults(t, dir) // two checks do not exclude each other
}

// TestCheckKnowsTablesOnTheirWay checks a folder whose process ended between the record that replaces a table and the
// move of the new one to its place, when it was not the last table that was begun.
func TestCheckKnowsTablesOnTheirWay(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir)
	createTest(t, db, "a", writesSchema)
	stage := stageTest(t, db, "a", writesSchema)
	createTest(t, db, "b", writesSchema)
	rec := writesBatch(stage.Table().Schema(), 0, 1, []int64{1, 2, 3})
	defer rec.Release()
	require.NoError(t, stage.Put(context.Background(), Batch{Record: rec}))
	_, err := stage.Commit(context.Background())
	require.NoError(t, err)
	require.NoError(t, db.Close())
	at := filepath.Join(dir, filepath.FromSlash(stageRoot(stage.Table().Incarnation())))
	require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o755))
	require.NoError(t, os.Rename(filepath.Join(dir, "a.lance"), at))

	sum, err := Check(context.Background(), dir, func(f Fault) { t.Error(f) })
	require.NoError(t, err)
	require.Equal(t, 1, sum.Unfinished)
	require.Equal(t, 1, sum.Generations)
	db = openTest(t, dir)
	require.Equal(t, 3, countRows(t, db, "a"))
	require.NoError(t, db.Close())
}
