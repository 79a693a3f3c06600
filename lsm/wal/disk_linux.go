package wal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Sync implements file. fdatasync leaves out the time of the last change, which would cost a journal commit.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == unix.EINTR {
			continue // interrupted before it ended, so nothing was reported yet
		}
		if err != nil {
			return os.NewSyscallError("fdatasync", err)
		}
		return nil
	}
}
