package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

// sectorBytes is what the crash disk keeps or loses at once.
const sectorBytes = 512

// crashDisk is a folder in memory that knows what a power cut may take away: content since the last sync of its file, by
// sectors in any order, and folder entries since the last sync of the folder, from the last one back. It can be told to
// fail.
type crashDisk struct {
	mu sync.Mutex
	// now and safe are the folder's entries and those that are durable; ops are the changes between the two.
	now, safe map[string]*crashFile
	ops       []func(map[string]*crashFile)
	// fail is asked before each operation.
	fail func(op, name string) error
	// handles counts the open files.
	handles int
}

// crashFile is the content of a file. It is guarded by the disk's lock.
type crashFile struct{ now, safe []byte }

func newCrashDisk() *crashDisk {
	return &crashDisk{now: map[string]*crashFile{}, safe: map[string]*crashFile{}}
}

// crash returns the disk after a power cut, or, with a nil random, after the end of the process alone.
func (d *crashDisk) crash(random *rand.Rand) *crashDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.now)
	if random != nil {
		names = maps.Clone(d.safe)
		for _, op := range d.ops[:random.IntN(len(d.ops)+1)] {
			op(names)
		}
	}
	c := newCrashDisk()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		content := bytes.Clone(names[name].now)
		if random != nil {
			content = tear(names[name], random)
		}
		f := &crashFile{now: content, safe: bytes.Clone(content)}
		c.now[name], c.safe[name] = f, f
	}
	return c
}

// tear returns what may be left of a file: each sector old or new.
func tear(f *crashFile, random *rand.Rand) []byte {
	size := len(f.now)
	if more := len(f.now) - len(f.safe); more > 0 {
		size = len(f.safe) + random.IntN(more+1)
	}
	left := make([]byte, size)
	copy(left, f.safe)
	keep := random.IntN(4) // of 3: none, some, most or all
	for off := 0; off < size; off += sectorBytes {
		if random.IntN(3) < keep {
			copy(left[off:min(off+sectorBytes, size)], f.now[off:])
		}
	}
	return left
}

// inject sets what operations fail.
func (d *crashDisk) inject(fail func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

// try asks whether an operation fails, outside the lock so that it may block.
func (d *crashDisk) try(op, name string) error {
	d.mu.Lock()
	fail := d.fail
	d.mu.Unlock()
	if fail == nil {
		return nil
	}
	return fail(op, name)
}

// content returns a copy of a file.
func (d *crashDisk) content(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.Clone(d.now[name].now)
}

// with returns the disk with another content of one file; nil removes it. The rest is shared, so it is for reading only.
func (d *crashDisk) with(name string, content []byte) *crashDisk {
	c := newCrashDisk()
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(c.now, d.now)
	if content == nil {
		delete(c.now, name)
	} else {
		c.now[name] = &crashFile{now: content}
	}
	return c
}

func (d *crashDisk) Path(name string) string { return "log/" + name }

func (d *crashDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.now)), nil
}

func (d *crashDisk) Open(name string, _ bool) (file, error) {
	if err := d.try("open", name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.now[name]
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	d.handles++
	return &crashHandle{disk: d, name: name, f: f}, nil
}

func (d *crashDisk) Create(name string) (file, error) {
	if err := d.try("create", name); err != nil {
		return nil, err
	}
	f := &crashFile{}
	d.change(func(names map[string]*crashFile) { names[name] = f })
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handles++
	return &crashHandle{disk: d, name: name, f: f}, nil
}

func (d *crashDisk) Rename(from, to string) error {
	if err := d.try("rename", from); err != nil {
		return err
	}
	d.change(func(names map[string]*crashFile) {
		if f, ok := names[from]; ok {
			names[to] = f
			delete(names, from)
		}
	})
	return nil
}

func (d *crashDisk) Remove(name string) error {
	if err := d.try("remove", name); err != nil {
		return err
	}
	d.change(func(names map[string]*crashFile) { delete(names, name) })
	return nil
}

// change changes the folder, not durably.
func (d *crashDisk) change(op func(map[string]*crashFile)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	op(d.now)
	d.ops = append(d.ops, op)
}

func (d *crashDisk) Sync() error {
	if err := d.try("sync", "."); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.safe, d.ops = maps.Clone(d.now), nil
	return nil
}

// crashHandle is an open file of a crashDisk. It keeps the name that it was opened with.
type crashHandle struct {
	disk *crashDisk
	name string
	f    *crashFile
}

func (h *crashHandle) ReadAt(p []byte, off int64) (int, error) {
	if err := h.disk.try("read", h.name); err != nil {
		return 0, err
	}
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if off >= int64(len(h.f.now)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *crashHandle) WriteAt(p []byte, off int64) (int, error) {
	if err := h.disk.try("write", h.name); err != nil {
		return 0, err
	}
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if end := off + int64(len(p)); end > int64(len(h.f.now)) {
		h.f.now = append(h.f.now, make([]byte, end-int64(len(h.f.now)))...)
	}
	return copy(h.f.now[off:], p), nil
}

// Sync makes durable what was written before it began, as fdatasync does.
func (h *crashHandle) Sync() error {
	h.disk.mu.Lock()
	content := bytes.Clone(h.f.now)
	h.disk.mu.Unlock()
	if err := h.disk.try("sync", h.name); err != nil {
		return err
	}
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.f.safe = content
	return nil
}

func (h *crashHandle) Size() (int64, error) {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	return int64(len(h.f.now)), nil
}

func (h *crashHandle) Truncate(size int64) error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.f.now = h.f.now[:size]
	return nil
}

func (h *crashHandle) Close() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	h.disk.handles--
	return nil
}

var errInjected = errors.New("injected")
