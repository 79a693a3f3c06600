package offheap

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MapFile returns size bytes, all zero, which are the pages of a new file in a folder. The file has lost its name before this returns, so
// nothing of it is left when the process ends, in whatever way. The system may write such pages to the disk and take
// them back when memory is short, so they do not count as memory that the process holds (RssAnon), and they are for what would
// otherwise be a large buffer for a while. The disk has room for all of them from the beginning: no access fails for lack of it.
//
// Each byte slice is to be given to UnmapFile, once.
func MapFile(dir string, size int) ([]byte, error) {
	f, err := os.CreateTemp(dir, "mapped-*")
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of a temporary file: %w", size, err)
	}
	b, err := mapReserved(f, size)
	// The mapping keeps the file.
	if err = errors.Join(err, os.Remove(f.Name()), f.Close()); err != nil {
		if b != nil {
			UnmapFile(b)
		}
		return nil, fmt.Errorf("map %d bytes of %s: %w", size, f.Name(), err)
	}
	return b, nil
}

func mapReserved(f *os.File, size int) ([]byte, error) {
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(size)); err != nil {
		return nil, fmt.Errorf("reserve its room: %w", err)
	}
	return unix.Mmap(int(f.Fd()), 0, size, prot, unix.MAP_SHARED)
}

// UnmapFile gives back what MapFile returned.
func UnmapFile(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("offheap: unmap %d bytes of a file: %v", len(b), err))
	}
}
