package ivf

import "fmt"

// shuffler takes rows as they come and gives them back partition by partition, those of a partition in the order in which they came.
// The slices given to Add are not kept. It belongs to one goroutine.
type shuffler interface {
	// Add takes rows: the partition of each, -1 for one to leave out, its id, and its codes, which stand in rows.
	Add(parts []int32, ids []uint64, codes []byte) error
	// Finish ends the taking; Partition may follow.
	Finish() error
	// Partition calls fn with the rows of a partition, in pieces, whose slices are valid during the call only. Partitions are asked for in
	// order.
	Partition(p int, fn func(ids []uint64, codes []byte) error) error
	// Close frees what the shuffler holds, in memory and on disk, whether or not it was finished.
	Close() error
}

// memoryShuffle holds all rows in memory: the oracle of the others.
type memoryShuffle struct {
	width int
	ids   [][]uint64
	codes [][]byte
}

// newMemoryShuffle returns a shuffler of rows of width bytes into partitions.
func newMemoryShuffle(partitions, width int) *memoryShuffle {
	return &memoryShuffle{width: width, ids: make([][]uint64, partitions), codes: make([][]byte, partitions)}
}

// Add implements shuffler.
func (m *memoryShuffle) Add(parts []int32, ids []uint64, codes []byte) error {
	if len(parts) != len(ids) || len(codes) != len(ids)*m.width {
		return fmt.Errorf("shuffle: %d partitions and %d bytes for %d rows of %d bytes", len(parts), len(codes), len(ids), m.width)
	}
	for i, p := range parts {
		if p >= 0 {
			m.ids[p] = append(m.ids[p], ids[i])
			m.codes[p] = append(m.codes[p], codes[i*m.width:(i+1)*m.width]...)
		}
	}
	return nil
}

// Finish implements shuffler.
func (m *memoryShuffle) Finish() error { return nil }

// Partition implements shuffler.
func (m *memoryShuffle) Partition(p int, fn func(ids []uint64, codes []byte) error) error {
	if len(m.ids[p]) == 0 {
		return nil
	}
	return fn(m.ids[p], m.codes[p])
}

// Close implements shuffler.
func (m *memoryShuffle) Close() error { return nil }
