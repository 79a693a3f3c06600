package manifest

import (
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/flightd/flightd/internal/lancepb"
)

// In a table with stable row ids each row has a number that it keeps wherever it goes. Fragments list those of their rows, and the
// manifest has the next one. Rows that we append get the next numbers, those among them that take the place of others, too: to
// Lance the old row was deleted and another one inserted, which is how readers that follow rows by their ids see it. A fragment also
// says in which version its rows were made, and last changed.
//
// The numbers are a RowIdSequence, of segments: the one that is written here is a range. The versions are a
// RowDatasetVersionSequence, of runs: a segment of rows, counted from 0, and a version.

// rowIDs gives appended fragments their row ids; nil gives none.
type rowIDs struct {
	m *lancepb.Manifest
}

// newRowIDs returns what gives the version's new rows their ids, nil when its rows have none.
func (b *build) newRowIDs() *rowIDs {
	if b.base.StableRowIDs() == nil {
		return nil
	}
	return &rowIDs{b.m}
}

// give gives the rows of a fragment the next ids.
func (r *rowIDs) give(p *lancepb.DataFragment) {
	if r == nil {
		return
	}
	first, rows := r.m.GetNextRowId(), p.GetPhysicalRows()
	p.InlineRowIds = message(1, rangeSegment(first, first+rows))
	run := protowire.AppendVarint(protowire.AppendTag(message(1, rangeSegment(0, rows)), 2, protowire.VarintType), r.m.GetVersion())
	p.InlineCreatedAtVersions = message(1, run)
	p.InlineLastUpdatedAtVersions = p.InlineCreatedAtVersions
	r.m.NextRowId = first + rows
}

// rangeSegment returns a U64Segment of the numbers from one to before another.
func rangeSegment(start, end uint64) []byte {
	var r []byte
	for i, n := range []uint64{start, end} {
		if n > 0 {
			r = protowire.AppendVarint(protowire.AppendTag(r, protowire.Number(i+1), protowire.VarintType), n)
		}
	}
	return message(1, r)
}

// message returns a message that only has a field with another message.
func message(field protowire.Number, inner []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), inner)
}

// checkRowIDs refuses what would lose the ids of rows: fragments in the place of others, and indexes, which name rows by their ids.
func (b *build) checkRowIDs() error {
	if b.base.StableRowIDs() != nil && (len(b.change.Rewrite) > 0 || b.change.Indexes != nil) {
		return &UnsupportedError{Name: b.base.name, Bit: bits.TrailingZeros64(flagStableRowIDs), Write: true}
	}
	return nil
}
