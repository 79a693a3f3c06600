package lsm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"

	"github.com/RoaringBitmap/roaring/v2"
)

const (
	// maxPoints is how many points a scan looks up one by one, layer by layer. Beyond it the masks, which each query
	// that needs them extends and all share, are cheaper than the lists of keys that are still to be found.
	maxPoints = 1 << 16
	// maxKeyRanges bounds the ranges of a scan: each costs a search in each layer.
	maxKeyRanges = 1 << 10
	// denseShare is the part of a fragment's rows from which on all are read: picking single rows out of pages that
	// are read anyway gains nothing, and DuckDB filters them at 100 M/s.
	denseShare = 4
	// pickGap is how many rows between two that are wanted are read along with them: below it one morsel costs less
	// than two.
	pickGap = 1 << 11
)

// ScanPlan tells how a scan finds its rows.
type ScanPlan struct {
	// Keyed says that the scan was given a set of keys that helps; else all rows are read.
	Keyed bool
	// Column is the name of the column by whose values the scan finds rows; it is empty when it does so by the key.
	Column string
	// Points and Ranges count what is in the set.
	Points, Ranges int
	Layers         []LayerPlan
}

// LayerPlan tells how a scan finds the rows of one layer, or of the part of it that is found in one way.
type LayerPlan struct {
	// Layer is memtable, generation or base.
	Layer string
	// Access is what finds the rows: key index, key column, column index, column, or full scan.
	Access string
	// Rows is how many rows may be read; those that turn out to be replaced or deleted are counted as far as the
	// scan did not find that out yet.
	Rows int64
}

// What finds the rows of a layer.
const (
	byKeyIndex    = "key index"
	byKeyColumn   = "key column"
	byColumnIndex = "column index"
	byColumn      = "column"
	byFullScan    = "full scan"
)

// note adds to the plan what is read of a layer.
func (sc *Scan) note(layer, access string, rows int64) {
	sc.plan.Layers = append(sc.plan.Layers, LayerPlan{Layer: layer, Access: access, Rows: rows})
}

// Plan tells how the scan finds its rows.
func (sc *Scan) Plan() ScanPlan { return sc.plan }

// helps reports whether a scan should look at the set at all.
func (k *KeySet) helps() bool { return k != nil && len(k.ranges) <= maxKeyRanges }

// scanPoints adds the rows of some keys. A key is settled by the newest layer that has it, so no masks are needed.
func (v *View) scanPoints(ctx context.Context, sc *Scan, p projection, run *keyRun) error {
	err := v.lookUp(run, func(l layer, run *keyRun) ([]bool, error) {
		found, picked := make([]bool, run.Len()), selection{}
		err := l.lookup(ctx, run, v.lsn, func(key int, fragment uint64, row uint32) {
			found[key] = true
			if !v.hidden(l, fragment, row) {
				picked.add(fragment, row)
			}
		})
		if err != nil {
			return nil, err
		}
		sc.addPicked(v, l, p, picked, nil)
		if b, ok := l.(*base); ok {
			only := &KeySet{view: v, by: run.codec, points: run}
			for _, f := range b.uncovered {
				sc.note("base", byKeyColumn, f.live)
				sc.addFile(f, p, fileRows{hidden: []*roaring.Bitmap{f.hidden}, keys: only})
			}
		}
		return found, nil
	})
	if err != nil {
		return fmt.Errorf("scan table %q: %w", v.table.name, err)
	}
	return nil
}

// scanRanges adds the rows of a layer in front of the base whose keys may be in a set.
func (v *View) scanRanges(ctx context.Context, sc *Scan, p projection, k *KeySet, l layer, mask *rowMask) error {
	switch x := l.(type) {
	case *generation:
		picked := selection{}
		dense, err := k.each(ctx, x.keys, x.frag.rows, func(id uint64) { picked.add(0, uint32(id)) })
		if err != nil {
			return err
		}
		if dense {
			sc.note("generation", byFullScan, x.frag.live)
			sc.addFile(x.frag, p, fileRows{hidden: []*roaring.Bitmap{x.frag.hidden, mask.fragment(0)}})
			return nil
		}
		sc.addPicked(v, x, p, picked, rowMasks{mask})
	case *memtable:
		sc.scanMemRange(v.lsn, p, k, x, mask)
	}
	return nil
}

// scanMemRange adds the rows of a memtable up to an LSN whose keys are in a set.
func (sc *Scan) scanMemRange(lsn LSN, p projection, k *KeySet, m *memtable, mask *rowMask) {
	rows := m.rows.Load().upTo(lsn)
	var dead *roaring.Bitmap
	tail := len(rows.tail().batches) > 0
	if tail { // the indexes follow, and rows of the tail may have replaced some that these have
		rows, dead = m.at(lsn)
	}
	only, ok := m.rowsIn(rows, k)
	if ok {
		only.Or(rows.tail().withKeys(k))
	} else {
		if !tail {
			rows, dead = m.at(lsn)
		}
		only = rows.withKeys(k)
	}
	sc.addMem(m, rows, p, memPick{only: only, picked: true, hidden: []*roaring.Bitmap{dead, mask.fragment(0)}})
}

// scanBase is scanRanges for the base: what an index covers comes from it, the other fragments are read by their key
// columns.
func (v *View) scanBase(ctx context.Context, sc *Scan, p projection, k *KeySet, masks rowMasks) error {
	b := v.set.base
	whole := make(map[uint64]bool)
	picked := selection{}
	for _, s := range b.indexes {
		dense, err := k.each(ctx, s.index, s.index.Rows(), func(id uint64) {
			if f := b.live(s, id); f != nil {
				picked.add(f.id, uint32(id))
			}
		})
		if err != nil {
			return err
		}
		for _, f := range b.frags {
			if dense && s.meta.Fragments.Contains(uint32(f.id)) {
				whole[f.id] = true
			}
		}
	}
	for _, f := range b.frags {
		if whole[f.id] {
			delete(picked, f.id)
			sc.note("base", byFullScan, f.live)
			sc.addFile(f, p, fileRows{hidden: masks.fragment(f.id, f.hidden)})
		}
	}
	for _, f := range b.uncovered {
		sc.note("base", byKeyColumn, f.live)
		sc.addFile(f, p, fileRows{hidden: masks.fragment(f.id, f.hidden), keys: k})
	}
	if len(whole) == 0 || len(picked) > 0 {
		sc.addPicked(v, b, p, picked, masks)
	}
	return nil
}

// each calls fn with the ids of an index whose keys are in the set. It returns dense, before most of the calls, when
// the ranges have so many of the rows that all of them should be read.
func (k *KeySet) each(ctx context.Context, x valueIndex, rows int64, fn func(id uint64)) (dense bool, err error) {
	left := rows / denseShare
	for i := range k.ranges {
		dense, err := k.eachInRange(ctx, x, &k.ranges[i], &left, fn)
		if dense || err != nil {
			return dense, err
		}
	}
	if k.points.Len() == 0 {
		return false, nil
	}
	keys := k.points.array()
	defer keys.Release()
	unique := k.by == k.view.schema.codec // else many rows may have one value
	err = x.Lookup(ctx, keys, func(_ int, id uint64) error {
		if left--; left < 0 && !unique {
			return errDense
		}
		fn(id)
		return nil
	})
	if errors.Is(err, errDense) {
		return true, nil
	}
	return false, err
}

// count returns about how many rows of an index are in the set, without reading any.
func (k *KeySet) count(x valueIndex) int64 {
	n := int64(k.points.Len())
	for i := range k.ranges {
		from, to, values := k.ranges[i].bounds(k.by)
		if _, most, err := x.CountRange(from, to); err == nil {
			n += most
		}
		values.Release()
	}
	return n
}

// errDense ends a walk through an index.
var errDense = errors.New("most rows are wanted")

// eachInRange is each for one range. left is how many rows may still be called for.
func (k *KeySet) eachInRange(ctx context.Context, x valueIndex, r *keyRange, left *int64, fn func(id uint64)) (dense bool, err error) {
	from, to, values := r.bounds(k.by)
	defer values.Release()
	least, _, err := x.CountRange(from, to)
	if err != nil {
		return false, err
	}
	if least > *left {
		return true, nil
	}
	err = x.Range(ctx, from, to, func(ids []uint64) error {
		if *left -= int64(len(ids)); *left < 0 {
			return errDense
		}
		for _, id := range ids {
			fn(id)
		}
		return nil
	})
	if errors.Is(err, errDense) {
		return true, nil
	}
	return false, err
}

// selection is some rows of a layer, by fragment.
type selection map[uint64]*roaring.Bitmap

// add puts a row in.
func (s selection) add(fragment uint64, row uint32) {
	b := s[fragment]
	if b == nil {
		b = roaring.New()
		s[fragment] = b
	}
	b.Add(row)
}

// rows counts them.
func (s selection) rows() int64 {
	n := int64(0)
	for _, b := range s {
		n += int64(b.GetCardinality())
	}
	return n
}

// addPicked adds rows that an index found in a layer.
func (sc *Scan) addPicked(v *View, l layer, p projection, picked selection, masks rowMasks) {
	switch x := l.(type) {
	case *memtable:
		sc.addMem(x, x.rows.Load().upTo(v.lsn), p, memPick{only: picked[0], picked: true})
	case *generation:
		sc.note("generation", byKeyIndex, picked.rows())
		sc.addRows(x.frag, p, picked[0], masks.fragment(0, x.frag.hidden))
	case *base:
		if len(x.indexes) > 0 {
			sc.note("base", byKeyIndex, picked.rows())
		}
		// In an order of its own: the parts of a scan count what it consists of.
		for _, id := range slices.Sorted(maps.Keys(picked)) {
			f := x.fragment(id)
			sc.addRows(f, p, picked[id], masks.fragment(id, f.hidden))
		}
	}
}

// addRows adds single rows of a fragment, but for those that are hidden, near ones together.
func (sc *Scan) addRows(f *fragment, p projection, rows *roaring.Bitmap, hidden []*roaring.Bitmap) {
	if rows == nil {
		return
	}
	add := func(first, last uint32) {
		sc.units = append(sc.units, &fileUnit{frag: f, projection: p, first: int64(first), rows: int64(last-first) + 1,
			from: fileRows{hidden: hidden, only: rows}})
	}
	it := rows.Iterator()
	first := it.Next()
	last := first
	for it.HasNext() {
		row := it.Next()
		if row-last > pickGap || row-first >= morselRows {
			add(first, last)
			first = row
		}
		last = row
	}
	add(first, last)
}

// pickLive returns the rows of a bitmap among the n from first on that none of the others has, as numbers from 0.
func pickLive(first, n uint32, only *roaring.Bitmap, hidden []*roaring.Bitmap) []uint32 {
	live := []uint32{}
	if only == nil {
		return live
	}
	it := only.Iterator()
	it.AdvanceIfNeeded(first)
next:
	for it.HasNext() {
		row := it.Next()
		if uint64(row) >= uint64(first)+uint64(n) {
			break
		}
		for _, h := range hidden {
			if h != nil && h.Contains(row) {
				continue next
			}
		}
		live = append(live, row-first)
	}
	return live
}

// withKeys returns the rows whose keys are in a set.
func (r *memRows) withKeys(k *KeySet) *roaring.Bitmap {
	out := roaring.New()
	var scratch []int64
	for _, b := range r.batches {
		keys := b.schema.codec.normalise(b.rec, scratch[:0])
		scratch = keys.ints
		for i := range int(b.rec.NumRows()) {
			if k.contains(keys, i) {
				out.Add(b.first + uint32(i))
			}
		}
	}
	return out
}

// newest calls fn for the newest row of each key of a run that the prefix has.
func (r *memRows) newest(run *keyRun, fn func(key int, row uint32)) {
	done, left := make([]bool, run.Len()), run.Len()
	var scratch []int64
	for j := len(r.batches) - 1; j >= 0 && left > 0; j-- {
		b := r.batches[j]
		keys := b.schema.codec.normalise(b.rec, scratch[:0])
		scratch = keys.ints
		for i := int(b.rec.NumRows()) - 1; i >= 0; i-- {
			if k, ok := run.find(keys, i); ok && !done[k] {
				done[k] = true
				left--
				fn(k, b.first+uint32(i))
			}
		}
	}
}

// batchesOf returns the batches that have any of some rows, with others between them at the most. Single rows may lie in few of
// many batches: the others are not even looked at. REQUIRES: there are rows, and the prefix has them.
func (r *memRows) batchesOf(only *roaring.Bitmap) []memBatch {
	between := r.batches[r.batchOf(only.Minimum()) : r.batchOf(only.Maximum())+1]
	if only.GetCardinality() >= uint64(len(between))/denseShare {
		return between
	}
	var some []memBatch
	end := uint64(0)
	for it := only.Iterator(); it.HasNext(); {
		if row := it.Next(); uint64(row) >= end {
			b := r.batches[r.batchOf(row)]
			some = append(some, b)
			end = uint64(b.first) + uint64(b.rec.NumRows())
		}
	}
	return some
}

// batchOf returns the place of the batch that has a row.
func (r *memRows) batchOf(row uint32) int {
	return sort.Search(len(r.batches), func(i int) bool { return r.batches[i].first > row }) - 1
}

// keyLive reads the key columns of rows of a fragment and returns which of them, numbered from 0, are in the set and
// in none of the bitmaps.
func (u *fileUnit) keyLive(ctx context.Context) ([]uint32, error) {
	codec := u.from.keys.by
	sc := u.frag.scan(u.view.schema, codec.cols, u.first, u.rows, morselRows)
	defer sc.Close()
	whole := codec.alone()
	live := []uint32{}
	base, at := uint32(u.first), uint32(0)
	for {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return live, nil
		}
		if err != nil {
			return nil, err
		}
		keys := whole.normalise(rec, nil)
	rows:
		for i := range int(rec.NumRows()) {
			if !u.from.keys.contains(keys, i) {
				continue
			}
			row := at + uint32(i)
			for _, h := range u.from.hidden {
				if h != nil && h.Contains(base+row) {
					continue rows
				}
			}
			live = append(live, row)
		}
		at += uint32(rec.NumRows())
		rec.Release()
	}
}
