package ivf

import (
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/internal/offheap"
)

// rowBuffer gathers rows up to a set size and gives them back sorted by their partitions. It lies outside the Go heap, whose
// collector would let a large block stand for twice its size. Pages of it that were not touched take no memory.
type rowBuffer struct {
	width, partitions int
	rows, most        int

	blocks [][]byte
	parts  []int32
	ids    []uint64
	codes  []byte
	order  []uint32 // the rows, sorted
	ends   []uint32 // of each partition in order
}

// rowOverhead is what a row takes in the buffer beside its code: id, partition and place in the order.
const rowOverhead = 8 + 4 + 4

// newRowBuffer returns a buffer of about so many bytes for rows of width bytes.
func newRowBuffer(partitions, width int, bytes int64) *rowBuffer {
	most := int(min(max(bytes/int64(width+rowOverhead), 1), math.MaxInt32))
	b := &rowBuffer{width: width, partitions: partitions, most: most, ends: make([]uint32, partitions)}
	b.parts = arrow.Int32Traits.CastFromBytes(b.block(4 * most))
	b.ids = arrow.Uint64Traits.CastFromBytes(b.block(8 * most))
	b.order = arrow.Uint32Traits.CastFromBytes(b.block(4 * most))
	b.codes = b.block(width * most)
	return b
}

func (b *rowBuffer) block(n int) []byte {
	block := offheap.Default.AllocateDirty(n)
	b.blocks = append(b.blocks, block)
	return block
}

// take copies rows that have a partition until the buffer is full, and returns how many of the rows it has dealt with.
func (b *rowBuffer) take(parts []int32, ids []uint64, codes []byte) (int, error) {
	for i, p := range parts {
		switch {
		case p < 0:
			continue
		case int(p) >= b.partitions:
			return i, fmt.Errorf("row %d is of partition %d, there are %d", ids[i], p, b.partitions)
		case b.rows == b.most:
			return i, nil
		}
		b.parts[b.rows], b.ids[b.rows] = p, ids[i]
		copy(b.codes[b.rows*b.width:(b.rows+1)*b.width], codes[i*b.width:])
		b.rows++
	}
	return len(parts), nil
}

// fill takes all of some rows, and calls full, which empties it, whenever there are more than fit.
func (b *rowBuffer) fill(parts []int32, ids []uint64, codes []byte, full func() error) error {
	for len(parts) > 0 {
		n, err := b.take(parts, ids, codes)
		if err == nil && n < len(parts) {
			err = full()
		}
		if err != nil {
			return err
		}
		parts, ids, codes = parts[n:], ids[n:], codes[n*b.width:]
	}
	return nil
}

// sort orders the rows by partition, those of one as they came: by counting, which reads the partitions twice.
func (b *rowBuffer) sort() {
	clear(b.ends)
	for _, p := range b.parts[:b.rows] {
		b.ends[p]++
	}
	sum := uint32(0)
	for p, n := range b.ends {
		b.ends[p] = sum // where it begins, for now
		sum += n
	}
	for i, p := range b.parts[:b.rows] {
		b.order[b.ends[p]] = uint32(i)
		b.ends[p]++
	}
}

// span returns where the rows of a partition lie in the order.
func (b *rowBuffer) span(p int) (from, to int) {
	if p > 0 {
		from = int(b.ends[p-1])
	}
	return from, int(b.ends[p])
}

// batch returns rows of the order as a batch with the columns of shuffleSchema.
func (b *rowBuffer) batch(schema *arrow.Schema, from, to int) arrow.RecordBatch {
	n := to - from
	ids, codes := memory.NewResizableBuffer(offheap.Default), memory.NewResizableBuffer(offheap.Default)
	defer ids.Release()
	defer codes.Release()
	ids.Resize(8 * n)
	codes.Resize(b.width * n)
	idsTo, codesTo := arrow.Uint64Traits.CastFromBytes(ids.Bytes()), codes.Bytes()
	for i, row := range b.order[from:to] {
		idsTo[i] = b.ids[row]
		copy(codesTo[i*b.width:(i+1)*b.width], b.codes[int(row)*b.width:])
	}
	idData := array.NewData(arrow.PrimitiveTypes.Uint64, n, []*memory.Buffer{nil, ids}, nil, 0, 0)
	items := array.NewData(arrow.PrimitiveTypes.Uint8, n*b.width, []*memory.Buffer{nil, codes}, nil, 0, 0)
	codeData := array.NewData(schema.Field(1).Type, n, []*memory.Buffer{nil}, []arrow.ArrayData{items}, 0, 0)
	idArray, codeArray := array.MakeFromData(idData), array.MakeFromData(codeData)
	for _, r := range []interface{ Release() }{idData, items, codeData} {
		r.Release()
	}
	defer idArray.Release()
	defer codeArray.Release()
	return array.NewRecordBatch(schema, []arrow.Array{idArray, codeArray}, int64(n))
}

// clear forgets the rows.
func (b *rowBuffer) clear() { b.rows = 0 }

// close gives the memory back.
func (b *rowBuffer) close() {
	for _, block := range b.blocks {
		offheap.Default.Free(block)
	}
	*b = rowBuffer{}
}

// shuffleSchema is that of a shuffle's files.
func shuffleSchema(width int) *arrow.Schema {
	return arrow.NewSchema([]arrow.Field{
		{Name: "_rowid", Type: arrow.PrimitiveTypes.Uint64},
		{Name: "code", Type: arrow.FixedSizeListOfNonNullable(int32(width), arrow.PrimitiveTypes.Uint8)},
	}, nil)
}

// shuffleColumns returns the columns of a batch that was read from a shuffle's file. They share its memory.
func shuffleColumns(rec arrow.RecordBatch, width int) (ids []uint64, codes []byte) {
	lists := rec.Column(1).(*array.FixedSizeList)
	from := lists.Data().Offset() * width
	values := lists.ListValues().(*array.Uint8).Uint8Values()
	return rec.Column(0).(*array.Uint64).Uint64Values(), values[from : from+lists.Len()*width]
}
