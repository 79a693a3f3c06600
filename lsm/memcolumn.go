package lsm

import (
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/memindex"
)

// memColumn is an index over a column that a memtable keeps while it is written.
type memColumn struct {
	entry indexEntry
	// schema is one that has the column, in which it is number column.
	schema *tableSchema
	column int
	index  memindex.Index
	// broken is set when the index lacks rows, because the values of a column that is younger than they could not be made.
	broken atomic.Bool
}

// newMemtable returns an empty memtable of the table with one reference, and with the indexes that it keeps: those over vectors with the
// models that they have in a base, which may be nil.
func (t *Table) newMemtable(b *base) *memtable { return t.newMemtableOf(t.now(), b) }

// newMemtableOf is newMemtable for a schema that the table is about to have.
func (t *Table) newMemtableOf(now *tableSchema, b *base) *memtable {
	m := newMemtable(now.codec, t.db.budget)
	m.order.eager = t.db.opt.eagerOrder
	m.indexes = t.indexes.Load()
	for _, x := range *m.indexes {
		if c := newMemColumn(x, now); c != nil && t.entry.maintains(x.Name) {
			m.columns = append(m.columns, c)
		}
	}
	for _, x := range t.maintained(b) {
		if c := newMemVector(x, now); c != nil {
			m.vectors = append(m.vectors, c)
		}
	}
	return m
}

// newMemColumn returns an empty index, nil if the schema does not have its column, or has it as its key, and for one over vectors.
func newMemColumn(x indexEntry, now *tableSchema) *memColumn {
	c := now.column(x.Fields[0])
	if c < 0 || now.isKey(x.Fields) || x.Kind.isVector() {
		return nil
	}
	codec := newColumnCodec(now.arrow.Field(c), c)
	return &memColumn{entry: x, schema: now, column: c, index: memindex.NewBTree(codec.values())}
}

// values says how an index of a memtable compares the codec's values.
func (k *keyCodec) values() memindex.Values {
	if k.wide {
		return memindex.Values{Wide: wideKeys}
	}
	return memindex.Values{Ints: func(dst []int64, a arrow.Array) []int64 { return appendInts(dst, a) }}
}

// add puts the rows of a batch in.
func (c *memColumn) add(b memBatch) {
	if values := b.indexed(c.entry.Fields[0], c.schema, c.column, &c.broken); values != nil {
		c.index.Add(values, b.first)
		values.Release()
	}
}

// indexed returns the values of a column for an index of the memtable, which releases them, or nil. A batch of a younger schema may
// have lost the column: then no snapshot that has the batch can ask for it, and the index goes with the memtable. When values
// cannot be made the index is broken, and gets no more.
func (b *memBatch) indexed(field int32, s *tableSchema, column int, broken *atomic.Bool) arrow.Array {
	if broken.Load() || b.schema.column(field) < 0 && b.schema.lastField >= field {
		return nil
	}
	values, err := s.pick(b.schema, b.rec, column)
	if err != nil {
		broken.Store(true)
		return nil
	}
	return values
}

// addColumns puts a batch into the indexes over columns and returns the memory that they grew by.
func (m *memtable) addColumns(b memBatch) (grown int64) {
	for _, c := range m.columns {
		before := c.index.MemoryBytes()
		c.add(b)
		grown += c.index.MemoryBytes() - before
	}
	return grown
}

// columnOver returns the index over the column with a field id that has all rows, nil without one.
func (m *memtable) columnOver(field int32) *memColumn {
	for _, c := range m.columns {
		if c.entry.Fields[0] == field && !c.broken.Load() {
			return c
		}
	}
	return nil
}

// search returns the rows of a prefix with some rows that a query wants; dense is set when there are so many that all
// should be read.
func (c *memColumn) search(k *KeySet, rows uint32) (picked *roaring.Bitmap, dense bool) {
	picked = roaring.New()
	left := int(rows) / denseShare
	var found []uint32
	c.index.Search(k.query(), rows, func(row uint32) bool {
		if found = append(found, row); len(found) > left {
			// A row may have come twice.
			picked.AddMany(found)
			found = found[:0]
			left = int(rows)/denseShare - int(picked.GetCardinality())
		}
		return left >= 0
	})
	picked.AddMany(found)
	return picked, int(picked.GetCardinality()) > int(rows)/denseShare
}

// query returns the set as an index of a memtable takes it. REQUIRES: the set is sealed.
func (k *KeySet) query() *memindex.Query {
	q := &memindex.Query{Ints: k.points.ints, Wide: k.points.wide}
	for _, r := range k.ranges {
		q.Ranges = append(q.Ranges, memindex.Range{LowInt: r.lowInt, HighInt: r.highInt, Low: r.low, High: r.high, LowOpen: r.lowOpen, HighOpen: r.highOpen})
	}
	return q
}
