package memindex

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/vector"
)

const (
	// minPosting and maxPosting are the least and the most entries of a block of a posting list. In between a block is as large as
	// half of what the list has: little is left empty, and lists have few blocks.
	minPosting = 8
	maxPosting = 1024
	// assignRows is how many rows are assigned and encoded together: their copies stay in the second cache.
	assignRows = 512
	// rowBytes is a row number in a block.
	rowBytes = 4
)

// IVFPQ is the rows of a memtable by the partition of their vector, each with its code: an inverted file with the centroids and the
// product quantiser of another index, whose partitions and codes these are, to the bit. Without a product quantiser (IVF_FLAT)
// there are no codes.
//
// One goroutine calls Add and Release; the other methods may be called beside it, by any number of goroutines, and see the
// batches that were in when they began, or more.
//
//	list of a partition:  block of 8 ─▶ 8 ─▶ 8 ─▶ 12 ─▶ … ─▶ 1024 ─▶ …
//	block of n:           n row numbers of 4 bytes, rising │ n codes, one after the other
//
// A row whose vector is null, has a null, a NaN or an infinity in it, or is zero under cosine is in no partition. No search
// finds it, as in Lance.
type IVFPQ struct {
	model *vector.IVF
	entry int // bytes of a row
	lists []posting
	// listed is how many rows are in the lists, bytes what all of it takes.
	listed, bytes atomic.Int64
	scratch       sync.Pool // of *ivfScratch

	// What follows belongs to the writer.
	floats []float32
	parts  []int32
	codes  []byte
}

// posting is the list of a partition: blocks that only the writer appends to, and how many entries readers have of them.
type posting struct {
	blocks atomic.Pointer[[]postingBlock]
	rows   atomic.Uint32
	// last and room are the block that is being filled and its free entries; they belong to the writer.
	last postingBlock
	room uint32
}

// postingBlock is a part of a posting list.
type postingBlock struct {
	bytes []byte
	size  uint32 // entries
}

// Memory of what stands on the Go heap.
const (
	postingBytes = 64
	blockBytes   = 32
)

// row returns the row number of an entry.
func (b *postingBlock) row(i uint32) uint32 { return binary.LittleEndian.Uint32(b.bytes[i*rowBytes:]) }

// codes returns the codes of the first n entries.
func (b *postingBlock) codes(n uint32, width int) []byte {
	from := int(b.size) * rowBytes
	return b.bytes[from : from+int(n)*width]
}

// ivfScratch is what a search needs beside the lists.
type ivfScratch struct {
	table    vector.Table
	residual []float32
	rows     []uint32
	dist     []float32
}

// NewIVFPQ returns an empty index with the partitions and codes of a model.
func NewIVFPQ(model *vector.IVF) *IVFPQ {
	x := &IVFPQ{model: model, entry: rowBytes + model.CodeBytes(), lists: make([]posting, model.Partitions())}
	x.scratch.New = func() any {
		return &ivfScratch{residual: make([]float32, model.Dim()), rows: make([]uint32, maxPosting), dist: make([]float32, maxPosting)}
	}
	x.parts = make([]int32, assignRows)
	x.codes = make([]byte, assignRows*model.CodeBytes())
	x.bytes.Store(int64(len(x.lists))*postingBytes + int64(len(x.codes)+4*len(x.parts)))
	return x
}

// Model is what the index was made with.
func (x *IVFPQ) Model() *vector.IVF { return x.model }

// Rows returns how many rows are in partitions.
func (x *IVFPQ) Rows() int64 { return x.listed.Load() }

// MemoryBytes returns the memory that the index occupies.
func (x *IVFPQ) MemoryBytes() int64 { return x.bytes.Load() }

// Growth returns how many bytes more it may occupy once some rows more are in. Each may be the one for which its list needs
// another block, of half of the list's size or less.
func (x *IVFPQ) Growth(rows int) int64 {
	lists := int64(min(rows, len(x.lists)))
	slack := min(lists*(maxPosting+blockSlack), lists*(minPosting+blockSlack)+(x.listed.Load()+int64(rows))/2)
	// Allocations are rounded up by a quarter at most; each block has its place in a list, whose former copy is garbage.
	blocks := lists + 2*int64(rows)/minPosting
	return (slack+int64(rows))*int64(x.entry)*5/4 + blocks*blockBytes + x.floatGrowth(rows)
}

// blockSlack is how many entries a block may have beyond its size, at least: a small one is rounded up to an allocation of 64 bytes.
const blockSlack = 64 / rowBytes

// floatGrowth returns what the copy of rows that are no float32 may grow by.
func (x *IVFPQ) floatGrowth(rows int) int64 {
	return int64(max(0, min(rows, assignRows)*x.model.Dim()-cap(x.floats))) * 4
}

// Add puts the vectors of one batch in, an array of lists of as many numbers as the model has dimensions. Its rows are
// numbered from first on, which is the number behind the last.
func (x *IVFPQ) Add(values arrow.Array, first uint32) {
	width := x.model.CodeBytes()
	for at := 0; at < values.Len(); at += assignRows {
		n := min(assignRows, values.Len()-at)
		was := cap(x.floats)
		var rows []float32
		rows, x.floats = Vectors(values, at, n, x.floats)
		x.bytes.Add(int64(cap(x.floats)-was) * 4)
		parts, codes := x.parts[:n], x.codes[:n*width]
		x.model.AssignEncode(rows, parts, codes)
		listed := int64(0)
		for i, p := range parts {
			if p < 0 || values.IsNull(at+i) {
				continue
			}
			x.push(int(p), first+uint32(at+i), codes[i*width:(i+1)*width])
			listed++
		}
		x.listed.Add(listed)
	}
}

// push appends a row to the list of a partition. What readers have of it ends before it.
func (x *IVFPQ) push(part int, row uint32, code []byte) {
	p := &x.lists[part]
	if p.room == 0 {
		x.extend(p)
	}
	b := &p.last
	i := b.size - p.room
	binary.LittleEndian.PutUint32(b.bytes[i*rowBytes:], row)
	copy(b.bytes[int(b.size)*rowBytes+int(i)*len(code):], code)
	p.room--
	p.rows.Store(p.rows.Load() + 1)
}

// extend adds a block to a list.
func (x *IVFPQ) extend(p *posting) {
	size := min(max(minPosting, int(p.rows.Load())/2), maxPosting)
	bytes := offheap.Default.AllocateDirty(size * x.entry)
	bytes = bytes[:cap(bytes)] // what it was rounded up to is of use
	b := postingBlock{bytes: bytes, size: uint32(min(len(bytes)/x.entry, maxPosting))}
	var blocks []postingBlock
	if old := p.blocks.Load(); old != nil {
		blocks = append(make([]postingBlock, 0, len(*old)+1), *old...)
	}
	blocks = append(blocks, b)
	p.blocks.Store(&blocks)
	p.last, p.room = b, b.size
	x.bytes.Add(int64(len(bytes)) + blockBytes)
}

// each calls fn for the blocks of a partition and how many entries of each there are, until it returns false.
func (x *IVFPQ) each(part int, fn func(b *postingBlock, n uint32) bool) bool {
	p := &x.lists[part]
	left := p.rows.Load() // before the blocks, which are there before the entries
	if left == 0 {
		return true
	}
	blocks := *p.blocks.Load()
	for i := range blocks {
		n := min(left, blocks[i].size)
		if n == 0 || !fn(&blocks[i], n) {
			return n == 0
		}
		left -= n
	}
	return true
}

// Search calls fn for the rows below a number that are in some partitions, a few at a time, with the distances between a query
// and their codes, nil when there are none, until it returns false. The query is one that the model's Prepare made, and the
// partitions may be those of its Probe: to widen a search, search the next ones. A distance is for comparing with others of the
// same model; the model's Distance makes it one of the metric. What fn is given is valid during the call only.
func (x *IVFPQ) Search(q []float32, parts []vector.Neighbor, below uint32, fn func(rows []uint32, dist []float32) bool) {
	s := x.scratch.Get().(*ivfScratch)
	defer x.scratch.Put(s)
	coded, filled := x.model.PQ() != nil, false
	for _, part := range parts {
		fresh := coded && (x.model.Residual() || !filled)
		more := x.each(int(part.ID), func(b *postingBlock, n uint32) bool {
			for i := range n {
				if s.rows[i] = b.row(i); s.rows[i] >= below {
					n = i // rows rise: the next blocks begin at or above it, too
					break
				}
			}
			if n == 0 {
				return true
			}
			if !coded {
				return fn(s.rows[:n], nil)
			}
			if fresh { // not before the list is known to have a row
				x.model.Table(q, int(part.ID), s.residual, &s.table)
				fresh, filled = false, true
			}
			s.table.Scan(b.codes(n, x.entry-rowBytes), s.dist[:n])
			return fn(s.rows[:n], s.dist[:n])
		})
		if !more {
			return
		}
	}
}

// Write calls fn with the rows of each partition and their codes, in rows: the partitions in their order, and the rows of one, which
// may come in parts, in theirs. What it is given is valid during the call only. It ends the walk by an error.
func (x *IVFPQ) Write(fn func(part int, rows []uint32, codes []byte) error) error {
	s := x.scratch.Get().(*ivfScratch)
	defer x.scratch.Put(s)
	for part := range x.lists {
		var err error
		x.each(part, func(b *postingBlock, n uint32) bool {
			for i := range n {
				s.rows[i] = b.row(i)
			}
			err = fn(part, s.rows[:n], b.codes(n, x.entry-rowBytes))
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Release gives the memory back. Nothing may be called after it.
func (x *IVFPQ) Release() {
	for i := range x.lists {
		if blocks := x.lists[i].blocks.Load(); blocks != nil {
			for _, b := range *blocks {
				offheap.Default.Free(b.bytes)
			}
		}
	}
	x.lists, x.floats, x.parts, x.codes = nil, nil, nil, nil
	x.bytes.Store(0)
}
