package lsm

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain has the folders of tests in memory where the system has room for that: what is durable when, tests know from the
// calls that are made and not from the disk, for which they would wait most of their time. Those of diskDir lie on a disk, and
// so do those of benchmarks.
func TestMain(m *testing.M) {
	flag.Parse()
	remove := func() {}
	if flag.Lookup("test.bench").Value.String() == "" && os.Getenv(killFolder) == "" {
		remove = tempInMemory()
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		remove()
		os.Exit(code)
	}))
}

const (
	// memoryDisk is a file system in memory, memoryFree what it must have free.
	memoryDisk = "/dev/shm"
	memoryFree = 4 << 30
	// memoryFolder is what the folders in it are called.
	memoryFolder = "flightd-memory-"
)

// diskTemp is where temporary files are made that are to lie on a disk.
var diskTemp = os.TempDir()

// tempInMemory has temporary files made in memory from now on, if there is room, and returns what removes them all.
func tempInMemory() (remove func()) {
	none := func() {}
	if free, _, err := statDisk(memoryDisk); err != nil || free < memoryFree {
		return none
	}
	sweepMemory()
	dir, err := os.MkdirTemp(memoryDisk, memoryFolder)
	if err != nil {
		return none
	}
	held, err := holdFolder(dir)
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return none
	}
	return func() {
		_ = os.RemoveAll(dir)
		_ = held.Close()
	}
}

// sweepMemory removes what test processes have left that were killed: it would take memory until the system restarts.
func sweepMemory() {
	left, _ := filepath.Glob(filepath.Join(memoryDisk, memoryFolder+"*"))
	for _, dir := range left {
		if held, err := holdFolder(dir); err == nil { // else its process lives
			_ = os.RemoveAll(dir)
			_ = held.Close()
		}
	}
}

// holdFolder locks a folder for as long as the file that it returns is open.
func holdFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// fewer returns n, or one part of it with -short, which is how the race detector runs: there things take ten times as long.
func fewer[T ~int64 | ~uint64](n, parts T) T {
	if testing.Short() {
		return n / parts
	}
	return n
}

// diskDir is t.TempDir for a folder on a disk.
func diskDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(diskTemp, "flightd-disk-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}
