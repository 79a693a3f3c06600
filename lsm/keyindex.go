package lsm

import (
	"context"
	"path"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/uuid"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/manifest"
)

// maxKeySegments bounds the segments of the base's key index: each costs a search per key. A merge that finds as
// many writes them into one with its own.
const maxKeySegments = 8

// btreeIndexVersion is the version that Lance gives to a BTREE whose ids are row addresses.
const btreeIndexVersion = 0

// keySegments returns the base's own segments that a merge should take in: all of them once there are too many.
// A merge that writes fragments anew takes in all, too, as they have the keys of these.
func keySegments(b *base, m *merged) []*keySegment {
	if len(b.indexes) < maxKeySegments && len(m.sparse) == 0 {
		return nil
	}
	return b.indexes
}

// writeKeyIndex writes a segment of the base's key index over the appended fragments, and over those of the
// segments in old, whose place it takes.
func (c *compactor) writeKeyIndex(ctx context.Context, m *merged, old []*keySegment, set *layerSet, appended []uint64) (manifest.Index, error) {
	codec, b := m.schema.codec, set.base
	field := m.schema.lance.Fields[codec.cols[0]]
	x := manifest.Index{Name: field.Name + "_idx", UUID: uuid.New(), Fields: []int32{field.ID}, Version: b.version.Number,
		Fragments: roaring.New(), IndexVersion: btreeIndexVersion}
	if len(b.indexes) > 0 {
		x.Name = b.indexes[0].meta.Name
	}
	for _, id := range appended {
		x.Fragments.Add(uint32(id))
	}
	var err error
	if x.Details, err = lancepb.NewAny(&lancepb.BTreeIndexDetails{}); err != nil {
		return x, err
	}
	for _, seg := range old {
		for _, f := range b.frags {
			if _, gone := m.at[f.id]; !gone && seg.meta.Fragments.Contains(uint32(f.id)) {
				x.Fragments.Add(uint32(f.id))
			}
		}
	}
	w, err := btree.Create(ctx, c.db.st, path.Join(c.table.root, x.Dir()), codec.typ, btree.WriterOptions{})
	if err != nil {
		return x, err
	}
	if err := c.writeKeys(ctx, w, m, old, set, appended); err != nil {
		w.Abort()
		return x, err
	}
	files, err := w.Finish(ctx)
	if err != nil {
		return x, err
	}
	for _, f := range files {
		x.Files = append(x.Files, manifest.IndexFile{Path: f.Path, Bytes: f.Bytes})
	}
	return x, nil
}

// writeKeys writes the entries of old segments and of the merged generations that still count, in key order.
func (c *compactor) writeKeys(ctx context.Context, w *btree.Writer, m *merged, old []*keySegment, set *layerSet, appended []uint64) error {
	codec := m.schema.codec
	var sources []*keySource
	defer func() {
		for _, s := range sources {
			s.close()
		}
	}()
	// addresses translate the ids of each source, and say whether the row still lives.
	var addresses []func(id uint64) (uint64, bool)
	for _, seg := range old {
		sources = append(sources, newKeySource(ctx, codec, seg.index))
		stays := set.base.addressIn(seg, set)
		addresses = append(addresses, func(id uint64) (uint64, bool) {
			place, lives, ok := m.moved(id)
			switch {
			case !ok:
				return stays(id)
			case !lives || !seg.meta.Fragments.Contains(uint32(id>>32)):
				return 0, false
			}
			return address(place, appended), true
		})
	}
	for i, l := range m.gens {
		live := m.live[i]
		sources = append(sources, newKeySource(ctx, codec, l.layer.(*generation).keys))
		addresses = append(addresses, func(id uint64) (uint64, bool) {
			if !live.Contains(uint32(id)) {
				return 0, false
			}
			return address(m.place(i, uint32(id)), appended), true
		})
	}
	keys, ids := keyBuffer{codec: codec}, make([]uint64, 0, indexBatch)
	flush := func() error {
		values := keys.run().array()
		defer values.Release()
		err := w.Add(ctx, values, ids)
		keys.clear()
		ids = ids[:0]
		return err
	}
	err := mergeKeys(sources, func(src *keySource, from, to int) error {
		for i := from; i < to; i++ {
			at, ok := addresses[src.rank](src.ids[i])
			if !ok {
				continue
			}
			keys.add(src.keys, i)
			if ids = append(ids, at); len(ids) == indexBatch {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// indexBatch is how many entries go to a BTREE writer at a time: one of its pages.
const indexBatch = 4096

// addressIn returns which entries of a segment still count: those of rows that the version has, that the segment
// covers and that no generation of the set replaced.
func (b *base) addressIn(seg *keySegment, set *layerSet) func(id uint64) (uint64, bool) {
	return b.stillIn(seg.meta.Fragments, set)
}

// stillIn is addressIn for a segment that covers some fragments.
func (b *base) stillIn(fragments *roaring.Bitmap, set *layerSet) func(id uint64) (uint64, bool) {
	replaced := make(map[uint64][]*roaring.Bitmap)
	for _, f := range b.frags {
		replaced[f.id] = set.replaced(f.id)
	}
	return func(id uint64) (uint64, bool) {
		f, row := b.byID[id>>32], uint32(id)
		if f == nil || !fragments.Contains(uint32(f.id)) || f.hides(row) {
			return 0, false
		}
		for _, dead := range replaced[f.id] {
			if dead.Contains(row) {
				return id, false
			}
		}
		return id, true
	}
}

// removedIndexes lists the segments that a merge replaces.
func removedIndexes(old []*keySegment) []uuid.UUID {
	var ids []uuid.UUID
	for _, seg := range old {
		ids = append(ids, seg.meta.UUID)
	}
	return slices.Clip(ids)
}
