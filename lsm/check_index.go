package lsm

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"path"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/btree"
	"github.com/flightd/flightd/manifest"
)

// complete checks that a BTREE has exactly the rows of the fragments that it covers, those that are deleted aside, with
// the values that they have. It compares sums of hashes, which need no memory, of entries and of rows.
func (c *checker) complete(ctx context.Context, root string, v *manifest.Version, x *manifest.Index) error {
	if x.Fragments == nil || len(x.Fields) != 1 {
		return nil
	}
	s := &tableSchema{arrow: v.Schema.Arrow(), lance: v.Schema}
	column := s.column(x.Fields[0])
	if column < 0 {
		return fmt.Errorf("it is over field %d, which the dataset does not have", x.Fields[0])
	}
	codec := newColumnCodec(s.arrow.Field(column), column)
	if codec == nil {
		return nil
	}
	rows, entries := newRowSum(codec), newRowSum(codec)
	for i := range v.Fragments {
		if f := &v.Fragments[i]; x.Fragments.Contains(uint32(f.ID)) {
			if err := rows.addFragment(ctx, c, root, v, f, s); err != nil {
				return nil // the check of the fragment has said so
			}
		}
	}
	entries.live, entries.seed = rows.live, rows.seed
	index, err := btree.Open(ctx, c.st, path.Join(root, x.Dir()), btree.Options{Files: indexFiles(*x)})
	if err != nil {
		return err
	}
	defer index.Close()
	err = index.Scan(ctx, func(values arrow.Array, ids []uint64) error {
		entries.add(values, func(i int) uint64 { return ids[i] })
		return nil
	})
	switch {
	case err != nil:
		return err
	case entries.rows != rows.rows:
		return fmt.Errorf("it has %d entries of rows that count, the fragments that it covers have %d such rows", entries.rows, rows.rows)
	case entries.sum != rows.sum:
		return errors.New("it has other values than the rows that it leads to")
	}
	return nil
}

// rowSum is the sum of the hashes of some rows, each of its address and its value in a column.
type rowSum struct {
	codec *keyCodec
	seed  maphash.Seed
	// live has the rows that count, by fragment.
	live map[uint64]*roaring.Bitmap
	rows int64
	sum  uint64
}

func newRowSum(codec *keyCodec) *rowSum {
	return &rowSum{codec: codec, seed: maphash.MakeSeed(), live: make(map[uint64]*roaring.Bitmap)}
}

// addFragment adds the rows of a fragment.
func (r *rowSum) addFragment(ctx context.Context, c *checker, root string, v *manifest.Version, m *manifest.Fragment, s *tableSchema) error {
	f, err := openFragment(ctx, c.st, root, v, m, s)
	if err != nil {
		return err
	}
	defer f.unref()
	live := roaring.New()
	live.AddRange(0, uint64(f.rows))
	if f.hidden != nil {
		live.AndNot(f.hidden)
	}
	r.live[f.id] = live
	sc := f.scan(s, r.codec.cols, 0, f.rows, morselRows)
	defer sc.Close()
	first := f.id << 32
	for {
		rec, err := sc.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.add(rec.Column(0), func(i int) uint64 { return first + uint64(i) })
		first += uint64(rec.NumRows())
		rec.Release()
	}
}

// add adds those of some rows that count.
func (r *rowSum) add(values arrow.Array, address func(i int) uint64) {
	keys := r.codec.normaliseArray(values, nil)
	for i := range values.Len() {
		id := address(i)
		if live := r.live[id>>32]; live == nil || !live.Contains(uint32(id)) {
			continue
		}
		r.rows++
		switch {
		case values.IsNull(i):
			r.sum += maphash.Comparable(r.seed, [2]uint64{id})
		case keys.wide != nil:
			r.sum += maphash.Comparable(r.seed, [3]uint64{id, maphash.Bytes(r.seed, keys.wide(i))})
		default:
			r.sum += maphash.Comparable(r.seed, [3]uint64{id, uint64(keys.ints[i]), 1})
		}
	}
}
