package lsm

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/flightd/flightd/memindex"
)

// memVector is an index over a column of vectors that a memtable keeps while it is written.
type memVector struct {
	vectorModel
	// schema is one that has the column, in which it is number column.
	schema *tableSchema
	column int
	index  *memindex.IVFPQ
	// broken is set when the index lacks rows, because the values of a column that is younger than they could not be made.
	broken atomic.Bool
}

// newMemVector returns an empty index, nil if the schema does not have its column.
func newMemVector(m vectorModel, now *tableSchema) *memVector {
	c := now.column(m.entry.Fields[0])
	if c < 0 {
		return nil
	}
	if dim, ok := memindex.VectorType(now.arrow.Field(c).Type); !ok || dim != m.ivf.Dim() {
		return nil
	}
	return &memVector{vectorModel: m, schema: now, column: c, index: memindex.NewIVFPQ(m.ivf)}
}

// add puts the rows of a batch in.
func (c *memVector) add(b memBatch) {
	if values := b.indexed(c.entry.Fields[0], c.schema, c.column, &c.broken); values != nil {
		c.index.Add(values, b.first)
		values.Release()
	}
}

// addVectors puts batches into the indexes over vectors and returns the memory that they grew by. It needs no lock: readers of them do
// not look behind the batches that are published as being in the indexes.
func (m *memtable) addVectors(batches []memBatch) (grown int64) {
	for _, c := range m.vectors {
		before := c.index.MemoryBytes()
		for _, b := range batches {
			c.add(b)
		}
		grown += c.index.MemoryBytes() - before
	}
	return grown
}

// vectorsOver returns the indexes over the column of vectors with a field id that have all rows of the batches that are in the
// indexes.
func (m *memtable) vectorsOver(field int32) []*memVector {
	var out []*memVector
	for _, c := range m.vectors {
		if c.entry.Fields[0] == field && !c.broken.Load() {
			out = append(out, c)
		}
	}
	return out
}

// keptVector returns the index that the memtable keeps with a model, nil without one.
func (m *memtable) keptVector(x vectorModel) *memVector {
	for _, c := range m.vectorsOver(x.entry.Fields[0]) {
		if c.id == x.id && strings.EqualFold(c.entry.Name, x.entry.Name) {
			return c
		}
	}
	return nil
}

// keepsVectors reports whether the memtable keeps what one that is begun now would keep.
func (t *Table) keepsVectors(m *memtable, b *base) bool {
	models := t.maintained(b)
	return len(models) == len(m.vectors) && !slices.ContainsFunc(models, func(x vectorModel) bool { return m.keptVector(x) == nil })
}

// baseNow returns the base that readers have, without a reference: what it consists of may be closed, its models may not. It returns
// nil for a table that is being made.
func (t *Table) baseNow() *base {
	if set := t.set.Load(); set != nil {
		return set.base
	}
	return nil
}

// maintained returns the models of the indexes that memtables keep while they are written.
func (t *Table) maintained(b *base) []vectorModel {
	return slices.DeleteFunc(t.vectorModels(b), func(x vectorModel) bool { return !t.entry.maintains(x.entry.Name) })
}
