package manifest

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/flightd/flightd/object"
)

// formatVersion is what our manifests say beside the name of the library. It rises when the way we write them changes.
const formatVersion = "1.0.0"

// maxAttempts bounds the races that one commit may lose. Each loss means that someone else won, so a table makes
// progress all the same; the bound only keeps one unlucky writer from trying forever.
const maxAttempts = 1000

// syncer is a store that can make files durable which another program wrote without syncing them. A bucket has no
// need of it.
type syncer interface {
	Sync(ctx context.Context, name string) error
}

// commit is one call of Commit.
type commit struct {
	st     object.Store
	root   string
	o      Options
	change Change
	// txID tells our transaction from those of rivals.
	txID string
	// written are names below the root of files whose folders must be synced before the version is published.
	written map[string]struct{}
	// deletions are the deletion files written so far, by fragment, and what they stood on.
	deletions map[uint64]writtenDeletion
}

// errTaken says that a rival has the number of the version that was to be published.
var errTaken = fmt.Errorf("the version is taken: %w", object.ErrExists)

type writtenDeletion struct {
	on   *Deletion
	file *Deletion
}

// Commit publishes the version that follows base and has c applied to it. When rivals published first and their
// changes commute with c, the version stands on theirs; else Commit returns ErrConflict and nothing was published.
//
// The files that c names must be complete and closed, which makes their bytes durable; Commit syncs their folders.
// After ErrConflict and ErrUnpublished nothing was published. After any other error that is open: load the table anew to
// see.
func Commit(ctx context.Context, st object.Store, root string, base *Version, c Change, o Options) (*Version, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("commit to table %s: %w", root, err)
	}
	k := newCommit(st, root, o, c)
	v, err := k.run(ctx, base)
	if err == nil || errors.Is(err, ErrConflict) || errors.Is(err, ErrUnpublished) {
		k.discard(context.WithoutCancel(ctx), v)
	}
	if err != nil {
		return nil, fmt.Errorf("commit to table %s: %w", root, err)
	}
	return v, nil
}

func (k *commit) run(ctx context.Context, base *Version) (*Version, error) {
	for range maxAttempts {
		v, err := k.attempt(ctx, base)
		if !errors.Is(err, errTaken) {
			return v, err
		}
		mine, next, err := k.rebase(ctx, base)
		if err != nil || mine {
			return next, err
		}
		base = next
	}
	return nil, fmt.Errorf("%w: lost %d races in a row; try again when fewer writers commit", ErrConflict, maxAttempts)
}

// attempt publishes the version after base, or returns errTaken.
func (k *commit) attempt(ctx context.Context, base *Version) (*Version, error) {
	b := &build{commit: k, base: base}
	v, data, err := k.prepare(ctx, b)
	if err != nil && !errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: %w", ErrUnpublished, err)
	}
	if err != nil {
		return nil, err
	}
	chain := tableChain(k.st, k.root, k.o)
	// A number may be free again: other programs remove old versions, and ours would lie below theirs, where nobody looks.
	last, err := chain.newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnpublished, err)
	}
	if last > b.base.Number {
		return nil, errTaken
	}
	err = chain.put(ctx, v.Number, data)
	switch {
	case errors.Is(err, object.ErrExists):
		return nil, errTaken
	case err != nil && k.absent(ctx, v):
		return nil, fmt.Errorf("publish version %d: %w: %w", v.Number, ErrUnpublished, err)
	case err != nil:
		return nil, fmt.Errorf("publish version %d: %w", v.Number, err)
	}
	return v, nil
}

// prepare does everything up to the publication of the version.
func (k *commit) prepare(ctx context.Context, b *build) (*Version, []byte, error) {
	data, err := b.version(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := k.syncForeign(ctx, b.base); err != nil {
		return nil, nil, err
	}
	if err := k.syncWritten(ctx); err != nil {
		return nil, nil, err
	}
	// Decoding what is about to be published costs little and keeps a version that nobody could read from becoming one.
	v, err := decodeVersion(tableChain(k.st, k.root, k.o).path(b.base.Number+1), data)
	if err != nil {
		return nil, nil, fmt.Errorf("check the new version: %w", err)
	}
	return v, data, nil
}

// absent reports whether a version whose publication failed is not there and never will be. On a disk a call that has
// returned has no effect any more; a request to a bucket may still be on its way.
func (k *commit) absent(ctx context.Context, v *Version) bool {
	if _, disk := k.st.(syncer); !disk {
		return false
	}
	_, err := k.st.Stat(context.WithoutCancel(ctx), v.name)
	return errors.Is(err, object.ErrNotExist)
}

// rebase reads what was committed after base and returns the newest version, or mine = true and our own version when
// an earlier attempt had succeeded although the store reported otherwise.
func (k *commit) rebase(ctx context.Context, base *Version) (mine bool, next *Version, err error) {
	chain := tableChain(k.st, k.root, k.o)
	last, err := chain.newest(ctx)
	if err != nil {
		return false, nil, err
	}
	var reason error
	for n := base.Number + 1; n <= last; n++ {
		next, err = Load(ctx, k.st, k.root, n)
		if errors.Is(err, object.ErrNotExist) {
			return false, nil, fmt.Errorf("%w: version %d is gone, so what it changed is unknown", ErrConflict, n)
		}
		if err != nil {
			return false, nil, err
		}
		tx, err := next.transaction(ctx, k.st, k.root)
		if err != nil {
			return false, nil, err
		}
		if tx.GetUuid() == k.txID {
			return true, next, nil
		}
		if err := k.change.commutes(tx); err != nil && reason == nil {
			reason = fmt.Errorf("version %d: %w", n, err)
		}
	}
	return false, next, reason
}

// syncForeign makes base durable when another program wrote it: after a power cut our version must not name files
// that the system had not written yet.
func (k *commit) syncForeign(ctx context.Context, base *Version) error {
	st, ok := k.st.(syncer)
	if !ok {
		return nil
	}
	names := k.files(base)
	if !base.synced {
		folders := make(map[string]string)
		for _, name := range k.o.Synced.missing(names) {
			if err := st.Sync(ctx, name); err != nil {
				return fmt.Errorf("sync version %d of another writer: %w", base.Number, err)
			}
			folders[path.Dir(name)] = name
		}
		if err := k.syncFolders(ctx, folders); err != nil {
			return err
		}
	}
	k.o.Synced.set(names)
	return nil
}

// files returns the files that a version names, its own among them.
func (k *commit) files(base *Version) []string {
	names := []string{base.name}
	for i := range base.Fragments {
		f := &base.Fragments[i]
		for _, file := range f.Files {
			names = append(names, path.Join(k.root, "data", file.Path))
		}
		if f.Deletion != nil {
			names = append(names, path.Join(k.root, f.Deletion.Path(f.ID)))
		}
	}
	for i := range base.Indexes {
		for _, file := range base.Indexes[i].Files {
			names = append(names, path.Join(k.root, base.Indexes[i].Dir(), file.Path))
		}
	}
	return names
}

func (k *commit) noteAppended() {
	for _, f := range k.change.Append {
		for _, file := range f.Files {
			k.wrote(path.Join("data", file.Path))
		}
	}
	for _, files := range k.change.AddFiles {
		for _, file := range files {
			k.wrote(path.Join("data", file.Path))
		}
	}
}

// wrote notes a file below the root that the new version will name.
func (k *commit) wrote(name string) { k.written[name] = struct{}{} }

func (k *commit) syncWritten(ctx context.Context) error {
	folders := make(map[string]string)
	for name := range k.written {
		folders[path.Dir(name)] = path.Join(k.root, name)
	}
	clear(k.written)
	return k.syncFolders(ctx, folders)
}

// syncFolders syncs each folder once, by the name of some file in it.
func (k *commit) syncFolders(ctx context.Context, folders map[string]string) error {
	for _, name := range folders {
		if err := k.st.SyncDirs(ctx, name); err != nil {
			return fmt.Errorf("sync the folders of %s: %w", name, err)
		}
	}
	return nil
}

// discard removes the deletion files that earlier attempts left and that published, nil after a conflict, does not
// name. Nobody can refer to them.
func (k *commit) discard(ctx context.Context, published *Version) {
	for fragment, d := range k.deletions {
		if published != nil {
			if f, ok := published.Fragment(fragment); ok && sameDeletion(f.Deletion, d.file) {
				continue
			}
		}
		k.remove(ctx, d.file.Path(fragment))
	}
}

func (k *commit) remove(ctx context.Context, name string) {
	if err := k.st.Delete(ctx, path.Join(k.root, name)); err != nil {
		k.o.warn("unused deletion file not removed", err)
	}
}
