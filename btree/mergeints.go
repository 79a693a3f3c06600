package btree

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/radix"
)

// chunkEntries is how many entries of all sources together are put in order at a time: what that takes stays in the
// processor's cache.
const chunkEntries = 1 << 16

// signed reports whether the order of a type is that of its bits as 64-bit integers.
func signed(dt arrow.DataType) bool {
	switch dt.ID() {
	case arrow.INT64, arrow.TIMESTAMP, arrow.DATE64, arrow.TIME64, arrow.DURATION:
		return true
	}
	return false
}

// mergeChunks merges sources of 64-bit integers without nulls: it takes from each what lies at or below the least of their
// values a little further on, sorts all of it by digits, and goes on behind. Where values of many sources take turns that
// is a tenth of what finding the least of all sources for each entry costs. Of equal values those of the earlier source come
// first, unless a source has more of them than are taken at a time.
func (m *merger) mergeChunks(ctx context.Context, open cursors) error {
	c := chunk{share: max(chunkEntries/max(len(open), 1), 1)}
	for {
		live := open[:0:0]
		for _, s := range open {
			more, err := s.fill()
			if err != nil {
				return err
			}
			if more {
				live = append(live, s)
			}
		}
		if len(live) == 0 {
			return m.flush(ctx)
		}
		c.gather(live)
		if err := c.emit(ctx, m); err != nil {
			return err
		}
		open = live
	}
}

// chunk is some entries of all sources.
type chunk struct {
	share  int // of a source, at most
	sorter radix.Sorter
	// keys, ids and ranks are of the entries as the sources gave them; order has the places of these once keys is sorted.
	keys  []int64
	ids   []uint64
	ranks []uint16
	order []uint32
}

// gather takes entries of sources that all have some at hand.
func (c *chunk) gather(open cursors) {
	c.keys, c.ids, c.ranks, c.order = c.keys[:0], c.ids[:0], c.ranks[:0], c.order[:0]
	var most int64
	for i, s := range open {
		if v := s.ints()[min(s.at+c.share, len(s.ids))-1]; i == 0 || v < most {
			most = v
		}
	}
	for _, s := range open {
		values := s.ints()
		end := gallop(s.at, min(s.at+c.share, len(values)), func(i int) bool { return values[i] <= most })
		c.keys, c.ids = append(c.keys, values[s.at:end]...), append(c.ids, s.ids[s.at:end]...)
		for range end - s.at {
			c.ranks = append(c.ranks, uint16(s.rank))
		}
		s.at = end
	}
	for i := range c.keys {
		c.order = append(c.order, uint32(i))
	}
	c.sorter.Sort(c.keys, c.order)
}

// emit hands those entries that stay to the writer.
func (c *chunk) emit(ctx context.Context, m *merger) error {
	for i, at := range c.order {
		id, ok := m.keep(int(c.ranks[at]), c.ids[at])
		if !ok {
			continue
		}
		m.ids = append(m.ids, id)
		m.raw = append(m.raw, arrow.Int64Traits.CastToBytes(c.keys[i:i+1])...)
		if len(m.ids) == mergeRows {
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// ints returns the values at hand of a source of 64-bit integers.
func (c *cursor) ints() []int64 {
	data := c.values.Data()
	return arrow.Int64Traits.CastFromBytes(data.Buffers()[1].Bytes())[data.Offset():][:data.Len()]
}

// hasNulls reports whether any of the values is null.
func (x *Index) hasNulls() bool {
	for _, n := range x.nulls {
		if n > 0 {
			return true
		}
	}
	return false
}
