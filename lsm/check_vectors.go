package lsm

import (
	"bytes"
	"context"
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/flightd/flightd/internal/lancepb"
	"github.com/flightd/flightd/ivf"
	"github.com/flightd/flightd/manifest"
	"github.com/flightd/flightd/memindex"
	"github.com/flightd/flightd/vector"
)

// completeVectors checks that an index over vectors that flightd wrote has each row of the fragments that it covers once, where its
// vector belongs and with its code.
func (c *checker) completeVectors(ctx context.Context, root string, v *manifest.Version, x *manifest.Index, index *ivf.Index) error {
	var d lancepb.VectorIndexDetails
	if lancepb.Unwrap(x.Details, &d) != nil || d.RuntimeHints[modelHint] == "" || x.Fragments == nil || len(x.Fields) != 1 {
		return nil
	}
	s := &tableSchema{arrow: v.Schema.Arrow(), lance: v.Schema}
	column := s.column(x.Fields[0])
	if column < 0 {
		return fmt.Errorf("it is over field %d, which the dataset does not have", x.Fields[0])
	}
	if dim, ok := memindex.VectorType(s.arrow.Field(column).Type); !ok || dim != index.Model().Dim() {
		return fmt.Errorf("it is over vectors of %d numbers, the column has %s", index.Model().Dim(), s.arrow.Field(column).Type)
	}
	return c.vectorRows(ctx, root, v, x, index, s, column)
}

// checkedVectors is how many rows are compared with an index at a time: it is gone through once for as many.
const checkedVectors = 4 << 20

// vectorRows compares an index with the rows of the fragments that it covers.
func (c *checker) vectorRows(ctx context.Context, root string, v *manifest.Version, x *manifest.Index, index *ivf.Index, s *tableSchema, column int) error {
	var list []*manifest.Fragment
	for i := range v.Fragments {
		if f := &v.Fragments[i]; x.Fragments.Contains(uint32(f.ID)) {
			list = append(list, f)
		}
	}
	for len(list) > 0 {
		p := vectorPass{index: index, width: index.RowBytes(), parts: make(map[uint64][]int32), codes: make(map[uint64][]byte)}
		n, rows := 0, int64(0)
		for n < len(list) && (n == 0 || rows+list[n].Rows <= checkedVectors) {
			f := list[n]
			p.parts[f.ID], p.codes[f.ID] = make([]int32, f.Rows), make([]byte, f.Rows*int64(p.width))
			rows += f.Rows
			n++
		}
		if err := p.read(ctx); err != nil {
			return err
		}
		for _, m := range list[:n] {
			f, err := openFragment(ctx, c.st, root, v, m, s)
			if err != nil {
				return nil // the check of the fragment has said so
			}
			err = p.compare(ctx, f, s, column)
			f.unref()
			if err != nil {
				return err
			}
		}
		list = list[n:]
	}
	return nil
}

// vectorPass is what an index says of the rows of some fragments.
type vectorPass struct {
	index *ivf.Index
	width int
	// parts are one more than the partitions of the rows, 0 for those that are not in it.
	parts map[uint64][]int32
	codes map[uint64][]byte
}

// read goes through the index.
func (p *vectorPass) read(ctx context.Context) error {
	return p.index.Scan(ctx, func(part int, ids []uint64, codes []byte) error {
		for i, id := range ids {
			parts := p.parts[id>>32]
			if parts == nil {
				continue
			}
			row := int(uint32(id))
			if parts[row] > 0 {
				return fmt.Errorf("row %d of fragment %d is in it twice", row, id>>32)
			}
			parts[row] = int32(part) + 1
			copy(p.codes[id>>32][row*p.width:], codes[i*p.width:(i+1)*p.width])
		}
		return nil
	})
}

// compare looks at the rows of a fragment that are not deleted.
func (p *vectorPass) compare(ctx context.Context, f *fragment, s *tableSchema, column int) error {
	parts := p.parts[f.id]
	null := roaring.New() // what the feed leaves out
	null.AddRange(0, uint64(f.rows))
	err := newVectorFeed(sinkOf(func(ids []uint64, rows []float32) error {
		for _, id := range ids {
			null.Remove(uint32(id))
		}
		return p.compareRows(f.id, ids, rows)
	}), p.index.Model().Dim()).fragment(ctx, f, s, column, nil, func(row uint32) uint64 { return uint64(row) }, nil)
	for it := null.Iterator(); err == nil && it.HasNext(); {
		if row := it.Next(); !f.hides(row) && parts[row] > 0 {
			err = fmt.Errorf("row %d of fragment %d is in it, and has no vector", row, f.id)
		}
	}
	return err
}

// sinkOf is a function as a rowSink.
type sinkOf func(ids []uint64, rows []float32) error

// Add implements rowSink.
func (s sinkOf) Add(ctx context.Context, ids []uint64, rows []float32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s(ids, rows)
}

// compareRows compares rows of a fragment with the partitions and codes that the model gives them here.
func (p *vectorPass) compareRows(fragment uint64, ids []uint64, rows []float32) error {
	m := p.index.Model()
	dim, width := m.Dim(), m.CodeBytes()
	want := make([]int32, len(ids))
	m.Assign(rows, want)
	stored := make([]int32, len(ids))
	for i, id := range ids {
		stored[i] = p.parts[fragment][id] - 1
		if want[i] == stored[i] {
			continue
		}
		row := make([]float32, dim)
		m.Prepare(row, rows[i*dim:(i+1)*dim])
		by := m.Centroids().Metric()
		if want[i] < 0 || stored[i] < 0 || !near(vector.Distance(by, row, m.Centroids().Row(int(stored[i]))), vector.Distance(by, row, m.Centroids().Row(int(want[i])))) {
			return fmt.Errorf("row %d of fragment %d is in partition %d and belongs in %d (-1: in none)", id, fragment, stored[i], want[i])
		}
	}
	if m.PQ() == nil {
		return nil
	}
	codes := make([]byte, len(ids)*width)
	m.Encode(rows, stored, codes)
	for i, id := range ids {
		have, best := p.codes[fragment][int(id)*width:int(id+1)*width], codes[i*width:(i+1)*width]
		if stored[i] < 0 || bytes.Equal(have, best) {
			continue
		}
		row := make([]float32, dim)
		m.Prepare(row, rows[i*dim:(i+1)*dim])
		if m.Residual() {
			m.Centroids().Residuals(row, row, stored[i:i+1])
		}
		of := func(code []byte) float32 {
			out := make([]float32, dim)
			m.PQ().Decode(code, out)
			return vector.Distance(vector.L2, row, out)
		}
		if !near(of(have), of(best)) {
			return fmt.Errorf("row %d of fragment %d has the code of another vector", id, fragment)
		}
	}
	return nil
}

// near reports whether a distance is as good as the best: other machines, and programs, round differently, and choose another of two that are
// nearly the same.
func near(d, best float32) bool { return d <= best+0.02*max(best, -best)+1e-4 }
