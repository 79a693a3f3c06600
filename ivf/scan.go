package ivf

import (
	"context"
	"errors"
	"fmt"

	"github.com/flightd/flightd/vector"
)

// Scan calls fn with the rows of the index, partition by partition and in pieces: their ids, and what is stored of them, in rows; in
// IVF_FLAT that is the bytes of their elements. The slices are fn's to change and valid during the call only.
func (x *Index) Scan(ctx context.Context, fn func(part int, ids []uint64, codes []byte) error) error {
	for p := range x.Partitions() {
		err := x.scanPartition(ctx, p, func(ids []uint64, codes []byte) error { return fn(p, ids, codes) })
		if err != nil {
			return err
		}
	}
	return nil
}

// scanPartition is Scan for one partition. It leaves the cache alone.
func (x *Index) scanPartition(ctx context.Context, number int, fn func(ids []uint64, codes []byte) error) error {
	if x.starts[number] == x.starts[number+1] {
		return nil
	}
	err := x.pieces(ctx, number, func(p *partition) error {
		ids, codes := p.stored(x)
		return fn(ids, codes)
	})
	if err != nil {
		return fmt.Errorf("scan index %s: %w", x.dir, err)
	}
	return nil
}

// stored returns copies of the ids, and of what is stored of the rows, in rows.
func (p *partition) stored(x *Index) (ids []uint64, codes []byte) {
	ids = append([]uint64(nil), p.ids...)
	codes = make([]byte, 0, len(ids)*x.width)
	switch {
	case x.kind != PQ && p.codes != nil:
		codes = append(codes, p.codes...)
	case p.codes != nil:
		codes = codes[:len(p.codes)]
		vector.TransposeCodes(codes, p.codes, x.width)
	case p.halves != nil:
		for _, h := range p.halves {
			codes = append(codes, byte(h), byte(h>>8))
		}
	default:
		for _, v := range p.floats {
			codes = x.elem.append(codes, v)
		}
	}
	return ids, codes
}

// Verify reads both files in full, checks their checksums if they have some, and that every partition can be read. It calls each, unless
// that is nil, with the id of every row; an error of its ends the check.
func (x *Index) Verify(ctx context.Context, each func(id uint64) error) error {
	err := errors.Join(x.index.Verify(ctx), x.data.Verify(ctx))
	for number := 0; err == nil && number < x.Partitions(); number++ {
		err = x.verifyPartition(ctx, number, each)
	}
	if err != nil {
		return fmt.Errorf("verify index %s: %w", x.dir, err)
	}
	return nil
}

func (x *Index) verifyPartition(ctx context.Context, number int, each func(id uint64) error) error {
	return x.pieces(ctx, number, func(p *partition) error {
		for i, v := range p.floats {
			if v-v != 0 {
				return x.corrupt(dataFile, fmt.Errorf("row %d of partition %d has element %v", i/x.dim, number, v))
			}
		}
		if each == nil {
			return nil
		}
		for _, id := range p.ids {
			if err := each(id); err != nil {
				return err
			}
		}
		return nil
	})
}
