package lsm

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"github.com/flightd/flightd/internal/offheap"
)

// TestLogAndMemtableShareABatch puts a batch with the bytes in which it came: these are what the log gets, and the memtable's
// columns lie in them.
func TestLogAndMemtableShareABatch(t *testing.T) {
	ctx, db := t.Context(), openTest(t, t.TempDir())
	defer func() { require.NoError(t, db.Close()) }()
	table := createTest(t, db, "t", writesSchema)
	made := writesBatch(table.Schema(), 0, 1, []int64{3, 1, 2})
	defer made.Release()
	meta, body, err := encodeBatch(made, offheap.Default)
	require.NoError(t, err)
	defer body.Release()
	d, err := newBatchDecoder(table.Schema())
	require.NoError(t, err)
	defer d.close()
	rec, err := d.decode(meta, body)
	require.NoError(t, err)

	p, err := table.admit(ctx, Batch{Record: rec, Meta: meta, Body: body.Bytes()})
	require.NoError(t, err)
	logged := table.logRecord(p).Body
	require.Same(t, &body.Bytes()[0], &logged[2][0])
	require.Same(t, &meta[0], &logged[1][0])
	require.NoError(t, table.writes.rlock(ctx))
	lsn, err := table.appendLocked(ctx, p)
	table.writes.runlock()
	require.NoError(t, err)
	require.NoError(t, db.Wait(ctx, lsn))

	stored := table.set.Load().chains[0].active().rows.Load().batches[0].rec
	for i, c := range stored.Columns() {
		require.Same(t, &valuesOf(rec.Column(i))[0], &valuesOf(c)[0])
	}
	rec.Release()
	require.Len(t, readWrites(t, db, "t"), 3, "the memtable holds the bytes by itself")
}

// valuesOf returns the values' bytes of a column of fixed width.
func valuesOf(a arrow.Array) []byte { return a.Data().Buffers()[1].Bytes() }
