package memindex

import "github.com/flightd/flightd/internal/offheap"

const (
	// chunkRows is how many rows have their words in one piece of memory. Pieces are never moved, so readers need no copy,
	// and an index grows without moving what it has.
	chunkRows  = 1 << chunkShift
	chunkShift = 13

	// blockChunks is how many pieces come at once when there are as many: together they are one huge page.
	blockChunks = 32
)

// pieces is a list with a word for each row, outside the Go heap: the garbage collector neither counts nor clears it. The
// zero value is empty.
type pieces[T offheap.Word] struct {
	list   [][]T
	blocks [][]T // what the pieces are cut from
}

// at returns the word of a row.
func (p *pieces[T]) at(row uint32) T { return p.list[row>>chunkShift][row%chunkRows] }

// tail returns the words from a row on to the end of its piece, which is added if it is the next. They are not zero.
func (p *pieces[T]) tail(row uint32) []T {
	if int(row>>chunkShift) == len(p.list) {
		n := p.next(len(p.list))
		block := offheap.Words[T](offheap.Default, n*chunkRows, true)
		p.blocks = append(p.blocks, block)
		for ; len(block) > 0; block = block[chunkRows:] {
			p.list = append(p.list, block[:chunkRows:chunkRows])
		}
	}
	return p.list[row>>chunkShift][row%chunkRows:]
}

// next returns how many pieces come behind so many.
func (p *pieces[T]) next(have int) int {
	if have < blockChunks {
		return 1
	}
	return blockChunks
}

// bytes returns the memory of the list.
func (p *pieces[T]) bytes() int64 { return int64(len(p.list)) * chunkRows * wordBytes }

// growth returns how many bytes more the list will occupy once it has so many rows.
func (p *pieces[T]) growth(rows int) int64 {
	have := len(p.list)
	for have*chunkRows < rows {
		have += p.next(have)
	}
	return int64(have-len(p.list)) * chunkRows * wordBytes
}

// release gives the memory back.
func (p *pieces[T]) release() {
	for _, b := range p.blocks {
		offheap.FreeWords(offheap.Default, b)
	}
	*p = pieces[T]{}
}
