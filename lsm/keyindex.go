package lsm

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"iter"
	"path"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
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

// keySource is a sorted stream of keys with the row addresses that they will have in the base.
type keySource struct {
	next  func() (keyBatch, error, bool)
	stop  func()
	codec *keyCodec
	// address translates an id of the source, and says whether the row still lives.
	address func(id uint64) (uint64, bool)

	batch keyBatch
	keys  keyColumn
	at    int
	err   error
	rank  int // among the sources, to make the order total
}

// keyBatch is some consecutive entries of a BTREE.
type keyBatch struct {
	values arrow.Array
	ids    []uint64
}

// newKeySource returns a source over a BTREE.
func newKeySource(ctx context.Context, codec *keyCodec, x *btree.Index, address func(uint64) (uint64, bool)) *keySource {
	stopped := errors.New("stopped")
	seq := func(yield func(keyBatch, error) bool) {
		err := x.Scan(ctx, func(values arrow.Array, ids []uint64) error {
			if !yield(keyBatch{values, ids}, nil) {
				return stopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(keyBatch{}, err)
		}
	}
	s := &keySource{codec: codec, address: address}
	s.next, s.stop = iter.Pull2(iter.Seq2[keyBatch, error](seq))
	return s
}

// advance moves to the next entry whose row lives, and reports whether there is one.
func (s *keySource) advance() bool {
	for s.at++; ; s.at++ {
		for s.at >= len(s.batch.ids) {
			b, err, ok := s.next()
			if !ok || err != nil {
				s.err = err
				return false
			}
			s.batch, s.at = b, 0
			s.keys = s.codec.normaliseArray(b.values, nil)
		}
		if _, ok := s.address(s.batch.ids[s.at]); ok {
			return true
		}
	}
}

// keyHeap orders sources by their current key.
type keyHeap []*keySource

// Len implements heap.Interface.
func (h keyHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h keyHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	var c int
	if a.keys.wide != nil {
		c = bytes.Compare(a.keys.wide(a.at), b.keys.wide(b.at))
	} else {
		c = cmp.Compare(a.keys.ints[a.at], b.keys.ints[b.at])
	}
	return c < 0 || c == 0 && a.rank < b.rank
}

// Swap implements heap.Interface.
func (h keyHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *keyHeap) Push(x any) { *h = append(*h, x.(*keySource)) }

// Pop implements heap.Interface.
func (h *keyHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// mergeKeys writes the entries of all sources, in key order, to a BTREE. It holds one page of each in memory.
func mergeKeys(ctx context.Context, codec *keyCodec, sources []*keySource, w *btree.Writer) error {
	var h keyHeap
	for i, s := range sources {
		s.rank, s.at = i, -1
		if s.advance() {
			h = append(h, s)
		} else if s.err != nil {
			return s.err
		}
	}
	heap.Init(&h)
	b := array.NewBuilder(memory.DefaultAllocator, codec.typ)
	defer b.Release()
	var ids []uint64
	flush := func() error {
		values := b.NewArray()
		defer values.Release()
		err := w.Add(ctx, values, ids)
		ids = ids[:0]
		return err
	}
	for len(h) > 0 {
		s := h[0]
		if s.keys.wide != nil {
			appendWide(b, s.keys.wide(s.at))
		} else {
			appendInt(b, s.keys.ints[s.at])
		}
		to, _ := s.address(s.batch.ids[s.at])
		if ids = append(ids, to); len(ids) == mergeBatch {
			if err := flush(); err != nil {
				return err
			}
		}
		if s.advance() {
			heap.Fix(&h, 0)
		} else if heap.Pop(&h); s.err != nil {
			return s.err
		}
	}
	return flush()
}

// mergeBatch is how many entries go to a BTREE writer at a time: one of its pages.
const mergeBatch = 4096

// keySegments returns the base's own segments that a merge should take in: all of them once there are too many.
func keySegments(b *base) []*keySegment {
	if len(b.indexes) < maxKeySegments {
		return nil
	}
	return b.indexes
}

// writeKeyIndex writes a segment of the base's key index over the appended fragments, and over those of the
// segments in old, whose place it takes.
func (s *shard) writeKeyIndex(ctx context.Context, m *merged, old []*keySegment, set *layerSet, appended []uint64) (manifest.Index, error) {
	codec, b := m.schema.codec, set.base()
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
	var sources []*keySource
	defer func() {
		for _, s := range sources {
			s.stop()
		}
	}()
	for _, seg := range old {
		for _, f := range b.frags {
			if seg.meta.Fragments.Contains(uint32(f.id)) {
				x.Fragments.Add(uint32(f.id))
			}
		}
		sources = append(sources, newKeySource(ctx, codec, seg.index, b.addressIn(seg, set.layers[0].mask.flushed)))
	}
	for i, l := range m.gens {
		live := m.live[i]
		sources = append(sources, newKeySource(ctx, codec, l.layer.(*generation).keys, func(id uint64) (uint64, bool) {
			if !live.Contains(uint32(id)) {
				return 0, false
			}
			return address(m.place(i, uint32(id)), appended), true
		}))
	}
	w, err := btree.Create(ctx, s.db.st, path.Join(s.table.root, x.Dir()), codec.typ, btree.WriterOptions{})
	if err != nil {
		return x, err
	}
	if err := mergeKeys(ctx, codec, sources, w); err != nil {
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

// addressIn returns which entries of a segment still count: those of rows that the version has, that the segment
// covers and that no generation replaced.
func (b *base) addressIn(seg *keySegment, replaced *rowMask) func(id uint64) (uint64, bool) {
	return func(id uint64) (uint64, bool) {
		f, row := b.byID[id>>32], uint32(id)
		if f == nil || !seg.meta.Fragments.Contains(uint32(f.id)) || f.hides(row) {
			return 0, false
		}
		dead := replaced.fragment(f.id)
		return id, dead == nil || !dead.Contains(row)
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
