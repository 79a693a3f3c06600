package lsm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// moment is a folder as it was at one moment: the bytes of its files, and its folders, by paths with slashes.
type moment struct {
	files   map[string][]byte
	folders []string
}

// readMoment reads a folder that others may be changing. What it reads twice without a difference was there, as a whole,
// between the first time and the second.
func readMoment(dir string) (moment, error) {
	last, err := readOnce(dir)
	for range 1000 {
		now, nowErr := readOnce(dir)
		if err == nil && nowErr == nil && maps.EqualFunc(last.files, now.files, bytes.Equal) && slices.Equal(last.folders, now.folders) {
			return now, nil
		}
		last, err = now, nowErr
	}
	return moment{}, errors.Join(fmt.Errorf("%s changes all the time", dir), err)
}

// readOnce reads a folder as it goes. What vanishes meanwhile is an error.
func readOnce(dir string) (moment, error) {
	m := moment{files: map[string][]byte{}}
	err := filepath.WalkDir(dir, func(full string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, full)
		if err != nil {
			return err
		}
		if e.IsDir() {
			m.folders = append(m.folders, filepath.ToSlash(name))
			return nil
		}
		m.files[filepath.ToSlash(name)], err = os.ReadFile(full)
		return err
	})
	return m, err
}

// write makes the folder anew somewhere.
func (m moment) write(dir string) error {
	for _, name := range m.folders {
		if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(name)), 0o755); err != nil {
			return err
		}
	}
	for name, data := range m.files {
		full := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(full, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// crashCopy returns a copy of a data folder, as a process killed now would leave it.
func crashCopy(t *testing.T, dir string) string {
	t.Helper()
	m, err := readMoment(dir)
	require.NoError(t, err)
	next := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, m.write(next))
	return next
}
