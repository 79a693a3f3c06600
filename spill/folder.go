package spill

import (
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"sync/atomic"
	"syscall"

	"github.com/flightd/flightd/object"
)

// ErrQuota is returned when temporary files would take more room than they may. Like a quota of the system's it is syscall.EDQUOT.
var ErrQuota = fmt.Errorf("the quota for temporary files is used up (%w)", syscall.EDQUOT)

// Quota bounds the bytes of temporary files, in all folders that share it. A nil Quota bounds nothing.
type Quota struct {
	limit int64
	used  atomic.Int64
}

// NewQuota returns a quota of so many bytes.
func NewQuota(limit int64) *Quota { return &Quota{limit: limit} }

// Used returns the bytes that lie in the folders.
func (q *Quota) Used() int64 { return q.used.Load() }

// take counts n bytes, or refuses.
func (q *Quota) take(n int64) error {
	if used := q.used.Add(n); used > q.limit {
		q.used.Add(-n)
		return fmt.Errorf("%w: %d of %d bytes are taken, %d more are wanted; wait for other work to end or allow more", ErrQuota, used-n, q.limit, n)
	}
	return nil
}

// Folder is a folder of temporary files, side files and others, which go together. It is an object.Store in which names
// begin with Path; files that Create makes count against the quota.
type Folder struct {
	object.Store
	dir   string
	quota *Quota
	used  atomic.Int64 // of the quota
	files atomic.Int64 // side files so far
}

// NewFolder returns a folder of a new name below the root of a store. It is made with its first file.
// REQUIRES: the store is local, and somebody empties it after a crash.
func NewFolder(st object.Store, q *Quota) *Folder {
	return &Folder{Store: st, dir: "spill-" + rand.Text(), quota: q}
}

// Path returns the name of a file of the folder in its store.
func (d *Folder) Path(name string) string { return path.Join(d.dir, name) }

// Create implements object.Store.
func (d *Folder) Create(ctx context.Context, name string) (object.Writer, error) {
	w, err := d.Store.Create(ctx, name)
	if err != nil {
		return nil, err
	}
	return &countedWriter{Writer: w, folder: d}, nil
}

// Used returns the bytes that were written to files of the folder and not aborted.
func (d *Folder) Used() int64 { return d.used.Load() }

// Close removes the folder and everything in it.
// REQUIRES: nobody writes to it any more.
func (d *Folder) Close() error {
	// Also after the context of the work has ended: that is when most is left behind.
	if err := d.DeleteAll(context.Background(), d.dir); err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	d.release(d.used.Load())
	return nil
}

// reserve counts n bytes, or refuses.
func (d *Folder) reserve(n int64) error {
	if d.quota != nil {
		if err := d.quota.take(n); err != nil {
			return err
		}
	}
	d.used.Add(n)
	return nil
}

// release counts n bytes less.
func (d *Folder) release(n int64) {
	d.used.Add(-n)
	if d.quota != nil {
		d.quota.used.Add(-n)
	}
}

// countedWriter counts what it writes against the folder's quota.
type countedWriter struct {
	object.Writer
	folder *Folder
	size   int64
	done   bool
}

// Write implements io.Writer.
func (w *countedWriter) Write(p []byte) (int, error) {
	if err := w.folder.reserve(int64(len(p))); err != nil {
		return 0, err
	}
	w.size += int64(len(p))
	return w.Writer.Write(p)
}

// Close implements object.Writer.
func (w *countedWriter) Close() error {
	err := w.Writer.Close()
	if err == nil {
		w.done = true
	}
	return err
}

// Abort implements object.Writer.
func (w *countedWriter) Abort() {
	w.Writer.Abort()
	if !w.done {
		w.done = true
		w.folder.release(w.size)
	}
}
