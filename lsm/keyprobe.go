package lsm

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"sort"

	"github.com/flightd/flightd/lsm/keyfilter"
	"github.com/flightd/flightd/object"
)

// probeKeys is how many keys are taken from a run at a time to look for them in a generation: those that its filter lets
// pass are copied.
const probeKeys = 1 << 16

// openKeyFilter opens the filter of the generation in a folder, nil when it has none.
func openKeyFilter(ctx context.Context, st object.Store, dir string) (*keyfilter.Filter, error) {
	f, err := keyfilter.Open(ctx, st, path.Join(dir, keyFilterFile))
	if errors.Is(err, object.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

// filter returns a filter that has the keys of the run.
func (r *keyRun) filter() *keyfilter.Filter {
	f := keyfilter.New(r.Len())
	for i := range r.Len() {
		f.Add(r.hash(i))
	}
	return f
}

// hash returns the hash of the i-th key.
func (r *keyRun) hash(i int) uint64 {
	if r.codec.wide {
		return keyfilter.Bytes(r.wide[i])
	}
	return keyfilter.Int(r.ints[i])
}

// hashOf returns the hash of the i-th key of a column.
func (k keyColumn) hashOf(i int) uint64 {
	if k.wide != nil {
		return keyfilter.Bytes(k.wide(i))
	}
	return keyfilter.Int(k.ints[i])
}

// walkShare is how many keys a generation may have for each that is looked for, for all of them to be walked over: two or
// three nanoseconds for each. To ask the filter takes 25 for a key, and the search of the few that pass as much again.
const walkShare = 8

// dense returns a part of the run that is looked for without the filter, and its place, when there is such a part: keys of
// 64 bits that lie in the generation's range and are not far fewer than its own.
func (g *generation) dense(run *keyRun) (part *keyRun, first int) {
	if g.bounds == nil || run.codec.wide {
		return nil, 0
	}
	first, end := run.between(g.bounds)
	if n := int64(end - first); n == 0 || n*walkShare < g.keys.Rows() {
		return nil, 0
	}
	return &keyRun{codec: run.codec, ints: run.ints[first:end]}, first
}

// possible calls fn with those keys of a run that the generation may have, in order and in parts, and with the places
// that the keys of a part have in the run.
func (g *generation) possible(run *keyRun, fn func(part *keyRun, places []int) error) error {
	if g.bounds == nil {
		return nil
	}
	first, end := run.between(g.bounds)
	for first < end {
		part := &keyRun{codec: run.codec}
		var places []int
		for stop := min(first+probeKeys, end); first < stop; first++ {
			if g.filter != nil && !g.filter.Has(run.hash(first)) {
				continue
			}
			places = append(places, first)
			if run.codec.wide {
				part.wide = append(part.wide, run.wide[first])
			} else {
				part.ints = append(part.ints, run.ints[first])
			}
		}
		if len(places) == 0 {
			continue
		}
		if err := fn(part, places); err != nil {
			return err
		}
	}
	return nil
}

// between returns the places of the keys that lie between bounds, which has the least and the greatest.
func (r *keyRun) between(bounds *keyRun) (first, end int) {
	if r.codec.wide {
		low, high := bounds.wide[0], bounds.wide[1]
		first, _ = slices.BinarySearchFunc(r.wide, low, bytes.Compare)
		return first, first + sort.Search(len(r.wide)-first, func(i int) bool { return bytes.Compare(r.wide[first+i], high) > 0 })
	}
	low, high := bounds.ints[0], bounds.ints[1]
	first, _ = slices.BinarySearch(r.ints, low)
	return first, first + sort.Search(len(r.ints)-first, func(i int) bool { return r.ints[first+i] > high })
}
