package lsm

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchDiskChunk is how much the disk benchmark writes at once.
const benchDiskChunk = 1 << 20

// benchDisk returns how long the disk below dir takes to write some bytes into a new file, one chunk after the other, and
// to sync them: what no program that writes them can beat.
func benchDisk(b *testing.B, dir string, bytes int64) time.Duration {
	b.Helper()
	chunk := make([]byte, benchDiskChunk)
	for i := range chunk {
		chunk[i] = byte(i * 7)
	}
	name := filepath.Join(dir, "limit")
	start := time.Now()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	for left := bytes; left > 0; left -= benchDiskChunk {
		if _, err := f.Write(chunk[:min(left, benchDiskChunk)]); err != nil {
			b.Fatal(err)
		}
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		b.Fatal(err)
	}
	return took
}

// benchDiskUsed returns the bytes of the files below dir, the engine's own folder left out.
func benchDiskUsed(b *testing.B, dir string) (bytes int64) {
	b.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if e.Name() == systemFolder {
				return fs.SkipDir
			}
			return nil
		}
		info, err := e.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes
}

// benchLogBytes returns what the batches take in the log, record headers included.
func benchLogBytes(batches []Batch) (bytes int64) {
	for _, x := range batches {
		bytes += int64(len(x.Meta)+len(x.Body)) + batchPrefixBytes + 40
	}
	return bytes
}
