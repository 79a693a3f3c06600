package lsm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/flightd/flightd/internal/offheap"
	"github.com/flightd/flightd/lsm/wal"
)

// buffers tells whether a batch of a stream need not be durable before it is visible.
func (t *Table) buffers(b Batch) bool { return t.Durability() == Buffered && !b.Durable }

// admit checks a batch, waits for the memory that it takes and returns it as a put.
func (t *Table) admit(ctx context.Context, b Batch) (*put, error) {
	if err := t.refuseWrite(); err != nil {
		return nil, err
	}
	s := t.now()
	if err := t.check(s, b.Record); err != nil {
		return nil, err
	}
	bytes, split := b.bytes(), t.splitBytes(b)
	if err := t.awaitRoom(ctx, s, b, bytes+split); err != nil {
		return nil, fmt.Errorf("table %q: %w", t.name, err)
	}
	p, err := t.newPut(s, b, bytes, split)
	if err != nil {
		t.db.budget.release(bytes)
	}
	return p, err
}

// What a batch takes in memory beside its bytes: the objects that describe it and each of its columns on the Go heap
// (measured: 250 to 265 bytes a column). Of a stream of single rows they are nearly all.
const (
	batchOverhead  = 256
	columnOverhead = 264
)

// bytes returns the memory that a batch takes.
func (b *Batch) bytes() int64 {
	overhead := batchOverhead + columnOverhead*b.Record.NumCols()
	if b.Meta != nil {
		return overhead + int64(len(b.Meta)+len(b.Body))
	}
	return overhead + recordBytes(b.Record)
}

// put is a batch on its way to the log and from there to the memtable.
type put struct {
	// shard is the one that the rows are of, if the put has no parts.
	shard *shard
	// parts are the rows by their shards, each with memory of its own.
	parts []*put
	// schema is that of rec.
	schema *tableSchema
	rec    arrow.RecordBatch
	tombs  *array.Boolean
	bytes  int64
	// reserved is what is held of the budget for parts that are still to be made.
	reserved int64
	// buffered is set when the batch is visible before it is durable.
	buffered bool
	// meta and body are what is logged, tombstones says whether it has the column.
	tombstones bool
	meta, body []byte
	// atomic is the number of records that become visible together, this one among them; 0 means only this.
	atomic int

	// record is what the log gets, with the memory of its body's pieces.
	record wal.Record
	pieces [3][]byte
	prefix [batchPrefixBytes]byte
	alone  [1]*wal.Record
	// stream is the one that sent the batch, nil for others. Then users are those who have not done with the put, the log
	// and the applier; the last gives it back.
	stream *Stream
	users  atomic.Int32
}

// puts are those of streams that nobody uses.
var puts = sync.Pool{New: func() any { return new(put) }}

// leave ends the use of a put that the log or the applier had.
func (p *put) leave() {
	if s := p.stream; s != nil && p.users.Add(-1) == 0 {
		*p = put{}
		puts.Put(p)
		s.arrived()
	}
}

// newPut returns a batch that was checked as a put, which shares nothing with the caller's Go heap. Reserved is the memory
// that was taken for its parts, of which it gives back what they do not need.
func (t *Table) newPut(s *tableSchema, b Batch, bytes, reserved int64) (*put, error) {
	columns := s.arrow.NumFields()
	p := puts.Get().(*put)
	p.reserved = reserved
	p.schema, p.bytes, p.meta, p.body, p.tombstones = s, bytes, b.Meta, b.Body, int(b.Record.NumCols()) > columns
	if b.Meta != nil && !p.tombstones && s.takes(b.Record) {
		p.rec = b.Record
		p.rec.Retain()
		return p, p.spread(t)
	}
	rec := b.Record
	if b.Meta == nil {
		var err error
		if rec, err = p.own(b.Record); err != nil {
			t.db.budget.release(reserved)
			return nil, err
		}
		defer rec.Release()
	}
	p.rec, p.tombs = splitTombstones(rec, s)
	return p, p.spread(t)
}

// own encodes a batch for the log and returns it decoded again, over memory outside the Go heap.
func (p *put) own(rec arrow.RecordBatch) (arrow.RecordBatch, error) {
	meta, body, err := encodeBatch(rec, offheap.Default)
	if err != nil {
		return nil, err
	}
	// The record's arrays hold the body from here on. One without rows has no bytes in it, and nobody logs it.
	defer body.Release()
	p.meta, p.body = meta, body.Bytes()
	d, err := newBatchDecoder(p.schema.withTombstones(p.tombstones))
	if err != nil {
		return nil, err
	}
	defer d.close()
	return d.decode(meta, body)
}

// drop lets go of a batch that did not reach the log, and of its memory.
func (p *put) drop(t *Table) {
	p.letGo()
	t.db.budget.release(p.bytes)
}

// letGo lets go of a batch whose memory is not the budget's, and of its parts.
func (p *put) letGo() {
	p.dropParts()
	p.rec.Release()
	if p.tombs != nil {
		p.tombs.Release()
	}
}

// check refuses batches that are not of the table, null keys and nulls where the table has none.
func (t *Table) check(s *tableSchema, rec arrow.RecordBatch) error {
	if s.takes(rec) && s.full(rec) {
		return t.checkRows(rec)
	}
	if err := t.checkShape(s, rec); err != nil {
		return err
	}
	dead := deadIn(s, rec)
	if forms, err := t.checkForms(s, rec, dead); err != nil {
		return err
	} else if !forms {
		s.noteShape(rec)
	}
	for i, f := range s.arrow.Fields() {
		col := rec.Column(i)
		if err := s.checkNested(t.name.String(), f, col, dead); err != nil {
			return err
		}
		// What is acknowledged has to fit the files of its generation.
		if err := s.lance.Fields[i].CheckRows(t.fileVersion(), col); err != nil {
			return fmt.Errorf("%w batch for table %q: column %q: %w", ErrInvalid, t.name, f.Name, err)
		}
		if f.Nullable || col.NullN() == 0 {
			continue
		}
		for row := range col.Len() {
			if col.IsNull(row) && !dead(row) {
				return &ColumnError{Table: t.name.String(), Column: f.Name, Came: fmt.Sprintf("null in row %d", row), Want: f.Type.String() + " not null"}
			}
		}
	}
	return nil
}

// deadIn tells which rows of a batch that checkShape passed are tombstones.
func deadIn(s *tableSchema, rec arrow.RecordBatch) func(row int) bool {
	n := s.arrow.NumFields()
	if int(rec.NumCols()) == n {
		return func(int) bool { return false }
	}
	tombs := rec.Column(n).(*array.Boolean)
	return func(row int) bool { return tombs.IsValid(row) && tombs.Value(row) }
}

// checkShape is check but for nulls in columns that are no key.
func (t *Table) checkShape(s *tableSchema, rec arrow.RecordBatch) error {
	n := s.arrow.NumFields()
	if !s.names(rec) {
		return fmt.Errorf("table %q: %w: it has the columns %s, the batch %s", t.name, ErrTableChanged, columnList(s.arrow), columnList(rec.Schema()))
	}
	if int(rec.NumCols()) == n+1 && s.codec == nil {
		return &ColumnError{Table: t.name.String(), Column: TombstoneColumn, Hint: noKeyHint(t.name)}
	}
	if err := t.checkRows(rec); err != nil {
		return err
	}
	if int(rec.NumCols()) > n {
		if _, ok := rec.Column(n).(*array.Boolean); !ok {
			return &ColumnError{Table: t.name.String(), Column: TombstoneColumn, Came: rec.Column(n).DataType().String(), Want: "bool"}
		}
	}
	if s.codec != nil {
		if err := s.codec.checkNulls(t.name.String(), rec); err != nil {
			return err
		}
	}
	for i, f := range s.arrow.Fields() {
		col := rec.Column(i)
		if widens(col.DataType(), f.Type) { // it was widened since the batch was made
			return fmt.Errorf("table %q: %w: column %q is %s, the batch has %s", t.name, ErrTableChanged, f.Name, f.Type, col.DataType())
		}
		if !sameLayout(col.DataType(), f.Type) {
			return &ColumnError{Table: t.name.String(), Column: f.Name, Came: col.DataType().String(), Want: f.Type.String()}
		}
	}
	return nil
}

// checkRows refuses batches that are too large.
func (t *Table) checkRows(rec arrow.RecordBatch) error {
	if rec.NumRows() > maxBatchRows {
		return fmt.Errorf("%w batch for table %q: it has %d rows, at most %d are allowed", ErrInvalid, t.name, rec.NumRows(), maxBatchRows)
	}
	return nil
}

// maxBatchRows bounds a batch, so that the row numbers of a memtable, which is frozen at this many rows, fit 32 bits.
const maxBatchRows = 1 << 30
