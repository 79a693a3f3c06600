package object

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// localReader reads one file. Its mapping, if it was asked for, goes with it.
type localReader struct {
	f    *os.File
	size int64

	mu     sync.Mutex
	mapped []byte
	closed bool
}

var _ Mapper = (*localReader)(nil)

func openLocal(full string) (*localReader, error) {
	f, err := os.Open(full)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = errors.New("it is a folder, not an object")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &localReader{f: f, size: fi.Size()}, nil
}

// ReadAt implements io.ReaderAt.
func (r *localReader) ReadAt(p []byte, off int64) (int, error) { return r.f.ReadAt(p, off) }

// Size implements Reader.
func (r *localReader) Size() int64 { return r.size }

// Map implements Mapper. Pages are read when they are touched; the kernel's readahead serves scans well as it is.
func (r *localReader) Map() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, fmt.Errorf("map %s: %w", r.f.Name(), ErrClosed)
	case r.mapped != nil || r.size == 0:
		return r.mapped, nil
	case int64(int(r.size)) != r.size:
		return nil, fmt.Errorf("map %s: %d bytes do not fit the address space", r.f.Name(), r.size)
	}
	b, err := unix.Mmap(int(r.f.Fd()), 0, int(r.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", r.f.Name(), err)
	}
	r.mapped = b
	return b, nil
}

// Close unmaps and closes the file. A second Close does nothing.
func (r *localReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	var err error
	if r.mapped != nil {
		err = unix.Munmap(r.mapped)
		r.mapped = nil
	}
	return errors.Join(err, r.f.Close())
}

// writebackBytes is how much is written to a file before the disk begins with it. Left to itself the kernel begins seconds
// later, so that the sync of a large file would wait for all of it.
const writebackBytes = 4 << 20

// localWriter appends to a file that nobody else has.
type localWriter struct {
	f    *os.File
	done bool // The file is closed and synced, or gone.
	// scratch files are not synced.
	scratch bool
	// size is what was written, and begun of it what the disk was told to begin with.
	size, begun int64
}

// createLocal makes a new file; the name must be free.
func createLocal(full string) (*localWriter, error) {
	f, err := os.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	return &localWriter{f: f}, nil
}

// Write implements io.Writer.
func (w *localWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.size += int64(n)
	if w.size-w.begun >= writebackBytes && !w.scratch {
		startWriteback(w.f, w.begun, w.size-w.begun)
		w.begun = w.size
	}
	return n, err
}

// Close implements Writer. When it fails the file is removed, since nobody can say what of it is on the disk.
func (w *localWriter) Close() error {
	if w.done {
		return fmt.Errorf("close %s: %w", w.f.Name(), ErrClosed)
	}
	if !w.scratch {
		if err := w.f.Sync(); err != nil {
			w.Abort()
			return err
		}
	}
	w.done = true
	return w.f.Close()
}

// Abort implements Writer.
func (w *localWriter) Abort() {
	if w.done {
		return
	}
	w.done = true
	// Both are attempts: what they leave behind is an unreferenced file, which the collector of such files removes.
	_ = w.f.Close()
	_ = os.Remove(w.f.Name())
}

// syncDir makes the entries of a folder durable.
func syncDir(full string) error {
	d, err := os.Open(full)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
