package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/flightd/flightd/object"
)

// systemFolder holds flightd's own files, below the data folder.
const systemFolder = "_flightd"

// formatMarker is the content of _flightd/format: the layout of the data folder, raised when it changes.
const formatMarker = "flightd data folder, format 1\n"

// folderLock keeps a second process off a data folder. The system drops it when the process ends, however it ends.
type folderLock struct{ f *os.File }

// lockFolder makes and locks DATA/_flightd. When it is taken the error names the owner.
func lockFolder(dir string) (*folderLock, error) {
	path := filepath.Join(dir, systemFolder, "LOCK")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner, _ := io.ReadAll(io.LimitReader(f, 256)) // the error tells enough without it
		f.Close()
		return nil, fmt.Errorf("data folder %s is %w by %s; stop it or choose another folder with --data (%w)", dir, ErrInUse, strings.TrimSpace(string(owner)), err)
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(processName()+"\n"), 0)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock data folder: %w", err)
		}
	}
	return &folderLock{f}, nil
}

// unlock gives the folder free. To close the file would do so only once a process that is being forked has, too.
func (l *folderLock) unlock() error {
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}

// formatFile holds the format marker.
const formatFile = systemFolder + "/format"

// checkFormat writes the format marker into a new data folder and refuses one of another format.
func checkFormat(ctx context.Context, st object.Store, marker string) error {
	b, err := st.Get(ctx, formatFile)
	if errors.Is(err, object.ErrNotExist) {
		b = []byte(marker)
		err = st.PutIfAbsent(ctx, formatFile, b)
	}
	if err != nil {
		return fmt.Errorf("check format of data folder: %w", err)
	}
	if string(b) != marker {
		return fmt.Errorf("%s says %.60q, this flightd reads %q; use the flightd that wrote the folder", formatFile, b, marker)
	}
	return nil
}
