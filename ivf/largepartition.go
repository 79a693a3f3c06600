package ivf

import (
	"context"
	"fmt"

	"github.com/flightd/flightd/vector"
)

// largeBytes is the size from which on a partition is never in memory as a whole: it is written, merged and searched in pieces of about half that
// size, of which there are up to four at a time beside a page of the file.
const largeBytes = 8 << 20

// addLarge is Add for all rows of a large partition. Its codes stand in columns, so that the first of them in the file are the first bytes of all its
// rows: they are written in pieces, and for each piece each is asked for the rows once more. It is asked for their number first.
func (w *Writer) addLarge(ctx context.Context, part int, each func(add func(ids []uint64, codes []byte) error) error) error {
	n := 0
	if err := each(func(ids []uint64, _ []byte) error { n += len(ids); return nil }); err != nil {
		return err
	}
	if err := w.enter(ctx, part, n); err != nil {
		return err
	}
	if err := w.flush(ctx); err != nil {
		return err
	}
	step := max(int(w.large)/2/(w.width+8), 1)
	for at := 0; at < n; at += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := newColumnPiece(n, w.width, at, min(at+step, n))
		if err := each(c.take); err != nil {
			return err
		}
		if c.seen != n {
			return fmt.Errorf("add to index %s: partition %d has %d rows, and had %d before", w.dir, part, c.seen, n)
		}
		if err := w.write(ctx, c.ids, c.codes); err != nil {
			return err
		}
	}
	return nil
}

// columnPiece gathers what the file has as rows [from, to) of a partition of n rows whose codes stand in columns: the ids of these rows, and a
// run of bytes that are those of other rows.
type columnPiece struct {
	n, width, from, to int
	ids                []uint64
	codes              []byte
	seen               int
}

func newColumnPiece(n, width, from, to int) *columnPiece {
	return &columnPiece{n: n, width: width, from: from, to: to, ids: make([]uint64, to-from), codes: make([]byte, (to-from)*width)}
}

// take looks at the next rows of the partition.
func (c *columnPiece) take(ids []uint64, codes []byte) error {
	first, end := c.seen, c.seen+len(ids)
	c.seen = end
	if end > c.n {
		return nil // addLarge says so
	}
	if lo, hi := max(first, c.from), min(end, c.to); lo < hi {
		copy(c.ids[lo-c.from:], ids[lo-first:hi-first])
	}
	begin, stop := c.from*c.width, c.to*c.width
	for j := begin / c.n; j*c.n < stop; j++ {
		// Byte j of row i is byte j·n+i of the partition.
		lo, hi := max(begin-j*c.n, first), min(stop-j*c.n, end)
		if lo >= hi {
			continue
		}
		out := c.codes[j*c.n+lo-begin:]
		for i := lo; i < hi; i++ {
			out[i-lo] = codes[(i-first)*c.width+j]
		}
	}
	return nil
}

// isLarge reports whether a partition is one to take in pieces.
func (x *Index) isLarge(number int) bool {
	return (x.starts[number+1]-x.starts[number])*int64(x.width+8) > x.large
}

// pieceRows is how many rows of a large partition are taken at a time.
func (x *Index) pieceRows() int64 {
	return max(x.large/2/int64(x.width+8)/vector.BlockRows*vector.BlockRows, vector.BlockRows)
}

// pieces calls fn with the rows of a partition, as a whole or, of a large one, piece by piece. A piece is valid during the call only.
func (x *Index) pieces(ctx context.Context, number int, fn func(p *partition) error) error {
	if !x.isLarge(number) {
		p, err := x.load(ctx, number)
		if err != nil {
			return x.corrupt(dataFile, err)
		}
		defer p.release()
		return fn(p)
	}
	n := x.starts[number+1] - x.starts[number]
	for at := int64(0); at < n; at += x.pieceRows() {
		p, err := x.loadPiece(ctx, number, at, min(at+x.pieceRows(), n))
		if err != nil {
			return x.corrupt(dataFile, err)
		}
		err = fn(p)
		p.release()
		if err != nil {
			return err
		}
	}
	return nil
}

// loadPiece reads rows [from, to) of a partition.
func (x *Index) loadPiece(ctx context.Context, number int, from, to int64) (*partition, error) {
	first := x.starts[number]
	if !x.columns {
		return x.loadRows(ctx, number, first+from, to-from)
	}
	p := &partition{ids: make([]uint64, 0, to-from), codes: make([]byte, 0, int(to-from)*x.width)}
	p.refs.Store(1)
	if err := x.readIDs(ctx, first+from, to-from, p); err != nil {
		return nil, err
	}
	n := x.starts[number+1] - first
	for j := range int64(x.width) {
		if err := x.readBytes(ctx, first*int64(x.width)+j*n+from, to-from, p); err != nil {
			return nil, err
		}
	}
	if len(p.ids) != cap(p.ids) || len(p.codes) != cap(p.codes) {
		return nil, fmt.Errorf("partition %d has %d ids and %d bytes of codes in %d rows", number, len(p.ids), len(p.codes), to-from)
	}
	return p, nil
}

// readIDs appends the ids of n rows of the file.
func (x *Index) readIDs(ctx context.Context, first, n int64, p *partition) error {
	return x.scanColumns(ctx, []int{0}, first, n, func(r rows) error {
		p.ids = append(p.ids, r.ids...)
		return nil
	})
}

// readBytes appends n bytes of the codes of the file, from a byte on.
func (x *Index) readBytes(ctx context.Context, first, n int64, p *partition) error {
	width := int64(x.width)
	row, skip := first/width, first%width
	return x.scanColumns(ctx, []int{1}, row, (skip+n+width-1)/width, func(r rows) error {
		b := r.codes[min(skip, int64(len(r.codes))):]
		b = b[:min(n, int64(len(b)))]
		p.codes = append(p.codes, b...)
		n, skip = n-int64(len(b)), 0
		return nil
	})
}
