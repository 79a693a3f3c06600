package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// base is one version of the table's own dataset. It does not change.
type base struct {
	version *manifest.Version
	frags   []*fragment
	byID    map[uint64]*fragment
	rows    int64        // not deleted
	schema  *tableSchema // of when it was opened
	// indexes find rows by key in the fragments they cover; the key column of the others is read instead.
	indexes   []*keySegment
	uncovered []*fragment
	// columns are the indexes over other columns, vectors those over vectors.
	columns []*columnSegment
	vectors []*vectorSegment
	// found are those over vectors that are searched only; refused says of others why they are not.
	found   []*vectorSegment
	refused map[int32]string
	// forms tells that columns are stored in forms that not all rows of their types have.
	forms bool
	// readOnly says why the table cannot be written, nil when it can.
	readOnly error
	refs     atomic.Int64
	// release is called with the last reference.
	release func(*base)
}

// keySegment is an open BTREE over the key column of some fragments.
type keySegment struct {
	meta   manifest.Index
	index  *btree.Index
	bounds *keyRun // the least and the greatest key, nil when there is none
}

// openBase opens a version, to be read under a schema of the table. Fragments that reuse, which may be nil, has already are
// shared with it.
func openBase(ctx context.Context, st object.Store, t *Table, v *manifest.Version, s *tableSchema, reuse *base) (*base, error) {
	b := &base{version: v, schema: s, byID: make(map[uint64]*fragment), forms: v.Schema.HasForms(), readOnly: readOnly(v), release: t.letGo}
	b.refs.Store(1)
	t.hold(b)
	for i := range v.Fragments {
		f, err := b.openFragment(ctx, st, t, &v.Fragments[i], reuse)
		if err != nil {
			b.unref()
			return nil, err
		}
		b.frags = append(b.frags, f)
		b.byID[f.id] = f
		b.rows += f.live
	}
	if err := b.openIndexes(ctx, st, t); err != nil {
		b.unref()
		return nil, err
	}
	b.columns = openColumns(ctx, st, t.root, v, b.schema, t.warn)
	list := openVectors(ctx, st, t.root, v, b.schema, t)
	b.vectors, b.found, b.refused = list.kept, list.found, list.refused
	return b, nil
}

// openFragment opens a fragment, or takes it from another version in which it is the same.
func (b *base) openFragment(ctx context.Context, st object.Store, t *Table, f *manifest.Fragment, reuse *base) (*fragment, error) {
	if reuse != nil && sameFields(reuse.version.Schema, b.version.Schema) {
		old, ok := reuse.version.Fragment(f.ID)
		if ok && sameFiles(old, f) && sameDeletion(old.Deletion, f.Deletion) {
			x := reuse.byID[f.ID]
			x.retain()
			return x, nil
		}
	}
	return openFragment(ctx, st, t.root, b.version, f, b.schema)
}

// sameFiles reports whether a fragment has the same files in two versions: then it has the same rows at the same places.
func sameFiles(a, b *manifest.Fragment) bool {
	return slices.EqualFunc(a.Files, b.Files, func(x, y manifest.DataFile) bool { return x.Path == y.Path })
}

// sameFields reports whether two schemas have the same columns, by their ids.
func sameFields(a, b *lance.Schema) bool {
	return slices.EqualFunc(a.Fields, b.Fields, func(a, b lance.Field) bool { return a.ID == b.ID })
}

// sameDeletion reports whether two fragments have the same deleted rows.
func sameDeletion(a, b *manifest.Deletion) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// openIndexes opens the BTREEs over a key of one column. A key of several columns has none, as Lance indexes one
// column at a time.
func (b *base) openIndexes(ctx context.Context, st object.Store, t *Table) error {
	codec := b.schema.codec
	if codec == nil {
		return nil
	}
	covered := roaring.New()
	for _, x := range addressed(b.version) {
		if len(codec.cols) != 1 || !x.BTree() || x.Fragments == nil || !slices.Equal(x.Fields, b.schema.keyIDs()) {
			continue
		}
		index, err := btree.Open(ctx, st, path.Join(t.root, x.Dir()), btree.Options{Files: indexFiles(x)})
		if err != nil {
			return fmt.Errorf("open index %q: %w", x.Name, err)
		}
		b.indexes = append(b.indexes, &keySegment{meta: x, index: index, bounds: keyBounds(codec, index)})
		covered.Or(x.Fragments)
	}
	for _, f := range b.frags {
		if !covered.Contains(uint32(f.id)) {
			b.uncovered = append(b.uncovered, f)
		}
	}
	return nil
}

// addressed returns the indexes whose ids are addresses of rows. In a version with stable row ids they are these, and no index
// is used: rows are found by their columns.
func addressed(v *manifest.Version) []manifest.Index {
	if v.StableRowIDs() != nil {
		return nil
	}
	return v.Indexes
}

// indexFiles returns the sizes that the manifest knows of an index segment's files.
func indexFiles(x manifest.Index) []btree.File {
	files := make([]btree.File, len(x.Files))
	for i, f := range x.Files {
		files[i] = btree.File{Path: f.Path, Bytes: f.Bytes}
	}
	return files
}

// fragment returns an open fragment, nil when the version has none of that id.
func (b *base) fragment(id uint64) *fragment { return b.byID[id] }

// resolve implements layer.
func (b *base) resolve(ctx context.Context, run *keyRun, mark func(fragment uint64, row uint32)) error {
	if err := b.lookup(ctx, run, 0, func(_ int, fragment uint64, row uint32) { mark(fragment, row) }); err != nil {
		return err
	}
	for _, f := range b.uncovered {
		if err := b.probe(ctx, f, run, mark); err != nil {
			return err
		}
	}
	return nil
}

// lookup implements layer.
func (b *base) lookup(ctx context.Context, run *keyRun, _ LSN, fn func(key int, fragment uint64, row uint32)) error {
	keys := run.array()
	defer keys.Release()
	for _, s := range b.indexes {
		if !run.overlaps(s.bounds) {
			continue
		}
		err := s.index.Lookup(ctx, keys, func(key int, id uint64) error {
			if f := b.live(s, id); f != nil {
				fn(key, f.id, uint32(id))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// live returns the fragment of a row that an index names, nil if the row does not count: an index may still have rows
// of fragments that were rewritten since, and only what its bitmap covers and the version has, not deleted, counts.
func (b *base) live(s *keySegment, id uint64) *fragment {
	f := b.byID[id>>32]
	if f == nil || !s.meta.Fragments.Contains(uint32(f.id)) || f.hides(uint32(id)) {
		return nil
	}
	return f
}

// probe finds the keys of a run by reading the key columns of a fragment that no index covers.
func (b *base) probe(ctx context.Context, f *fragment, run *keyRun, mark func(fragment uint64, row uint32)) error {
	codec := b.schema.codec
	sc := f.scan(b.schema, codec.cols, 0, f.rows, morselRows)
	defer sc.Close()
	first := uint32(0)
	whole := codec.alone()
	var scratch []int64
	for {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		keys := whole.normalise(rec, scratch[:0])
		for i := range int(rec.NumRows()) {
			row := first + uint32(i)
			if run.contains(keys, i) && !f.hides(row) {
				mark(f.id, row)
			}
		}
		scratch = keys.ints
		first += uint32(rec.NumRows())
		rec.Release()
	}
}

func (b *base) retain() { b.refs.Add(1) }

func (b *base) unref() {
	if b.refs.Add(-1) > 0 {
		return
	}
	for _, f := range b.frags {
		f.unref()
	}
	for _, s := range b.indexes {
		_ = s.index.Close() // open for reading only
	}
	closeColumns(b.columns)
	closeVectors(b.vectors)
	closeVectors(b.found)
	b.release(b)
}
