package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// disk is what the log needs of a folder. Names are file names. Tests stand in with disks that lose what was not synced
// or that fail.
type disk interface {
	// Path returns how errors and people call a file.
	Path(name string) string
	// List returns the names of all files, sorted.
	List() ([]string, error)
	// Open opens a file to read it, and with write, to overwrite it.
	Open(name string, write bool) (file, error)
	// Create makes an empty file, in place of one that has the name.
	Create(name string) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes the folder's entries durable.
	Sync() error
}

// file is one open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length.
	Truncate(size int64) error
	// Sync makes the content durable, and as much of the metadata as it takes to read it.
	Sync() error
}

// folder is the disk of a real log.
type folder string

// openFolder creates the folder if need be and makes its own entry durable.
func openFolder(dir string) (folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create log folder: %w", err)
	}
	if err := folder(filepath.Dir(filepath.Clean(dir))).Sync(); err != nil {
		return "", err
	}
	return folder(dir), nil
}

// Path implements disk.
func (d folder) Path(name string) string { return filepath.Join(string(d), name) }

// List implements disk. A folder that does not exist has no files.
func (d folder) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list log folder: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Open implements disk.
func (d folder) Open(name string, write bool) (file, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	return openFile(d.Path(name), flag)
}

// Create implements disk.
func (d folder) Create(name string) (file, error) {
	return openFile(d.Path(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Rename implements disk.
func (d folder) Rename(from, to string) error { return os.Rename(d.Path(from), d.Path(to)) }

// Remove implements disk.
func (d folder) Remove(name string) error { return os.Remove(d.Path(name)) }

// Sync implements disk.
func (d folder) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return fmt.Errorf("sync log folder: %w", err)
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync log folder: %w", err), f.Close())
	}
	return f.Close()
}

// osFile is a file of a folder.
type osFile struct{ *os.File }

func openFile(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o644)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Size implements file.
func (f osFile) Size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}
