package query

import (
	"context"
	"slices"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
)

// pieces cuts the morsels of a reader into smaller ones.
type pieces struct {
	whole morselReader
	rows  int64 // of a piece at most

	mu   sync.Mutex
	rest []morsel // of the last morsel, guarded by mu
}

// next implements morselReader. Reading under the lock keeps the threads of a scan from cutting more than they use.
func (p *pieces) next(ctx context.Context) (morsel, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.rest) == 0 {
		m, err := p.whole.next(ctx)
		if err != nil {
			return morsel{}, err
		}
		p.rest = cutMorsel(m, p.rows)
		m.release()
	}
	m := p.rest[0]
	p.rest = p.rest[1:]
	return m, nil
}

// close implements morselReader.
func (p *pieces) close() {
	for _, m := range p.rest {
		m.release()
	}
	p.whole.close()
}

// cutMorsel returns the pieces of a morsel that have live rows.
func cutMorsel(m morsel, rows int64) (out []morsel) {
	for from := int64(0); from < m.record.NumRows(); from += rows {
		to := min(from+rows, m.record.NumRows())
		var live []uint32
		if m.live != nil {
			first, _ := slices.BinarySearch(m.live, uint32(from))
			last, _ := slices.BinarySearch(m.live, uint32(to))
			if first == last {
				continue
			}
			for _, row := range m.live[first:last] {
				live = append(live, row-uint32(from))
			}
		}
		rec := m.record.NewSlice(from, to)
		out = append(out, morsel{record: rec, live: live, release: rec.Release})
	}
	return out
}

// hasStructOfStruct reports whether a type is a struct with a struct for a field.
func hasStructOfStruct(dt arrow.DataType) bool {
	s, ok := dt.(*arrow.StructType)
	return ok && slices.ContainsFunc(s.Fields(), func(f arrow.Field) bool { return f.Type.ID() == arrow.STRUCT })
}
