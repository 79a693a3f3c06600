package lsm

import (
	"errors"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/flightd/flightd/lsm/wal"
)

// loggedRows returns the rows of a batch as an entry of the log in a store of objects has them: the columns of its schema,
// without metadata, and `_tombstone`, of which no row is null. The caller releases them.
func loggedRows(r *wal.Record) (arrow.RecordBatch, error) {
	p, ok := r.Value.(*put)
	if !ok {
		return nil, errors.New("log a batch: the record has no rows")
	}
	var tombs arrow.Array = p.tombs
	if p.tombs == nil {
		b := array.NewBooleanBuilder(memory.DefaultAllocator)
		defer b.Release()
		b.AppendValues(make([]bool, p.rec.NumRows()), nil)
		none := b.NewBooleanArray()
		defer none.Release()
		tombs = none
	}
	cols := append(append([]arrow.Array(nil), p.rec.Columns()...), tombs)
	return array.NewRecordBatch(BareSchema(p.schema.withTombstones(true)), cols, p.rec.NumRows()), nil
}

// batchPrefix returns what begins the body of a batch whose IPC header is given: it has `_tombstone`.
func batchPrefix(meta []byte) []byte {
	b := make([]byte, batchPrefixBytes)
	putBatchPrefix(b, true, len(meta))
	return b
}
