package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/object"
)

// History is the versions of a table or a shard as files, for whoever removes old ones.
type History struct{ chain *chain }

// VersionFile is one version as a file.
type VersionFile struct {
	// Number is the version's.
	Number uint64
	// Time is when the store took it: one clock for all writers.
	Time time.Time
	// Bytes is the size of the file.
	Bytes int64
}

// TableHistory returns the history of the table at root.
func TableHistory(st object.Store, root string, o Options) *History {
	return &History{tableChain(st, root, o)}
}

// ShardHistory returns the history of the shard in dir.
func ShardHistory(st object.Store, dir string, o Options) *History {
	return &History{shardChain(st, dir, o)}
}

// ShardFile returns the name of a version of the shard in dir.
func ShardFile(dir string, n uint64) string { return shardChain(nil, dir, Options{}).path(n) }

// VersionFileName returns the name of a version of the table at root.
func VersionFileName(root string, n uint64) string { return tableChain(nil, root, Options{}).path(n) }

// List returns the versions that are there, oldest first.
func (h *History) List(ctx context.Context) ([]VersionFile, error) {
	files, err := h.chain.st.List(ctx, h.chain.dir)
	if err != nil {
		return nil, err
	}
	var list []VersionFile
	for _, f := range files {
		n, err := h.chain.parse(f.Name)
		if err != nil {
			return nil, fmt.Errorf("list the versions in %s: %w", h.chain.dir, err)
		}
		if n > 0 {
			list = append(list, VersionFile{Number: n, Time: f.ModTime, Bytes: f.Size})
		}
	}
	slices.SortFunc(list, func(a, b VersionFile) int { return cmp.Compare(a.Number, b.Number) })
	return list, nil
}

// Newer returns the versions above n, which exists, in order.
func (h *History) Newer(ctx context.Context, n uint64) ([]uint64, error) {
	last, err := h.chain.forward(ctx, n)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for n++; n <= last; n++ {
		list = append(list, n)
	}
	return list, nil
}

// Point lets the hint point at version n. REQUIRES: n is the newest; readers look forward from the hint.
func (h *History) Point(ctx context.Context, n uint64) error {
	if h.chain.readHint(ctx) == n {
		return nil
	}
	return h.chain.point(ctx, n)
}

// Delete removes version n. REQUIRES: the hint points at a newer one, and all versions below n that nobody wants are gone.
func (h *History) Delete(ctx context.Context, n uint64) error {
	err := h.chain.st.Delete(ctx, h.chain.path(n))
	if errors.Is(err, object.ErrNotExist) {
		return nil // somebody else was faster
	}
	return err
}

// Sync makes durable that versions are gone.
func (h *History) Sync(ctx context.Context) error {
	return h.chain.st.SyncDirs(ctx, path.Join(h.chain.dir, h.chain.hint))
}

// Detached loads the versions beside the chain, which other programs keep for purposes of their own.
func Detached(ctx context.Context, st object.Store, root string) ([]*Version, error) {
	c := tableChain(st, root, Options{})
	files, err := st.List(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	var list []*Version
	for _, f := range files {
		if !strings.HasPrefix(f.Name, "d") || !strings.HasSuffix(f.Name, ".manifest") {
			continue
		}
		name := path.Join(c.dir, f.Name)
		b, err := st.Get(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("load detached version: %w", err)
		}
		v, err := decodeVersion(name, b)
		if err != nil {
			return nil, fmt.Errorf("load detached version: %w", err)
		}
		list = append(list, v)
	}
	return list, nil
}

// Needs calls need with everything that v names, as paths below the root of the table: data files, deletion files,
// the folders of index segments, and the file of its transaction.
func (v *Version) Needs(need func(name string)) {
	for i := range v.Fragments {
		f := &v.Fragments[i]
		for _, file := range f.Files {
			need(path.Join("data", file.Path))
		}
		if f.Deletion != nil {
			need(f.Deletion.Path(f.ID))
		}
	}
	for _, p := range v.indexes {
		if x, err := indexFromProto(&lancepb.IndexMetadata{Uuid: p.GetUuid()}); err == nil {
			need(x.Dir())
		}
	}
	if tx := v.raw.GetTransactionFile(); tx != "" {
		need(path.Join("_transactions", tx))
	}
}
