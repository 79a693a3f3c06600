package object

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mem is a Store in memory, for tests. It knows what a power cut would leave of it: see CrashClone.
// Its Readers are not Mappers, so it also exercises the path that buckets will take.
type Mem struct {
	mu sync.Mutex
	// files is what the store shows, by name.
	files map[string]*memFile
	// durable is what the folders on the disk would lead to.
	durable map[string]*memFile
	// folders counts the objects below each folder.
	folders map[string]int
}

// memFile is one object. Bytes are only ever appended, so that a Reader can hold a prefix without a lock.
type memFile struct {
	data   []byte
	synced int // bytes that survive a crash
	mod    time.Time
}

// NewMem returns an empty store.
func NewMem() *Mem {
	return &Mem{files: map[string]*memFile{}, durable: map[string]*memFile{}, folders: map[string]int{}}
}

var _ Store = (*Mem)(nil)

// Open implements Store.
func (m *Mem) Open(ctx context.Context, name string) (Reader, error) {
	b, err := m.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return memReader{bytes.NewReader(b)}, nil
}

// Get implements Store. The caller must not write to the bytes.
func (m *Mem) Get(ctx context.Context, name string) ([]byte, error) {
	if err := checkCall(ctx, name); err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[name]
	if !ok {
		return nil, fmt.Errorf("get %s: %w", name, ErrNotExist)
	}
	return f.data[:len(f.data):len(f.data)], nil
}

// Stat implements Store. A folder exists while something is in it.
func (m *Mem) Stat(ctx context.Context, name string) (Info, error) {
	if err := checkCall(ctx, name); err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.files[name]; ok {
		return Info{Name: path.Base(name), Size: int64(len(f.data)), ModTime: f.mod}, nil
	}
	if m.folders[name] > 0 || name == "." && len(m.files) > 0 {
		return Info{Name: path.Base(name), Dir: true}, nil
	}
	return Info{}, fmt.Errorf("stat %s: %w", name, ErrNotExist)
}

// PutIfAbsent implements Store.
func (m *Mem) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if err := checkCall(ctx, name); err != nil {
		return fmt.Errorf("put %s if absent: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; ok {
		return fmt.Errorf("put %s if absent: %w", name, ErrExists)
	}
	m.putLocked(name, data)
	return nil
}

// Put implements Store.
func (m *Mem) Put(ctx context.Context, name string, data []byte) error {
	if err := checkCall(ctx, name); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.putLocked(name, data)
	return nil
}

func (m *Mem) putLocked(name string, data []byte) {
	f := &memFile{data: bytes.Clone(data), synced: len(data), mod: time.Now()}
	m.setLocked(name, f)
	m.durable[name] = f
}

// Create implements Store.
func (m *Mem) Create(ctx context.Context, name string) (Writer, error) {
	if err := checkCall(ctx, name); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; ok {
		return nil, fmt.Errorf("create %s: %w", name, ErrExists)
	}
	f := &memFile{mod: time.Now()}
	m.setLocked(name, f)
	return &memWriter{m: m, name: name, f: f}, nil
}

// List implements Store.
func (m *Mem) List(ctx context.Context, dir string) ([]Info, error) {
	if err := checkCall(ctx, dir); err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	children := map[string]Info{}
	for name, f := range m.files {
		if !below(name, dir) {
			continue
		}
		rest := name
		if dir != "." {
			rest = name[len(dir)+1:]
		}
		child, _, deeper := strings.Cut(rest, "/")
		if deeper {
			children[child] = Info{Name: child, Dir: true}
		} else {
			children[child] = Info{Name: child, Size: int64(len(f.data)), ModTime: f.mod}
		}
	}
	return slices.SortedFunc(maps.Values(children), func(a, b Info) int { return strings.Compare(a.Name, b.Name) }), nil
}

// Delete implements Store.
func (m *Mem) Delete(ctx context.Context, name string) error {
	if err := checkCall(ctx, name); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; !ok {
		return fmt.Errorf("delete %s: %w", name, ErrNotExist)
	}
	m.dropLocked(name)
	return nil
}

// setLocked shows an object under a name.
func (m *Mem) setLocked(name string, f *memFile) {
	if m.files[name] == nil {
		m.countLocked(name, 1)
	}
	m.files[name] = f
}

// dropLocked shows an object no longer.
func (m *Mem) dropLocked(name string) {
	if m.files[name] != nil {
		m.countLocked(name, -1)
		delete(m.files, name)
	}
}

// countLocked counts an object in all folders above it.
func (m *Mem) countLocked(name string, n int) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if m.folders[dir] += n; m.folders[dir] == 0 {
			delete(m.folders, dir)
		}
	}
}

// DeleteAll implements Store.
func (m *Mem) DeleteAll(ctx context.Context, dir string) error {
	if err := checkCall(ctx, dir); err != nil {
		return fmt.Errorf("delete all of %s: %w", dir, err)
	}
	if dir == "." {
		return fmt.Errorf("delete all of %s: this is the root of the store; name a folder in it", dir)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.files {
		if name == dir || below(name, dir) {
			m.dropLocked(name)
		}
	}
	return nil
}

// SyncDirs implements Store.
func (m *Mem) SyncDirs(ctx context.Context, name string) error {
	if err := checkCall(ctx, name); err != nil {
		return fmt.Errorf("sync folders of %s: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncDirsLocked(name)
	return nil
}

// syncDirsLocked makes durable what the folders from name's up to the root show: their new entries and the lack of
// those that were deleted.
func (m *Mem) syncDirsLocked(name string) {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		inDir := func(other string, _ *memFile) bool { return path.Dir(other) == dir }
		maps.DeleteFunc(m.durable, inDir)
		for other, f := range m.files {
			if inDir(other, f) {
				m.durable[other] = f
			}
		}
		if dir == "." {
			return
		}
	}
}

// below reports whether name lies somewhere under dir.
func below(name, dir string) bool {
	return dir == "." || strings.HasPrefix(name, dir) && len(name) > len(dir) && name[len(dir)] == '/'
}

func checkCall(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return checkName(name)
}

// memReader reads the object as it was when it was opened.
type memReader struct{ *bytes.Reader }

// Close implements Reader.
func (memReader) Close() error { return nil }

// memWriter appends to an object that nobody else has.
type memWriter struct {
	m    *Mem
	name string
	f    *memFile
	done bool
}

// Write implements io.Writer.
func (w *memWriter) Write(p []byte) (int, error) {
	if w.done {
		return 0, fmt.Errorf("write %s: %w", w.name, ErrClosed)
	}
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.f.data = append(w.f.data, p...)
	w.f.mod = time.Now()
	return len(p), nil
}

// Close implements Writer.
func (w *memWriter) Close() error {
	if w.done {
		return fmt.Errorf("close %s: %w", w.name, ErrClosed)
	}
	w.done = true
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	w.f.synced = len(w.f.data)
	return nil
}

// Abort implements Writer.
func (w *memWriter) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.m.files[w.name] == w.f {
		w.m.dropLocked(w.name)
	}
}
