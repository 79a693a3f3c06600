package lsm

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/bitmap"
	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/lance"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/object"
)

// isKey reports whether a column is part of the primary key.
func isKey(f lance.Field) bool { return f.Key > 0 }

// dataset checks the newest version of a dataset with all that it names, and returns it, nil when there is none.
func (c *checker) dataset(ctx context.Context, root string) *manifest.Version {
	v, err := manifest.Latest(ctx, c.st, root, manifest.Options{})
	if err != nil {
		c.fault(path.Join(root, "_versions"), err)
		return nil
	}
	for i := range v.Fragments {
		c.fragment(ctx, root, v, &v.Fragments[i])
	}
	for i := range addressed(v) {
		c.index(ctx, root, v, &v.Indexes[i])
		c.apart(path.Join(root, v.Indexes[i].Dir()), v, i)
	}
	return v
}

// fragment checks the files of a fragment and its deletion file.
func (c *checker) fragment(ctx context.Context, root string, v *manifest.Version, f *manifest.Fragment) {
	c.sum.Fragments++
	c.sum.Rows += f.Rows
	for _, file := range f.Files {
		name := path.Join(root, "data", file.Path)
		if err := c.file(ctx, name, file.Bytes, f.Rows); err != nil {
			c.fault(name, err)
		}
	}
	if f.Deletion == nil {
		return
	}
	c.sum.DeletionFiles++
	if f.Deletion.Checksum == 0 {
		c.sum.Unsummed++
	}
	if _, err := v.Deletions(ctx, c.st, root, f); err != nil {
		c.fault(path.Join(root, f.Deletion.Path(f.ID)), err)
	}
}

// file checks one data file.
func (c *checker) file(ctx context.Context, name string, size, rows int64) error {
	r, err := lance.Open(ctx, c.st, name, size, lance.ReaderOptions{})
	if err != nil {
		return err
	}
	defer r.Close()
	c.sum.Bytes += size
	if !r.HasChecksums() {
		c.sum.Unsummed++
	}
	if r.Rows() != rows {
		return fmt.Errorf("it has %d rows, the manifest says %d", r.Rows(), rows)
	}
	return r.Verify(ctx)
}

// index checks an index segment of a table.
func (c *checker) index(ctx context.Context, root string, v *manifest.Version, x *manifest.Index) {
	dir := path.Join(root, x.Dir())
	// Rows of fragments that are no longer there, or that the segment does not cover, are left in it and skipped.
	leads := func(id uint64) error {
		if x.Fragments == nil || !x.Fragments.Contains(uint32(id>>32)) {
			return nil
		}
		f, ok := v.Fragment(id >> 32)
		if ok && int64(uint32(id)) >= f.Rows {
			return fmt.Errorf("it leads to row %d of fragment %d, which has %d", uint32(id), f.ID, f.Rows)
		}
		return nil
	}
	if (x.Bitmap() || x.LabelList()) && x.Fragments != nil {
		c.sizes(ctx, dir, x)
		if err := c.bitmap(ctx, dir, bitmapOptions(v, x), leads); err != nil {
			c.fault(dir, err)
		}
		return
	}
	if x.Vector() && c.vectors(ctx, root, v, x, leads) {
		return
	}
	if !x.BTree() {
		c.sum.OtherIndexes++
		c.sizes(ctx, dir, x)
		return
	}
	err := c.btree(ctx, dir, btree.Options{Files: indexFiles(*x)}, leads)
	if err == nil {
		err = c.complete(ctx, root, v, x)
	}
	if err != nil {
		c.fault(dir, err)
	}
}

// bitmap checks a BITMAP.
func (c *checker) bitmap(ctx context.Context, dir string, o bitmap.Options, each func(id uint64) error) error {
	x, err := bitmap.Open(ctx, c.st, dir, o)
	if err != nil {
		return err
	}
	defer x.Close()
	return x.Verify(ctx, each)
}

// vectors checks an index over vectors; it returns false if the index is of a kind that nothing here reads.
func (c *checker) vectors(ctx context.Context, root string, v *manifest.Version, m *manifest.Index, leads func(id uint64) error) bool {
	dir := path.Join(root, m.Dir())
	x, err := ivf.Open(ctx, c.st, dir, ivf.Options{Files: vectorFiles(*m)})
	// Lance lists an index without files when there were no rows to train it with.
	if errors.Is(err, lance.ErrUnsupported) || len(m.Files) == 0 && errors.Is(err, object.ErrNotExist) {
		return false
	}
	c.sum.Indexes++
	if err != nil {
		c.fault(dir, err)
		return true
	}
	defer x.Close()
	seen := map[uint32]*roaring.Bitmap{}
	err = x.Verify(ctx, func(id uint64) error {
		of := seen[uint32(id>>32)]
		if of == nil {
			of = roaring.New()
			seen[uint32(id>>32)] = of
		}
		if !of.CheckedAdd(uint32(id)) {
			return fmt.Errorf("it leads to row %d of fragment %d twice", uint32(id), id>>32)
		}
		return leads(id)
	})
	if err == nil {
		err = c.completeVectors(ctx, root, v, m, x)
	}
	if err != nil {
		c.fault(dir, err)
	}
	return true
}

// apart checks that a segment lies over no fragment that one before it of the same index has, which Lance takes for a fault.
func (c *checker) apart(dir string, v *manifest.Version, at int) {
	x := &v.Indexes[at]
	for i := range v.Indexes[:at] {
		other := &v.Indexes[i]
		if other.Name != x.Name || x.Fragments == nil || other.Fragments == nil {
			continue
		}
		if both := roaring.And(x.Fragments, other.Fragments); !both.IsEmpty() {
			c.fault(dir, fmt.Errorf("the manifest lists it over fragment %d, which segment %s of index %q has, too", both.Minimum(), other.UUID, x.Name))
		}
	}
}

// sizes checks that the files of an index are there.
func (c *checker) sizes(ctx context.Context, dir string, x *manifest.Index) {
	for _, f := range x.Files {
		name := path.Join(dir, f.Path)
		info, err := c.st.Stat(ctx, name)
		if err == nil && f.Bytes > 0 && info.Size != f.Bytes {
			err = &object.CorruptError{Name: name, Offset: min(info.Size, f.Bytes), Err: fmt.Errorf("the file has %d bytes, the manifest says %d", info.Size, f.Bytes)}
		}
		if err != nil {
			c.fault(name, err)
		}
	}
}

// btree checks a BTREE and calls check with the id of each entry.
func (c *checker) btree(ctx context.Context, dir string, o btree.Options, check func(id uint64) error) error {
	c.sum.Indexes++
	x, err := btree.Open(ctx, c.st, dir, o)
	if err != nil {
		return err
	}
	defer x.Close()
	if err := x.Verify(ctx); err != nil {
		return err
	}
	return x.Scan(ctx, func(_ arrow.Array, ids []uint64) error {
		for _, id := range ids {
			if err := check(id); err != nil {
				return err
			}
		}
		return nil
	})
}

// generations checks those of a shard that are not in the base yet.
func (c *checker) generations(ctx context.Context, dir string, s *manifest.Shard, base *manifest.Version, keyed bool) {
	c.highest = max(c.highest, LSN(s.ReplayAfter))
	list := s.Generations
	if base != nil {
		list = unmerged(list, base.Compacted[s.ID])
	}
	for _, g := range list {
		c.sum.Generations++
		c.generation(ctx, path.Join(dir, g.Path), g, keyed)
	}
}

// generation checks a generation with its key index.
func (c *checker) generation(ctx context.Context, dir string, g manifest.Generation, keyed bool) {
	v := c.dataset(ctx, dir)
	if v == nil {
		return
	}
	if len(v.Fragments) != 1 {
		c.fault(dir, fmt.Errorf("generation %d has %d fragments, want 1", g.Number, len(v.Fragments)))
		return
	}
	f := &v.Fragments[0]
	if f.Rows != g.Rows {
		c.fault(dir, fmt.Errorf("generation %d has %d rows, the shard's manifest says %d", g.Number, f.Rows, g.Rows))
	}
	if !keyed {
		return
	}
	if err := c.keys(ctx, path.Join(dir, keyIndexFolder), f); err != nil {
		c.fault(path.Join(dir, keyIndexFolder), err)
	}
	if err := c.keyFilter(ctx, dir); err != nil {
		c.fault(path.Join(dir, keyFilterFile), err)
	}
}

// keys checks that the key index of a generation has each of its rows once, but for those that were superseded within
// the generation.
func (c *checker) keys(ctx context.Context, dir string, f *manifest.Fragment) error {
	seen := roaring.New()
	err := c.btree(ctx, dir, btree.Options{}, func(id uint64) error {
		if id >= uint64(f.Rows) {
			return fmt.Errorf("it leads to row %d of %d", id, f.Rows)
		}
		if !seen.CheckedAdd(uint32(id)) {
			return fmt.Errorf("it has two keys for row %d", id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	live := f.Rows
	if f.Deletion != nil {
		live -= f.Deletion.Rows
	}
	if n := int64(seen.GetCardinality()); n != live {
		return fmt.Errorf("it has %d keys, the generation has %d rows that count", n, live)
	}
	return nil
}
