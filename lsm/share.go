package lsm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// sharedLock keeps a data folder from being opened while somebody reads its files. It writes nothing.
type sharedLock struct{ f *os.File }

// shareFolder locks a data folder for reading, or returns ErrInUse with the owner. Several may share it. A folder
// without a lock file, such as a copy, has nobody who could open it by accident, and is not locked.
func shareFolder(dir string) (*sharedLock, error) {
	f, err := os.Open(filepath.Join(dir, systemFolder, "LOCK"))
	if errors.Is(err, fs.ErrNotExist) {
		return &sharedLock{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		owner, _ := io.ReadAll(io.LimitReader(f, 256)) // the error tells enough without it
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data folder: %w", err)
		}
		return nil, fmt.Errorf("data folder %s is %w by %s; stop it first, or check a copy", dir, ErrInUse, strings.TrimSpace(string(owner)))
	}
	return &sharedLock{f}, nil
}

// release gives the folder free.
func (l *sharedLock) release() {
	if l.f != nil {
		_ = l.f.Close() // it was only read
	}
}
