package lsm

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// Older versions of a table are those of its dataset, which its commits and those of other programs made. What lies in front
// of the base is in none of them: it has an LSN, and no version. A view of an older version therefore is a base and nothing
// else, under the columns, the key and the indexes that this version has.
//
// A version that is read is held (Table.held), and a collection that would remove it looks once more, under Table.place,
// right before it does: under the same lock a reader holds the version and then sees that it is still there. Of the two
// that meet there one is the first, so a reader either has all files of its version or is told that it has gone.

// AsOf names a version of a table in one of three ways.
type AsOf struct {
	// Tag is the name that somebody gave to a version; empty for none.
	Tag string
	// Version is the number of a version, for an AsOf without a tag; 0 for none.
	Version uint64
	// Time is a moment, for an AsOf with neither: the version that was the newest then, by the clocks of who committed.
	Time time.Time
}

// At returns the table as one of its versions has it. The caller closes the view.
func (t *Table) At(ctx context.Context, as AsOf) (*View, error) {
	done, err := t.db.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	if err := t.db.lost(); err != nil {
		return nil, err
	}
	number, err := t.versionAsOf(ctx, as)
	if err != nil {
		return nil, err
	}
	v, err := manifest.Load(ctx, t.db.st, t.root, number)
	if errors.Is(err, object.ErrNotExist) {
		return nil, t.noVersion(ctx, number, as)
	}
	if err != nil {
		return nil, err
	}
	s, err := pastSchema(v)
	if err != nil {
		return nil, fmt.Errorf("version %d of table %q: %w", number, t.name, err)
	}
	b, err := t.openPast(ctx, v, s)
	if errors.Is(err, object.ErrNotExist) {
		return nil, fmt.Errorf("%w (%w)", t.noVersion(ctx, number, as), err)
	}
	if err != nil {
		return nil, fmt.Errorf("version %d of table %q: %w", number, t.name, err)
	}
	defer b.unref()
	// Without layers a chain hides nothing, and has all that it will ever have.
	chains := make([]*chain, len(t.shards))
	for i := range chains {
		chains[i] = newChain(nil, newMaskCell(&rowMask{}), 0)
		defer chains[i].unref()
	}
	return &View{table: t, schema: s, set: newLayerSet(b, chains)}, nil
}

// openPast opens a version that nobody collects from then on, until the base is let go.
func (t *Table) openPast(ctx context.Context, v *manifest.Version, s *tableSchema) (*base, error) {
	mark := &base{version: v} // holds the version while its files are being opened
	t.hold(mark)
	defer t.letGo(mark)
	err := func() error {
		t.place.Lock()
		defer t.place.Unlock()
		if t.left {
			return fmt.Errorf("table %q: %w", t.name, ErrTableNotFound)
		}
		_, err := t.db.st.Stat(ctx, manifest.VersionFileName(t.root, v.Number))
		return err
	}()
	if err != nil {
		return nil, err
	}
	on := t.holdSet()
	if on == nil {
		return nil, t.ended()
	}
	defer on.unref()
	return openBase(ctx, t.db.st, t, v, s, on.base)
}

// isHeld reports whether somebody reads a version of the base.
func (t *Table) isHeld(number uint64) bool {
	t.heldMu.Lock()
	defer t.heldMu.Unlock()
	for _, b := range t.held {
		if b.version.Number == number {
			return true
		}
	}
	return false
}

// pastSchema returns the columns of a version, with the key that it declares.
func pastSchema(v *manifest.Version) (*tableSchema, error) {
	e, err := foreignSchema(v)
	if err != nil {
		return nil, err
	}
	files, err := lance.ParseVersion(v.Format)
	if err != nil {
		return nil, err
	}
	s, err := newTableSchema(&e.schemaEntry, e.key)
	if err != nil {
		return nil, err
	}
	s.files = files
	return s, nil
}

// versionAsOf returns the number of the version that an AsOf names.
func (t *Table) versionAsOf(ctx context.Context, as AsOf) (uint64, error) {
	switch {
	case as.Tag != "":
		return t.versionTagged(ctx, as.Tag)
	case as.Version > 0:
		return as.Version, nil
	case as.Time.IsZero():
		return 0, fmt.Errorf("%w version of table %q: versions are counted from 1", ErrInvalid, t.name)
	}
	return t.versionBefore(ctx, as.Time)
}

// versionTagged returns the version that a tag names.
func (t *Table) versionTagged(ctx context.Context, tag string) (uint64, error) {
	refs, err := manifest.Refs(ctx, t.db.st, t.root)
	if err != nil {
		return 0, err
	}
	for _, r := range refs {
		switch {
		case r.Name != tag:
		case r.Branch:
			return 0, fmt.Errorf("%w version of table %q: %q is a branch, which flightd does not read; open it with Lance", ErrInvalid, t.name, tag)
		case r.Version == 0:
			return 0, fmt.Errorf("%w version of table %q: the tag %q is one of a branch, which flightd does not read; open it with Lance", ErrInvalid, t.name, tag)
		default:
			return r.Version, nil
		}
	}
	return 0, fmt.Errorf("table %q: %w: it has no tag %q; flightd_catalog.tags has those that it has", t.name, ErrVersionNotFound, tag)
}

// versionBefore returns the newest version that was committed at or before a moment. Versions are committed in the order of
// their numbers, so it is found by halving; should clocks of several programs differ, a later number with an earlier time wins
// over the first one found when it follows at once.
func (t *Table) versionBefore(ctx context.Context, at time.Time) (uint64, error) {
	chain, err := manifest.TableHistory(t.db.st, t.root, t.manifestOptions()).List(ctx)
	if err != nil {
		return 0, err
	}
	var failed error
	after := func(i int) bool {
		info, err := t.versionInfo(ctx, chain[i])
		if err != nil && !errors.Is(err, object.ErrNotExist) { // one that has gone was too old, like all before it
			failed = err
		}
		return err == nil && info.Time.After(at)
	}
	i := sort.Search(len(chain), after)
	for failed == nil && i < len(chain) && !after(i) {
		i++
	}
	switch {
	case failed != nil:
		return 0, failed
	case i > 0:
		return chain[i-1].Number, nil
	case len(chain) == 0:
		return 0, fmt.Errorf("table %q: %w: it has none", t.name, ErrVersionNotFound)
	}
	info, err := t.versionInfo(ctx, chain[0])
	if err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("table %q: %w that is not younger than %s: the oldest that is kept is version %d of %s; --retain says how long versions are kept, and tags keep theirs",
		t.name, ErrVersionNotFound, at.UTC().Format(time.RFC3339Nano), info.Number, info.Time.UTC().Format(time.RFC3339Nano))
}

// noVersion says that there is no version of a number, and which there are.
func (t *Table) noVersion(ctx context.Context, number uint64, as AsOf) error {
	chain, err := manifest.TableHistory(t.db.st, t.root, t.manifestOptions()).List(ctx)
	if err != nil {
		return err
	}
	if len(chain) == 0 {
		return fmt.Errorf("table %q: %w: it has none", t.name, ErrVersionNotFound)
	}
	oldest, newest := chain[0].Number, chain[len(chain)-1].Number
	why := "it never had it"
	if number < newest {
		why = "it was collected (--retain says how long versions are kept, and tags keep theirs)"
	}
	what := fmt.Sprintf("%d", number)
	if as.Tag != "" {
		what += fmt.Sprintf(", of the tag %q", as.Tag)
	}
	return fmt.Errorf("table %q: %w %s: %s; its oldest version is %d, its newest %d", t.name, ErrVersionNotFound, what, why, oldest, newest)
}

// Close lets go of a view that Table.At returned. Scans of it must be closed before.
func (v *View) Close() { v.set.unref() }

// Version returns the number of the version of the dataset that the view's base is.
func (v *View) Version() uint64 { return v.set.base.version.Number }

// Key returns the names of the primary key's columns in order.
func (v *View) Key() []string {
	if v.schema.codec == nil {
		return nil
	}
	return v.schema.codec.names
}

// BaseIndexes returns the indexes that the view's base has, but for that of its key.
func (v *View) BaseIndexes() []IndexDef {
	var out []IndexDef
	for _, x := range foreignIndexes(v.set.base, v.schema, nil) {
		out = append(out, x.IndexDef)
	}
	return out
}

// VersionInfo is a version of a table in numbers.
type VersionInfo struct {
	Number uint64
	// Time is when it was committed, by the clock of who did it, Writer that program, and Operation what it did.
	Time              time.Time
	Writer, Operation string
	// Rows are those that are not deleted, Bytes what its data files take as far as their writers said.
	Rows, Bytes int64
	Fragments   int
	// Columns are the names of its columns.
	Columns []string
}

// Versions returns the versions of the table's dataset that are there, oldest first. Each is read once, and then known.
func (t *Table) Versions(ctx context.Context) ([]VersionInfo, error) {
	chain, err := manifest.TableHistory(t.db.st, t.root, t.manifestOptions()).List(ctx)
	if err != nil {
		return nil, err
	}
	var out []VersionInfo
	for _, x := range chain {
		info, err := t.versionInfo(ctx, x)
		if errors.Is(err, object.ErrNotExist) {
			continue // collected since
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	t.pastMu.Lock()
	defer t.pastMu.Unlock()
	for n := range t.past {
		if len(chain) == 0 || n < chain[0].Number {
			delete(t.past, n)
		}
	}
	return out, nil
}

// versionInfo reads a version, unless it is known.
func (t *Table) versionInfo(ctx context.Context, x manifest.VersionFile) (VersionInfo, error) {
	t.pastMu.Lock()
	info, ok := t.past[x.Number]
	t.pastMu.Unlock()
	if ok {
		return info, nil
	}
	v, err := manifest.Load(ctx, t.db.st, t.root, x.Number)
	if err != nil {
		return info, err
	}
	info = VersionInfo{Number: x.Number, Time: v.Time(), Writer: v.Writer(), Rows: v.Rows(), Fragments: len(v.Fragments)}
	if info.Time.IsZero() {
		info.Time = x.Time
	}
	for i := range v.Fragments {
		for _, f := range v.Fragments[i].Files {
			info.Bytes += f.Bytes
		}
	}
	for _, f := range v.Schema.Fields {
		info.Columns = append(info.Columns, f.Name)
	}
	// What a commit did is told by its transaction, which another program may have removed with its file.
	if info.Operation, err = v.Operation(ctx, t.db.st, t.root); err != nil && !errors.Is(err, object.ErrNotExist) {
		return info, err
	}
	t.pastMu.Lock()
	defer t.pastMu.Unlock()
	if t.past == nil {
		t.past = make(map[uint64]VersionInfo)
	}
	t.past[x.Number] = info
	return info, nil
}

// Ref is a tag or a branch of a table's dataset.
type Ref = manifest.Ref

// Refs returns the tags and branches of the table's dataset.
func (t *Table) Refs(ctx context.Context) ([]Ref, error) { return manifest.Refs(ctx, t.db.st, t.root) }

// versionSchema is what the catalog would store of the columns of a version, and its key.
type versionSchema struct {
	schemaEntry
	key []string
}
