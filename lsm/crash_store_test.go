package lsm

import (
	"context"
	"maps"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/flightd/flightd/object"
)

// crashStore is a store in a folder that knows what a power cut may take of it, and tells of each call that changes
// something. While it lets a call through, image waits, and the other way round.
type crashStore struct {
	object.Store
	// at is told of each call, before it has an effect and after; of a writer's calls, too.
	at func()
	// effects is held for reading while a call has its effect.
	effects sync.RWMutex
	mu      sync.Mutex
	// loose are the entries that no SyncDirs covered, ghosts the content of those that were removed and may come back.
	loose  map[string]bool
	ghosts map[string]ghost
	// synced is how much of a file is safe that is still being written.
	synced map[string]int
	dir    string
}

// ghost is a file that was removed: alone, or with a folder, which comes back as a whole or in part, but not into one that
// has taken its place.
type ghost struct {
	data   []byte
	folder string
	// replaced is set when another file has taken the name: one of the two is there in any case.
	replaced bool
}

func newCrashStore(st object.Store, dir string, at func()) *crashStore {
	return &crashStore{Store: st, dir: dir, at: at, loose: map[string]bool{}, ghosts: map[string]ghost{}, synced: map[string]int{}}
}

// call lets a call have its effect.
func (s *crashStore) call(do func() error) error {
	s.at()
	s.effects.RLock()
	err := do()
	s.effects.RUnlock()
	s.at()
	return err
}

// settle notes that the entries of the folder that holds name, and of those above, are safe.
func (s *crashStore) settle(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		maps.DeleteFunc(s.loose, func(n string, _ bool) bool { return path.Dir(n) == dir })
		maps.DeleteFunc(s.ghosts, func(n string, g ghost) bool { return path.Dir(n) == dir || g.folder != "" && path.Dir(g.folder) == dir })
		if dir == "." {
			return
		}
	}
}

// gone notes that a file is about to be removed.
func (s *crashStore) gone(name string, g ghost) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loose[name] {
		s.ghosts[name] = g
	}
	delete(s.loose, name)
	delete(s.synced, name)
}

// Put implements object.Store. The file has its name before that is safe.
func (s *crashStore) Put(ctx context.Context, name string, data []byte) error {
	return s.put(name, func() error {
		old, err := s.Get(ctx, name)
		there := err == nil
		if err := s.Store.Put(ctx, name, data); err != nil {
			return err
		}
		if there {
			s.gone(name, ghost{data: old, replaced: true})
		}
		return nil
	})
}

// PutIfAbsent implements object.Store.
func (s *crashStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return s.put(name, func() error { return s.Store.PutIfAbsent(ctx, name, data) })
}

// put lets a call have its effect, and another time make it safe.
func (s *crashStore) put(name string, do func() error) error {
	err := s.call(func() error {
		err := do()
		if err == nil {
			s.mu.Lock()
			s.loose[name] = true
			s.mu.Unlock()
		}
		return err
	})
	if err == nil {
		s.effects.RLock()
		s.settle(name)
		s.effects.RUnlock()
	}
	return err
}

// Delete implements object.Store.
func (s *crashStore) Delete(ctx context.Context, name string) error {
	return s.call(func() error {
		if data, err := s.Get(ctx, name); err == nil {
			s.gone(name, ghost{data: data})
		}
		return s.Store.Delete(ctx, name)
	})
}

// DeleteAll implements object.Store.
func (s *crashStore) DeleteAll(ctx context.Context, dir string) error {
	return s.call(func() error {
		s.mu.Lock()
		maps.DeleteFunc(s.ghosts, func(n string, _ ghost) bool { return strings.HasPrefix(n, dir+"/") })
		s.mu.Unlock()
		m, err := readOnce(filepath.Join(s.dir, filepath.FromSlash(dir)))
		if err == nil {
			for name, data := range m.files {
				s.gone(path.Join(dir, name), ghost{data: data, folder: dir})
			}
		}
		return s.Store.DeleteAll(ctx, dir)
	})
}

// SyncDirs implements object.Store.
func (s *crashStore) SyncDirs(ctx context.Context, name string) error {
	return s.call(func() error {
		err := s.Store.SyncDirs(ctx, name)
		if err == nil {
			s.settle(name)
		}
		return err
	})
}

// Sync is that of object.Local.
func (s *crashStore) Sync(ctx context.Context, name string) error {
	return s.call(func() error { return s.Store.(*object.Local).Sync(ctx, name) })
}

// Create implements object.Store.
func (s *crashStore) Create(ctx context.Context, name string) (w object.Writer, err error) {
	err = s.call(func() error {
		w, err = s.Store.Create(ctx, name)
		if err == nil {
			s.mu.Lock()
			s.loose[name], s.synced[name] = true, 0
			s.mu.Unlock()
		}
		return err
	})
	return &crashWriter{Writer: w, s: s, name: name}, err
}

// crashWriter is a writer of a crashStore.
type crashWriter struct {
	object.Writer
	s    *crashStore
	name string
}

// Write implements io.Writer.
func (w *crashWriter) Write(p []byte) (n int, err error) {
	err = w.s.call(func() error {
		n, err = w.Writer.Write(p)
		return err
	})
	return n, err
}

// Close implements object.Writer.
func (w *crashWriter) Close() error {
	return w.s.call(func() error {
		err := w.Writer.Close()
		if err == nil {
			w.s.mu.Lock()
			delete(w.s.synced, w.name)
			w.s.mu.Unlock()
		}
		return err
	})
}

// Abort implements object.Writer.
func (w *crashWriter) Abort() {
	w.s.mu.Lock()
	delete(w.s.synced, w.name)
	w.s.mu.Unlock()
	w.Writer.Abort()
}

// image returns the folder as a power cut at this moment could leave it, but for the log, of which it returns all. Random
// chooses what is lost of that which nothing has made safe; without it nothing is.
func (s *crashStore) image(random *rand.Rand) (moment, error) {
	s.effects.Lock()
	defer s.effects.Unlock()
	m, err := readMoment(s.dir)
	if err != nil || random == nil {
		return m, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		if s.loose[name] && random.IntN(2) == 0 {
			delete(m.files, name)
			if g := s.ghosts[name]; g.replaced {
				m.files[name] = g.data
			}
			continue
		}
		if safe, ok := s.synced[name]; ok {
			data := m.files[name]
			m.files[name] = data[:safe+random.IntN(len(data)-safe+1)]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.ghosts)) {
		g := s.ghosts[name]
		if _, there := m.files[name]; !there && !g.replaced && random.IntN(2) == 0 && !slices.Contains(m.folders, g.folder) {
			m.files[name] = g.data
		}
	}
	return m, nil
}
