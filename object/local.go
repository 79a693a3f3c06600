package object

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are not objects yet.
const tempPrefix = ".flightd-tmp-"

// Local is a Store in a folder of a local file system.
type Local struct {
	root string
	// scratch leaves out what makes the bytes of a Writer durable.
	scratch bool
}

// NewLocal returns the store below root. The folder is made when the first object is.
func NewLocal(root string) *Local { return &Local{root: filepath.Clean(root)} }

// NewScratch returns a store below root for files that nobody misses after a crash: Writer.Close does not sync them, and the
// disk is not told to begin with them, so that what is deleted soon may never get there.
func NewScratch(root string) *Local { return &Local{root: filepath.Clean(root), scratch: true} }

var _ Store = (*Local)(nil)

// Open implements Store. The Reader is also a Mapper.
func (l *Local) Open(ctx context.Context, name string) (Reader, error) {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	r, err := openLocal(full)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, translate(err))
	}
	return r, nil
}

// Get implements Store.
func (l *Local) Get(ctx context.Context, name string) ([]byte, error) {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	b, err := os.ReadFile(full)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, translate(err))
	}
	return b, nil
}

// Stat implements Store.
func (l *Local) Stat(ctx context.Context, name string) (Info, error) {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", name, err)
	}
	fi, err := os.Stat(full)
	if err != nil {
		return Info{}, fmt.Errorf("stat %s: %w", name, translate(err))
	}
	return infoOf(fi), nil
}

// PutIfAbsent implements Store: temporary file, fsync, hard link, fsync of the folders.
func (l *Local) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if err := l.put(ctx, name, data, os.Link); err != nil {
		return fmt.Errorf("put %s if absent: %w", name, err)
	}
	return nil
}

// Put implements Store: temporary file, fsync, rename, fsync of the folders.
func (l *Local) Put(ctx context.Context, name string, data []byte) error {
	if err := l.put(ctx, name, data, os.Rename); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// put writes data to a temporary file beside name and gives it its name with publish.
func (l *Local) put(ctx context.Context, name string, data []byte, publish func(from, to string) error) error {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	temp := filepath.Join(filepath.Dir(full), tempPrefix+rand.Text())
	if err := writeSynced(temp, data); err != nil {
		return err
	}
	err = publish(temp, full)
	// After a rename the temporary name is gone already. What cannot be removed now, Sweep removes later.
	_ = os.Remove(temp)
	if err != nil {
		return translate(err)
	}
	return l.syncDirs(name)
}

// writeSynced makes a new file of data and syncs it.
func writeSynced(full string, data []byte) error {
	w, err := createLocal(full)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		w.Abort()
		return err
	}
	return w.Close()
}

// Create implements Store.
func (l *Local) Create(ctx context.Context, name string) (Writer, error) {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	w, err := createLocal(full)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, translate(err))
	}
	w.scratch = l.scratch
	return w, nil
}

// List implements Store.
func (l *Local) List(ctx context.Context, dir string) ([]Info, error) {
	full, err := l.resolve(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	entries, err := os.ReadDir(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	infos := make([]Info, 0, len(entries))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			continue
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // Deleted since the folder was read.
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		infos = append(infos, infoOf(fi))
	}
	return infos, nil
}

// Delete implements Store.
func (l *Local) Delete(ctx context.Context, name string) error {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if err := os.Remove(full); err != nil {
		return fmt.Errorf("delete %s: %w", name, translate(err))
	}
	return nil
}

// DeleteAll implements Store. The root itself is refused: nobody means that.
func (l *Local) DeleteAll(ctx context.Context, dir string) error {
	full, err := l.resolve(ctx, dir)
	if err != nil {
		return fmt.Errorf("delete all of %s: %w", dir, err)
	}
	if full == l.root {
		return fmt.Errorf("delete all of %s: this is the root of the store; name a folder in it", dir)
	}
	if err := os.RemoveAll(full); err != nil {
		return fmt.Errorf("delete all of %s: %w", dir, err)
	}
	return nil
}

// SyncDirs implements Store.
func (l *Local) SyncDirs(ctx context.Context, name string) error {
	if _, err := l.resolve(ctx, name); err != nil {
		return fmt.Errorf("sync folders of %s: %w", name, err)
	}
	if err := l.syncDirs(name); err != nil {
		return fmt.Errorf("sync folders of %s: %w", name, translate(err))
	}
	return nil
}

// Sync makes durable the bytes of an object that another program wrote, which may not have done it itself.
func (l *Local) Sync(ctx context.Context, name string) error {
	full, err := l.resolve(ctx, name)
	if err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	f, err := os.Open(full)
	if err != nil {
		return fmt.Errorf("sync %s: %w", name, translate(err))
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// syncDirs syncs from the leaf to the root, so that an entry is never durable in a folder that is reachable before
// what it leads to.
func (l *Local) syncDirs(name string) error {
	for dir := path.Dir(name); ; dir = path.Dir(dir) {
		if err := syncDir(filepath.Join(l.root, filepath.FromSlash(dir))); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
	}
}

// Free returns how many bytes more the disk below the store takes. The root has to be there.
func (l *Local) Free() (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(l.root, &disk); err != nil {
		return 0, fmt.Errorf("ask for the room of the disk: %w", translate(err))
	}
	return int64(disk.Bavail) * disk.Bsize, nil
}

// Sweep removes the temporary files that a crash left anywhere in the store.
// REQUIRES: nobody else writes to the store.
func (l *Local) Sweep(ctx context.Context) error {
	err := filepath.WalkDir(l.root, func(full string, e fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if e.IsDir() || !strings.HasPrefix(e.Name(), tempPrefix) {
			return nil
		}
		return os.Remove(full)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("sweep temporary files: %w", err)
	}
	return nil
}

// resolve turns a name into a path of the file system.
func (l *Local) resolve(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	return filepath.Join(l.root, filepath.FromSlash(name)), nil
}

// checkName refuses names that could leave the store or mean two objects at once.
func checkName(name string) error {
	if !fs.ValidPath(name) {
		return fmt.Errorf("bad object name %q: want a relative path with slashes, without empty, \".\" or \"..\" elements", name)
	}
	if slices.Contains([]byte(name), 0) {
		return fmt.Errorf("bad object name %q: it holds a zero byte", name)
	}
	return nil
}

// translate gives the errors of the file system the names of this package and keeps their text.
func translate(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (%w)", ErrNotExist, err)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w (%w)", ErrExists, err)
	}
	return err
}

func infoOf(fi fs.FileInfo) Info {
	in := Info{Name: fi.Name(), ModTime: fi.ModTime(), Dir: fi.IsDir()}
	if !in.Dir {
		in.Size = fi.Size()
	}
	return in
}
